//! ROLLING_BACK: the target is stopped and its end verified; only then the held source is started again, under a higher
//! epoch.

use quiesce_mutation::{Mutant, active};

use super::{Operation, Slot, Stage, State};
use crate::failure::{Failure, Reason};
use crate::member::{Member, Run};
use crate::moment::Moment;
use crate::policy::FailureStrategy;
use crate::request::Registered;
use crate::start::{StartMember, StartRun};
use crate::step::Step;

/// Tries to stop one target: gracefully, then, if the policy or a person says so, by a kill.
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
        // Nobody waits for the target any longer; one that came up is given up with the others.
        for start in self.starts.iter_mut().filter(|start| start.epoch != 0) {
            start.run = StartRun::Failed;
        }
        // Who asked to kill meant the source.
        self.forced = false;
        self.tries += 1;
        self.enter(now, State::RollingBack, message, step);
    }

    pub(super) fn advance_rolling_back(&mut self, now: Moment, step: &mut Step) {
        for index in 0..self.undo.len() {
            if self.undo[index].run != Run::Waiting {
                continue;
            }
            if self.forced {
                self.kill_target(now, index, step);
            } else {
                self.launch(now, Slot::Undo(index), false, step);
                self.undo[index].attempt = GRACEFUL;
            }
        }
        if !self.settle_undo(now, step) {
            return;
        }
        if let Some(other) = self.lives_elsewhere() {
            let message =
                format!("{} may run on {}, so nothing is started at the source", other.instance, other.cluster);
            self.rest_on_the_way_back(now, message, step);
            return;
        }
        self.list_sources();
        if !self.starts.iter().any(|start| start.rollback) {
            let message = "no instance at the source has stopped, so none can be started again".to_owned();
            self.rest_on_the_way_back(now, message, step);
            return;
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

    /// Nothing can be started, for another reason than a start that failed.
    fn rest_on_the_way_back(&mut self, now: Moment, message: String, step: &mut Step) {
        let (attempt, grpc_code) = (self.attempt, String::new());
        let reason = Reason::StartFailed;
        self.failure = Some(Failure { reason, message, instance: None, attempt, grpc_code, time: now });
        self.degrade(now, Stage::RollingBack, step);
    }

    /// Lists every source that has ended as one to be started, also those that end while the others are being started.
    /// One that was given up without proof is asked as well: its hook starts nothing while a process is left. A deletion
    /// stops standbys too; what did not run at the source stays where it is, or there would be a second copy.
    fn list_sources(&mut self) {
        let source = &self.request.source;
        let is_source = |member: &&Member| member.cluster == *source || active(Mutant::StandbysStarted);
        for member in self.members.iter().filter(is_source).filter(|member| member.has_ended()) {
            if self.starts.iter().any(|start| start.rollback && start.instance == member.instance) {
                continue;
            }
            let (instance, cluster) = (member.instance.clone(), member.cluster.clone());
            let mut start = StartMember::new(instance, cluster, member.stop_order, true);
            start.capabilities = member.capabilities;
            self.starts.push(start);
        }
    }

    fn kill_target(&mut self, now: Moment, index: usize, step: &mut Step) {
        self.record_force(now, "killing the target on the way back", step);
        self.tries += 1;
        self.kill(now, Slot::Undo(index), step);
        self.undo[index].attempt = KILLED;
    }

    /// Whether every target is proven to be down. If not, and nothing more can be done, rests in DEGRADED: a source must
    /// not run while its target may.
    fn settle_undo(&mut self, now: Moment, step: &mut Step) -> bool {
        if self.undo.iter().any(Member::is_in_flight) {
            return false;
        }
        let force = self.policy.failure_strategy == FailureStrategy::Force || self.forced;
        for index in 0..self.undo.len() {
            let slot = Slot::Undo(index);
            if !self.undo[index].has_failed() {
                continue;
            }
            if force && self.undo[index].attempt < KILLED {
                self.kill_target(now, index, step);
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

    /// An instance that is to be stopped, not at the source, and that nobody knows to have ended: a deletion has such
    /// ones, and after a migration that was abandoned half-way the application may run there. As long as it does,
    /// nothing is started at the source.
    fn lives_elsewhere(&self) -> Option<&Member> {
        let elsewhere = |member: &&Member| member.cluster != self.request.source && !member.has_ended();
        self.members.iter().find(elsewhere).filter(|_| !active(Mutant::StandbysStarted))
    }

    /// Whether what has stopped could be started again.
    pub(super) fn can_roll_back(&self) -> bool {
        let home = self.members.iter().filter(|member| member.cluster == self.request.source);
        let mut stopped = home.filter(|member| member.is_verified()).peekable();
        if self.lives_elsewhere().is_some() {
            return false;
        }
        stopped.peek().is_some() && stopped.all(|member| member.capabilities.start)
    }
}
