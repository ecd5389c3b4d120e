//! A small world around one operation: hooks with applications, a network that loses, doubles, delays and reorders, a
//! scheduler that crashes, people who change their minds. The world knows which copies live; after every step it compares
//! what the machine does with that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quiesce_operation::member::{Member, RECONNECT_MAX, Run};
use quiesce_operation::report::{CallErrorClass, StartReport, StopReport};
use quiesce_operation::start::StartRun;
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, Effect, EventKind, FailureStrategy, Input, InstanceId, Kind, Moment, Operation,
    OperationId, OverrideKind, Placement, Policy, PolicyOverrides, Registered, Request, StateName, Step,
};

use crate::hook::{Hook, Temper, error};

/// Messages on their way; more than these would be a storm, which is checked as such.
const MESSAGES_MAX: usize = 400;
/// Steps in which a well-behaved world has to bring any operation to rest.
const SETTLING_MAX: usize = 6000;

/// How a case begins.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    pub(crate) placement: Placement,
    pub(crate) force: bool,
    pub(crate) policy: Policy,
    pub(crate) sources: Vec<(Temper, i32)>,
    pub(crate) targets: Vec<(Temper, i32)>,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    /// A message arrives; which one, chance says.
    Arrives(u16),
    /// The oldest messages arrive in order.
    Flow(u8),
    /// A message is lost, and the caller notices.
    Lost(u16),
    /// A message arrives, and once more later.
    Doubled(u16),
    /// An application and its hook do a little.
    Tick(u8),
    /// Time passes, up to the next deadline at most.
    Wait(u16),
    /// Time passes to the next deadline.
    Due,
    /// The scheduler dies and comes back; true: what it was about to send is gone too.
    Crash(bool),
    /// An agent restarts.
    AgentRestart(u8),
    /// An agent cannot be reached, or can again.
    Cut(u8),
    Cancel,
    Retry {
        force: bool,
        unverified: bool,
    },
    Extend(u16),
    Confirm,
}

#[derive(Debug, Clone)]
enum Message {
    /// To a hook, with the epoch a Shutdown carries; orphaned when its caller has died.
    Call { effect: Effect, epoch: u64, orphaned: bool },
    /// To the machine.
    Answer(Input),
}

pub(crate) struct World {
    pub(crate) operation: Operation,
    now: Moment,
    recovered: Option<Moment>,
    stored: Vec<u8>,
    hooks: Vec<Hook>,
    messages: Vec<Message>,
    epochs: BTreeMap<u64, InstanceId>,
    /// Instances whose missing proof a person stood in for.
    excused: BTreeSet<InstanceId>,
    /// Whether a person has asked to kill.
    may_kill: bool,
    pub(crate) seen: BTreeSet<(StateName, StateName)>,
}

fn caller() -> Caller {
    Caller { identity: "ann".to_owned(), reason: "test".to_owned() }
}

impl World {
    pub(crate) fn new(setup: &Setup) -> Self {
        let cluster = |name: &str| ClusterId::parse(name).unwrap();
        let now = Moment::from_millis(1_000_000);
        let request = Request {
            application: ApplicationId::parse("db").unwrap(),
            kind: setup.kind,
            source: cluster("a"),
            target: (setup.kind == Kind::Migrate).then(|| cluster("b")),
            placement: setup.placement,
            force: setup.force,
            caller: caller(),
            request_id: String::new(),
            labels: BTreeMap::new(),
            time: now,
            trace: None,
        };
        let starts_target = setup.kind == Kind::Migrate && setup.placement == Placement::Agents;
        let mut hooks = Vec::new();
        let mut register = |tempers: &[(Temper, i32)], name: &str, target: bool| -> Vec<Registered> {
            let mut registered = Vec::new();
            for (index, &(temper, stop_order)) in tempers.iter().enumerate() {
                let instance = InstanceId::parse(&format!("{name}-{index}")).unwrap();
                let epoch = if target { 0 } else { 7 };
                hooks.push(Hook::new(instance.clone(), target, temper));
                registered.push(Registered { instance, cluster: cluster(name), stop_order, epoch });
            }
            registered
        };
        let members = register(&setup.sources, "a", false);
        let targets = if starts_target { register(&setup.targets, "b", true) } else { Vec::new() };
        let id = OperationId::parse("op-1").unwrap();
        let (operation, events) = Operation::accept(id, request, setup.policy.clone(), members, targets, 7);
        let stored = minicbor::to_vec(&operation).unwrap();
        let mut world = Self {
            operation,
            now,
            recovered: None,
            stored,
            hooks,
            messages: Vec::new(),
            epochs: BTreeMap::new(),
            excused: BTreeSet::new(),
            may_kill: setup.force,
            seen: BTreeSet::new(),
        };
        assert_eq!(events.len(), 1);
        world.messages.push(Message::Answer(Input::Begin));
        world
    }

    pub(crate) fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(which) => {
                if let Some(message) = self.pick(which) {
                    self.arrives(message);
                }
            }
            Happening::Flow(count) => {
                for _ in 0..count {
                    if !self.messages.is_empty() {
                        let message = self.messages.remove(0);
                        self.arrives(message);
                    }
                }
            }
            Happening::Lost(which) => {
                if let Some(message) = self.pick(which) {
                    self.is_lost(message);
                }
            }
            Happening::Doubled(which) => {
                if let Some(message) = self.pick(which) {
                    self.messages.push(message.clone());
                    self.arrives(message);
                }
            }
            Happening::Tick(which) => {
                let index = usize::from(which) % self.hooks.len().max(1);
                if index < self.hooks.len() {
                    self.tick(index);
                }
            }
            Happening::Wait(millis) => self.wait(Duration::from_millis(u64::from(millis))),
            Happening::Due => {
                if let Some(deadline) = self.operation.next_deadline() {
                    self.wait(deadline.since(self.now));
                }
            }
            Happening::Crash(silent) => self.crash(silent),
            Happening::AgentRestart(which) => self.agent_restarts(usize::from(which)),
            Happening::Cut(which) => {
                let index = usize::from(which) % self.hooks.len().max(1);
                if let Some(hook) = self.hooks.get_mut(index) {
                    hook.reachable = !hook.reachable;
                    if !hook.reachable {
                        self.streams_break(index);
                    }
                }
            }
            Happening::Cancel => self.command(|operation, now| operation.cancel(now, &caller())),
            Happening::Retry { force, unverified } => {
                self.may_kill |= force && self.operation.state() == StateName::Degraded;
                self.command(|operation, now| {
                    let overrides = PolicyOverrides {
                        allow_unverified: unverified.then_some(true),
                        failure_strategy: (unverified && !force).then_some(FailureStrategy::Force),
                        ..PolicyOverrides::default()
                    };
                    operation.retry(now, &caller(), force, &overrides)
                });
            }
            Happening::Extend(seconds) => {
                self.command(|operation, now| operation.extend(now, Duration::from_secs(u64::from(seconds))));
            }
            Happening::Confirm => self.command(|operation, now| operation.confirm(now, &caller())),
        }
    }

    /// Everything works from now on; the operation has to come to rest.
    pub(crate) fn settles(&mut self) {
        for hook in &mut self.hooks {
            hook.reachable = true;
        }
        for _ in 0..SETTLING_MAX {
            if self.rests() {
                return;
            }
            if !self.messages.is_empty() {
                let message = self.messages.remove(0);
                self.arrives(message);
            } else if self.operation.state() == StateName::Pending {
                self.feed(Input::Begin);
            } else {
                for index in 0..self.hooks.len() {
                    self.tick(index);
                }
                self.wait(Duration::from_secs(1));
            }
        }
        panic!("I4: does not come to rest: {:?} {:#?}", self.operation.state(), self.operation);
    }

    fn rests(&self) -> bool {
        let operation = &self.operation;
        if operation.state() == StateName::Degraded {
            assert!(operation.failure().is_some(), "I4: DEGRADED without a reason");
            assert!(operation.advice().contains("quiesce "), "I4: DEGRADED without advice");
            return true;
        }
        operation.is_done() || operation.awaits_confirmation()
    }

    fn pick(&mut self, which: u16) -> Option<Message> {
        let count = self.messages.len();
        (count > 0).then(|| self.messages.remove(usize::from(which) % count))
    }

    fn hook(&mut self, instance: &InstanceId) -> &mut Hook {
        self.hooks
            .iter_mut()
            .find(|hook| hook.instance == *instance)
            .expect("the machine knows only those it was told of")
    }

    fn arrives(&mut self, message: Message) {
        match message {
            Message::Answer(input) => self.feed(input),
            Message::Call { effect, epoch, orphaned } => {
                let instance = target_of(&effect).clone();
                if !self.hook(&instance).reachable {
                    return self.is_lost(Message::Call { effect, epoch, orphaned });
                }
                let answers = answer(self.hook(&instance), effect, epoch);
                if !orphaned {
                    self.messages.extend(answers.into_iter().map(Message::Answer));
                }
            }
        }
    }

    fn is_lost(&mut self, message: Message) {
        let Message::Call { effect, orphaned: false, .. } = message else { return };
        let lost = error(CallErrorClass::Lost);
        let input = match effect {
            Effect::Probe { instance, serial, .. } => Input::Probed { instance, serial, answer: Err(lost) },
            Effect::Shutdown { instance, attempt, .. } => Input::StopCallEnded { instance, attempt, error: lost },
            Effect::Kill { instance, attempt } => Input::KillAnswered { instance, attempt, answer: Err(lost) },
            Effect::CancelShutdown { instance, attempt } => {
                Input::CancelAnswered { instance, attempt, answer: Err(lost) }
            }
            Effect::Start { instance, epoch, .. } => Input::StartCallEnded { instance, epoch, error: lost },
            Effect::Conclude { instance, .. } => Input::Concluded { instance, answer: Err(lost) },
            Effect::UpdateDeadline { .. } => return,
        };
        self.messages.push(Message::Answer(input));
    }

    fn tick(&mut self, index: usize) {
        let hook = &mut self.hooks[index];
        let (stop, start) = hook.tick();
        let instance = hook.instance.clone();
        if let Some((attempt, report)) = stop.filter(|(attempt, _)| hook.stop_stream == Some(*attempt)) {
            self.messages.push(Message::Answer(stop_input(&instance, attempt, report)));
        }
        let hook = &self.hooks[index];
        if let Some((epoch, report)) = start.filter(|(epoch, _)| hook.start_stream == Some(*epoch)) {
            self.messages.push(Message::Answer(start_input(&instance, epoch, report)));
        }
        self.check_truth();
    }

    fn streams_break(&mut self, index: usize) {
        let hook = &mut self.hooks[index];
        let instance = hook.instance.clone();
        let error = error(CallErrorClass::Lost);
        if let Some(attempt) = hook.stop_stream.take() {
            let input = Input::StopCallEnded { instance: instance.clone(), attempt, error: error.clone() };
            self.messages.push(Message::Answer(input));
        }
        if let Some(epoch) = hook.start_stream.take() {
            self.messages.push(Message::Answer(Input::StartCallEnded { instance, epoch, error }));
        }
    }

    fn agent_restarts(&mut self, which: usize) {
        let index = which % self.hooks.len().max(1);
        if index < self.hooks.len() {
            self.streams_break(index);
            self.hooks[index].restart();
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(deadline) = self.operation.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            let before = Seen::of(&self.operation);
            let step = self.operation.handle_deadline(self.now);
            if let Some(next) = self.operation.next_deadline() {
                assert!(next > self.now, "busy loop: {next} stays at {} in {:#?}", self.now, self.operation);
            }
            self.take(step, &before, false);
        }
        self.now = end;
        self.check_budget();
    }

    fn feed(&mut self, input: Input) {
        let before = Seen::of(&self.operation);
        let untouched = self.is_stale(&input).then(|| self.operation.clone());
        let step = self.operation.handle(self.now, input);
        if let Some(untouched) = untouched {
            assert_eq!(step, Step::default(), "what carries a stale fence leads to something");
            assert_eq!(self.operation, untouched, "what carries a stale fence changes something");
        }
        self.take(step, &before, false);
    }

    fn is_stale(&self, input: &Input) -> bool {
        match input {
            Input::StopReported { instance, attempt, .. }
            | Input::StopCallEnded { instance, attempt, .. }
            | Input::MoreTimeWanted { instance, attempt, .. }
            | Input::KillAnswered { instance, attempt, .. }
            | Input::CancelAnswered { instance, attempt, .. } => {
                self.operation.member(instance).is_none_or(|member| member.fence() != *attempt)
            }
            Input::StartReported { instance, epoch, .. } | Input::StartCallEnded { instance, epoch, .. } => {
                self.operation.start(instance, *epoch).is_none()
            }
            Input::Begin | Input::Probed { .. } | Input::Concluded { .. } => false,
        }
    }

    fn command<E>(&mut self, command: impl FnOnce(&mut Operation, Moment) -> Result<Step, E>) {
        let before = Seen::of(&self.operation);
        match command(&mut self.operation, self.now) {
            Ok(step) => self.take(step, &before, false),
            Err(_) => assert_eq!(Seen::of(&self.operation), before, "a refusal has changed something"),
        }
    }

    fn crash(&mut self, silent: bool) {
        self.messages.retain(|message| matches!(message, Message::Call { .. }) && !silent);
        for message in &mut self.messages {
            if let Message::Call { orphaned, .. } = message {
                *orphaned = true;
            }
        }
        for hook in &mut self.hooks {
            hook.stop_stream = None;
            hook.start_stream = None;
        }
        let mut operation: Operation = minicbor::decode(&self.stored).expect("what was stored can be read");
        operation.validate().expect("what was stored is whole");
        assert_eq!(minicbor::to_vec(&operation).unwrap(), self.stored, "the stored form survives a round trip");
        let budgets = budgets(&operation);
        let before = Seen::of(&operation);
        let step = operation.recover(self.now);
        let floor = self.now + operation.policy().accept_timeout.max(RECONNECT_MAX);
        for (key, until) in self::budgets(&operation) {
            if let Some(had) = budgets.get(&key) {
                assert!(until <= (*had).max(floor), "I3: {key:?} had until {had}, has until {until} after a recovery");
            }
        }
        self.operation = operation;
        self.recovered = Some(self.now);
        self.take(step, &before, true);
        if self.operation.state() == StateName::Pending {
            self.messages.push(Message::Answer(Input::Begin));
        }
    }

    fn take(&mut self, step: Step, before: &Seen, recovery: bool) {
        self.check_events(&step, before);
        if !step.changed {
            assert_eq!(Seen::of(&self.operation), *before, "a change that would not be stored");
        }
        let parties = self.operation.members().len() + self.operation.starts().len() + self.operation.undo().len();
        assert!(step.effects.len() <= 4 * parties + 1, "too many effects: {:?}", step.effects);
        for one in self.operation.overrides() {
            if let (OverrideKind::AllowUnverified, Some(instance)) = (one.kind, &one.instance)
                && self.excused.insert(instance.clone())
            {
                let policy = self.operation.policy();
                let kills = self.may_kill || policy.failure_strategy == FailureStrategy::Force;
                let by_policy = policy.allow_unverified && kills;
                assert!(by_policy || self.operation.request().force, "nobody has allowed to go on without {instance}");
            }
        }
        if step.changed {
            self.stored = minicbor::to_vec(&self.operation).unwrap();
        }
        for effect in step.effects {
            self.check_fence(&effect, recovery);
            self.check_start(&effect);
            let epoch = self.operation.member(target_of(&effect)).map_or(0, |member| member.epoch);
            self.messages.push(Message::Call { effect, epoch, orphaned: false });
        }
        assert!(self.messages.len() < MESSAGES_MAX, "a storm of messages");
        if self.operation.state() == StateName::Succeeded {
            self.check_sources_down("I1: SUCCEEDED");
        }
        if self.operation.state() == StateName::Cancelled {
            // An agent that forgets has nobody to ask.
            let signalled = self.hooks.iter().any(|hook| !hook.signals.is_empty() && !hook.temper.forgetful);
            assert!(!signalled || before.state == StateName::Cancelled, "CANCELLED, but an instance was told to stop");
        }
        if self.operation.is_done() {
            assert_eq!(self.operation.next_deadline(), None);
            self.messages.retain(|message| matches!(message, Message::Answer(_)));
        }
        self.check_truth();
    }

    /// I5, and: only a change of state is a StateChanged event.
    fn check_events(&mut self, step: &Step, before: &Seen) {
        assert!(step.changed || step.events.is_empty(), "an event without a change would be lost");
        let mut state = before.state;
        for event in &step.events {
            assert_eq!(event.previous, state, "I5: {event:?} does not follow {state:?}");
            let moved = event.kind == EventKind::StateChanged;
            assert_eq!(moved, event.state != event.previous, "I5: {event:?}");
            if moved {
                self.seen.insert((event.previous, event.state));
            }
            state = event.state;
            assert!(!before.state.is_final(), "I5: {event:?} behind the end");
        }
        assert_eq!(state, self.operation.state(), "I5: a change of state without an event");
    }

    /// What goes out carries the fence that is in force, to somebody the operation waits for.
    fn check_fence(&self, effect: &Effect, recovery: bool) {
        let state = self.operation.state();
        match effect {
            Effect::Shutdown { instance, attempt, .. } | Effect::UpdateDeadline { instance, attempt, .. } => {
                let member = self.operation.member(instance).unwrap();
                let listens = recovery && member.has_failed() && member.capabilities.durable;
                assert_eq!(member.fence(), *attempt, "a stale fence in {effect:?}");
                assert!(member.is_in_flight() || listens, "{effect:?} for {:?} in {state:?}", member.run);
                let calls = matches!(effect, Effect::Shutdown { .. });
                assert!(!calls || state != StateName::Cancelling, "{effect:?} while taking it back");
            }
            Effect::Kill { instance, attempt } | Effect::CancelShutdown { instance, attempt } => {
                let member = self.operation.member(instance).unwrap();
                assert_eq!(member.fence(), *attempt, "a stale fence in {effect:?}");
                assert!(member.is_in_flight(), "{effect:?} for {:?} in {state:?}", member.run);
            }
            Effect::Start { instance, epoch, .. } => {
                let start = self.operation.start(instance, *epoch).expect("a start that is known");
                assert!(start.is_in_flight(), "{effect:?} for {:?}", start.run);
            }
            Effect::Probe { .. } => {}
            Effect::Conclude { .. } => assert_eq!(state, StateName::Finalizing),
        }
        if matches!(effect, Effect::Kill { .. }) {
            let recorded = self.operation.overrides().iter().any(|one| one.kind == OverrideKind::Force);
            let by_policy = self.operation.policy().failure_strategy == FailureStrategy::Force;
            assert!(recorded && (by_policy || self.may_kill), "a kill that nobody answers for");
        }
    }

    /// I1 and I2 at the moment of a start.
    fn check_start(&mut self, effect: &Effect) {
        let Effect::Start { instance, epoch, rollback } = effect else { return };
        let highest = self.epochs.last_key_value().map_or(7, |(epoch, _)| *epoch);
        match self.epochs.get(epoch) {
            Some(known) => assert_eq!(known, instance, "I2: one epoch for two"),
            None => assert!(*epoch > highest, "I2: epoch {epoch} after {highest}"),
        }
        self.epochs.insert(*epoch, instance.clone());
        if *rollback {
            let alive = |hook: &&Hook| hook.target && hook.alive && !self.excused.contains(&hook.instance);
            assert!(self.hooks.iter().find(alive).is_none(), "I2: a source is started while a target lives");
        } else {
            self.check_sources_down("I1: a target is started");
        }
    }

    fn check_sources_down(&self, what: &str) {
        let lives = |hook: &&Hook| !hook.target && hook.alive && !self.excused.contains(&hook.instance);
        if let Some(hook) = self.hooks.iter().find(lives) {
            panic!("{what} while {} lives", hook.instance);
        }
    }

    /// I2 and I3 as the world sees them.
    fn check_truth(&self) {
        let lives = |target| {
            let counts = |hook: &&Hook| hook.target == target && hook.alive && !self.excused.contains(&hook.instance);
            self.hooks.iter().find(counts).is_some()
        };
        assert!(!(lives(true) && lives(false)), "I2: source and target live together");
        for hook in self.hooks.iter().filter(|hook| !hook.temper.forgetful) {
            for (attempt, count) in &hook.signals {
                assert!(*count <= 1, "I3: {} was told to stop {count} times in attempt {attempt}", hook.instance);
            }
        }
    }

    /// I3: nobody runs on behind the end of its grace period, but for what a recovery may add.
    fn check_budget(&self) {
        let floor = self.recovered.map(|at| at + self.operation.policy().accept_timeout.max(RECONNECT_MAX));
        for member in self.operation.members().iter().chain(self.operation.undo()) {
            if let (Run::Running { kill: None, .. }, Some(deadline)) = (&member.run, member.deadline()) {
                let limit = floor.map_or(deadline, |floor| deadline.max(floor));
                assert!(self.now < limit, "I3: {} runs at {} behind {limit}", member.instance, self.now);
            }
        }
    }
}

/// Budgets that a recovery must not refill: grace, kill, start.
fn budgets(operation: &Operation) -> BTreeMap<(InstanceId, &'static str), Moment> {
    let mut found = BTreeMap::new();
    for member in operation.members().iter().chain(operation.undo()) {
        if let Some(deadline) = member.deadline() {
            found.insert((member.instance.clone(), "grace"), deadline);
        }
        if let Run::Running { kill: Some(kill), .. } = &member.run {
            found.insert((member.instance.clone(), "kill"), kill.until);
        }
    }
    for start in operation.starts() {
        if let StartRun::Ordered { until, .. } = start.run {
            found.insert((start.instance.clone(), "start"), until);
        }
    }
    found
}

/// What must not change without being stored.
#[derive(Debug, PartialEq)]
struct Seen {
    state: StateName,
    round: u32,
    attempt: u32,
    overrides: usize,
    policy: Policy,
    members: Vec<(u32, bool, &'static str, Option<Moment>)>,
    starts: Vec<(u64, &'static str)>,
}

impl Seen {
    fn of(operation: &Operation) -> Self {
        let member = |member: &Member| {
            let run = match member.run {
                Run::Waiting => "waiting",
                Run::Calling { .. } => "calling",
                Run::Running { kill: None, .. } => "running",
                Run::Running { kill: Some(kill), .. } if kill.answered => "killed",
                Run::Running { .. } => "killing",
                Run::Stopped => "stopped",
                Run::Unverified => "unverified",
                Run::Failed => "failed",
            };
            (member.fence(), member.told, run, member.deadline())
        };
        let starts = operation.starts().iter().map(|start| {
            let run = match start.run {
                StartRun::Waiting => "waiting",
                StartRun::Ordered { .. } => "ordered",
                StartRun::Ready => "ready",
                StartRun::Failed => "failed",
            };
            (start.epoch, run)
        });
        Self {
            state: operation.state(),
            round: operation.round(),
            attempt: operation.attempt(),
            overrides: operation.overrides().len(),
            policy: operation.policy().clone(),
            members: operation.members().iter().chain(operation.undo()).map(member).collect(),
            starts: starts.collect(),
        }
    }
}

fn target_of(effect: &Effect) -> &InstanceId {
    match effect {
        Effect::Probe { instance, .. }
        | Effect::Shutdown { instance, .. }
        | Effect::UpdateDeadline { instance, .. }
        | Effect::Kill { instance, .. }
        | Effect::CancelShutdown { instance, .. }
        | Effect::Start { instance, .. }
        | Effect::Conclude { instance, .. } => instance,
    }
}

fn stop_input(instance: &InstanceId, attempt: u32, report: StopReport) -> Input {
    Input::StopReported { instance: instance.clone(), attempt, report }
}

fn start_input(instance: &InstanceId, epoch: u64, report: StartReport) -> Input {
    Input::StartReported { instance: instance.clone(), epoch, report }
}

/// A call reaches a hook.
fn answer(hook: &mut Hook, effect: Effect, stop_epoch: u64) -> Vec<Input> {
    match effect {
        Effect::Probe { instance, serial, .. } => vec![Input::Probed { instance, serial, answer: Ok(hook.probe()) }],
        Effect::Shutdown { instance, attempt, .. } => match hook.shutdown(attempt, stop_epoch) {
            Ok(report) => vec![stop_input(&instance, attempt, report)],
            Err(error) => vec![Input::StopCallEnded { instance, attempt, error }],
        },
        Effect::UpdateDeadline { .. } => Vec::new(),
        Effect::Kill { instance, attempt } => {
            let answer = hook.kill(attempt);
            let mut inputs = vec![Input::KillAnswered { instance: instance.clone(), attempt, answer }];
            let latest = hook.latest().filter(|(latest, _)| hook.stop_stream == Some(*latest));
            inputs.extend(latest.map(|(attempt, report)| stop_input(&instance, attempt, report)));
            inputs
        }
        Effect::CancelShutdown { instance, attempt } => {
            let answer = hook.cancel(attempt);
            let mut inputs = vec![Input::CancelAnswered { instance: instance.clone(), attempt, answer }];
            let latest = hook.latest().filter(|(latest, _)| hook.stop_stream == Some(*latest));
            inputs.extend(latest.map(|(attempt, report)| stop_input(&instance, attempt, report)));
            inputs
        }
        Effect::Start { instance, epoch, .. } => match hook.start(epoch) {
            Ok(report) => vec![start_input(&instance, epoch, report)],
            Err(error) => vec![Input::StartCallEnded { instance, epoch, error }],
        },
        Effect::Conclude { instance, .. } => vec![Input::Concluded { instance, answer: Ok(()) }],
    }
}
