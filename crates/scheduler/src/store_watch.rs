//! Whether the store takes changes: looked at from time to time, for everybody who has to say so.
//!
//! Readiness, gRPC health, metrics and the log all tell from here, so that none of them contradicts another. Nothing is
//! decided here: who wants to commit asks the store.

use std::sync::Arc;
use std::time::Duration;

use quiesce_runtime::drain;
use quiesce_store::{Condition, Store};
use tokio::sync::watch;
use tracing::{error, info};

/// How often it is looked: a probe of an orchestrator comes every few seconds, and a look costs one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the store; to be run as one task.
pub(crate) struct StoreWatch {
    store: Arc<dyn Store>,
    condition: watch::Sender<Condition>,
}

/// The watch, and where its findings are read. Until the first look the store counts as good: it was just opened.
pub(crate) fn open(store: Arc<dyn Store>) -> (StoreWatch, watch::Receiver<Condition>) {
    let (condition, receiver) = watch::channel(Condition::Good);
    (StoreWatch { store, condition }, receiver)
}

impl StoreWatch {
    /// Until drained.
    pub(crate) async fn run(self, drain: drain::Watch) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {}
                () = drain.signaled() => return,
            }
            let found = self.store.condition().await;
            if self.condition.send_replace(found) != found {
                match found {
                    Condition::Good => info!("the store takes changes again"),
                    Condition::Full | Condition::ReadOnly | Condition::Failed => error!(
                        condition = found.as_str(),
                        "{found}; operations rest where they are, and go on by themselves when that is mended"
                    ),
                    Condition::Closed => error!(condition = found.as_str(), "{found}"),
                }
            }
        }
    }
}
