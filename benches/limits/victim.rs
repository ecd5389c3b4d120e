//! An application that says, on the clock that all processes share, when it was started and when it ended.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

/// Names the directory for what it says.
const DIRECTORY: &str = "LIMITS_VICTIM";
/// So many milliseconds it lives, if it is to end by itself.
pub(crate) const LIVES: &str = "LIMITS_VICTIM_LIVES";
/// The process that measures: an application does not outlive it.
const HARNESS: &str = "LIMITS_HARNESS";
const STARTED: &str = "started";
const ENDED: &str = "ended";
/// Longest life of an application that nobody stops: nothing is left behind for long.
const FOR_EVER: Duration = Duration::from_secs(1800);

/// Now, on a clock that is the same in every process.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// What an application needs to know in its environment.
pub(crate) fn environment(directory: &Path) -> [(&'static str, OsString); 2] {
    [(DIRECTORY, directory.into()), (HARNESS, std::process::id().to_string().into())]
}

/// When the applications of this directory were started, in order.
pub(crate) fn started(directory: &Path) -> Vec<Duration> {
    read(directory, STARTED)
}

/// When they ended, just before they exited.
pub(crate) fn ended(directory: &Path) -> Vec<Duration> {
    read(directory, ENDED)
}

fn read(directory: &Path, name: &str) -> Vec<Duration> {
    let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok().map(Duration::from_nanos)).collect()
}

fn write(name: &str) -> anyhow::Result<()> {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return Ok(()) };
    let mut file = OpenOptions::new().create(true).append(true).open(Path::new(&directory).join(name))?;
    Ok(file.write_all(format!("{}\n", now().as_nanos()).as_bytes())?)
}

/// Readable when the process that measures has ended.
fn harness() -> anyhow::Result<AsyncFd<OwnedFd>> {
    let pid: i32 = std::env::var(HARNESS)?.parse()?;
    let pidfd = pidfd_open(Pid::from_raw(pid).context("the harness has a pid")?, PidfdFlags::empty())?;
    #[expect(deprecated, reason = "the successor is an unsafe fn; the descriptor stays open and the same")]
    Ok(AsyncFd::with_interest(pidfd, Interest::READABLE)?)
}

/// Runs until SIGTERM.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    write(STARTED)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
            UnixDatagram::unbound()?.send_to(b"READY=1", socket)?;
        }
        let harness = harness()?;
        let lives = std::env::var(LIVES).ok().and_then(|text| text.parse().ok()).map(Duration::from_millis);
        let told = async {
            tokio::select! {
                _told = terminate.recv() => {}
                // An agent that is killed leaves its application alone, as it should; nothing else would end it then.
                _gone = harness.readable() => {}
            }
        };
        // Over in time or told so.
        let _over = timeout(lives.unwrap_or(FOR_EVER), told).await;
        anyhow::Ok(())
    })?;
    write(ENDED)?;
    Ok(ExitCode::SUCCESS)
}
