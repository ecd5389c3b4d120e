//! One port for both: HTTP/2 of callers, and agents that dial in, with or without TLS under it. The first byte tells
//! them apart; whoever has not said in time and in full what it wants is sent away.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quiesce_runtime::drain;
use quiesce_runtime::machine::{Listener, Socket};
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Acceptor, PeerIdentity};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, info, warn};

use crate::attach::Attachments;
use crate::identity::CertificateNames;

/// Most connections at the same time, agents included. Each may cost some tens of KiB.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may take for its first byte, and for its preface: clients send it with the first packet. Behind
/// it keep-alives find out who is gone.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait for the HTTP/2 server; it takes them as fast as it can be scheduled.
const WAITING_MAX: usize = 64;
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What can be spoken on the port, for ALPN: gRPC, and dialling in. What is really spoken is seen by its first byte, so
/// that a client that names nothing is served as well.
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"quiesce-attach/1"];
/// What a line of `QUIESCE/1 ATTACH` begins with.
const ATTACH: u8 = b'Q';
/// What HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Sender = mpsc::Sender<io::Result<Connection>>;

/// From here to the HTTP/2 server.
pub(super) fn channel() -> (Sender, mpsc::Receiver<io::Result<Connection>>) {
    mpsc::channel(WAITING_MAX)
}

/// Accepts connections.
pub(super) struct Accepting {
    pub(super) attachments: Attachments,
    pub(super) tasks: Tasks,
    pub(super) drain: drain::Watch,
    pub(super) connections: Sender,
    /// With it every connection begins with a handshake.
    pub(super) tls: Option<Acceptor>,
}

impl Accepting {
    /// Until drained; the socket is closed then.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.drain.signaled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                warn!(%peer, limit = CONNECTIONS_MAX, "too many connections, one was closed");
                continue;
            };
            let (attachments, connections, drain) =
                (self.attachments.clone(), self.connections.clone(), self.drain.clone());
            let tls = self.tls.clone();
            self.tasks.spawn("connection", async move {
                let welcome = async {
                    let Some((stream, identity)) = secure(tls, stream, peer).await else { return };
                    let connection = Connection { stream, peer, identity, taken: &[], _permit: permit };
                    sort(connection, attachments, connections).await;
                };
                tokio::select! {
                    biased;
                    () = drain.signaled() => {}
                    () = Box::pin(welcome) => {}
                }
            });
        }
    }
}

/// The stream after the handshake, if there is one to be made, and who is behind it.
async fn secure(
    tls: Option<Acceptor>,
    stream: Box<dyn Socket>,
    peer: SocketAddr,
) -> Option<(Box<dyn Socket>, Option<PeerIdentity>)> {
    let Some(tls) = tls else { return Some((stream, None)) };
    match tls.accept(stream).await {
        Ok(accepted) => {
            let identity = accepted.identity.as_ref().map(tracing::field::display);
            debug!(%peer, identity, "a connection is encrypted");
            Some((accepted.stream, accepted.identity))
        }
        Err(error) => {
            // Whoever tries ports is no news; whoever has the wrong URL or certificate wants to find out here.
            if error.is_noise() {
                debug!(%peer, error = %chain(&error), "a connection was closed");
            } else {
                info!(%peer, error = %chain(&error), "a connection was closed");
            }
            None
        }
    }
}

/// Brings a connection to whom it wants to speak to.
async fn sort(mut connection: Connection, attachments: Attachments, connections: Sender) {
    let peer = connection.peer;
    match timeout(PREFACE_TIMEOUT, connection.take_first()).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(ATTACH))) => Box::pin(attachments.attach(connection, peer)).await,
        Ok(Ok(Some(first))) => match timeout(PREFACE_TIMEOUT, connection.take_preface(first)).await {
            Ok(Ok(true)) => {
                if connections.send(Ok(connection)).await.is_err() {
                    debug!(%peer, "a connection came after the end");
                }
            }
            Ok(Ok(false)) => debug!(%peer, "a connection speaks neither HTTP/2 nor ours and is closed"),
            Ok(Err(error)) => debug!(%peer, %error, "a connection broke within its preface"),
            Err(_) => debug!(%peer, "a connection did not finish its preface and is closed"),
        },
        Ok(Err(error)) => debug!(%peer, %error, "a connection broke before its first byte"),
        Err(_) => debug!(%peer, "a connection was silent and is closed"),
    }
}

/// An accepted connection; counted as long as it lives.
pub(super) struct Connection {
    stream: Box<dyn Socket>,
    peer: SocketAddr,
    identity: Option<PeerIdentity>,
    /// Taken from the stream already, and read again first.
    taken: &'static [u8],
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Its first byte; none if it was closed before. That of an agent that dials in is read again.
    async fn take_first(&mut self) -> io::Result<Option<u8>> {
        let mut first = [0];
        if self.stream.read(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] == ATTACH {
            self.taken = &[ATTACH];
        }
        Ok(Some(first[0]))
    }

    /// Whether it begins, with `first`, as HTTP/2 does; that is read again.
    async fn take_preface(&mut self, first: u8) -> io::Result<bool> {
        let mut found = [first; PREFACE.len()];
        self.stream.read_exact(&mut found[1..]).await?;
        self.taken = PREFACE;
        Ok(found == *PREFACE)
    }
}

/// What is known of a connection; an extension of every request that comes over it.
#[derive(Debug, Clone)]
pub struct ConnectInfo {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Whose it is, by a client certificate that was verified. Without one whoever calls has to authenticate in
    /// another way.
    pub identity: Option<PeerIdentity>,
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo { peer: self.peer, identity: self.identity.clone() }
    }
}

/// Says where a request comes from, in the way tonic does for its own listeners, and whose connection it came over.
pub(super) fn tell_peer<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(ConnectInfo { peer, identity }) = request.extensions().get().cloned() {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
        if let Some(identity) = identity {
            request.extensions_mut().insert(CertificateNames(Arc::new([identity.as_str().to_owned()])));
        }
    }
    request
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let (now, later) = self.taken.split_at(self.taken.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.taken = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
