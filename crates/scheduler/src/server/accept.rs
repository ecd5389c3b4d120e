//! One port for all: HTTP of callers (HTTP/2, and 1.1 for gRPC-Web), and agents that dial in, with or without TLS under it.
//! The first byte tells them apart; whoever has not said in time and in full what it wants is sent away.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use quiesce_runtime::drain;
use quiesce_runtime::machine::{Listener, Socket};
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Accepted, Acceptor, PeerIdentity};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, info, warn};

use super::places::{NoPlace, Place, Places};
use crate::access::Access;
use crate::attach::{Attachments, Refusal};
use crate::identity::Certificate;
use crate::metrics::{Metrics, Turned};

/// How long a connection may take for its first byte, and for its preface: clients send it with the first packet. Behind
/// it keep-alives find out who is gone.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait for the HTTP/2 server; it takes them as fast as it can be scheduled.
const WAITING_MAX: usize = 64;
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What can be spoken on the port, for ALPN: gRPC, dialling in, gRPC-Web of those who know no HTTP/2. What is really spoken is
/// seen by its first byte, so that a client that names nothing is served as well.
pub(super) const PROTOCOLS: [&[u8]; 3] = [b"h2", b"quiesce-attach/1", b"http/1.1"];
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
    pub(super) access: Arc<Access>,
    pub(super) metrics: Metrics,
}

impl Accepting {
    /// Until drained; the socket is closed then.
    pub(super) async fn run(self, listener: Box<dyn Listener>) {
        let places = Places::new(self.metrics.connections());
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
            let place = match places.take(peer.ip()) {
                Ok(place) => place,
                Err(problem) => {
                    let whose = match problem {
                        NoPlace::All => "at all",
                        NoPlace::OfPeer => "of this peer",
                    };
                    warn!(%peer, "too many connections {whose}, one was closed");
                    self.metrics.turned(Turned::Limit);
                    continue;
                }
            };
            let welcome = Welcome {
                attachments: self.attachments.clone(),
                connections: self.connections.clone(),
                tls: self.tls.clone(),
                access: Arc::clone(&self.access),
            };
            let (drain, metrics) = (self.drain.clone(), self.metrics.clone());
            self.tasks.spawn("connection", async move {
                let welcome = async {
                    if let Err(turned) = welcome.receive(stream, peer, place).await {
                        metrics.turned(turned);
                    }
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

/// What a connection that was just accepted goes through.
struct Welcome {
    attachments: Attachments,
    connections: Sender,
    tls: Option<Acceptor>,
    access: Arc<Access>,
}

impl Welcome {
    /// Brings a connection to whom it wants to speak to; what is wrong with it, if it is closed instead.
    async fn receive(self, stream: Box<dyn Socket>, peer: SocketAddr, place: Place) -> Result<(), Turned> {
        let mut connection =
            Connection { stream, peer, identity: None, until: None, taken: Taken::default(), _place: place };
        if let Some(tls) = &self.tls {
            connection = secure(tls, connection).await?;
        }
        match timeout(PREFACE_TIMEOUT, connection.take_first()).await {
            // Whoever only looks whether the port is open is no trouble.
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(ATTACH))) => self.attach(connection).await,
            Ok(Ok(Some(first))) if !first.is_ascii_uppercase() => {
                debug!(%peer, "a connection speaks neither HTTP nor ours and is closed");
                Err(Turned::Preface)
            }
            Ok(Ok(Some(_))) => match timeout(PREFACE_TIMEOUT, connection.take_preface()).await {
                Ok(Ok(())) => {
                    if self.connections.send(Ok(connection)).await.is_err() {
                        debug!(%peer, "a connection came after the end");
                    }
                    Ok(())
                }
                Ok(Err(error)) => {
                    debug!(%peer, %error, "a connection broke within its preface");
                    Err(Turned::Preface)
                }
                Err(_) => {
                    debug!(%peer, "a connection did not finish its preface and is closed");
                    Err(Turned::Preface)
                }
            },
            Ok(Err(error)) => {
                debug!(%peer, %error, "a connection broke before its first byte");
                Err(Turned::Preface)
            }
            Err(_) => {
                debug!(%peer, "a connection was silent and is closed");
                Err(Turned::Preface)
            }
        }
    }

    async fn attach(&self, connection: Connection) -> Result<(), Turned> {
        let peer = connection.peer;
        match Box::pin(self.attachments.attach(connection, peer)).await {
            Ok(()) => Ok(()),
            Err(Refusal::Token) => {
                self.access.attach_refused(peer.ip()).await;
                Err(Turned::Attach)
            }
            Err(Refusal::Slow | Refusal::Malformed | Refusal::Broken(_)) => Err(Turned::Preface),
        }
    }
}

/// The connection after the handshake, with who is behind it.
async fn secure(tls: &Acceptor, connection: Connection) -> Result<Connection, Turned> {
    let peer = connection.peer;
    match tls.accept(connection.stream).await {
        Ok(accepted) => {
            let identity = accepted.identity.as_ref().map(tracing::field::display);
            debug!(%peer, identity, "a connection is encrypted");
            let Accepted { stream, identity, until, .. } = accepted;
            Ok(Connection { stream, identity, until, ..connection })
        }
        Err(error) => {
            // Whoever tries ports is no news; whoever has the wrong URL or certificate wants to find out here.
            if error.is_noise() {
                debug!(%peer, error = %chain(&error), "a connection was closed");
            } else {
                info!(%peer, error = %chain(&error), "a connection was closed");
            }
            Err(Turned::Tls)
        }
    }
}

/// An accepted connection; counted as long as it lives.
pub(super) struct Connection {
    stream: Box<dyn Socket>,
    peer: SocketAddr,
    identity: Option<PeerIdentity>,
    until: Option<SystemTime>,
    /// Taken from the stream already, and read again first.
    taken: Taken,
    _place: Place,
}

/// Bytes that were looked at.
#[derive(Debug, Default)]
struct Taken {
    bytes: [u8; PREFACE.len()],
    length: usize,
    /// So many of them have been read again.
    given: usize,
}

impl Connection {
    /// Its first byte, which is read again; none if it was closed before.
    async fn take_first(&mut self) -> io::Result<Option<u8>> {
        Ok(if self.take().await? { Some(self.taken.bytes[0]) } else { None })
    }

    /// Looks on for as long as it begins as HTTP/2 does. What it is, HTTP/2 or 1.1, is for the server to see; here
    /// it has shown that it goes on.
    async fn take_preface(&mut self) -> io::Result<()> {
        while self.taken.length < PREFACE.len() && PREFACE.starts_with(self.taken.as_slice()) {
            if !self.take().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Takes what there is of the preface; false at the end.
    async fn take(&mut self) -> io::Result<bool> {
        let Taken { bytes, length, .. } = &mut self.taken;
        // The first byte alone: that of an agent that dials in is followed by what is not ours to take.
        let end = if *length == 0 { 1 } else { bytes.len() };
        let count = self.stream.read(&mut bytes[*length..end]).await?;
        *length += count;
        Ok(count > 0)
    }
}

impl Taken {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn is_given(&self) -> bool {
        self.given == self.length
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
    /// When that certificate expires.
    pub until: Option<SystemTime>,
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo { peer: self.peer, identity: self.identity.clone(), until: self.until }
    }
}

/// Says where a request comes from, in the way tonic does for its own listeners, and whose connection it came over.
pub(super) fn tell_peer<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(ConnectInfo { peer, identity, until }) = request.extensions().get().cloned() {
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(peer) });
        if let Some(identity) = identity {
            request.extensions_mut().insert(Certificate { name: identity.as_str().into(), until });
        }
    }
    request
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken.is_given() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let Taken { bytes, length, given } = &mut self.taken;
        let count = (*length - *given).min(buffer.remaining());
        buffer.put_slice(&bytes[*given..*given + count]);
        *given += count;
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
