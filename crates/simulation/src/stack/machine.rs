//! Simulated machines: a network that loses and delays, clocks that disagree, chance that replays.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_runtime::clock::Source;
use quiesce_runtime::machine::{Entropy, Listener, Machine, Network, Socket};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::story::Story;

/// The wall clock at the beginning of every run, milliseconds since 1970.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// One boot of one machine.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    /// Its name; the kernel's is random.
    pub(super) id: String,
    /// When it was.
    pub(super) at: Duration,
    /// How far its wall clock is ahead of the true time, in milliseconds.
    pub(super) skew_ms: i64,
}

/// The machine of one life of one program.
pub(super) fn machine(host: &str, story: &Story, wires: &Wires, boot: Boot, seed: u64) -> Machine {
    Machine {
        network: Arc::new(Place { wires: wires.clone(), host: host.to_owned() }),
        clocks: Arc::new(Clocks { story: story.clone(), boot }),
        entropy: Arc::new(Chance(Mutex::new(StdRng::seed_from_u64(seed)))),
    }
}

struct Clocks {
    story: Story,
    boot: Boot,
}

impl Source for Clocks {
    fn boot_id(&self) -> io::Result<String> {
        Ok(self.boot.id.clone())
    }

    fn boottime_ms(&self) -> u64 {
        millis(self.story.now().saturating_sub(self.boot.at))
    }

    fn wall_ms(&self) -> u64 {
        (BEGINNING_MS + millis(self.story.now())).saturating_add_signed(self.boot.skew_ms)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Chance(Mutex<StdRng>);

impl Entropy for Chance {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
        Ok(())
    }
}

/// All connections of a run. Clones are the same wires.
///
/// The simulated network loses for good what is sent into a partition. Real TCP would send it again and again, and then
/// get through or give up. Here it always gives up: the end that dialled is told after its `silence`, the other end is
/// told nothing. A connection whose ends did not ask stays as it is, dead and open, which is what a firewall that has
/// forgotten it does to a connection; keep-alives have to find out.
#[derive(Clone, Default)]
pub(super) struct Wires {
    inner: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// By the addresses of who connected and of who accepted.
    fates: BTreeMap<(SocketAddr, SocketAddr), Fate>,
}

/// What becomes of one connection.
#[derive(Default)]
struct Fate {
    silence: Option<Duration>,
    lost_at: Option<Duration>,
    is_broken: bool,
    wakers: Vec<Waker>,
}

impl Wires {
    /// From now on nothing gets from `from` to `to`.
    pub(super) fn cut(&self, from: IpAddr, to: IpAddr) {
        self.state().cut.insert((from, to));
    }

    /// New connections work again; those that lost something do not.
    pub(super) fn mend(&self, from: IpAddr, to: IpAddr) {
        self.state().cut.remove(&(from, to));
    }

    /// Breaks what has been silent for too long.
    pub(super) fn tick(&self, now: Duration) {
        let mut due = Vec::new();
        for fate in self.state().fates.values_mut() {
            let broken = fate.lost_at.zip(fate.silence).is_some_and(|(lost, silence)| lost + silence <= now);
            if broken && !fate.is_broken {
                fate.is_broken = true;
                due.append(&mut fate.wakers);
            }
        }
        for waker in due {
            waker.wake();
        }
    }

    fn is_cut(&self, one: IpAddr, other: IpAddr) -> bool {
        let state = self.state();
        state.cut.contains(&(one, other)) || state.cut.contains(&(other, one))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wires as one host sees them.
struct Place {
    wires: Wires,
    host: String,
}

impl Network for Place {
    fn listen<'a>(
        &'a self,
        address: &'a str,
        _silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // Only the end that dialled is told, see [`Wires`].
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(Door { listener, wires: self.wires.clone() }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a str,
        silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            let (host, _port) = address.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            if self.wires.is_cut(turmoil::lookup(self.host.as_str()), turmoil::lookup(host)) {
                // The kernel tries for longer than anybody waits.
                return pending().await;
            }
            let stream = TcpStream::connect(address).await?;
            let ends = (stream.local_addr()?, stream.peer_addr()?);
            self.wires.state().fates.insert(ends, Fate { silence, ..Fate::default() });
            Ok(Box::new(Wire { stream, ends, dialled: true, wires: self.wires.clone() }) as Box<dyn Socket>)
        })
    }
}

/// Where a simulated host is connected to.
struct Door {
    listener: TcpListener,
    wires: Wires,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Listener for Door {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            let ends = (peer, stream.local_addr()?);
            let wire = Wire { stream, ends, dialled: false, wires: self.wires.clone() };
            Ok((Box::new(wire) as Box<dyn Socket>, peer))
        })
    }
}

/// One end of a connection.
struct Wire {
    stream: TcpStream,
    /// Who connected, who accepted.
    ends: (SocketAddr, SocketAddr),
    /// Whether this is the end that connected.
    dialled: bool,
    wires: Wires,
}

impl Wire {
    /// The end that dialled learns that the connection is broken.
    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if !self.dialled {
            return Ok(());
        }
        let mut state = self.wires.state();
        let Some(fate) = state.fates.get_mut(&self.ends) else { return Ok(()) };
        if fate.is_broken {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if !fate.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            fate.wakers.push(cx.waker().clone());
        }
        Ok(())
    }

    /// Takes note of bytes that were sent into a partition.
    fn sent(&self) {
        let (from, to) = match self.dialled {
            true => (self.ends.0.ip(), self.ends.1.ip()),
            false => (self.ends.1.ip(), self.ends.0.ip()),
        };
        let now = turmoil::sim_elapsed();
        let mut state = self.wires.state();
        if state.cut.contains(&(from, to))
            && let Some(fate) = state.fates.get_mut(&self.ends)
        {
            fate.lost_at = fate.lost_at.or(now);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.dialled {
            self.wires.state().fates.remove(&self.ends);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.sent();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sent();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
