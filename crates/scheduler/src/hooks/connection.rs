//! Connections: dialled ones, and attached ones that were dialled by the agent.
//!
//! Owns sockets until HTTP/2 takes them over, and the means to close them or to notice that they are gone. It knows
//! nothing of what is said on them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use tower::service_fn;

/// Longest wait for a connection to be made; the shortest accept timeout anybody sets is of this order.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up. Without it a call over a dead
/// route waits for a quarter of an hour of retransmissions, and a connection whose agent is gone stays as long. There are
/// no HTTP/2 pings: servers punish clients for them.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of headers taken from a hook: twice what a status with details needs.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Where requests on a connection seem to go; nothing is ever dialled by this name.
const AUTHORITY: &str = "http://hook.quiesce.invalid";

/// A byte stream a hook can be spoken to over.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for T {}

/// One connection. Dropping the last clone of `channel` ends it in its own time; `closed` ends it now, and says so when
/// it ended by itself.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) closed: CancellationToken,
}

/// A connection to a listening hook, made at the first call and made again when it broke. `on_end` is called whenever a
/// connection is gone.
pub(super) fn dial(endpoint: &str, on_end: Arc<dyn Fn() + Send + Sync>) -> Connection {
    let closed = CancellationToken::new();
    let address: Arc<str> = endpoint.into();
    let close = closed.clone();
    let connector = service_fn(move |_authority| {
        let (address, close, on_end) = (Arc::clone(&address), close.clone(), Arc::clone(&on_end));
        async move {
            let socket = connect(&address).await?;
            Ok::<_, io::Error>(TokioIo::new(Watched::new(socket, close, on_end)))
        }
    });
    let channel = settings().connect_timeout(CONNECT_TIMEOUT).connect_with_connector_lazy(connector);
    Connection { channel, closed }
}

/// Speaks HTTP/2 as client over `socket`. When it breaks the connection is over for good.
pub(super) async fn reverse(
    socket: impl Socket,
    on_end: Arc<dyn Fn() + Send + Sync>,
) -> Result<Connection, TransportError> {
    let closed = CancellationToken::new();
    let end = closed.clone();
    let on_end: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        end.cancel();
        on_end();
    });
    let once = Mutex::new(Some(TokioIo::new(Watched::new(socket, closed.clone(), on_end))));
    let connector = service_fn(move |_authority| {
        let socket = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            socket.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the agent has to dial in")),
        )
    });
    let channel = settings().connect_timeout(CONNECT_TIMEOUT).connect_with_connector(connector).await?;
    Ok(Connection { channel, closed })
}

fn settings() -> Endpoint {
    Endpoint::from_static(AUTHORITY).http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
}

async fn connect(address: &str) -> io::Result<Box<dyn Socket>> {
    if let Some(path) = address.strip_prefix("unix:") {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    limit_silence(&stream)?;
    Ok(Box::new(stream))
}

/// Sets [`TCP_USER_TIMEOUT`] on a socket, whoever has dialled.
pub(crate) fn limit_silence(stream: &TcpStream) -> io::Result<()> {
    let millis = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// A socket that can be closed from outside, and says when HTTP/2 has let go of it.
struct Watched<T> {
    socket: T,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    on_end: Arc<dyn Fn() + Send + Sync>,
}

impl<T> Watched<T> {
    fn new(socket: T, closed: CancellationToken, on_end: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { socket, closed: Box::pin(closed.cancelled_owned()), on_end }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.closed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "connection closed by us")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        (self.on_end)();
    }
}

impl<T: Socket> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<T: Socket> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
