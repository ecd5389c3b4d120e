//! Processes as the operating system knows them: who they are, when they end, how they are signalled.
//!
//! Owns the rule that a number is not a process: an identity is pid *and* start time, it is pinned by a pidfd before
//! anything is believed about it, and every signal goes through that pidfd. Knows nothing of applications, epochs or
//! operations.

pub(crate) mod boot;
pub(crate) mod children;
pub mod helper_command;
pub(crate) mod launcher;
pub(crate) mod membership;
pub mod signal;
pub(crate) mod table;

pub use children::Exit;
pub use table::{Entry, Reaction, Reactions, State};

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

/// One process since the machine was booted. A pid alone is handed out again after its process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Process id, never 1 or below: 0 and negative numbers mean groups to the kernel, 1 is the machine or container.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)
    }
}

/// Why a process cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a pid that may ever be signalled.
    #[error("pid {0} is not a process of an application")]
    Forbidden(i32),
    /// The operating system refused.
    #[error("cannot open pid {pid}")]
    Os {
        /// Whose.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A process pinned by a pidfd. As long as this value lives its signals reach this very process or nobody.
#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Pins exactly this process; `None` when it has ended, even if its pid belongs to somebody else by now.
    pub(crate) fn open(identity: Identity) -> Result<Option<Self>, OpenError> {
        Ok(Self::pin(identity.pid)?.filter(|process| process.identity == identity))
    }

    /// Pins whoever has this pid now; for our own children, whose pid cannot be handed out before we reap them.
    pub(crate) fn pin(pid: i32) -> Result<Option<Self>, OpenError> {
        let os = |source| OpenError::Os { pid, source };
        let raw = (pid > 1).then(|| Pid::from_raw(pid)).flatten().ok_or(OpenError::Forbidden(pid))?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(os(error.into())),
        };
        // Read after the pidfd is open: if this start time is the expected one, the pidfd cannot mean anybody else.
        let entry = table::entry(pid).map_err(os)?;
        Ok(entry.map(|entry| Self { identity: entry.identity(), pidfd: Arc::new(pidfd) }))
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn pid(&self) -> i32 {
        self.identity.pid
    }

    /// Completes when the process has ended (all its threads), reaped or not.
    #[expect(
        deprecated,
        reason = "the successor is an unsafe fn, which this workspace forbids; its contract (the descriptor stays open \
                  and the same) holds for an owned descriptor"
    )]
    pub(crate) fn ended(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let readable = AsyncFd::with_interest(Arc::clone(&self.pidfd), Interest::READABLE)?;
        Ok(async move {
            // An error can only mean that the runtime is shutting down: then nobody waits for the answer.
            if readable.readable().await.is_err() {
                std::future::pending().await
            }
        })
    }

    /// Sends a signal. `false` when the process has already ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn a_reused_pid_is_not_taken_for_the_old_process() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let there = Process::pin(pid).unwrap().unwrap().identity();

        let earlier = Identity { pid, start: there.start - 1 };
        assert!(Process::open(earlier).unwrap().is_none(), "another start time is another process");
        assert!(Process::open(there).unwrap().is_some());

        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Process::open(there).unwrap().is_none());
    }

    #[test]
    fn pids_that_mean_groups_or_init_are_refused() {
        for pid in [-1, 0, 1] {
            assert!(matches!(Process::pin(pid), Err(OpenError::Forbidden(_))));
        }
    }

    #[tokio::test]
    async fn a_pinned_process_is_seen_to_end_and_then_takes_no_signal() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::pin(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
        let ended = process.ended().unwrap();
        assert!(process.signal(Signal::KILL).unwrap());
        ended.await;
        child.wait().unwrap();
        assert!(!process.signal(Signal::KILL).unwrap());
    }
}
