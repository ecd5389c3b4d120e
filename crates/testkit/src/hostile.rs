//! Peers that are not even wrong: they listen where a hook should be and speak no HTTP/2, or nothing at all.
//!
//! What a hook that does speak can do wrong is scripted in [`crate::hook`].

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::AbortHandle;

/// What the babbling peer says at a time.
const BABBLE: [u8; 4096] = [b'?'; 4096];

/// A peer at a port of its own; it is gone when this is dropped.
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    _kept: Kept,
}

/// What keeps a peer in its place.
enum Kept {
    Port(#[expect(dead_code, reason = "held, not used")] TcpSocket),
    Backlog(#[expect(dead_code, reason = "held, not used")] TcpListener),
    Task(AbortHandle),
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Self::Task(task) = self {
            task.abort();
        }
    }
}

/// Nobody listens: connections are refused. The port is held, so that nobody else comes to be there.
pub fn dead() -> Peer {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback has a free port");
    let address = socket.local_addr().expect("a bound socket has an address");
    Peer { address, _kept: Kept::Port(socket) }
}

/// Connections stand, and no byte on them is ever read or written.
pub async fn deaf() -> Peer {
    let listener = bind().await;
    let address = listener.local_addr().expect("a bound listener has an address");
    Peer { address, _kept: Kept::Backlog(listener) }
}

/// Whoever connects is shouted at until it goes away, in no known language.
pub async fn babbling() -> Peer {
    let listener = bind().await;
    let address = listener.local_addr().expect("a bound listener has an address");
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { while socket.write_all(&BABBLE).await.is_ok() {} });
        }
    });
    Peer { address, _kept: Kept::Task(task.abort_handle()) }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port")
}
