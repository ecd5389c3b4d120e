//! Latency when nothing else goes on: a deletion reaches the hook, the end of a process reaches a watcher.
//!
//! The limit is the path without anything on it: one after the other, so many bare round trips and so many syncs of a small
//! file as the path has.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use prost::Message as _;
use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::Sorted;
use quiesce_protocol::v1;
use tokio::time::{sleep, timeout};
use v1::operation::State;

use crate::callers::{Callers, Watcher, connect};
use crate::disk::Single;
use crate::hooks::Hooks;
use crate::plain;
use crate::process::{LIMIT, Running, Scheduler, disk_directory, program, role};
use crate::size::Size;
use crate::victim;
use crate::whole::Bones;

/// From DELETE to Shutdown: the call itself, GetHookInfo, CheckShutdown, Shutdown, of the first and last one half each.
const STOP_ROUND_TRIPS: usize = 3;
/// On that path: accepted, preparing, stopping.
const STOP_SYNCS: usize = 3;
/// From exit to STOPPED: half of the hook's stream, half of the watcher's.
const END_ROUND_TRIPS: usize = 1;
/// On that path: the agent's journal and its record, the scheduler's transition.
const END_SYNCS: usize = 3;
/// Between two operations, so that nothing of the one is left when the next begins.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let hooks = Hooks::new(true);
    let listening = hooks.listen().await?;
    let scheduler = Scheduler::start().await?;
    let callers = Callers::connect(scheduler.address).await?;
    let watcher = Watcher::begin(scheduler.address).await?;
    callers.create("first", 1, listening.address).await?;
    callers.run("first", 1, 1, &watcher).await?;
    let bones = Bones::start(listening.address, &watcher.seen().sample, 1).await?;
    let bare = Callers::connect(bones.address).await?;
    let directory = tempfile::tempdir_in(disk_directory())?;
    let mut disk = Single::create(&directory.path().join("single"))?;

    callers.create("single", size.singles, listening.address).await?;
    // Whoever has just registered is looked at more often.
    if size.singles > 10 {
        sleep(Duration::from_secs(12)).await;
    }
    let mut told = hooks.told();
    let (mut stops, mut stop_paths) = (Vec::new(), Vec::new());
    for number in 0..size.singles {
        told.mark_unchanged();
        let begin = Instant::now();
        let operation = callers.delete(0, &format!("single-{number}")).await?;
        timeout(LIMIT, told.changed()).await??;
        let arrived = told.borrow().1.context("it was told")?;
        stops.push(arrived - begin);
        watcher.over(&operation).await?;
        sleep(PAUSE).await;
        stop_paths.push(path(&bare, &mut disk, STOP_ROUND_TRIPS, STOP_SYNCS).await?);
    }
    let (mut ends, mut end_paths) = (Vec::new(), Vec::new());
    for number in 0..size.singles.div_ceil(4) {
        ends.push(end(&scheduler, &callers, number).await?);
        end_paths.push(path(&bare, &mut disk, END_ROUND_TRIPS, END_SYNCS).await?);
    }
    let mut rows = rows("DELETE to Shutdown at the hook", stops, stop_paths, STOP_ROUND_TRIPS, STOP_SYNCS);
    rows.extend(self::rows("exit of a process to STOPPED at a watcher", ends, end_paths, END_ROUND_TRIPS, END_SYNCS));
    Ok(rows)
}

fn rows(what: &str, ours: Vec<Duration>, bare: Vec<Duration>, round_trips: usize, syncs: usize) -> Vec<Row> {
    let (ours, bare) = (Sorted::of(ours), Sorted::of(bare));
    let row = |percent, most| {
        let microseconds = |sorted: &Sorted| sorted.quantile(percent).as_secs_f64() * 1e6;
        Row::new(format!("idle, {what}, p{percent}"), Unit::Microseconds, microseconds(&ours))
            .beside(format!("bare path: {round_trips} round trips, {syncs} syncs"), microseconds(&bare))
            .goal(Goal::RatioAtMost(most))
            .note(format!("{} times", ours.count()))
    };
    vec![row(50, 2.0), row(99, 3.0)]
}

async fn path(bare: &Callers, disk: &mut Single, round_trips: usize, syncs: usize) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    for _ in 0..round_trips {
        bare.scheduler(0).get_operation(v1::GetOperationRequest::default()).await?;
    }
    for _ in 0..syncs {
        disk.sync()?;
    }
    Ok(begin.elapsed())
}

/// A real agent with a real application that is deleted: from its end to the watcher.
async fn end(scheduler: &Scheduler, callers: &Callers, number: usize) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir_in(disk_directory())?;
    let application = format!("real-{number}");
    let mut agent = agent(scheduler, &application, directory.path())?;
    let mut events = plain::watch(connect(scheduler.address).await?, "").await?;
    events.next().await.context("a watch begins with something")??;
    until_started(directory.path()).await?;
    sleep(PAUSE).await;
    callers.delete(0, &application).await?;
    let seen = timeout(LIMIT, async {
        while let Some(encoded) = events.next().await {
            let event = v1::OperationEvent::decode(encoded?)?;
            if event.operation.is_some_and(|operation| operation.state() == State::Stopped) {
                return Ok(victim::now());
            }
        }
        anyhow::bail!("the watch ended")
    });
    let seen = seen.await??;
    let ended = victim::ended(directory.path()).pop().context("the application says when it ended")?;
    agent.ended().await?;
    Ok(seen.saturating_sub(ended))
}

/// An agent that dials in, with an application that says when it starts and ends.
pub(crate) fn agent(scheduler: &Scheduler, application: &str, directory: &std::path::Path) -> anyhow::Result<Running> {
    let mut command = Command::new(program("quiesce-agent")?);
    command.args(["--application", application, "--cluster", "here", "--instance", "one", "--scheduler"]);
    command.arg(format!("http://{}", scheduler.address)).arg("--state-dir").arg(directory.join("state"));
    command.arg("--").arg(std::env::current_exe()?).arg("victim").envs(victim::environment(directory));
    Running::start(command, &directory.join("log"))
}

/// Waits until the application of this directory runs.
pub(crate) async fn until_started(directory: &std::path::Path) -> anyhow::Result<()> {
    let started = async {
        while victim::started(directory).is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    Ok(timeout(LIMIT, started).await?)
}

/// The application without an agent.
pub(crate) fn bare_victim(directory: &std::path::Path) -> anyhow::Result<Running> {
    let mut command = role(&["victim"])?;
    command.envs(victim::environment(directory));
    Running::start(command, &directory.join("log"))
}
