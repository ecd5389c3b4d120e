//! Behaviour of the machine, one file a subject. The harness plays the driver and the hooks: time moves by hand, every
//! effect is kept until a test answers it.

mod attempts;
mod cancelling;
mod deadlines;
mod degraded;
mod forcing;
mod happy;
mod looking_back;
mod more_time;
mod preparing;
mod recovering;
mod restoring;
mod stored;
mod targets;

use std::time::Duration;

use super::{Operation, StateName};
use crate::failure::Reason;
use crate::id::{ApplicationId, ClusterId, InstanceId, OperationId};
use crate::moment::Moment;
use crate::policy::{FailureStrategy, Policy, PolicyOverrides};
use crate::report::{
    AppState, CallError, CallErrorClass, Capabilities, Evidence, Probe, Readiness, StartPhase, StartReport,
    StartResult, StopOutcome, StopPhase, StopReport, StopResult,
};
use crate::request::{Caller, Kind, Placement, Registered, Request};
use crate::step::{Effect, Event, EventKind, Input, Step};

pub(super) const ALL: Capabilities = Capabilities {
    check: true,
    status: true,
    cancel: true,
    update_deadline: true,
    kill: true,
    settle: true,
    durable: true,
    start: true,
    hold: true,
    conclude: true,
};

pub(super) fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

pub(super) fn caller() -> Caller {
    Caller { identity: "ann".to_owned(), reason: "test".to_owned() }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn error(class: CallErrorClass) -> CallError {
    CallError { class, grpc_code: "UNAVAILABLE".to_owned(), message: format!("{class:?}").to_lowercase() }
}

pub(super) fn lost() -> CallError {
    error(CallErrorClass::Lost)
}

pub(super) fn probe(app_state: AppState) -> Probe {
    Probe { capabilities: ALL, ready: true, findings: Vec::new(), app_state, epoch: 0, cannot_start: String::new() }
}

pub(super) fn once(strategy: FailureStrategy) -> Policy {
    Policy { max_attempts: 1, failure_strategy: strategy, ..Policy::built_in() }
}

pub(super) fn request(kind: Kind) -> Request {
    Request {
        application: ApplicationId::parse("db").unwrap(),
        kind,
        source: ClusterId::parse("a").unwrap(),
        target: (kind == Kind::Migrate).then(|| ClusterId::parse("b").unwrap()),
        placement: Placement::Agents,
        force: false,
        caller: caller(),
        request_id: String::new(),
        labels: std::collections::BTreeMap::new(),
        time: Moment::from_millis(1_000_000),
        trace: None,
    }
}

fn registered(names: &[(&str, i32)], cluster: &str, epoch: u64) -> Vec<Registered> {
    names
        .iter()
        .map(|&(name, stop_order)| Registered {
            instance: id(name),
            cluster: ClusterId::parse(cluster).unwrap(),
            stop_order,
            epoch,
        })
        .collect()
}

pub(super) fn report(sequence: u32, phase: StopPhase) -> StopReport {
    StopReport {
        sequence,
        phase,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period: None,
        result: None,
    }
}

pub(super) fn result(outcome: StopOutcome) -> StopResult {
    StopResult {
        outcome,
        evidence: Evidence::GroupEmpty,
        exit_code: Some(0),
        exit_signal: None,
        clean: Some(true),
        duration: None,
        message: String::new(),
        held: true,
    }
}

/// One operation and everything it wants done.
pub(super) struct World {
    pub(super) operation: Operation,
    pub(super) now: Moment,
    pub(super) effects: Vec<Effect>,
    pub(super) events: Vec<Event>,
}

impl World {
    pub(super) fn new(request: Request, policy: Policy, sources: &[(&str, i32)], targets: &[(&str, i32)]) -> Self {
        let operation = OperationId::parse("op-1").unwrap();
        let now = request.time;
        let (operation, events) =
            Operation::accept(operation, request, policy, registered(sources, "a", 7), registered(targets, "b", 0), 7);
        Self { operation, now, effects: Vec::new(), events }
    }

    pub(super) fn migration(policy: Policy) -> Self {
        Self::new(request(Kind::Migrate), policy, &[("a-0", 0)], &[("b-0", 0)])
    }

    pub(super) fn deletion(policy: Policy) -> Self {
        Self::new(request(Kind::Delete), policy, &[("a-0", 0)], &[])
    }

    /// A deletion stops what stands by on another cluster as well.
    pub(super) fn deletion_beside_a_standby(policy: Policy) -> Self {
        let id = OperationId::parse("op-1").unwrap();
        let request = request(Kind::Delete);
        let now = request.time;
        let members = [registered(&[("a-0", 0)], "a", 7), registered(&[("b-0", 0)], "b", 0)].concat();
        let (operation, events) = Operation::accept(id, request, policy, members, Vec::new(), 7);
        Self { operation, now, effects: Vec::new(), events }
    }

    pub(super) fn take(&mut self, step: Step) {
        assert!(step.changed || step.events.is_empty(), "an event without a change would be lost");
        self.effects.extend(step.effects);
        self.events.extend(step.events);
        if let Some(deadline) = self.operation.next_deadline() {
            assert!(deadline > self.now, "a deadline that has passed stays: {deadline} at {}", self.now);
        }
    }

    pub(super) fn feed(&mut self, input: Input) {
        let step = self.operation.handle(self.now, input);
        self.take(step);
    }

    /// Lets time pass, with every deadline on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.operation.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline;
            let step = self.operation.handle_deadline(self.now);
            self.take(step);
        }
        self.now = end;
    }

    pub(super) fn state(&self) -> StateName {
        self.operation.state()
    }

    pub(super) fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn count(&self, kind: EventKind) -> usize {
        self.events.iter().filter(|event| event.kind == kind).count()
    }

    pub(super) fn states(&self) -> Vec<&'static str> {
        let changes = self.events.iter().filter(|event| event.kind == EventKind::StateChanged);
        changes.map(|event| event.state.as_str()).collect()
    }

    /// Begins, and answers every probe well.
    pub(super) fn until_stopping(mut self) -> Self {
        self.feed(Input::Begin);
        self.answer_probes();
        assert_eq!(self.state(), StateName::Stopping);
        self
    }

    /// Sends the operation through the store and a restart of the scheduler.
    pub(super) fn restart(&mut self) {
        let stored = minicbor::to_vec(&self.operation).unwrap();
        self.operation = minicbor::decode(&stored).unwrap();
        self.operation.validate().unwrap();
        self.effects.clear();
        let step = self.operation.recover(self.now);
        self.take(step);
    }

    pub(super) fn cancel(&mut self) {
        let step = self.operation.cancel(self.now, &caller()).unwrap();
        self.take(step);
    }

    /// Retries, and lets the round begin.
    pub(super) fn retry(&mut self, force: bool, overrides: &PolicyOverrides) {
        let step = self.operation.retry(self.now, &caller(), force, overrides).unwrap();
        self.take(step);
        self.feed(Input::Begin);
    }

    /// Answers the probe that is out for one instance.
    pub(super) fn answer_probe(&mut self, instance: &str, answer: Result<Probe, CallError>) {
        let asks = |effect: &Effect| matches!(effect, Effect::Probe { instance: asked, .. } if *asked == id(instance));
        let at = self.effects.iter().position(asks).expect("a probe is out");
        let Effect::Probe { serial, .. } = self.effects.remove(at) else { unreachable!("just found") };
        self.feed(Input::Probed { instance: id(instance), serial, answer });
    }

    /// Reports every second, so that nothing but the grace period runs out.
    pub(super) fn reports_for(&mut self, instance: &str, seconds: u32) {
        let said = self.operation.member(&id(instance)).and_then(|member| member.shutdown.as_ref()?.report.clone());
        let first = said.map_or(1, |report| report.sequence + 1);
        for sequence in first..first + seconds {
            self.says(instance, report(sequence, StopPhase::Stopping));
            self.pass(secs(1));
        }
    }

    pub(super) fn answer_kill(&mut self, instance: &str, answer: Result<(), CallError>) {
        let attempt = self.fence(instance);
        self.feed(Input::KillAnswered { instance: id(instance), attempt, answer });
    }

    pub(super) fn answer_cancel(&mut self, instance: &str, answer: Result<(), CallError>) {
        let attempt = self.fence(instance);
        self.feed(Input::CancelAnswered { instance: id(instance), attempt, answer });
    }

    /// Whom Shutdown was called on, and forgets all effects so far.
    pub(super) fn told(&mut self) -> Vec<String> {
        let called =
            |effect| if let Effect::Shutdown { instance, .. } = effect { Some(instance.to_string()) } else { None };
        self.drain().into_iter().filter_map(called).collect()
    }

    /// Who was ordered to start, and forgets all effects so far.
    pub(super) fn ordered(&mut self) -> Vec<String> {
        let order =
            |effect| if let Effect::Start { instance, .. } = effect { Some(instance.to_string()) } else { None };
        self.drain().into_iter().filter_map(order).collect()
    }

    pub(super) fn kills(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).count()
    }

    pub(super) fn reason(&self) -> Reason {
        self.operation.failure().expect("something has gone wrong").reason
    }

    pub(super) fn answer_probes(&mut self) {
        for effect in self.drain() {
            if let Effect::Probe { instance, serial, .. } = effect {
                let running = self.operation.member(&instance).is_some_and(|member| !member.has_ended());
                let app_state = if running { AppState::Running } else { AppState::Held };
                self.feed(Input::Probed { instance, serial, answer: Ok(probe(app_state)) });
            } else {
                self.effects.push(effect);
            }
        }
    }

    pub(super) fn fence(&self, instance: &str) -> u32 {
        self.operation.member(&id(instance)).map_or(0, |member| member.fence())
    }

    pub(super) fn says(&mut self, instance: &str, report: StopReport) {
        let attempt = self.fence(instance);
        self.feed(Input::StopReported { instance: id(instance), attempt, report });
    }

    pub(super) fn call_ends(&mut self, instance: &str, error: CallError) {
        let attempt = self.fence(instance);
        self.feed(Input::StopCallEnded { instance: id(instance), attempt, error });
    }

    pub(super) fn ends(&mut self, instance: &str, sequence: u32, outcome: StopOutcome) {
        let phase = match outcome {
            StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => StopPhase::Stopped,
            StopOutcome::StillRunning | StopOutcome::Restarted | StopOutcome::Unknown => StopPhase::Failed,
            StopOutcome::Cancelled => StopPhase::Cancelled,
        };
        self.says(instance, StopReport { result: Some(result(outcome)), ..report(sequence, phase) });
    }

    /// The whole stop of one instance as it goes when all is well.
    pub(super) fn stops(&mut self, instance: &str) {
        self.says(instance, report(1, StopPhase::Stopping));
        self.ends(instance, 2, StopOutcome::Stopped);
    }

    pub(super) fn start_of(&self, instance: &str) -> u64 {
        let starts = self.operation.starts().iter().rev();
        starts.into_iter().find(|start| start.instance == id(instance)).map_or(0, |start| start.epoch)
    }

    pub(super) fn starts(&mut self, instance: &str, ready: bool) {
        let epoch = self.start_of(instance);
        let (phase, exit_code) = if ready { (StartPhase::Ready, None) } else { (StartPhase::Failed, Some(1)) };
        let result = StartResult {
            ready,
            readiness: Readiness::Notified,
            exit_code,
            exit_signal: None,
            duration: None,
            message: String::new(),
        };
        let report =
            StartReport { sequence: 1, phase, message: String::new(), report_time: None, result: Some(result) };
        self.feed(Input::StartReported { instance: id(instance), epoch, report });
    }

    pub(super) fn conclude_all(&mut self) {
        for effect in self.drain() {
            if let Effect::Conclude { instance, .. } = effect {
                self.feed(Input::Concluded { instance, answer: Ok(()) });
            }
        }
    }
}
