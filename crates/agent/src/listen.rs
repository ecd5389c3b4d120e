//! Whoever connects to a hook that listens: the handshake, and the bounds of what strangers can hold open.
//!
//! Owns connections from the port to HTTP/2. Who may call what over them is decided by [`crate::serve`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use quiesce_runtime::machine::{Listener, Socket};
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::Acceptor;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::connection::Connection;

/// What is spoken, for ALPN.
pub(crate) const PROTOCOL: &[u8] = b"h2";

/// Most connections at the same time, handshakes included; what is more is closed. A scheduler has one, two while it
/// restarts; the rest is for people who look. Each costs some tens of KiB.
const CONNECTIONS_MAX: usize = 64;

/// Most handshakes at the same time; whoever comes then waits in the queue of the kernel. Where a certificate is asked for,
/// strangers get no further than this, so that the scheduler always finds a place behind it.
const HANDSHAKES_MAX: usize = 32;
const _: () = assert!(HANDSHAKES_MAX < CONNECTIONS_MAX, "strangers must not take every place");

/// How long a connection may take for what HTTP/2 begins with; clients send that with the first packet. Behind it pings
/// find out who is gone.
const PREFACE_LIMIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that come to `listener`, in TLS if there is `tls`. It has no end.
pub(crate) fn incoming(
    listener: Box<dyn Listener>,
    tls: Option<Acceptor>,
) -> BoxStream<'static, io::Result<Connection>> {
    let door =
        Door { listener, tls, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), handshakes: FuturesUnordered::new() };
    stream::unfold(door, |mut door| async move {
        let connection = door.next().await;
        Some((Ok(connection), door))
    })
    .boxed()
}

struct Door {
    listener: Box<dyn Listener>,
    tls: Option<Acceptor>,
    places: Arc<Semaphore>,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Connection>>>,
}

impl Door {
    /// The next connection that may be spoken on.
    async fn next(&mut self) -> Connection {
        loop {
            let more = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                biased;
                Some(done) = self.handshakes.next() => {
                    if let Some(connection) = done {
                        return connection;
                    }
                }
                accepted = self.listener.accept(), if more => match accepted {
                    Ok((socket, peer)) => self.welcome(socket, peer),
                    Err(error) => {
                        warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn welcome(&self, socket: Box<dyn Socket>, peer: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!(%peer, limit = CONNECTIONS_MAX, "too many connections, one was closed");
            return;
        };
        let tls = self.tls.clone();
        self.handshakes.push(Box::pin(async move {
            let socket = match tls {
                Some(tls) => secure(&tls, socket, peer).await?,
                None => socket,
            };
            Some(Connection::new(socket, Some(PREFACE_LIMIT), place))
        }));
    }
}

async fn secure(tls: &Acceptor, socket: Box<dyn Socket>, peer: SocketAddr) -> Option<Box<dyn Socket>> {
    match tls.accept(socket).await {
        Ok(accepted) => {
            let identity = accepted.identity.as_ref().map(tracing::field::display);
            debug!(%peer, identity, "a connection is encrypted");
            Some(accepted.stream)
        }
        Err(error) => {
            // Whoever tries ports is no news; a scheduler with the wrong certificate is to be found out here.
            if error.is_noise() {
                debug!(%peer, error = %chain(&error), "a connection was closed");
            } else {
                info!(%peer, error = %chain(&error), "a connection was closed");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use quiesce_runtime::machine::Machine;
    use quiesce_runtime::tls::{AcceptorFiles, ClientCertificates, KeyPair, NamedFile};
    use quiesce_testkit::certificates::Authority;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// Far more than anything here takes.
    const LIMIT: Duration = Duration::from_secs(30);

    async fn listener() -> (Box<dyn Listener>, SocketAddr) {
        let listener = Machine::local().network.listen("127.0.0.1:0", None).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_is_sent_away_and_there_is_room_again_later() {
        let (listener, address) = listener().await;
        let mut incoming = Box::pin(incoming(listener, None));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let client = TcpStream::connect(address).await.unwrap();
            held.push((client, incoming.next().await.unwrap().unwrap()));
        }
        let mut surplus = TcpStream::connect(address).await.unwrap();
        tokio::select! {
            _taken = incoming.next() => panic!("there is no place for it"),
            read = surplus.read_u8() => assert!(read.is_err(), "it is closed"),
        }
        drop(held.pop());
        let _client = TcpStream::connect(address).await.unwrap();
        timeout(LIMIT, incoming.next()).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn handshakes_that_nobody_finishes_take_no_place_from_the_scheduler_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let pair = Authority::new().issue(&["127.0.0.1"]).write(directory.path(), "hook");
        let named = |path| NamedFile { setting: "--cert", path };
        let own = KeyPair { certificate: named(pair.certificate), key: named(pair.key) };
        let files = AcceptorFiles { own, clients: ClientCertificates::Ignored };
        let tls = Acceptor::load(files, &[PROTOCOL], Machine::local().clocks).unwrap();
        let (listener, address) = listener().await;
        let mut door = Door {
            listener,
            tls: Some(tls),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            handshakes: FuturesUnordered::new(),
        };
        let mut silent = Vec::new();
        for _ in 0..=HANDSHAKES_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let until_full = async {
            while door.handshakes.len() < HANDSHAKES_MAX {
                let _not_yet = timeout(Duration::from_millis(20), door.next()).await;
            }
            // One more waits in the queue of the kernel, and takes no place.
            let _not_yet = timeout(Duration::from_millis(20), door.next()).await;
        };
        timeout(LIMIT, until_full).await.unwrap();
        assert_eq!(door.handshakes.len(), HANDSHAKES_MAX);
        assert_eq!(door.places.available_permits(), CONNECTIONS_MAX - HANDSHAKES_MAX);
    }
}
