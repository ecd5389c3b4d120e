//! Hears what is said on a connection, TLS or not, so that a test knows the tokens that no file and no output ever shows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::tls::{
    Acceptor, AcceptorFiles, ClientCertificates, Connector, ConnectorFiles, ConnectorSettings, KeyPair, NamedFile,
};
use quiesce_testkit::certificates::Pair;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What may stand behind each other in a token.
fn is_of_a_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(byte)
}

/// A wire that is listened to. Everything ends when it is dropped.
pub(crate) struct Tap {
    address: String,
    /// What was said in each direction of each connection.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

/// Both ends of a connection in TLS.
#[derive(Clone)]
struct Ends {
    acceptor: Acceptor,
    connector: Connector,
}

impl Tap {
    /// Hears what is said in the clear to `upstream`.
    pub(crate) async fn plain(upstream: u16) -> Self {
        Self::start(upstream, None).await
    }

    /// Takes the place of the scheduler at `upstream`, whose certificate it shows, and speaks to it as a client.
    pub(crate) async fn in_tls(upstream: u16, pair: Pair, ca: PathBuf) -> Self {
        let named = |path| NamedFile { setting: "the tap's", path };
        let own = KeyPair { certificate: named(pair.certificate), key: named(pair.key) };
        let clocks = Machine::local().clocks;
        let files = AcceptorFiles { own, clients: ClientCertificates::Ignored };
        let protocols: [&[u8]; 2] = [b"h2", b"quiesce-attach/1"];
        let acceptor = Acceptor::load(files, &protocols, Arc::clone(&clocks)).expect("the scheduler's own files");
        let files = ConnectorFiles { authorities: Some(ca), own: None, settings: ConnectorSettings::FLAGS };
        let connector = Connector::load(files, clocks).expect("a CA");
        Self::start(upstream, Some(Ends { acceptor, connector })).await
    }

    async fn start(upstream: u16, ends: Option<Ends>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, upstream, ends, Arc::clone(&heard)));
        Self { address, heard, task }
    }

    /// Where it is, `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The tokens that begin like this, in the order of their letters.
    pub(crate) fn tokens(&self, prefix: &str) -> BTreeSet<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().flat_map(|said| tokens(said, prefix.as_bytes())).collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A token is a field of a message, and behind its length, or the end of the line of an agent that dials in.
fn tokens(said: &[u8], prefix: &[u8]) -> Vec<String> {
    let places = said.windows(prefix.len()).enumerate().filter(|(_, window)| *window == prefix).map(|(at, _)| at);
    let token = |at: usize| {
        let length = match said[..at] {
            [.., b'H', b' '] => said[at..].iter().take_while(|byte| is_of_a_token(byte)).count(),
            [.., low @ 0x80..=0xff, high] => usize::from(low & 0x7f) | usize::from(high) << 7,
            [.., length] => usize::from(length),
            [] => return None,
        };
        let bytes = said.get(at..at + length).filter(|bytes| bytes.iter().all(is_of_a_token))?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    places.filter_map(token).collect()
}

async fn accept(listener: TcpListener, upstream: u16, ends: Option<Ends>, heard: Arc<Mutex<Vec<Vec<u8>>>>) {
    // Dropped with the task, and the connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.spawn(connect(near, upstream, ends.clone(), Arc::clone(&heard)));
    }
}

/// One connection. What goes wrong with it is a matter of the parties, who connect again.
async fn connect(near: TcpStream, upstream: u16, ends: Option<Ends>, heard: Arc<Mutex<Vec<Vec<u8>>>>) -> Option<()> {
    let far = TcpStream::connect(("127.0.0.1", upstream)).await.ok()?;
    // What is small is not to wait for more.
    near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).ok()?;
    let far: Box<dyn Socket> = Box::new(far);
    let (near, far): (Box<dyn Socket>, _) = match ends {
        None => (Box::new(near), far),
        Some(Ends { acceptor, connector }) => {
            let accepted = acceptor.accept(Box::new(near)).await.ok()?;
            let protocol = accepted.protocol.unwrap_or_default();
            (accepted.stream, connector.connect(far, "127.0.0.1", &protocol).await.ok()?)
        }
    };
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::join!(copy(near_read, far_write, &heard), copy(far_read, near_write, &heard));
    Some(())
}

/// What is heard is noted before it is passed on: whoever sees an effect of it finds it here.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, heard: &Mutex<Vec<Vec<u8>>>) {
    let mine = {
        let mut heard = heard.lock().unwrap();
        heard.push(Vec::new());
        heard.len() - 1
    };
    let mut bytes = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        heard.lock().unwrap()[mine].extend_from_slice(&bytes[..length]);
        if to.write_all(&bytes[..length]).await.is_err() {
            break;
        }
        // A TLS stream keeps back what is not flushed.
        if to.flush().await.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _gone = to.shutdown().await;
}

#[test]
fn tokens_are_heard_with_their_ends() {
    let long = format!("qit1.{}", "x".repeat(150));
    let mut said = b"QUIESCE/1 ATTACH qat1.abc-_9\r\n\x12\x08qct1.abcb\x0c".to_vec();
    said.extend([0x2a, u8::try_from(long.len() & 0x7f | 0x80).unwrap(), u8::try_from(long.len() >> 7).unwrap()]);
    said.extend(long.as_bytes());
    said.extend(b"2more");
    assert_eq!(tokens(&said, b"qat1."), ["qat1.abc-_9"]);
    assert_eq!(tokens(&said, b"qct1."), ["qct1.abc"]);
    assert_eq!(tokens(&said, b"qit1."), [long]);
}
