//! The whole stack in virtual time: real servers, streams and reconnects on hosts that crash, over links that break.
//!
//! One seed is one [`run()`]: a scheduler, the agents of two applications on two clusters, a caller who migrates and
//! deletes, a watcher, and a minute of troubles; then a calm in which everything has to come to its end. Schedulers and
//! agents are the production code, down to HTTP/2 and the preface of agents that dial in; what is simulated are
//! machines ([`machine`]), processes and disks ([`instance`], [`storage`]). The story of a run says what happened; what
//! must never happen is checked while it happens ([`judge`]) and in the end ([`verdict`]).
//!
//! The same seed leads to the same story, line by line, when tokio's own chance is seeded as well, which takes
//! `--cfg tokio_unstable`.

mod ambush;
mod clients;
mod hosts;
mod instance;
mod judge;
mod machine;
mod plan;
mod storage;
mod story;
mod troubles;
mod verdict;
mod watching;
mod world;

use std::sync::Arc;
use std::time::Duration;

use turmoil::{Builder, Sim};

use plan::{Plan, TROUBLED};
use troubles::Troubles;
use world::World;

/// The resolution of the network. Latencies are multiples of it, more or less.
const TICK: Duration = Duration::from_millis(10);
/// How long a segment is under way.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Segments under way on one connection: more than any call needs, and a slow reader is felt.
const SEGMENTS_MAX: usize = 256;
/// When the troubles are over, everything comes to its end within this time: a keep-alive of a minute, the longest
/// pause of an agent, and a few attempts of an operation.
const CALM_MAX: Duration = Duration::from_secs(300);

/// What came of a seed.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// What happened, one line each.
    pub story: Vec<String>,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

impl Run {
    /// Whether nothing happened that must never happen.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Lives through everything `seed` stands for.
#[must_use]
pub fn run(seed: u64) -> Run {
    let world = World::new(Plan::new(seed));
    tracing::subscriber::with_default(world.story.clone(), || live(&world));
    Run { seed, story: world.story.lines(), violations: world.story.violations() }
}

fn live(world: &Arc<World>) {
    let mut sim = Builder::new()
        .rng_seed(world.plan.seed)
        .tick_duration(TICK)
        .min_message_latency(LATENCY.0)
        .max_message_latency(LATENCY.1)
        .tcp_capacity(SEGMENTS_MAX)
        .simulation_duration(Duration::MAX)
        .build();
    populate(&mut sim, world);
    tell_plan(world);
    let mut troubles = Troubles::new(world.plan.troubles.clone());
    let mut calm_since = None;
    loop {
        let now = sim.elapsed();
        world.story.set_now(now);
        troubles.tick(&mut sim, world, now);
        world.wires.tick(now);
        for instance in &world.instances {
            instance.tick(now);
        }
        if calm_since.is_none() && now >= TROUBLED && troubles.are_over() {
            calm_since = Some(now);
            world.memory().is_calm = true;
            world.story.tell("world", "all is calm");
        }
        if let Err(error) = sim.step() {
            world.story.violated("never", format_args!("a host failed: {error}"));
            return;
        }
        troubles.spring(&mut sim, world);
        let is_over_time = calm_since.is_some_and(|since| now > since + CALM_MAX);
        if calm_since.is_some() && (is_over_time || verdict::is_settled(world)) {
            verdict::pronounce(world);
            world.story.set_now(sim.elapsed());
            world.story.tell("world", "the end");
            return;
        }
    }
}

fn populate(sim: &mut Sim<'_>, world: &Arc<World>) {
    let shared = Arc::clone(world);
    sim.host("scheduler", move || hosts::scheduler(Arc::clone(&shared)));
    for (role, instance) in world.plan.cast.iter().zip(&world.instances) {
        let (shared, role, instance) = (Arc::clone(world), role.clone(), Arc::clone(instance));
        let host = instance.host.clone();
        sim.host(host, move || hosts::agent(Arc::clone(&shared), role.clone(), Arc::clone(&instance)));
    }
    let shared = Arc::clone(world);
    sim.host("caller", move || clients::caller(Arc::clone(&shared)));
    let shared = Arc::clone(world);
    sim.host("watcher", move || watching::watcher(Arc::clone(&shared)));
    let shared = Arc::clone(world);
    sim.host("person", move || clients::person(Arc::clone(&shared)));
}

fn tell_plan(world: &World) {
    let plan = &world.plan;
    world.story.tell(
        "plan",
        format_args!("seed {}, the policy {}", plan.seed, if plan.forces { "kills" } else { "gives up" }),
    );
    if plan.ambush > 0 {
        world.story.tell("plan", format_args!("the scheduler crashes at write {}", plan.ambush));
    }
    for role in &plan.cast {
        world.story.tell("plan", role);
    }
    for ask in &plan.asks {
        let what = ask.target.map_or_else(|| "delete".to_owned(), |target| format!("migrate to {target}"));
        let then = ask.then.map_or_else(String::new, |(after, what)| format!(", {what:?} {after:?} later"));
        world.story.tell("plan", format_args!("at {:?} {}: {what} {}{then}", ask.at, ask.request_id, ask.application));
    }
    for trouble in &plan.troubles {
        world.story.tell("plan", format_args!("at {:?} {:?}", trouble.at, trouble.what));
    }
}
