//! Ending gracefully: one side says "finish up", the other side hears it and finishes.
//!
//! Owns the announcement and the bounded wait for those who asked to be waited for. It ends nothing by force; tasks
//! that must not outlive the process belong to [`crate::tasks`].

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Makes a connected pair.
pub fn channel() -> (Signal, Watch) {
    let token = CancellationToken::new();
    let holds = TaskTracker::new();
    // A closed tracker still hands out tokens; closing only lets `wait` end as soon as there are none.
    holds.close();
    (Signal { token: token.clone(), holds: holds.clone() }, Watch { token, holds })
}

/// The side that decides. Dropping it announces nothing.
#[derive(Debug)]
pub struct Signal {
    token: CancellationToken,
    holds: TaskTracker,
}

/// Some work was still going on when the wait was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{holds} pieces of work did not finish within {limit:?}")]
pub struct UnfinishedError {
    /// How many [`Hold`]s were still alive.
    pub holds: usize,
    /// How long they were waited for.
    pub limit: Duration,
}

impl Signal {
    /// Announces the end without waiting. May be called often.
    pub fn announce(&self) {
        self.token.cancel();
    }

    /// Announces the end and waits until no [`Hold`] is left, at most `limit`. May be called again to wait longer.
    pub async fn drain(&self, limit: Duration) -> Result<(), UnfinishedError> {
        self.announce();
        match tokio::time::timeout(limit, self.holds.wait()).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(UnfinishedError { holds: self.holds.len(), limit }),
        }
    }
}

/// The side that listens: cheap to clone, and by itself keeps nobody waiting, so a service may own one for ever.
#[derive(Debug, Clone)]
pub struct Watch {
    token: CancellationToken,
    holds: TaskTracker,
}

impl Watch {
    /// Waits for the announcement; at once if it was made already. Cancel-safe, made for `select!`.
    pub async fn signaled(&self) {
        self.token.cancelled().await;
    }

    /// The same as a future of its own, for `StreamExt::take_until` and servers with graceful shutdown.
    pub fn into_signaled(self) -> impl Future<Output = ()> + Send + 'static {
        self.token.cancelled_owned()
    }

    /// Whether the announcement was made.
    pub fn is_draining(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks that [`Signal::drain`] wait until the returned value is dropped: for the work of one request or stream.
    pub fn hold(&self) -> Hold {
        Hold { _token: self.holds.token() }
    }
}

/// Keeps [`Signal::drain`] waiting while it lives.
#[derive(Debug)]
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold {
    _token: TaskTrackerToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn watchers_hear_the_announcement_even_when_they_come_late() {
        let (signal, watch) = channel();
        assert!(!watch.is_draining());
        let early = tokio::spawn(watch.clone().into_signaled());
        signal.announce();
        early.await.unwrap();
        watch.signaled().await;
        assert!(watch.is_draining());
    }

    #[tokio::test]
    async fn drain_waits_for_work_that_holds_it() {
        let (signal, watch) = channel();
        let hold = watch.hold();
        let work = tokio::spawn(async move {
            watch.signaled().await;
            drop(hold);
        });
        signal.drain(PLENTY).await.unwrap();
        work.await.unwrap();
    }

    #[tokio::test]
    async fn a_watch_that_is_merely_kept_does_not_delay() {
        let (signal, _watch) = channel();
        signal.drain(PLENTY).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_at_its_limit_and_says_how_much_is_left() {
        let (signal, watch) = channel();
        let holds = [watch.hold(), watch.hold()];
        let error = signal.drain(PLENTY).await.unwrap_err();
        assert_eq!(error, UnfinishedError { holds: 2, limit: PLENTY });
        drop(holds);
        signal.drain(PLENTY).await.unwrap();
    }
}
