//! Who a connection belongs to, as far as the connection itself says: the one place that is looked up.
//!
//! What a caller proves beside that, and what follows from it, is decided in [`crate::access`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::Extensions;
use tonic::transport::server::TcpConnectInfo;

/// A client certificate that was verified. Whoever ends TLS puts it into the extensions of every request of the connection.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// Whom it names, see [`quiesce_runtime::tls::PeerIdentity`].
    pub(crate) name: Arc<str>,
    /// When it expires; a connection outlives that.
    pub(crate) until: Option<SystemTime>,
}

/// The other end of a connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Where it calls from; none where calls come in without a socket.
    pub(crate) address: Option<IpAddr>,
    /// Its certificate, if it showed one that names somebody.
    pub(crate) certificate: Option<Certificate>,
}

/// The peer of the request with these extensions.
pub(crate) fn of(extensions: &Extensions) -> Peer {
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr).map(|peer| peer.ip());
    Peer { address, certificate: extensions.get::<Certificate>().cloned() }
}

/// What one caller has of addresses: with IPv6, a network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}
