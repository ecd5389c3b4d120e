//! The admin address: `/metrics`, `/healthz`, `/readyz` over HTTP/1, and the page ([`crate::overview`]) where it is on.
//! For operators and their tools, not for callers; it changes nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use quiesce_operation::Moment;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_runtime::machine::Socket;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Acceptor, Expiry};
use quiesce_store::{Condition, Store};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use crate::driver::Handle;
use crate::hooks::Hooks;
use crate::metrics::{Metrics, Now};
use crate::overview::{Body, Overview};

/// Most connections at the same time: a few scrapers and probes.
const CONNECTIONS_MAX: usize = 32;
/// Longest wait for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection; scrapers come again.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made of.
pub(crate) struct Admin {
    pub(crate) metrics: Metrics,
    pub(crate) driver: Handle,
    pub(crate) hooks: Hooks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) condition: watch::Receiver<Condition>,
    pub(crate) drain: drain::Watch,
    /// With it every connection begins with a handshake.
    pub(crate) tls: Option<Acceptor>,
    /// Of the certificate that callers see.
    pub(crate) expiry: Option<Expiry>,
    /// The page, where it is on.
    pub(crate) overview: Option<Overview>,
}

impl Admin {
    /// Serves until drained. Connections are tasks of `tasks`.
    pub(crate) async fn run(self, listener: TcpListener, tasks: Tasks) {
        let admin = Arc::new(self);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let drain = admin.drain.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.signaled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection of the admin address could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over the bound the connection is closed at once, which is the shortest answer.
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let (admin, drain) = (Arc::clone(&admin), drain.clone());
            tasks.spawn("admin connection", async move {
                let _permit = permit;
                tokio::select! {
                    // Over its time a connection is closed.
                    _ended = tokio::time::timeout(CONNECTION_MAX, Box::pin(admin.serve(Box::new(stream), peer))) => {}
                    () = drain.signaled() => {}
                }
            });
        }
    }

    async fn serve(&self, stream: Box<dyn Socket>, peer: SocketAddr) {
        let stream = match &self.tls {
            Some(tls) => match tls.accept(stream).await {
                Ok(accepted) => accepted.stream,
                Err(error) => {
                    debug!(error = %chain(&error), "a connection of the admin address was closed");
                    return;
                }
            },
            None => stream,
        };
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request, peer).await));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            debug!(%error, "a connection of the admin address broke");
        }
    }

    async fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match self.why_not_ready() {
                None => text(StatusCode::OK, "ready\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            },
            _ => match &self.overview {
                Some(overview) => overview.answer(request, Some(peer)).await,
                None => None,
            }
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, self.known())),
        }
    }

    fn known(&self) -> String {
        let page = match self.overview {
            Some(_) => "/",
            None => "(the page is off; turn it on with --web-page)",
        };
        format!("known: /metrics /healthz /readyz {page}\n")
    }

    fn why_not_ready(&self) -> Option<String> {
        if self.drain.is_draining() {
            return Some("the scheduler is stopping".to_owned());
        }
        let condition = *self.condition.borrow();
        if condition != Condition::Good {
            return Some(condition.to_string());
        }
        if !self.driver.is_healthy() {
            return Some("an operation is not driven or cannot be stored; see the log".to_owned());
        }
        None
    }

    fn metrics(&self) -> Response<Body> {
        let now = Now {
            driver: self.driver.gauges(),
            hooks: self.hooks.tally(),
            revision: self.store.durable().borrow().as_u64(),
            condition: *self.condition.borrow(),
            certificate_seconds: self.expiry.as_ref().and_then(Expiry::seconds_left),
            time: Moment::from_millis(self.clock.now()),
        };
        match self.metrics.render(&now) {
            Ok(body) => {
                let mut response = text(StatusCode::OK, body);
                let kind = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response
}
