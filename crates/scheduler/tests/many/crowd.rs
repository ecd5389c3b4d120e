//! Many operations at once, a quarter of them with agents that are dead, slow or hostile: the healthy ones are not delayed
//! (I7), what is open goes on after a restart, and nobody is told twice (I3).

use std::fmt;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use quiesce_protocol::v1;
use quiesce_testkit::eventually;
use quiesce_testkit::hook::{Act, Script, ScriptedHook, stops};
use quiesce_testkit::hostile::{self, Peer};
use tokio::time::Instant;
use v1::ShutdownPhase as Phase;
use v1::operation::State;
use v1::stop_result::Outcome;

use crate::agents::{Agent, Place, Reach, register_at};
use crate::pests::{Known, Pests};
use crate::stage::{AT_ONCE, LIMIT, Stage, external, patient};

/// Says how many operations are in flight; the tests that run with all others have [`SMALL`].
pub(crate) const SIZE_VARIABLE: &str = "QUIESCE_MANY";
const SMALL: usize = 200;
/// One in so many misbehaves.
const BAD_SHARE: usize = 4;
/// One in so many of those that behave dials in.
const DIAL_IN_SHARE: usize = 4;
/// Fewest and most operations that are timed, each time.
const TIMED_MIN: usize = 40;
const TIMED_MAX: usize = 300;
/// Operations timed at a time: few, so that what is measured is not how they wait for each other.
const TIMED_AT_ONCE: usize = 4;
/// So much slower may operations be beside the bad ones. Those hold what they hold for minutes, see [`patient`]; whoever had
/// to wait for one of them would be slower by a factor of hundreds.
const SLOWER_MAX: f64 = 10.0;
/// Below this a median says more about a busy machine than about the scheduler.
const NOISE: Duration = Duration::from_secs(5);
/// Resident memory of this process beyond what it began with: that of other tests in it, and of each operation with its
/// agent, of which a fraction is measured.
const BYTES_ANYWAY_MAX: u64 = 512 << 20;
const BYTES_PER_OPERATION_MAX: u64 = 512 << 10;

fn size() -> usize {
    std::env::var(SIZE_VARIABLE).map_or(SMALL, |text| text.parse().expect("QUIESCE_MANY is a number"))
}

/// Runs until it is released, then stops as it should.
fn steady() -> Script {
    Script::of([vec![
        Act::Report(Phase::Accepted),
        Act::Report(Phase::Stopping),
        Act::UntilReleased,
        Act::Result(Outcome::Stopped, v1::Evidence::GroupEmpty),
    ]])
}

/// What is wrong with a bad one.
#[derive(Debug, Clone, Copy)]
enum Bad {
    Dead,
    Deaf,
    Babbling,
    Mute,
    Silent,
    Fainting,
    Huge,
    BackInPhase,
    Flooding,
    Chattering,
    Counterfeiting,
    BreakingOff,
}

const BAD: [Bad; 12] = [
    Bad::Dead,
    Bad::Deaf,
    Bad::Babbling,
    Bad::Mute,
    Bad::Silent,
    Bad::Fainting,
    Bad::Huge,
    Bad::BackInPhase,
    Bad::Flooding,
    Bad::Chattering,
    Bad::Counterfeiting,
    Bad::BreakingOff,
];

enum Character {
    Peer(Peer),
    Hook(Box<Script>),
}

impl Bad {
    async fn character(self) -> Character {
        let acts = match self {
            Self::Dead => return Character::Peer(hostile::dead()),
            Self::Deaf => return Character::Peer(hostile::deaf().await),
            Self::Babbling => return Character::Peer(hostile::babbling().await),
            Self::Mute => return Character::Hook(Box::new(Script { mute: true, ..Script::default() })),
            Self::Silent => vec![Act::Hang; 4],
            Self::Fainting => [vec![Act::Report(Phase::Stopping)], vec![Act::Hang; 4]].concat(),
            Self::Huge => vec![Act::Report(Phase::Stopping), Act::Huge(5 << 20)],
            Self::BackInPhase => vec![Act::Report(Phase::Stopping), Act::Report(Phase::Accepted)],
            Self::Flooding => vec![Act::Report(Phase::Stopping), Act::Flood(u32::MAX)],
            Self::Chattering => vec![Act::Report(Phase::Stopping), Act::Chatter(u32::MAX)],
            Self::Counterfeiting => vec![Act::ResultWithToken("qct1.1.x".to_owned())],
            Self::BreakingOff => vec![Act::Report(Phase::Stopping), Act::End],
        };
        Character::Hook(Box::new(Script::of([acts])))
    }
}

/// An application of one instance, the agent beside it, and what is kept for as long as it is to be bad.
struct Resident {
    application: String,
    agent: Option<Agent>,
    _peer: Option<Peer>,
}

async fn good(stage: &Stage, application: String, script: Script, reach: Reach) -> Resident {
    stage.create(&application, patient(), external()).await;
    let agent = Agent::start(stage, &Place::only(&application), ScriptedHook::new(script), reach).await;
    Resident { application, agent: Some(agent), _peer: None }
}

async fn bad(stage: &Stage, application: String, kind: Bad) -> Resident {
    stage.create(&application, patient(), external()).await;
    let place = Place::only(&application);
    match kind.character().await {
        Character::Peer(peer) => {
            register_at(stage, &place, &peer.address.to_string()).await.unwrap();
            Resident { application, agent: None, _peer: Some(peer) }
        }
        Character::Hook(script) => {
            let agent = Agent::start(stage, &place, ScriptedHook::new(*script), Reach::Listens).await;
            Resident { application, agent: Some(agent), _peer: None }
        }
    }
}

async fn all<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(work).buffered(AT_ONCE).collect().await
}

/// Times of some operations, from the moment they are accepted to the moment a watcher hears of their end.
struct Times(Vec<Duration>);

impl Times {
    /// Deletes applications, a few at a time, as their owners would.
    async fn take(stage: &Stage, label: &str, count: usize) -> Self {
        let residents = all((0..count).map(|number| {
            let reach = if number % DIAL_IN_SHARE == 0 { Reach::DialsIn } else { Reach::Listens };
            good(stage, format!("{label}-{number}"), Script::of([stops()]), reach)
        }))
        .await;
        let mut times: Vec<_> = stream::iter(&residents)
            .map(|resident| async {
                let operation = stage.delete(&resident.application).await.unwrap();
                let begin = Instant::now();
                let over = stage.outcome(&operation).await;
                assert_eq!(over.state(), State::Succeeded, "{}", over.message);
                begin.elapsed()
            })
            .buffer_unordered(TIMED_AT_ONCE)
            .collect()
            .await;
        times.sort_unstable();
        Self(times)
    }

    fn quantile(&self, share: usize) -> Duration {
        self.0[(self.0.len() - 1) * share / 100]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99) = (self.quantile(50), self.quantile(99));
        write!(f, "median {median:.1?}, p99 {p99:.1?} ({} operations)", self.0.len())
    }
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The shutdown ids an agent was told.
fn ids(agent: &Agent) -> Vec<String> {
    let mut ids: Vec<_> = agent.hook.shutdowns().into_iter().map(|request| request.shutdown_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Waits until each of `residents` has been called so often: to stop, then to be joined.
async fn told(residents: &[Resident], times: usize) {
    for agent in residents.iter().filter_map(|resident| resident.agent.as_ref()) {
        eventually("every one to be called", LIMIT, async || agent.hook.shutdowns().len() >= times).await;
    }
}

async fn open(stage: &Stage, residents: &[Resident]) -> Vec<String> {
    all(residents.iter().map(|resident| async { stage.delete(&resident.application).await.unwrap() })).await
}

/// Everybody who can do harm beside the operations.
async fn pests(stage: &Stage, victims: Vec<Known>) -> Pests {
    let mut pests = Pests::new(stage.address);
    pests.hold_connections(60);
    // More than are handled at the same time.
    pests.begin_calls(600);
    pests.watch_nothing(20);
    pests.send_huge_requests(2);
    let places = all((0..10).map(|number| async move {
        let application = format!("restless-{number}");
        stage.create(&application, patient(), external()).await;
        Place::only(&application)
    }));
    pests.come_and_go(places.await);
    pests.steal_ends(victims);
    pests
}

/// What a hook knows of the shutdown it was told.
fn known(resident: &Resident) -> Option<Known> {
    let request = resident.agent.as_ref()?.hook.shutdowns().pop()?;
    Some(Known { shutdown_id: request.shutdown_id, token: request.completion_token })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_healthy_are_not_delayed_and_a_restart_loses_nobody() {
    let size = size();
    let (healthy, sick) = (size - size / BAD_SHARE, size / BAD_SHARE);
    let timed = (healthy / 10).clamp(TIMED_MIN, TIMED_MAX);
    let empty = resident_bytes();
    let mut stage = Stage::start().await;

    let begin = Instant::now();
    let residents = all((0..healthy).map(|number| {
        let reach = if number % DIAL_IN_SHARE == 0 { Reach::DialsIn } else { Reach::Listens };
        good(&stage, format!("steady-{number}"), steady(), reach)
    }))
    .await;
    let operations = open(&stage, &residents).await;
    told(&residents, 1).await;
    println!("{healthy} healthy operations in flight after {:.1?}", begin.elapsed());
    let without = Times::take(&stage, "without", timed).await;
    println!("without bad ones: {without}");

    let kinds = BAD.into_iter().cycle().take(sick);
    let bad = all(kinds.enumerate().map(|(number, kind)| bad(&stage, format!("bad-{number}"), kind))).await;
    let bad_operations = open(&stage, &bad).await;
    let mut pests = pests(&stage, residents.iter().take(10).filter_map(known).collect()).await;
    let with = Times::take(&stage, "with", timed).await;
    let ratio = with.quantile(50).as_secs_f64() / without.quantile(50).as_secs_f64();
    println!("beside {sick} bad ones: {with}; ratio of medians {ratio:.2}");
    let (bytes, count) = (resident_bytes().saturating_sub(empty), u64::try_from(size + 2 * timed).unwrap());
    println!("memory: {} MiB, {} KiB an operation", bytes >> 20, (bytes / count) >> 10);
    let bound = without.quantile(50).mul_f64(SLOWER_MAX).max(NOISE);
    assert!(with.quantile(50) < bound, "the healthy are delayed: {with}; without: {without}");
    assert!(bytes < BYTES_ANYWAY_MAX + BYTES_PER_OPERATION_MAX * count, "{bytes} bytes");
    pests.assert_harmless();
    drop(pests);

    stage.crash().await;
    let begin = Instant::now();
    stage.start_again().await;
    println!("started again after {:.1?}", begin.elapsed());
    told(&residents, 2).await;
    println!("every one of {healthy} was joined again after {:.1?}", begin.elapsed());
    for operation in all(bad_operations.iter().map(|name| stage.operation(name))).await {
        assert!(!operation.done, "{} is {:?}", operation.name, operation.state());
    }
    let begin = Instant::now();
    residents.iter().filter_map(|resident| resident.agent.as_ref()).for_each(|agent| agent.hook.release());
    for operation in all(operations.iter().map(|name| stage.outcome(name))).await {
        let found = (operation.state(), operation.attempt, operation.round);
        assert_eq!(found, (State::Succeeded, 1, 1), "{}: {}", operation.name, operation.message);
    }
    println!("all of them were over {:.1?} after they could be", begin.elapsed());
    for agent in residents.iter().filter_map(|resident| resident.agent.as_ref()) {
        let ids = ids(agent);
        assert_eq!(ids.len(), 1, "told once: {ids:?}");
    }
}
