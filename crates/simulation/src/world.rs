//! A whole world from one seed: a scheduler, agents with their applications, callers, watchers, and what goes wrong.
//!
//! A run is set up in peace, then it storms while somebody asks for things, then it is peaceful again and everything has
//! to come to its end. The production code decides everything; here is decided what happens to it. The same seed is
//! the same story, line by line.

mod agent;
mod clocks;
mod people;
mod scheduler;
mod storm;
mod thief;
mod watcher;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use quiesce_operation::{Kind, Operation, StateName};
use quiesce_runtime::machine::Machine as Surroundings;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::laws::{Fact, Law, Laws, Violation};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::machine::temper::Helper;
use crate::scenario::{Scenario, decent_temper};
use crate::story::Story;
use crate::wire::{Channel, Party, Remains, Wire};
use agent::{AgentParty, DiskPlan, Keeping, Plug};
use clocks::{Clocks, Seeded};
use scheduler::{Blow, SchedulerParty};
use thief::Thief;
use watcher::{Progress, Watcher};

/// The application all worlds are about.
const APPLICATION: &str = "shop";
/// Where it is at first, and where it may go.
const CLUSTERS: [&str; 2] = ["north", "south"];
const SCHEDULER: Party = Party(0);
const CALLER: Party = Party(500);
const WATCHER: Party = Party(501);
const THIEF: Party = Party(502);
const SERVICE: &str = "scheduler";
const GATEWAY: &str = "gateway";
/// Calls that are answered by a stream.
const STREAMS: [&str; 4] = [
    "/quiesce.v1.ShutdownHook/Shutdown",
    "/quiesce.v1.ShutdownHook/StartApplication",
    "/quiesce.v1.Scheduler/WatchOperation",
    "/quiesce.v1.Scheduler/WatchOperations",
];

/// How long the world may take to be set up in peace: agents back off for half a minute at most.
const SETUP_MAX: Duration = Duration::from_secs(120);
/// How long an operation may take to end or to rest once nothing goes wrong: three attempts of the longest grace period
/// with everything that can come between them.
const SETTLE_MAX: Duration = Duration::from_secs(1_800);
/// How long a watcher may need to notice that its stream is dead, and to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);
/// A state that lasts so long is a rest, not a passage.
const REST: Duration = Duration::from_secs(3);

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Laws that were broken.
    pub violations: Vec<Violation>,
    /// What happened; empty unless it was asked for.
    pub story: Vec<String>,
    /// How operations ended.
    pub ends: Vec<StateName>,
    /// How often the scheduler was begun, and agents.
    pub simulated: Duration,
}

/// An operation after the storm.
enum Settled {
    Done(Box<Operation>),
    Degraded(Box<Operation>),
    Never(Option<Box<Operation>>),
}

pub(crate) struct World {
    scenario: Scenario,
    chance: Chance,
    story: Story,
    laws: Laws,
    wire: Wire,
    ledger: Ledger,
    clocks: Arc<Clocks>,
    scheduler: watch::Sender<(u64, Blow)>,
    agents: Vec<AgentParty>,
    watching: watch::Receiver<Progress>,
}

/// Runs the world of `seed`; with its story, if somebody wants to read it.
///
/// # Panics
/// When the runtime cannot be made.
#[must_use]
pub fn run(seed: u64, story: bool) -> Outcome {
    run_to_the_last(seed, story).0
}

/// As [`run`], with what may be left of the world afterwards.
fn run_to_the_last(seed: u64, story: bool) -> (Outcome, Remains) {
    notice_panics();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Whoever waits for a `watch` is woken in an order that tokio draws; without this the seed is the same plan, and not
    // always the same story.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime without IO can be made");
    let outcome = runtime.block_on(Box::pin(live(seed, story)));
    runtime.shutdown_background();
    outcome
}

async fn live(seed: u64, wanted: bool) -> (Outcome, Remains) {
    let chance = Chance::new(seed);
    let scenario = Scenario::draw(&chance);
    let story = Story::begin(wanted);
    story.tell("world", || format!("seed {seed}: {scenario:#?}"));
    let mut parties = JoinSet::new();
    let world = Arc::new(World::new(scenario, chance, story, &mut parties));
    world.set_up().await;
    for (round, kind) in world.scenario.rounds.clone().into_iter().enumerate() {
        if !world.laws.violations().is_empty() || !Arc::clone(&world).round(round, kind).await {
            break;
        }
    }
    if world.laws.violations().is_empty() {
        world.watcher_catches_up().await;
    }
    for panic in PANICS.take() {
        world.laws.broken(Law::NobodyFails, format!("a task panicked: {panic}"));
    }
    world.laws.tell_violations();
    let ends = world.laws.ends();
    parties.shutdown().await;
    world.wire.take_down();
    let outcome = Outcome {
        violations: world.laws.violations(),
        ends,
        simulated: Duration::from_millis(world.story.now_ms()),
        story: world.story.lines(),
    };
    (outcome, world.wire.remains())
}

impl World {
    fn new(scenario: Scenario, chance: Chance, story: Story, parties: &mut JoinSet<std::convert::Infallible>) -> Self {
        let clocks = Arc::new(Clocks::new());
        let timeline = Arc::clone(&clocks);
        let laws = Laws::new(story.clone(), move || timeline.timeline());
        for fact in scenario.facts() {
            laws.fact(fact);
        }
        let wire = Wire::new(chance.split(), STREAMS);
        let observer = laws.clone();
        let ledger =
            Ledger::new(chance.split(), Arc::new(move |batch, committed| observer.committed(batch, committed)));
        let (scheduler, blows) = watch::channel((0, Blow::Crash));
        let party = SchedulerParty {
            machine: surroundings(&wire, SCHEDULER, &clocks, &chance),
            ledger: ledger.clone(),
            wire: wire.clone(),
            policy: scenario.policy.clone(),
            story: story.clone(),
            laws: laws.clone(),
            chance: chance.split(),
            blows,
        };
        parties.spawn(Box::pin(party.keep()));
        let mut agents = Vec::new();
        for (place, temper) in scenario.tempers.iter().enumerate() {
            let standby = place >= scenario.instances;
            let cluster = CLUSTERS[usize::from(standby)];
            let name = format!("{cluster}-{}", place % scenario.instances);
            let party = Party(u16::try_from(place + 1).unwrap_or(u16::MAX));
            let observer = laws.clone();
            let machine_name = format!("{cluster}/{name}");
            let seen = Arc::new(move |happening: &_| observer.happened(happening));
            let machine = Machine::new(&machine_name, scenario.home, chance.next(), seen);
            let machine = machine.on(Arc::new(Plug { wire: wire.clone(), party }));
            machine.set_temper(temper.clone());
            machine.set_helper("drain", Helper { takes: scenario.draining, ..Helper::default() });
            let disk = Arc::new(Mutex::new(DiskPlan::default()));
            machine.set_fate(agent::fate(machine_name, laws.clone(), Arc::clone(&disk)));
            let (blows, receiver) = watch::channel((0, agent::Blow::Crash));
            let keeping = Keeping {
                name: name.clone(),
                party,
                cluster: cluster.to_owned(),
                standby,
                drains: scenario.drains,
                machine: machine.clone(),
                surroundings: surroundings(&wire, party, &clocks, &chance),
                wire: wire.clone(),
                story: story.clone(),
                chance: chance.split(),
                blows: receiver,
            };
            parties.spawn(Box::pin(keeping.keep()));
            agents.push(AgentParty { name, party, machine, disk, blows });
        }
        let (progress, watching) = watch::channel(Progress::default());
        let watcher = Watcher {
            channel: wire.channel(WATCHER, SERVICE, CancellationToken::new()),
            story: story.clone(),
            laws: laws.clone(),
            chance: chance.split(),
            restless: !scenario.calm,
            progress,
        };
        parties.spawn(Box::pin(watcher.follow()));
        if !scenario.calm {
            let thief = Thief::new(&wire, story.clone(), laws.clone(), chance.split());
            parties.spawn(Box::pin(thief.steal()));
        }
        Self { scenario, chance, story, laws, wire, ledger, clocks, scheduler, agents, watching }
    }

    fn caller_channel(&self) -> Channel {
        self.wire.channel(CALLER, SERVICE, CancellationToken::new())
    }

    /// Waits until the application runs at home and everything that should stand by does.
    async fn set_up(&self) {
        let running = async {
            loop {
                let live: usize = self.agents.iter().map(|agent| agent.machine.census().len()).sum();
                let registered = self.agents.iter().all(|agent| self.wire.reaches(SCHEDULER, &agent.endpoint()));
                if live >= self.scenario.instances && registered && self.watching.borrow().from.is_some() {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        // An application that does not come up at home is never there; then requests are refused, which is right.
        let came = timeout(SETUP_MAX, running).await;
        self.story.tell("world", || format!("set up: {}", came.is_ok()));
        sleep(Duration::from_secs(3)).await;
    }

    /// Whoever was cut off learns of the last changes, and has seen all of them by then.
    async fn watcher_catches_up(&self) {
        let mut watching = self.watching.clone();
        let (laws, wanted) = (&self.laws, |progress: &Progress| progress.has_seen_all(&self.laws));
        // The sender lives as long as the world; what is missing is said by the check.
        let _caught_up = timeout(CATCH_UP_MAX, async { watching.wait_for(wanted).await.is_ok() }).await;
        sleep(Duration::from_secs(1)).await;
        self.watching.borrow().check(laws);
    }

    /// Somebody asks for `kind` while it storms; then it is seen through. False when there is nothing left to ask for.
    async fn round(self: Arc<Self>, number: usize, kind: Kind) -> bool {
        self.story.tell("world", || format!("round {number}: {kind:?}"));
        let live = self.laws.live_clusters();
        let home = live.iter().next().map_or(CLUSTERS[number % 2], String::as_str);
        let target = if home == CLUSTERS[0] { CLUSTERS[1] } else { CLUSTERS[0] };
        let mut storming = tokio::spawn(Arc::clone(&self).storm());
        let pause = self.chance.millis(0..=3_000);
        sleep(pause).await;
        let request_id = format!("request-{number}");
        let name = self.request(kind, target, &request_id).await;
        if let (Some(name), Some(pause)) = (&name, self.scenario.regret) {
            sleep(pause).await;
            self.laws.fact(Fact::Person);
            self.cancel(name).await;
        }
        let over = match &name {
            Some(name) if self.scenario.meddling => tokio::select! {
                biased;
                over = &mut storming => over,
                never = self.meddle(name) => match never {},
            },
            Some(_) | None => storming.await,
        };
        if over.is_err() {
            self.laws.broken(Law::NobodyFails, "the storm itself has failed".to_owned());
        }
        self.calm_down();
        let Some(name) = name else {
            if self.scenario.is_fair() {
                self.laws.broken(Law::EndsOrRests, "a fair request was not accepted".to_owned());
            }
            return false;
        };
        Box::pin(self.see_through(&name)).await;
        kind == Kind::Migrate
    }

    /// The operation once it has ended or rests.
    async fn settled(&self, name: &str) -> Settled {
        let mut stored = self.laws.stored();
        let settling = async {
            loop {
                stored.mark_unchanged();
                // Never gone once it was stored.
                let found = || self.laws.operation(name).map(Box::new);
                match self.laws.standing(name) {
                    Some(state) if state.is_final() => {
                        if let Some(operation) = found() {
                            return Settled::Done(operation);
                        }
                    }
                    Some(StateName::Degraded) => {
                        if timeout(REST, stored.changed()).await.is_err()
                            && let Some(operation) = found()
                        {
                            return Settled::Degraded(operation);
                        }
                    }
                    Some(_) | None => {
                        // The sender lives as long as the world.
                        let _changed = stored.changed().await;
                    }
                }
            }
        };
        timeout(SETTLE_MAX, settling).await.unwrap_or_else(|_| Settled::Never(self.laws.operation(name).map(Box::new)))
    }

    /// Somebody has repaired the applications: those started from now on behave.
    fn mend_applications(&self) {
        self.story.tell("person", || "mends the applications".to_owned());
        self.laws.fact(Fact::Person);
        for agent in &self.agents {
            agent.machine.set_temper(decent_temper(&self.chance));
        }
    }
}

impl AgentParty {
    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", 7000 + self.party.0)
    }
}

fn surroundings(wire: &Wire, party: Party, clocks: &Arc<Clocks>, chance: &Chance) -> Surroundings {
    Surroundings {
        network: Arc::new(Plug { wire: wire.clone(), party }),
        clocks: Arc::clone(clocks) as Arc<_>,
        entropy: Arc::new(Seeded(chance.split())),
    }
}

thread_local! {
    /// Production catches the panics of its tasks and logs them; here nobody would see that.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Collects panics instead of printing them: each is told by the seed it belongs to.
fn notice_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if tokio::runtime::Handle::try_current().is_ok() {
                PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            } else {
                before(panic);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::run_to_the_last;

    /// A hundred thousand worlds would not fit into the memory of a machine otherwise.
    #[test]
    fn a_world_leaves_nothing_behind() {
        for seed in 0..8 {
            let (_, remains) = run_to_the_last(seed, false);
            assert!(remains.are_gone(), "somebody still holds the wire of seed {seed}");
        }
    }
}
