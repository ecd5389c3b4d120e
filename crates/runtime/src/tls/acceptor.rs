//! The side that is connected to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, InvalidMessage, ServerConfig, version};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::files::{KeyPair, LoadError, NamedFile};
use super::fresh::{Expiry, Fresh, Recipe, Validity};
use super::identity::PeerIdentity;
use super::{HANDSHAKE_LIMIT, Wall, files, provider};
use crate::clock::Source;
use crate::drain;
use crate::machine::Socket;

/// How long a connection that was refused is kept open for the other side to read why. Closing at once, with something
/// of it unread, would make its kernel throw the answer away.
const LINGER: Duration = Duration::from_millis(500);

/// Files of a server.
#[derive(Debug, Clone)]
pub struct AcceptorFiles {
    /// Who it is.
    pub own: KeyPair,
    /// What it wants to know of clients.
    pub clients: ClientCertificates,
}

/// What a server wants to know of its clients.
#[derive(Debug, Clone)]
pub enum ClientCertificates {
    /// Nothing.
    Ignored,
    /// A client may come without certificate, but not with one that these CAs have not signed.
    Optional(NamedFile),
    /// Every client has a certificate that these CAs have signed.
    Required(NamedFile),
}

/// Makes TLS connections of accepted ones. Clones share the files.
#[derive(Clone)]
pub struct Acceptor {
    fresh: Fresh<ServerConfig>,
}

/// A connection after the handshake.
pub struct Accepted {
    /// What is said on it.
    pub stream: Box<dyn Socket>,
    /// Who made it; none without a client certificate, or with one that says nothing.
    pub identity: Option<PeerIdentity>,
    /// When the client's certificate expires. A connection outlives that; whoever counts on the identity looks.
    pub until: Option<SystemTime>,
    /// The protocol both agreed on; none if the client named none.
    pub protocol: Option<Vec<u8>>,
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It took too long.
    #[error("the handshake took longer than {} s", HANDSHAKE_LIMIT.as_secs())]
    Slow,
    /// The client talks without TLS.
    #[error("the client speaks no TLS, but this port does: it has to connect with https://")]
    Plaintext,
    /// The client has none.
    #[error("the client has no certificate, but needs one")]
    NoCertificate,
    /// The client's certificate is no good here.
    #[error("the client's certificate is refused: {0}")]
    Certificate(CertificateError),
    /// The client does not like us.
    #[error("the client refuses this server's certificate ({0}); does it know the CA?")]
    Refused(String),
    /// Everything else rustls objects to.
    #[error("the handshake failed")]
    Failed(#[source] rustls::Error),
    /// The connection ended.
    #[error("the connection broke during the handshake")]
    Broken(#[source] io::Error),
}

impl Acceptor {
    /// With the files as they are now. `protocols` are what it can speak, for ALPN; whoever names others is refused.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn load(files: AcceptorFiles, protocols: &[&[u8]], clocks: Arc<dyn Source>) -> Result<Self, LoadError> {
        let AcceptorFiles { own, clients } = files;
        let authorities = match &clients {
            ClientCertificates::Ignored => None,
            ClientCertificates::Optional(file) | ClientCertificates::Required(file) => Some(file.clone()),
        };
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let (pair, wall) = (own.clone(), Arc::clone(&clocks));
        let make = Box::new(move |contents: &files::Contents| {
            let (mut config, validity) = config(contents, &pair, &clients, &wall)?;
            config.alpn_protocols.clone_from(&protocols);
            Ok((Arc::new(config), validity))
        });
        let fresh = Fresh::load(Recipe { own: Some(own), authorities, make }, clocks)?;
        Ok(Self { fresh })
    }

    /// Shakes hands with whoever is behind `socket`.
    ///
    /// # Errors
    /// Why not. The client has been told, as far as TLS allows.
    pub async fn accept(&self, socket: Box<dyn Socket>) -> Result<Accepted, AcceptError> {
        let handshake = TlsAcceptor::from(self.fresh.config()).accept(socket).into_fallible();
        match timeout(HANDSHAKE_LIMIT, handshake).await {
            Err(_elapsed) => Err(AcceptError::Slow),
            Ok(Err((error, socket))) => {
                linger(socket).await;
                Err(AcceptError::of(error))
            }
            Ok(Ok(stream)) => {
                let (_, session) = stream.get_ref();
                let leaf = session.peer_certificates().and_then(<[_]>::first);
                let identity = leaf.and_then(|certificate| PeerIdentity::of(certificate));
                let until = leaf.and_then(|certificate| PeerIdentity::until(certificate));
                let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
                Ok(Accepted { stream: Box::new(stream), identity, until, protocol })
            }
        }
    }

    /// Looks at the files now; whether there was something new in them. New handshakes use it, connections go on.
    ///
    /// # Errors
    /// What is wrong with the files; what was in use stays so.
    pub fn refresh(&self) -> Result<bool, LoadError> {
        self.fresh.refresh()
    }

    /// Looks at the files every few seconds, and warns before the certificate expires, until drained.
    pub async fn keep_fresh(self, drain: drain::Watch) {
        self.fresh.keep(drain).await;
    }

    /// When the certificate expires.
    pub fn expiry(&self) -> Expiry {
        self.fresh.expiry()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl AcceptError {
    /// Whether it says something of a stranger only, and nothing that anybody should mend here.
    pub fn is_noise(&self) -> bool {
        matches!(self, Self::Slow | Self::Broken(_))
    }

    fn of(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::Plaintext,
            Ok(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Ok(rustls::Error::InvalidCertificate(problem)) => Self::Certificate(problem),
            Ok(rustls::Error::AlertReceived(alert)) => Self::Refused(format!("{alert:?}")),
            Ok(error) => Self::Failed(error),
            Err(error) => Self::Broken(error),
        }
    }
}

/// Until the other side has read what we said and hung up.
async fn linger(mut socket: Box<dyn Socket>) {
    let mut ignored = [0; 1024];
    let until_closed = async { while socket.read(&mut ignored).await.is_ok_and(|read| read > 0) {} };
    // Whoever does not hang up is hung up on.
    let _closed = timeout(LINGER, until_closed).await;
}

fn config(
    contents: &files::Contents,
    own: &KeyPair,
    clients: &ClientCertificates,
    clocks: &Arc<dyn Source>,
) -> Result<(ServerConfig, Option<Validity>), LoadError> {
    let provider: Arc<CryptoProvider> = provider();
    let unusable = |problem: String| LoadError::Certificate { file: own.certificate.clone(), problem };
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Wall(Arc::clone(clocks))))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| unusable(error.to_string()))?;
    let verifier = |file: &NamedFile| {
        let roots = contents.authorities(file)?;
        Ok(WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)))
    };
    let refused = |file: &NamedFile| {
        let file = file.clone();
        move |error: rustls::server::VerifierBuilderError| LoadError::Certificate { file, problem: error.to_string() }
    };
    let builder = match clients {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        ClientCertificates::Optional(file) => {
            let verifier = verifier(file)?.allow_unauthenticated().build().map_err(refused(file))?;
            builder.with_client_cert_verifier(verifier)
        }
        ClientCertificates::Required(file) => {
            builder.with_client_cert_verifier(verifier(file)?.build().map_err(refused(file))?)
        }
    };
    let (certified, validity) = contents.own(own)?.ok_or_else(|| unusable("there is none".to_owned()))?;
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((config, Some(validity)))
}
