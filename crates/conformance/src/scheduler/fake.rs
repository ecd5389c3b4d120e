//! The hooks of a check: real gRPC servers that do what a script says, with a record of everything they were told.
//!
//! A script is a list of acts for each shutdown id. The acts of one id are played once, over as many calls as it takes,
//! and after the result the result is repeated (rule H1). Waiting acts send heartbeats (rule H3), [`Act::Hang`] does not.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use quiesce_protocol::v1;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::shutdown_hook_server::{ShutdownHook, ShutdownHookServer};
use quiesce_protocol::v1::start_result::Outcome as Started;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_runtime::machine::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::tap::{Handle, Tap};

/// Reports that wait for a scheduler that does not read.
const REPORTS: usize = 16;

/// One thing a shutdown does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Reports a phase.
    Report(v1::ShutdownPhase),
    /// Reports, changed like this.
    Say(fn(&mut v1::ShutdownStatus)),
    /// Reports so many times, with something new in each.
    Chatter(u32),
    /// Wants so much time in all.
    Wish(Duration),
    /// Ends with a result and the right token.
    Result(Outcome, v1::Evidence),
    /// Ends with a result that is not clean.
    Unclean,
    /// Sends a result with this token, and goes on.
    ResultWithToken(&'static str),
    /// The call ends with an error.
    Fail(Code, &'static str),
    /// The call ends with OK.
    End,
    /// Says nothing for ever.
    Hang,
    /// Goes on after that long, with reports meanwhile.
    For(Duration),
    /// Goes on when the check says so.
    UntilReleased,
    /// Goes on when it was told to kill.
    UntilKilled,
    /// Goes on when the shutdown was taken back.
    UntilCancelled,
}

/// Accepts, stops, has stopped.
pub(crate) fn stops() -> Vec<Act> {
    let mut acts = stopping();
    acts.push(stopped());
    acts
}

/// Accepts, and is stopping.
pub(crate) fn stopping() -> Vec<Act> {
    vec![Act::Report(v1::ShutdownPhase::Accepted), Act::Report(v1::ShutdownPhase::Stopping)]
}

/// The end, verified.
pub(crate) fn stopped() -> Act {
    Act::Result(Outcome::Stopped, v1::Evidence::GroupEmpty)
}

/// Stops when the check says so.
pub(crate) fn waits() -> Vec<Act> {
    [stopping(), vec![Act::UntilReleased, stopped()]].concat()
}

/// Never stops, and says so all the time.
pub(crate) fn deaf() -> Vec<Act> {
    [stopping(), vec![Act::UntilKilled, Act::Result(Outcome::Killed, v1::Evidence::GroupEmpty)]].concat()
}

/// Can be taken back, and stops otherwise when the check says so.
pub(crate) fn drains() -> Vec<Act> {
    vec![
        Act::Report(v1::ShutdownPhase::Accepted),
        Act::Report(v1::ShutdownPhase::Draining),
        Act::UntilCancelled,
        Act::Result(Outcome::Cancelled, v1::Evidence::Unspecified),
    ]
}

/// How a start goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is ready at once.
    Ready,
    /// It does not come up.
    Fails,
    /// The call breaks behind the first report; asked again it is ready.
    Breaks,
    /// It is ready when the check says so.
    UntilReleased,
}

/// What a hook is told to do.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Answer to GetHookInfo.
    pub(crate) info: v1::HookInfo,
    /// GetHookInfo is UNAVAILABLE.
    pub(crate) away: bool,
    /// Answer to CheckShutdown: findings that speak against it.
    pub(crate) findings: Vec<String>,
    /// Acts of the first shutdown id, of the second, ...; the last list is for all further ones.
    pub(crate) shutdowns: Vec<Vec<Act>>,
    /// How the start under the first epoch goes, under the second, ...; the last is for all further ones.
    pub(crate) starts: Vec<Start>,
    /// CheckShutdown is not answered.
    pub(crate) check_hangs: bool,
    /// KillApplication is answered, and nothing is killed.
    pub(crate) kill_ignored: bool,
    /// CancelShutdown comes too late.
    pub(crate) cancel_late: bool,
}

impl Script {
    /// A hook that can do everything, with these acts for the shutdown ids.
    pub(crate) fn of(shutdowns: impl IntoIterator<Item = Vec<Act>>) -> Self {
        use v1::Capability::{Cancel, Check, Conclude, Durable, Hold, Kill, Settle, Start, Status, UpdateDeadline};
        let all = [Check, Status, Cancel, UpdateDeadline, Kill, Settle, Durable, Start, Hold, Conclude];
        Self {
            info: v1::HookInfo {
                implementation: "scheduler-conformance".to_owned(),
                protocol_version: "1.0".to_owned(),
                capabilities: all.into_iter().map(Into::into).collect(),
                app_state: AppState::Running.into(),
                ready: Some(true),
                ..v1::HookInfo::default()
            },
            away: false,
            findings: Vec::new(),
            shutdowns: shutdowns.into_iter().collect(),
            starts: vec![self::Start::Ready],
            check_hangs: false,
            kill_ignored: false,
            cancel_late: false,
        }
    }

    /// A hook that holds its application and has not been told anything yet.
    pub(crate) fn standby(starts: impl IntoIterator<Item = Start>) -> Self {
        let mut script = Self { starts: starts.into_iter().collect(), ..Self::of([stops()]) };
        script.info.app_state = AppState::Held.into();
        script
    }

    /// Whose starts go like this.
    pub(crate) fn starting(self, starts: impl IntoIterator<Item = Start>) -> Self {
        Self { starts: starts.into_iter().collect(), ..self }
    }

    /// Without a capability.
    pub(crate) fn without(mut self, capability: v1::Capability) -> Self {
        self.info.capabilities.retain(|known| *known != i32::from(capability));
        self
    }
}

/// One call a hook has received.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// GetHookInfo, with the `authorization` that came with it.
    Info(Option<String>),
    /// CheckShutdown.
    Check,
    /// Shutdown.
    Shutdown(Box<v1::ShutdownRequest>),
    /// CancelShutdown.
    Cancel,
    /// UpdateDeadline.
    Deadline(v1::UpdateDeadlineRequest),
    /// KillApplication.
    Kill(v1::KillApplicationRequest),
    /// StartApplication.
    Start(Box<v1::StartApplicationRequest>),
    /// ConcludeShutdown.
    Conclude(v1::ConcludeShutdownRequest),
}

/// A scripted hook. Clones are the same hook.
#[derive(Clone)]
pub(crate) struct Fake {
    state: watch::Sender<State>,
    servers: Arc<Servers>,
}

#[derive(Default)]
struct Servers {
    tasks: Mutex<Vec<AbortHandle>>,
    lines: Lines,
}

/// Open connections: a server that ends leaves them as they are.
type Lines = Arc<Mutex<Vec<Handle>>>;

impl Servers {
    fn end(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            line.cut();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end();
    }
}

struct State {
    script: Script,
    calls: Vec<(Instant, Call)>,
    runs: BTreeMap<String, Run>,
    starts: BTreeMap<i64, Launch>,
    released: bool,
    killed: bool,
    cancelled: bool,
    surrendered: bool,
}

/// The start under one epoch.
struct Launch {
    start: Start,
    sequence: i32,
    calls: usize,
}

#[derive(Clone)]
struct Run {
    request: v1::ShutdownRequest,
    acts: VecDeque<Act>,
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

impl Fake {
    /// A hook that nobody can reach yet.
    pub(crate) fn new(script: Script) -> Self {
        let state = State {
            script,
            calls: Vec::new(),
            runs: BTreeMap::new(),
            starts: BTreeMap::new(),
            released: false,
            killed: false,
            cancelled: false,
            surrendered: false,
        };
        Self { state: watch::Sender::new(state), servers: Arc::default() }
    }

    /// Serves on a port of its own of `host`; where.
    pub(crate) async fn listen(&self, host: &str) -> io::Result<String> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let lines = Arc::clone(&self.servers.lines);
        let incoming = stream::unfold((listener, lines), |(listener, lines)| async {
            let accepted = listener.accept().await.map(|(socket, _peer)| Accepted::new(Box::new(socket), &lines));
            Some((accepted, (listener, lines)))
        });
        self.serve(incoming);
        Ok(address)
    }

    /// Serves on this one connection, as an agent does that has dialled in.
    pub(crate) fn attach(&self, socket: Box<dyn Socket>) {
        let accepted = Accepted::new(socket, &self.servers.lines);
        self.serve(stream::once(async { Ok(accepted) }).chain(stream::pending()));
    }

    fn serve(&self, incoming: impl Stream<Item = io::Result<Accepted>> + Send + 'static) {
        // The servers belong to the hook, and must not keep it alive.
        let hook = Self { state: self.state.clone(), servers: Arc::default() };
        let serving = tonic::transport::Server::builder().add_service(ShutdownHookServer::new(hook));
        let serving = serving.serve_with_incoming(incoming);
        let task = tokio::spawn(async move {
            // It ends with its connections, which is with the check.
            let _served = serving.await;
        });
        self.servers.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
    }

    /// Nobody reaches it any more; open connections break.
    pub(crate) fn vanish(&self) {
        self.servers.end();
    }

    /// HTTP/2 PINGs on its connections so far.
    pub(crate) fn pings(&self) -> usize {
        let lines = self.servers.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| line.pings().len()).sum()
    }

    /// Changes the script.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Script)) {
        self.state.send_modify(|state| change(&mut state.script));
    }

    /// Lets [`Act::UntilReleased`] go on, now and ever after.
    pub(crate) fn release(&self) {
        self.state.send_modify(|state| state.released = true);
    }

    /// From now on whatever it is asked for is over at once.
    pub(crate) fn surrender(&self) {
        self.state.send_modify(|state| {
            state.surrendered = true;
            state.script.away = false;
            state.script.info.app_state = AppState::Held.into();
        });
    }

    /// Everything it was told so far.
    pub(crate) fn calls(&self) -> Vec<(Instant, Call)> {
        self.state.borrow().calls.clone()
    }

    /// Every Shutdown request so far.
    pub(crate) fn shutdowns(&self) -> Vec<v1::ShutdownRequest> {
        let pick = |(_, call)| if let Call::Shutdown(request) = call { Some(*request) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    /// The ids of the shutdowns so far, each once, in their order.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for request in self.shutdowns() {
            if !ids.contains(&request.shutdown_id) {
                ids.push(request.shutdown_id);
            }
        }
        ids
    }

    /// Every KillApplication so far.
    pub(crate) fn kills(&self) -> Vec<v1::KillApplicationRequest> {
        let pick = |(_, call)| if let Call::Kill(request) = call { Some(request) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    /// Every StartApplication so far, and when.
    pub(crate) fn starts(&self) -> Vec<(Instant, v1::StartApplicationRequest)> {
        let pick = |(at, call)| if let Call::Start(request) = call { Some((at, *request)) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    /// Every ConcludeShutdown so far.
    pub(crate) fn conclusions(&self) -> Vec<v1::ConcludeShutdownRequest> {
        let pick = |(_, call)| if let Call::Conclude(request) = call { Some(request) } else { None };
        self.calls().into_iter().filter_map(pick).collect()
    }

    /// Whether the calls fulfil `reached` within `limit`.
    pub(crate) async fn told(&self, limit: Duration, reached: impl Fn(&[(Instant, Call)]) -> bool) -> bool {
        let mut state = self.state.subscribe();
        let seen = timeout(limit, state.wait_for(|state| reached(&state.calls))).await;
        seen.is_ok()
    }

    fn note(&self, call: Call) {
        self.state.send_modify(|state| state.calls.push((Instant::now(), call)));
    }

    /// The run of this id, begun if it is new.
    fn run(&self, request: &v1::ShutdownRequest) {
        self.state.send_modify(|state| {
            let number = state.runs.len();
            let acts = state.script.shutdowns.get(number).or(state.script.shutdowns.last()).cloned();
            let status =
                v1::ShutdownStatus { shutdown_id: request.shutdown_id.clone(), phase: 1, ..Default::default() };
            let run =
                Run { request: request.clone(), acts: acts.unwrap_or_default().into(), played: 0, status, last: None };
            state.runs.entry(request.shutdown_id.clone()).or_insert(run);
        });
    }

    fn edit<T: Default>(&self, id: &str, edit: impl FnOnce(&mut Run) -> T) -> T {
        let mut outcome = T::default();
        self.state.send_modify(|state| {
            if let Some(run) = state.runs.get_mut(id) {
                outcome = edit(run);
            }
        });
        outcome
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
        let ended = matches!(outcome, Outcome::Stopped | Outcome::Killed | Outcome::NotRunning);
        if ended {
            self.change(|script| script.info.app_state = AppState::Held.into());
        }
        let phase = match outcome {
            _ if ended => v1::ShutdownPhase::Stopped,
            Outcome::Cancelled => v1::ShutdownPhase::Cancelled,
            _ => v1::ShutdownPhase::Failed,
        };
        let token = self.edit(id, |run| run.request.completion_token.clone());
        let report = self.report(id, |status| {
            status.phase = phase.into();
            status.completion_token = token;
            status.result = Some(v1::StopResult {
                outcome: outcome.into(),
                evidence: evidence.into(),
                clean: Some(clean),
                held: ended,
                ..Default::default()
            });
        });
        self.edit(id, |run| run.last = Some(report.clone()));
        report
    }

    /// Waits, with heartbeats.
    async fn until(&self, id: &str, out: &Out, reached: impl Fn(&State) -> bool) -> Result<(), Gone> {
        let interval = self.edit(id, |run| run.request.heartbeat_interval);
        let interval = interval.and_then(|interval| Duration::try_from(interval).ok());
        let interval = interval.unwrap_or(Duration::from_secs(5)) / 2;
        let mut state = self.state.subscribe();
        while timeout(interval, state.wait_for(&reached)).await.is_err() {
            say(out, self.report(id, |_same| {})).await?;
        }
        Ok(())
    }

    /// Plays until the check has had enough of it.
    async fn perform(&self, id: &str, out: &Out) -> Result<(), Gone> {
        let mut state = self.state.subscribe();
        tokio::select! {
            played = self.play(id, out) => return played,
            _surrendered = state.wait_for(|state| state.surrendered) => {}
        }
        say(out, self.finish(id, Outcome::NotRunning, v1::Evidence::GroupEmpty, true)).await
    }

    /// The next report of the start under `epoch`.
    fn start_report(&self, epoch: i64, phase: v1::StartPhase, outcome: Option<Started>) -> v1::StartStatus {
        let mut sequence = 0;
        self.state.send_modify(|state| {
            if let Some(launch) = state.starts.get_mut(&epoch) {
                launch.sequence += 1;
                sequence = launch.sequence;
            }
        });
        let result = outcome.map(|outcome| v1::StartResult { outcome: outcome.into(), ..Default::default() });
        v1::StartStatus { epoch, sequence, phase: phase.into(), result, ..Default::default() }
    }

    /// Starts as the script has it for this epoch.
    async fn bring_up(&self, request: &v1::StartApplicationRequest, out: &Starts) -> Result<(), Gone> {
        let epoch = request.epoch;
        let mut how = (Start::Ready, 1);
        self.state.send_modify(|state| {
            let number = state.starts.len();
            let start = state.script.starts.get(number).or(state.script.starts.last()).copied();
            let start = start.unwrap_or(Start::Ready);
            let launch = state.starts.entry(epoch).or_insert(Launch { start, sequence: 0, calls: 0 });
            launch.calls += 1;
            how = (launch.start, launch.calls);
            state.script.info.epoch = epoch;
            state.script.info.app_state = AppState::Starting.into();
        });
        let answer = |status| async { out.send(status).await.map_err(|_gone| Gone) };
        let report = |status| Ok(v1::StartApplicationResponse { status: Some(status) });
        answer(report(self.start_report(epoch, v1::StartPhase::Accepted, None))).await?;
        match how {
            (Start::Breaks, 1) => return answer(Err(error(Code::Unavailable, ""))).await,
            (Start::Fails, _) => {
                self.change(|script| script.info.app_state = AppState::Held.into());
                let failed = self.start_report(epoch, v1::StartPhase::Failed, Some(Started::Failed));
                return answer(report(failed)).await;
            }
            (Start::UntilReleased, _) => {
                let interval = request.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok());
                let interval = interval.unwrap_or(Duration::from_secs(5)) / 2;
                let mut state = self.state.subscribe();
                let over = |state: &State| state.released || state.surrendered;
                while timeout(interval, state.wait_for(over)).await.is_err() {
                    answer(report(self.start_report(epoch, v1::StartPhase::Starting, None))).await?;
                }
            }
            (Start::Ready | Start::Breaks, _) => {}
        }
        self.change(|script| script.info.app_state = AppState::Running.into());
        answer(report(self.start_report(epoch, v1::StartPhase::Ready, Some(Started::Ready)))).await
    }

    async fn play(&self, id: &str, out: &Out) -> Result<(), Gone> {
        loop {
            if let Some(last) = self.edit(id, |run| run.last.clone()) {
                return say(out, last).await;
            }
            let next = self.edit(id, |run| run.acts.front().cloned().map(|act| (run.played, act)));
            let Some((number, act)) = next else { return Ok(()) };
            match act {
                Act::Report(phase) => say(out, self.report(id, |status| status.phase = phase.into())).await?,
                Act::Say(shape) => say(out, self.report(id, shape)).await?,
                Act::Chatter(reports) => {
                    for number in 1..=reports {
                        say(out, self.report(id, |status| status.message = thought(number))).await?;
                    }
                }
                Act::Wish(wanted) => {
                    let wanted = prost_types::Duration::try_from(wanted).ok();
                    say(out, self.report(id, |status| status.wanted_grace_period = wanted)).await?;
                }
                Act::Result(outcome, evidence) => return say(out, self.finish(id, outcome, evidence, true)).await,
                Act::Unclean => {
                    return say(out, self.finish(id, Outcome::Stopped, v1::Evidence::GroupEmpty, false)).await;
                }
                Act::ResultWithToken(token) => {
                    let mut report = self.report(id, |_same| {});
                    report.phase = v1::ShutdownPhase::Stopped.into();
                    token.clone_into(&mut report.completion_token);
                    report.result = Some(v1::StopResult {
                        outcome: Outcome::Stopped.into(),
                        evidence: v1::Evidence::GroupEmpty.into(),
                        ..Default::default()
                    });
                    say(out, report).await?;
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
                Act::For(time) => {
                    let over = Instant::now() + time;
                    let pause = Duration::from_millis(250);
                    while Instant::now() < over {
                        sleep(pause.min(over.saturating_duration_since(Instant::now()))).await;
                        say(out, self.report(id, |_same| {})).await?;
                    }
                }
                Act::UntilReleased => self.until(id, out, |state| state.released).await?,
                Act::UntilKilled => self.until(id, out, |state| state.killed).await?,
                Act::UntilCancelled => self.until(id, out, |state| state.cancelled).await?,
            }
            self.edit(id, |run| run.over(number));
        }
    }
}

/// The message of a report of [`Act::Chatter`].
pub(crate) fn thought(number: u32) -> String {
    format!("thought number {number}")
}

type Out = mpsc::Sender<Result<v1::ShutdownResponse, Status>>;
type Starts = mpsc::Sender<Result<v1::StartApplicationResponse, Status>>;

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
impl ShutdownHook for Fake {
    async fn get_hook_info(
        &self,
        request: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.note(Call::Info(bearer.map(str::to_owned)));
        let script = self.state.borrow().script.clone();
        if script.away {
            return Err(error(Code::Unavailable, "NOT_SERVING"));
        }
        Ok(Response::new(v1::GetHookInfoResponse { info: Some(script.info) }))
    }

    async fn check_shutdown(
        &self,
        _request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        self.note(Call::Check);
        let mut state = self.state.subscribe();
        // It cannot be gone: it is part of this hook.
        let _answers = state.wait_for(|state| !state.script.check_hangs || state.surrendered).await;
        let findings = self.state.borrow().script.findings.clone();
        Ok(Response::new(v1::CheckShutdownResponse { ok: findings.is_empty(), findings, expected_duration: None }))
    }

    type ShutdownStream = Reports<v1::ShutdownResponse>;

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        let request = request.into_inner();
        self.note(Call::Shutdown(Box::new(request.clone())));
        self.run(&request);
        let first = self.edit(&request.shutdown_id, |run| match run.acts.front().cloned() {
            Some(Act::Fail(code, reason)) if run.last.is_none() => {
                run.over(run.played);
                Some(error(code, reason))
            }
            _ => None,
        });
        if let Some(status) = first {
            return Err(status);
        }
        let (out, reports) = mpsc::channel(REPORTS);
        let hook = self.clone();
        tokio::spawn(async move {
            // Whether anybody listened to the end is theirs to know.
            let _gone = hook.perform(&request.shutdown_id, &out).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(reports))))
    }

    async fn get_shutdown(
        &self,
        request: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        let request = request.into_inner();
        match self.state.borrow().runs.get(&request.shutdown_id) {
            Some(run) => Ok(Response::new(v1::GetShutdownResponse { status: Some(run.status.clone()) })),
            None => Err(error(Code::NotFound, "SHUTDOWN_NOT_FOUND")),
        }
    }

    async fn cancel_shutdown(
        &self,
        _request: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        self.note(Call::Cancel);
        if self.state.borrow().script.cancel_late {
            return Err(error(Code::FailedPrecondition, "POINT_OF_NO_RETURN"));
        }
        self.state.send_modify(|state| state.cancelled = true);
        Ok(Response::new(v1::CancelShutdownResponse::default()))
    }

    async fn update_deadline(
        &self,
        request: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        self.note(Call::Deadline(request.into_inner()));
        Ok(Response::new(v1::UpdateDeadlineResponse {}))
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        self.note(Call::Kill(request.into_inner()));
        let ignored = self.state.borrow().script.kill_ignored;
        self.state.send_modify(|state| state.killed |= !ignored);
        Ok(Response::new(v1::KillApplicationResponse::default()))
    }

    type StartApplicationStream = Reports<v1::StartApplicationResponse>;

    async fn start_application(
        &self,
        request: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        let request = request.into_inner();
        self.note(Call::Start(Box::new(request.clone())));
        let (out, reports) = mpsc::channel(REPORTS);
        let hook = self.clone();
        tokio::spawn(async move {
            // Whether anybody listened to the end is theirs to know.
            let _gone = hook.bring_up(&request, &out).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(reports))))
    }

    async fn conclude_shutdown(
        &self,
        request: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        self.note(Call::Conclude(request.into_inner()));
        Ok(Response::new(v1::ConcludeShutdownResponse {}))
    }
}

/// A connection of a scheduler.
struct Accepted(Tap);

impl Accepted {
    fn new(socket: Box<dyn Socket>, lines: &Lines) -> Self {
        let (tap, handle) = Tap::new(socket);
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        Self(tap)
    }
}

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
