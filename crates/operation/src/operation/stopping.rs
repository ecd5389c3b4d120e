//! STOPPING and BACKING_OFF: members are told to stop in order, their timers run, and an attempt that failed is followed by
//! the next one, by force or by a rest, as the policy says.

use std::time::Duration;

use super::{Operation, Slot, Stage, State};
use crate::failure::{Failure, Reason};
use crate::member::{Again, Kill, Member, Run, Shutdown};
use crate::moment::Moment;
use crate::policy::FailureStrategy;
use crate::step::{Effect, EventKind, Step};

/// Telling members to stop.
impl Operation {
    /// Calls Shutdown under a fence of its own.
    pub(super) fn launch(&mut self, now: Moment, slot: Slot, then_kill: bool, step: &mut Step) {
        // A shutdown that was taken back keeps its id for ever: the next one needs another.
        if self.at(slot).fence() == self.tries {
            self.tries += 1;
        }
        let fence = self.tries;
        let grace = if then_kill { Duration::ZERO } else { self.policy.grace_period };
        let until = now + self.policy.accept_timeout;
        let attempt = self.attempt.max(1);
        let member = self.at_mut(slot);
        member.attempt = attempt;
        member.failure = None;
        member.shutdown = Some(Shutdown {
            fence,
            grace,
            extension: Duration::ZERO,
            accepted: None,
            report: None,
            heard: None,
            denied: None,
        });
        member.run = Run::Calling { until, again: None, then_kill };
        step.changed = true;
        step.effects.push(Effect::Shutdown { instance: member.instance.clone(), attempt: fence, anew: true });
    }

    pub(super) fn advance_stopping(&mut self, now: Moment, step: &mut Step) {
        let failed = self.members.iter().any(|member| member.has_failed() || member.failure_holds());
        if failed {
            // What others of this attempt still have to say belongs to the verdict.
            if !self.members.iter().any(Member::is_in_flight) && !self.is_looking_back() {
                self.attempt_over(now, false, step);
            }
        } else if self.members.iter().all(|member| member.has_ended()) {
            self.advance_to_stopped(now, step);
        } else {
            self.launch_next(now, step);
        }
    }

    fn launch_next(&mut self, now: Moment, step: &mut Step) {
        let open = || self.members.iter().filter(|member| !member.has_ended());
        let Some(order) = open().map(|member| member.stop_order).min() else { return };
        let running = open().filter(|member| member.is_in_flight()).count();
        let parallel = match self.policy.max_parallel_stops {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let next: Vec<usize> = (0..self.members.len())
            .filter(|&index| self.members[index].run == Run::Waiting && self.members[index].stop_order == order)
            .take(parallel.saturating_sub(running))
            .collect();
        for index in next {
            self.launch(now, Slot::Source(index), false, step);
        }
    }

    pub(super) fn advance_to_stopped(&mut self, now: Moment, step: &mut Step) {
        self.look_back(now, step);
        if self.is_looking_back() {
            return;
        }
        let message = match self.members.iter().filter(|member| !member.is_verified()).count() {
            0 => "every instance has stopped, verified".to_owned(),
            count => format!("every instance has stopped as far as known; {count} not verified"),
        };
        self.failure = None;
        self.enter(now, State::Stopped { confirmed: false }, message, step);
    }

    /// Decides what follows an attempt that has failed and has nothing in flight.
    pub(super) fn attempt_over(&mut self, now: Moment, target_only: bool, step: &mut Step) {
        let unclean = self.members.iter().any(|member| member.failure_holds());
        let last = self.attempt >= self.policy.max_attempts || self.is_overdue(now);
        if !unclean && !last {
            let seed = self
                .id
                .as_str()
                .bytes()
                .fold(u64::from(self.attempt), |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
            let wait = self.policy.backoff(self.attempt + 1, seed);
            let (attempt, most) = (self.attempt, self.policy.max_attempts);
            let message = format!("attempt {attempt} of {most} failed; the next begins in {:.1} s", wait.as_secs_f64());
            self.enter(now, State::BackingOff { until: now + wait }, message, step);
        } else if !unclean && !target_only && self.policy.failure_strategy == FailureStrategy::Force {
            self.enter_forcing(now, "the last attempt failed; killing, as the policy says", step);
        } else {
            self.degrade(now, Stage::Stopping, step);
        }
    }

    pub(super) fn overall_deadlines(&mut self, now: Moment, step: &mut Step) {
        if !self.is_overdue(now) {
            return;
        }
        self.stop_asking();
        let message = format!("not done within overall_timeout ({:?})", self.policy.overall_timeout);
        let failure = Failure {
            reason: Reason::OverallTimeout,
            message: message.clone(),
            instance: None,
            attempt: self.attempt,
            grpc_code: String::new(),
            time: now,
        };
        self.emit(now, EventKind::Timeout, None, Some(failure.clone()), &message, step);
        for slot in self.slots() {
            if self.at(slot).is_in_flight() {
                self.fail_stop(now, slot, Reason::OverallTimeout, message.clone(), step);
            }
        }
        self.failure = Some(failure);
        self.attempt_over(now, !self.was_told(), step);
    }
}

/// Timers and failures.
impl Operation {
    pub(super) fn stop_deadlines(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        if self.at(slot).progress_due.is_some_and(|due| due <= now) {
            self.publish(now, slot, step);
        }
        match self.at(slot).run.clone() {
            Run::Calling { until, again, then_kill } => {
                if until <= now {
                    self.accept_timeout(now, slot, step);
                } else if let Some(due) = again.filter(|again| again.at <= now) {
                    self.at_mut(slot).run = Run::Calling { until, again: Some(Again { at: until, ..due }), then_kill };
                    self.rejoin(slot, false, step);
                }
            }
            Run::Running { heard_until, silent, again, kill } => {
                self.running_deadlines(now, slot, heard_until, silent, again, kill, step);
            }
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one variant, taken apart once")]
    fn running_deadlines(
        &mut self,
        now: Moment,
        slot: Slot,
        heard_until: Moment,
        silent: bool,
        again: Option<Again>,
        kill: Option<Kill>,
        step: &mut Step,
    ) {
        if self.at(slot).grace_deadline(self.policy.settle_period).is_some_and(|deadline| deadline <= now) {
            let grace = self.at(slot).shutdown.as_ref().map_or(Duration::ZERO, |shutdown| shutdown.grace);
            let message = format!("it still runs at the end of its grace period of {grace:?}");
            self.time_out(now, slot, Reason::GraceTimeout, message, step);
            return;
        }
        if let Some(kill) = kill.filter(|kill| kill.until <= now) {
            self.kill_timeout(now, slot, kill, again.is_some(), step);
            return;
        }
        if let Some((kill, due)) =
            kill.and_then(|kill| kill.again.filter(|again| again.at <= now).map(|due| (kill, due)))
        {
            let waiting = Kill { again: Some(Again { at: kill.until, ..due }), ..kill };
            if let Run::Running { kill, .. } = &mut self.at_mut(slot).run {
                *kill = Some(waiting);
            }
            let member = self.at(slot);
            step.effects.push(Effect::Kill { instance: member.instance.clone(), attempt: member.fence() });
        }
        if heard_until <= now {
            if silent {
                let quiet = self.policy.heartbeat_timeout;
                if again.is_some() {
                    let message = "the connection to its hook broke and could not be restored".to_owned();
                    self.time_out(now, slot, Reason::HookUnreachable, message, step);
                } else {
                    let message = format!("its hook has been silent for more than {quiet:?}");
                    self.time_out(now, slot, Reason::HeartbeatTimeout, message, step);
                }
                return;
            }
            // Silence may be a dead connection that nobody has noticed: join anew once before judging.
            let until = now + self.policy.accept_timeout;
            if let Run::Running { heard_until, silent, again, .. } = &mut self.at_mut(slot).run {
                (*heard_until, *silent) = (until, true);
                *again = again.map(|again| Again { at: until, ..again });
            }
            self.rejoin(slot, true, step);
        } else if let Some(due) = again.filter(|again| again.at <= now) {
            if let Run::Running { again, .. } = &mut self.at_mut(slot).run {
                *again = Some(Again { at: heard_until, ..due });
            }
            self.rejoin(slot, false, step);
        }
    }

    pub(super) fn rejoin(&self, slot: Slot, anew: bool, step: &mut Step) {
        let member = self.at(slot);
        step.effects.push(Effect::Shutdown { instance: member.instance.clone(), attempt: member.fence(), anew });
    }

    fn accept_timeout(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        let waited = self.policy.accept_timeout;
        match self.at(slot).failure.clone() {
            Some(last) => {
                let prefix = format!("{}: ", self.at(slot).instance);
                let said = last.message.strip_prefix(&prefix).unwrap_or(&last.message);
                self.time_out(now, slot, last.reason, format!("no answer for {waited:?}: {said}"), step);
            }
            None => {
                self.time_out(
                    now,
                    slot,
                    Reason::AcceptTimeout,
                    format!("its hook did not answer for {waited:?}"),
                    step,
                );
            }
        }
    }

    fn kill_timeout(&mut self, now: Moment, slot: Slot, kill: Kill, broken: bool, step: &mut Step) {
        if kill.answered && !broken {
            let message = format!("it still runs {:?} after SIGKILL", self.policy.kill_timeout);
            self.time_out(now, slot, Reason::KillTimeout, message, step);
        } else {
            let message = "its hook could not be reached, so nobody can tell whether the kill worked".to_owned();
            self.time_out(now, slot, Reason::HookUnreachable, message, step);
        }
    }

    fn time_out(&mut self, now: Moment, slot: Slot, reason: Reason, message: String, step: &mut Step) {
        self.show_what_waits(now, slot, step);
        let instance = self.at(slot).instance.clone();
        let failure = self.failure_of(&instance, reason, message.clone(), now);
        let text = failure.message.clone();
        self.emit(now, EventKind::Timeout, Some(instance), Some(failure), &text, step);
        self.fail_stop(now, slot, reason, message, step);
    }

    pub(super) fn fail_stop(&mut self, now: Moment, slot: Slot, reason: Reason, message: String, step: &mut Step) {
        self.show_what_waits(now, slot, step);
        let instance = self.at(slot).instance.clone();
        let failure = self.failure_of(&instance, reason, message, now);
        // A hook that we lost sight of may have told the application to stop; only a plain refusal at the first call says
        // that it has not.
        let refused = reason == Reason::HookRejected && matches!(self.at(slot).run, Run::Calling { again: None, .. });
        if self.at(slot).is_in_flight() && !refused {
            self.note_told(now, slot);
        }
        let member = self.at_mut(slot);
        member.run = Run::Failed;
        member.progress_due = None;
        member.failure = Some(failure.clone());
        self.tell_failure(now, &failure, step);
    }

    /// From here on the application counts as told to stop.
    pub(super) fn note_told(&mut self, now: Moment, slot: Slot) {
        self.at_mut(slot).told = true;
        self.point_of_no_return.get_or_insert(now);
    }

    /// Publishes a failed attempt on one instance.
    pub(super) fn tell_failure(&mut self, now: Moment, failure: &Failure, step: &mut Step) {
        self.failure = Some(failure.clone());
        self.updated = now;
        let instance = failure.instance.clone();
        self.emit(now, EventKind::AttemptFailed, instance, Some(failure.clone()), &failure.message, step);
    }
}
