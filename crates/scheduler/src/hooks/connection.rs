//! Connections: dialled ones (by [`super::dialler`]), and attached ones that were dialled by the agent.
//!
//! Owns sockets until HTTP/2 takes them over, and the means to close them or to notice that they are gone. It knows
//! nothing of what is said on them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use quiesce_runtime::machine::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

/// Longest wait for HTTP/2 over a connection that stands.
const REVERSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the kernel gives the connection up. Without it a call over a dead
/// route waits for a quarter of an hour of retransmissions, and a connection whose agent is gone stays as long, whoever has
/// dialled. There are no HTTP/2 pings: servers punish clients for them.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Most bytes of headers taken from a hook: twice what a status with details needs.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Where requests on a connection seem to go; nothing is ever dialled by this name.
const AUTHORITY: &str = "http://hook.quiesce.invalid";

/// What calls of a hook are made over.
pub type HookChannel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// How hooks that listen are reached.
pub trait Dial: Send + Sync + 'static {
    /// A channel to the hook at `endpoint`: connected at the first call, and again after it broke. When `closed` is
    /// cancelled the connection ends, with whatever is under way on it. `on_end` is called whenever one is gone.
    fn dial(&self, endpoint: &str, closed: CancellationToken, on_end: Arc<dyn Fn() + Send + Sync>) -> HookChannel;
}

/// One connection. Dropping the last clone of `channel` ends it in its own time; `closed` ends it now, and says so when
/// it ended by itself.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: HookChannel,
    pub(super) closed: CancellationToken,
}

fn boxed(channel: Channel) -> HookChannel {
    BoxCloneSyncService::new(channel.map_err(|error| Status::from_error(Box::new(error))))
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
    let channel = settings().connect_timeout(REVERSE_TIMEOUT).connect_with_connector(connector).await?;
    Ok(Connection { channel: boxed(channel), closed })
}

pub(super) fn settings() -> Endpoint {
    Endpoint::from_static(AUTHORITY).http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
}

/// A socket that can be closed from outside, and says when HTTP/2 has let go of it.
pub(super) struct Watched<T> {
    socket: T,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    on_end: Arc<dyn Fn() + Send + Sync>,
    on_error: Option<OnError>,
}

type OnError = Box<dyn Fn(&io::Error) + Send + Sync>;

impl<T> Watched<T> {
    pub(super) fn new(socket: T, closed: CancellationToken, on_end: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { socket, closed: Box::pin(closed.cancelled_owned()), on_end, on_error: None }
    }

    /// The same; `on_error` is told what breaks it, before HTTP/2 is.
    pub(super) fn telling(mut self, on_error: impl Fn(&io::Error) + Send + Sync + 'static) -> Self {
        self.on_error = Some(Box::new(on_error));
        self
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
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if let (Poll::Ready(Err(error)), Some(on_error)) = (&read, &self.on_error) {
            on_error(error);
        }
        read
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
