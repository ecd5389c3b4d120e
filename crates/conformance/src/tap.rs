//! A connection we can break, stop, and listen in on.
//!
//! Counts the HTTP/2 PINGs that come in, which nobody above HTTP/2 gets to see (rule A3).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quiesce_runtime::machine::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Length of the header of an HTTP/2 frame (RFC 9113, 4.1).
const FRAME_HEADER: usize = 9;
/// Type of a PING frame.
const PING: u8 = 6;
/// Flag of its answer.
const ACK: u8 = 1;

/// What is done to a connection, and what was heard on it. Clones are of the same connection.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<State>>);

struct State {
    flow: Flow,
    /// Whoever waits for a stopped connection to go on, or to break: one reader and one writer.
    wakers: Vec<Waker>,
    pings: Vec<Instant>,
    gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Flows,
    Stopped,
    Cut,
}

impl State {
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }
}

impl Handle {
    /// Breaks it.
    pub(crate) fn cut(&self) {
        self.set(Flow::Cut);
    }

    /// Nothing comes and goes any more, and nobody is told.
    pub(crate) fn stop(&self) {
        self.set(Flow::Stopped);
    }

    /// When PINGs came in.
    pub(crate) fn pings(&self) -> Vec<Instant> {
        self.state().pings.clone()
    }

    /// Whether it has ended, on whichever side.
    pub(crate) fn is_gone(&self) -> bool {
        self.state().gone
    }

    fn set(&self, flow: Flow) {
        let mut state = self.state();
        state.flow = flow;
        for waker in state.wakers.drain(..) {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        match state.flow {
            Flow::Flows => Poll::Ready(Ok(())),
            Flow::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Flow::Stopped => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }
}

/// The connection itself.
pub(crate) struct Tap {
    inner: Box<dyn Socket>,
    handle: Handle,
    frames: Frames,
}

impl Tap {
    pub(crate) fn new(inner: Box<dyn Socket>) -> (Self, Handle) {
        let state = State { flow: Flow::Flows, wakers: Vec::new(), pings: Vec::new(), gone: false };
        let handle = Handle(Arc::new(Mutex::new(state)));
        (Self { inner, handle: handle.clone(), frames: Frames::default() }, handle)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.handle.state().gone = true;
    }
}

/// Finds PINGs in a stream of frames.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: usize,
}

impl Frames {
    /// How many PINGs that are no answers begin in `bytes`.
    fn pings(&mut self, mut bytes: &[u8]) -> usize {
        let mut found = 0;
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = (FRAME_HEADER - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if let [a, b, c, kind, flags, ..] = self.header[..]
                && self.header.len() == FRAME_HEADER
            {
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                found += usize::from(kind == PING && flags & ACK == 0);
                self.header.clear();
            }
        }
        found
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.handle.pass(cx))?;
        let before = buf.filled().len();
        // A reader that waits inside is woken when we break the connection as well.
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_pending() {
            self.handle.state().wait(cx);
        }
        let new = self.frames.pings(&buf.filled()[before..]);
        let now = Instant::now();
        self.handle.state().pings.extend(std::iter::repeat_n(now, new));
        read
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.handle.pass(cx))?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.handle.pass(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.handle.pass(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_found_however_the_bytes_are_cut() {
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 0];
            frame.extend_from_slice(payload);
            frame
        };
        // The payload of the first looks like the header of a PING.
        let bytes = [frame(0, 0, &frame(PING, 0, &[])), frame(PING, 0, &[7; 8]), frame(PING, ACK, &[7; 8])].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            let found: usize = bytes.chunks(size).map(|chunk| frames.pings(chunk)).sum();
            assert_eq!(found, 1, "in pieces of {size}");
        }
    }
}
