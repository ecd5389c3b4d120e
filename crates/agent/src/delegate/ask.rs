//! The request to stop, as Krake's controller sends it: an empty `PUT`, without token or body.
//!
//! Owns the URL it goes to and how long is waited. That the request has been sent is all that is needed: whatever is
//! answered, and whether anything is, the script has been told. Only a connection that cannot be made has told nobody.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quiesce_runtime::machine::{Network, Socket};
use quiesce_runtime::telemetry::chain;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

/// A connection on the same machine is there at once, or its other end has no room for it.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A script that follows Krake's answers before it begins its work. One that has not answered by then is said to be late;
/// it goes on being waited for, since there are others that answer when the work is done.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The connection stays open for the script's answer at most for so long, the longest grace period there is: hanging up
/// earlier could break a script that only answers when its work is done.
const OPEN_MAX: Duration = Duration::from_hours(24);

/// What is read of an answer. Nothing in it matters, but a script whose answer is not taken may stumble over that.
const ANSWER_MAX: usize = 1 << 20;

/// Where the script of an application listens: `http://127.0.0.1:10000/shutdown`.
///
/// On loopback alone: the request bears no credential, so whoever can reach the address can stop the application, and
/// where the script reports to is an address of loopback too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopUrl(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: String,
    /// `host:port`.
    address: String,
    /// What `Host` says.
    authority: HeaderValue,
    target: Uri,
}

/// Why a text is no [`StopUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseStopUrlError {
    /// No URL at all, or with a user in it.
    #[error("{0:?} is no URL such as http://127.0.0.1:10000/shutdown")]
    NoUrl(String),
    /// Something else than HTTP without TLS.
    #[error("{0:?} does not begin with http://, which is all that is spoken on loopback")]
    Scheme(String),
    /// Another machine, or it cannot be known that it is not.
    #[error("{0:?} is not on loopback (127.0.0.1, [::1] or localhost): the request bears no credential")]
    NotLoopback(String),
    /// Nothing behind the port.
    #[error("{0:?} has no path, such as /shutdown")]
    NoPath(String),
}

impl FromStr for StopUrl {
    type Err = ParseStopUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no_url = || ParseStopUrlError::NoUrl(text.to_owned());
        let parts = text.parse::<Uri>().map_err(|_| no_url())?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(no_url()) };
        if scheme != Scheme::HTTP {
            return Err(ParseStopUrlError::Scheme(text.to_owned()));
        }
        if authority.as_str().contains('@') || (authority.port().is_none() && has_port(&authority)) {
            return Err(no_url());
        }
        if !is_loopback(authority.host()) {
            return Err(ParseStopUrlError::NotLoopback(text.to_owned()));
        }
        if text.len() <= "http://".len() + authority.as_str().len() {
            return Err(ParseStopUrlError::NoPath(text.to_owned()));
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self(Arc::new(Parts {
            text: text.to_owned(),
            address: format!("{}:{port}", authority.host()),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| no_url())?,
            target: parts.path_and_query.map(Uri::from).ok_or_else(no_url)?,
        })))
    }
}

/// Whether anything stands behind a colon that follows the host.
fn has_port(authority: &Authority) -> bool {
    authority.as_str().len() > authority.host().len()
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for StopUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

/// Nobody listens: nobody has been told.
#[derive(Debug, thiserror::Error)]
#[error("nothing listens at the stop URL {url}")]
pub(crate) struct UnreachedError {
    url: String,
    #[source]
    source: io::Error,
}

impl StopUrl {
    /// Connects, and says nothing yet.
    pub(crate) async fn connect(&self, network: &dyn Network) -> Result<Pending, UnreachedError> {
        let unreached = |source| UnreachedError { url: self.0.text.clone(), source };
        let connecting = timeout(CONNECT_LIMIT, network.connect(&self.0.address, None)).await;
        let stream = connecting.map_err(|_| unreached(io::ErrorKind::TimedOut.into()))?.map_err(unreached)?;
        Ok(Pending { url: self.clone(), stream })
    }

    fn request(&self) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = self.0.target.clone();
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        headers.insert(HOST, self.0.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("quiesce-agent/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        request
    }
}

/// A connection to a script that has not been told anything yet. Dropped, it tells nothing.
pub(crate) struct Pending {
    url: StopUrl,
    stream: Box<dyn Socket>,
}

/// Tells the script, and takes its answer. What there is to say about that is put into `said`; when nobody looks at that
/// any more the script is hung up on.
pub(crate) async fn ask(pending: Pending, said: watch::Sender<String>) {
    let exchange = timeout(OPEN_MAX, exchange(pending, &said));
    tokio::select! {
        biased;
        () = said.closed() => {}
        _over = exchange => {}
    }
}

async fn exchange(pending: Pending, said: &watch::Sender<String>) {
    let Pending { url, stream } = pending;
    let broken = |error: &hyper::Error| {
        warn!(%url, error = %chain(error), "the application's script gave no answer that can be read");
        said.send_replace(format!("asked {url}, which gave no answer that can be read"));
    };
    let handshake = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(both) => both,
        Err(error) => return broken(&error),
    };
    let talk = async {
        let mut answer = pin!(sender.send_request(url.request()));
        let answer = match timeout(ANSWER_LIMIT, &mut answer).await {
            Ok(answer) => answer,
            Err(_late) => {
                warn!(%url, "the application's script has not answered yet");
                said.send_replace(format!("asked {url}, which has not answered within {} s", ANSWER_LIMIT.as_secs()));
                answer.await
            }
        };
        match answer {
            Ok(answer) => {
                said.send_replace(answered(&url, answer.status()));
                let mut body = answer.into_body();
                let mut left = ANSWER_MAX;
                // How an answer ends that nobody needs is of no interest.
                while let Some(Ok(frame)) = body.frame().await {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
            }
            Err(error) => broken(&error),
        }
    };
    let (mut talk, connection) = (pin!(talk), pin!(connection));
    tokio::select! {
        biased;
        () = &mut talk => {}
        // What was received before is still there to be read; a connection that broke says so there.
        _closed = connection => talk.await,
    }
}

fn answered(url: &StopUrl, status: StatusCode) -> String {
    if status.is_success() {
        info!(%url, status = status.as_u16(), "the application's script has been asked to stop it");
        format!("asked {url}")
    } else {
        warn!(%url, status = status.as_u16(), "the application's script answers with an error; its report counts all the same");
        format!("asked {url}, which answered with an error ({status})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_url_is_read_as_it_stands() {
        for (text, address, target) in [
            ("http://127.0.0.1:10000/shutdown", "127.0.0.1:10000", "/shutdown"),
            ("http://localhost/a/b?c=d", "localhost:80", "/a/b?c=d"),
            ("http://[::1]:8080/", "[::1]:8080", "/"),
        ] {
            let url: StopUrl = text.parse().unwrap();
            assert_eq!((url.0.address.as_str(), url.0.target.to_string().as_str()), (address, target));
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_leads_elsewhere_or_nowhere_is_refused() {
        let refused = |text: &str| text.parse::<StopUrl>().unwrap_err();
        for text in ["", "shutdown", "/shutdown", "127.0.0.1:80", "http://u@127.0.0.1/x", "http://127.0.0.1:x/y"] {
            assert_eq!(refused(text), ParseStopUrlError::NoUrl(text.to_owned()), "{text}");
        }
        for text in ["https://127.0.0.1/x", "ftp://127.0.0.1/x"] {
            assert_eq!(refused(text), ParseStopUrlError::Scheme(text.to_owned()), "{text}");
        }
        for text in ["http://10.0.0.1/x", "http://db/x", "http://127.0.0.1.example.org/x", "http://0.0.0.0:1/x"] {
            assert_eq!(refused(text), ParseStopUrlError::NotLoopback(text.to_owned()), "{text}");
        }
        for text in ["http://127.0.0.1", "http://127.0.0.1:10000"] {
            assert_eq!(refused(text), ParseStopUrlError::NoPath(text.to_owned()), "{text}");
        }
    }
}
