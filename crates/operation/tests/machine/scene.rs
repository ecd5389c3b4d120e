//! Scripted ways into every state, with one source and one target, for tables and for the stored form.

use std::collections::BTreeMap;
use std::time::Duration;

use quiesce_operation::report::{
    AppState, CallErrorClass, Evidence, Probe, Readiness, StartPhase, StartReport, StartResult, StopOutcome, StopPhase,
    StopReport, StopResult,
};
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, Effect, Event, FailureStrategy, Input, InstanceId, Kind, Moment, Operation,
    OperationId, Placement, Policy, Registered, Request, Step,
};

use crate::hook::{ALL, error};

pub(crate) fn id(text: &str) -> InstanceId {
    InstanceId::parse(text).unwrap()
}

pub(crate) fn caller() -> Caller {
    Caller { identity: "ann".to_owned(), reason: "test".to_owned() }
}

pub(crate) fn stop_report(sequence: u32, phase: StopPhase, outcome: Option<StopOutcome>) -> StopReport {
    StopReport {
        sequence,
        phase,
        percent: Some(40),
        step: "flush".to_owned(),
        message: format!("{phase:?}"),
        report_time: Some(1_700_000_000_000),
        wanted_grace_period: None,
        result: outcome.map(|outcome| StopResult {
            outcome,
            evidence: Evidence::GroupEmpty,
            exit_code: Some(0),
            exit_signal: None,
            clean: Some(true),
            duration: Some(Duration::from_millis(1234)),
            message: String::new(),
            held: true,
        }),
    }
}

pub(crate) fn start_report(sequence: u32, ready: Option<bool>) -> StartReport {
    let phase = match ready {
        None => StartPhase::Starting,
        Some(true) => StartPhase::Ready,
        Some(false) => StartPhase::Failed,
    };
    StartReport {
        sequence,
        phase,
        message: format!("{phase:?}"),
        report_time: None,
        result: ready.map(|ready| StartResult {
            ready,
            readiness: Readiness::Tcp,
            exit_code: (!ready).then_some(1),
            exit_signal: None,
            duration: None,
            message: String::new(),
        }),
    }
}

pub(crate) fn probe(app_state: AppState) -> Probe {
    Probe { capabilities: ALL, ready: true, findings: Vec::new(), app_state, epoch: 0, cannot_start: String::new() }
}

/// Two attempts, short backoff, everything else as built in.
pub(crate) fn policy(failure_strategy: FailureStrategy, max_attempts: u32) -> Policy {
    Policy { failure_strategy, max_attempts, ..Policy::built_in() }
}

/// An operation on its way, and what it has said so far.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) operation: Operation,
    pub(crate) now: Moment,
    pub(crate) events: Vec<Event>,
    serial: u32,
}

impl Scene {
    pub(crate) fn new(kind: Kind, placement: Placement, force: bool, policy: Policy) -> Self {
        let cluster = |name: &str| ClusterId::parse(name).unwrap();
        let now = Moment::from_millis(1_000_000);
        let request = Request {
            application: ApplicationId::parse("db").unwrap(),
            kind,
            source: cluster("a"),
            target: (kind == Kind::Migrate).then(|| cluster("b")),
            placement,
            force,
            caller: caller(),
            request_id: "r-1".to_owned(),
            labels: BTreeMap::from([("team".to_owned(), "store".to_owned())]),
            time: now,
            trace: None,
        };
        let source = Registered { instance: id("a-0"), cluster: cluster("a"), stop_order: 0, epoch: 6 };
        let target = Registered { instance: id("b-0"), cluster: cluster("b"), stop_order: 0, epoch: 0 };
        let starts_target = kind == Kind::Migrate && placement == Placement::Agents;
        let targets = if starts_target { vec![target] } else { Vec::new() };
        let operation = OperationId::parse("op-1").unwrap();
        let (operation, events) = Operation::accept(operation, request, policy, vec![source], targets, 6);
        Self { operation, now, events, serial: 0 }
    }

    pub(crate) fn migration(policy: Policy) -> Self {
        Self::new(Kind::Migrate, Placement::Agents, false, policy)
    }

    fn note(&mut self, step: &Step) {
        for effect in &step.effects {
            if let Effect::Probe { serial, .. } = effect {
                self.serial = *serial;
            }
        }
        self.events.extend(step.events.iter().cloned());
    }

    pub(crate) fn feed(mut self, input: Input) -> Self {
        let step = self.operation.handle(self.now, input);
        self.note(&step);
        self
    }

    /// To the next deadline, and over it.
    pub(crate) fn due(&mut self) -> Step {
        self.now = self.operation.next_deadline().expect("something is due");
        let step = self.operation.handle_deadline(self.now);
        self.note(&step);
        step
    }

    /// Over every deadline of the next `seconds`.
    pub(crate) fn pass(mut self, seconds: u64) -> Self {
        let end = self.now + Duration::from_secs(seconds);
        while self.operation.next_deadline().is_some_and(|deadline| deadline <= end) {
            self.due();
        }
        self.now = end;
        self
    }

    /// The instance whose stop is the subject: the target on the way back, else the source.
    pub(crate) fn stopped(&self) -> InstanceId {
        self.operation.undo().first().map_or_else(|| id("a-0"), |member| member.instance.clone())
    }

    fn attempt(&self) -> u32 {
        self.operation.member(&self.stopped()).expect("it is known").fence()
    }

    pub(crate) fn probed(&self, instance: &str, answer: Result<Probe, CallErrorClass>) -> Input {
        Input::Probed { instance: id(instance), serial: self.serial, answer: answer.map_err(error) }
    }

    pub(crate) fn reported(&self, report: StopReport) -> Input {
        Input::StopReported { instance: self.stopped(), attempt: self.attempt(), report }
    }

    pub(crate) fn stop_call_ended(&self, class: CallErrorClass) -> Input {
        Input::StopCallEnded { instance: self.stopped(), attempt: self.attempt(), error: error(class) }
    }

    pub(crate) fn more_time(&self, seconds: u64) -> Input {
        let wanted = Duration::from_secs(seconds);
        Input::MoreTimeWanted { instance: self.stopped(), attempt: self.attempt(), wanted }
    }

    pub(crate) fn kill_answered(&self, answer: Result<(), CallErrorClass>) -> Input {
        Input::KillAnswered { instance: self.stopped(), attempt: self.attempt(), answer: answer.map_err(error) }
    }

    pub(crate) fn cancel_answered(&self, answer: Result<(), CallErrorClass>) -> Input {
        Input::CancelAnswered { instance: self.stopped(), attempt: self.attempt(), answer: answer.map_err(error) }
    }

    /// The latest start, or one that nobody has ordered.
    fn started(&self) -> (InstanceId, u64) {
        let start = self.operation.starts().last();
        start.map_or_else(|| (id("b-0"), 0), |start| (start.instance.clone(), start.epoch))
    }

    pub(crate) fn start_reported(&self, report: StartReport) -> Input {
        let (instance, epoch) = self.started();
        Input::StartReported { instance, epoch, report }
    }

    pub(crate) fn start_call_ended(&self, class: CallErrorClass) -> Input {
        let (instance, epoch) = self.started();
        Input::StartCallEnded { instance, epoch, error: error(class) }
    }

    pub(crate) fn concluded(&self, answer: Result<(), CallErrorClass>) -> Input {
        Input::Concluded { instance: id("a-0"), answer: answer.map_err(error) }
    }

    pub(crate) fn then(self, input: impl FnOnce(&Self) -> Input) -> Self {
        let input = input(&self);
        self.feed(input)
    }

    pub(crate) fn says(self, sequence: u32, phase: StopPhase, outcome: Option<StopOutcome>) -> Self {
        self.then(|scene| scene.reported(stop_report(sequence, phase, outcome)))
    }

    pub(crate) fn cancel(mut self) -> Self {
        let step = self.operation.cancel(self.now, &caller()).expect("it can be taken back");
        self.note(&step);
        self
    }

    // The way of a migration, step by step.

    pub(crate) fn preparing(self) -> Self {
        let scene = self.feed(Input::Begin);
        if scene.operation.starts().is_empty() {
            return scene;
        }
        scene.then(|scene| scene.probed("b-0", Ok(probe(AppState::Held))))
    }

    pub(crate) fn called(self) -> Self {
        self.preparing().then(|scene| scene.probed("a-0", Ok(probe(AppState::Running))))
    }

    pub(crate) fn running(self, phase: StopPhase) -> Self {
        self.called().says(1, phase, None)
    }

    pub(crate) fn looking_back(self) -> Self {
        self.running(StopPhase::Stopping).says(2, StopPhase::Stopped, Some(StopOutcome::Stopped))
    }

    pub(crate) fn past_the_gate(self) -> Self {
        self.looking_back().then(|scene| scene.probed("a-0", Ok(probe(AppState::Held))))
    }

    pub(crate) fn still_runs(self) -> Self {
        self.running(StopPhase::Stopping).says(2, StopPhase::Failed, Some(StopOutcome::StillRunning))
    }

    pub(crate) fn going_back(self) -> Self {
        self.past_the_gate().then(|scene| scene.start_reported(start_report(1, Some(false))))
    }

    pub(crate) fn source_starting(self) -> Self {
        self.going_back().says(1, StopPhase::Stopped, Some(StopOutcome::NotRunning))
    }
}
