//! What hooks say while they stop an application: reports, results, broken calls, wishes for more time. What is said is
//! noted here; what follows from it is decided where the operation advances.

use std::time::Duration;

use quiesce_mutation::{Mutant, active};

use super::{Operation, Slot, State};
use crate::failure::{Failure, Reason};
use crate::id::InstanceId;
use crate::member::{Again, FINISH_SPEAKING, Probing, Run};
use crate::moment::Moment;
use crate::report::{CallError, CallErrorClass, StopOutcome, StopPhase, StopReport, StopResult};
use crate::step::{Effect, EventKind, Step};

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
        let current = |fence: u32| fence == attempt || active(Mutant::StaleAttemptCounts);
        let known = |&slot: &Slot| self.at(slot).shutdown.is_some() && current(self.at(slot).fence());
        let Some(slot) = self.locate(instance).filter(known) else { return };
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
        let told_by_now = report.phase.is_past_no_return();
        let member = self.at_mut(slot);
        let (then_kill, kill) = match &member.run {
            Run::Calling { then_kill, .. } => (*then_kill, None),
            Run::Running { kill, .. } => (false, *kill),
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => return,
        };
        member.run = Run::Running { heard_until, silent: false, again: None, kill };
        member.failure = None;
        // It has begun to speak; what it says next may be the end.
        member.judge_not_before = member.judge_not_before.map(|floor| floor.min(now + FINISH_SPEAKING));
        if told_by_now {
            self.note_told(now, slot);
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
        back.then(|| format!("its hook went back from phase {} to {}", last.phase, report.phase))
    }

    /// Stores a report and publishes it, at once or a little later.
    fn note_report(&mut self, now: Moment, slot: Slot, report: StopReport, step: &mut Step) {
        let is_result = report.result.is_some();
        if is_result {
            self.show_what_waits(now, slot, step);
        }
        let member = self.at_mut(slot);
        let Some(shutdown) = member.shutdown.as_mut() else { return };
        let first = shutdown.accepted.is_none();
        shutdown.accepted.get_or_insert(now);
        shutdown.heard = Some(now);
        let (news, phase_moved) = match &shutdown.report {
            Some(last) => (!last.says_the_same(&report), last.phase != report.phase),
            None => (true, true),
        };
        shutdown.report = Some(report);
        if first && !is_result && shutdown.extension > Duration::ZERO {
            // More time was granted between the call and this answer to it.
            let (grace, attempt) = (shutdown.grace, shutdown.fence);
            let instance = member.instance.clone();
            step.effects.push(Effect::UpdateDeadline { instance, attempt, grace, granted: true });
        }
        if is_result || !news {
            return;
        }
        let due = self.at(slot).pace.next(now);
        if first || phase_moved || due.is_none() {
            self.publish(now, slot, step);
        } else {
            self.at_mut(slot).progress_due = due;
        }
    }

    /// Shows the latest report if it was to be shown later: there is no later. What came before it may be merged into it,
    /// but the last word of an instance is not lost.
    pub(super) fn show_what_waits(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        if self.at(slot).progress_due.is_some() {
            self.publish(now, slot, step);
        }
    }

    /// Shows the latest report to watchers.
    pub(super) fn publish(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        let member = self.at_mut(slot);
        member.pace.show(now);
        member.progress_due = None;
        let instance = member.instance.clone();
        let report = member.shutdown.as_ref().and_then(|shutdown| shutdown.report.as_ref());
        let text = report.map_or("", |report| if report.message.is_empty() { &report.step } else { &report.message });
        let text = text.to_owned();
        self.emit(now, EventKind::Progress, Some(instance), None, &text, step);
    }

    fn finish(&mut self, now: Moment, slot: Slot, result: &StopResult, step: &mut Step) {
        if result.proves_end(self.policy.min_evidence) || active(Mutant::AnyResultProves) {
            self.note_end(now, slot, result, step);
            return;
        }
        let said = if result.message.is_empty() { String::new() } else { format!(" ({})", result.message) };
        match result.outcome {
            StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => {
                let (have, need) = (result.evidence, self.policy.min_evidence);
                let message = format!("its end rests on {have}; at least {need} is asked for{said}");
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
            StopOutcome::Cancelled if matches!(self.state, State::Cancelling { .. }) => self.taken_back(slot, step),
            StopOutcome::Cancelled => {
                let message = format!("its hook took the shutdown back unasked; it runs as before{said}");
                self.fail_stop(now, slot, Reason::StillRunning, message, step);
            }
        }
    }

    /// The hook has taken the shutdown back: as if it had never been asked.
    pub(super) fn taken_back(&mut self, slot: Slot, step: &mut Step) {
        let member = self.at_mut(slot);
        member.run = Run::Waiting;
        member.progress_due = None;
        step.changed = true;
    }

    fn note_end(&mut self, now: Moment, slot: Slot, result: &StopResult, step: &mut Step) {
        // A target that is stopped again has never been ready: how it ends is nobody's loss.
        let is_source = matches!(slot, Slot::Source(_));
        let unclean = is_source && self.policy.hold_on_unclean_exit && result.clean == Some(false);
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
        let message = format!("{instance} has ended, evidence {}", result.evidence);
        self.emit(now, EventKind::InstanceStopped, Some(instance), None, &message, step);
        if let Some(failure) = failure {
            self.tell_failure(now, &failure, step);
        }
    }

    /// A report after the attempt was given up: it changes no decision, but a proven end is a proven end. A shutdown has
    /// one result: what comes after it is a repetition, and says nothing about what has been found out since.
    fn heard_late(&mut self, now: Moment, slot: Slot, report: StopReport, step: &mut Step) {
        let has_result = |last: &StopReport| last.result.is_some();
        let last = self.at(slot).shutdown.as_ref().and_then(|shutdown| shutdown.report.as_ref());
        if last.is_some_and(has_result) || self.breach(slot, &report).is_some() {
            return;
        }
        if report.phase.is_past_no_return() {
            self.note_told(now, slot);
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
        // Once it is being killed, more time is not what it gets.
        if matches!(self.at(slot).run, Run::Calling { then_kill: true, .. } | Run::Running { kill: Some(_), .. }) {
            return;
        }
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
