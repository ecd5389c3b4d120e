//! The page on the admin address: what goes on now and what went wrong, for people who would rather look than read.
//!
//! It is a client like any other: what it shows comes by way of the public services, with the credential that the browser
//! sent, so that it shows nothing its reader could not ask for, and refusals are counted and recorded as everywhere. It
//! changes nothing. Lists and events are lines of JSON; the page itself holds no data and is served to everybody.

mod view;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY};
use http::header::{HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use quiesce_protocol::v1;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use serde::Serialize;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::page::PAGE_MAX;
use crate::server::GrpcService;
use crate::watch::Watches;

/// An answer of the admin address.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How far the events reach back that a page begins with, in revisions: enough for the phases of what somebody still
/// remembers, and what a browser takes in at once. Of a revision at most one is an event.
const PAST_REVISIONS: u64 = 20_000;
/// How often a page hears that nothing has happened; one that hears nothing for longer says so.
const BOOKMARK_SECONDS: i64 = 5;

/// What is listed, and how many pages of it at most. Those that wait for somebody come first, however old they are. What a
/// browser shows quickly is some thousands; who looks for one among more asks `quiesce get operations`.
const LISTED: [(&str, usize); 3] = [("state = DEGRADED", 10), ("done = false", 20), ("done = true", 8)];
/// The same of instances.
const INSTANCE_PAGES_MAX: usize = 20;

/// One JSON text.
const JSON: &str = "application/json";
/// JSON texts, one on each line.
const LINES: &str = "application/x-ndjson";

/// The files of the page. They name no others, so that the page works where there is no way to anywhere else.
const FILES: [(&str, &str, &[u8]); 3] = [
    ("/", "text/html; charset=utf-8", include_bytes!("overview/page/index.html")),
    ("/overview.css", "text/css; charset=utf-8", include_bytes!("overview/page/overview.css")),
    ("/overview.js", "text/javascript; charset=utf-8", include_bytes!("overview/page/overview.js")),
];

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page.
pub(crate) struct Overview {
    pub(crate) scheduler: GrpcService,
    pub(crate) watches: Watches,
    /// Whoever reaches the address may look.
    pub(crate) open: bool,
}

/// One line of a stream that is not an event: how it ended.
#[derive(Serialize)]
struct Ending<'s> {
    r#type: &'static str,
    #[serde(flatten)]
    refusal: Refusal<'s>,
}

/// One line of a list that is not of it: there would be more.
#[derive(Serialize)]
struct Cut {
    r#type: &'static str,
}

/// Why there is nothing to show.
#[derive(Serialize)]
struct Refusal<'s> {
    code: String,
    reason: String,
    message: &'s str,
}

impl<'s> Refusal<'s> {
    fn of(status: &'s Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        Self { code: format!("{:?}", status.code()), reason, message: status.message() }
    }
}

impl Overview {
    /// The answer to a GET, if the path is one of the page's.
    pub(crate) async fn answer<B>(&self, request: &Request<B>, peer: Option<SocketAddr>) -> Option<Response<Body>> {
        let path = request.uri().path();
        if let Some((_, kind, content)) = FILES.iter().find(|(name, ..)| *name == path) {
            return Some(respond(StatusCode::OK, kind, Full::new(Bytes::from_static(content)).boxed_unsync()));
        }
        let wanted = path.strip_prefix("/overview/")?;
        if self.open && !names_this_machine(request) {
            let status = Status::permission_denied(
                "access is open, and this address was reached by a name that others may have given it; use its IP \
                 address or localhost",
            );
            return Some(refuse(StatusCode::MISDIRECTED_REQUEST, &status));
        }
        let asker = Asker { scheduler: self.scheduler.clone(), credential: credential(request), peer };
        let answer = match wanted {
            "operations" => asker.operations().await,
            "instances" => asker.instances().await,
            "events" => asker.events(request.uri().query(), &self.watches).await,
            one => asker.operation(one.strip_prefix("operations/")?).await,
        };
        Some(answer.unwrap_or_else(|status| refuse(http_status(status.code()), &status)))
    }
}

/// Who looks, and by what he is known.
#[derive(Clone)]
struct Asker {
    scheduler: GrpcService,
    credential: Option<HeaderValue>,
    peer: Option<SocketAddr>,
}

impl Asker {
    fn client(&self) -> SchedulerClient<GrpcService> {
        SchedulerClient::new(self.scheduler.clone())
    }

    /// `message` as it would have come over a connection of its own.
    fn ask<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(credential) = &self.credential {
            let headers = std::mem::take(request.metadata_mut());
            let mut headers = headers.into_headers();
            headers.insert(AUTHORIZATION, credential.clone());
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        }
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: self.peer });
        request
    }

    async fn operation(&self, id: &str) -> Result<Response<Body>, Status> {
        let request = self.ask(v1::GetOperationRequest { name: format!("operations/{id}") });
        let found = self.client().get_operation(request).await?.into_inner();
        let found = found.operation.ok_or_else(|| Status::internal("an answer without an operation"))?;
        Ok(respond(StatusCode::OK, JSON, Full::new(line(&view::operation(&found))).boxed_unsync()))
    }

    /// Those that wait for somebody, all that are open, and the last that are done, each as far as a page can show them.
    async fn operations(self) -> Result<Response<Body>, Status> {
        let parts = stream::iter(LISTED).flat_map(move |(filter, pages_max)| {
            let asker = self.clone();
            pages(pages_max, move |page_token| {
                let asker = asker.clone();
                async move {
                    let filter = filter.to_owned();
                    let request = v1::ListOperationsRequest { page_size: page_size(), page_token, filter };
                    let page = asker.client().list_operations(asker.ask(request)).await?.into_inner();
                    Ok((lines(page.operations.iter().map(view::operation)), page.next_page_token))
                }
            })
        });
        stream_of(parts).await
    }

    /// All instances, as far as a page can show them.
    async fn instances(self) -> Result<Response<Body>, Status> {
        let pages = pages(INSTANCE_PAGES_MAX, move |page_token| {
            let asker = self.clone();
            async move {
                let (parent, filter) = ("applications/-".to_owned(), String::new());
                let request = v1::ListInstancesRequest { parent, page_size: page_size(), page_token, filter };
                let page = asker.client().list_instances(asker.ask(request)).await?.into_inner();
                Ok((lines(page.instances.iter().map(view::instance)), page.next_page_token))
            }
        });
        stream_of(pages).await
    }

    /// What happens, behind the event with the token in `query`; without one, what has happened lately comes first.
    async fn events(self, query: Option<&str>, watches: &Watches) -> Result<Response<Body>, Status> {
        let resume_token = match query {
            Some(query) => query.strip_prefix("resume=").unwrap_or(query).to_owned(),
            None => watches.token_of_past(PAST_REVISIONS).await?,
        };
        let request = self.ask(v1::WatchOperationsRequest {
            resume_token,
            bookmark_interval: Some(prost_types::Duration { seconds: BOOKMARK_SECONDS, nanos: 0 }),
            ..v1::WatchOperationsRequest::default()
        });
        let events = self.client().watch_operations(request).await?.into_inner();
        let events = events.map_ok(|answer| line(&view::event(&answer.event.unwrap_or_default())));
        Ok(respond(StatusCode::OK, LINES, body(events)))
    }
}

/// The pages that `next` gets for the token of each, until there are no more; or enough, which a line says then.
fn pages<F, P>(pages_max: usize, next: F) -> impl Stream<Item = Result<Bytes, Status>> + Send
where
    F: FnMut(String) -> P + Send,
    P: Future<Output = Result<(Bytes, String), Status>> + Send,
{
    stream::try_unfold((next, Some(String::new()), pages_max), |(mut next, token, left)| async move {
        let Some(token) = token else { return Ok(None) };
        if left == 0 {
            return Ok(Some((line(&Cut { r#type: "CUT" }), (next, None, 0))));
        }
        let (page, following) = next(token).await?;
        Ok(Some((page, (next, (!following.is_empty()).then_some(following), left - 1))))
    })
}

/// An answer that begins once its first part is there, so that what is refused has the status of a refusal.
async fn stream_of(
    parts: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Result<Response<Body>, Status> {
    let mut parts = Box::pin(parts);
    let first = parts.next().await.unwrap_or_else(|| Ok(Bytes::new()))?;
    Ok(respond(StatusCode::OK, LINES, body(stream::iter([Ok(first)]).chain(parts))))
}

/// The parts, and a line that says so if there would have been more.
fn body(parts: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Body {
    let frames = parts.map(|part| {
        let part = part.unwrap_or_else(|status| line(&Ending { r#type: "ENDED", refusal: Refusal::of(&status) }));
        Ok(Frame::data(part))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn page_size() -> i32 {
    i32::try_from(PAGE_MAX).unwrap_or(i32::MAX)
}

fn line(content: &impl Serialize) -> Bytes {
    lines(std::iter::once(content))
}

fn lines(contents: impl Iterator<Item = impl Serialize>) -> Bytes {
    let mut text = Vec::new();
    for content in contents {
        // Structs of numbers and texts, written to memory.
        if serde_json::to_writer(&mut text, &content).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

/// What a browser was told to send: a token; nothing else is passed on.
fn credential<B>(request: &Request<B>) -> Option<HeaderValue> {
    request.headers().get(AUTHORIZATION).cloned()
}

/// Whether the browser calls this address by a name that is nobody's to give away. Any page can have its own name resolve
/// to this machine and then read, as its own, what is served without a credential.
fn names_this_machine<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.parse::<http::uri::Authority>().map(|authority| authority.host().to_owned()).unwrap_or_default();
    name == "localhost" || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::OutOfRange => StatusCode::GONE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable | Code::Aborted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn refuse(code: StatusCode, status: &Status) -> Response<Body> {
    respond(code, JSON, Full::new(line(&Refusal::of(status))).boxed_unsync())
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
