//! A scheduler of straw for one agent that listens: it lets it register, permits every start, and knows nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use http::Request;
use quiesce_protocol::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Response, Status};
use tower::{Service, service_fn};

use crate::plain::{self, Answer};

/// What the agent is called with.
pub(crate) const TOKEN: &str = "straw";

/// Gone when this is dropped.
pub(crate) struct Straw {
    pub(crate) address: SocketAddr,
    /// Where the agent has said that it listens.
    pub(crate) hook: watch::Receiver<Option<String>>,
    epoch: Arc<AtomicI64>,
    _server: JoinSet<()>,
}

impl Straw {
    pub(crate) async fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, hook) = watch::channel(None);
        let epoch = Arc::new(AtomicI64::new(0));
        let gateway = Gateway { hook: sender, epoch: Arc::clone(&epoch) };
        let serve = tonic::transport::Server::builder()
            .add_service(gateway)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let mut server = JoinSet::new();
        server.spawn(async move { serve.await.expect("the listener stays") });
        Ok(Self { address, hook, epoch, _server: server })
    }

    /// An epoch higher than every one before.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[derive(Clone)]
struct Gateway {
    hook: watch::Sender<Option<String>>,
    epoch: Arc<AtomicI64>,
}

impl NamedService for Gateway {
    const NAME: &'static str = "quiesce.v1.AgentGateway";
}

impl Service<Request<Body>> for Gateway {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let Self { hook, epoch } = self.clone();
        match request.uri().path() {
            "/quiesce.v1.AgentGateway/RegisterInstance" => plain::unary(
                service_fn(move |request: tonic::Request<v1::RegisterInstanceRequest>| {
                    let instance = request.into_inner().instance;
                    hook.send_replace(instance.as_ref().map(|instance| instance.endpoint.clone()));
                    let hook_token = TOKEN.to_owned();
                    let answer = v1::RegisterInstanceResponse { instance, hook_token, ..Default::default() };
                    std::future::ready(Ok::<_, Status>(Response::new(answer)))
                }),
                request,
            ),
            "/quiesce.v1.AgentGateway/AdmitStart" => plain::unary(
                service_fn(move |_: tonic::Request<v1::AdmitStartRequest>| {
                    let epoch = epoch.fetch_add(1, Ordering::Relaxed) + 1;
                    std::future::ready(Ok::<_, Status>(Response::new(v1::AdmitStartResponse { epoch })))
                }),
                request,
            ),
            _ => plain::unimplemented(),
        }
    }
}
