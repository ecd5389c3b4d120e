//! What people ask of an operation: cancel, retry, extend, confirm, supersede. Each is granted or refused with a reason.

use std::time::Duration;

use super::{Operation, Stage, State, StateName, overriding};
use crate::failure::{Override, OverrideKind};
use crate::id::{InstanceId, OperationId};
use crate::member::{Again, Member, Run};
use crate::moment::Moment;
use crate::policy::PolicyOverrides;
use crate::report::{CallError, CallErrorClass};
use crate::request::Caller;
use crate::step::{Effect, EventKind, Refusal, Step};

impl Operation {
    /// Whether [`Operation::cancel`] may still have an effect.
    #[must_use]
    pub fn is_cancellable(&self) -> bool {
        match self.state {
            State::Degraded { .. } => true,
            State::Pending | State::Preparing | State::BackingOff { .. } => !self.was_told(),
            State::Stopping => {
                !self.was_told()
                    && self.members.iter().all(|member| !member.is_in_flight() || member.capabilities.cancel)
            }
            State::Stopped { .. } | State::Starting => self.can_roll_back(),
            State::Forcing
            | State::Finalizing { .. }
            | State::Cancelling { .. }
            | State::RollingBack
            | State::Succeeded
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => false,
        }
    }

    /// Takes it back. Repeating it is fine.
    ///
    /// # Errors
    /// [`Refusal::PointOfNoReturn`] while instances are being stopped; [`Refusal::Done`] when it ended another way.
    pub fn cancel(&mut self, now: Moment, by: &Caller) -> Result<Step, Refusal> {
        let mut step = Step::default();
        match self.state {
            State::Cancelled | State::Cancelling { .. } | State::RollingBack => return Ok(step),
            State::RolledBack | State::Abandoned if self.cancel_requested => return Ok(step),
            State::Succeeded | State::RolledBack | State::Abandoned => {
                return Err(Refusal::Done { operation: self.id.clone(), state: self.state() });
            }
            State::Pending
            | State::Preparing
            | State::Stopping
            | State::BackingOff { .. }
            | State::Forcing
            | State::Stopped { .. }
            | State::Starting
            | State::Finalizing { .. }
            | State::Degraded { .. } => {}
        }
        if !self.is_cancellable() {
            return Err(Refusal::PointOfNoReturn { operation: self.id.clone(), since: self.point_of_no_return });
        }
        self.cancel_requested = true;
        let message = |what: &str| format!("{what}, as {} asked", by.identity);
        let degraded_on_the_way_back = self.state == State::Degraded { stage: Stage::RollingBack };
        if self.state == State::Stopping && self.members.iter().any(Member::is_in_flight) {
            let until = now + self.policy.accept_timeout;
            self.enter(now, State::Cancelling { until, again: None }, message("taking it back"), &mut step);
            self.ask_back(&mut step);
        } else if !self.was_told() {
            self.enter(now, State::Cancelled, message("cancelled; nothing was told to stop"), &mut step);
        } else if self.can_roll_back() && !degraded_on_the_way_back {
            self.enter_rolling_back(now, &message("starting again what has stopped"), &mut step);
        } else {
            self.enter(now, State::Abandoned, message("abandoned"), &mut step);
        }
        self.advance(now, &mut step);
        Ok(step)
    }

    /// Begins a new round out of DEGRADED, or goes on rolling back. With `force` the round kills straight away.
    ///
    /// # Errors
    /// [`Refusal::NotDegraded`]; [`Refusal::Policy`] when the overrides lead out of bounds.
    pub fn retry(
        &mut self,
        now: Moment,
        by: &Caller,
        force: bool,
        overrides: &PolicyOverrides,
    ) -> Result<Step, Refusal> {
        let State::Degraded { stage } = self.state else {
            return Err(Refusal::NotDegraded { operation: self.id.clone(), state: self.state() });
        };
        let policy = self.policy.with(overrides);
        let violations = policy.violations();
        if !violations.is_empty() {
            return Err(Refusal::Policy { violations });
        }
        let mut step = Step::default();
        let wants_unverified = policy.allow_unverified && !self.policy.allow_unverified;
        self.policy = policy;
        self.round += 1;
        self.attempt = 0;
        self.forced = force;
        self.cancel_requested = false;
        if self.spent >= self.policy.overall_timeout {
            // Whoever goes on after overall_timeout was used up grants it once more; there is no other way to go on.
            self.spent = Duration::ZERO;
        }
        if wants_unverified {
            self.permit(now, OverrideKind::AllowUnverified, by, "to go on without proof", &mut step);
        }
        if force {
            self.permit(now, OverrideKind::Force, by, "to kill", &mut step);
        }
        match stage {
            Stage::Stopping => {
                for member in &mut self.members {
                    // Whoever retries has seen an unclean exit and goes on.
                    if member.failure_holds() {
                        member.failure = None;
                    }
                    if member.has_failed() {
                        member.run = Run::Waiting;
                    }
                }
                let message = format!("round {}, as {} asked", self.round, by.identity);
                self.enter(now, State::Pending, message, &mut step);
            }
            Stage::RollingBack => self.resume_rolling_back(now, &mut step),
        }
        Ok(step)
    }

    /// Records a permission. The same one, given again by the same person for the same reason, is recorded once.
    fn permit(&mut self, now: Moment, kind: OverrideKind, by: &Caller, what: &str, step: &mut Step) {
        let given = overriding(kind, by, now, None);
        if !self.overrides.iter().any(|one| Override { time: now, ..one.clone() } == given) {
            self.overrides.push(given);
        }
        let message = format!("{} asked {what}", by.identity);
        self.emit(now, EventKind::Override, None, None, &message, step);
    }

    /// Gives every attempt `grace` in all, the running one included; never less than it has.
    ///
    /// # Errors
    /// [`Refusal::Done`]; [`Refusal::Policy`] when `grace` is out of bounds.
    pub fn extend(&mut self, now: Moment, grace: Duration) -> Result<Step, Refusal> {
        if self.is_done() {
            return Err(Refusal::Done { operation: self.id.clone(), state: self.state() });
        }
        let mut step = Step::default();
        let policy = self
            .policy
            .with(&PolicyOverrides { grace_period: Some(grace.max(self.policy.grace_period)), ..Default::default() });
        let violations = policy.violations();
        if !violations.is_empty() {
            return Err(Refusal::Policy { violations });
        }
        step.changed = policy != self.policy;
        self.policy = policy;
        for slot in self.slots() {
            let (Run::Running { kill: None, .. } | Run::Calling { then_kill: false, .. }) = self.at(slot).run else {
                continue;
            };
            let Some(shutdown) = self.at_mut(slot).shutdown.as_mut().filter(|shutdown| shutdown.grace < grace) else {
                continue;
            };
            shutdown.extension = shutdown.extension.saturating_add(grace - shutdown.grace);
            shutdown.grace = grace;
            let (instance, attempt) = (self.at(slot).instance.clone(), self.at(slot).fence());
            let message = format!("{instance} has {grace:?} in all now");
            self.emit(now, EventKind::DeadlineExtended, Some(instance.clone()), None, &message, &mut step);
            step.effects.push(Effect::UpdateDeadline { instance, attempt, grace, granted: true });
        }
        self.advance(now, &mut step);
        Ok(step)
    }

    /// Takes note that the caller's part is done. Repeating it is fine.
    ///
    /// # Errors
    /// [`Refusal::NotConfirmable`] when nothing waits for that.
    pub fn confirm(&mut self, now: Moment, by: &Caller) -> Result<Step, Refusal> {
        let mut step = Step::default();
        if self.awaits_confirmation() {
            self.message = format!("confirmed by {}", by.identity);
            self.state = State::Stopped { confirmed: true };
            step.changed = true;
            self.advance(now, &mut step);
            return Ok(step);
        }
        let was_confirmed = matches!(self.state(), StateName::Finalizing | StateName::Succeeded);
        if was_confirmed && self.requires_confirmation() {
            return Ok(step);
        }
        Err(Refusal::NotConfirmable { operation: self.id.clone(), state: self.state() })
    }

    /// Closes a DEGRADED operation because the forced deletion `by` takes over.
    ///
    /// # Errors
    /// [`Refusal::NotDegraded`].
    pub fn supersede(&mut self, now: Moment, by: OperationId) -> Result<Step, Refusal> {
        let State::Degraded { .. } = self.state else {
            return Err(Refusal::NotDegraded { operation: self.id.clone(), state: self.state() });
        };
        let mut step = Step::default();
        let message = format!("superseded by {by}");
        self.superseded_by = Some(by);
        self.enter(now, State::Abandoned, message, &mut step);
        Ok(step)
    }
}

/// CANCELLING: the hooks decide, for they alone know whether the application was told.
impl Operation {
    pub(super) fn ask_back(&self, step: &mut Step) {
        for member in self.members.iter().filter(|member| is_undecided(member)) {
            let (instance, attempt) = (member.instance.clone(), member.fence());
            step.effects.push(Effect::CancelShutdown { instance, attempt });
        }
    }

    /// Puts off every repetition of Shutdown until the hooks have had their say: a hook that hears the repetition first, or
    /// has forgotten the shutdown, would begin to stop what was to go on.
    fn be_quiet(&mut self, until: Moment) {
        for member in &mut self.members {
            match &mut member.run {
                Run::Calling { again, .. } => *again = again.map(|again| Again { at: again.at.max(until), ..again }),
                Run::Running { heard_until, again, .. } => {
                    *heard_until = (*heard_until).max(until);
                    *again = again.map(|again| Again { at: again.at.max(until), ..again });
                }
                Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => {}
            }
        }
    }

    pub(super) fn cancel_answered(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        attempt: u32,
        answer: Result<(), CallError>,
        step: &mut Step,
    ) {
        let State::Cancelling { until, again } = self.state else { return };
        let Some(slot) = self.in_flight(instance, attempt) else { return };
        let taken_back = match answer {
            Ok(()) => true,
            Err(error) => match error.class {
                // A hook that has not heard of the shutdown may hear of it yet: the call is out.
                CallErrorClass::Lost | CallErrorClass::Busy => return self.ask_back_later(now, until, again),
                CallErrorClass::NotFound if !self.at(slot).has_open_shutdown() => {
                    return self.ask_back_later(now, until, again);
                }
                CallErrorClass::NotFound
                | CallErrorClass::PointOfNoReturn
                | CallErrorClass::Rejected
                | CallErrorClass::Protocol
                | CallErrorClass::Unimplemented => false,
            },
        };
        if taken_back {
            self.taken_back(slot, step);
        } else {
            self.note_told(now, slot);
            step.changed = true;
        }
    }

    fn ask_back_later(&mut self, now: Moment, until: Moment, again: Option<Again>) {
        let due = again.filter(|again| again.at > now && again.at < until);
        let again = Some(due.unwrap_or_else(|| Again::after(again, now)));
        self.state = State::Cancelling { until, again };
    }

    pub(super) fn cancel_deadlines(&mut self, now: Moment, step: &mut Step) {
        let State::Cancelling { until, again } = self.state else { return };
        if until <= now {
            for slot in self.slots().filter(|&slot| is_undecided(self.at(slot))).collect::<Vec<_>>() {
                let message = "its hook did not say whether the shutdown was taken back".to_owned();
                self.fail_stop(now, slot, crate::Reason::HookUnreachable, message, step);
            }
        } else if let Some(due) = again.filter(|again| again.at <= now) {
            self.state = State::Cancelling { until, again: Some(Again { at: until, ..due }) };
            self.ask_back(step);
        }
    }

    pub(super) fn advance_cancelling(&mut self, now: Moment, until: Moment, step: &mut Step) {
        if self.members.iter().any(is_undecided) {
            self.be_quiet(until);
            return;
        }
        if !self.was_told() {
            self.enter(now, State::Cancelled, "cancelled; nothing was told to stop", step);
        } else if self.members.iter().any(Member::has_failed) && !self.members.iter().any(Member::is_in_flight) {
            self.degrade(now, Stage::Stopping, step);
        } else {
            self.cancel_requested = false;
            self.enter(now, State::Stopping, "too late to take it back: an instance has been told to stop", step);
            for slot in self.slots().filter(|&slot| self.at(slot).is_in_flight()) {
                self.rejoin(slot, false, step);
            }
        }
    }
}

/// Whether its hook has not said yet which side of the point of no return it is on.
fn is_undecided(member: &Member) -> bool {
    member.is_in_flight() && !member.told
}
