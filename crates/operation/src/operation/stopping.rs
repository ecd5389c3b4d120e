//! STOPPING, BACKING_OFF, FORCING: members are told to stop in order, watched, and in the end killed if that is what the
//! policy or a person says.

use std::time::Duration;

use super::{Operation, Slot, Stage, State, overriding};
use crate::failure::{Failure, OverrideKind, Reason};
use crate::id::InstanceId;
use crate::member::{Again, Kill, PROGRESS_INTERVAL, Probing, Run, Shutdown};
use crate::moment::Moment;
use crate::policy::FailureStrategy;
use crate::report::{CallError, CallErrorClass, StopOutcome, StopPhase, StopReport, StopResult};
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
        let in_flight = self.members.iter().any(|member| member.is_in_flight());
        let failed = self.members.iter().any(|member| member.has_failed() || member.failure_holds());
        if failed {
            if !in_flight {
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

    fn advance_to_stopped(&mut self, now: Moment, step: &mut Step) {
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

/// Killing.
impl Operation {
    pub(super) fn enter_forcing(&mut self, now: Moment, message: &str, step: &mut Step) {
        if !self.overrides.iter().any(|one| one.kind == OverrideKind::Force) {
            let permission = overriding(OverrideKind::Force, &self.request.caller, now, None);
            self.overrides.push(permission);
        }
        self.tries += 1;
        self.enter(now, State::Forcing, message, step);
        self.emit(now, EventKind::Override, None, None, message, step);
        for index in 0..self.members.len() {
            if !self.members[index].has_ended() {
                self.kill(now, Slot::Source(index), step);
            }
        }
    }

    /// Kills within the shutdown that runs, or within a new one.
    pub(super) fn kill(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        self.at_mut(slot).told = true;
        self.point_of_no_return.get_or_insert(now);
        if !self.at(slot).has_open_shutdown() {
            self.launch(now, slot, true, step);
            return;
        }
        let heard_until = now + self.policy.heartbeat_timeout;
        let kill = Some(Kill { until: now + self.policy.accept_timeout, answered: false, again: None });
        let member = self.at_mut(slot);
        member.run = Run::Running { heard_until, silent: false, again: None, kill };
        let (instance, attempt) = (member.instance.clone(), member.fence());
        step.changed = true;
        step.effects.push(Effect::Shutdown { instance: instance.clone(), attempt, anew: false });
        step.effects.push(Effect::Kill { instance, attempt });
    }

    pub(super) fn advance_forcing(&mut self, now: Moment, step: &mut Step) {
        if self.members.iter().any(|member| member.is_in_flight()) {
            return;
        }
        for index in 0..self.members.len() {
            let slot = Slot::Source(index);
            if self.members[index].has_failed() && self.lacks_only_proof(slot) && self.may_skip_proof() {
                self.skip_proof(now, slot, step);
            }
        }
        if self.members.iter().any(|member| member.has_failed() || member.failure_holds()) {
            self.degrade(now, Stage::Stopping, step);
        } else {
            self.advance_to_stopped(now, step);
        }
    }

    pub(super) fn kill_answered(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        attempt: u32,
        answer: Result<(), CallError>,
        step: &mut Step,
    ) {
        let Some(slot) = self.in_flight(instance, attempt) else { return };
        let kill_timeout = self.policy.kill_timeout;
        let Run::Running { kill: Some(kill), .. } = &mut self.at_mut(slot).run else { return };
        match answer {
            Ok(()) => {
                *kill = Kill { until: now + kill_timeout, answered: true, again: None };
                step.changed = true;
            }
            Err(error) => match error.class {
                CallErrorClass::Lost | CallErrorClass::Busy => kill.again = Some(Again::after(kill.again, now)),
                CallErrorClass::NotFound => {
                    // The hook has forgotten the shutdown: make it known again, then kill.
                    kill.again = Some(Again::after(kill.again, now));
                    step.effects.push(Effect::Shutdown { instance: instance.clone(), attempt, anew: true });
                }
                CallErrorClass::Unimplemented => {
                    let message = "its hook cannot kill, so its end cannot be brought about".to_owned();
                    self.fail_stop(now, slot, Reason::Unverified, message, step);
                }
                CallErrorClass::Rejected | CallErrorClass::Protocol | CallErrorClass::PointOfNoReturn => {
                    let message = format!("its hook refused to kill: {}", error.message);
                    self.fail_stop(now, slot, Reason::HookRejected, message, step);
                }
            },
        }
    }
}

/// Listening.
impl Operation {
    /// The slot of that name, if the shutdown with that fence is under way.
    pub(super) fn in_flight(&self, instance: &InstanceId, attempt: u32) -> Option<Slot> {
        self.locate(instance).filter(|&slot| self.at(slot).fence() == attempt && self.at(slot).is_in_flight())
    }

    pub(super) fn stop_reported(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        attempt: u32,
        report: StopReport,
        step: &mut Step,
    ) {
        let Some(slot) = self.locate(instance).filter(|&slot| self.at(slot).fence() == attempt) else { return };
        match self.at(slot).run {
            Run::Calling { .. } | Run::Running { .. } => self.heard(now, slot, report, step),
            Run::Failed | Run::Unverified => self.heard_late(now, slot, report, step),
            Run::Waiting | Run::Stopped => {}
        }
    }

    fn heard(&mut self, now: Moment, slot: Slot, report: StopReport, step: &mut Step) {
        if let Some(problem) = self.breach(slot, &report) {
            self.fail_stop(now, slot, Reason::ProtocolError, problem, step);
            return;
        }
        let heard_until = now + self.policy.heartbeat_timeout;
        let member = self.at_mut(slot);
        let (then_kill, kill) = match &member.run {
            Run::Calling { then_kill, .. } => (*then_kill, None),
            Run::Running { kill, .. } => (false, *kill),
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => return,
        };
        member.run = Run::Running { heard_until, silent: false, again: None, kill };
        member.failure = None;
        if report.phase.is_past_no_return() {
            member.told = true;
            self.point_of_no_return.get_or_insert(now);
        }
        let wish = report.wanted_grace_period;
        let result = report.result.clone();
        self.note_report(now, slot, report, step);
        if let Some(result) = result {
            self.finish(now, slot, &result, step);
        } else if then_kill {
            self.kill(now, slot, step);
        } else if let Some(wanted) = wish {
            self.wish(now, slot, wanted, step);
        }
    }

    /// What is wrong with a report, given the one before it.
    fn breach(&self, slot: Slot, report: &StopReport) -> Option<String> {
        let last = self.at(slot).shutdown.as_ref()?.report.as_ref()?;
        if report.sequence < last.sequence {
            return Some(format!("its hook went back from report {} to {}", last.sequence, report.sequence));
        }
        let back =
            report.phase < last.phase || (report.phase == StopPhase::Cancelled && last.phase.is_past_no_return());
        back.then(|| format!("its hook went back from phase {:?} to {:?}", last.phase, report.phase))
    }

    /// Stores a report and publishes it, at once or a little later.
    fn note_report(&mut self, now: Moment, slot: Slot, report: StopReport, step: &mut Step) {
        let member = self.at_mut(slot);
        let published = member.published;
        let Some(shutdown) = member.shutdown.as_mut() else { return };
        let first = shutdown.accepted.is_none();
        shutdown.accepted.get_or_insert(now);
        shutdown.heard = Some(now);
        let (news, phase_moved) = match &shutdown.report {
            Some(last) => (!last.says_the_same(&report), last.phase != report.phase),
            None => (true, true),
        };
        let is_result = report.result.is_some();
        let text = if report.message.is_empty() { report.step.clone() } else { report.message.clone() };
        shutdown.report = Some(report);
        if is_result || !news {
            return;
        }
        if first || phase_moved || published.is_none_or(|at| at + PROGRESS_INTERVAL <= now) {
            self.publish(now, slot, &text, step);
        } else {
            let due = published.map(|at| at + PROGRESS_INTERVAL);
            self.at_mut(slot).progress_due = due;
        }
    }

    fn publish(&mut self, now: Moment, slot: Slot, text: &str, step: &mut Step) {
        let member = self.at_mut(slot);
        member.published = Some(now);
        member.progress_due = None;
        let instance = member.instance.clone();
        self.emit(now, EventKind::Progress, Some(instance), None, text, step);
    }

    fn finish(&mut self, now: Moment, slot: Slot, result: &StopResult, step: &mut Step) {
        if result.proves_end(self.policy.min_evidence) {
            self.note_end(now, slot, result, step);
            return;
        }
        let said = if result.message.is_empty() { String::new() } else { format!(" ({})", result.message) };
        match result.outcome {
            StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => {
                let (have, need) = (result.evidence, self.policy.min_evidence);
                let message = format!("its end rests on {have:?}; at least {need:?} is asked for{said}");
                self.fail_stop(now, slot, Reason::Unverified, message, step);
            }
            StopOutcome::StillRunning => {
                self.fail_stop(now, slot, Reason::StillRunning, format!("it still runs{said}"), step);
            }
            StopOutcome::Restarted => {
                let message = format!("it ended, but something started it again{said}");
                self.fail_stop(now, slot, Reason::Restarted, message, step);
            }
            StopOutcome::Unknown => {
                self.fail_stop(
                    now,
                    slot,
                    Reason::Unverified,
                    format!("its hook cannot tell whether it ended{said}"),
                    step,
                );
            }
            StopOutcome::Cancelled if self.cancel_requested => {
                self.at_mut(slot).run = Run::Waiting;
                step.changed = true;
            }
            StopOutcome::Cancelled => {
                let message = format!("its hook took the shutdown back unasked{said}");
                self.fail_stop(now, slot, Reason::ProtocolError, message, step);
            }
        }
    }

    fn note_end(&mut self, now: Moment, slot: Slot, result: &StopResult, step: &mut Step) {
        let unclean = self.policy.hold_on_unclean_exit && result.clean == Some(false);
        let instance = self.at(slot).instance.clone();
        let failure = unclean.then(|| {
            let how = match (result.exit_code, result.exit_signal) {
                (Some(code), _) => format!("with exit code {code}"),
                (None, Some(signal)) => format!("by signal {signal}"),
                (None, None) => "uncleanly".to_owned(),
            };
            let message = format!("it ended {how}; its state may not have been saved");
            self.failure_of(&instance, Reason::UncleanExit, message, now)
        });
        let member = self.at_mut(slot);
        member.run = Run::Stopped;
        member.probing = Probing::Idle;
        member.progress_due = None;
        member.failure.clone_from(&failure);
        let message = format!("{instance} has ended, evidence {:?}", result.evidence);
        self.emit(now, EventKind::InstanceStopped, Some(instance), None, &message, step);
        if let Some(failure) = failure {
            self.tell_failure(now, &failure, step);
        }
    }

    /// A report after the attempt was given up: it changes no decision, but a proven end is a proven end.
    fn heard_late(&mut self, now: Moment, slot: Slot, report: StopReport, step: &mut Step) {
        if self.breach(slot, &report).is_some() {
            return;
        }
        let min_evidence = self.policy.min_evidence;
        let result = report.result.clone().filter(|result| result.proves_end(min_evidence));
        if let Some(shutdown) = self.at_mut(slot).shutdown.as_mut() {
            shutdown.heard = Some(now);
            shutdown.report = Some(report);
        }
        if let Some(result) = result {
            self.note_end(now, slot, &result, step);
        }
    }

    pub(super) fn stop_call_ended(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        attempt: u32,
        error: CallError,
        step: &mut Step,
    ) {
        let Some(slot) = self.in_flight(instance, attempt) else { return };
        match error.class {
            CallErrorClass::Lost | CallErrorClass::Busy => {
                let reason =
                    if error.class == CallErrorClass::Lost { Reason::HookUnreachable } else { Reason::HookRejected };
                let failure = self.failure_of(instance, reason, error.message.clone(), now);
                let member = self.at_mut(slot);
                // Kept for the case that nothing better comes; the next report clears it.
                member.failure = Some(Failure { grpc_code: error.grpc_code, ..failure });
                match &mut member.run {
                    Run::Calling { again, .. } | Run::Running { again, .. } => *again = Some(Again::after(*again, now)),
                    Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => {}
                }
            }
            CallErrorClass::Protocol => self.fail_stop(now, slot, Reason::ProtocolError, error.message, step),
            CallErrorClass::Rejected
            | CallErrorClass::Unimplemented
            | CallErrorClass::NotFound
            | CallErrorClass::PointOfNoReturn => {
                let message = format!("its hook refused the shutdown: {}", error.message);
                self.fail_stop(now, slot, Reason::HookRejected, message, step);
                if let Some(failure) = self.at_mut(slot).failure.as_mut() {
                    failure.grpc_code = error.grpc_code;
                }
            }
        }
    }

    pub(super) fn more_time_wanted(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        attempt: u32,
        wanted: Duration,
        step: &mut Step,
    ) {
        if let Some(slot) = self.in_flight(instance, attempt) {
            self.wish(now, slot, wanted, step);
        }
    }

    fn wish(&mut self, now: Moment, slot: Slot, wanted: Duration, step: &mut Step) {
        let policy = self.policy.clone();
        let before = self.at(slot).shutdown.as_ref().map_or(Duration::ZERO, |shutdown| shutdown.grace);
        let Some((grace, granted)) = self.at_mut(slot).consider_wish(wanted, &policy) else { return };
        let (instance, attempt) = (self.at(slot).instance.clone(), self.at(slot).fence());
        if grace > before {
            let message = format!("{instance} has {grace:?} in all now");
            self.emit(now, EventKind::DeadlineExtended, Some(instance.clone()), None, &message, step);
        }
        if !granted {
            let limit = policy.grace_period + policy.max_extension;
            let message = format!("{instance} wants {wanted:?} in all; max_extension allows {limit:?}");
            self.emit(now, EventKind::ExtensionDenied, Some(instance.clone()), None, &message, step);
        }
        step.effects.push(Effect::UpdateDeadline { instance, attempt, grace, granted });
    }
}

/// Timers and failures.
impl Operation {
    pub(super) fn stop_deadlines(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        if self.at(slot).progress_due.is_some_and(|due| due <= now) {
            let report = self.at(slot).shutdown.as_ref().and_then(|shutdown| shutdown.report.as_ref());
            let text = report.map_or_else(String::new, |report| report.message.clone());
            self.publish(now, slot, &text, step);
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
        if self.at(slot).grace_deadline().is_some_and(|deadline| deadline <= now) {
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
            if let Run::Running { heard_until, silent, .. } = &mut self.at_mut(slot).run {
                (*heard_until, *silent) = (until, true);
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
        let last = self.at(slot).failure.clone();
        // The hook may have heard us although we did not hear it.
        self.at_mut(slot).told = true;
        self.point_of_no_return.get_or_insert(now);
        match last {
            Some(last) => {
                self.time_out(now, slot, last.reason, format!("no answer for {waited:?}: {}", last.message), step)
            }
            None => {
                self.time_out(now, slot, Reason::AcceptTimeout, format!("its hook did not answer for {waited:?}"), step)
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
        let instance = self.at(slot).instance.clone();
        let failure = self.failure_of(&instance, reason, message.clone(), now);
        let text = failure.message.clone();
        self.emit(now, EventKind::Timeout, Some(instance), Some(failure), &text, step);
        self.fail_stop(now, slot, reason, message, step);
    }

    pub(super) fn fail_stop(&mut self, now: Moment, slot: Slot, reason: Reason, message: String, step: &mut Step) {
        let instance = self.at(slot).instance.clone();
        let failure = self.failure_of(&instance, reason, message, now);
        let member = self.at_mut(slot);
        member.run = Run::Failed;
        member.progress_due = None;
        member.failure = Some(failure.clone());
        // A hook that accepted and then broke the rules may have told the application to stop.
        member.told |= member.shutdown.as_ref().is_some_and(|shutdown| shutdown.accepted.is_some());
        self.tell_failure(now, &failure, step);
    }

    /// Publishes a failed attempt on one instance.
    pub(super) fn tell_failure(&mut self, now: Moment, failure: &Failure, step: &mut Step) {
        self.failure = Some(failure.clone());
        self.updated = now;
        let instance = failure.instance.clone();
        self.emit(now, EventKind::AttemptFailed, instance, Some(failure.clone()), &failure.message, step);
    }
}
