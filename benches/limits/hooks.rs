//! Scripted hooks: one server at one address plays the hook of any number of instances. Each shutdown is accepted, goes on,
//! waits until all are released, and has stopped: three reports.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Instant;

use futures::{Stream, StreamExt as _, stream};
use quiesce_protocol::v1;
use quiesce_protocol::v1::shutdown_hook_server::{ShutdownHook, ShutdownHookServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a complete hook can do; of what is not asked for here the rest would not be used.
const CAPABILITIES: [v1::Capability; 5] = [
    v1::Capability::Check,
    v1::Capability::Settle,
    v1::Capability::Durable,
    v1::Capability::Hold,
    v1::Capability::Conclude,
];

/// The hooks of all instances. Clones are the same.
#[derive(Clone)]
pub(crate) struct Hooks {
    inner: Arc<Inner>,
}

struct Inner {
    released: watch::Sender<bool>,
    /// How many calls of Shutdown have come, and when the last one did.
    told: watch::Sender<(usize, Option<Instant>)>,
    /// Rises over all shutdowns, and so within each of them.
    sequence: AtomicI32,
    asked: AtomicUsize,
}

/// Hooks that listen; gone when this is dropped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    _server: JoinSet<()>,
}

impl Hooks {
    /// With `released` nobody waits.
    pub(crate) fn new(released: bool) -> Self {
        let inner = Inner {
            released: watch::Sender::new(released),
            told: watch::Sender::new((0, None)),
            sequence: AtomicI32::new(0),
            asked: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) async fn listen(&self) -> anyhow::Result<Listening> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serve = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(ShutdownHookServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let mut server = JoinSet::new();
        server.spawn(async move { serve.await.expect("the listener stays") });
        Ok(Listening { address, _server: server })
    }

    /// Lets every shutdown go on to its end, or those that come from now on wait.
    pub(crate) fn release(&self, released: bool) {
        self.inner.released.send_replace(released);
    }

    /// Calls of Shutdown so far, and when the last one came.
    pub(crate) fn told(&self) -> watch::Receiver<(usize, Option<Instant>)> {
        self.inner.told.subscribe()
    }

    /// Waits until Shutdown was called `count` times in all.
    pub(crate) async fn told_times(&self, count: usize) -> anyhow::Result<()> {
        self.told().wait_for(|(told, _)| *told >= count).await?;
        Ok(())
    }

    /// How often the hooks were asked who they are.
    pub(crate) fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::Relaxed)
    }

    fn report(&self, id: &str, phase: v1::ShutdownPhase) -> v1::ShutdownStatus {
        let sequence = self.inner.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        v1::ShutdownStatus { shutdown_id: id.to_owned(), sequence, phase: phase.into(), ..Default::default() }
    }

    fn result(&self, request: v1::ShutdownRequest) -> v1::ShutdownStatus {
        v1::ShutdownStatus {
            completion_token: request.completion_token,
            result: Some(v1::StopResult {
                outcome: v1::stop_result::Outcome::Stopped.into(),
                evidence: v1::Evidence::GroupEmpty.into(),
                clean: Some(true),
                held: true,
                ..Default::default()
            }),
            ..self.report(&request.shutdown_id, v1::ShutdownPhase::Stopped)
        }
    }
}

type Reports<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ShutdownHook for Hooks {
    async fn get_hook_info(
        &self,
        _request: Request<v1::GetHookInfoRequest>,
    ) -> Result<Response<v1::GetHookInfoResponse>, Status> {
        self.inner.asked.fetch_add(1, Ordering::Relaxed);
        // Of whose application it is asked nobody says, so nothing is said of its state.
        let info =
            v1::HookInfo { capabilities: CAPABILITIES.into_iter().map(Into::into).collect(), ..Default::default() };
        Ok(Response::new(v1::GetHookInfoResponse { info: Some(info) }))
    }

    async fn check_shutdown(
        &self,
        _request: Request<v1::CheckShutdownRequest>,
    ) -> Result<Response<v1::CheckShutdownResponse>, Status> {
        Ok(Response::new(v1::CheckShutdownResponse { ok: true, ..Default::default() }))
    }

    type ShutdownStream = Reports<v1::ShutdownResponse>;

    async fn shutdown(&self, request: Request<v1::ShutdownRequest>) -> Result<Response<Self::ShutdownStream>, Status> {
        let now = Instant::now();
        self.inner.told.send_modify(|(count, last)| (*count, *last) = (*count + 1, Some(now)));
        let request = request.into_inner();
        let first = [v1::ShutdownPhase::Accepted, v1::ShutdownPhase::Stopping];
        let first = first.map(|phase| self.report(&request.shutdown_id, phase));
        let (hooks, mut released) = (self.clone(), self.inner.released.subscribe());
        let last = stream::once(async move {
            // The sender is in `hooks`.
            let _open = released.wait_for(|released| *released).await.is_ok();
            hooks.result(request)
        });
        let answer = |status| Ok(v1::ShutdownResponse { status: Some(status) });
        Ok(Response::new(Box::pin(stream::iter(first).chain(last).map(answer))))
    }

    async fn get_shutdown(
        &self,
        _request: Request<v1::GetShutdownRequest>,
    ) -> Result<Response<v1::GetShutdownResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_shutdown(
        &self,
        _request: Request<v1::CancelShutdownRequest>,
    ) -> Result<Response<v1::CancelShutdownResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_deadline(
        &self,
        _request: Request<v1::UpdateDeadlineRequest>,
    ) -> Result<Response<v1::UpdateDeadlineResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn kill_application(
        &self,
        _request: Request<v1::KillApplicationRequest>,
    ) -> Result<Response<v1::KillApplicationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type StartApplicationStream = Reports<v1::StartApplicationResponse>;

    async fn start_application(
        &self,
        _request: Request<v1::StartApplicationRequest>,
    ) -> Result<Response<Self::StartApplicationStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn conclude_shutdown(
        &self,
        _request: Request<v1::ConcludeShutdownRequest>,
    ) -> Result<Response<v1::ConcludeShutdownResponse>, Status> {
        Ok(Response::new(v1::ConcludeShutdownResponse {}))
    }
}
