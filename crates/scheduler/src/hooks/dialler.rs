//! Dialling hooks that listen: over the network in TLS or in the clear, or over a unix socket.
//!
//! Owns whom a certificate of a hook has to come from, when a hook may be called in the clear, and what people are told
//! when a connection does not come about. What is said on a connection is none of its business.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quiesce_runtime::clock::Source;
use quiesce_runtime::machine::{Machine, Network, Socket};
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{ConnectError, Connector, ConnectorFiles, ConnectorSettings, LoadError};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use super::connection::{Dial, HookChannel, SILENCE_MAX, Watched, settings};
use crate::endpoint::{Endpoint, host_of};

/// Longest wait for a connection to be made, its handshake included; the shortest accept timeout anybody sets is of this
/// order.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What is spoken with hooks, for ALPN.
const PROTOCOL: &[u8] = b"h2";

/// What people call the settings of this edge.
const SETTINGS: ConnectorSettings = ConnectorSettings {
    authorities: "tls.hook_ca",
    certificate: "tls.certificate",
    key: "tls.key",
    without: "give the hook a certificate (quiesce agent --cert, --key), or register it without https://",
};

/// Dials from a machine.
#[derive(Clone)]
pub(crate) struct Dialler {
    network: Arc<dyn Network>,
    trust: Trust,
    in_clear: bool,
}

/// What makes connections secure.
#[derive(Clone)]
enum Trust {
    /// By CAs of our choice: loaded at the start, kept fresh.
    Ours(Connector),
    /// By those of the system, which may have none: looked up at every dial, since most schedulers never need them.
    System(ConnectorFiles, Arc<dyn Source>),
}

/// Why there is no connection to a hook.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0:?} is no address of a hook")]
    Endpoint(String),
    #[error(
        "{0} is called in the clear, and others on the network could read its token: register it again with https:// \
         (quiesce agent --cert, --key), let the agent dial in, or start the scheduler with --insecure"
    )]
    InClear(String),
    #[error("cannot connect to {endpoint}")]
    Connect {
        endpoint: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to {endpoint} within {} s", CONNECT_TIMEOUT.as_secs())]
    Slow { endpoint: String },
    #[error("the certificate of {endpoint} cannot be verified")]
    Files {
        endpoint: String,
        #[source]
        source: LoadError,
    },
    #[error("the scheduler stops")]
    Stopping,
    #[error(transparent)]
    Secure(#[from] ConnectError),
}

impl Dialler {
    /// Takes hooks whose certificates `authorities` have signed, or, without, whom the system trusts, and shows them
    /// `own`. One on another address than loopback is called without TLS only if `in_clear`.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub(crate) fn load(
        authorities: Option<PathBuf>,
        own: Option<(PathBuf, PathBuf)>,
        in_clear: bool,
        machine: &Machine,
    ) -> Result<Self, LoadError> {
        let files = ConnectorFiles { authorities, own, settings: SETTINGS };
        let clocks = Arc::clone(&machine.clocks);
        let trust = match files.authorities {
            Some(_) => Trust::Ours(Connector::load(files, clocks)?),
            None => Trust::System(files, clocks),
        };
        Ok(Self { network: Arc::clone(&machine.network), trust, in_clear })
    }

    /// What has to be kept fresh.
    pub(crate) fn connector(&self) -> Option<&Connector> {
        match &self.trust {
            Trust::Ours(connector) => Some(connector),
            Trust::System(..) => None,
        }
    }

    async fn connect(&self, text: &str) -> Result<Box<dyn Socket>, DialError> {
        let failed = |source| DialError::Connect { endpoint: text.to_owned(), source };
        match Endpoint::parse(text).ok_or_else(|| DialError::Endpoint(text.to_owned()))? {
            Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
            // Registered when this scheduler took such: it would not be any more.
            plain @ Endpoint::Plain(_) if !self.in_clear && !plain.is_private() => {
                Err(DialError::InClear(text.to_owned()))
            }
            Endpoint::Plain(authority) => self.network.connect(authority, Some(SILENCE_MAX)).await.map_err(failed),
            Endpoint::Secure(authority) => {
                let connector = self.trust.connector(text).await?;
                let socket = self.network.connect(authority, Some(SILENCE_MAX)).await.map_err(failed)?;
                Ok(Box::pin(connector.connect(socket, host_of(authority), PROTOCOL)).await?)
            }
        }
    }
}

impl Trust {
    async fn connector(&self, endpoint: &str) -> Result<Connector, DialError> {
        match self {
            Self::Ours(connector) => Ok(connector.clone()),
            Self::System(files, clocks) => {
                let (files, clocks) = (files.clone(), Arc::clone(clocks));
                let loaded = tokio::task::spawn_blocking(move || Connector::load(files, clocks)).await;
                let loaded = loaded.map_err(|_aborted| DialError::Stopping)?;
                loaded.map_err(|source| DialError::Files { endpoint: endpoint.to_owned(), source })
            }
        }
    }
}

impl Dial for Dialler {
    fn dial(&self, endpoint: &str, closed: CancellationToken, on_end: Arc<dyn Fn() + Send + Sync>) -> HookChannel {
        let (dialler, endpoint, trouble) = (self.clone(), Arc::<str>::from(endpoint), Trouble::default());
        let heard = trouble.clone();
        let connector = service_fn(move |_authority| {
            let (dialler, endpoint, trouble) = (dialler.clone(), Arc::clone(&endpoint), heard.clone());
            let (closed, on_end) = (closed.clone(), Arc::clone(&on_end));
            async move {
                trouble.set(None);
                let connected = match timeout(CONNECT_TIMEOUT, dialler.connect(&endpoint)).await {
                    Ok(connected) => connected,
                    Err(_elapsed) => Err(DialError::Slow { endpoint: endpoint.to_string() }),
                };
                let socket = connected.inspect_err(|error| trouble.set(Some(error)))?;
                let heard = move |error: &io::Error| trouble.hear(error);
                Ok::<_, DialError>(TokioIo::new(Watched::new(socket, closed, on_end).telling(heard)))
            }
        });
        let channel = settings().connect_with_connector_lazy(connector);
        BoxCloneSyncService::new(channel.map_err(move |error| trouble.status(error)))
    }
}

/// What is wrong with the connection there should be, in words for people. tonic says only that something is.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    fn set(&self, error: Option<&(dyn Error + 'static)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error.map(|error| chain(error).to_string());
    }

    /// In TLS 1.3 a client hears behind its handshake that its certificate is refused.
    fn hear(&self, error: &io::Error) {
        if let Some(refused) = error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>()) {
            self.set(Some(refused));
        }
    }

    fn status(&self, error: tonic::transport::Error) -> Status {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.map_or_else(|| Status::from_error(Box::new(error)), Status::unavailable)
    }
}
