//! What every call passes through: a span, a count, a bound, and details for errors that gRPC itself makes.
//!
//! tonic refuses messages that are too large or not protobuf, and methods nobody serves, before any handler runs, with a
//! bare code. Here they get what the contract promises of every error.

mod arrival;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};
use tracing::{Instrument, debug, info_span};

use crate::access::{self, Access, Call, Entry, Made};
use crate::identity;
use crate::metrics::Metrics;
use crate::status::Problem;
use crate::traces::Traces;
use arrival::Arrival;
pub(crate) use arrival::MESSAGE_BYTES_MAX;

/// Most calls being handled at the same time (streams count until they begin), each from when its request is there. Far
/// above what a store with group commit needs to be busy; below what would fill the memory with messages of 1 MiB each.
const CALLS_MAX: usize = 512;

/// Puts [`Rpc`] around services.
#[derive(Clone)]
pub(crate) struct RpcLayer {
    metrics: Metrics,
    access: Arc<Access>,
    traces: Traces,
    arrival: Arc<Arrival>,
    permits: Arc<Semaphore>,
}

impl RpcLayer {
    pub(crate) fn new(metrics: Metrics, access: Arc<Access>, traces: Traces) -> Self {
        let (arrival, permits) = (Arc::new(Arrival::new()), Arc::new(Semaphore::new(CALLS_MAX)));
        Self { metrics, access, traces, arrival, permits }
    }
}

impl RpcLayer {
    /// The request with who makes it. Health is for everybody, and what is served nowhere is said to everybody.
    async fn known(
        &self,
        service: &str,
        method: &str,
        mut request: Request<Body>,
        entry: &Arc<Entry>,
    ) -> Result<Request<Body>, Problem> {
        if service == HEALTH || service == UNKNOWN {
            return Ok(request);
        }
        let caller = self.access.gate(method, request.headers(), request.extensions()).await?;
        entry.caller(&caller);
        if REFLECTION.contains(&service) {
            caller.permit(&access::LOOKING)?;
        }
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Arc::clone(entry));
        Ok(request)
    }

    /// The request, once all of it is there. Reflection converses: there a request has no end.
    async fn arrived(&self, service: &str, request: Request<Body>) -> Result<Request<Body>, Problem> {
        if REFLECTION.contains(&service) {
            return Ok(request);
        }
        let (head, body) = request.into_parts();
        Ok(Request::from_parts(head, self.arrival.whole(body).await?))
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = Rpc<S>;

    fn layer(&self, inner: S) -> Rpc<S> {
        Rpc { inner, layer: self.clone() }
    }
}

/// A service whose calls are seen, counted and bounded.
#[derive(Clone)]
pub(crate) struct Rpc<S> {
    inner: S,
    layer: RpcLayer,
}

impl<S> Service<Request<Body>> for Rpc<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one that is used.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let layer = self.layer.clone();
        let (service, method) = name(request.uri().path());
        let span = info_span!("rpc", rpc.service = service, rpc.method = method);
        let handle = async move {
            let begin = Instant::now();
            let open = layer.metrics.call(service, method);
            let mut request = request;
            let traced = is_traced(service, method).then(|| layer.traces.call(request.headers(), service, method));
            if let Some(context) = traced.as_ref().and_then(|traced| traced.context.clone()) {
                request.extensions_mut().insert(context);
            }
            let (entry, from) = (Arc::new(Entry::default()), identity::of(request.extensions()).address);
            let request = match layer.known(service, method, request, &entry).await {
                // Who calls is known before anything of the message is kept.
                Ok(request) => layer.arrived(service, request).await,
                Err(problem) => Err(problem),
            };
            let response = match request {
                Ok(request) => match layer.permits.try_acquire() {
                    Ok(_permit) => complete(inner.call(request).await?, method),
                    Err(_) => Status::from(Problem::LimitExceeded { limit: "calls at the same time" }).into_http(),
                },
                Err(problem) => Status::from(problem).into_http(),
            };
            if let Some(made) = response.extensions().get::<Made>() {
                entry.made(made.clone());
            }
            let (answer, error) = code(&response);
            let call = Call { service, method, from, code: answer, error: &error };
            let response = match layer.access.answered(&entry, call).await {
                Ok(()) => response,
                Err(problem) => Status::from(problem).into_http(),
            };
            let (code, reason) = code(&response);
            if let Some(traced) = traced {
                traced.answered(code, &reason);
            }
            open.answered(code, begin.elapsed());
            debug!(rpc.code = ?code, took = ?begin.elapsed(), "call answered");
            Ok(response)
        };
        Box::pin(handle.instrument(span))
    }
}

/// The code of an answer and the reason of an error; one whose trailers are still to come has begun well.
fn code(response: &Response<Body>) -> (Code, String) {
    let Some(status) = Status::from_header_map(response.headers()) else { return (Code::Ok, String::new()) };
    (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default())
}

/// `response`, or the same error with the details that were missing.
fn complete(response: Response<Body>, method: &'static str) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if !status.details().is_empty() {
        return response;
    }
    let problem = match status.code() {
        Code::OutOfRange if status.message().contains("too large") => {
            Problem::MessageTooLarge { maximum: MESSAGE_BYTES_MAX }
        }
        Code::Internal if status.message().contains("decode") => {
            Problem::field("", "the request is not a message of the expected type")
        }
        Code::Unimplemented => Problem::NotImplemented(method.to_owned()),
        // Deadlines and cancellations are made by the client; the rest are bugs, which carry no details.
        _ => return response,
    };
    Status::from(problem).into_http()
}

/// Calls of the contract that are answered once. A watch is no part of what a caller does, and a span of hours helps nobody.
fn is_traced(service: &str, method: &str) -> bool {
    service.starts_with("quiesce.") && method != UNKNOWN && !method.starts_with("Watch")
}

const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];
const HEALTH: &str = "grpc.health.v1.Health";
const UNKNOWN: &str = "unknown";
const SERVICES: [&str; 6] =
    ["quiesce.v1.Scheduler", "quiesce.v1.AgentGateway", "quiesce.v1.Access", HEALTH, REFLECTION[0], REFLECTION[1]];

/// Every method that is served. Paths come from strangers and are no labels.
const METHODS: [&str; 37] = [
    "GetServerInfo",
    "CreateApplication",
    "GetApplication",
    "ListApplications",
    "UpdateApplication",
    "MigrateApplication",
    "DeleteApplication",
    "CreateCluster",
    "GetCluster",
    "ListClusters",
    "UpdateCluster",
    "DeleteCluster",
    "GetInstance",
    "ListInstances",
    "GetOperation",
    "ListOperations",
    "WatchOperation",
    "WatchOperations",
    "CancelOperation",
    "RetryOperation",
    "ExtendOperation",
    "ConfirmOperation",
    "RegisterInstance",
    "DeregisterInstance",
    "AdmitStart",
    "ReportEnd",
    "CompleteShutdown",
    "ExtendDeadline",
    "CreateToken",
    "ListTokens",
    "RevokeToken",
    "Check",
    "List",
    "Watch",
    "ServerReflectionInfo",
    UNKNOWN,
    "",
];

fn name(path: &str) -> (&'static str, &'static str) {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let known = |all: &'static [&'static str], one: &str| all.iter().copied().find(|known| *known == one);
    (known(&SERVICES, service).unwrap_or(UNKNOWN), known(&METHODS, method).unwrap_or(UNKNOWN))
}
