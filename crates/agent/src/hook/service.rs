//! `ShutdownHook` over gRPC: checks requests, hands them to the owner, turns reports into messages.
//!
//! No rule of the protocol is decided here, except which instance this is.

use std::pin::Pin;
use std::time::UNIX_EPOCH;

use futures::stream::{self, Stream};
use prost_types::Timestamp;
use quiesce_protocol::v1::shutdown_hook_server::ShutdownHook;
use quiesce_protocol::v1::{self, HookInfo};
use quiesce_runtime::trace_context::TraceContext;
use tokio::sync::{oneshot, watch};
use tonic::{Request, Response, Status};

use super::engine::Command;
use super::order::{self, ShutdownOrder, StartCommand};
use super::refusal::Refusal;
use super::report::{Progress, StartProgress};
use super::{Hook, wire};
use crate::token::Token;

type Reports<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ShutdownHook for Hook {
    type ShutdownStream = Reports<v1::ShutdownResponse>;
    type StartApplicationStream = Reports<v1::StartApplicationResponse>;

    async fn get_hook_info(
        &self,
        _: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        let status = self.app.status().borrow().clone();
        let capabilities =
            wire::capabilities(self.app.capabilities(), self.options.drain.is_some(), self.options.durable);
        let info = HookInfo {
            instance: self.options.identity.instance_name(),
            implementation: self.options.implementation.to_owned(),
            implementation_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: "1.0".to_owned(),
            capabilities: capabilities.into_iter().map(i32::from).collect(),
            ready: Some(true),
            not_ready_reason: String::new(),
            app_state: wire::app_state(status.state).into(),
            app_start_time: status.start_time.and_then(|time| {
                let since = time.duration_since(UNIX_EPOCH).ok()?;
                Some(Timestamp::from(UNIX_EPOCH + since))
            }),
            epoch: i64::try_from(self.view.borrow().epoch.max(status.epoch)).unwrap_or(i64::MAX),
            app_message: status.said.unwrap_or_default(),
            cannot_start_reason: self.app.check_start().err().unwrap_or_default(),
        };
        Ok(Response::new(v1::GetHookInfoResponse { info: Some(info) }))
    }

    async fn check_shutdown(
        &self,
        request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        self.require(self.app.capabilities().check, "CAPABILITY_CHECK")?;
        let request = request.into_inner();
        let instance = request.instance.clone();
        order::check(request)?;
        self.own(&instance)?;
        let found = self.app.check().await;
        let expected_duration = None;
        Ok(Response::new(v1::CheckShutdownResponse { ok: found.ok, findings: found.findings, expected_duration }))
    }

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        let trace = traced(&request);
        let request = request.into_inner();
        // Of a repeated request nothing but the id counts (H1), so it is looked up before anything else is checked.
        if order::is_shutdown_id(&request.shutdown_id) {
            let (shutdown_id, token) = (request.shutdown_id.clone(), Token::new(request.completion_token.clone()));
            if let Some(reports) = self.ask(|reply| Command::Join { shutdown_id, token, reply }).await? {
                return Ok(Response::new(follow_shutdown(reports)));
            }
        }
        let instance = request.instance.clone();
        let order = Box::new(ShutdownOrder { trace, ..order::shutdown(request)? });
        self.own(&instance)?;
        let reports = self.ask(|reply| Command::Shutdown { order, reply }).await??;
        Ok(Response::new(follow_shutdown(reports)))
    }

    async fn get_shutdown(
        &self,
        request: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        let request = request.into_inner();
        order::get(&request)?;
        let shutdown_id = request.shutdown_id;
        let snapshot = self.ask(|reply| Command::Get { shutdown_id, reply }).await??;
        Ok(Response::new(v1::GetShutdownResponse { status: Some(wire::status(snapshot)) }))
    }

    async fn cancel_shutdown(
        &self,
        request: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        self.require(self.options.drain.is_some(), "CAPABILITY_CANCEL")?;
        let request = request.into_inner();
        order::cancel(&request)?;
        let v1::CancelShutdownRequest { shutdown_id, reason } = request;
        let snapshot = self.ask(|reply| Command::Cancel { shutdown_id, reason, reply }).await??;
        Ok(Response::new(v1::CancelShutdownResponse { status: Some(wire::status(snapshot)) }))
    }

    async fn update_deadline(
        &self,
        request: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        let request = request.into_inner();
        let grace = order::grace(&request)?;
        let v1::UpdateDeadlineRequest { shutdown_id, granted, .. } = request;
        self.ask(|reply| Command::UpdateDeadline { shutdown_id, grace, granted, reply }).await??;
        Ok(Response::new(v1::UpdateDeadlineResponse {}))
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        self.require(self.app.capabilities().kill, "CAPABILITY_KILL")?;
        let request = request.into_inner();
        order::kill(&request)?;
        let v1::KillApplicationRequest { shutdown_id, completion_token: token, reason } = request;
        let snapshot = self.ask(|reply| Command::Kill { shutdown_id, token, reason, reply }).await??;
        Ok(Response::new(v1::KillApplicationResponse { status: Some(wire::status(snapshot)) }))
    }

    async fn start_application(
        &self,
        request: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        self.require(self.app.capabilities().start, "CAPABILITY_START")?;
        let trace = traced(&request);
        let request = request.into_inner();
        let instance = request.instance.clone();
        let command = StartCommand { trace, ..order::start(request)? };
        self.own(&instance)?;
        let reports = self.ask(|reply| Command::Start { command, reply }).await??;
        Ok(Response::new(follow_start(reports)))
    }

    async fn conclude_shutdown(
        &self,
        request: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        self.require(self.app.capabilities().hold, "CAPABILITY_CONCLUDE")?;
        let request = request.into_inner();
        let (disposition, epoch) = order::conclude(&request)?;
        self.own(&request.instance)?;
        let operation = request.operation;
        self.ask(|reply| Command::Conclude { operation, epoch, disposition, reply }).await??;
        Ok(Response::new(v1::ConcludeShutdownResponse {}))
    }
}

impl Hook {
    /// H13: a name that is not ours is refused; no name is taken for ours.
    fn own(&self, instance: &str) -> Result<(), Refusal> {
        let own = self.options.identity.instance_name();
        if instance.is_empty() || instance == own {
            return Ok(());
        }
        if !crate::identity::is_instance_name(instance) {
            return Err(Refusal::field("instance", "must be applications/{application}/instances/{instance}"));
        }
        Err(Refusal::WrongInstance { asked: instance.to_owned(), own })
    }

    fn require(&self, offered: bool, capability: &'static str) -> Result<(), Refusal> {
        if offered { Ok(()) } else { Err(Refusal::NotImplemented { capability }) }
    }

    /// Asks the owner. That it is gone, or has let go of the question, means that the program ends.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Refusal> {
        let ending = || Refusal::NotServing { reason: "the agent is ending".to_owned() };
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }
}

/// Where a call stands in a trace, if its caller says so.
fn traced<T>(request: &Request<T>) -> Option<TraceContext> {
    TraceContext::read(|name| request.metadata().get(name)?.to_str().ok())
}

/// What one value of the watch means for a stream.
enum Item<T> {
    Skip,
    More(T),
    Last(Result<T, Status>),
}

fn follow_shutdown(reports: watch::Receiver<Progress>) -> Reports<v1::ShutdownResponse> {
    let response = |snapshot| v1::ShutdownResponse { status: Some(wire::status(snapshot)) };
    Box::pin(follow(reports, move |progress| match progress {
        Progress::Unsaid => Item::Skip,
        Progress::Live(report) => Item::More(response((report, None))),
        Progress::Final(report, token) => Item::Last(Ok(response((report, token)))),
        Progress::Refused(refusal) => Item::Last(Err(refusal.into())),
    }))
}

fn follow_start(reports: watch::Receiver<StartProgress>) -> Reports<v1::StartApplicationResponse> {
    Box::pin(follow(reports, |progress| match progress {
        StartProgress::Report(report) => {
            let last = report.verdict.is_some();
            let response = v1::StartApplicationResponse { status: Some(wire::start_status(report)) };
            if last { Item::Last(Ok(response)) } else { Item::More(response) }
        }
        StartProgress::Refused(refusal) => Item::Last(Err(refusal.into())),
    }))
}

/// The present value at once, then every later one that the reader is quick enough for, then the end. What the
/// connection cannot take is not queued: the next read gets the then latest report.
fn follow<V, T>(mut values: watch::Receiver<V>, to_item: impl Fn(V) -> Item<T>) -> impl Stream<Item = Result<T, Status>>
where
    V: Clone,
{
    values.mark_changed();
    stream::unfold(Some((values, to_item)), |state| async move {
        let (mut values, to_item) = state?;
        loop {
            if values.changed().await.is_err() {
                let refusal = Refusal::NotServing { reason: "the agent is ending".to_owned() };
                return Some((Err(refusal.into()), None));
            }
            let value = values.borrow_and_update().clone();
            match to_item(value) {
                Item::Skip => {}
                Item::More(item) => return Some((Ok(item), Some((values, to_item)))),
                Item::Last(item) => return Some((item, None)),
            }
        }
    })
}
