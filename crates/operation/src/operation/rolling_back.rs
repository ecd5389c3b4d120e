//! ROLLING_BACK: the target is stopped and its end verified; only then the held source is started again, under a higher
//! epoch.

use super::{Operation, Slot, Stage, State};
use crate::member::{Member, Run};
use crate::moment::Moment;
use crate::policy::FailureStrategy;
use crate::request::Registered;
use crate::start::{StartMember, StartRun};
use crate::step::Step;

/// Tries to stop one target: gracefully, then, if the policy says FORCE, by a kill.
const GRACEFUL: u32 = 1;
const KILLED: u32 = 2;

impl Operation {
    pub(super) fn enter_rolling_back(&mut self, now: Moment, message: &str, step: &mut Step) {
        // A target that was never ordered to start has nothing to be stopped.
        self.undo = self
            .starts
            .iter()
            .filter(|start| !start.rollback && start.epoch != 0)
            .map(|start| {
                let mut member = Member::new(Registered {
                    instance: start.instance.clone(),
                    cluster: start.cluster.clone(),
                    stop_order: start.stop_order,
                    epoch: start.epoch,
                });
                member.capabilities = start.capabilities;
                member
            })
            .collect();
        // Nobody waits for the target any longer.
        for start in self.starts.iter_mut().filter(|start| start.is_in_flight()) {
            start.run = StartRun::Failed;
        }
        self.tries += 1;
        self.enter(now, State::RollingBack, message, step);
    }

    pub(super) fn advance_rolling_back(&mut self, now: Moment, step: &mut Step) {
        for index in 0..self.undo.len() {
            if self.undo[index].run == Run::Waiting {
                let (round, attempt) = (self.attempt, GRACEFUL);
                self.attempt = attempt;
                self.launch(now, Slot::Undo(index), false, step);
                self.attempt = round;
                self.undo[index].attempt = attempt;
            }
        }
        if self.undo.iter().any(Member::is_in_flight) {
            return;
        }
        if !self.settle_undo(now, step) {
            return;
        }
        if !self.starts.iter().any(|start| start.rollback) {
            let sources = self.members.iter().filter(|member| member.is_verified());
            let starts: Vec<StartMember> = sources
                .map(|member| {
                    let (instance, cluster) = (member.instance.clone(), member.cluster.clone());
                    let mut start = StartMember::new(instance, cluster, member.stop_order, true);
                    start.capabilities = member.capabilities;
                    start
                })
                .collect();
            self.starts.extend(starts);
        }
        let mut sources = self.starts.iter().filter(|start| start.rollback);
        if sources.clone().any(|start| start.run == StartRun::Failed) {
            if !sources.any(StartMember::is_in_flight) {
                self.degrade(now, Stage::RollingBack, step);
            }
        } else if sources.all(StartMember::is_ready) {
            self.enter(now, State::RolledBack, "the source runs again", step);
        } else {
            self.order_next(now, true, step);
        }
    }

    /// Whether every target is proven to be down. If not, and nothing more can be done, rests in DEGRADED: a source must
    /// not run while its target may.
    fn settle_undo(&mut self, now: Moment, step: &mut Step) -> bool {
        let force = self.policy.failure_strategy == FailureStrategy::Force || self.forced;
        for index in 0..self.undo.len() {
            let slot = Slot::Undo(index);
            if !self.undo[index].has_failed() {
                continue;
            }
            if force && self.undo[index].attempt < KILLED {
                self.undo[index].attempt = KILLED;
                self.tries += 1;
                self.kill(now, slot, step);
                self.undo[index].attempt = KILLED;
            } else if force && self.lacks_only_proof(slot) && self.may_skip_proof() {
                self.skip_proof(now, slot, step);
            }
        }
        if self.undo.iter().any(Member::is_in_flight) {
            return false;
        }
        if self.undo.iter().any(Member::has_failed) {
            self.degrade(now, Stage::RollingBack, step);
            return false;
        }
        true
    }

    /// Goes on rolling back after a rest.
    pub(super) fn resume_rolling_back(&mut self, now: Moment, step: &mut Step) {
        for member in self.undo.iter_mut().filter(|member| member.has_failed()) {
            member.run = Run::Waiting;
            member.failure = None;
        }
        for start in self.starts.iter_mut().filter(|start| start.rollback && start.run == StartRun::Failed) {
            start.run = StartRun::Waiting;
        }
        self.tries += 1;
        self.enter(now, State::RollingBack, "going back, once more", step);
        self.advance(now, step);
    }

    /// Whether what has stopped could be started again.
    pub(super) fn can_roll_back(&self) -> bool {
        let mut stopped = self.members.iter().filter(|member| member.is_verified()).peekable();
        stopped.peek().is_some() && stopped.all(|member| member.capabilities.start)
    }
}
