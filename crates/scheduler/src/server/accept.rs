//! One port for both: HTTP/2 of callers, and agents that dial in. The first byte tells them apart; whoever has not said
//! in time and in full what it wants is sent away.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quiesce_runtime::drain;
use quiesce_runtime::machine::{Listener, Socket};
use quiesce_runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::attach::Attachments;

/// Most connections at the same time, agents included. Each may cost some tens of KiB.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may take for its first byte, and for its preface: clients send it with the first packet. Behind
/// it keep-alives find out who is gone.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait for the HTTP/2 server; it takes them as fast as it can be scheduled.
const WAITING_MAX: usize = 64;
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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
            self.tasks.spawn("connection", async move {
                let connection = Connection { stream, peer, taken: &[], _permit: permit };
                tokio::select! {
                    biased;
                    () = drain.signaled() => {}
                    () = sort(connection, attachments, connections) => {}
                }
            });
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

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: None, remote_addr: Some(self.peer) }
    }
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
