//! What goes wrong, and that it stops going wrong.

use std::sync::{Arc, PoisonError};

use quiesce_agent::process::signal::Signal;
use quiesce_runtime::signals;
use tokio::time::{Instant, sleep};

use super::agent::{AgentParty, Blow as AgentBlow, DiskPlan};
use super::scheduler::Blow;
use super::{CALLER, SCHEDULER, WATCHER, World};
use crate::laws::Fact;
use crate::ledger::Crash;
use crate::wire::{Party, Weather};

impl World {
    /// Lets things go wrong for as long as the scenario says.
    pub(super) async fn storm(self: Arc<Self>) {
        let weather = self.scenario.weather;
        if weather.breaks + weather.doubles + weather.late > 0 {
            self.laws.fact(Fact::Network);
        }
        self.wire.set_weather(weather);
        let end = Instant::now() + self.scenario.storm;
        while Instant::now() < end {
            sleep(self.chance.millis(10..=u64::try_from(self.scenario.pause.as_millis()).unwrap_or(1_000))).await;
            self.strike().await;
        }
    }

    /// One thing goes wrong.
    async fn strike(&self) {
        let agent = &self.agents[usize::try_from(self.chance.next()).unwrap_or(0) % self.agents.len()];
        match self.chance.within(0..=17) {
            0 => self.hit_scheduler(Blow::Crash),
            1 => self.hit_scheduler(Blow::End),
            2 | 3 => {
                let crash = Crash { after: self.chance.within(0..=6), applied: self.chance.percent(50) };
                self.story.tell("storm", || format!("the scheduler will die at a commit: {crash:?}"));
                self.laws.fact(Fact::Scheduler);
                self.ledger.plan_crash(crash);
            }
            4 | 5 => self.hit_agent(agent, AgentBlow::Crash),
            6 | 7 => {
                let crash = (self.chance.within(0..=3), self.chance.percent(50));
                self.story.tell("storm", || format!("{} will die at a write: {crash:?}", agent.name));
                self.laws.fact(Fact::Agent);
                agent.plan(|plan| plan.crash = Some(crash));
            }
            8 if self.chance.percent(30) => self.hit_agent(agent, AgentBlow::Reboot),
            9 if self.chance.percent(40) => {
                self.story.tell("storm", || format!("{} is asked to end", agent.name));
                self.laws.fact(Fact::Agent);
                self.laws.fact(Fact::BadEnd);
                agent.machine.ask_to_end(signals::Signal::Terminate);
            }
            10 if self.chance.percent(30) => {
                let census = agent.machine.census();
                if let Some((instance, epoch)) = census.keys().next() {
                    self.story.tell("storm", || format!("somebody kills {instance} of epoch {epoch}"));
                    self.laws.fact(Fact::BadEnd);
                    agent.machine.signal_run(instance, *epoch, Signal::KILL);
                }
            }
            11 | 12 => self.cut(SCHEDULER, agent.party, &agent.name).await,
            13 => {
                let who = self.chance.pick(&[CALLER, WATCHER]);
                self.cut(SCHEDULER, who, "callers").await;
            }
            14 => {
                self.story.tell("storm", || "the scheduler's disk is full".to_owned());
                self.laws.fact(Fact::Scheduler);
                self.ledger.set_full(true);
                sleep(self.chance.millis(100..=12_000)).await;
                self.ledger.set_full(false);
                self.story.tell("storm", || "the scheduler's disk has room".to_owned());
            }
            15 => {
                self.laws.fact(Fact::Scheduler);
                self.ledger.set_slow(true);
                sleep(self.chance.millis(100..=5_000)).await;
                self.ledger.set_slow(false);
            }
            16 => {
                let (refuses, slow) = (self.chance.percent(50), self.chance.millis(1..=1_500));
                self.story.tell("storm", || format!("the disk of {} refuses: {refuses}, slow by {slow:?}", agent.name));
                self.laws.fact(Fact::Agent);
                agent.plan(|plan| (plan.refuses, plan.slow) = (refuses, Some(slow)));
                sleep(self.chance.millis(100..=8_000)).await;
                agent.plan(|plan| (plan.refuses, plan.slow) = (false, None));
                self.story.tell("storm", || format!("the disk of {} is well", agent.name));
            }
            17 => {
                let step = i64::try_from(self.chance.within(0..=172_800_000)).unwrap_or(0) - 86_400_000;
                self.story.tell("storm", || format!("wall clocks are set by {step} ms"));
                self.clocks.step_wall(step);
                agent.machine.step_wall_clock(-step);
                if self.chance.percent(10) {
                    let slept = self.chance.millis(1_000..=20_000);
                    self.story.tell("storm", || format!("the scheduler's machine slept for {slept:?}"));
                    self.laws.fact(Fact::Scheduler);
                    self.clocks.suspend(slept);
                }
            }
            _ => {}
        }
    }

    fn hit_scheduler(&self, blow: Blow) {
        self.laws.fact(Fact::Scheduler);
        self.scheduler.send_modify(|(count, which)| (*count, *which) = (*count + 1, blow));
    }

    fn hit_agent(&self, agent: &AgentParty, blow: AgentBlow) {
        self.laws.fact(Fact::Agent);
        self.laws.fact(Fact::BadEnd);
        agent.blows.send_modify(|(count, which)| (*count, *which) = (*count + 1, blow));
    }

    /// Cuts the way between two for a while, one way or both.
    async fn cut(&self, one: Party, other: Party, name: &str) {
        let (there, back) = self.chance.pick(&[(true, true), (true, false), (false, true)]);
        self.story.tell("storm", || format!("the way to {name} is cut: there {there}, back {back}"));
        self.laws.fact(Fact::Network);
        if there {
            self.wire.cut(one, other);
        }
        if back {
            self.wire.cut(other, one);
        }
        sleep(self.chance.millis(50..=40_000)).await;
        self.wire.heal(one, other);
        self.wire.heal(other, one);
        self.story.tell("storm", || format!("the way to {name} is open"));
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm_down(&self) {
        self.story.tell("world", || "calm".to_owned());
        self.wire.set_weather(Weather::default());
        self.wire.heal_all();
        self.ledger.set_full(false);
        self.ledger.set_slow(false);
        self.ledger.forget_crash();
        for agent in &self.agents {
            agent.plan(|plan| *plan = DiskPlan::default());
        }
    }
}

impl AgentParty {
    fn plan(&self, change: impl FnOnce(&mut DiskPlan)) {
        change(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
