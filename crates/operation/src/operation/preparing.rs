//! PREPARING: every hook answers and says that the stop would work, every target stands by. Also the look back after the
//! stop: is everything still down?

use quiesce_mutation::{Mutant, active};

use super::{EPOCH_BELIEVED_MAX, Operation, Slot, State};
use crate::failure::{Failure, Reason};
use crate::id::InstanceId;
use crate::member::{Again, Probing, Run};
use crate::moment::Moment;
use crate::report::{CallError, CallErrorClass, Probe};
use crate::step::{Effect, Step};

impl Operation {
    /// Begins the next attempt of the round.
    pub(super) fn begin_attempt(&mut self, now: Moment, step: &mut Step) {
        self.attempt += 1;
        for member in &mut self.members {
            if member.has_failed() {
                member.run = Run::Waiting;
            }
        }
        self.forget_look_back();
        let message = format!("attempt {}: asking the hooks whether a stop would work", self.attempt);
        self.enter(now, State::Preparing, message, step);
        self.ask_hooks(now, step);
    }

    /// (Re)asks every hook that PREPARING needs an answer from.
    pub(super) fn ask_hooks(&mut self, now: Moment, step: &mut Step) {
        self.serial += 1;
        let asked = Probing::Asked { until: now + self.policy.accept_timeout, again: None, trouble: None };
        for member in self.members.iter_mut().filter(|member| !member.has_ended()) {
            member.probing = asked.clone();
            step.effects.push(Effect::Probe { instance: member.instance.clone(), serial: self.serial, check: true });
        }
        for start in self.starts.iter_mut().filter(|start| !start.rollback) {
            start.probing = asked.clone();
            step.effects.push(Effect::Probe { instance: start.instance.clone(), serial: self.serial, check: false });
        }
    }

    pub(super) fn probed(
        &mut self,
        now: Moment,
        instance: &InstanceId,
        serial: u32,
        answer: Result<Probe, CallError>,
        step: &mut Step,
    ) {
        if serial != self.serial {
            return;
        }
        if let Ok(probe) = &answer
            && probe.epoch <= EPOCH_BELIEVED_MAX
        {
            // The hook may know a higher epoch than the registry: then the next one has to be higher still.
            self.epoch = self.epoch.max(probe.epoch);
        }
        if let Some(slot) = self.locate(instance) {
            if let Probing::Asked { until, again, .. } = self.at(slot).probing {
                if !self.at(slot).has_ended() {
                    let probing = self.judge_source(now, instance, until, again, &answer);
                    let member = self.at_mut(slot);
                    if let Ok(probe) = answer {
                        member.capabilities = probe.capabilities;
                        if probe.epoch <= EPOCH_BELIEVED_MAX {
                            member.epoch = member.epoch.max(probe.epoch);
                        }
                    }
                    member.probing = probing;
                } else {
                    self.looked_back(now, slot, (until, again), answer, step);
                }
            }
            return;
        }
        let Some(index) = self.starts.iter().position(|start| start.instance == *instance && !start.rollback) else {
            return;
        };
        if let Probing::Asked { until, again, .. } = self.starts[index].probing {
            let probing = self.judge_target(now, instance, until, again, &answer);
            let start = &mut self.starts[index];
            if let Ok(probe) = answer {
                start.capabilities = probe.capabilities;
            }
            start.probing = probing;
        }
    }

    fn judge_source(
        &self,
        now: Moment,
        instance: &InstanceId,
        until: Moment,
        again: Option<Again>,
        answer: &Result<Probe, CallError>,
    ) -> Probing {
        match answer {
            Ok(probe) if probe.epoch > EPOCH_BELIEVED_MAX => self.boasts(now, instance, probe),
            Ok(probe) if probe.ready => Probing::Good,
            Ok(probe) => {
                let findings =
                    if probe.findings.is_empty() { "no reason given".to_owned() } else { probe.findings.join("; ") };
                let message = format!("the hook says that a stop would not work: {findings}");
                Probing::Bad { failure: self.failure_of(instance, Reason::CheckFailed, message, now) }
            }
            Err(error) => self.judge_error(now, instance, until, again, error),
        }
    }

    fn judge_target(
        &self,
        now: Moment,
        instance: &InstanceId,
        until: Moment,
        again: Option<Again>,
        answer: &Result<Probe, CallError>,
    ) -> Probing {
        let bad = |message: &str| Probing::Bad {
            failure: self.failure_of(instance, Reason::CheckFailed, message.to_owned(), now),
        };
        match answer {
            Ok(probe) if probe.epoch > EPOCH_BELIEVED_MAX => self.boasts(now, instance, probe),
            Ok(probe) if probe.app_state.is_alive() => {
                bad("the application already runs at the target; a second copy must not come to be")
            }
            Ok(probe) if !probe.capabilities.start => bad("the hook at the target cannot start the application"),
            Ok(probe) if !probe.cannot_start.is_empty() => {
                bad(&format!("the target could not start the application: {}", probe.cannot_start))
            }
            Ok(_) => Probing::Good,
            Err(error) => self.judge_error(now, instance, until, again, error),
        }
    }

    fn boasts(&self, now: Moment, instance: &InstanceId, probe: &Probe) -> Probing {
        let message = format!("its hook speaks of epoch {}, which nobody can have handed out", probe.epoch);
        Probing::Bad { failure: self.failure_of(instance, Reason::ProtocolError, message, now) }
    }

    fn judge_error(
        &self,
        now: Moment,
        instance: &InstanceId,
        until: Moment,
        again: Option<Again>,
        error: &CallError,
    ) -> Probing {
        match error.class {
            CallErrorClass::Lost | CallErrorClass::Busy => {
                Probing::Asked { until, again: Some(Again::after(again, now)), trouble: Some(error.message.clone()) }
            }
            CallErrorClass::Rejected
            | CallErrorClass::Protocol
            | CallErrorClass::Unimplemented
            | CallErrorClass::NotFound
            | CallErrorClass::PointOfNoReturn => {
                let message = format!("the hook refused to answer: {}", error.message);
                let failure = self.failure_of(instance, Reason::HookRejected, message, now);
                Probing::Bad { failure: Failure { grpc_code: error.grpc_code.clone(), ..failure } }
            }
        }
    }

    pub(super) fn probe_deadlines(&mut self, now: Moment, step: &mut Step) {
        for slot in self.slots() {
            let Probing::Asked { until, again, trouble } = self.at(slot).probing.clone() else { continue };
            let instance = self.at(slot).instance.clone();
            let looking_back = self.at(slot).has_ended();
            if until <= now {
                // Looking back, silence proves nothing against a verified end.
                let probing =
                    if looking_back { Probing::Good } else { self.unanswered(now, &instance, again, trouble) };
                self.at_mut(slot).probing = probing;
            } else if let Some(due) = again.filter(|again| again.at <= now) {
                self.at_mut(slot).probing = Probing::Asked { until, again: Some(Again { at: until, ..due }), trouble };
                step.effects.push(Effect::Probe { instance, serial: self.serial, check: !looking_back });
            }
        }
        for index in 0..self.starts.len() {
            let Probing::Asked { until, again, trouble } = self.starts[index].probing.clone() else { continue };
            let instance = self.starts[index].instance.clone();
            if until <= now {
                self.starts[index].probing = self.unanswered(now, &instance, again, trouble);
            } else if let Some(due) = again.filter(|again| again.at <= now) {
                self.starts[index].probing = Probing::Asked { until, again: Some(Again { at: until, ..due }), trouble };
                step.effects.push(Effect::Probe { instance, serial: self.serial, check: false });
            }
        }
    }

    fn unanswered(&self, now: Moment, instance: &InstanceId, again: Option<Again>, trouble: Option<String>) -> Probing {
        let waited = self.policy.accept_timeout;
        let failure = if again.is_some() {
            let why = trouble.filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
            let message = format!("its hook could not be reached for {waited:?}{why}");
            self.failure_of(instance, Reason::HookUnreachable, message, now)
        } else {
            self.failure_of(instance, Reason::AcceptTimeout, format!("its hook did not answer for {waited:?}"), now)
        };
        Probing::Bad { failure }
    }

    pub(super) fn advance_preparing(&mut self, now: Moment, step: &mut Step) {
        let sources = self.members.iter().filter(|member| !member.has_ended()).map(|member| &member.probing);
        let targets = self.starts.iter().filter(|start| !start.rollback).map(|start| &start.probing);
        if sources.clone().chain(targets.clone()).any(|probing| matches!(probing, Probing::Asked { .. })) {
            return;
        }
        let bad = |probing: &Probing| match probing {
            Probing::Bad { failure } => Some(failure.clone()),
            Probing::Idle | Probing::Asked { .. } | Probing::Good => None,
        };
        let target_problem = targets.filter_map(bad).next().or_else(|| self.nobody_there(now));
        let problems: Vec<Failure> = sources.filter_map(bad).collect();
        for failure in &problems {
            if let Some(slot) = failure.instance.as_ref().and_then(|instance| self.locate(instance)) {
                let member = self.at_mut(slot);
                member.run = Run::Failed;
                member.failure = Some(failure.clone());
            }
            self.tell_failure(now, failure, step);
        }
        if let Some(failure) = &target_problem {
            self.tell_failure(now, failure, step);
        }
        if problems.is_empty() && target_problem.is_none() {
            self.tries += 1;
            let message = format!("attempt {}: stopping", self.attempt);
            self.enter(now, State::Stopping, message, step);
        } else {
            // A target that is not ready is no reason to kill the source.
            self.attempt_over(now, target_problem.is_some(), step);
        }
    }

    /// Nothing follows from "all of none": without instances nothing would be stopped or started, and be called done.
    fn nobody_there(&self, now: Moment) -> Option<Failure> {
        let what = if self.members.is_empty() {
            format!("no instance of {} is known", self.request.application)
        } else if self.starts_target() && self.targets().next().is_none() {
            "no instance stands by at the target".to_owned()
        } else {
            return None;
        };
        let (attempt, grpc_code) = (self.attempt, String::new());
        Some(Failure { reason: Reason::CheckFailed, message: what, instance: None, attempt, grpc_code, time: now })
    }

    /// Lets every question go that is out; an answer finds nobody waiting for it.
    pub(super) fn stop_asking(&mut self) {
        let members = self.members.iter_mut().map(|member| &mut member.probing);
        let starts = self.starts.iter_mut().map(|start| &mut start.probing);
        for probing in members.chain(starts).filter(|probing| matches!(probing, Probing::Asked { .. })) {
            *probing = Probing::Idle;
        }
    }

    /// What was seen in an earlier look back is old by now: it is looked at again, all together.
    pub(super) fn forget_look_back(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.has_ended()) {
            member.probing = Probing::Idle;
        }
    }

    /// After everything has ended: asks once more whether it is still down.
    pub(super) fn look_back(&mut self, now: Moment, step: &mut Step) {
        if !self.members.iter().any(|member| member.is_verified() && member.probing == Probing::Idle) {
            return;
        }
        self.serial += 1;
        for member in self.members.iter_mut().filter(|member| member.is_verified() && member.probing == Probing::Idle) {
            member.probing = Probing::Asked { until: now + self.policy.accept_timeout, again: None, trouble: None };
            step.effects.push(Effect::Probe { instance: member.instance.clone(), serial: self.serial, check: false });
        }
    }

    fn looked_back(
        &mut self,
        now: Moment,
        slot: Slot,
        (until, again): (Moment, Option<Again>),
        answer: Result<Probe, CallError>,
        step: &mut Step,
    ) {
        let member = self.at_mut(slot);
        match answer {
            Ok(probe) => {
                // After a kill without a check this is the first that is known of the hook.
                member.capabilities = probe.capabilities;
                member.probing = Probing::Good;
                if probe.app_state.is_alive() && !active(Mutant::AnyResultProves) {
                    member.probing = Probing::Idle;
                    let message = "it had ended, but something has started it again".to_owned();
                    self.fail_stop(now, slot, Reason::Restarted, message, step);
                }
            }
            // One lost call is no answer. A hook that is gone, or has nothing to say, says nothing against an end that was
            // verified.
            Err(error) if again.is_none() && matches!(error.class, CallErrorClass::Lost | CallErrorClass::Busy) => {
                member.probing = Probing::Asked { until, again: Some(Again::after(None, now)), trouble: None };
            }
            Err(_) => member.probing = Probing::Good,
        }
    }

    /// Whether the look back waits for answers.
    pub(super) fn is_looking_back(&self) -> bool {
        self.members.iter().any(|member| member.is_verified() && matches!(member.probing, Probing::Asked { .. }))
    }
}
