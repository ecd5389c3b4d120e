//! A connection a hook is served on, whichever way it came to be: one type, so that the server is compiled once.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use quiesce_runtime::machine::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

/// Length of what HTTP/2 begins with.
const PREFACE_BYTES: usize = 24;

/// A stream of bytes, with what lives as long as it does.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    patience: Option<Patience>,
    /// Dropped with it.
    _kept: Box<dyn Any + Send>,
}

impl Connection {
    /// `kept` is dropped together with it. With a `limit` it is given up when so long nothing is said of what HTTP/2
    /// begins with: until then there are no pings that would find out that nobody is there.
    pub(crate) fn new(socket: impl Socket, limit: Option<Duration>, kept: impl Any + Send) -> Self {
        Self { socket: Box::new(socket), patience: limit.map(Patience::new), _kept: Box::new(kept) }
    }
}

/// Patience with whoever has not said yet what HTTP/2 begins with.
struct Patience {
    /// Bytes that are missing.
    unsaid: usize,
    end: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { unsaid: PREFACE_BYTES, end: Box::pin(sleep(limit)) }
    }

    /// What came of a read that brought so many bytes; an error when it has taken too long.
    fn with(&mut self, read: Poll<io::Result<()>>, said: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsaid > 0 {
            self.unsaid = self.unsaid.saturating_sub(said);
            if read.is_pending() && self.end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "it says nothing")));
            }
        }
        read
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        let said = buf.filled().len() - before;
        match &mut self.patience {
            Some(patience) => patience.with(read, said, cx),
            None => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn who_does_not_begin_to_speak_http2_is_hung_up_on() {
        let (mut client, socket) = duplex(64);
        let mut connection = Connection::new(socket, Some(LIMIT), ());
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut said = [0; 14];
        connection.read_exact(&mut said).await.unwrap();
        let error = connection.read(&mut said).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_may_be_silent() {
        let (mut client, socket) = duplex(64);
        let mut connection = Connection::new(socket, Some(LIMIT), ());
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut said = [0; PREFACE_BYTES];
        connection.read_exact(&mut said).await.unwrap();
        let more = tokio::time::timeout(LIMIT * 100, connection.read(&mut said)).await;
        assert!(more.is_err(), "it waits: {more:?}");
    }

    #[tokio::test]
    async fn what_is_kept_goes_with_it() {
        let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
        let (_client, socket) = duplex(64);
        drop(Connection::new(socket, None, sender));
        dropped.await.unwrap_err();
    }
}
