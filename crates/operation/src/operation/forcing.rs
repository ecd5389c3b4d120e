//! FORCING: killing, within the shutdown that runs or within a new one, and going on without proof where somebody has
//! permitted that by name.

use super::{Operation, Slot, Stage, State, overriding};
use crate::failure::{OverrideKind, Reason};
use crate::id::InstanceId;
use crate::member::{Again, Kill, Member, Run};
use crate::moment::Moment;
use crate::report::{CallError, CallErrorClass};
use crate::step::{Effect, EventKind, Step};

impl Operation {
    pub(super) fn enter_forcing(&mut self, now: Moment, message: &str, step: &mut Step) {
        self.tries += 1;
        self.forget_look_back();
        self.enter(now, State::Forcing, message, step);
        self.record_force(now, message, step);
        for index in 0..self.members.len() {
            if !self.members[index].has_ended() {
                self.kill(now, Slot::Source(index), step);
            }
        }
    }

    /// Says that something is killed, and whose decision that was: of whoever asked for it, or chose the policy.
    pub(super) fn record_force(&mut self, now: Moment, message: &str, step: &mut Step) {
        if !self.overrides.iter().any(|one| one.kind == OverrideKind::Force) {
            let permission = overriding(OverrideKind::Force, &self.request.caller, now, None);
            self.overrides.push(permission);
        }
        self.emit(now, EventKind::Override, None, None, message, step);
    }

    /// Kills within the shutdown that runs, or within a new one.
    pub(super) fn kill(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        self.note_told(now, slot);
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
        if self.members.iter().any(Member::is_in_flight) || self.is_looking_back() {
            return;
        }
        // "None has failed" is not yet "all have ended": whoever was not asked is killed like the others.
        let unasked: Vec<usize> =
            (0..self.members.len()).filter(|&index| self.members[index].run == Run::Waiting).collect();
        if !unasked.is_empty() {
            for index in unasked {
                self.kill(now, Slot::Source(index), step);
            }
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
        let kill_timeout = self.policy.kill_timeout + self.at(slot).settling(self.policy.settle_period);
        let Run::Running { kill: Some(kill), .. } = &mut self.at_mut(slot).run else { return };
        match answer {
            // Said before: the time it has to vanish runs already.
            Ok(()) if kill.answered => kill.again = None,
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
