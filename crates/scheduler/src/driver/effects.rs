//! Performs what the machine wants done, once it is durable: calls of hooks, each in a task of its own, each answered
//! by an input.
//!
//! For each instance there is at most one call of a kind; a newer one takes the place of an older. When the operation
//! is over all of them are dropped. A call that is dropped ends nothing at the hook (rule H9).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quiesce_operation::member::{Member, Run};
use quiesce_operation::report::{CallError, CallErrorClass};
use quiesce_operation::{Disposition, Effect, Input, InstanceId, Operation};
use quiesce_protocol::v1;
use quiesce_runtime::tasks::Task;
use quiesce_runtime::trace_context::TraceContext;
use tonic::Streaming;
use tracing::debug;

use super::Context;
use super::relay::{Ended, Outlet, relay};
use super::request;
use crate::hooks::Hook;
use crate::hooks::call::Client;
use crate::hooks::report::{read_start, read_stop, without_secret};
use crate::secrets::CompletionToken;

/// The calls of one operation.
pub(super) struct Effects {
    context: Arc<Context>,
    outlet: Outlet,
    ongoing: BTreeMap<(InstanceId, Kind), Ongoing>,
}

/// Of each kind an instance has one call at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Probe,
    Stop,
    UpdateDeadline,
    Kill,
    Cancel,
    Start,
    Conclude,
}

struct Ongoing {
    fence: u64,
    task: Task<()>,
}

/// How long the parts of a call may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Until an agent that is not there has dialled in. Short enough that the machine hears of its absence before its
    /// own timer judges.
    connect: Duration,
    /// Until the answer. The machine's timer runs out first and gives the failure its name; this one ends the call.
    answer: Duration,
}

impl Limits {
    fn of(operation: &Operation) -> Self {
        let accept = operation.policy().accept_timeout;
        Self { connect: accept / 2, answer: accept * 2 }
    }
}

type Reached = Result<Arc<Hook>, CallError>;

impl Effects {
    pub(super) fn new(context: Arc<Context>, outlet: Outlet) -> Self {
        Self { context, outlet, ongoing: BTreeMap::new() }
    }

    /// Begins to do what `effect` says, for `operation` as it was made durable.
    pub(super) fn perform(&mut self, operation: &Operation, effect: Effect) {
        match effect {
            Effect::Probe { instance, serial, check } => self.probe(operation, instance, serial, check),
            Effect::Shutdown { instance, attempt, anew } => self.shutdown(operation, instance, attempt, anew),
            Effect::UpdateDeadline { instance, attempt, grace, granted } => {
                self.update_deadline(operation, instance, attempt, grace, granted);
            }
            Effect::Kill { instance, attempt } => self.kill(operation, instance, attempt),
            Effect::CancelShutdown { instance, attempt } => self.cancel(operation, instance, attempt),
            Effect::Start { instance, epoch, rollback: _ } => self.start(operation, instance, epoch),
            Effect::Conclude { instance, epoch, disposition } => {
                self.conclude(operation, instance, epoch, disposition);
            }
        }
    }

    fn probe(&mut self, operation: &Operation, instance: InstanceId, serial: u32, check: bool) {
        let (hook, limits, outlet) = self.line(operation, &instance);
        let parameters = operation.policy().parameters.clone();
        let name = instance.clone();
        self.spawn(operation, Kind::Probe, instance, serial.into(), async move {
            let answer = async {
                let hook = hook?;
                hook.client(limits.connect).await?;
                hook.probe(check, parameters, limits.answer).await
            };
            outlet.answer(Input::Probed { answer: answer.await, instance: name, serial }).await;
        });
    }

    fn shutdown(&mut self, operation: &Operation, instance: InstanceId, attempt: u32, anew: bool) {
        let Some(member) = operation.member(&instance) else { return };
        let fence = u64::from(attempt);
        let open = self
            .ongoing
            .get(&(instance.clone(), Kind::Stop))
            .is_some_and(|ongoing| ongoing.fence == fence && !ongoing.task.is_finished());
        if open && !anew {
            return;
        }
        let id = request::shutdown_id(operation, &instance, attempt);
        let token = self.context.secrets.completion_token(&id, operation.request().time);
        let stop = Stop {
            request: request::shutdown(operation, member, &id, &token, &*self.context.clock),
            token: token.clone(),
            ask_first: must_ask_first(member),
            // A stream that is given up while it is open was silent: perhaps its connection is dead.
            redial: open,
            trace: self.context.traces.of_shutdown(operation, &instance, attempt),
            instance: instance.clone(),
            attempt,
        };
        let (hook, limits, outlet) = self.line(operation, &instance);
        let name = instance.clone();
        self.spawn(operation, Kind::Stop, instance, fence, async move {
            if let Err(Ended::Call(error)) = stop.run(hook, limits, &outlet).await {
                let error = without_secret(error, &token);
                outlet.answer(Input::StopCallEnded { instance: name, attempt, error }).await;
            }
        });
    }

    fn update_deadline(
        &mut self,
        operation: &Operation,
        instance: InstanceId,
        attempt: u32,
        grace: Duration,
        granted: bool,
    ) {
        let Some(member) = operation.member(&instance).filter(|member| member.capabilities.update_deadline) else {
            return;
        };
        let id = request::shutdown_id(operation, &instance, attempt);
        let request = request::update_deadline(member, &id, grace, granted, &*self.context.clock);
        let (hook, limits, _outlet) = self.line(operation, &instance);
        self.spawn(operation, Kind::UpdateDeadline, instance, attempt.into(), async move {
            let told = async { reach(hook, limits).await?.update_deadline(request, limits.answer).await };
            // The timer is ours; what the hook does not hear, it only cannot show.
            if let Err(error) = told.await {
                debug!(error = error.message, "hook was not told its new deadline");
            }
        });
    }

    fn kill(&mut self, operation: &Operation, instance: InstanceId, attempt: u32) {
        let id = request::shutdown_id(operation, &instance, attempt);
        let token = self.context.secrets.completion_token(&id, operation.request().time);
        let request = request::kill(operation, &id, &token);
        let (hook, limits, outlet) = self.line(operation, &instance);
        let name = instance.clone();
        self.spawn(operation, Kind::Kill, instance, attempt.into(), async move {
            let answer = async { reach(hook, limits).await?.kill(request, limits.answer).await };
            outlet
                .answer(Input::KillAnswered {
                    answer: answer.await.map_err(|error| without_secret(error, &token)),
                    instance: name,
                    attempt,
                })
                .await;
        });
    }

    fn cancel(&mut self, operation: &Operation, instance: InstanceId, attempt: u32) {
        let id = request::shutdown_id(operation, &instance, attempt);
        let request = request::cancel(operation, &id);
        let (hook, limits, outlet) = self.line(operation, &instance);
        let name = instance.clone();
        self.spawn(operation, Kind::Cancel, instance, attempt.into(), async move {
            let answer = async { reach(hook, limits).await?.cancel(request, limits.answer).await };
            outlet.answer(Input::CancelAnswered { answer: answer.await, instance: name, attempt }).await;
        });
    }

    fn start(&mut self, operation: &Operation, instance: InstanceId, epoch: u64) {
        let Some(start) = operation.start(&instance, epoch) else { return };
        let request = request::start(operation, start);
        let trace = self.context.traces.of_start(operation, &instance, epoch);
        let (hook, limits, outlet) = self.line(operation, &instance);
        let name = instance.clone();
        self.spawn(operation, Kind::Start, instance, epoch, async move {
            if let Err(Ended::Call(error)) = run_start(request, trace, hook, limits, &name, epoch, &outlet).await {
                outlet.answer(Input::StartCallEnded { instance: name, epoch, error }).await;
            }
        });
    }

    fn conclude(&mut self, operation: &Operation, instance: InstanceId, epoch: u64, disposition: Disposition) {
        let request = request::conclude(operation, &instance, epoch, disposition);
        let (hook, limits, outlet) = self.line(operation, &instance);
        let name = instance.clone();
        self.spawn(operation, Kind::Conclude, instance, epoch, async move {
            let answer = async { reach(hook, limits).await?.conclude(request, limits.answer).await };
            outlet.answer(Input::Concluded { answer: answer.await, instance: name }).await;
        });
    }

    /// What every call needs.
    fn line(&self, operation: &Operation, instance: &InstanceId) -> (Reached, Limits, Outlet) {
        let hook = self.context.hooks.expect(&operation.request().application, instance);
        (hook, Limits::of(operation), self.outlet.clone())
    }

    fn spawn(
        &mut self,
        operation: &Operation,
        kind: Kind,
        instance: InstanceId,
        fence: u64,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let label = format!("{kind:?} {}/{instance} for {}", operation.request().application, operation.id());
        let slot = (instance, kind);
        if let Some(older) = self.ongoing.remove(&slot) {
            older.task.abort();
        }
        let task = self.context.tasks.spawn(label, Box::pin(work));
        self.ongoing.insert(slot, Ongoing { fence, task });
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        for ongoing in self.ongoing.values() {
            ongoing.task.abort();
        }
    }
}

async fn reach(hook: Reached, limits: Limits) -> Result<Client, CallError> {
    hook?.client(limits.connect).await
}

/// Whether a hook must be asked for a shutdown before it is joined. A hook that has accepted it and then forgotten it
/// (a restarted agent without a journal) would take the call for a new one and tell the application to stop twice. A
/// hook with a journal does not forget; and once it is to be killed, twice is not worse than once.
fn must_ask_first(member: &Member) -> bool {
    let killing = matches!(member.run, Run::Running { kill: Some(_), .. });
    member.has_open_shutdown() && member.capabilities.status && !member.capabilities.durable && !killing
}

/// One call of Shutdown.
struct Stop {
    request: v1::ShutdownRequest,
    token: CompletionToken,
    ask_first: bool,
    redial: bool,
    trace: Option<TraceContext>,
    instance: InstanceId,
    attempt: u32,
}

impl Stop {
    async fn run(self, hook: Reached, limits: Limits, outlet: &Outlet) -> Result<(), Ended> {
        let hook = hook.map_err(Ended::Call)?;
        // On the heap for as long as it takes: the stream that follows may go on for hours.
        let stream = Box::pin(self.open(&hook, limits)).await.map_err(Ended::Call)?;
        let Self { request: v1::ShutdownRequest { shutdown_id, .. }, instance, attempt, token, .. } = self;
        let read = |message| read_stop(message, &shutdown_id, &token);
        let input = |report| Input::StopReported { instance: instance.clone(), attempt, report };
        relay(&hook, stream, outlet, read, input).await
    }

    async fn open(&self, hook: &Hook, limits: Limits) -> Result<Streaming<v1::ShutdownResponse>, CallError> {
        if self.redial {
            hook.redial();
        }
        let mut client = hook.client(limits.connect).await?.traced(self.trace.as_ref());
        if self.ask_first {
            let request = v1::GetShutdownRequest { shutdown_id: self.request.shutdown_id.clone() };
            match client.status(request, limits.answer).await {
                Err(error) if error.class != CallErrorClass::Unimplemented => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        client.shutdown(self.request.clone(), limits.answer).await
    }
}

async fn run_start(
    request: v1::StartApplicationRequest,
    trace: Option<TraceContext>,
    hook: Reached,
    limits: Limits,
    instance: &InstanceId,
    epoch: u64,
    outlet: &Outlet,
) -> Result<(), Ended> {
    let hook = hook.map_err(Ended::Call)?;
    let wanted = request.epoch;
    let stream = Box::pin(async {
        let client = hook.client(limits.connect).await?;
        client.traced(trace.as_ref()).start(request, limits.answer).await
    });
    let stream = stream.await.map_err(Ended::Call)?;
    let read = |message| read_start(message, wanted);
    let input = |report| Input::StartReported { instance: instance.clone(), epoch, report };
    relay(&hook, stream, outlet, read, input).await
}
