//! What a seed stands for: who is there, what is asked for, what goes wrong when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quiesce_protocol::v1;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::ambush::Ambush;
use super::instance::{Instance, Manner};
use super::judge::Judge;
use super::story::Story;

/// Troubles begin when things are set up, mostly.
const FIRST_TROUBLE_MS: u64 = 500;
/// Requests and troubles come within this time.
pub(super) const TROUBLED: Duration = Duration::from_secs(60);
/// Longest loss of a link: beyond every keep-alive.
const LOSS_MAX_MS: u64 = 50_000;
/// Longest delay of a link: beyond every deadline of a call.
const DELAY_MAX_MS: u64 = 15_000;
/// Longest absence of a host.
const ABSENCE_MAX_MS: u64 = 15_000;
/// About how often an agent writes in a run, and the scheduler.
const AGENT_WRITES: u64 = 40;
const SCHEDULER_WRITES: u64 = 250;
/// Most troubles of one run.
const TROUBLES_MAX: u32 = 12;

/// Everything a seed stands for.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) cast: Vec<Role>,
    pub(super) asks: Vec<Ask>,
    pub(super) troubles: Vec<Trouble>,
    /// The policy kills what does not stop.
    pub(super) forces: bool,
    /// At which write of the scheduler it crashes; 0: at none.
    pub(super) ambush: u64,
}

/// One instance.
#[derive(Debug, Clone)]
pub(super) struct Role {
    pub(super) application: &'static str,
    pub(super) name: &'static str,
    pub(super) cluster: &'static str,
    pub(super) standby: bool,
    /// Its hook listens; else its agent dials in.
    pub(super) listens: bool,
    pub(super) manner: Manner,
    pub(super) failing_starts: u32,
    /// At which write of its agent that crashes; 0: at none.
    pub(super) ambush: u64,
    seed: u64,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) at: Duration,
    pub(super) application: &'static str,
    /// Where to; none: delete.
    pub(super) target: Option<&'static str>,
    pub(super) request_id: String,
    /// What the caller does next.
    pub(super) then: Option<(Duration, Afterthought)>,
}

/// What is asked of an operation that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterthought {
    Cancel,
    Extend,
}

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) at: Duration,
    pub(super) what: Wrong,
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub(super) enum Wrong {
    /// Between the scheduler and `host` everything is lost.
    Lost { host: String, way: Way, lasts: Duration },
    /// Between the scheduler and `host` everything is late.
    Late { host: String, lasts: Duration },
    /// The programs of `host` are killed, and started again later.
    Crash { host: String, lasts: Duration },
    /// The machine of an agent loses power: its application goes down as well.
    PowerLoss { host: String, lasts: Duration },
    /// The application on `host` crashes.
    ApplicationCrash { host: String },
    /// The scheduler is told to stop, and started again at once.
    Restart,
}

/// Which way things are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Both,
    ToScheduler,
    FromScheduler,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let cast = cast(&mut chance);
        let asks = asks(&mut chance);
        let troubles = troubles(&mut chance, &cast);
        let forces = chance.random_bool(0.3);
        let ambush = if chance.random_bool(0.4) { chance.random_range(1..=SCHEDULER_WRITES) } else { 0 };
        Self { seed, cast, asks, troubles, forces, ambush }
    }

    pub(super) fn instances(&self, story: &Story, judge: &Judge) -> Vec<Arc<Instance>> {
        let made = |role: &Role| {
            let name = (role.application, role.name, role.cluster);
            let ambush = Ambush::at(role.ambush);
            Instance::new(name, (role.manner, role.failing_starts), ambush, story, judge, role.seed)
        };
        self.cast.iter().map(made).collect()
    }

    /// The policy every application has: short timers, so that a run sees them all.
    pub(super) fn policy(&self) -> v1::ShutdownPolicy {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let strategy = if self.forces { v1::FailureStrategy::Force } else { v1::FailureStrategy::GiveUp };
        v1::ShutdownPolicy {
            accept_timeout: seconds(4),
            heartbeat_timeout: seconds(3),
            grace_period: seconds(10),
            kill_timeout: seconds(3),
            max_extension: seconds(5),
            start_timeout: seconds(10),
            retry: Some(v1::RetryPolicy {
                max_attempts: Some(3),
                initial_backoff: seconds(1),
                max_backoff: seconds(4),
                ..Default::default()
            }),
            failure_strategy: strategy.into(),
            ..Default::default()
        }
    }
}

/// `shop` has one instance on each cluster, `bank` two; clusters are called west and east, everything begins in the
/// west.
fn cast(chance: &mut StdRng) -> Vec<Role> {
    let names = [("shop", "w", "west"), ("shop", "e", "east"), ("bank", "w0", "west"), ("bank", "w1", "west")];
    let names = names.into_iter().chain([("bank", "e0", "east"), ("bank", "e1", "east")]);
    let role = |(application, name, cluster)| Role {
        application,
        name,
        cluster,
        standby: cluster == "east",
        listens: chance.random_bool(0.4),
        manner: match chance.random_range(0..10) {
            0 => Manner::Deaf,
            1..=3 => Manner::Slow,
            _ => Manner::Quick,
        },
        failing_starts: u32::from(cluster == "east" && chance.random_bool(0.15)),
        ambush: if chance.random_bool(0.2) { chance.random_range(1..=AGENT_WRITES) } else { 0 },
        seed: chance.random(),
    };
    names.map(role).collect()
}

/// Each application moves a few times, and may be deleted in the end.
fn asks(chance: &mut StdRng) -> Vec<Ask> {
    let mut asks = Vec::new();
    for application in ["shop", "bank"] {
        let moves = chance.random_range(1..=3);
        let mut at = 1_500;
        for number in 0..=moves {
            at += chance.random_range(500..15_000);
            let deletes = number == moves;
            if deletes && chance.random_bool(0.5) {
                break;
            }
            let target = (!deletes).then_some(if number % 2 == 0 { "east" } else { "west" });
            let then = chance.random_bool(0.25).then(|| {
                let what = *[Afterthought::Cancel, Afterthought::Extend].choose(chance).expect("there are two");
                (Duration::from_millis(chance.random_range(0..8_000)), what)
            });
            let request_id = format!("{application}-{number}");
            asks.push(Ask { at: Duration::from_millis(at), application, target, request_id, then });
        }
    }
    asks
}

fn troubles(chance: &mut StdRng, cast: &[Role]) -> Vec<Trouble> {
    let hosts: Vec<String> = cast.iter().map(|role| format!("{}-{}", role.application, role.name)).collect();
    let people = ["caller".to_owned(), "watcher".to_owned()];
    let count = chance.random_range(0..=TROUBLES_MAX);
    let end = u64::try_from(TROUBLED.as_millis()).unwrap_or(u64::MAX);
    let mut troubles: Vec<Trouble> = (0..count)
        .map(|_| {
            let agent = hosts.choose(chance).expect("there are agents").clone();
            let client = people.choose(chance).expect("there are people").clone();
            let any = if chance.random_bool(0.75) { agent.clone() } else { client.clone() };
            let at = Duration::from_millis(chance.random_range(FIRST_TROUBLE_MS..end));
            let lasts = |chance: &mut StdRng, max| Duration::from_millis(chance.random_range(50..max));
            let what = match chance.random_range(0..100) {
                0..25 => {
                    let way = *[Way::Both, Way::Both, Way::ToScheduler, Way::FromScheduler]
                        .choose(chance)
                        .expect("there are ways");
                    Wrong::Lost { host: any, way, lasts: lasts(chance, LOSS_MAX_MS) }
                }
                25..45 => Wrong::Late { host: any, lasts: lasts(chance, DELAY_MAX_MS) },
                45..60 => Wrong::Crash { host: agent, lasts: lasts(chance, ABSENCE_MAX_MS) },
                60..65 => Wrong::Crash { host: client, lasts: lasts(chance, ABSENCE_MAX_MS) },
                65..80 => Wrong::Crash { host: "scheduler".to_owned(), lasts: lasts(chance, ABSENCE_MAX_MS) },
                80..86 => Wrong::Restart,
                86..93 => Wrong::PowerLoss { host: agent, lasts: lasts(chance, ABSENCE_MAX_MS) },
                _ => Wrong::ApplicationCrash { host: agent },
            };
            Trouble { at, what }
        })
        .collect();
    troubles.sort_by_key(|trouble| trouble.at);
    troubles
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { application, name, cluster, standby, listens, manner, failing_starts, ambush, .. } = self;
        write!(f, "{application}/{name} on {cluster}, {manner:?}")?;
        f.write_str(if *listens { ", listens" } else { ", dials in" })?;
        f.write_str(if *standby { ", stands by" } else { "" })?;
        f.write_str(if *failing_starts > 0 { ", fails its first start" } else { "" })?;
        if *ambush > 0 { write!(f, ", its agent crashes at write {ambush}") } else { Ok(()) }
    }
}
