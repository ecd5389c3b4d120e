//! Lines: dialled connections, shared by hooks that listen at the same address.
//!
//! One process may be the hook of many instances, and a connection costs more than all else about a hook. Owns who has a
//! place on which line, and that whoever leaves is cut off from it while the others go on. How a line is dialled is the
//! business of [`Dial`].

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::connection::{Dial, HookChannel};

/// Most hooks on one line. A hook has the stream of one shutdown or start, one question, and rarely a third call at a time;
/// with so many of them all fit into the 100 streams that HTTP/2 asks a server to take at least, so none waits for another.
const PLACES_MAX: usize = 32;

/// With fewer addresses than this nobody looks which lines are gone: what is left of one is some bytes.
const SWEEP_MIN: usize = 1024;

/// Hears that a connection is gone.
pub(super) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// All lines. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines {
    dial: Arc<dyn Dial>,
    open: Arc<Mutex<Open>>,
}

/// By address, the line that takes newcomers. Older ones live as long as somebody has a place on them.
#[derive(Default)]
struct Open {
    lines: HashMap<Box<str>, Weak<Line>>,
    /// With so many of them it is time to look which ones are gone.
    sweep_at: usize,
}

/// One connection, made when it is needed, and again when it broke. It is closed when nobody has a place on it.
struct Line {
    channel: HookChannel,
    closed: CancellationToken,
    places: Arc<Mutex<Places>>,
}

/// Who hears of the end of a connection.
#[derive(Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, OnEnd>,
}

/// A place on a line; given up when the last channel and the last stream over it are dropped.
struct Place {
    line: Arc<Line>,
    number: u64,
    closed: CancellationToken,
}

impl Lines {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, open: Arc::default() }
    }

    /// A channel to the hook at `endpoint`, perhaps with others on the same line. When `closed` is cancelled it ends, with
    /// whatever is under way on it; `on_end` is called whenever a connection is gone.
    pub(super) fn join(&self, endpoint: &str, closed: CancellationToken, on_end: OnEnd) -> HookChannel {
        let mut open = lock(&self.open);
        let shared = open.lines.get(endpoint).and_then(Weak::upgrade).filter(|line| line.has_room());
        let line = shared.unwrap_or_else(|| {
            let line = self.dial(endpoint);
            open.add(endpoint, &line);
            line
        });
        line.take_place(closed, on_end)
    }

    /// The same on a line of its own: for one that has reason to believe that the line it was on is dead.
    pub(super) fn alone(&self, endpoint: &str, closed: CancellationToken, on_end: OnEnd) -> HookChannel {
        self.dial(endpoint).take_place(closed, on_end)
    }

    fn dial(&self, endpoint: &str) -> Arc<Line> {
        let (closed, places) = (CancellationToken::new(), Arc::<Mutex<Places>>::default());
        let told = Arc::clone(&places);
        let on_end = move || {
            // Not under the lock: whoever is told may leave.
            let told: Vec<_> = lock(&told).taken.values().cloned().collect();
            told.iter().for_each(|on_end| on_end());
        };
        let channel = self.dial.dial(endpoint, closed.clone(), Arc::new(on_end));
        Arc::new(Line { channel, closed, places })
    }
}

impl Open {
    fn add(&mut self, endpoint: &str, line: &Arc<Line>) {
        if self.lines.len() >= self.sweep_at {
            self.lines.retain(|_, line| line.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(2 * self.lines.len());
        }
        self.lines.insert(endpoint.into(), Arc::downgrade(line));
    }
}

impl Line {
    fn has_room(&self) -> bool {
        lock(&self.places).taken.len() < PLACES_MAX
    }

    fn take_place(self: Arc<Self>, closed: CancellationToken, on_end: OnEnd) -> HookChannel {
        let number = {
            let mut places = lock(&self.places);
            places.next += 1;
            let number = places.next;
            places.taken.insert(number, on_end);
            number
        };
        HookChannel::new(Placed(Arc::new(Place { line: self, number, closed })))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.line.places).taken.remove(&self.number);
    }
}

/// The channel of one place.
#[derive(Clone)]
struct Placed(Arc<Place>);

impl Service<Request<Body>> for Placed {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = Arc::clone(&self.0);
        let call = self.0.line.channel.clone().oneshot(request);
        Box::pin(async move {
            let response = tokio::select! {
                biased;
                () = place.closed.cancelled() => return Err(left()),
                response = call => response?,
            };
            let closed = Box::pin(place.closed.clone().cancelled_owned());
            Ok(response.map(|body| Body::new(Under { body, closed, _place: place })))
        })
    }
}

/// A body that ends when its place is given up, and keeps it until then.
struct Under {
    body: Body,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Arc<Place>,
}

impl http_body::Body for Under {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.closed.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(left()))),
            Poll::Pending => Pin::new(&mut self.body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How a call ends whose hook is not reached this way any more.
fn left() -> Status {
    Status::unavailable("connection closed by us")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
