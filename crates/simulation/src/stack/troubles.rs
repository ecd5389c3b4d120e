//! Carries out what goes wrong, and what ends it again.

use std::collections::VecDeque;
use std::time::Duration;

use turmoil::Sim;

use super::plan::{Trouble, Way, Wrong};
use super::world::World;

/// How long who was ambushed is down.
const AMBUSHED: Duration = Duration::from_millis(1_500);

/// The troubles of a run.
pub(super) struct Troubles {
    ahead: VecDeque<Trouble>,
    present: Vec<(Duration, Wrong)>,
}

impl Troubles {
    pub(super) fn new(planned: Vec<Trouble>) -> Self {
        Self { ahead: planned.into(), present: Vec::new() }
    }

    /// Whether nothing is wrong any more and nothing will be.
    pub(super) fn are_over(&self) -> bool {
        self.ahead.is_empty() && self.present.is_empty()
    }

    /// Begins and ends what is due.
    pub(super) fn tick(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        // A scheduler that was told to stop has done so, and its process is gone with all its connections.
        let is_down = self.present.iter().any(|(_, wrong)| host(wrong) == "scheduler");
        if !is_down && !sim.is_host_running("scheduler") {
            world.story.tell("world", "the scheduler is started again");
            sim.bounce("scheduler");
        }
        let over: Vec<_> = self.present.extract_if(.., |(until, _)| *until <= now).collect();
        for (_, wrong) in over {
            end(sim, world, &wrong);
        }
        while self.ahead.front().is_some_and(|trouble| trouble.at <= now) {
            let Some(trouble) = self.ahead.pop_front() else { break };
            self.begin(sim, world, trouble.what, now);
        }
    }

    /// Crashes whoever got to the write at which that was planned.
    pub(super) fn spring(&mut self, sim: &mut Sim<'_>, world: &World) {
        for host in world.ambushed() {
            self.begin(sim, world, Wrong::Crash { host, lasts: AMBUSHED }, sim.elapsed());
        }
    }

    fn begin(&mut self, sim: &mut Sim<'_>, world: &World, wrong: Wrong, now: Duration) {
        // One trouble of a kind at a time for each host: the network simulated cannot tell two apart, and who is down
        // cannot go down.
        let same = |other: &Wrong| host(other) == host(&wrong) && is_of_network(other) == is_of_network(&wrong);
        if self.present.iter().any(|(_, other)| same(other)) {
            return;
        }
        begin(sim, world, &wrong);
        if let Some(lasts) = lasts(&wrong) {
            self.present.push((now + lasts, wrong));
        }
    }
}

fn is_of_network(wrong: &Wrong) -> bool {
    matches!(wrong, Wrong::Lost { .. } | Wrong::Late { .. })
}

fn host(wrong: &Wrong) -> &str {
    match wrong {
        Wrong::Lost { host, .. }
        | Wrong::Late { host, .. }
        | Wrong::Crash { host, .. }
        | Wrong::PowerLoss { host, .. }
        | Wrong::ApplicationCrash { host } => host,
        Wrong::Restart => "scheduler",
    }
}

fn lasts(wrong: &Wrong) -> Option<Duration> {
    match wrong {
        Wrong::Lost { lasts, .. }
        | Wrong::Late { lasts, .. }
        | Wrong::Crash { lasts, .. }
        | Wrong::PowerLoss { lasts, .. } => Some(*lasts),
        Wrong::ApplicationCrash { .. } | Wrong::Restart => None,
    }
}

fn begin(sim: &mut Sim<'_>, world: &World, wrong: &Wrong) {
    match wrong {
        Wrong::Lost { host, way, .. } => {
            world.story.tell("world", format_args!("{host} and the scheduler lose what they send ({way:?})"));
            let (there, here) = (sim.lookup(host.as_str()), sim.lookup("scheduler"));
            if *way != Way::FromScheduler {
                sim.partition_oneway(there, here);
                world.wires.cut(there, here);
            }
            if *way != Way::ToScheduler {
                sim.partition_oneway(here, there);
                world.wires.cut(here, there);
            }
        }
        Wrong::Late { host, .. } => {
            world.story.tell("world", format_args!("{host} and the scheduler hear nothing of each other, yet"));
            sim.hold(host.as_str(), "scheduler");
        }
        Wrong::Crash { host, .. } => {
            world.story.tell("world", format_args!("{host} crashes"));
            sim.crash(host.as_str());
        }
        Wrong::PowerLoss { host, .. } => {
            world.story.tell("world", format_args!("{host} loses power"));
            sim.crash(host.as_str());
            if let Some(instance) = world.instance(host) {
                instance.power_lost();
            }
        }
        Wrong::ApplicationCrash { host } => {
            if world.instance(host).is_some_and(|instance| instance.crash_process()) {
                world.story.tell("world", format_args!("the application on {host} crashes"));
            }
        }
        Wrong::Restart => {
            world.story.tell("world", "the scheduler is told to stop, and will be started again");
            world.drain.notify_waiters();
        }
    }
}

fn end(sim: &mut Sim<'_>, world: &World, wrong: &Wrong) {
    match wrong {
        Wrong::Lost { host, .. } => {
            world.story.tell("world", format_args!("{host} and the scheduler reach each other again"));
            let (there, here) = (sim.lookup(host.as_str()), sim.lookup("scheduler"));
            sim.repair_oneway(there, here);
            sim.repair_oneway(here, there);
            world.wires.mend(there, here);
            world.wires.mend(here, there);
        }
        Wrong::Late { host, .. } => {
            world.story.tell("world", format_args!("{host} and the scheduler hear what was said meanwhile"));
            sim.release(host.as_str(), "scheduler");
        }
        Wrong::Crash { host, .. } | Wrong::PowerLoss { host, .. } => {
            world.story.tell("world", format_args!("{host} is started again"));
            sim.bounce(host.as_str());
        }
        Wrong::ApplicationCrash { .. } | Wrong::Restart => {}
    }
}
