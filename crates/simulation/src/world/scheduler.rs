//! The scheduler of a world: the production one, over a disk that outlives it, begun again whenever it has died.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use quiesce_operation::Policy;
use quiesce_runtime::drain;
use quiesce_runtime::machine::Machine;
use quiesce_scheduler::hooks::{Dial, HookChannel};
use quiesce_scheduler::{Config, Scheduler, StoreChoice};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{GATEWAY, SCHEDULER, SERVICE};
use crate::chance::Chance;
use crate::laws::{Law, Laws};
use crate::ledger::Ledger;
use crate::story::Story;
use crate::wire::Wire;

/// How long a scheduler that is told to end may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What is done to the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// It dies.
    Crash,
    /// It is told to end.
    End,
}

pub(super) struct SchedulerParty {
    pub(super) machine: Machine,
    pub(super) ledger: Ledger,
    pub(super) wire: Wire,
    pub(super) policy: Policy,
    pub(super) story: Story,
    pub(super) laws: Laws,
    pub(super) chance: Chance,
    /// Counts blows; the last one says which.
    pub(super) blows: watch::Receiver<(u64, Blow)>,
}

/// Reaches hooks over the wire.
struct Lines(Wire);

impl Dial for Lines {
    fn dial(&self, endpoint: &str, closed: CancellationToken, on_end: Arc<dyn Fn() + Send + Sync>) -> HookChannel {
        let channel = self.0.channel(SCHEDULER, endpoint, closed);
        HookChannel::new(channel.map_err(move |status| {
            on_end();
            status
        }))
    }
}

impl SchedulerParty {
    /// Lives, dies, lives again.
    pub(super) async fn keep(mut self) -> Infallible {
        loop {
            self.live().await;
            let pause = self.chance.millis(50..=8_000);
            sleep(pause).await;
        }
    }

    async fn live(&mut self) {
        self.blows.mark_unchanged();
        let store = self.ledger.lease();
        let (signal, drain) = drain::channel();
        let config = Config {
            store: StoreChoice::Given(store),
            default_policy: self.policy.clone(),
            admin_listen: None,
            ..Config::ephemeral()
        };
        let (machine, dial) = (self.machine.clone(), Arc::new(Lines(self.wire.clone())));
        let begin = async {
            let opened = Scheduler::open_on(machine, config).await.map_err(|error| error.to_string())?;
            opened.start(dial, &drain).await.map_err(|error| error.to_string())
        };
        let running = tokio::select! {
            biased;
            () = self.ledger.crashed() => None,
            Ok(()) = self.blows.changed() => None,
            begun = begin => match begun {
                Ok(running) => Some(running),
                Err(error) => {
                    self.story.tell("scheduler", || format!("cannot begin: {error}"));
                    None
                }
            },
        };
        let Some(running) = running else {
            self.story.tell("scheduler", || "dies while it begins".to_owned());
            self.ledger.evict();
            return;
        };
        self.story.tell("scheduler", || format!("serves, {} operations resumed", running.resumed()));
        let closed = CancellationToken::new();
        let (scheduler, gateway) = running.services();
        self.wire.serve(SCHEDULER, SERVICE, scheduler, closed.clone());
        self.wire.serve(SCHEDULER, GATEWAY, gateway, closed.clone());
        let blow = tokio::select! {
            biased;
            () = self.ledger.crashed() => Blow::Crash,
            Ok(()) = self.blows.changed() => self.blows.borrow_and_update().1,
        };
        // Asked before it is gone: afterwards nobody knows.
        if running.abandoned() > 0 {
            self.laws.broken(Law::NobodyFails, "an operation is not driven any more".to_owned());
        }
        match blow {
            Blow::Crash => {
                self.story.tell("scheduler", || "dies".to_owned());
                closed.cancel();
                self.ledger.evict();
                let _names = running.tasks().shutdown(Duration::ZERO).await;
            }
            Blow::End => {
                self.story.tell("scheduler", || "is told to end".to_owned());
                signal.announce();
                let ended = running.tasks().shutdown(STOP_LIMIT).await;
                closed.cancel();
                self.ledger.evict();
                self.story.tell("scheduler", || format!("has ended: {ended:?}"));
            }
        }
    }
}
