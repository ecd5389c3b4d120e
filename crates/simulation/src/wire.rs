//! A network that carries gRPC calls in memory, and loses, delays, doubles and breaks them as it is told.
//!
//! Client and server are the production ones down to the messages on the wire; what is left out is HTTP/2 and what is
//! below (that is what the simulation of the whole stack is for). It knows no Quiesce: who calls whom is a pair of
//! parties, and what is said is bytes.
//!
//! What a party sees is what TCP and HTTP/2 would show it: a call is refused when nobody listens; it breaks, with its
//! outcome unknown, when a connection breaks or either side dies; it hangs while the way is cut, and breaks when that
//! has lasted longer than keepalive. A call may be handled twice, as proxies that repeat do it; separate calls overtake
//! one another.

mod carry;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

use crate::chance::Chance;

/// Answers calls.
pub type Service = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;
/// Makes calls.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// Somebody who calls or is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party(pub u16);

/// How bad the network is, in a thousand messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Connections that break when a message travels on them.
    pub breaks: u64,
    /// Calls that are handled twice.
    pub doubles: u64,
    /// Messages that are late, by up to two seconds.
    pub late: u64,
}

/// How long a way may be cut before the connections over it are given up: the 20 s after which both sides notice.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Wire {
    inner: Arc<Inner>,
}

/// What may be left of a [`Wire`].
#[derive(Debug)]
pub struct Remains {
    inner: Weak<Inner>,
}

impl Remains {
    /// Whether nobody holds the wire any more.
    #[must_use]
    pub fn are_gone(&self) -> bool {
        self.inner.strong_count() == 0
    }
}

struct Inner {
    chance: Chance,
    state: Mutex<State>,
    /// Changes whenever a way is cut or healed.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    weather: Weather,
    cut: BTreeMap<(Party, Party), Instant>,
    served: BTreeMap<String, Arc<Served>>,
    /// Sees every request that is sent.
    tap: Option<Tap>,
    /// Calls to these services are streams of answers; the others are collected.
    streaming: BTreeSet<&'static str>,
}

/// Sees the path and the bytes of a request.
pub type Tap = Arc<dyn Fn(&str, &[u8]) + Send + Sync>;

/// Somebody serves under a name.
struct Served {
    party: Party,
    service: Service,
    closed: CancellationToken,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inner")
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// A network in fine weather. Methods named in `streaming` answer with a stream.
    #[must_use]
    pub fn new(chance: Chance, streaming: impl IntoIterator<Item = &'static str>) -> Self {
        let state = State { streaming: streaming.into_iter().collect(), ..State::default() };
        Self { inner: Arc::new(Inner { chance, state: Mutex::new(state), changes: watch::Sender::new(0) }) }
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Somebody listens on the wire.
    pub fn set_tap(&self, tap: Tap) {
        self.state().tap = Some(tap);
    }

    /// Whoever calls `name` reaches `service` until `closed` is cancelled, which also breaks what is under way.
    pub fn serve(&self, party: Party, name: &str, service: Service, closed: CancellationToken) {
        self.state().served.insert(name.to_owned(), Arc::new(Served { party, service, closed }));
    }

    /// Whether a call of `name` by `from` would be answered.
    #[must_use]
    pub fn reaches(&self, from: Party, name: &str) -> bool {
        let state = self.state();
        let served = state.served.get(name).filter(|served| !served.closed.is_cancelled());
        served.is_some_and(|served| !state.cut.contains_key(&(from, served.party)))
    }

    /// What `from` calls `name` over. `closed` breaks what is under way.
    #[must_use]
    pub fn channel(&self, from: Party, name: &str, closed: CancellationToken) -> Channel {
        let (wire, name): (_, Arc<str>) = (self.clone(), name.into());
        BoxCloneSyncService::new(tower::service_fn(move |request| {
            let (wire, name, closed) = (wire.clone(), Arc::clone(&name), closed.clone());
            async move { wire.call(from, &name, closed, request).await }
        }))
    }

    /// From now on nothing gets from `from` to `to`.
    pub fn cut(&self, from: Party, to: Party) {
        self.state().cut.entry((from, to)).or_insert_with(Instant::now);
        self.changed();
    }

    /// Everything gets through again.
    pub fn heal(&self, from: Party, to: Party) {
        self.state().cut.remove(&(from, to));
        self.changed();
    }

    /// Every way is open.
    pub fn heal_all(&self) {
        self.state().cut.clear();
        self.changed();
    }

    /// Takes the wire down: nobody serves and nobody listens any more. What is served holds the wire in turn, so without
    /// this neither would ever be freed.
    pub fn take_down(&self) {
        let State { served, tap, .. } = std::mem::take(&mut *self.state());
        drop((served, tap));
    }

    /// By this it can be told later whether anybody still holds the wire.
    #[must_use]
    pub fn remains(&self) -> Remains {
        Remains { inner: Arc::downgrade(&self.inner) }
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|version| *version += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
