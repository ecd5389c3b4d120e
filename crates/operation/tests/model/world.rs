//! A world of one operation and two hooks: what can happen next in it, and what it is afterwards.
//!
//! Time stands still until nothing else can happen, then the next deadline comes. That it comes earlier is a fault, as is
//! every crash, every message that is lost, doubled or late, and an application that hangs; their number is bounded.
//! A message that is late comes at any time or never, and nobody listens to what it leads to.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use quiesce_operation::report::{CallErrorClass, StopPhase};
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, FailureStrategy, Input, InstanceId, Kind, Moment, Operation, OperationId,
    Placement, Policy, PolicyOverrides, Registered, Request, StateName, Step,
};

use crate::canon;
use crate::flaw::Flaw;
use crate::hook::{Hook, Temper, error};
use crate::invariants::{check_effect, check_operation, check_recovery, check_rest, check_truth};
use crate::message::{Call, Message, Sent};

/// When the operation is accepted.
pub(crate) const ORIGIN: Moment = Moment::from_millis(1_000_000);
/// Grace, kill and start alike: below the heartbeat, so that few deadlines tell apart what time can do.
const PATIENCE: Duration = Duration::from_secs(10);
/// Room for two repetitions of a call that brought nothing.
const ACCEPT: Duration = Duration::from_millis(500);

/// What is searched.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) strategy: FailureStrategy,
    pub(crate) attempts: u32,
    /// How often somebody may cancel, or retry with force.
    pub(crate) cancels: u8,
    pub(crate) forces: u8,
    /// Applications do not end, and their hooks claim that they have.
    pub(crate) claims: bool,
    pub(crate) unkillable: bool,
    /// The kinds of faults.
    pub(crate) faults: Faults,
    /// What is wrong with driver or agents; none: nothing.
    pub(crate) flaw: Option<Flaw>,
}

/// Which faults can happen, so that a search with many ways to go can be had in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    Any,
    /// The scheduler dies.
    Crashes,
    /// Messages are lost, doubled, late.
    Network,
    /// Deadlines come early, applications hang.
    Time,
}

/// One thing that can happen. Numbers are places in the lists of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The operation's turn has come.
    Begin(Driver),
    /// A message arrives.
    Deliver(usize, Driver),
    /// A message arrives, and a copy of it is late.
    Double(usize),
    /// A message is late.
    Delay(usize),
    /// The connection breaks, and with it the message; whoever called notices.
    Lose(usize),
    /// A hook and its application do a little; what is being started comes up, fails, or goes on.
    Move(usize, Option<bool>),
    /// An application neither ends when told nor becomes ready.
    Hang(usize),
    /// Time passes to the next deadline.
    Deadline(Driver),
    /// The scheduler dies and comes back.
    Crash,
    /// Somebody cancels.
    Cancel(Driver),
    /// Somebody retries with force.
    Force(Driver),
}

/// Whether the driver lives to do all that a step asks for. That it dies between writing and acting need not be searched:
/// it is a crash after both, with every call late for ever. A driver that acts first has no such excuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    Lives,
    /// It dies between acting and writing.
    Dies,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    flaw: Option<Flaw>,
    kinds: Faults,
    operation: Operation,
    /// As of the last write.
    stored: Rc<Written>,
    now: Moment,
    hooks: Vec<Hook>,
    hung: Vec<bool>,
    in_flight: Vec<Rc<Message>>,
    epochs: BTreeMap<u64, InstanceId>,
    faults: u8,
    cancels: u8,
    forces: u8,
    was_cancelled: bool,
}

/// What a crash leaves, and the same in words, which are needed for every world that follows.
#[derive(Debug)]
struct Written {
    operation: Operation,
    text: String,
}

impl Written {
    fn of(operation: &Operation) -> Rc<Self> {
        let text = format!("{:?}", (operation, canon::deadlines(operation)));
        Rc::new(Self { operation: operation.clone(), text })
    }
}

fn caller() -> Caller {
    Caller { identity: "ann".to_owned(), reason: "test".to_owned() }
}

impl World {
    pub(crate) fn new(setup: &Setup, faults: u8) -> Self {
        let cluster = |name: &str| ClusterId::parse(name).unwrap();
        let instance = |name: &str| InstanceId::parse(name).unwrap();
        let is_migration = setup.kind == Kind::Migrate;
        let request = Request {
            application: ApplicationId::parse("db").unwrap(),
            kind: setup.kind,
            source: cluster("a"),
            target: is_migration.then(|| cluster("b")),
            placement: Placement::Agents,
            force: false,
            caller: caller(),
            request_id: String::new(),
            labels: BTreeMap::new(),
            time: ORIGIN,
            trace: None,
        };
        let policy = Policy {
            grace_period: PATIENCE,
            accept_timeout: ACCEPT,
            kill_timeout: PATIENCE,
            start_timeout: PATIENCE,
            max_attempts: setup.attempts,
            // Two that stop side by side know nothing of each other, and their orders multiply.
            max_parallel_stops: 1,
            failure_strategy: setup.strategy,
            ..Policy::built_in()
        };
        let temper = Temper {
            ends_after: Some(0),
            gives_up: false,
            claims: setup.claims,
            unkillable: setup.unkillable,
            comes_up: None,
            forgetful: false,
            wants: None,
        };
        let runs = Registered { instance: instance("a-0"), cluster: cluster("a"), stop_order: 0, epoch: 7 };
        let stands_by = Registered { instance: instance("b-0"), cluster: cluster("b"), stop_order: 0, epoch: 0 };
        let hooks =
            vec![Hook::new(runs.instance.clone(), false, temper), Hook::new(stands_by.instance.clone(), true, temper)];
        let (members, targets) =
            if is_migration { (vec![runs], vec![stands_by]) } else { (vec![runs, stands_by], Vec::new()) };
        let id = OperationId::parse("op-1").unwrap();
        let (operation, _) = Operation::accept(id, request, policy, members, targets, 7);
        Self {
            flaw: setup.flaw,
            kinds: setup.faults,
            stored: Written::of(&operation),
            operation,
            now: ORIGIN,
            hung: vec![false; hooks.len()],
            hooks,
            in_flight: Vec::new(),
            epochs: BTreeMap::new(),
            faults,
            cancels: setup.cancels,
            forces: setup.forces,
            was_cancelled: false,
        }
    }

    /// What tells this world from others, in short.
    pub(crate) fn fingerprint(&self) -> u64 {
        let messages: Vec<(&str, bool)> =
            self.in_flight.iter().map(|message| (message.text.as_str(), message.late)).collect();
        let operation = if self.operation.is_done() {
            // Whatever comes changes nothing about it.
            self.operation.state().as_str().to_owned()
        } else {
            format!("{:?}", (&self.operation, canon::deadlines(&self.operation), &self.epochs))
        };
        // Without a crash to come, nothing is read again.
        let stored = if self.faults > 0 && !self.operation.is_done() { self.stored.text.as_str() } else { "" };
        let bounds = (self.faults, self.cancels, self.forces, self.was_cancelled);
        let others = (&self.hooks, &self.hung, messages, bounds);
        canon::fingerprint(&format!("{operation}{stored}{others:?}"), self.now)
    }
}

/// What can happen.
impl World {
    /// Everything that can happen next.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = self.scheduler_actions();
        for index in self.distinct_messages() {
            let message = &self.in_flight[index];
            actions.push(Action::Deliver(index, Driver::Lives));
            if message.late {
                continue;
            }
            if self.may(Faults::Network) {
                actions.extend([Action::Double(index), Action::Delay(index), Action::Lose(index)]);
            }
            if self.may_die_acting() && matches!(message.sent, Sent::Answer(_)) {
                actions.push(Action::Deliver(index, Driver::Dies));
            }
        }
        for index in 0..self.hooks.len() {
            actions.extend(self.moves(index));
            if self.may(Faults::Time) && !self.hung[index] && self.is_busy(index) {
                actions.push(Action::Hang(index));
            }
        }
        actions
    }

    fn scheduler_actions(&self) -> Vec<Action> {
        let mut steps: Vec<fn(Driver) -> Action> = Vec::new();
        if self.operation.state() == StateName::Pending {
            steps.push(Action::Begin);
        }
        if self.cancels > 0 && self.operation.is_cancellable() {
            steps.push(Action::Cancel);
        }
        if self.forces > 0 && self.operation.state() == StateName::Degraded {
            steps.push(Action::Force);
        }
        if self.operation.next_deadline().is_some() && (self.is_calm() || self.may(Faults::Time)) {
            steps.push(Action::Deadline);
        }
        let mut actions: Vec<Action> = steps.iter().map(|step| step(Driver::Lives)).collect();
        if self.may(Faults::Crashes) && !self.operation.is_done() {
            actions.push(Action::Crash);
        }
        if self.may_die_acting() {
            actions
                .extend(steps.iter().map(|step| step(Driver::Dies)).filter(|action| self.cost(action) <= self.faults));
        }
        actions
    }

    /// Whether a fault of that kind may still happen.
    fn may(&self, kind: Faults) -> bool {
        self.faults > 0 && (self.kinds == kind || self.kinds == Faults::Any)
    }

    fn may_die_acting(&self) -> bool {
        self.flaw == Some(Flaw::ActsBeforeWriting) && self.may(Faults::Crashes)
    }

    /// How many faults it takes.
    fn cost(&self, action: &Action) -> u8 {
        match *action {
            Action::Begin(driver) | Action::Deliver(_, driver) | Action::Cancel(driver) | Action::Force(driver) => {
                u8::from(driver == Driver::Dies)
            }
            Action::Deadline(driver) => u8::from(driver == Driver::Dies) + u8::from(!self.is_calm()),
            Action::Move(..) => 0,
            Action::Double(_) | Action::Delay(_) | Action::Lose(_) | Action::Hang(_) | Action::Crash => 1,
        }
    }

    /// Nothing is on its way and nobody does anything, but for what may never come.
    fn is_calm(&self) -> bool {
        self.operation.state() != StateName::Pending
            && self.in_flight.iter().all(|message| message.late)
            && (0..self.hooks.len()).all(|index| self.moves(index).is_empty())
    }

    /// Whether nothing moves it on any more but a person, or what may never come.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_calm() && self.operation.next_deadline().is_none()
    }

    /// I4 in a world that is settled.
    pub(crate) fn check_rest(&self) -> Result<(), String> {
        check_rest(&self.operation)
    }

    /// Whether it happens without a fault and without a person.
    pub(crate) fn is_of_itself(&self, action: &Action) -> bool {
        self.cost(action) == 0 && !matches!(action, Action::Cancel(_) | Action::Force(_))
    }

    /// One of each; the list is sorted.
    fn distinct_messages(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.in_flight.len()).filter(|&index| index == 0 || self.in_flight[index - 1] != self.in_flight[index])
    }

    /// The phase of a shutdown that is under way.
    fn stopping(&self, index: usize) -> Option<StopPhase> {
        let (_, report) = self.hooks[index].latest()?;
        report.result.is_none().then_some(report.phase)
    }

    fn is_starting(&self, index: usize) -> bool {
        self.hooks[index].clone().tick().1.is_some()
    }

    fn is_busy(&self, index: usize) -> bool {
        self.hooks[index].alive && (self.stopping(index).is_some() || self.is_starting(index))
    }

    fn moves(&self, index: usize) -> Vec<Action> {
        let hangs = self.hung[index] && self.hooks[index].alive;
        let past = |phase: StopPhase| matches!(phase, StopPhase::Stopping | StopPhase::Killing);
        let stops = self.stopping(index).is_some_and(|phase| !(hangs && past(phase)));
        let mut moves = Vec::new();
        if stops {
            moves.push(Action::Move(index, None));
        }
        if self.is_starting(index) && !hangs {
            moves.extend([Action::Move(index, Some(true)), Action::Move(index, Some(false))]);
        }
        moves
    }
}

/// What follows.
impl World {
    /// The world after `action`; an error: what is broken in it.
    pub(crate) fn after(&self, action: &Action) -> Result<Self, String> {
        let mut world = self.clone();
        world.faults -= self.cost(action);
        world.happens(action)?;
        world.in_flight.sort();
        check_truth(&world.hooks)?;
        Ok(world)
    }

    fn happens(&mut self, action: &Action) -> Result<(), String> {
        match *action {
            Action::Begin(driver) => {
                let step = self.operation.handle(self.now, Input::Begin);
                self.take(step, driver)
            }
            Action::Deliver(index, driver) => {
                let message = self.in_flight.remove(index);
                self.arrives(&message, driver)
            }
            Action::Double(index) => {
                let message = Rc::clone(&self.in_flight[index]);
                self.in_flight[index] = Rc::new(message.as_late());
                self.arrives(&message, Driver::Lives)
            }
            Action::Delay(index) => {
                self.in_flight[index] = Rc::new(self.in_flight[index].as_late());
                Ok(())
            }
            Action::Lose(index) => {
                let message = self.in_flight.remove(index);
                self.lose(&message);
                Ok(())
            }
            Action::Move(index, comes_up) => {
                self.hooks[index].temper.comes_up = comes_up;
                let deaf = self.hung[index] || self.hooks[index].temper.claims;
                self.hooks[index].temper.ends_after = (!deaf).then_some(0);
                let (stop, start) = self.hooks[index].tick();
                // The choice is part of the action, not of the hook.
                self.hooks[index].temper.comes_up = None;
                let hook = &self.hooks[index];
                let stop = stop.filter(|(attempt, _)| hook.stop_stream == Some(*attempt));
                let start = start.filter(|(epoch, _)| hook.start_stream == Some(*epoch));
                let instance = hook.instance.clone();
                self.send(Message::reports(&instance, stop, start));
                Ok(())
            }
            Action::Hang(index) => {
                self.hung[index] = true;
                Ok(())
            }
            Action::Deadline(driver) => {
                self.now = self.operation.next_deadline().expect("offered only with a deadline").max(self.now);
                let step = self.operation.handle_deadline(self.now);
                if self.operation.next_deadline().is_some_and(|next| next <= self.now) {
                    return Err("a deadline that was handled is still due: a busy loop".to_owned());
                }
                self.take(step, driver)
            }
            Action::Crash => self.crash(),
            Action::Cancel(driver) => {
                self.cancels -= 1;
                self.was_cancelled = true;
                let step = self.operation.cancel(self.now, &caller()).map_err(|refusal| refusal.to_string())?;
                self.take(step, driver)
            }
            Action::Force(driver) => {
                self.forces -= 1;
                let by = caller();
                let step = self.operation.retry(self.now, &by, true, &PolicyOverrides::default());
                self.take(step.map_err(|refusal| refusal.to_string())?, driver)
            }
        }
    }

    /// The duty of the driver: to write, then to act. One that dies between acting and writing has acted only.
    fn take(&mut self, step: Step, driver: Driver) -> Result<(), String> {
        let dies = driver == Driver::Dies;
        if step.changed && !dies {
            self.stored = Written::of(&self.operation);
        }
        for effect in step.effects {
            check_effect(&effect, &self.operation, &self.hooks, &mut self.epochs)?;
            let member = self.operation.member(Message::addressee(&effect));
            let epoch = member.map_or(0, |member| member.epoch);
            self.in_flight.push(Rc::new(Message::call(Call { effect, epoch })));
        }
        check_operation(&self.operation, &self.hooks, self.was_cancelled)?;
        if dies {
            return self.crash();
        }
        if self.operation.is_done() {
            self.hang_up();
        }
        Ok(())
    }

    /// Nobody waits for an answer any longer. What is out may arrive all the same.
    fn hang_up(&mut self) {
        self.in_flight.retain(|message| message.late || matches!(message.sent, Sent::Call(_)));
        for message in self.in_flight.iter_mut().filter(|message| !message.late) {
            *message = Rc::new(message.as_late());
        }
        for hook in &mut self.hooks {
            (hook.stop_stream, hook.start_stream) = (None, None);
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.hang_up();
        let bytes = minicbor::to_vec(&self.stored.operation).expect("an operation can be written");
        let mut operation: Operation = minicbor::decode(&bytes).expect("what was written can be read");
        operation.validate().map_err(|error| error.to_string())?;
        let then = self.now;
        if self.flaw == Some(Flaw::ClockBeginsAnew) {
            self.now = ORIGIN;
        }
        let step = operation.recover(self.now);
        check_recovery((&self.stored.operation, then), (&operation, self.now))?;
        self.operation = operation;
        self.take(step, Driver::Lives)
    }

    fn arrives(&mut self, message: &Message, driver: Driver) -> Result<(), String> {
        match &message.sent {
            Sent::Answer(input) => {
                let input = Flaw::mishear(self.flaw, input.clone());
                let step = self.operation.handle(self.now, input);
                self.take(step, driver)
            }
            Sent::Call(call) => {
                let to = Message::addressee(&call.effect);
                let hook = self.hooks.iter_mut().find(|hook| hook.instance == *to).expect("only those are addressed");
                let streams = (hook.stop_stream, hook.start_stream);
                Flaw::before_call(self.flaw, hook, &call.effect);
                let answers = call.answers(hook);
                if message.late {
                    (hook.stop_stream, hook.start_stream) = streams;
                } else {
                    self.send(answers);
                }
                Ok(())
            }
        }
    }

    /// A stream keeps its order, and carries the latest report: an earlier one that has not arrived is overtaken, as if
    /// the hook had spoken more seldom. One that is late has left its stream.
    fn send(&mut self, answers: Vec<Rc<Message>>) {
        for answer in answers {
            self.in_flight.retain(|message| message.late || !answer.overtakes(message));
            self.in_flight.push(answer);
        }
    }

    fn lose(&mut self, message: &Message) {
        if let Sent::Answer(input) = &message.sent {
            for hook in &mut self.hooks {
                match input {
                    Input::StopReported { instance, .. } if *instance == hook.instance => hook.stop_stream = None,
                    Input::StartReported { instance, .. } if *instance == hook.instance => hook.start_stream = None,
                    _ => {}
                }
            }
        }
        self.in_flight.extend(message.lost(&error(CallErrorClass::Lost)).map(Rc::new));
    }
}

/// For the story.
impl World {
    pub(crate) fn describe(&self, action: &Action) -> String {
        let dies = |driver: Driver| if driver == Driver::Dies { ", and dies before it has written that" } else { "" };
        let message = |index: usize| &self.in_flight[index];
        let name = |index: usize| &self.hooks[index].instance;
        match *action {
            Action::Begin(driver) => format!("the scheduler begins{}", dies(driver)),
            Action::Deliver(index, driver) => format!("{} arrives{}", message(index), dies(driver)),
            Action::Double(index) => format!("{} arrives, and a copy is late", message(index)),
            Action::Delay(index) => format!("{} is late", message(index)),
            Action::Lose(index) => format!("{} is lost, which is noticed", message(index)),
            Action::Move(index, None) => format!("{} goes on", name(index)),
            Action::Move(index, Some(true)) => format!("{} comes up", name(index)),
            Action::Move(index, Some(false)) => format!("{} fails to come up", name(index)),
            Action::Hang(index) => format!("{} hangs", name(index)),
            Action::Deadline(driver) => format!("the next deadline comes{}", dies(driver)),
            Action::Crash => "the scheduler dies and comes back".to_owned(),
            Action::Cancel(driver) => format!("ann cancels{}", dies(driver)),
            Action::Force(driver) => format!("ann retries with force{}", dies(driver)),
        }
    }

    pub(crate) fn summary(&self) -> String {
        let alive: Vec<&str> = self.hooks.iter().filter(|hook| hook.alive).map(|hook| hook.instance.as_str()).collect();
        let time = self.now.since(ORIGIN);
        format!("{:?} {}, alive: {}", time, self.operation.state().as_str(), alive.join(" "))
    }
}
