//! Who is calling: the one place where an identity is decided.
//!
//! Until callers authenticate, all there is to know of one is where the call comes from. Everything else takes the
//! identity as given here.

use tonic::Request;
use tonic::transport::server::TcpConnectInfo;

/// The identity of whoever made `request`; a short text for records and logs.
pub(crate) fn of<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    match peer {
        Some(peer) => format!("anonymous@{}", peer.ip()),
        None => "anonymous".to_owned(),
    }
}
