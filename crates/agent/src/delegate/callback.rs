//! The way back: where the script reports that it is done, in the words of Krake's API.
//!
//! Owns the address and the token the application finds in its environment, and the answers. Whoever has the token is
//! heard, nobody else; what a report means is decided by whoever receives it. The token itself is kept nowhere: the
//! application has it, and to recognise it a digest is enough.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use quiesce_runtime::machine::{Listener, Machine, Socket};
use quiesce_runtime::tasks::Tasks;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::token::{Digest, Token};

/// What the application finds the address of its reports under.
const URL_VARIABLE: &str = "KRAKE_SHUTDOWN_URL";
/// What it finds the token for them under.
const TOKEN_VARIABLE: &str = "KRAKE_SHUTDOWN_TOKEN";

/// Nobody else than the application is to reach it.
const ANY_PORT: &str = "127.0.0.1:0";

/// Most connections at the same time. A script needs one.
const CONNECTIONS_MAX: usize = 16;
/// Longest wait for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Longest life of a connection, which bears one report; the answer waits for one small file to be written.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// Largest head of a request; a script's is some 300 bytes.
const HEAD_MAX: usize = 16 << 10;
/// Largest body; a script's has 56 bytes.
const BODY_MAX: usize = 4 << 10;
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Reports that wait for the receiver, which is busy for the time of a write at most. Others wait in their connections.
const REPORTS_MAX: usize = 4;

/// Where the script of a run reports, and how it is recognised. Goes into the journal: the application keeps the
/// environment it was started with, so the next agent has to listen in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Callback {
    address: SocketAddr,
    path: String,
    token: Digest,
}

/// Somebody who has the token reports that the application's script is done.
#[derive(Debug)]
pub(crate) struct ScriptReport {
    reply: oneshot::Sender<Reception>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reception {
    /// The script was asked, and this is the answer.
    Counted,
    /// Nobody has asked the script to stop anything.
    Unasked,
}

impl ScriptReport {
    /// Tells the script. One that has hung up does not want to know.
    pub(crate) fn answer(self, reception: Reception) {
        let _hung_up = self.reply.send(reception);
    }
}

/// A way back that is open but not served yet.
pub(crate) struct Opened {
    /// For the journal.
    pub(crate) callback: Callback,
    /// What the application finds in its environment: the only place the token goes to.
    pub(crate) variables: [(&'static str, String); 2],
    listener: Box<dyn Listener>,
}

/// Opens a way back for an application that is about to be started, with a port and a token of its own.
pub(crate) async fn open(machine: &Machine, application: &str) -> io::Result<Opened> {
    let listener = machine.network.listen(ANY_PORT, None).await?;
    let address = listener.local_addr()?;
    let token = Token::fresh(machine)?;
    let path = format!("/kubernetes/namespaces/system:admin/applications/{application}/shutdown");
    let variables = [(URL_VARIABLE, format!("http://{address}{path}")), (TOKEN_VARIABLE, token.expose().to_owned())];
    Ok(Opened { callback: Callback { address, path, token: token.digest() }, variables, listener })
}

impl Opened {
    /// Hears reports until the receiver is dropped.
    pub(crate) fn serve(self, tasks: &Tasks) -> mpsc::Receiver<ScriptReport> {
        serve(self.listener, self.callback, tasks)
    }
}

impl Callback {
    /// Hears reports again where a running application was told to send them.
    pub(crate) async fn reopen(&self, machine: &Machine, tasks: &Tasks) -> io::Result<mpsc::Receiver<ScriptReport>> {
        let listener = machine.network.listen(&self.address.to_string(), None).await?;
        Ok(serve(listener, self.clone(), tasks))
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(listener: Box<dyn Listener>, callback: Callback, tasks: &Tasks) -> mpsc::Receiver<ScriptReport> {
    let (reports, received) = mpsc::channel(REPORTS_MAX);
    let door = Arc::new(Door { callback, reports, has_warned: AtomicBool::new(false) });
    let connections = tasks.clone();
    tasks.spawn("reports of the application's script", door.run(listener, connections));
    received
}

struct Door {
    callback: Callback,
    reports: mpsc::Sender<ScriptReport>,
    /// One line is enough for a person; a stranger could write any number of them.
    has_warned: AtomicBool,
}

impl Door {
    async fn run(self: Arc<Self>, listener: Box<dyn Listener>, tasks: Tasks) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.reports.closed() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    warn!(%error, "a connection of the application's script could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Over the bound the connection is closed at once, which is the shortest answer.
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let door = Arc::clone(&self);
            tasks.spawn("report of the application's script", async move {
                let _permit = permit;
                // Over its time a connection is closed.
                let _in_time = timeout(CONNECTION_LIMIT, Box::pin(door.serve(stream))).await;
            });
        }
    }

    async fn serve(&self, stream: Box<dyn Socket>) {
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(request).await) });
        let mut builder = http1::Builder::new();
        builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(HEAD_MAX);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            debug!(%error, "a connection of the application's script broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        // Read whatever the answer will be: hanging up on bytes that were not read may destroy it.
        let body = Limited::new(body, BODY_MAX).collect().await;
        if head.uri.path() != self.callback.path {
            return problem(StatusCode::NOT_FOUND, "no such application");
        }
        if head.method != Method::PUT {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, "only PUT");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("PUT"));
            return answer;
        }
        let body = match body {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
            }
            Err(_broken) => return problem(StatusCode::BAD_REQUEST, "the body cannot be read"),
        };
        let Ok(Value::Object(body)) = serde_json::from_slice(&body) else {
            return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is no JSON object");
        };
        if !body.get("token").and_then(Value::as_str).is_some_and(|token| self.callback.token.matches(token)) {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                warn!("somebody reports for the application's script with a token that is not the script's; not heard");
            }
            return problem(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
        }
        let (reply, reception) = oneshot::channel();
        let gone = || problem(StatusCode::NOT_FOUND, "the application has ended");
        if self.reports.send(ScriptReport { reply }).await.is_err() {
            return gone();
        }
        match reception.await {
            Ok(Reception::Counted) => state("READY_FOR_ACTION"),
            Ok(Reception::Unasked) => state("RUNNING"),
            Err(_dropped) => gone(),
        }
    }
}

/// As much of Krake's answer as a script can look at.
fn state(state: &str) -> Response<Full<Bytes>> {
    let body = json!({ "api": "kubernetes", "kind": "Application", "status": { "state": state } });
    json(StatusCode::OK, "application/json; charset=utf-8", &body)
}

fn problem(status: StatusCode, title: &str) -> Response<Full<Bytes>> {
    json(status, "application/problem+json", &json!({ "status": status.as_u16(), "title": title }))
}

fn json(status: StatusCode, kind: &'static str, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
