//! A stored operation and what happens to it then: whatever a store holds that passes for an operation goes on without a
//! panic, without spinning, and without doing what no operation may do.
//!
//! An input is the CBOR of an operation and, behind it, decisions: which of the machine's own questions is answered how,
//! what somebody makes up, when time passes, when the scheduler is restarted.

use std::time::Duration;

use minicbor::Decoder;
use quiesce_operation::member::{Member, Run};
use quiesce_operation::operation::COUNTED_TOO_FAR;
use quiesce_operation::report::{
    AppState, CallError, CallErrorClass, Capabilities, Evidence, Probe, Readiness, StartPhase, StartReport,
    StartResult, StopOutcome, StopPhase, StopReport, StopResult,
};
use quiesce_operation::{
    Caller, Effect, FailureStrategy, Input, InstanceId, Moment, Operation, OperationId, OverrideKind, PolicyOverrides,
    StateName, Step,
};
use quiesce_store::record::{from_cbor, to_cbor};

use super::choices::Choices;
use crate::records::OperationRecord;

/// Decisions taken from one input. More would show nothing that a shorter input does not, and make fuzzing slow.
const MOVES_MAX: usize = 64;
/// Calls of `handle_deadline` at one moment, after which nothing may be due any more. One does all that is due; a second
/// one is for what the first has begun.
const CALLS_AT_ONE_MOMENT_MAX: usize = 4;
/// The end of the timeline as far as it is looked at, some 35,000 years; a deadline behind it never comes.
const NOW_MAX: u64 = 1 << 50;
/// What the machine asked last and was not answered; older questions are dropped, as by a scheduler that is restarted.
const OPEN_MAX: usize = 32;

/// The stored form of an operation, and decisions behind it.
#[must_use]
pub fn operation(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(bytes);
    let Ok(operation) = decoder.decode::<Operation>() else { return false };
    let choices = Choices::new(&bytes[decoder.position()..]);
    let written = to_cbor(&operation);
    let OperationRecord(again) = from_cbor(&written).expect("what is written can be read");
    assert!(to_cbor(&again) == written, "it changes by being read and written");
    if operation.validate().is_err() {
        return false;
    }
    Life::new(operation, choices).run();
    true
}

struct Life<'a> {
    operation: Operation,
    choices: Choices<'a>,
    now: u64,
    /// Effects without an answer yet.
    open: Vec<Effect>,
}

impl<'a> Life<'a> {
    fn new(operation: Operation, choices: Choices<'a>) -> Self {
        let now = operation.updated().as_millis().min(NOW_MAX);
        Self { operation, choices, now, open: Vec::new() }
    }

    fn run(mut self) {
        self.moves(|operation, now| operation.recover(now));
        for _ in 0..MOVES_MAX {
            if self.choices.are_used_up() {
                return;
            }
            self.happens();
        }
    }

    fn happens(&mut self) {
        match self.choices.byte() % 14 {
            0..=4 => self.answered(),
            5 => self.invented(),
            6 | 7 => {
                let due = self.operation.next_deadline().map_or(self.now, Moment::as_millis);
                self.wait_until(due);
            }
            8 => {
                let millis = self.choices.number();
                self.wait_until(self.now.saturating_add(millis));
            }
            9 => self.restarted(),
            10 => self.asked(|operation, now| operation.cancel(now, &caller())),
            11 => {
                let force = self.choices.flag();
                let overrides = self.overrides();
                self.asked(|operation, now| operation.retry(now, &caller(), force, &overrides));
            }
            12 => {
                let grace = self.duration();
                self.asked(|operation, now| operation.extend(now, grace));
            }
            _ => {
                if self.choices.flag() {
                    self.asked(|operation, now| operation.confirm(now, &caller()));
                } else {
                    let by = OperationId::parse("op-9").expect("it is a name");
                    self.asked(|operation, now| operation.supersede(now, by));
                }
            }
        }
    }

    /// Does `act`, and checks what came of it against what was before.
    fn moves(&mut self, act: impl FnOnce(&mut Operation, Moment) -> Step) {
        let before = self.operation.clone();
        let step = act(&mut self.operation, Moment::from_millis(self.now));
        check(&before, &self.operation, &step);
        self.open.extend(step.effects);
        let surplus = self.open.len().saturating_sub(OPEN_MAX);
        self.open.drain(..surplus);
    }

    fn asked<E: std::fmt::Display>(&mut self, act: impl FnOnce(&mut Operation, Moment) -> Result<Step, E>) {
        let before = self.operation.clone();
        self.moves(|operation, now| {
            act(operation, now).unwrap_or_else(|refusal| {
                assert!(*operation == before, "refused, and yet something has changed");
                assert!(!refusal.to_string().is_empty(), "refused without a word");
                Step::default()
            })
        });
    }

    fn wait_until(&mut self, millis: u64) {
        self.now = millis.clamp(self.now, NOW_MAX.max(self.now));
        for _ in 0..CALLS_AT_ONE_MOMENT_MAX {
            self.moves(|operation, now| operation.handle_deadline(now));
            let due = self.operation.next_deadline();
            if due.is_none_or(|due| due.as_millis() > self.now) {
                return;
            }
        }
        panic!("something is due at {} again and again: {:?}", self.now, self.operation);
    }

    fn restarted(&mut self) {
        let OperationRecord(stored) = from_cbor(&to_cbor(&self.operation)).expect("what is written can be read");
        self.operation = stored;
        self.open.clear();
        self.moves(|operation, now| operation.recover(now));
    }

    /// One of the open questions is answered.
    fn answered(&mut self) {
        if self.open.is_empty() {
            return self.moves(|operation, now| operation.handle(now, Input::Begin));
        }
        let index = usize::from(self.choices.byte()) % self.open.len();
        let input = match self.open.swap_remove(index) {
            Effect::Probe { instance, serial, check: _ } => self.probed(instance, serial),
            Effect::Shutdown { instance, attempt, anew: _ } => {
                // The stream goes on: there will be more reports.
                self.open.push(Effect::Shutdown { instance: instance.clone(), attempt, anew: false });
                self.stop_said(instance, attempt)
            }
            Effect::UpdateDeadline { instance, attempt, .. } => self.more_time(instance, attempt),
            Effect::Kill { instance, attempt } => self.killed(instance, attempt),
            Effect::CancelShutdown { instance, attempt } => self.taken_back(instance, attempt),
            Effect::Start { instance, epoch, rollback } => {
                self.open.push(Effect::Start { instance: instance.clone(), epoch, rollback });
                self.start_said(instance, epoch)
            }
            Effect::Conclude { instance, .. } => self.concluded(instance),
        };
        self.moves(|operation, now| operation.handle(now, input));
    }

    /// Somebody says something that nobody asked for.
    fn invented(&mut self) {
        let operation = &self.operation;
        let members = operation.members().iter().chain(operation.undo());
        let mut known: Vec<(InstanceId, u32, u64)> =
            members.map(|member| (member.instance.clone(), member.fence(), member.epoch)).collect();
        known.extend(operation.starts().iter().map(|start| (start.instance.clone(), 1, start.epoch)));
        known.push((InstanceId::parse("stranger").expect("it is a name"), 1, 1));
        let (instance, attempt, epoch) = known[usize::from(self.choices.byte()) % known.len()].clone();
        let (attempt, epoch) =
            if self.choices.flag() { (self.choices.word(), self.choices.number()) } else { (attempt, epoch) };
        let input = match self.choices.byte() % 8 {
            0 => Input::Begin,
            1 => self.probed(instance, attempt),
            2 => self.stop_said(instance, attempt),
            3 => self.more_time(instance, attempt),
            4 => self.killed(instance, attempt),
            5 => self.taken_back(instance, attempt),
            6 => self.start_said(instance, epoch),
            _ => self.concluded(instance),
        };
        self.moves(|operation, now| operation.handle(now, input));
    }
}

/// What is said.
impl Life<'_> {
    fn duration(&mut self) -> Duration {
        Duration::from_millis(self.choices.number())
    }

    fn error(&mut self) -> CallError {
        use CallErrorClass::{Busy, Lost, NotFound, PointOfNoReturn, Protocol, Rejected, Unimplemented};
        let class = self.choices.one_of(&[Lost, Busy, Rejected, Protocol, Unimplemented, NotFound, PointOfNoReturn]);
        CallError { class, grpc_code: "UNAVAILABLE".to_owned(), message: "gone".to_owned() }
    }

    fn answer(&mut self) -> Result<(), CallError> {
        if self.choices.flag() { Err(self.error()) } else { Ok(()) }
    }

    fn overrides(&mut self) -> PolicyOverrides {
        PolicyOverrides {
            grace_period: self.choices.maybe(Self::millis),
            max_attempts: self.choices.maybe(Choices::word),
            overall_timeout: self.choices.maybe(Self::millis),
            failure_strategy: self.choices.maybe(|_| FailureStrategy::Force),
            allow_unverified: self.choices.maybe(Choices::flag),
            ..PolicyOverrides::default()
        }
    }

    fn millis(choices: &mut Choices<'_>) -> Duration {
        Duration::from_millis(choices.number())
    }

    fn probed(&mut self, instance: InstanceId, serial: u32) -> Input {
        if self.choices.flag() {
            return Input::Probed { instance, serial, answer: Err(self.error()) };
        }
        use AppState::{Held, Running, Starting, Stopped, Stopping, Unspecified};
        let mut able = self.choices.byte();
        let mut can = || {
            able = able.rotate_left(1);
            able & 1 == 0
        };
        let capabilities = Capabilities {
            check: can(),
            status: can(),
            cancel: can(),
            update_deadline: can(),
            kill: can(),
            settle: can(),
            durable: can(),
            start: can(),
            hold: true,
            conclude: true,
        };
        let probe = Probe {
            capabilities,
            ready: !self.choices.flag(),
            findings: Vec::new(),
            app_state: self.choices.one_of(&[Running, Held, Stopped, Starting, Stopping, Unspecified]),
            epoch: self.choices.number(),
            cannot_start: String::new(),
        };
        Input::Probed { instance, serial, answer: Ok(probe) }
    }

    fn stop_said(&mut self, instance: InstanceId, attempt: u32) -> Input {
        if self.choices.byte() % 4 == 3 {
            return Input::StopCallEnded { instance, attempt, error: self.error() };
        }
        use StopPhase::{Accepted, Cancelled, Draining, Failed, Killing, Stopped, Stopping};
        let phase = self.choices.one_of(&[Accepted, Draining, Stopping, Killing, Stopped, Failed, Cancelled]);
        let result = self.choices.maybe(|choices| {
            use StopOutcome as O;
            let outcomes =
                [O::Stopped, O::Killed, O::NotRunning, O::StillRunning, O::Restarted, O::Unknown, O::Cancelled];
            use Evidence as E;
            let evidence = [E::GroupEmpty, E::ChildReaped, E::ExitObserved, E::Manager, E::ProcessGone, E::Claimed];
            StopResult {
                outcome: choices.one_of(&outcomes),
                evidence: choices.one_of(&evidence),
                exit_code: None,
                exit_signal: None,
                clean: choices.maybe(Choices::flag),
                duration: None,
                message: String::new(),
                held: true,
            }
        });
        let report = StopReport {
            sequence: u32::try_from(self.choices.number()).unwrap_or(u32::MAX),
            phase,
            percent: self.choices.maybe(Choices::byte),
            step: String::new(),
            message: format!("at {}", self.now),
            report_time: None,
            wanted_grace_period: self.choices.maybe(Self::millis),
            result,
        };
        Input::StopReported { instance, attempt, report }
    }

    fn more_time(&mut self, instance: InstanceId, attempt: u32) -> Input {
        Input::MoreTimeWanted { instance, attempt, wanted: self.duration() }
    }

    fn killed(&mut self, instance: InstanceId, attempt: u32) -> Input {
        Input::KillAnswered { instance, attempt, answer: self.answer() }
    }

    fn taken_back(&mut self, instance: InstanceId, attempt: u32) -> Input {
        Input::CancelAnswered { instance, attempt, answer: self.answer() }
    }

    fn start_said(&mut self, instance: InstanceId, epoch: u64) -> Input {
        if self.choices.byte() % 4 == 3 {
            return Input::StartCallEnded { instance, epoch, error: self.error() };
        }
        let result = self.choices.maybe(|choices| StartResult {
            ready: choices.flag(),
            readiness: Readiness::Settled,
            exit_code: None,
            exit_signal: None,
            duration: None,
            message: String::new(),
        });
        use StartPhase::{Accepted, Failed, Ready, Starting};
        let report = StartReport {
            sequence: u32::try_from(self.choices.number()).unwrap_or(u32::MAX),
            phase: self.choices.one_of(&[Accepted, Starting, Ready, Failed]),
            message: String::new(),
            report_time: None,
            result,
        };
        Input::StartReported { instance, epoch, report }
    }

    fn concluded(&mut self, instance: InstanceId) -> Input {
        Input::Concluded { instance, answer: self.answer() }
    }
}

fn caller() -> Caller {
    Caller { identity: "ann".to_owned(), reason: "she can".to_owned() }
}

/// What holds of every step of every operation, however it came to be.
fn check(before: &Operation, after: &Operation, step: &Step) {
    if let Err(broken) = after.validate() {
        // Whoever was stored at the last count that is taken has counted on.
        assert_eq!(broken.what, COUNTED_TOO_FAR, "the next scheduler would refuse it");
    }
    assert!(step.changed || step.events.is_empty(), "events of a step that is not stored");
    assert!(after.epoch() >= before.epoch(), "an epoch went back");
    if before.is_done() {
        assert!(*before == *after && *step == Step::default(), "it was over, and moved");
    }
    if let Some(last) = step.events.last() {
        assert_eq!(last.state, after.state(), "the last event shows another state");
    }
    if after.state() != before.state() {
        assert!(step.changed, "another state that is not stored");
    }
    if after.state() == StateName::Degraded {
        assert!(!after.advice().is_empty(), "DEGRADED, and nobody is told what to do");
    }
    assert_eq!(after.ended().is_some(), after.is_done());
    let behind_the_gate = matches!(
        after.state(),
        StateName::Stopped | StateName::Starting | StateName::Finalizing | StateName::Succeeded
    );
    assert!(
        !behind_the_gate || after.members().iter().all(Member::has_ended),
        "behind the gate without an end: from {before:#?} to {after:#?}"
    );
    let unverified =
        |one: &Operation| one.members().iter().chain(one.undo()).filter(|m| m.run == Run::Unverified).count();
    let excused = |one: &Operation| {
        let used = one.overrides().iter().filter(|o| o.kind == OverrideKind::AllowUnverified && o.instance.is_some());
        used.count()
    };
    let (more, excuses) = (unverified(after).saturating_sub(unverified(before)), excused(after) - excused(before));
    assert!(more <= excuses, "an end without proof that nobody answers for");
}
