//! A hook that does what the test says: a real gRPC server on a port of its own, and a record of everything it was told.
//!
//! A script is a list of acts for each shutdown id. The acts of one id are played once, over as many calls as it takes:
//! a call that fails goes on with the next act when it is repeated, and after the result the result is repeated (rule
//! H1). Waiting acts send heartbeats as rule H3 asks, [`Act::Hang`] does not.

mod chronicle;
mod line;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::shutdown_hook_server::{ShutdownHook, ShutdownHookServer};
use quiesce_protocol::v1::stop_result::Outcome;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

pub use chronicle::{Chronicle, Entry, Turn};

/// One thing a shutdown does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Reports a phase.
    Report(v1::ShutdownPhase),
    /// Wants so much time in all.
    Wish(Duration),
    /// Ends with a result and the right token.
    Result(Outcome, v1::Evidence),
    /// Ends with a result that is not clean.
    Unclean,
    /// Ends with a result that would be good, but for its token.
    ResultWithToken(String),
    /// Sends this report as it is, whatever it says.
    Raw(Box<v1::ShutdownStatus>),
    /// Sends a report whose message has so many bytes.
    Huge(usize),
    /// The call ends with an error.
    Fail(Code, &'static str),
    /// The call ends with OK.
    End,
    /// Says nothing for ever.
    Hang,
    /// Goes on when the test says so.
    UntilReleased,
    /// Goes on when it was told to kill.
    UntilKilled,
    /// Goes on when the shutdown was taken back.
    UntilCancelled,
    /// Sends reports of the same phase as fast as it can, so many.
    Flood(u32),
    /// The same, with something new in each.
    Chatter(u32),
}

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Comes up.
    Ready,
    /// Does not come up.
    Failed,
    /// Says nothing after the first report.
    Hang,
}

/// What a hook is told to do.
#[derive(Debug, Clone)]
pub struct Script {
    /// Answer to GetHookInfo.
    pub info: v1::HookInfo,
    /// Error of GetHookInfo instead.
    pub info_error: Option<Code>,
    /// Whether GetHookInfo never answers.
    pub mute: bool,
    /// Answer to CheckShutdown: findings that speak against it.
    pub findings: Vec<String>,
    /// Acts of the first shutdown id, of the second, ...; the last list is for all further ones.
    pub shutdowns: Vec<Vec<Act>>,
    /// Error of KillApplication.
    pub kill_error: Option<(Code, &'static str)>,
    /// Error of CancelShutdown.
    pub cancel_error: Option<(Code, &'static str)>,
    /// How starts go.
    pub start: Start,
}

/// Every capability there is.
pub const ALL_CAPABILITIES: [v1::Capability; 10] = [
    v1::Capability::Check,
    v1::Capability::Status,
    v1::Capability::Cancel,
    v1::Capability::UpdateDeadline,
    v1::Capability::Kill,
    v1::Capability::Settle,
    v1::Capability::Durable,
    v1::Capability::Start,
    v1::Capability::Hold,
    v1::Capability::Conclude,
];

impl Default for Script {
    /// A hook that can do everything, with an application that runs and stops at once.
    fn default() -> Self {
        Self {
            info: v1::HookInfo {
                capabilities: ALL_CAPABILITIES.into_iter().map(Into::into).collect(),
                app_state: v1::hook_info::AppState::Running.into(),
                ..v1::HookInfo::default()
            },
            info_error: None,
            mute: false,
            findings: Vec::new(),
            shutdowns: vec![stops()],
            kill_error: None,
            cancel_error: None,
            start: Start::Ready,
        }
    }
}

impl Script {
    /// The default with these acts for the shutdown ids.
    pub fn of(shutdowns: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Self { shutdowns: shutdowns.into_iter().collect(), ..Self::default() }
    }
}

/// Accepts, stops, has stopped.
pub fn stops() -> Vec<Act> {
    vec![
        Act::Report(v1::ShutdownPhase::Accepted),
        Act::Report(v1::ShutdownPhase::Stopping),
        Act::Result(Outcome::Stopped, v1::Evidence::GroupEmpty),
    ]
}

/// One call the hook has received.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// GetHookInfo, with the `authorization` that came with it.
    GetHookInfo(Option<String>),
    /// CheckShutdown.
    CheckShutdown(v1::CheckShutdownRequest),
    /// Shutdown.
    Shutdown(v1::ShutdownRequest),
    /// GetShutdown.
    GetShutdown(v1::GetShutdownRequest),
    /// CancelShutdown.
    CancelShutdown(v1::CancelShutdownRequest),
    /// UpdateDeadline.
    UpdateDeadline(v1::UpdateDeadlineRequest),
    /// KillApplication.
    KillApplication(v1::KillApplicationRequest),
    /// StartApplication.
    StartApplication(v1::StartApplicationRequest),
    /// ConcludeShutdown.
    ConcludeShutdown(v1::ConcludeShutdownRequest),
}

/// A scripted hook. Clones are the same hook. It serves until the test ends.
#[derive(Clone)]
pub struct ScriptedHook {
    state: watch::Sender<State>,
    chronicle: Option<(Chronicle, Arc<str>)>,
}

struct State {
    script: Script,
    calls: Vec<Call>,
    runs: BTreeMap<String, Run>,
    released: bool,
    killed: bool,
    cancelled: bool,
}

#[derive(Clone)]
struct Run {
    request: v1::ShutdownRequest,
    acts: VecDeque<Act>,
    /// How many acts are over.
    played: usize,
    status: v1::ShutdownStatus,
    last: Option<v1::ShutdownStatus>,
}

impl Run {
    /// The act of that number is over. Two calls may play the same one, the first of them left by its caller.
    fn over(&mut self, number: usize) {
        if self.played == number {
            self.acts.pop_front();
            self.played += 1;
        }
    }
}

/// A hook that listens; it stops listening when this is dropped.
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    server: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl ScriptedHook {
    /// A hook that nobody can reach yet.
    pub fn new(script: Script) -> Self {
        let state = State {
            script,
            calls: Vec::new(),
            runs: BTreeMap::new(),
            released: false,
            killed: false,
            cancelled: false,
        };
        Self { state: watch::Sender::new(state), chronicle: None }
    }

    /// The same hook, which from now on also writes into `chronicle` what becomes of `instance`.
    #[must_use]
    pub fn writing(mut self, chronicle: &Chronicle, instance: &str) -> Self {
        self.chronicle = Some((chronicle.clone(), instance.into()));
        self
    }

    /// Serves on a port of its own.
    pub async fn listen(&self) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let serve = tonic::transport::Server::builder()
            .add_service(ShutdownHookServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serve.await.expect("the listener stays") }).abort_handle();
        Listening { address, server }
    }

    /// Serves on this one connection, as an agent does that has dialled in.
    pub fn serve(&self, socket: TcpStream) -> AbortHandle {
        let once = tokio_stream::once(Ok::<_, std::io::Error>(socket)).chain(tokio_stream::pending());
        let serve = tonic::transport::Server::builder()
            .add_service(ShutdownHookServer::new(self.clone()))
            .serve_with_incoming(once);
        tokio::spawn(async move { serve.await.expect("one connection is no trouble") }).abort_handle()
    }

    /// The same, until the connection is gone.
    pub async fn serve_until_gone(&self, socket: TcpStream) {
        let (line, gone) = line::Line::new(socket);
        let once = tokio_stream::once(Ok::<_, std::io::Error>(line)).chain(tokio_stream::pending());
        let serve = tonic::transport::Server::builder()
            .add_service(ShutdownHookServer::new(self.clone()))
            .serve_with_incoming(once);
        tokio::select! {
            served = serve => served.expect("one connection is no trouble"),
            // Nothing is ever sent: it ends with the connection.
            _gone = gone => {}
        }
    }

    /// Changes the script.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        self.state.send_modify(|state| change(&mut state.script));
    }

    /// Lets [`Act::UntilReleased`] go on, now and ever after.
    pub fn release(&self) {
        self.state.send_modify(|state| state.released = true);
    }

    /// From now on the hook says that its application is down and held.
    pub fn end_application(&self) {
        self.change(|script| script.info.app_state = v1::hook_info::AppState::Held.into());
    }

    /// Everything it was told so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state.borrow().calls.clone()
    }

    /// Every Shutdown request so far.
    pub fn shutdowns(&self) -> Vec<v1::ShutdownRequest> {
        let pick = |call| if let Call::Shutdown(request) = call { Some(request) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    /// Resolves when the calls so far fulfil `reached`.
    pub async fn told(&self, reached: impl Fn(&[Call]) -> bool) {
        let mut state = self.state.subscribe();
        let seen = timeout(Duration::from_secs(30), state.wait_for(|state| reached(&state.calls))).await;
        assert!(seen.is_ok(), "waited 30s for calls; seen: {:?}", self.calls());
    }

    fn write(&self, turn: Turn) {
        if let Some((chronicle, instance)) = &self.chronicle {
            chronicle.write(instance, turn);
        }
    }

    fn note(&self, call: Call) {
        self.state.send_modify(|state| state.calls.push(call));
    }

    /// The run of this id, begun if it is new.
    fn run(&self, request: &v1::ShutdownRequest) {
        self.state.send_modify(|state| {
            let number = state.runs.len();
            let script = state.script.shutdowns.get(number).or(state.script.shutdowns.last());
            let acts = script.cloned().unwrap_or_default().into();
            let status =
                v1::ShutdownStatus { shutdown_id: request.shutdown_id.clone(), phase: 1, ..Default::default() };
            let run = Run { request: request.clone(), acts, played: 0, status, last: None };
            state.runs.entry(request.shutdown_id.clone()).or_insert(run);
        });
    }

    fn edit<T>(&self, id: &str, edit: impl FnOnce(&mut Run) -> T) -> T {
        let mut outcome = None;
        self.state.send_modify(|state| outcome = Some(edit(state.runs.get_mut(id).expect("the run has begun"))));
        outcome.expect("edited just now")
    }

    /// The next report, as `shape` has it.
    fn report(&self, id: &str, shape: impl FnOnce(&mut v1::ShutdownStatus)) -> v1::ShutdownStatus {
        self.edit(id, |run| {
            run.status.sequence += 1;
            shape(&mut run.status);
            run.status.clone()
        })
    }

    fn finish(&self, id: &str, outcome: Outcome, evidence: v1::Evidence, clean: bool) -> v1::ShutdownStatus {
        if let Some(last) = self.edit(id, |run| run.last.clone()) {
            return last;
        }
        if matches!(outcome, Outcome::Stopped | Outcome::Killed | Outcome::NotRunning) {
            self.end_application();
            self.write(Turn::Ended);
        }
        let token = self.edit(id, |run| run.request.completion_token.clone());
        let report = self.report(id, |status| {
            status.phase = match outcome {
                Outcome::Stopped | Outcome::Killed | Outcome::NotRunning => v1::ShutdownPhase::Stopped,
                Outcome::Cancelled => v1::ShutdownPhase::Cancelled,
                _ => v1::ShutdownPhase::Failed,
            }
            .into();
            status.completion_token = token;
            status.result = Some(v1::StopResult {
                outcome: outcome.into(),
                evidence: evidence.into(),
                clean: Some(clean),
                held: true,
                ..Default::default()
            });
        });
        self.edit(id, |run| run.last = Some(report.clone()));
        report
    }

    /// Waits, with heartbeats.
    async fn until(&self, id: &str, out: &Out, reached: impl Fn(&State) -> bool) -> Result<(), Gone> {
        let interval = self.edit(id, |run| run.request.heartbeat_interval);
        let interval =
            interval.and_then(|interval| Duration::try_from(interval).ok()).unwrap_or(Duration::from_secs(5));
        let mut state = self.state.subscribe();
        while timeout(interval / 2, state.wait_for(&reached)).await.is_err() {
            let report = self.report(id, |_same| {});
            say(out, report).await?;
        }
        Ok(())
    }

    async fn play(&self, id: &str, out: &Out) -> Result<(), Gone> {
        loop {
            if let Some(last) = self.edit(id, |run| run.last.clone()) {
                return say(out, last).await;
            }
            let next = self.edit(id, |run| run.acts.front().cloned().map(|act| (run.played, act)));
            let Some((number, act)) = next else { return Ok(()) };
            match act {
                Act::Report(phase) => {
                    let report = self.report(id, |status| status.phase = phase.into());
                    say(out, report).await?;
                }
                Act::Wish(wanted) => {
                    let wanted = prost_types::Duration::try_from(wanted).ok();
                    let report = self.report(id, |status| status.wanted_grace_period = wanted);
                    say(out, report).await?;
                }
                Act::Result(outcome, evidence) => return say(out, self.finish(id, outcome, evidence, true)).await,
                Act::Unclean => {
                    return say(out, self.finish(id, Outcome::Stopped, v1::Evidence::GroupEmpty, false)).await;
                }
                Act::ResultWithToken(token) => {
                    let mut report = self.report(id, |status| status.phase = v1::ShutdownPhase::Stopped.into());
                    report.completion_token = token;
                    report.result = Some(v1::StopResult {
                        outcome: Outcome::Stopped.into(),
                        evidence: v1::Evidence::GroupEmpty.into(),
                        ..Default::default()
                    });
                    say(out, report).await?;
                }
                Act::Raw(status) => say(out, *status).await?,
                Act::Huge(bytes) => {
                    let report = self.report(id, |_same| {});
                    say(out, v1::ShutdownStatus { message: "x".repeat(bytes), ..report }).await?;
                }
                Act::Fail(code, reason) => {
                    self.edit(id, |run| run.over(number));
                    return out.send(Err(error(code, reason))).await.map_err(|_gone| Gone);
                }
                Act::End => {
                    self.edit(id, |run| run.over(number));
                    return Ok(());
                }
                Act::Hang => {
                    out.closed().await;
                    self.edit(id, |run| run.over(number));
                    return Err(Gone);
                }
                Act::UntilReleased => self.until(id, out, |state| state.released).await?,
                Act::UntilKilled => self.until(id, out, |state| state.killed).await?,
                Act::UntilCancelled => self.until(id, out, |state| state.cancelled).await?,
                Act::Flood(count) => {
                    for _ in 0..count {
                        let report = self.report(id, |_same| {});
                        say(out, report).await?;
                    }
                }
                Act::Chatter(count) => {
                    for number in 0..count {
                        let report = self.report(id, |status| status.message = format!("thought number {number}"));
                        say(out, report).await?;
                    }
                }
            }
            self.edit(id, |run| run.over(number));
        }
    }
}

type Out = mpsc::Sender<Result<v1::ShutdownResponse, Status>>;

/// Nobody listens to the stream any more.
struct Gone;

async fn say(out: &Out, status: v1::ShutdownStatus) -> Result<(), Gone> {
    out.send(Ok(v1::ShutdownResponse { status: Some(status) })).await.map_err(|_gone| Gone)
}

fn error(code: Code, reason: &str) -> Status {
    if reason.is_empty() {
        return Status::new(code, "as scripted");
    }
    let metadata = std::collections::HashMap::<String, String>::new();
    let details = ErrorDetails::with_error_info(reason, quiesce_protocol::ERROR_DOMAIN, metadata);
    Status::with_error_details(code, "as scripted", details)
}

type Reports<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ShutdownHook for ScriptedHook {
    async fn get_hook_info(
        &self,
        request: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.note(Call::GetHookInfo(bearer.map(str::to_owned)));
        let script = self.state.borrow().script.clone();
        if script.mute {
            std::future::pending::<()>().await;
        }
        match script.info_error {
            Some(code) => Err(error(code, "")),
            None => Ok(Response::new(v1::GetHookInfoResponse { info: Some(script.info) })),
        }
    }

    async fn check_shutdown(
        &self,
        request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        self.note(Call::CheckShutdown(request.into_inner()));
        let findings = self.state.borrow().script.findings.clone();
        Ok(Response::new(v1::CheckShutdownResponse { ok: findings.is_empty(), findings, expected_duration: None }))
    }

    type ShutdownStream = Reports<v1::ShutdownResponse>;

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        let request = request.into_inner();
        self.note(Call::Shutdown(request.clone()));
        self.write(Turn::Told { shutdown_id: request.shutdown_id.clone() });
        self.run(&request);
        let first = self.edit(&request.shutdown_id, |run| match run.acts.front().cloned() {
            Some(Act::Fail(code, reason)) => {
                run.over(run.played);
                Some(error(code, reason))
            }
            _ => None,
        });
        if let Some(status) = first {
            return Err(status);
        }
        let (out, reports) = mpsc::channel(16);
        let hook = self.clone();
        tokio::spawn(async move {
            // Whether anybody listened to the end is theirs to know.
            let _gone = hook.play(&request.shutdown_id, &out).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(reports))))
    }

    async fn get_shutdown(
        &self,
        request: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        let request = request.into_inner();
        self.note(Call::GetShutdown(request.clone()));
        match self.state.borrow().runs.get(&request.shutdown_id) {
            Some(run) => Ok(Response::new(v1::GetShutdownResponse { status: Some(run.status.clone()) })),
            None => Err(error(Code::NotFound, "SHUTDOWN_NOT_FOUND")),
        }
    }

    async fn cancel_shutdown(
        &self,
        request: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        self.note(Call::CancelShutdown(request.into_inner()));
        if let Some((code, reason)) = self.state.borrow().script.cancel_error {
            return Err(error(code, reason));
        }
        self.state.send_modify(|state| state.cancelled = true);
        Ok(Response::new(v1::CancelShutdownResponse::default()))
    }

    async fn update_deadline(
        &self,
        request: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        self.note(Call::UpdateDeadline(request.into_inner()));
        Ok(Response::new(v1::UpdateDeadlineResponse {}))
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        self.note(Call::KillApplication(request.into_inner()));
        if let Some((code, reason)) = self.state.borrow().script.kill_error {
            return Err(error(code, reason));
        }
        self.state.send_modify(|state| state.killed = true);
        Ok(Response::new(v1::KillApplicationResponse::default()))
    }

    type StartApplicationStream = Reports<v1::StartApplicationResponse>;

    async fn start_application(
        &self,
        request: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        let request = request.into_inner();
        self.note(Call::StartApplication(request.clone()));
        self.write(Turn::Ordered);
        let start = self.state.borrow().script.start;
        let accepted = v1::StartStatus { epoch: request.epoch, sequence: 1, phase: 1, ..Default::default() };
        let (outcome, phase) = match start {
            Start::Ready => (v1::start_result::Outcome::Ready, v1::StartPhase::Ready),
            Start::Failed | Start::Hang => (v1::start_result::Outcome::Failed, v1::StartPhase::Failed),
        };
        let result = v1::StartResult { outcome: outcome.into(), ..Default::default() };
        let over = v1::StartStatus { sequence: 2, phase: phase.into(), result: Some(result), ..accepted.clone() };
        let answer = |status| Ok(v1::StartApplicationResponse { status: Some(status) });
        if start == Start::Ready {
            self.state.send_modify(|state| {
                state.script.info.app_state = v1::hook_info::AppState::Running.into();
                state.script.info.epoch = request.epoch;
            });
        }
        let reports: Reports<_> = if start == Start::Hang {
            Box::pin(tokio_stream::once(answer(accepted)).chain(tokio_stream::pending()))
        } else {
            Box::pin(tokio_stream::iter([answer(accepted), answer(over)]))
        };
        Ok(Response::new(reports))
    }

    async fn conclude_shutdown(
        &self,
        request: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        self.note(Call::ConcludeShutdown(request.into_inner()));
        Ok(Response::new(v1::ConcludeShutdownResponse {}))
    }
}
