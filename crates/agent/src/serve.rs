//! Serving a hook on sockets: gRPC with health and reflection, and nobody let in who has no business here.
//!
//! Owns what is served and to whom. It neither binds nor dials: the caller brings connections, whatever they are made
//! of. Health is for everybody; all the rest takes the credentials that [`Access`] asks for.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use quiesce_protocol::v1::shutdown_hook_server::{SERVICE_NAME, ShutdownHookServer};
use quiesce_runtime::drain;
use quiesce_runtime::machine::Socket;
use tokio::sync::{oneshot, watch};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::service::{InterceptorLayer, LayerExt as _, Routes};
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tower::Layer as _;
use tower::util::{BoxCloneSyncService, MapResponse, MapResponseLayer};

use crate::connection::Connection;
use crate::hook::{Hook, HookRefusal};
use crate::token::Digest;

/// The agent sends an HTTP/2 PING this often (rule A3): below the 60 s after which load balancers and NAT forget a
/// silent connection.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a scheduler that let this agent attach may take to begin with HTTP/2, which it does at once. When it or the
/// network is gone just then, nobody here would ever notice, since pings come behind that. As long as for a PING.
const GREETING_LIMIT: Duration = Duration::from_secs(20);

/// Without an answer to a PING for this long the connection is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest request. The contract keeps messages under it.
const MESSAGE_MAX: usize = 1 << 20;

/// Headers of a call; ours are far smaller, and nobody shall fill the memory with more.
const HEADERS_MAX: u32 = 16 * 1024;

/// Calls at a time on one connection. A scheduler needs a handful; a person with grpcurl a few more.
const STREAMS_MAX: u32 = 64;

/// Who may call.
#[derive(Clone)]
pub struct Access(Rule);

#[derive(Clone)]
enum Rule {
    Connected,
    Bearer(watch::Receiver<Option<Digest>>),
}

/// Sets the token that [`Access::bearer`] asks for.
pub struct BearerToken(watch::Sender<Option<Digest>>);

impl Access {
    /// Whoever has the connection: it authenticates by itself (a unix socket that only its owner can open, a connection
    /// this program opened to its scheduler).
    pub fn connected() -> Self {
        Self(Rule::Connected)
    }

    /// Whoever sends `authorization: Bearer` with the token. As long as there is none, nobody.
    pub fn bearer() -> (BearerToken, Self) {
        let (sender, receiver) = watch::channel(None);
        (BearerToken(sender), Self(Rule::Bearer(receiver)))
    }

    fn check(&self, metadata: &MetadataMap) -> Result<(), HookRefusal> {
        let Rule::Bearer(token) = &self.0 else { return Ok(()) };
        let Some(digest) = *token.borrow() else {
            let reason = "not registered with the scheduler yet, so its credentials are not known".to_owned();
            return Err(HookRefusal::NotServing { reason });
        };
        let presented = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match presented {
            Some((_, token)) if digest.matches(token) => Ok(()),
            Some(_) | None => Err(HookRefusal::CredentialsInvalid),
        }
    }
}

impl BearerToken {
    /// From now on this token is asked for.
    pub fn set(&self, token: &str) {
        self.0.send_replace(Some(Digest::of(token)));
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(secret)")
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Rule::Connected => "Access(connected)",
            Rule::Bearer(_) => "Access(bearer)",
        })
    }
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The descriptors built into this program cannot be read: a bug.
    #[error("cannot build the reflection service")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The server gave up.
    #[error("cannot serve")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves `hook` on every connection of `incoming` until it ends or `drain` is announced; then no new calls are
/// accepted, and it returns when those under way have ended. A call that lasts has to be bounded by the caller.
pub async fn serve<I, C>(hook: Hook, access: Access, incoming: I, drain: drain::Watch) -> Result<(), ServeError>
where
    I: Stream<Item = io::Result<C>> + Send + 'static,
    C: Socket,
{
    let incoming = incoming.map(|accepted| accepted.map(|socket| Connection::new(socket, None, ())));
    serve_all(hook, access, incoming.boxed(), drain).await
}

/// Serves `hook` on one connection until it is lost or `drain` is announced.
pub async fn serve_connection(hook: Hook, connection: impl Socket, drain: drain::Watch) -> Result<(), ServeError> {
    let (alive, gone) = oneshot::channel::<()>();
    let connection = Connection::new(connection, Some(GREETING_LIMIT), alive);
    // The server takes the end of `incoming` for the end of its work, so that comes when the connection is dropped.
    let end = stream::once(async move {
        // Nothing is ever sent: this returns when the other half is dropped together with the connection.
        let _dropped = gone.await;
    });
    let incoming = stream::once(async { Ok(connection) }).chain(end.filter_map(|()| async { None }));
    serve_all(hook, Access::connected(), incoming.boxed(), drain).await
}

/// Everything that is served is served here, on connections of one type: a server for each would be a tenth of a small
/// agent.
pub(crate) async fn serve_all(
    hook: Hook,
    access: Access,
    incoming: BoxStream<'static, io::Result<Connection>>,
    drain: drain::Watch,
) -> Result<(), ServeError> {
    Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .http2_max_header_list_size(HEADERS_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .add_routes(routes(hook, access)?)
        .serve_with_incoming_shutdown(incoming, drain.into_signaled())
        .await
        .map_err(ServeError::Transport)
}

/// Takes calls of the hook as HTTP requests and answers them.
pub type Service = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// `hook`, for whoever has the credentials, without sockets, health or reflection.
pub fn service(hook: Hook, access: Access) -> Service {
    let hook = ShutdownHookServer::new(hook).max_decoding_message_size(MESSAGE_MAX);
    let guarded = InterceptorLayer::new(guard(access)).layer(hook);
    let plain = MapResponse::new(guarded, |response: http::Response<_>| complete(response.map(Body::new)));
    BoxCloneSyncService::new(plain)
}

/// Lets through who has the credentials.
fn guard(access: Access) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |request| {
        access.check(request.metadata()).map_err(Status::from)?;
        Ok(request)
    }
}

fn routes(hook: Hook, access: Access) -> Result<Routes, ServeError> {
    let guarded = InterceptorLayer::new(guard(access));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(quiesce_protocol::FILE_DESCRIPTOR_SET)
            // So that generic clients print error details in words.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(SERVICE_NAME)
            .with_service_name("grpc.health.v1.Health")
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    drop(health);
    let hook = ShutdownHookServer::new(hook).max_decoding_message_size(MESSAGE_MAX);
    let hook = MapResponseLayer::new(complete).named_layer(hook);
    let v1 = reflection().build_v1().map_err(ServeError::Reflection)?;
    let v1alpha = reflection().build_v1alpha().map_err(ServeError::Reflection)?;
    Ok(Routes::new(guarded.named_layer(hook))
        .add_service(guarded.named_layer(v1))
        .add_service(guarded.named_layer(v1alpha))
        .add_service(health_service))
}

/// `response`, or the same error with the details that are missing: messages that are too large or not protobuf are
/// refused before any code of the hook sees them, with a bare code.
fn complete(response: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if !status.details().is_empty() {
        return response;
    }
    let refusal = match status.code() {
        Code::OutOfRange if status.message().contains("too large") => HookRefusal::TooLarge { maximum: MESSAGE_MAX },
        Code::Internal if status.message().contains("decode") => {
            HookRefusal::field("", "the request is not a message of the expected type")
        }
        // Made by the client (deadlines, cancellations), or bugs, which carry no details.
        _ => return response,
    };
    Status::from(refusal).into_http()
}
