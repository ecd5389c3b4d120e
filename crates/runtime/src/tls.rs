//! TLS over any byte stream: who answers is known by its certificate, and so is who calls if it has one.
//!
//! Owns certificates and keys in files, their reload while connections go on, and the two handshakes. It takes
//! [`crate::machine::Socket`]s and gives back others, so simulated networks can be used under it. It knows neither what
//! is spoken on a connection nor what an identity may do.
//!
//! TLS 1.3 alone: every gRPC library in use speaks it, and what is not offered cannot be downgraded to. Sessions are not
//! resumed: connections last for hours, and a resumed one would pass by certificates that were replaced since.

mod acceptor;
mod certificate;
mod connector;
mod files;
mod fresh;
mod identity;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

pub use acceptor::{AcceptError, Accepted, Acceptor, AcceptorFiles, ClientCertificates};
pub use certificate::Certificate;
pub use connector::{ConnectError, Connector, ConnectorFiles, ConnectorSettings, Inspected, answers_in_tls};
pub use files::{KeyPair, LoadError, NamedFile};
pub use fresh::{Expiry, RELOAD_EVERY};
pub use identity::PeerIdentity;

use crate::clock::Source;

/// Longest handshake. It takes two round trips and a signature; the rest is room for a bad link and a busy machine.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// ring, and nothing else: named at every use, since a process-wide default is whatever some other crate has set.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The wall clock of a machine, for the validity of certificates.
struct Wall(Arc<dyn Source>);

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.wall_ms())))
    }
}
