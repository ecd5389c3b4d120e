//! FINALIZING: the hooks are told what becomes of what they have stopped; then it is done.

use super::{Operation, State};
use crate::id::InstanceId;
use crate::member::{Again, Member};
use crate::moment::Moment;
use crate::report::{CallError, CallErrorClass};
use crate::request::Kind;
use crate::step::{Disposition, Effect, Step};

impl Operation {
    pub(super) fn enter_finalizing(&mut self, now: Moment, step: &mut Step) {
        let message = match self.request.kind {
            Kind::Migrate => "the source becomes the standby",
            Kind::Delete => "removing what is left",
        };
        for member in &mut self.members {
            // Who cannot be told, or was given up as unreachable, is not waited for.
            member.concluded = !(member.is_verified() && member.capabilities.conclude);
        }
        let until = now + self.policy.accept_timeout;
        self.enter(now, State::Finalizing { until, again: None }, message, step);
        self.conclude(step);
    }

    /// Tells every hook that has not taken note.
    pub(super) fn conclude(&self, step: &mut Step) {
        let disposition = match self.request.kind {
            Kind::Migrate => Disposition::Standby,
            Kind::Delete => Disposition::Retired,
        };
        for member in self.members.iter().filter(|member| !member.concluded) {
            let (instance, epoch) = (member.instance.clone(), member.epoch);
            step.effects.push(Effect::Conclude { instance, epoch, disposition });
        }
    }

    pub(super) fn concluded(&mut self, now: Moment, instance: &InstanceId, answer: Result<(), CallError>) {
        let State::Finalizing { until, again } = self.state else { return };
        let Some(member) = self.members.iter_mut().find(|member| member.instance == *instance) else { return };
        match answer {
            Ok(()) => member.concluded = true,
            Err(error) => match error.class {
                CallErrorClass::Lost | CallErrorClass::Busy => {
                    let due = again.filter(|again| again.at > now && again.at < until);
                    let again = Some(due.unwrap_or_else(|| Again::after(again, now)));
                    self.state = State::Finalizing { until, again };
                }
                // The end is verified and stored; a hook that does not want to know changes nothing about that.
                CallErrorClass::Rejected
                | CallErrorClass::Protocol
                | CallErrorClass::Unimplemented
                | CallErrorClass::NotFound
                | CallErrorClass::PointOfNoReturn => member.concluded = true,
            },
        }
    }

    pub(super) fn conclude_deadlines(&mut self, now: Moment, step: &mut Step) {
        if let State::Finalizing { until, again: Some(again) } = self.state
            && again.at <= now
            && until > now
        {
            self.state = State::Finalizing { until, again: Some(Again { at: until, ..again }) };
            self.conclude(step);
        }
    }

    pub(super) fn advance_finalizing(&mut self, now: Moment, until: Moment, step: &mut Step) {
        let silent: Vec<&Member> = self.members.iter().filter(|member| !member.concluded).collect();
        if !silent.is_empty() && until > now {
            return;
        }
        let done = match (self.request.kind, &self.request.target) {
            (Kind::Migrate, Some(target)) if self.starts_target() => format!("runs on {target}"),
            (Kind::Migrate, Some(target)) => format!("stopped; it may be started on {target}"),
            (Kind::Migrate, None) | (Kind::Delete, _) => "deleted".to_owned(),
        };
        let message = match silent.first() {
            None => done,
            Some(first) => format!("{done}; {} could not be told and stays held", first.instance),
        };
        self.enter(now, State::Succeeded, message, step);
    }
}
