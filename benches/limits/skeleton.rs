//! A scheduler without content: makes the calls of a deletion, with no store, no checks and no memory of any of it.
//!
//! What it costs is what tonic costs: no scheduler that speaks this protocol can be faster.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use http::Request;
use prost::Message as _;
use quiesce_protocol::v1;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use tower::{Service, service_fn};
use v1::shutdown_hook_client::ShutdownHookClient;

use crate::arguments::SkeletonOptions;
use crate::plain::{self, Answer};

/// Events that a watcher may be behind. Nobody is: the one watcher reads them as they come.
const BEHIND_MAX: usize = 1 << 16;
/// An operation of this name does not exist; to ask for it lets the bare streams go that are open.
pub(crate) const GO: &str = "operations/go";
/// What it says before the address.
pub(crate) const LISTENS: &str = "skeleton listens on ";

#[derive(Clone)]
struct Skeleton {
    inner: Arc<Inner>,
}

struct Inner {
    hook: ShutdownHookClient<Channel>,
    template: v1::OperationEvent,
    encoded: Bytes,
    events: usize,
    watchers: broadcast::Sender<v1::WatchOperationsResponse>,
    /// How often bare streams were let go.
    go: watch::Sender<usize>,
    count: AtomicU64,
}

/// Serves until it is killed.
pub(crate) async fn serve(options: &SkeletonOptions) -> anyhow::Result<()> {
    let encoded = Bytes::from(std::fs::read(&options.event)?);
    let hook = Endpoint::from_shared(format!("http://{}", options.hook))?.tcp_nodelay(true).connect_lazy();
    let inner = Inner {
        hook: ShutdownHookClient::new(hook),
        template: v1::OperationEvent::decode(encoded.clone())?,
        encoded,
        events: options.events,
        watchers: broadcast::Sender::new(BEHIND_MAX),
        go: watch::Sender::new(0),
        count: AtomicU64::new(0),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{LISTENS}{}", listener.local_addr()?);
    let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(Skeleton { inner: Arc::new(inner) });
    Ok(server.serve_with_incoming(TcpListenerStream::new(listener)).await?)
}

impl NamedService for Skeleton {
    const NAME: &'static str = "quiesce.v1.Scheduler";
}

impl Service<Request<Body>> for Skeleton {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let skeleton = self.clone();
        match request.uri().path() {
            "/quiesce.v1.Scheduler/DeleteApplication" => plain::unary(
                service_fn(move |_: tonic::Request<v1::DeleteApplicationRequest>| {
                    std::future::ready(Ok::<_, Status>(Response::new(skeleton.delete())))
                }),
                request,
            ),
            "/quiesce.v1.Scheduler/GetOperation" => plain::unary(
                service_fn(move |request: tonic::Request<v1::GetOperationRequest>| {
                    if request.get_ref().name == GO {
                        skeleton.inner.go.send_modify(|times| *times += 1);
                    }
                    std::future::ready(Ok::<_, Status>(Response::new(v1::GetOperationResponse::default())))
                }),
                request,
            ),
            "/quiesce.v1.Scheduler/WatchOperations" => plain::streaming(
                service_fn(move |request: tonic::Request<v1::WatchOperationsRequest>| {
                    // A number in place of a filter: so many events at once, and nothing else.
                    let bare = request.get_ref().filter.parse().ok();
                    std::future::ready(Ok::<_, Status>(Response::new(match bare {
                        Some(count) => skeleton.bare(count),
                        None => skeleton.watch(),
                    })))
                }),
                request,
            ),
            _ => plain::unimplemented(),
        }
    }
}

impl Skeleton {
    fn delete(&self) -> v1::DeleteApplicationResponse {
        let number = self.inner.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("operations/{number}");
        let operation =
            v1::Operation { name: name.clone(), ..self.inner.template.operation.clone().unwrap_or_default() };
        let skeleton = self.clone();
        tokio::spawn(async move {
            if let Err(error) = skeleton.stop(&name).await {
                eprintln!("skeleton: {error}");
            }
        });
        v1::DeleteApplicationResponse { operation: Some(operation), ..Default::default() }
    }

    /// The calls of one deletion.
    async fn stop(&self, name: &str) -> Result<(), Status> {
        let mut hook = self.inner.hook.clone();
        hook.get_hook_info(v1::GetHookInfoRequest {}).await?;
        hook.check_shutdown(v1::CheckShutdownRequest::default()).await?;
        let request = v1::ShutdownRequest { shutdown_id: name.to_owned(), ..Default::default() };
        let mut reports = hook.shutdown(request).await?.into_inner();
        while let Some(_report) = reports.message().await? {}
        hook.get_hook_info(v1::GetHookInfoRequest {}).await?;
        hook.conclude_shutdown(v1::ConcludeShutdownRequest::default()).await?;
        for number in 1..=self.inner.events {
            let mut event = self.inner.template.clone();
            let operation = event.operation.get_or_insert_default();
            name.clone_into(&mut operation.name);
            operation.done = number == self.inner.events;
            // Nobody may watch.
            let _watched = self.inner.watchers.send(v1::WatchOperationsResponse { event: Some(event) });
        }
        Ok(())
    }

    fn watch(&self) -> BoxStream<'static, Result<Bytes, Status>> {
        // Begins with something, as a watch does.
        let first = stream::once(std::future::ready(Ok(Bytes::new())));
        let events = stream::unfold(self.inner.watchers.subscribe(), |mut events| async move {
            let event = events.recv().await.ok()?.event.unwrap_or_default();
            Some((Ok(event.encode_to_vec().into()), events))
        });
        first.chain(events).boxed()
    }

    fn bare(&self, count: usize) -> BoxStream<'static, Result<Bytes, Status>> {
        let (event, mut go) = (self.inner.encoded.clone(), self.inner.go.subscribe());
        let begin = stream::once(async move { go.changed().await.ok() }).filter_map(std::future::ready);
        begin.flat_map(move |()| stream::iter(std::iter::repeat_n(Ok(event.clone()), count))).boxed()
    }
}
