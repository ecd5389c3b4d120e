//! A scripted hook that listens: it does what the test tells it and remembers what it was asked.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use quiesce_protocol::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use v1::shutdown_hook_server::{ShutdownHook, ShutdownHookServer};

/// How often a hook that hangs reports.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// What the hook does when asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Stops at once, proven.
    AtOnce,
    /// Reports STOPPING and stays there until the script says otherwise.
    Hang,
    /// Says that the application still runs.
    Refuse,
}

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) ready: bool,
    pub(crate) stop: Stop,
    pub(crate) app: v1::hook_info::AppState,
    /// The highest epoch it says it has seen.
    pub(crate) epoch: i64,
}

#[derive(Clone)]
pub(crate) struct Hook {
    script: Arc<watch::Sender<Script>>,
    calls: Arc<Mutex<Vec<String>>>,
    known: Arc<Mutex<HashSet<String>>>,
    shutdowns: Arc<Mutex<Vec<v1::ShutdownRequest>>>,
    sequence: Arc<AtomicI32>,
    pub(crate) address: SocketAddr,
}

impl Hook {
    pub(crate) async fn start(stop: Stop) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Script { ready: true, stop, app: v1::hook_info::AppState::Running, epoch: 0 };
        let hook = Self {
            script: Arc::new(watch::Sender::new(script)),
            calls: Arc::default(),
            known: Arc::default(),
            shutdowns: Arc::default(),
            sequence: Arc::default(),
            address: listener.local_addr().unwrap(),
        };
        let server = tonic::transport::Server::builder().add_service(ShutdownHookServer::new(hook.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        hook
    }

    pub(crate) fn play(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    /// How often a call of this kind came.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.split(' ').next() == Some(name)).count()
    }

    /// What was remembered of the calls of this kind.
    pub(crate) fn notes(&self, name: &str) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter_map(|call| call.strip_prefix(name)).map(|rest| rest.trim().to_owned()).collect()
    }

    /// Every order to stop, joined ones too.
    pub(crate) fn shutdowns(&self) -> Vec<v1::ShutdownRequest> {
        self.shutdowns.lock().unwrap().clone()
    }

    fn note<T>(&self, name: &str, request: &Request<T>) {
        let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.calls.lock().unwrap().push(format!("{name} {bearer}"));
    }

    fn next_sequence(&self) -> i32 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn script(&self) -> Script {
        self.script.borrow().clone()
    }
}

fn report(request: &v1::ShutdownRequest, sequence: i32, phase: v1::ShutdownPhase) -> v1::ShutdownStatus {
    v1::ShutdownStatus {
        shutdown_id: request.shutdown_id.clone(),
        sequence,
        phase: phase.into(),
        message: format!("report {sequence}"),
        ..v1::ShutdownStatus::default()
    }
}

fn result(request: &v1::ShutdownRequest, sequence: i32, stop: Stop) -> v1::ShutdownStatus {
    use v1::stop_result::Outcome;
    let (phase, outcome) = match stop {
        Stop::Refuse => (v1::ShutdownPhase::Failed, Outcome::StillRunning),
        Stop::AtOnce | Stop::Hang => (v1::ShutdownPhase::Stopped, Outcome::Stopped),
    };
    v1::ShutdownStatus {
        result: Some(v1::StopResult {
            outcome: outcome.into(),
            evidence: v1::Evidence::GroupEmpty.into(),
            exit_code: Some(0),
            clean: Some(true),
            ..v1::StopResult::default()
        }),
        completion_token: request.completion_token.clone(),
        ..report(request, sequence, phase)
    }
}

/// What to do, once the script says something else than to hang; `None` when a heartbeat is due before that.
async fn until_told(mut script: watch::Receiver<Script>) -> Option<Stop> {
    let told = tokio::time::timeout(HEARTBEAT, script.wait_for(|script| script.stop != Stop::Hang)).await;
    told.ok().map(|script| script.unwrap().stop)
}

#[tonic::async_trait]
impl ShutdownHook for Hook {
    async fn get_hook_info(
        &self,
        request: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        self.note("GetHookInfo", &request);
        let Script { ready, app, epoch, .. } = self.script();
        let info = v1::HookInfo {
            implementation: "scripted".to_owned(),
            protocol_version: "1.0".to_owned(),
            capabilities: vec![v1::Capability::Check.into(), v1::Capability::Kill.into()],
            ready: Some(ready),
            app_state: app.into(),
            epoch,
            ..v1::HookInfo::default()
        };
        Ok(Response::new(v1::GetHookInfoResponse { info: Some(info) }))
    }

    async fn check_shutdown(
        &self,
        request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        self.note("CheckShutdown", &request);
        let ok = self.script().ready;
        Ok(Response::new(v1::CheckShutdownResponse { ok, ..v1::CheckShutdownResponse::default() }))
    }

    type ShutdownStream = BoxStream<'static, Result<v1::ShutdownResponse, Status>>;

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        self.note("Shutdown", &request);
        let request = request.into_inner();
        self.shutdowns.lock().unwrap().push(request.clone());
        let hook = self.clone();
        // Who joins a shutdown that is known goes on where it is (H9): neither phase nor sequence go back.
        let begin = if self.known.lock().unwrap().insert(request.shutdown_id.clone()) { 0 } else { 2 };
        let reports = futures::stream::unfold(begin, move |step| {
            let (request, hook) = (request.clone(), hook.clone());
            async move {
                if step == i32::MAX {
                    return None;
                }
                let phase = if step == 0 { v1::ShutdownPhase::Accepted } else { v1::ShutdownPhase::Stopping };
                if step < 2 {
                    return Some((report(&request, hook.next_sequence(), phase), step + 1));
                }
                match until_told(hook.script.subscribe()).await {
                    Some(stop) => {
                        if stop == Stop::AtOnce {
                            hook.play(|script| script.app = v1::hook_info::AppState::Stopped);
                        }
                        Some((result(&request, hook.next_sequence(), stop), i32::MAX))
                    }
                    None => Some((report(&request, hook.next_sequence(), phase), step)),
                }
            }
        });
        let responses = reports.map(|status| Ok(v1::ShutdownResponse { status: Some(status) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn get_shutdown(
        &self,
        _: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        Err(Status::unimplemented("no STATUS"))
    }

    async fn cancel_shutdown(
        &self,
        _: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        Err(Status::unimplemented("no CANCEL"))
    }

    async fn update_deadline(
        &self,
        _: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        Err(Status::unimplemented("no UPDATE_DEADLINE"))
    }

    async fn kill_application(
        &self,
        request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        self.note("KillApplication", &request);
        self.play(|script| script.stop = Stop::AtOnce);
        Ok(Response::new(v1::KillApplicationResponse::default()))
    }

    type StartApplicationStream = BoxStream<'static, Result<v1::StartApplicationResponse, Status>>;

    async fn start_application(
        &self,
        _: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        Err(Status::unimplemented("no START"))
    }

    async fn conclude_shutdown(
        &self,
        _: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        Err(Status::unimplemented("no CONCLUDE"))
    }
}
