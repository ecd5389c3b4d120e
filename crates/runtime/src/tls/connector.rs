//! The side that connects.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Certificate;
use super::files::{Contents, KeyPair, LoadError, NamedFile, system_authorities};
use super::fresh::{Expiry, Fresh, Recipe, Validity};
use super::{HANDSHAKE_LIMIT, Wall, provider};
use crate::clock::Source;
use crate::drain;
use crate::machine::Socket;

/// What TLS begins its messages with: a handshake, an alert.
const TLS_BEGINNINGS: [u8; 2] = [22, 21];

/// Files of a client.
#[derive(Debug, Clone)]
pub struct ConnectorFiles {
    /// The CAs it trusts; without, those of the system.
    pub authorities: Option<PathBuf>,
    /// Certificate and key it shows when asked.
    pub own: Option<(PathBuf, PathBuf)>,
    /// What people call all that.
    pub settings: ConnectorSettings,
}

/// What people call the settings of a client, for errors that say which one helps.
#[derive(Debug, Clone, Copy)]
pub struct ConnectorSettings {
    /// Such as `--ca`.
    pub authorities: &'static str,
    /// Such as `--cert`.
    pub certificate: &'static str,
    /// Such as `--key`.
    pub key: &'static str,
    /// How to do without TLS, after "speaks no TLS on this port: ".
    pub without: &'static str,
}

impl ConnectorSettings {
    /// The flags of all our programs that are clients.
    pub const FLAGS: Self = Self {
        authorities: "--ca",
        certificate: "--cert",
        key: "--key",
        without: "connect with http://, or to the port that does",
    };
}

/// Makes TLS connections of connections. Clones share the files.
#[derive(Clone)]
pub struct Connector {
    fresh: Fresh<ClientConfig>,
    settings: ConnectorSettings,
    has_own: bool,
}

/// What a handshake has shown.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The certificate of the server, then those between it and the CA.
    pub certificates: Vec<Certificate>,
    /// Whether it said that it speaks the protocol; one that leaves ALPN out has said nothing.
    pub speaks: bool,
}

/// Why a connection came to nothing: what is wrong, and which setting helps.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("{host} did not finish the TLS handshake within {} s", HANDSHAKE_LIMIT.as_secs())]
    Slow {
        /// With whom.
        host: String,
    },
    /// What answers does not speak TLS, or hangs up when it is spoken to in TLS.
    #[error("{host} speaks no TLS on this port: {without}")]
    NotTls {
        /// With whom.
        host: String,
        /// What helps.
        without: &'static str,
    },
    /// The host part of the address is neither name nor IP address.
    #[error("{host:?} is neither a DNS name nor an IP address, so no certificate can be for it")]
    Name {
        /// With whom.
        host: String,
    },
    /// Signed by somebody we do not know.
    #[error("the certificate of {host} is not signed by a CA that is trusted here: name its CA with {setting}")]
    UnknownAuthority {
        /// With whom.
        host: String,
        /// The setting that helps.
        setting: &'static str,
    },
    /// For somebody else.
    #[error(
        "the certificate of {host} is for {}: connect by a name it is for, or give the server one for {host}",
        names(presented)
    )]
    WrongName {
        /// With whom.
        host: String,
        /// Whom it is for.
        presented: Vec<String>,
    },
    /// Too late.
    #[error("the certificate of {host} has expired: the server needs a new one (or this clock is wrong)")]
    Expired {
        /// With whom.
        host: String,
    },
    /// Too early.
    #[error("the certificate of {host} is not valid yet: is the clock here or there wrong?")]
    NotYetValid {
        /// With whom.
        host: String,
    },
    /// Everything else that can be wrong with it.
    #[error("the certificate of {host} cannot be accepted: {problem}")]
    Certificate {
        /// With whom.
        host: String,
        /// What is wrong.
        problem: CertificateError,
    },
    /// It wants a certificate, and we have none.
    #[error("{host} takes clients with a certificate only: give one with {certificate} and {key}")]
    CertificateRequired {
        /// With whom.
        host: String,
        /// The setting that helps.
        certificate: &'static str,
        /// And its companion.
        key: &'static str,
    },
    /// It does not accept ours.
    #[error("{host} refuses the certificate of {setting} ({alert}): {}", advice(*alert))]
    Refused {
        /// With whom.
        host: String,
        /// Where the certificate comes from.
        setting: &'static str,
        /// What it said.
        alert: Alert,
    },
    /// It does not speak what we want to.
    #[error("{host} speaks TLS, but not the protocol asked for: is it another program?")]
    Protocol {
        /// With whom.
        host: String,
    },
    /// Everything else rustls objects to.
    #[error("the TLS handshake with {host} failed")]
    Failed {
        /// With whom.
        host: String,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// The connection ended.
    #[error("the connection to {host} broke during the TLS handshake")]
    Broken {
        /// With whom.
        host: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// What the other side said before it hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert(AlertDescription);

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn advice(alert: Alert) -> &'static str {
    match alert.0 {
        AlertDescription::CertificateExpired => "it has expired, get a new one",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "its CA is not the one that is trusted there",
        _ => "get one that is good for clients",
    }
}

/// Without the words rustls puts around them: `DnsName("shop")`, `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.map_or(name.as_str(), |inner| inner.trim_matches('"')).to_owned()
    };
    if presented.is_empty() { "nobody".to_owned() } else { presented.iter().map(bare).collect::<Vec<_>>().join(", ") }
}

impl Connector {
    /// With the files as they are now.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn load(files: ConnectorFiles, clocks: Arc<dyn Source>) -> Result<Self, LoadError> {
        let ConnectorFiles { authorities, own, settings } = files;
        let authorities = match authorities {
            Some(path) => Trusted::Named(NamedFile { setting: settings.authorities, path }),
            None => Trusted::System(system_authorities(settings.authorities)?),
        };
        let own = own.map(|(certificate, key)| KeyPair {
            certificate: NamedFile { setting: settings.certificate, path: certificate },
            key: NamedFile { setting: settings.key, path: key },
        });
        let has_own = own.is_some();
        let (pair, wall) = (own.clone(), Arc::clone(&clocks));
        let file = authorities.file().clone();
        let make = Box::new(move |contents: &Contents| config(contents, &authorities, pair.as_ref(), &wall));
        let fresh = Fresh::load(Recipe { own, authorities: Some(file), make }, clocks)?;
        Ok(Self { fresh, settings, has_own })
    }

    /// Shakes hands with `host` (name or address, without port) behind `socket`, to speak `protocol` with it. What
    /// goes wrong later because of our certificate is a [`ConnectError`] in the error of the first read.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(
        &self,
        socket: Box<dyn Socket>,
        host: &str,
        protocol: &[u8],
    ) -> Result<Box<dyn Socket>, ConnectError> {
        let (stream, explain) = self.shake_hands(socket, host, protocol).await?;
        Ok(Box::new(Explained { stream: Box::new(stream), explain }))
    }

    /// Shakes hands as [`Connector::connect`] does and hangs up: the certificates that were shown, the server's own first.
    /// They are good as far as this connector can tell. Whether the server takes ours is not known by then.
    ///
    /// # Errors
    /// Why no connection would come about.
    pub async fn inspect(
        &self,
        socket: Box<dyn Socket>,
        host: &str,
        protocol: &[u8],
    ) -> Result<Inspected, ConnectError> {
        let (stream, _) = self.shake_hands(socket, host, protocol).await?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().unwrap_or_default();
        Ok(Inspected {
            certificates: shown.iter().filter_map(|der| Certificate::read(der)).collect(),
            speaks: session.alpn_protocol().is_some_and(|chosen| chosen == protocol),
        })
    }

    async fn shake_hands(
        &self,
        socket: Box<dyn Socket>,
        host: &str,
        protocol: &[u8],
    ) -> Result<(TlsStream<Box<dyn Socket>>, Explain), ConnectError> {
        // An IPv6 address in a URL stands in brackets.
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Name { host: host.to_owned() })?;
        let mut config = (*self.fresh.config()).clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let explain = Explain { host: host.to_owned(), settings: self.settings, has_own: self.has_own };
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, socket);
        match timeout(HANDSHAKE_LIMIT, handshake).await {
            Err(_elapsed) => Err(ConnectError::Slow { host: explain.host }),
            Ok(Err(error)) => Err(explain.error(error)),
            Ok(Ok(stream)) => Ok((stream, explain)),
        }
    }

    /// As [`super::Acceptor::refresh`].
    ///
    /// # Errors
    /// What is wrong with the files; what was in use stays so.
    pub fn refresh(&self) -> Result<bool, LoadError> {
        self.fresh.refresh()
    }

    /// As [`super::Acceptor::keep_fresh`].
    pub async fn keep_fresh(self, drain: drain::Watch) {
        self.fresh.keep(drain).await;
    }

    /// When the own certificate expires.
    pub fn expiry(&self) -> Expiry {
        self.fresh.expiry()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

enum Trusted {
    Named(NamedFile),
    System(NamedFile),
}

impl Trusted {
    fn file(&self) -> &NamedFile {
        match self {
            Self::Named(file) | Self::System(file) => file,
        }
    }
}

fn config(
    contents: &Contents,
    authorities: &Trusted,
    own: Option<&KeyPair>,
    clocks: &Arc<dyn Source>,
) -> Result<(Arc<ClientConfig>, Option<Validity>), LoadError> {
    let file = authorities.file();
    let unusable = |problem: String| LoadError::Certificate { file: file.clone(), problem };
    let roots = match authorities {
        Trusted::Named(file) => contents.authorities(file)?,
        Trusted::System(_) => contents.parsable_authorities(),
    };
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(Wall(Arc::clone(clocks))))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots);
    let own = own.map(|pair| contents.own(pair)).transpose()?.flatten();
    let (mut config, validity) = match own {
        Some((certified, validity)) => {
            let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
            (builder.with_client_cert_resolver(resolver), Some(validity))
        }
        None => (builder.with_no_client_auth(), None),
    };
    config.resumption = Resumption::disabled();
    Ok((Arc::new(config), validity))
}

/// Puts errors into words people can act on.
struct Explain {
    host: String,
    settings: ConnectorSettings,
    has_own: bool,
}

impl Explain {
    fn error(&self, error: io::Error) -> ConnectError {
        let (host, without) = (self.host.clone(), self.settings.without);
        let error = match error.downcast::<rustls::Error>() {
            Ok(error) => error,
            Err(error) if is_hung_up(error.kind()) => return ConnectError::NotTls { host, without },
            Err(source) => return ConnectError::Broken { host, source },
        };
        match error {
            rustls::Error::InvalidMessage(_) => ConnectError::NotTls { host, without },
            rustls::Error::InvalidCertificate(problem) => self.certificate(problem),
            rustls::Error::AlertReceived(alert) => {
                self.alert(alert).unwrap_or(ConnectError::Failed { host, source: rustls::Error::AlertReceived(alert) })
            }
            rustls::Error::NoApplicationProtocol => ConnectError::Protocol { host },
            source => ConnectError::Failed { host, source },
        }
    }

    fn certificate(&self, problem: CertificateError) -> ConnectError {
        let host = self.host.clone();
        match problem {
            // A bad signature is that of another CA with the same name, as after making it anew.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ConnectError::UnknownAuthority { host, setting: self.settings.authorities }
            }
            CertificateError::NotValidForName => ConnectError::WrongName { host, presented: Vec::new() },
            CertificateError::NotValidForNameContext { presented, .. } => ConnectError::WrongName { host, presented },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => ConnectError::Expired { host },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ConnectError::NotYetValid { host }
            }
            problem => ConnectError::Certificate { host, problem },
        }
    }

    /// What the other side says of our certificate; none if it speaks of something else.
    fn alert(&self, alert: AlertDescription) -> Option<ConnectError> {
        let host = self.host.clone();
        let ConnectorSettings { certificate, key, .. } = self.settings;
        match alert {
            AlertDescription::CertificateRequired => Some(ConnectError::CertificateRequired { host, certificate, key }),
            AlertDescription::NoApplicationProtocol => Some(ConnectError::Protocol { host }),
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError
                if self.has_own =>
            {
                Some(ConnectError::Refused { host, setting: certificate, alert: Alert(alert) })
            }
            _ => None,
        }
    }
}

/// What is left of a connection to somebody who takes the first words of TLS for nonsense.
fn is_hung_up(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// A connection that puts into words why it was refused: in TLS 1.3 a client hears that after its handshake.
struct Explained {
    stream: Box<TlsStream<Box<dyn Socket>>>,
    explain: Explain,
}

impl AsyncRead for Explained {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(ready!(Pin::new(&mut self.stream).poll_read(cx, buf)).map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let explained = match inner {
                Some(rustls::Error::AlertReceived(alert)) => self.explain.alert(*alert),
                Some(_) | None => None,
            };
            explained.map_or(error, |explained| io::Error::new(io::ErrorKind::PermissionDenied, explained))
        }))
    }
}

impl AsyncWrite for Explained {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whether what is behind `socket` answers in TLS; for an error that says so. The connection is of no use afterwards.
pub async fn answers_in_tls(mut socket: Box<dyn Socket>) -> bool {
    let hello = async {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .ok()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("quiesce.invalid").ok()?;
        let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
        let mut hello = Vec::new();
        client.write_tls(&mut hello).ok()?;
        socket.write_all(&hello).await.ok()?;
        socket.read_u8().await.ok()
    };
    let first = timeout(HANDSHAKE_LIMIT, hello).await;
    first.is_ok_and(|first| first.is_some_and(|first| TLS_BEGINNINGS.contains(&first)))
}
