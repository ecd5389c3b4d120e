//! A hook behind TLS. The agent serves none to schedulers, so a door of ours stands before its socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quiesce_runtime::machine::Machine;
use quiesce_runtime::tls::{Acceptor, AcceptorFiles, ClientCertificates, KeyPair, NamedFile};
use quiesce_testkit::certificates::{Authority, Pair};
use tokio::net::{TcpListener, UnixStream};
use tokio::task::AbortHandle;

/// Certificates of one kind of people.
pub(crate) struct Files {
    pub(crate) authority: PathBuf,
    pub(crate) pair: Pair,
}

pub(crate) fn files(directory: &Path, name: &str) -> Files {
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]).write(directory, name);
    Files { authority: authority.write(directory, &format!("{name}-ca")), pair }
}

/// Opens to whoever has a certificate of that authority; leads to the socket. Closed by aborting it.
pub(crate) async fn door(own: &Files, clients: &Files, socket: PathBuf) -> (String, AbortHandle) {
    let named = |path: &Path| NamedFile { setting: "test", path: path.to_owned() };
    let own = KeyPair { certificate: named(&own.pair.certificate), key: named(&own.pair.key) };
    let clients = ClientCertificates::Required(named(&clients.authority));
    let clocks = Arc::clone(&Machine::local().clocks);
    let acceptor = Acceptor::load(AcceptorFiles { own, clients }, &[b"h2"], clocks).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                // Whoever is refused has been told; whoever leaves has left.
                let Ok(mut accepted) = acceptor.accept(Box::new(stream)).await else { return };
                let Ok(mut hook) = UnixStream::connect(socket).await else { return };
                let _left = tokio::io::copy_bidirectional(&mut accepted.stream, &mut hook).await;
            });
        }
    });
    (address, serving.abort_handle())
}
