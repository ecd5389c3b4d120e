//! The machine a process runs on, as far as its behaviour depends on it: network, clocks, chance.
//!
//! Everything above connects, reads clocks and draws random bytes through a [`Machine`] it was handed.
//! [`Machine::local`] is the one this process runs on; a simulation brings machines of its own, and nothing above can
//! tell. Owns no policy: how long to wait and what to try again is decided by whoever connects.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::backoff::Randomness;
use crate::clock::{Kernel, Source};

/// A byte stream between two programs.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for T {}

/// How streams come into being.
pub trait Network: Send + Sync {
    /// Listens on `address`, as `host:port`; with port 0 on a free one. `silence` is that of [`Network::connect`], for
    /// every connection that is accepted.
    fn listen<'a>(
        &'a self,
        address: &'a str,
        silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;

    /// Connects to `address`, as `host:port`. A connection on which bytes stay unacknowledged for `silence` is broken;
    /// without it, for as long as the operating system goes on trying, which is a quarter of an hour.
    fn connect<'a>(&'a self, address: &'a str, silence: Option<Duration>)
    -> BoxFuture<'a, io::Result<Box<dyn Socket>>>;
}

/// Where others connect to.
pub trait Listener: fmt::Debug + Send + Sync {
    /// The address listened on.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection, and who made it. Cancel-safe.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>>;
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with bytes nobody can guess.
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// A machine. Clones are the same one.
#[derive(Clone)]
pub struct Machine {
    /// Its network.
    pub network: Arc<dyn Network>,
    /// Its clocks.
    pub clocks: Arc<dyn Source>,
    /// Its randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Machine {
    /// The machine this process runs on.
    pub fn local() -> Self {
        Self { network: Arc::new(Tcp), clocks: Arc::new(Kernel), entropy: Arc::new(System) }
    }

    /// Uniform numbers in `0.0..1.0`, for jitter.
    pub fn randomness(&self) -> Randomness {
        let entropy = Arc::clone(&self.entropy);
        Box::new(move || {
            let mut bytes = [0; 4];
            // Jitter that fails to come is no jitter; whoever needs secrets asks `entropy` and is told.
            let _filled = entropy.fill(&mut bytes);
            f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
        })
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}

/// The TCP of the operating system. Small messages are sent at once.
struct Tcp;

impl Network for Tcp {
    fn listen<'a>(
        &'a self,
        address: &'a str,
        silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Box::new(Port { listener, silence }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a str,
        silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            limit_silence(&stream, silence)?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    }
}

fn limit_silence(stream: &TcpStream, silence: Option<Duration>) -> io::Result<()> {
    if let Some(silence) = silence {
        set_tcp_user_timeout(stream, u32::try_from(silence.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(())
}

/// A port that is listened on.
#[derive(Debug)]
struct Port {
    listener: TcpListener,
    silence: Option<Duration>,
}

impl Listener for Port {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            // They only fail on a connection that is broken already, and whoever reads from it next will say so.
            let _broken = stream.set_nodelay(true).and_then(|()| limit_silence(&stream, self.silence));
            Ok((Box::new(stream) as Box<dyn Socket>, peer))
        })
    }
}

/// The random bytes of the operating system.
struct System;

impl Entropy for System {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            filled += getrandom(&mut buffer[filled..], GetRandomFlags::empty())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_connects_reaches_what_listens() {
        let machine = Machine::local();
        let listener = machine.network.listen("127.0.0.1:0", Some(Duration::from_secs(20))).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (near, far) =
            tokio::join!(machine.network.connect(&address, Some(Duration::from_secs(20))), listener.accept(),);
        let (mut near, (mut far, peer)) = (near.unwrap(), far.unwrap());
        assert!(peer.ip().is_loopback());
        near.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[test]
    fn jitter_is_spread_and_stays_within_bounds() {
        let mut next = Machine::local().randomness();
        let numbers: Vec<f64> = std::iter::repeat_with(&mut next).take(64).collect();
        assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
        assert!(numbers.iter().any(|number| *number != numbers[0]));
    }
}
