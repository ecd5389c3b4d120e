//! One port for both: HTTP/2 of callers, and agents that dial in. The first byte tells them apart, without taking it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quiesce_runtime::drain;
use quiesce_runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

use crate::attach::Attachments;

/// Most connections at the same time, agents included. Each may cost some tens of KiB.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may be silent before its first byte: clients speak at once.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait for the HTTP/2 server; it takes them as fast as it can be scheduled.
const WAITING_MAX: usize = 64;
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a line of `QUIESCE/1 ATTACH` begins with; HTTP/2 begins with `P`.
const ATTACH: u8 = b'Q';

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
    pub(super) async fn run(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.signaled() => return,
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
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%peer, %error, "a connection broke before its first byte");
                continue;
            }
            let (attachments, connections, drain) =
                (self.attachments.clone(), self.connections.clone(), self.drain.clone());
            self.tasks.spawn("connection", async move {
                let connection = Connection { stream, _permit: permit };
                tokio::select! {
                    () = sort(connection, peer, attachments, connections) => {}
                    () = drain.signaled() => {}
                }
            });
        }
    }
}

/// Brings a connection to whom it wants to speak to.
async fn sort(connection: Connection, peer: std::net::SocketAddr, attachments: Attachments, connections: Sender) {
    let mut first = [0];
    match timeout(FIRST_BYTE_TIMEOUT, connection.stream.peek(&mut first)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(_)) if first[0] == ATTACH => Box::pin(attachments.attach(connection, peer)).await,
        Ok(Ok(_)) => {
            if connections.send(Ok(connection)).await.is_err() {
                debug!(%peer, "a connection came after the end");
            }
        }
        Ok(Err(error)) => debug!(%peer, %error, "a connection broke before its first byte"),
        Err(_) => debug!(%peer, "a connection was silent and is closed"),
    }
}

/// An accepted connection; counted as long as it lives.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
