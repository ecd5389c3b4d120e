//! Who a connection belongs to, as far as the connection itself says: the one place that is looked up.
//!
//! What a caller proves beside that, and what follows from it, is decided in [`crate::access`].

use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

/// The names in a client certificate that was verified (subject alternative names: URIs and DNS names). Whoever ends TLS
/// puts them into the extensions of every request of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateNames(pub(crate) Arc<[String]>);

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Where it calls from; none where calls come in without a socket.
    pub(crate) address: Option<IpAddr>,
    /// What its certificate says; empty without one.
    pub(crate) names: CertificateNames,
}

/// The peer of the request with these extensions.
pub(crate) fn of(extensions: &Extensions) -> Peer {
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr).map(|peer| peer.ip());
    Peer { address, names: extensions.get::<CertificateNames>().cloned().unwrap_or_default() }
}
