//! An agent of a world: the production one, on a machine that outlives it, begun again by a supervisor above it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_agent::StartMode;
use quiesce_agent::args::Settings;
use quiesce_agent::gateway::Gateway;
use quiesce_agent::identity::Identity;
use quiesce_agent::life::{Reach, Serve};
use quiesce_agent::process::helper_command::CommandLine;
use quiesce_agent::supervise::Config;
use quiesce_runtime::machine::{Listener, Machine as Surroundings, Network, Socket};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{APPLICATION, GATEWAY};
use crate::chance::Chance;
use crate::laws::Laws;
use crate::machine::agent::Agent;
use crate::machine::{Fate, Machine, Write};
use crate::story::Story;
use crate::wire::{Party, Wire};

/// The agent ended because the application was deleted.
const DELETED: u8 = 78;
/// How often an agent of a deleted application is started again by its supervisor, in vain.
const IN_VAIN: u32 = 2;

/// What is done to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// It dies.
    Crash,
    /// Its machine is switched off and on.
    Reboot,
}

/// What becomes of the writes of one agent.
#[derive(Debug, Default)]
pub(super) struct DiskPlan {
    /// Nothing can be written.
    pub(super) refuses: bool,
    /// The agent dies at a write: so many from now, with the write done or not.
    pub(super) crash: Option<(u64, bool)>,
    /// Writes take so long.
    pub(super) slow: Option<Duration>,
}

/// An agent, its machine, and the way to do something to them.
pub(super) struct AgentParty {
    pub(super) name: String,
    pub(super) party: Party,
    pub(super) machine: Machine,
    pub(super) disk: Arc<Mutex<DiskPlan>>,
    pub(super) blows: watch::Sender<(u64, Blow)>,
}

/// Everything needed to keep one alive.
pub(super) struct Keeping {
    pub(super) name: String,
    pub(super) party: Party,
    pub(super) cluster: String,
    pub(super) standby: bool,
    pub(super) drains: bool,
    pub(super) machine: Machine,
    /// The same machine, as far as the way to the scheduler needs one.
    pub(super) surroundings: Surroundings,
    pub(super) wire: Wire,
    pub(super) story: Story,
    pub(super) chance: Chance,
    pub(super) blows: watch::Receiver<(u64, Blow)>,
}

/// The machine's network: whether the scheduler can be reached, and nothing else.
pub(super) struct Plug {
    pub(super) wire: Wire,
    pub(super) party: Party,
}

impl Network for Plug {
    fn listen<'a>(&'a self, _: &'a str, _: Option<Duration>) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "calls come in over the wire")) })
    }

    fn connect<'a>(&'a self, _: &'a str, _: Option<Duration>) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async {
            if self.wire.reaches(self.party, GATEWAY) {
                Ok(Box::new(tokio::io::empty()) as Box<dyn Socket>)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        })
    }
}

/// The fate of writes by a plan that can change; tells the laws whom the agent is about to tell of what.
pub(super) fn fate(
    machine: String,
    laws: Laws,
    plan: Arc<Mutex<DiskPlan>>,
) -> impl FnMut(&Write<'_>) -> Fate + Send + 'static {
    move |write| {
        let mut plan = plan.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = match plan.crash {
            Some((0, done)) => {
                plan.crash = None;
                if done { Fate::CrashAfter } else { Fate::CrashBefore }
            }
            _ if plan.refuses => Fate::Refused(io::ErrorKind::StorageFull),
            crash => {
                plan.crash = crash.map(|(left, done)| (left - 1, done));
                plan.slow.map_or(Fate::Durable, Fate::Slow)
            }
        };
        if matches!(fate, Fate::Durable | Fate::Slow(_) | Fate::CrashAfter)
            && write.path.ends_with("journal.json")
            && let Some(id) = write.content.and_then(told)
        {
            laws.about_to_tell(&machine, id);
        }
        fate
    }
}

/// The shutdown a journal says its application was told of.
fn told(journal: &[u8]) -> Option<&str> {
    const MARK: &str = "\"shutdown_id\": \"";
    let text = std::str::from_utf8(journal).ok()?;
    let begin = text.find(MARK)? + MARK.len();
    text[begin..].split('"').next()
}

impl Keeping {
    /// Lives, dies, lives again: what any supervisor with a restart policy does.
    pub(super) async fn keep(mut self) -> Infallible {
        let mut in_vain = 0;
        loop {
            let code = self.live().await;
            in_vain = if code == Some(DELETED) { in_vain + 1 } else { 0 };
            if in_vain > IN_VAIN {
                self.story.tell(&self.name, || "stays away, its application was deleted".to_owned());
                std::future::pending::<Infallible>().await;
            }
            sleep(self.chance.millis(100..=6_000)).await;
        }
    }

    /// One life; its exit code, unless it died.
    async fn live(&mut self) -> Option<u8> {
        self.blows.mark_unchanged();
        let closed = CancellationToken::new();
        self.story.tell(&self.name, || "agent begins".to_owned());
        let agent = Agent::start(&self.machine, self.settings(), self.reach(&closed));
        let code = tokio::select! {
            biased;
            Ok(()) = self.blows.changed() => {
                let blow = self.blows.borrow_and_update().1;
                self.story.tell(&self.name, || format!("agent dies: {blow:?}"));
                if blow == Blow::Reboot {
                    self.machine.reboot();
                }
                None
            }
            code = agent.ended() => {
                self.story.tell(&self.name, || match code {
                    Some(code) => format!("agent ends with {code}"),
                    None => "agent dies at a write".to_owned(),
                });
                code
            }
        };
        closed.cancel();
        code
    }

    fn settings(&self) -> Settings {
        Settings {
            join_token_file: None,
            identity: Identity::new(APPLICATION, &self.name, &self.cluster).expect("the names are good"),
            state_dir: PathBuf::from("/state"),
            standby: self.standby,
            start: StartMode::Permitted,
            drain_command: self.drains.then(|| "drain".parse::<CommandLine>().expect("the command is good")),
            grace: None,
            policy: quiesce_protocol::v1::ShutdownPolicy::default(),
            stop_order: 0,
            labels: HashMap::new(),
            supervise: Config::new(vec!["application".into()]),
        }
    }

    fn reach(&self, closed: &CancellationToken) -> Reach {
        let endpoint = SocketAddr::from(([127, 0, 0, 1], 7000 + self.party.0)).to_string();
        let channel = self.wire.channel(self.party, GATEWAY, closed.clone());
        let gateway = Gateway::over(channel, "scheduler", self.surroundings.clone());
        let (wire, party, name, closed) = (self.wire.clone(), self.party, endpoint.clone(), closed.clone());
        let serve: Serve = Box::new(move |service, drain| {
            wire.serve(party, &name, service, closed);
            Box::pin(drain.into_signaled())
        });
        Reach::Given { gateway, endpoint, serve }
    }
}
