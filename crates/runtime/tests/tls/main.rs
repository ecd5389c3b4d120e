//! TLS between two ends on loopback: who gets in, who is told what, and what happens when files change.

#![expect(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

mod changing;
mod files;
mod handshakes;
mod openssl;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quiesce_runtime::clock::{Kernel, Source};
use quiesce_runtime::machine::{Listener, Machine, Socket};
use quiesce_runtime::tls::{
    AcceptError, Accepted, Acceptor, AcceptorFiles, ClientCertificates, ConnectError, Connector, ConnectorFiles,
    ConnectorSettings, KeyPair, LoadError, NamedFile,
};
use quiesce_testkit::certificates::{Authority, Pair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What both ends speak.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"quiesce-attach/1"];
const PLENTY: Duration = Duration::from_secs(20);

/// A CA, a directory, and a server's files in it.
struct Ground {
    directory: TempDir,
    authority: Authority,
    ca: PathBuf,
    server: Pair,
}

fn clocks() -> Arc<dyn Source> {
    Arc::new(Kernel)
}

fn named(setting: &'static str, path: PathBuf) -> NamedFile {
    NamedFile { setting, path }
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ca = authority.write(directory.path(), "ca.pem");
        let server = authority.issue(&["127.0.0.1", "scheduler.example.net"]).write(directory.path(), "server");
        Self { directory, authority, ca, server }
    }

    fn own(&self) -> KeyPair {
        KeyPair {
            certificate: named("--tls-cert", self.server.certificate.clone()),
            key: named("--tls-key", self.server.key.clone()),
        }
    }

    fn optional(&self) -> ClientCertificates {
        ClientCertificates::Optional(named("--tls-client-ca", self.ca.clone()))
    }

    fn required(&self) -> ClientCertificates {
        ClientCertificates::Required(named("--tls-client-ca", self.ca.clone()))
    }

    fn try_acceptor(&self, clients: ClientCertificates) -> Result<Acceptor, LoadError> {
        Acceptor::load(AcceptorFiles { own: self.own(), clients }, &PROTOCOLS, clocks())
    }

    fn acceptor(&self, clients: ClientCertificates) -> Acceptor {
        self.try_acceptor(clients).unwrap()
    }

    /// A client that trusts the CA of this ground.
    fn connector(&self, own: Option<&Pair>) -> Connector {
        connector(self.ca.clone(), own)
    }

    fn client(&self, names: &[&str]) -> Pair {
        self.authority.issue(names).write(self.directory.path(), "client")
    }
}

fn connector(ca: PathBuf, own: Option<&Pair>) -> Connector {
    let own = own.map(|pair| (pair.certificate.clone(), pair.key.clone()));
    let files = ConnectorFiles { authorities: Some(ca), own, settings: ConnectorSettings::FLAGS };
    Connector::load(files, clocks()).unwrap()
}

/// Two ends of a connection without TLS.
async fn wire() -> (Box<dyn Socket>, Box<dyn Socket>) {
    let network = Machine::local().network;
    let listener: Box<dyn Listener> = network.listen("127.0.0.1:0", None).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (near, far) = tokio::join!(network.connect(&address, None), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

type Ends = (Result<Box<dyn Socket>, ConnectError>, Result<Accepted, AcceptError>);

/// Both handshakes, with `host` as the one who is called.
async fn shake(connector: &Connector, acceptor: &Acceptor, host: &str) -> Ends {
    let (near, far) = wire().await;
    let both = async { tokio::join!(connector.connect(near, host, b"h2"), acceptor.accept(far)) };
    tokio::time::timeout(PLENTY, both).await.expect("a handshake ends")
}

/// What is said at one end is heard at the other.
async fn talk(near: &mut (impl Socket + ?Sized), far: &mut (impl Socket + ?Sized)) {
    near.write_all(b"stop").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 4];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"stop");
}
