//! STOPPED and STARTING: the gate, and the target coming up behind it. Starts of the way back use the same moves.

use quiesce_mutation::{Mutant, active};

use super::{Operation, State};
use crate::failure::{Failure, Reason};
use crate::id::InstanceId;
use crate::member::Again;
use crate::moment::Moment;
use crate::report::{CallError, CallErrorClass, StartReport};
use crate::start::{StartMember, StartRun};
use crate::step::{Effect, EventKind, Step};

impl Operation {
    pub(super) fn advance_stopped(&mut self, now: Moment, confirmed: bool, step: &mut Step) {
        if self.requires_confirmation() && !confirmed {
            return;
        }
        if self.starts_target() {
            let target = self.request.target.as_ref().map_or("", |target| target.as_str());
            let message = format!("starting it on {target}");
            self.enter(now, State::Starting, message, step);
        } else {
            self.enter_finalizing(now, step);
        }
    }

    pub(super) fn advance_starting(&mut self, now: Moment, step: &mut Step) {
        if self.targets().next().is_none() || self.targets().any(|start| start.run == StartRun::Failed) {
            self.enter_rolling_back(now, "the target did not come up; going back", step);
        } else if self.targets().all(|start| start.is_ready() || active(Mutant::TargetNotAwaited) && start.epoch != 0) {
            self.enter_finalizing(now, step);
        } else {
            self.order_next(now, false, step);
        }
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &StartMember> {
        self.starts.iter().filter(|start| !start.rollback)
    }

    /// Orders the next group of starts: the highest stop order that is not ready, all of it together.
    pub(super) fn order_next(&mut self, now: Moment, rollback: bool, step: &mut Step) {
        let open = || self.starts.iter().filter(|start| start.rollback == rollback && !start.is_ready());
        let Some(order) = open().map(|start| start.stop_order).max() else { return };
        let next: Vec<usize> = (0..self.starts.len())
            .filter(|&index| {
                let start = &self.starts[index];
                start.rollback == rollback && start.run == StartRun::Waiting && start.stop_order == order
            })
            .collect();
        for index in next {
            self.order_start(now, index, step);
        }
    }

    fn order_start(&mut self, now: Moment, index: usize, step: &mut Step) {
        // A start that nobody can tell the end of is joined under its own epoch; any other needs a new permission.
        let unknown = self.starts[index]
            .failure
            .as_ref()
            .is_some_and(|failure| matches!(failure.reason, Reason::StartTimeout | Reason::HookUnreachable));
        if self.starts[index].epoch == 0 || !unknown {
            self.epoch += 1;
            self.starts[index].epoch = self.epoch;
            self.starts[index].report = None;
        }
        let until = now + self.policy.start_timeout;
        let heard_until = now + self.policy.heartbeat_timeout;
        let start = &mut self.starts[index];
        start.run = StartRun::Ordered { until, heard_until, again: None };
        start.ordered = Some(now);
        start.failure = None;
        let (instance, epoch, rollback) = (start.instance.clone(), start.epoch, start.rollback);
        let message = format!("{instance} is being started under epoch {epoch}");
        self.emit(now, EventKind::InstanceStarting, Some(instance.clone()), None, &message, step);
        step.effects.push(Effect::Start { instance, epoch, rollback });
    }

    /// The start of that name and epoch.
    fn locate_start(&self, instance: &InstanceId, epoch: u64) -> Option<usize> {
        self.starts.iter().position(|start| start.instance == *instance && start.epoch == epoch && epoch != 0)
    }

    pub(super) fn start_reported(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        epoch: u64,
        report: StartReport,
        step: &mut Step,
    ) {
        let Some(index) = self.locate_start(instance, epoch) else { return };
        let going_back = matches!(self.state, State::RollingBack | State::Degraded { .. });
        let heard_until = now + self.policy.heartbeat_timeout;
        let start = &mut self.starts[index];
        let ready = report.result.as_ref().is_some_and(|result| result.ready);
        match start.run {
            StartRun::Ordered { until, .. } => start.run = StartRun::Ordered { until, heard_until, again: None },
            // A source that comes up late on the way back has come up. A target that does is being stopped.
            StartRun::Failed if start.rollback && going_back && ready => {}
            StartRun::Waiting | StartRun::Ready | StartRun::Failed => return,
        }
        // A start has one result, so it is never an old one. A hook that was restarted in between may count from 1 again.
        let is_old = |last: &StartReport| report.sequence < last.sequence || report.phase < last.phase;
        if report.result.is_none() && start.report.as_ref().is_some_and(is_old) {
            return;
        }
        let news =
            start.report.as_ref().is_none_or(|last| last.phase != report.phase || last.message != report.message);
        let phase_moved = start.report.as_ref().is_none_or(|last| last.phase != report.phase);
        let result = report.result.clone();
        let text = report.message.clone();
        start.report = Some(report);
        match result {
            Some(result) if result.ready => {
                start.run = StartRun::Ready;
                start.failure = None;
                let message = format!("{instance} is ready under epoch {epoch} ({})", result.readiness);
                self.emit(now, EventKind::InstanceReady, Some(instance.clone()), None, &message, step);
            }
            Some(result) => {
                let how = match (result.exit_code, result.exit_signal) {
                    (Some(code), _) => format!("it ended with exit code {code}"),
                    (None, Some(signal)) => format!("it ended by signal {signal}"),
                    (None, None) => "it did not come up".to_owned(),
                };
                let message = if result.message.is_empty() { how } else { result.message };
                self.fail_start(now, index, Reason::StartFailed, message, step);
            }
            None => {
                if news && (phase_moved || start.pace.next(now).is_none()) {
                    start.pace.show(now);
                    self.emit(now, EventKind::Progress, Some(instance.clone()), None, &text, step);
                    if let Some(event) = step.events.last_mut() {
                        event.start = true;
                    }
                }
            }
        }
    }

    pub(super) fn start_call_ended(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        epoch: u64,
        error: CallError,
        step: &mut Step,
    ) {
        let Some(index) = self.locate_start(instance, epoch) else { return };
        let StartRun::Ordered { until, heard_until, again } = self.starts[index].run else { return };
        match error.class {
            CallErrorClass::Lost | CallErrorClass::Busy => {
                let again = Some(Again::after(again, now));
                self.starts[index].run = StartRun::Ordered { until, heard_until, again };
            }
            CallErrorClass::Rejected
            | CallErrorClass::Protocol
            | CallErrorClass::Unimplemented
            | CallErrorClass::NotFound
            | CallErrorClass::PointOfNoReturn => {
                let message = format!("its hook refused to start it: {}", error.message);
                self.fail_start(now, index, Reason::StartFailed, message, step);
            }
        }
    }

    pub(super) fn start_deadlines(&mut self, now: Moment, index: usize, step: &mut Step) {
        let StartRun::Ordered { until, heard_until, again } = self.starts[index].run else { return };
        let (instance, epoch, rollback) =
            (self.starts[index].instance.clone(), self.starts[index].epoch, self.starts[index].rollback);
        if until <= now {
            let (reason, message) = if again.is_some() {
                (Reason::HookUnreachable, "its hook could not be reached until start_timeout was over".to_owned())
            } else {
                (Reason::StartTimeout, format!("not ready within start_timeout ({:?})", self.policy.start_timeout))
            };
            let failure = self.failure_of(&instance, reason, message.clone(), now);
            let text = failure.message.clone();
            self.emit(now, EventKind::Timeout, Some(instance), Some(failure), &text, step);
            self.fail_start(now, index, reason, message, step);
        } else if heard_until <= now || again.is_some_and(|again| again.at <= now) {
            // Joining is harmless: the hook knows the start by its epoch.
            let heard_until = now + self.policy.heartbeat_timeout;
            let again = again.map(|again| Again { at: until, ..again });
            self.starts[index].run = StartRun::Ordered { until, heard_until, again };
            step.effects.push(Effect::Start { instance, epoch, rollback });
        }
    }

    fn fail_start(&mut self, now: Moment, index: usize, reason: Reason, message: String, step: &mut Step) {
        let instance = self.starts[index].instance.clone();
        let failure: Failure = self.failure_of(&instance, reason, message, now);
        self.starts[index].run = StartRun::Failed;
        self.starts[index].failure = Some(failure.clone());
        self.tell_failure(now, &failure, step);
        if let Some(event) = step.events.last_mut() {
            event.start = true;
        }
    }
}
