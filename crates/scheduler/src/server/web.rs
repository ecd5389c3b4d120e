//! gRPC-Web: the same services for browsers and whatever else speaks plain HTTP.
//!
//! Translating is the business of tonic-web. What is decided here is which pages may call. A browser says where the page
//! comes from that makes it call (`origin`), and that has to be on the list; on an empty list no page is. This also holds where
//! access is open: a page from anywhere, loaded by somebody who can reach the scheduler, must not stop an application.
//! What is no browser sends no origin and is let through to where everybody is asked who he is.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, Ready, ready};
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::debug;

/// How long a browser may remember that a page may call.
const REMEMBER: Duration = Duration::from_secs(600);

/// The origin of pages that may call: `https://ops.example.net`, as browsers send it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(String);

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be scheme, host and, if need be, port, as https://ops.example.net, in lower case, without path and usual port"
)]
pub struct OriginError;

impl Origin {
    /// Reads one.
    ///
    /// # Errors
    /// It is not what a browser sends, and would never match.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let (scheme, place) = text.split_once("://").ok_or(OriginError)?;
        // A browser leaves out the port that goes without saying.
        let usual = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(OriginError),
        };
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
        let uri: http::Uri = text.parse().map_err(|_| OriginError)?;
        let host = uri.host().unwrap_or_default();
        let whole = match uri.port_u16() {
            Some(port) => port != usual && place == format!("{host}:{port}"),
            None => place == host,
        };
        (whole && place.bytes().all(allowed)).then(|| Self(text.to_owned())).ok_or(OriginError)
    }

    /// As browsers send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tells browsers which pages may call, and what of the answers those may see.
pub(super) fn cors(origins: &[Origin]) -> CorsLayer {
    let known = origins.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(known))
        .allow_methods([Method::POST])
        .allow_headers(
            [AUTHORIZATION, CONTENT_TYPE]
                .into_iter()
                .chain(
                    ["grpc-timeout", "x-grpc-web", "x-user-agent", "connect-protocol-version"]
                        .map(HeaderName::from_static),
                )
                .collect::<Vec<_>>(),
        )
        .expose_headers(["grpc-status", "grpc-message", "grpc-status-details-bin"].map(HeaderName::from_static))
        .max_age(REMEMBER)
}

/// Sends away what pages make browsers ask that are not on the list.
#[derive(Debug, Clone)]
pub(super) struct KnownOrigins {
    origins: std::sync::Arc<[Origin]>,
}

impl KnownOrigins {
    pub(super) fn new(origins: &[Origin]) -> Self {
        Self { origins: origins.into() }
    }
}

impl<S> Layer<S> for KnownOrigins {
    type Service = Known<S>;

    fn layer(&self, inner: S) -> Known<S> {
        Known { inner, layer: self.clone() }
    }
}

/// A service for known pages, and for whatever is no page.
#[derive(Debug, Clone)]
pub(super) struct Known<S> {
    inner: S,
    layer: KnownOrigins,
}

impl<S, B> Service<Request<B>> for Known<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut origins = request.headers().get_all(ORIGIN).iter();
        let known =
            origins.all(|sent| self.layer.origins.iter().any(|known| known.as_str().as_bytes() == sent.as_bytes()));
        if known {
            return Either::Left(self.inner.call(request));
        }
        debug!(origin = ?request.headers().get(ORIGIN), "a page that is not on the list of web.origins wanted to call");
        let text = "pages of this origin may not call; see web.origins in the scheduler's configuration\n";
        let mut refused = Response::new(Body::new(text.to_owned()));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        Either::Right(ready(Ok(refused)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_never_send_is_no_origin() {
        for good in ["https://ops.example.net", "http://localhost:8080", "https://127.0.0.1:80", "http://[::1]:8080"] {
            assert_eq!(Origin::parse(good).as_ref().map(Origin::as_str), Ok(good));
        }
        for bad in [
            "",
            "*",
            "null",
            "ops.example.net",
            "https://",
            "https://ops.example.net/",
            "https://Ops.example.net",
            "https://a b",
            "ftp://x",
            "https://user@x",
            "https://x?y",
            "https://x:port",
            "https://x:443",
            "https://x:",
        ] {
            assert_eq!(Origin::parse(bad), Err(OriginError), "{bad}");
        }
    }
}
