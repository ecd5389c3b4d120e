//! Processes under test: started, asked what they use, ended.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Longest wait for a process to come up or to end; a restart with a hundred thousand operations takes seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// How often its log is looked at meanwhile. Nothing that is measured depends on it.
const LOOK: Duration = Duration::from_millis(5);
/// Names a directory with the programs under test.
const PROGRAMS: &str = "QUIESCE_BENCH_PROGRAMS";

/// The path of a program under test.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.ancestors().nth(2).map(Path::to_owned);
    let directory = std::env::var_os(PROGRAMS).map(PathBuf::from).or(beside).context("this program has a place")?;
    let path = directory.join(name);
    if path.exists() { Ok(path) } else { bail!("{} is not there: build it, or set {PROGRAMS}", path.display()) }
}

/// This very program in another role.
pub(crate) fn role(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words);
    Ok(command)
}

/// A process that is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`; what it says goes to a file, as a service manager would have it.
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of its log contains `text`; that line.
    pub(crate) async fn says(&mut self, text: &str) -> anyhow::Result<String> {
        let end = Instant::now() + LIMIT;
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status} and never said {text:?}: {log}");
            }
            if Instant::now() > end {
                bail!("it did not say {text:?} in time: {}", log.chars().take(2000).collect::<String>());
            }
            sleep(LOOK).await;
        }
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > end {
                bail!("it does not end");
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a process uses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Resident memory, in bytes.
    pub(crate) resident: u64,
    /// Time on a core, of the threads that live.
    pub(crate) cpu: Duration,
    /// How often its threads went to sleep and so were woken up again.
    pub(crate) sleeps: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut usage =
            Self { resident: status(Path::new(&format!("/proc/{pid}/status")), "VmRSS:")? * 1024, ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let nanoseconds = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = nanoseconds.split_whitespace().next().context("schedstat begins with the time")?;
            usage.cpu += Duration::from_nanos(nanoseconds.parse()?);
            usage.sleeps += status(&task.join("status"), "voluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }
}

fn status(path: &Path, key: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("{key} is missing"))?;
    Ok(line.split_whitespace().next().context("it has a value")?.parse()?)
}

/// A production scheduler over a directory of its own.
pub(crate) struct Scheduler {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    /// What it said how many operations it has taken up.
    pub(crate) resumed: usize,
    flags: Vec<String>,
    directory: TempDir,
}

impl Scheduler {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// With more flags; everything else is as it comes.
    pub(crate) async fn start_with(flags: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(disk_directory())?;
        let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (running, address, resumed) = Self::spawn(&directory, "127.0.0.1:0", &flags).await?;
        Ok(Self { running, address, resumed, flags, directory })
    }

    async fn spawn(
        directory: &TempDir,
        listen: &str,
        flags: &[String],
    ) -> anyhow::Result<(Running, SocketAddr, usize)> {
        let mut command = Command::new(program("quiesce")?);
        let data = directory.path().join("data");
        command.args(["scheduler", "--listen", listen, "--admin-listen", "off", "--data-dir"]).arg(data).args(flags);
        let mut running = Running::start(command, &directory.path().join("log"))?;
        let line = running.says("operations resumed: ").await?;
        let resumed = behind(&line, "operations resumed: ").parse()?;
        let line = running.says("scheduler listens on").await?;
        let address = behind(&line, "://").parse().ok();
        Ok((running, address.with_context(|| format!("no address in {line:?}"))?, resumed))
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Ends it as a crash does.
    pub(crate) fn crash(&mut self) -> anyhow::Result<()> {
        self.running.kill()
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let listen = self.address.to_string();
        let (running, _, resumed) = Self::spawn(&self.directory, &listen, &self.flags).await?;
        (self.running, self.resumed) = (running, resumed);
        Ok(())
    }
}

/// What a line says behind `words`, up to what no number and no address contains; whether the line is text or JSON.
fn behind<'a>(line: &'a str, words: &str) -> &'a str {
    let text = line.split_once(words).map_or("", |(_, behind)| behind);
    text.split(|character: char| !matches!(character, '0'..='9' | '.' | ':')).next().unwrap_or_default()
}

/// Where files are made: on the disk under the build's directory, not in a file system in memory.
pub(crate) fn disk_directory() -> PathBuf {
    let here = std::env::current_exe().ok();
    here.as_deref().and_then(Path::parent).map_or_else(std::env::temp_dir, Path::to_owned)
}
