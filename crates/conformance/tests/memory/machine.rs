//! A machine in memory, whose time is that of tokio: with time paused, two minutes pass in no time.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_runtime::clock::Source;
use quiesce_runtime::machine::{Listener, Machine, Network, Socket};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What a connection carries before whoever writes has to wait; as a socket would.
const BUFFER: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

type Arrivals = mpsc::Sender<DuplexStream>;

/// One for a whole test: all who share it reach each other.
pub(crate) fn machine() -> Machine {
    Machine { network: Arc::new(Loopback::default()), clocks: Arc::new(Paused::default()), ..Machine::local() }
}

#[derive(Default)]
struct Loopback {
    ports: Arc<Mutex<Ports>>,
}

#[derive(Default)]
struct Ports {
    last: u16,
    listening: BTreeMap<u16, Arrivals>,
}

#[derive(Debug)]
struct Port {
    number: u16,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
    ports: Arc<Mutex<Ports>>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.lock().unwrap().listening.remove(&self.number);
    }
}

impl Network for Loopback {
    fn listen<'a>(
        &'a self,
        _address: &'a str,
        _silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async {
            let (arriving, arrivals) = mpsc::channel(BACKLOG);
            let mut ports = self.ports.lock().unwrap();
            ports.last += 1;
            let number = ports.last;
            ports.listening.insert(number, arriving);
            let port = Port { number, arrivals: tokio::sync::Mutex::new(arrivals), ports: Arc::clone(&self.ports) };
            Ok(Box::new(port) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(
        &'a self,
        address: &'a str,
        _silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let number: u16 = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or_else(refused)?;
            let arriving = self.ports.lock().unwrap().listening.get(&number).cloned().ok_or_else(refused)?;
            let (near, far) = tokio::io::duplex(BUFFER);
            arriving.send(far).await.map_err(|_gone| refused())?;
            Ok(Box::new(near) as Box<dyn Socket>)
        })
    }
}

impl Listener for Port {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], self.number)))
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Socket>, SocketAddr)>> {
        Box::pin(async {
            let arrived = self.arrivals.lock().await.recv().await;
            let socket = arrived.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            Ok((Box::new(socket) as Box<dyn Socket>, SocketAddr::from(([127, 0, 0, 1], 9))))
        })
    }
}

/// The clock that tokio's timers go by.
struct Paused(Instant);

impl Default for Paused {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Source for Paused {
    fn boot_id(&self) -> io::Result<String> {
        Ok("the only one".to_owned())
    }

    fn boottime_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap() + 1_000_000
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.boottime_ms()
    }
}
