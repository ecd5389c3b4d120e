//! TLS on the scheduler's port: who gets in, and what changes of certificates do to those who are in.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1;
use quiesce_runtime::clock::Kernel;
use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::tls::{ConnectError, Connector, ConnectorFiles, ConnectorSettings, KeyPair, NamedFile};
use quiesce_scheduler::access::{self, Mode, Named, NamedRole};
use quiesce_scheduler::{Config, Tls};
use quiesce_testkit::certificates::{Authority, Pair};
use quiesce_testkit::eventually;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use v1::scheduler_client::SchedulerClient;

use crate::transport::get;
use crate::world::{LIMIT, World};

/// Nothing happens, so whatever is said comes at once.
const QUIET: std::time::Duration = std::time::Duration::from_millis(50);

pub(crate) struct Ground {
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
    pub(crate) ca: PathBuf,
    server: Pair,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let ca = authority.write(directory.path(), "ca.pem");
        let server = authority.issue(&["127.0.0.1"]).write(directory.path(), "scheduler");
        Self { directory, authority, ca, server }
    }

    pub(crate) fn config(&self) -> Config {
        let named = |setting, path: &PathBuf| NamedFile { setting, path: path.clone() };
        let own = KeyPair {
            certificate: named("tls.certificate", &self.server.certificate),
            key: named("tls.key", &self.server.key),
        };
        let client_ca = Some(named("tls.client_ca", &self.ca));
        Config { tls: Some(Tls { own, client_ca }), ..Config::ephemeral() }
    }

    pub(crate) fn connector(&self, own: Option<Pair>) -> Connector {
        let own = own.map(|pair| (pair.certificate, pair.key));
        let files = ConnectorFiles { authorities: Some(self.ca.clone()), own, settings: ConnectorSettings::FLAGS };
        Connector::load(files, Arc::new(Kernel)).unwrap()
    }
}

async fn dial(connector: &Connector, world: &World, protocol: &[u8]) -> Result<Box<dyn Socket>, ConnectError> {
    dial_as(connector, world, "127.0.0.1", protocol).await
}

async fn dial_as(
    connector: &Connector,
    world: &World,
    host: &str,
    protocol: &[u8],
) -> Result<Box<dyn Socket>, ConnectError> {
    let socket = Machine::local().network.connect(&world.address.to_string(), None).await.unwrap();
    connector.connect(socket, host, protocol).await
}

async fn client(connector: &Connector, world: &World) -> SchedulerClient<Channel> {
    SchedulerClient::new(channel(connector, world).await)
}

/// One connection that is made already.
pub(crate) async fn channel(connector: &Connector, world: &World) -> Channel {
    let mut socket = Some(TokioIo::new(dial(connector, world, b"h2").await.unwrap()));
    let once = tower::service_fn(move |_| std::future::ready(socket.take().ok_or(std::fmt::Error)));
    let endpoint = Endpoint::from_static("https://127.0.0.1");
    endpoint.connect_with_connector(once).await.unwrap()
}

#[tokio::test]
async fn callers_with_and_without_certificate_are_served() {
    let ground = Ground::new();
    let world = World::lazily_with(ground.config()).await;
    let person = ground.authority.issue(&["spiffe://quiesce/operators/ann"]).write(ground.directory.path(), "ann");
    for own in [None, Some(person)] {
        let mut client = client(&ground.connector(own), &world).await;
        client.list_applications(v1::ListApplicationsRequest::default()).await.unwrap();
    }
    let stranger = Authority::new().issue(&["mallory"]).write(ground.directory.path(), "mallory");
    let mut socket = dial(&ground.connector(Some(stranger)), &world, b"h2").await.unwrap();
    assert!(socket.read_u8().await.unwrap_err().to_string().contains("refuses the certificate of --cert"));
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_is_a_credential_for_whom_the_configuration_names() {
    let ground = Ground::new();
    let principal = |name: &str, role| Named { name: name.to_owned(), role, applications: BTreeSet::new() };
    let principals = vec![
        principal("spiffe://quiesce/operators/ann", NamedRole::Admin),
        principal("spiffe://quiesce/operators/*", NamedRole::Viewer),
    ];
    let access = access::Config { mode: Mode::Enforced, principals, ..access::Config::open() };
    let world = World::lazily_with(Config { access, ..ground.config() }).await;
    let looks_and_makes = async |name: Option<&str>| {
        let own = name.map(|name| ground.authority.issue(&[name]).write(ground.directory.path(), "person"));
        let mut client = client(&ground.connector(own), &world).await;
        let looked = client.list_applications(v1::ListApplicationsRequest::default()).await;
        let cluster = v1::Cluster { name: "clusters/north".to_owned(), ..Default::default() };
        let made =
            client.create_cluster(v1::CreateClusterRequest { cluster: Some(cluster), ..Default::default() }).await;
        [
            looked.map_or_else(|status| status.code(), |_| Code::Ok),
            made.map_or_else(|status| status.code(), |_| Code::Ok),
        ]
    };
    let stranger = [Code::Unauthenticated; 2];
    assert_eq!(looks_and_makes(None).await, stranger);
    assert_eq!(looks_and_makes(Some("spiffe://elsewhere/operators/ann")).await, stranger);
    assert_eq!(looks_and_makes(Some("spiffe://quiesce/operators/bob")).await, [Code::Ok, Code::PermissionDenied]);
    assert_eq!(looks_and_makes(Some("spiffe://quiesce/operators/ann")).await, [Code::Ok; 2]);
    world.stop().await;
}

#[tokio::test]
async fn agents_dial_in_on_the_same_port() {
    let ground = Ground::new();
    let world = World::lazily_with(ground.config()).await;
    let mut socket = dial(&ground.connector(None), &world, b"quiesce-attach/1").await.unwrap();
    socket.write_all(b"QUIESCE/1 ATTACH qat1.wrong\r\n").await.unwrap();
    socket.flush().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n");
    dial(&ground.connector(None), &world, b"smtp").await.err().expect("nobody speaks that here");
    world.stop().await;
}

#[tokio::test]
async fn who_speaks_no_tls_is_hung_up_on() {
    let ground = Ground::new();
    let world = World::lazily_with(ground.config()).await;
    for words in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"QUIESCE/1 ATTACH qat1.wrong\r\n"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(words).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
        // An alert of TLS, which a client can recognise, and not a word of anything else.
        assert_eq!((answer[0], answer.len()), (21, 7), "{answer:?}");
    }
    client(&ground.connector(None), &world).await;
    world.stop().await;
}

#[tokio::test]
async fn a_new_certificate_leaves_running_streams_alone() {
    let ground = Ground::new();
    let world = World::lazily_with(ground.config()).await;
    let connector = ground.connector(None);
    let mut client = client(&connector, &world).await;
    let request = v1::WatchOperationsRequest::default();
    let mut stream = client.watch_operations(request).await.unwrap().into_inner();
    ground.authority.issue(&["new.example.net"]).write(ground.directory.path(), "scheduler");
    eventually("the new certificate", LIMIT, || dial_as(&connector, &world, "new.example.net", b"h2")).await;
    client.list_applications(v1::ListApplicationsRequest::default()).await.unwrap();
    // It has ended if it has anything to say after its snapshot.
    let mut heard = 0;
    while let Ok(message) = tokio::time::timeout(QUIET, stream.message()).await {
        message.unwrap().expect("the stream goes on");
        heard += 1;
    }
    assert!(heard <= 1, "{heard} messages of nothing");
    world.stop().await;
}

#[tokio::test]
async fn the_time_until_expiry_can_be_watched() {
    let ground = Ground::new();
    let world = World::lazily_with(ground.config()).await;
    let metrics = get(&world, "/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("quiesce_tls_certificate_expiry_seconds{")).unwrap();
    let left: i64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(left > 0, "{line}");
    world.stop().await;
}
