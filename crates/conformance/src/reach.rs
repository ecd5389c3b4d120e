//! How a hook is reached: where it listens, or over a connection it has opened itself.
//!
//! Owns sockets until HTTP/2 takes them over. One connection is one `Line`: it is not made again behind our back, so
//! that a check knows what it speaks over.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::tls::{ConnectError, Connector};
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Http};
use tonic::{Request, Status};
use tower::service_fn;

use crate::tap::{Handle, Tap};

/// Longest wait for a connection to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// What is spoken, for ALPN.
const PROTOCOL: &[u8] = b"h2";
/// Where calls seem to go; nothing is ever dialled by this name.
const AUTHORITY: &str = "http://hook.quiesce.invalid";

/// Where a hook listens.
#[derive(Clone)]
pub struct Endpoint {
    machine: Machine,
    address: String,
    tls: Option<Connector>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address:?} {problem}; write 127.0.0.1:7080, unix:/run/hook.sock or https://hook.example.net:7080")]
pub struct EndpointError {
    address: String,
    problem: &'static str,
}

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The operating system says why.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// TLS says why.
    #[error("cannot make the connection to {address} secure")]
    Secure {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: ConnectError,
    },
    /// HTTP/2 could not be set up.
    #[error("cannot speak HTTP/2 with {address}")]
    Http {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// It has not dialled in.
    #[error("the hook has not dialled in for {0:?}")]
    Absent(Duration),
}

impl Endpoint {
    /// `HOST:PORT`, `unix:/PATH`, `http://HOST:PORT`, or with `tls` `https://HOST:PORT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(address: &str, tls: Option<Connector>) -> Result<Self, EndpointError> {
        Self::on(Machine::local(), address, tls)
    }

    /// The same, seen from another machine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn on(machine: Machine, address: &str, tls: Option<Connector>) -> Result<Self, EndpointError> {
        let wrong = |problem| EndpointError { address: address.to_owned(), problem };
        if address.starts_with("unix:") {
            if address.len() == "unix:".len() {
                return Err(wrong("has no path"));
            }
            return Ok(Self { machine, address: address.to_owned(), tls: None });
        }
        let (secure, bare) = match address.split_once("://") {
            Some(("https", bare)) => (true, bare),
            Some(("http", bare)) => (false, bare),
            Some(_) => return Err(wrong("is neither http:// nor https://")),
            None => (false, address),
        };
        let bare = bare.trim_end_matches('/');
        let port = bare.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        match (port, secure, tls) {
            (None, ..) => Err(wrong("is not HOST:PORT")),
            (Some(_), true, None) => Err(wrong("is for TLS, and there are no files for it (hook.tls)")),
            (Some(_), true, tls) => Ok(Self { machine, address: bare.to_owned(), tls }),
            (Some(_), false, _) => Ok(Self { machine, address: bare.to_owned(), tls: None }),
        }
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> Result<Line, ReachError> {
        let socket = self.open(PROTOCOL).await?;
        Line::over(socket).await.map_err(|source| ReachError::Http { address: self.address.clone(), source })
    }

    /// The same way to another address.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { address: address.to_owned(), ..self.clone() }
    }

    /// A connection on which nothing was said; with TLS for `protocol`.
    pub(crate) async fn open(&self, protocol: &[u8]) -> Result<Box<dyn Socket>, ReachError> {
        let failed = |source| ReachError::Connect { address: self.address.clone(), source };
        let connecting = async {
            match self.address.strip_prefix("unix:") {
                Some(path) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Socket>),
                None => self.machine.network.connect(&self.address, None).await,
            }
        };
        let socket = tokio::time::timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_elapsed| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        match &self.tls {
            Some(tls) => {
                let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _port)| host);
                let secured = Box::pin(tls.connect(socket, host, protocol)).await;
                secured.map_err(|source| ReachError::Secure { address: self.address.clone(), source })
            }
            None => Ok(socket),
        }
    }
}

/// One connection to a hook. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    pub(crate) handle: Handle,
}

impl Line {
    /// Speaks HTTP/2 as client over `socket`. When it breaks it is over for good.
    pub(crate) async fn over(socket: Box<dyn Socket>) -> Result<Self, tonic::transport::Error> {
        let (tap, handle) = Tap::new(socket);
        let once = Mutex::new(Some(TokioIo::new(tap)));
        let connector = service_fn(move |_authority| {
            let socket = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            std::future::ready(socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
        });
        let channel = Http::from_static(AUTHORITY).connect_with_connector(connector).await?;
        Ok(Self { channel, handle })
    }

    pub(crate) fn client(&self, bearer: Option<&str>) -> Hook {
        ShutdownHookClient::with_interceptor(self.channel.clone(), Credential::new(bearer))
    }
}

/// A client of a hook.
pub(crate) type Hook = ShutdownHookClient<InterceptedService<Channel, Credential>>;

/// Says with every call who calls.
#[derive(Clone)]
pub struct Credential(Option<MetadataValue<Ascii>>);

impl Credential {
    pub(crate) fn new(bearer: Option<&str>) -> Self {
        // One that cannot be sent is none; the configuration was checked.
        let value = bearer.and_then(|token| format!("Bearer {token}").parse().ok());
        Self(value.map(|mut value: MetadataValue<Ascii>| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_or_refused_with_what_is_wrong() {
        for good in ["127.0.0.1:7080", "[::1]:7080", "http://hook:7080", "unix:/run/hook.sock"] {
            Endpoint::parse(good, None).unwrap();
        }
        for bad in ["127.0.0.1", ":7080", "hook:port", "ftp://hook:1", "unix:", "https://hook:7080"] {
            let error = Endpoint::parse(bad, None).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
