//! Hooks with one fault each: the reference hook, with something done to what goes in or comes out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt as _};
use quiesce_agent::hook::Hook;
use quiesce_protocol::v1::shutdown_hook_server::{ShutdownHook, ShutdownHookServer};
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, ShutdownPhase, ShutdownStatus};
use quiesce_runtime::machine::{Listener, Machine, Socket};
use quiesce_runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};

use super::imitation::Imitation;

pub(crate) const BEARER: &str = "the-token-of-the-hook";

/// What is wrong with a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Reports the end as soon as the application was told.
    ToldIsStopped,
    /// Tells the application twice, to be sure.
    SignalsTwice,
    /// Tells it again when the same shutdown is asked for again.
    SignalsOnRepetition,
    /// Kills when the grace period is over.
    KillsByItself,
    /// Kills the first process only, and says all are gone.
    KillsTheFirstOnly,
    /// Kills for whoever asks.
    KillsForAnybody,
    /// Has no better evidence than a claim.
    OnlyClaims,
    /// Takes epochs that are not higher.
    TakesOldEpochs,
    /// Remembers nothing over a restart.
    ForgetsOnRestart,
    /// Knows nothing of a final report a minute later.
    ForgetsSoon,
    /// Sends the result without its token.
    ForgetsTheToken,
    /// Has room for tokens of 256 bytes.
    CutsTheToken,
    /// Sends the token with every report.
    TokenEverywhere,
    /// Writes the token into its messages.
    TokenInMessages,
    /// Sends the last result, whatever shutdown is asked for.
    ReplaysAnOldResult,
    /// Reports ACCEPTED again behind STOPPING.
    GoesBackInPhase,
    /// Leaves the phase of the final report at STOPPING.
    WrongFinalPhase,
    /// Reports when something is new, and only then.
    NoHeartbeats,
    /// Counts the reports of each call anew.
    CountsAnew,
    /// Sends the result twice.
    ResultTwice,
    /// Ends the call with an error behind the result.
    EndsWithAnError,
    /// Looks every three seconds whether it has ended.
    LateResult,
    /// The first report waits for the application.
    WaitsForTheFirst,
    /// Leaves the id out of its reports.
    Nameless,
    /// Says STOPPED of what did not run.
    StoppedWithoutRunning,
    /// Refuses what it has no name for.
    RefusesUnknownKinds,
    /// Lets everybody in.
    LetsEverybodyIn,
    /// Does not look whose instance is meant.
    AnyInstance,
    /// Refuses to be asked for the same shutdown again.
    RefusesRepetition,
    /// Two operations at a time.
    TwoAtATime,
    /// Never lets another attempt take over.
    NeverYields,
    /// The end of the call is the end of the shutdown.
    DiesWithTheCall,
    /// Announces what it does not have.
    AnnouncesTooMuch,
    /// Errors without details.
    BareErrors,
    /// Takes back what has been told.
    CancelsTooLate,
    /// Does not look again after the end.
    IgnoresSettling,
    /// Concludes without a look at the application.
    ConcludesWhatRuns,
}

/// Where hooks come and go, and callers always find the present one.
#[derive(Clone)]
pub(crate) struct Door {
    listener: Arc<Box<dyn Listener>>,
    address: String,
    /// Made once: it takes longer than a check.
    reflection: Routes,
}

impl Door {
    pub(crate) async fn at(machine: &Machine) -> Self {
        let listener = machine.network.listen("127.0.0.1:0", None).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(quiesce_protocol::FILE_DESCRIPTOR_SET)
            .with_service_name("quiesce.v1.ShutdownHook")
            .build_v1()
            .unwrap();
        Self { listener: Arc::new(listener), address, reflection: Routes::new(reflection) }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

/// Serves `hook` behind `door` until its program ends.
pub(crate) fn open(door: &Door, hook: Hook, application: Arc<Imitation>, fault: Option<Fault>, program: &Tasks) {
    let listener = Arc::clone(&door.listener);
    let incoming = stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(socket, _peer)| Accepted(socket));
        Some((accepted, listener))
    });
    let mutant =
        Mutant { hook, application, fault, last: Arc::default(), since: Arc::default(), asked: Arc::default() };
    let guard = move |request: Request<()>| {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match token {
            _ if fault == Some(Fault::LetsEverybodyIn) => Ok(request),
            Some(token) if token == format!("Bearer {BEARER}") => Ok(request),
            _ => Err(Status::unauthenticated("who are you?")),
        }
    };
    let serving = tonic::transport::Server::builder()
        .add_routes(door.reflection.clone().add_service(ShutdownHookServer::with_interceptor(mutant, guard)))
        .serve_with_incoming(incoming);
    program.spawn("mutant", async move { serving.await.unwrap() });
}

/// A connection of whom nothing need be known.
pub(crate) struct Accepted(pub(crate) Box<dyn Socket>);

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Takes back what was begun when it goes before the end.
struct Tie {
    application: Arc<Imitation>,
    over: bool,
}

impl Tie {
    fn look(&mut self, response: &Result<v1::ShutdownResponse, Status>) {
        self.over |= is_final(response);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if !self.over {
            self.application.forget_orders();
        }
    }
}

fn is_final(response: &Result<v1::ShutdownResponse, Status>) -> bool {
    response.as_ref().is_ok_and(|response| response.status.as_ref().is_some_and(|status| status.result.is_some()))
}

/// The hook with its fault.
struct Mutant {
    hook: Hook,
    application: Arc<Imitation>,
    fault: Option<Fault>,
    /// The final report of the first shutdown that had one.
    last: Arc<Mutex<Option<ShutdownStatus>>>,
    /// When each shutdown was first asked for.
    since: Arc<Mutex<BTreeMap<String, tokio::time::Instant>>>,
    /// The first request of each shutdown.
    asked: Arc<Mutex<BTreeMap<String, v1::ShutdownRequest>>>,
}

type Reports<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Mutant {
    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn spoil(&self, status: Status) -> Status {
        if self.is(Fault::BareErrors) { Status::new(status.code(), status.message()) } else { status }
    }

    fn shape(&self, token: String, mut reports: Reports<v1::ShutdownResponse>) -> Reports<v1::ShutdownResponse> {
        let each = move |reports: Reports<v1::ShutdownResponse>, change: fn(&mut ShutdownStatus, &str)| {
            let token = token.clone();
            Box::pin(reports.map(move |response| {
                response.map(|mut response| {
                    response.status.iter_mut().for_each(|status| change(status, &token));
                    response
                })
            })) as Reports<_>
        };
        match self.fault {
            Some(Fault::ForgetsTheToken) => each(reports, |status, _| status.completion_token.clear()),
            Some(Fault::TokenEverywhere) => each(reports, |status, token| status.completion_token = token.to_owned()),
            Some(Fault::TokenInMessages) => each(reports, |status, token| status.message = format!("with {token}")),
            Some(Fault::Nameless) => each(reports, |status, _| status.shutdown_id.clear()),
            Some(Fault::GoesBackInPhase) => {
                let mut told = false;
                Box::pin(reports.map(move |response| {
                    response.map(|mut response| {
                        for status in response.status.iter_mut().filter(|status| status.result.is_none()) {
                            if told {
                                status.phase = ShutdownPhase::Accepted.into();
                            }
                            told |= status.phase() == ShutdownPhase::Stopping;
                        }
                        response
                    })
                }))
            }
            Some(Fault::NoHeartbeats) => {
                let mut before = 0;
                Box::pin(reports.filter(move |response| {
                    let news = response.as_ref().map_or(true, |response| {
                        let status = response.status.clone().unwrap_or_default();
                        let news = status.phase != before || status.result.is_some();
                        before = status.phase;
                        news
                    });
                    std::future::ready(news)
                }))
            }
            Some(Fault::CountsAnew) => {
                let mut count = 0;
                Box::pin(reports.map(move |response| {
                    response.map(|mut response| {
                        count += 1;
                        response.status.iter_mut().for_each(|status| status.sequence = count);
                        response
                    })
                }))
            }
            Some(Fault::ResultTwice) => Box::pin(reports.flat_map(|response| {
                let again = is_final(&response).then(|| {
                    let mut again = response.clone().unwrap_or_default();
                    again.status.iter_mut().for_each(|status| status.sequence += 1);
                    Ok(again)
                });
                stream::iter([response].into_iter().chain(again))
            })),
            Some(Fault::EndsWithAnError) => {
                let error = stream::iter([Err(Status::cancelled("that was all"))]);
                Box::pin(reports.chain(error))
            }
            Some(Fault::LateResult) => Box::pin(reports.then(|response| async {
                if is_final(&response) {
                    // This is the fault, nothing is waited for.
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                response
            })),
            Some(Fault::DiesWithTheCall) => {
                let mut tie = Tie { application: Arc::clone(&self.application), over: false };
                Box::pin(reports.inspect(move |response| tie.look(response)))
            }
            Some(Fault::WrongFinalPhase) => each(reports, |status, _| {
                if status.result.is_some() {
                    status.phase = ShutdownPhase::Stopping.into();
                }
            }),
            Some(Fault::CutsTheToken) => each(reports, |status, _| status.completion_token.truncate(256)),
            Some(Fault::StoppedWithoutRunning) => each(reports, |status, _| {
                if let Some(result) = status.result.as_mut()
                    && result.outcome() == Outcome::NotRunning
                {
                    result.outcome = Outcome::Stopped.into();
                }
            }),
            Some(Fault::WaitsForTheFirst) => {
                // As above: to be late is the fault.
                let late = Duration::from_millis(1_100);
                Box::pin(
                    stream::once(tokio::time::sleep(late))
                        .flat_map(move |()| std::mem::replace(&mut reports, Box::pin(stream::empty()))),
                )
            }
            _ => reports,
        }
    }
}

#[tonic::async_trait]
impl ShutdownHook for Mutant {
    type ShutdownStream = Reports<v1::ShutdownResponse>;
    type StartApplicationStream = Reports<v1::StartApplicationResponse>;

    async fn get_hook_info(
        &self,
        request: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        self.hook.get_hook_info(request).await
    }

    async fn check_shutdown(
        &self,
        request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        if self.is(Fault::AnnouncesTooMuch) {
            return Err(Status::unimplemented("not yet"));
        }
        self.hook.check_shutdown(request).await
    }

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        let mut request = request.into_inner();
        let asked = v1::GetShutdownRequest { shutdown_id: request.shutdown_id.clone() };
        let known = !request.shutdown_id.is_empty() && self.hook.get_shutdown(Request::new(asked)).await.is_ok();
        if known && self.is(Fault::RefusesRepetition) {
            return Err(Status::already_exists("I know that one"));
        }
        if known && self.is(Fault::SignalsOnRepetition) {
            self.application.signal_again();
        }
        let since = self.since.lock().unwrap().get(&request.shutdown_id).map(tokio::time::Instant::elapsed);
        if self.is(Fault::ForgetsSoon) && since.is_some_and(|since| since > Duration::from_secs(50)) {
            return Err(Status::not_found("which one?"));
        }
        self.since.lock().unwrap().entry(request.shutdown_id.clone()).or_insert_with(tokio::time::Instant::now);
        if self.is(Fault::RefusesUnknownKinds) && v1::OperationKind::try_from(request.kind).is_err() {
            return Err(Status::invalid_argument("no such kind"));
        }
        if self.is(Fault::IgnoresSettling) {
            request.settle_period = None;
        }
        if self.is(Fault::AnyInstance) {
            request.instance.clear();
        }
        let highest = i64::try_from(self.hook.view().borrow().epoch).unwrap();
        if self.is(Fault::TakesOldEpochs) && request.epoch < highest {
            request.epoch = 0;
        }
        let busy = self.hook.view().borrow().stopping;
        if !known && busy && self.is(Fault::NeverYields) {
            return Err(Status::aborted("busy"));
        }
        if !known && busy && self.is(Fault::TwoAtATime) {
            // An attempt above all others takes over, and the older one is not told.
            let asked = self.asked.lock().unwrap();
            if let Some(running) = asked.values().next_back() {
                request.operation.clone_from(&running.operation);
                request.attempt = i32::MAX - 1;
            }
        }
        if let Some(last) = self.last.lock().unwrap().clone().filter(|_| !known && self.is(Fault::ReplaysAnOldResult)) {
            let response = v1::ShutdownResponse { status: Some(last) };
            return Ok(Response::new(Box::pin(stream::iter([Ok(response)]))));
        }
        let token = request.completion_token.clone();
        self.asked.lock().unwrap().entry(request.shutdown_id.clone()).or_insert_with(|| request.clone());
        let reports = self.hook.shutdown(Request::new(request)).await.map_err(|status| self.spoil(status))?;
        let last = Arc::clone(&self.last);
        let reports = reports.into_inner().inspect(move |response| {
            if let Ok(v1::ShutdownResponse { status: Some(status) }) = response
                && status.result.is_some()
            {
                last.lock().unwrap().get_or_insert_with(|| status.clone());
            }
        });
        Ok(Response::new(self.shape(token, Box::pin(reports))))
    }

    async fn get_shutdown(
        &self,
        request: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        let mut answer = self.hook.get_shutdown(request).await?;
        if let Some(status) = answer.get_mut().status.as_mut()
            && self.is(Fault::TokenEverywhere)
        {
            "leaked".clone_into(&mut status.completion_token);
        }
        Ok(answer)
    }

    async fn cancel_shutdown(
        &self,
        request: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        match self.hook.cancel_shutdown(request).await {
            Err(status) if status.code() == Code::FailedPrecondition && self.is(Fault::CancelsTooLate) => {
                Ok(Response::new(v1::CancelShutdownResponse::default()))
            }
            answer => answer,
        }
    }

    async fn update_deadline(
        &self,
        request: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        self.hook.update_deadline(request).await
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        let mut request = request.into_inner();
        if self.is(Fault::KillsForAnybody)
            && let Some(asked) = self.asked.lock().unwrap().get(&request.shutdown_id)
        {
            request.completion_token.clone_from(&asked.completion_token);
        }
        self.hook.kill_application(Request::new(request)).await
    }

    async fn start_application(
        &self,
        request: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        let mut request = request.into_inner();
        if self.is(Fault::AnyInstance) {
            request.instance.clear();
        }
        let asked = request.epoch;
        let highest = i64::try_from(self.hook.view().borrow().epoch).unwrap();
        let stopped = !self.application.is_alive();
        if self.is(Fault::TakesOldEpochs) && stopped && asked > 0 && asked <= highest {
            request.epoch = highest + 1;
        }
        self.hook.start_application(Request::new(request)).await
    }

    async fn conclude_shutdown(
        &self,
        request: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        if self.is(Fault::ConcludesWhatRuns) && self.application.is_alive() {
            return Ok(Response::new(v1::ConcludeShutdownResponse {}));
        }
        self.hook.conclude_shutdown(request).await
    }
}
