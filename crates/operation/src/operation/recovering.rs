//! After a restart of the scheduler: every call that was under way is made again, and every deadline goes on.
//!
//! Budgets of the application (grace, kill, start, overall) keep what is left of them. Timers that only measure whether
//! a hook answers *us* (accept, heartbeat) begin anew, since we were the ones who did not listen. An old deadline is not
//! judged before the hook had [`RECONNECT_MAX`] to come back and tell what happened meanwhile.

use std::time::Duration;

use quiesce_mutation::{Mutant, active};

use super::{Operation, State};
use crate::member::{Kill, RECONNECT_MAX, Run};
use crate::moment::Moment;
use crate::start::StartRun;
use crate::step::{Effect, Step};

impl Operation {
    /// How long a hook may take to be heard again.
    fn reunion(&self) -> Duration {
        self.policy.accept_timeout.max(RECONNECT_MAX)
    }

    /// Takes up an operation that was read from the store. A PENDING one waits for [`crate::Input::Begin`] as ever.
    #[must_use]
    pub fn recover(&mut self, now: Moment) -> Step {
        let mut step = Step::default();
        if self.is_done() {
            return step;
        }
        self.judge_not_before = Some(now + self.reunion());
        for slot in self.slots() {
            self.recover_stop(now, slot, &mut step);
        }
        for index in 0..self.starts.len() {
            self.recover_start(now, index, &mut step);
        }
        match self.state {
            State::Preparing => self.ask_hooks(now, &mut step),
            State::Stopping | State::Forcing => {
                // The look back is asked again as a whole.
                for member in self.members.iter_mut().filter(|member| member.is_verified()) {
                    member.probing = crate::member::Probing::Idle;
                }
            }
            State::Finalizing { .. } => {
                self.state = State::Finalizing { until: now + self.policy.accept_timeout, again: None };
                self.conclude(&mut step);
            }
            State::Cancelling { .. } => {
                self.state = State::Cancelling { until: now + self.policy.accept_timeout, again: None };
                self.ask_back(&mut step);
            }
            State::Pending
            | State::BackingOff { .. }
            | State::Stopped { .. }
            | State::Starting
            | State::RollingBack
            | State::Degraded { .. }
            | State::Succeeded
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => {}
        }
        self.advance(now, &mut step);
        step
    }

    fn recover_stop(&mut self, now: Moment, slot: super::Slot, step: &mut Step) {
        let floor = now + self.reunion();
        let heard_until = now + self.policy.heartbeat_timeout.max(self.reunion());
        // What is being taken back is not called again, see `advance_cancelling`.
        let cancelling = matches!(self.state, State::Cancelling { .. });
        let mut killing = false;
        let member = self.at_mut(slot);
        member.judge_not_before = Some(floor);
        let (instance, attempt) = (member.instance.clone(), member.fence());
        match member.run.clone() {
            Run::Calling { then_kill, .. } => member.run = Run::Calling { until: floor, again: None, then_kill },
            Run::Running { kill, .. } => {
                if active(Mutant::GraceBeginsAnew)
                    && let Some(shutdown) = &mut member.shutdown
                {
                    shutdown.accepted = shutdown.accepted.map(|_| now);
                }
                let kill = kill.map(|kill| Kill { until: kill.until.max(floor), again: None, ..kill });
                member.run = Run::Running { heard_until, silent: false, again: None, kill };
                if kill.is_some() {
                    // Behind the join below: a kill needs a shutdown that runs.
                    killing = true;
                }
            }
            // A stop that was given up but never ended is listened to again: a late end is an end. Only a hook that keeps
            // its shutdowns is asked; any other could take the question for a new order.
            Run::Failed if member.capabilities.durable && member.has_open_shutdown() => {}
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => return,
        }
        if !cancelling {
            step.effects.push(Effect::Shutdown { instance: instance.clone(), attempt, anew: true });
        }
        if killing {
            step.effects.push(Effect::Kill { instance, attempt });
        }
    }

    fn recover_start(&mut self, now: Moment, index: usize, step: &mut Step) {
        let floor = now + self.reunion();
        let heard_until = now + self.policy.heartbeat_timeout;
        let start = &mut self.starts[index];
        let StartRun::Ordered { until, .. } = start.run else { return };
        start.run = StartRun::Ordered { until: until.max(floor), heard_until, again: None };
        let (instance, epoch, rollback) = (start.instance.clone(), start.epoch, start.rollback);
        step.effects.push(Effect::Start { instance, epoch, rollback });
    }
}
