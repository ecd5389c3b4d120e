//! A TCP proxy on loopback that behaves like a bad network on demand.
//!
//! Put between two parties, it takes their connection away in the ways networks do: late ([`Mode::Hold`]), with an
//! error ([`Mode::Cut`]), or without a word ([`Mode::BlackHole`], [`TcpProxy::strand_connections`]).

use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Bytes read at once in one direction; beyond it the parties feel back-pressure as they would without the proxy.
const CHUNK: usize = 16 * 1024;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Bytes are kept back and delivered when passing again. New connections open but reach nobody until then.
    Hold,
    /// Every connection is reset, new ones as soon as they are made.
    Cut,
    /// Bytes and closings are swallowed; to either party the other one has fallen silent. A connection that lived
    /// through this is reset when the mode changes, since its bytes cannot be brought back.
    BlackHole,
}

/// The proxy. Its connections and its port are closed when it is dropped.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    counters: Arc<Counters>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct Network {
    mode: Mode,
    upstream: SocketAddr,
    /// Connections of an earlier generation are to be reset.
    generation: u64,
    /// Connections with a lower number are stranded.
    stranded: u64,
}

impl Network {
    /// Whether what this connection carries gets lost.
    fn swallows(&self, connection: u64) -> bool {
        self.mode == Mode::BlackHole || connection < self.stranded
    }
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicU64,
}

impl TcpProxy {
    /// Listens on a port of its own and passes to `upstream`, which need not be there yet.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (network, watch) = watch::channel(Network { mode: Mode::Pass, upstream, generation: 0, stranded: 0 });
        let counters = Arc::new(Counters::default());
        let acceptor = tokio::spawn(accept(listener, watch, Arc::clone(&counters)));
        Self { address, network, counters, acceptor }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the network does, for connections that are open and those to come.
    pub fn set_mode(&self, mode: Mode) {
        self.network.send_modify(|network| {
            if mode == Mode::Cut || network.mode == Mode::BlackHole && mode != Mode::BlackHole {
                network.generation += 1;
            }
            network.mode = mode;
        });
    }

    /// Resets the connections that are open and goes on as before.
    pub fn cut_connections(&self) {
        self.network.send_modify(|network| network.generation += 1);
    }

    /// From now on the connections that are open lead nowhere and are never closed, while new ones pass: as when a
    /// firewall on the way has forgotten them.
    pub fn strand_connections(&self) {
        let stranded = self.accepted();
        self.network.send_modify(|network| network.stranded = stranded);
    }

    /// Leads new connections elsewhere, as when a party came back on another port.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.network.send_modify(|network| network.upstream = upstream);
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Acquire)
    }

    /// How many connections are open now.
    pub fn open(&self) -> u64 {
        self.counters.open.load(Ordering::Acquire)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, network: watch::Receiver<Network>, counters: Arc<Counters>) {
    // Owns the connections, so that they end with the acceptor.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a loopback listener accepts");
                let number = counters.accepted.fetch_add(1, Ordering::AcqRel);
                connections.spawn(connection(number, client, network.clone(), Open::count(&counters)));
            }
            Some(ended) = connections.join_next() => ended.expect("no connection panics"),
        }
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<Counters>);

impl Open {
    fn count(counters: &Arc<Counters>) -> Self {
        counters.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn connection(number: u64, mut client: TcpStream, network: watch::Receiver<Network>, _open: Open) {
    let mut upstream = None;
    let mut cut = network.clone();
    let generation = cut.borrow_and_update().generation;
    let closed = tokio::select! {
        biased;
        // An error means that the proxy is gone, and then the connection goes too.
        _ = cut.wait_for(|now| now.mode == Mode::Cut || now.generation != generation) => false,
        carried = carry(number, &mut client, &mut upstream, network) => carried.is_ok(),
    };
    if !closed {
        for stream in [Some(client), upstream].into_iter().flatten() {
            // With no time to linger closing is a reset, and what was not sent yet is gone.
            stream.set_zero_linger().expect("linger can be set on a TCP socket");
        }
    }
}

/// Carries a connection until both sides closed it; an error says that it has to be reset.
async fn carry(
    number: u64,
    client: &mut TcpStream,
    upstream: &mut Option<TcpStream>,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let to = until(&mut network, |now| now.mode == Mode::Pass).await?.upstream;
    let upstream = upstream.insert(TcpStream::connect(to).await?);
    let (from_client, to_client) = client.split();
    let (from_upstream, to_upstream) = upstream.split();
    tokio::try_join!(
        pump(number, from_client, to_upstream, network.clone()),
        pump(number, from_upstream, to_client, network)
    )?;
    Ok(())
}

/// Carries one direction until its end is passed on, or something fails.
async fn pump(
    number: u64,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        // Whatever was read while the network was not passing is kept back here, an end or an error included.
        let now = until(&mut network, |now| now.mode != Mode::Hold).await?;
        match read {
            Ok(1..) if now.swallows(number) => {}
            // The end is swallowed too; leaving the black hole resets the connection from outside.
            _ if now.swallows(number) => pending().await,
            Ok(0) => return to.shutdown().await,
            Ok(length) => to.write_all(&chunk[..length]).await?,
            Err(error) => return Err(error),
        }
    }
}

async fn until(network: &mut watch::Receiver<Network>, wanted: impl FnMut(&Network) -> bool) -> io::Result<Network> {
    network.wait_for(wanted).await.map(|now| *now).map_err(|_closed| io::Error::other("the proxy was dropped"))
}

#[cfg(test)]
mod tests;
