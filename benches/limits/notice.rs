//! How soon the end of a process is known: verified and in the journal of the agent, and by nothing but a pidfd.
//!
//! In a process of its own, since a supervisor takes in the orphans of the process it is in.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quiesce_agent::application::{AppState, Application as _, Permission, StartOrder};
use quiesce_agent::host::Host;
use quiesce_agent::journal::Journal;
use quiesce_agent::supervise::{Config, Supervisor};
use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::Sorted;
use quiesce_runtime::tasks::Tasks;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::process::{LIMIT, Running, disk_directory, role};
use crate::size::Size;
use crate::victim;

/// What an application that ends by itself lives.
const LIVES: &str = "20";
/// What it says before the figures.
const NOTICED: &str = "noticed after ";
/// How often an agent's application ends, for each start that is timed.
const ENDS: usize = 4;

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir_in(disk_directory())?;
    let words = ["notice", &directory.path().display().to_string(), &(size.starts * ENDS).to_string()];
    let mut command = role(&words)?;
    command.envs(victim::environment(directory.path())).env(victim::LIVES, LIVES);
    let log = directory.path().join("log");
    let mut running = Running::start(command, &log)?;
    let line = running.says(NOTICED).await?;
    let figures: Vec<f64> = line.trim_start_matches(NOTICED).split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [ours_p50, ours_p99, bare_p50, bare_p99] = figures[..] else { anyhow::bail!("not four figures: {line}") };
    let row = |name: &str, ours, bare| {
        Row::new(format!("agent, end of a process verified and in the journal, {name}"), Unit::Microseconds, ours)
            .beside("bare pidfd", bare)
            .note(format!("{} times", size.starts * ENDS))
    };
    Ok(vec![row("p50", ours_p50, bare_p50), row("p99", ours_p99, bare_p99).goal(Goal::AtMost(500.0))])
}

/// Starts an application again and again, by a supervisor and without one, and says how soon its end was noticed.
pub(crate) fn run(directory: &Path, count: usize) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ours, bare) = runtime.block_on(Box::pin(notice(directory.to_owned(), count)))?;
    let (ours, bare) = (Sorted::of(ours), Sorted::of(bare));
    let microseconds = |sorted: &Sorted, percent| sorted.quantile(percent).as_secs_f64() * 1e6;
    println!(
        "{NOTICED}{} {} {} {}",
        microseconds(&ours, 50),
        microseconds(&ours, 99),
        microseconds(&bare, 50),
        microseconds(&bare, 99)
    );
    Ok(ExitCode::SUCCESS)
}

async fn notice(directory: PathBuf, count: usize) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let tasks = Tasks::new();
    let journal = Journal::open(&Host::linux(), &directory.join("state")).await?;
    let program = std::env::current_exe()?.into_os_string();
    let config = Config::new(vec![program.clone(), "victim".into()]);
    let supervisor = Supervisor::open(config, journal, &tasks).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for number in 0..count {
        let order = StartOrder {
            permission: Permission::New(number as u64 + 1),
            application: "app".to_owned(),
            instance: "one".to_owned(),
            cluster: "here".to_owned(),
            trace: None,
        };
        let mut status = supervisor.status();
        supervisor.start(order).await?;
        timeout(LIMIT, status.wait_for(|status| status.state == AppState::Stopped)).await??;
        let noticed = victim::now();
        ours.push(since_end(&directory, noticed)?);

        let mut child = Command::new(&program).arg("victim").spawn()?;
        let pidfd = Arc::new(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?);
        #[expect(deprecated, reason = "the successor is an unsafe fn; the descriptor stays open and the same")]
        let readable = AsyncFd::with_interest(Arc::clone(&pidfd), Interest::READABLE)?;
        let ready = timeout(LIMIT, readable.readable()).await??;
        let noticed = victim::now();
        drop(ready);
        bare.push(since_end(&directory, noticed)?);
        child.wait()?;
    }
    Ok((ours, bare))
}

fn since_end(directory: &Path, noticed: Duration) -> anyhow::Result<Duration> {
    Ok(noticed.saturating_sub(victim::ended(directory).pop().context("it says when it ended")?))
}
