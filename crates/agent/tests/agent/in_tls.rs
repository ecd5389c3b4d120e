//! A hook that listens in TLS: who gets in, and what new certificates do to those who are in.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::{self, ShutdownPhase};
use quiesce_runtime::clock::Kernel;
use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::tls::{ConnectError, Connector, ConnectorFiles, ConnectorSettings};
use quiesce_testkit::certificates::{Authority, Pair};
use quiesce_testkit::eventually;
use quiesce_testkit::process::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::scheduler::{Client, HOOK_TOKEN, Scheduler};
use crate::stage::{LIMIT, Stage, request};

/// An agent that serves its hook in TLS, and the CA of everything.
struct World {
    stage: Stage,
    authority: Authority,
    /// `127.0.0.1:PORT` of the hook.
    address: String,
    agent: Process,
}

impl World {
    /// With these flags beside `--listen`, `--cert` and `--key`; in them `CA` stands for the file of the CA.
    async fn start(more: &[&str]) -> Self {
        let (stage, scheduler, authority) = (Stage::new(), Scheduler::start().await, Authority::new());
        let ca = authority.write(stage.path(), "ca.pem").display().to_string();
        let own = authority.issue(&["127.0.0.1"]).write(stage.path(), "hook");
        let (certificate, key) = (own.certificate.display().to_string(), own.key.display().to_string());
        let mut flags = vec!["--listen", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
        flags.extend(more.iter().map(|flag| if *flag == "CA" { ca.as_str() } else { flag }));
        let agent = stage.agent_at(&scheduler, &flags);
        stage.until_lines("starts", 1).await;
        let endpoint = scheduler.book().registrations[0].instance.clone().unwrap().endpoint;
        let address = endpoint.strip_prefix("https://").expect("it says that it speaks TLS").to_owned();
        Self { stage, authority, address, agent }
    }

    /// A certificate in a file.
    fn issue(&self, authority: &Authority, name: &str) -> Pair {
        authority.issue(&[name]).write(self.stage.path(), name)
    }

    async fn dial(&self, ca: &Path, own: Option<Pair>) -> Result<Box<dyn Socket>, ConnectError> {
        let own = own.map(|pair| (pair.certificate, pair.key));
        let files = ConnectorFiles { authorities: Some(ca.to_owned()), own, settings: ConnectorSettings::FLAGS };
        let connector = Connector::load(files, Arc::new(Kernel)).unwrap();
        let socket = Machine::local().network.connect(&self.address, None).await.unwrap();
        connector.connect(socket, "127.0.0.1", b"h2").await
    }

    /// A client over one connection.
    async fn client(&self, own: Option<Pair>) -> Client {
        let mut socket = Some(TokioIo::new(self.dial(&self.stage.path().join("ca.pem"), own).await.unwrap()));
        let once = tower::service_fn(move |_| std::future::ready(socket.take().ok_or(std::fmt::Error)));
        let channel: Channel = Endpoint::from_static("https://hook").connect_with_connector(once).await.unwrap();
        ShutdownHookClient::new(channel)
    }

    /// Why such a client is sent away before it can call anything.
    async fn refused(&self, own: Option<Pair>) -> String {
        let mut socket = self.dial(&self.stage.path().join("ca.pem"), own).await.unwrap();
        // In TLS 1.3 a client hears it behind its handshake.
        socket.read_u8().await.unwrap_err().to_string()
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

async fn calls(client: &Client, token: Option<&str>) -> Code {
    let answer = client.clone().get_hook_info(with_token(v1::GetHookInfoRequest {}, token)).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn with_a_client_ca_only_who_has_its_certificate_and_the_token_may_call() {
    let world = World::start(&["--hook-client-ca", "CA"]).await;
    let said = world.refused(None).await;
    assert!(said.contains("takes clients with a certificate only"), "{said}");
    world.agent.wait_for_line("the client has no certificate, but needs one", LIMIT).await;
    let stranger = world.issue(&Authority::new(), "stranger");
    let said = world.refused(Some(stranger)).await;
    assert!(said.contains("refuses the certificate of --cert"), "{said}");
    world.agent.wait_for_line("the client's certificate is refused", LIMIT).await;

    let client = world.client(Some(world.issue(&world.authority, "scheduler"))).await;
    eventually("the hook to know its token", LIMIT, async || match calls(&client, Some(HOOK_TOKEN)).await {
        Code::Ok => Ok(()),
        other => Err(other),
    })
    .await;
    for wrong in [None, Some("other"), Some("")] {
        assert_eq!(calls(&client, wrong).await, Code::Unauthenticated, "{wrong:?}");
    }
    assert_eq!(calls(&client, Some(HOOK_TOKEN)).await, Code::Ok);
}

#[tokio::test]
async fn without_a_client_ca_the_token_alone_decides() {
    let world = World::start(&[]).await;
    let client = world.client(None).await;
    eventually("the hook to know its token", LIMIT, async || match calls(&client, Some(HOOK_TOKEN)).await {
        Code::Ok => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(calls(&client, Some("other")).await, Code::Unauthenticated);
    assert_eq!(calls(&client, None).await, Code::Unauthenticated);
}

#[tokio::test]
async fn who_talks_in_the_clear_is_hung_up_on_and_hears_nothing() {
    let world = World::start(&[]).await;
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    // An alert of TLS, which a client can recognise, and not a word of anything else.
    assert_eq!((answer[0], answer.len()), (21, 7), "{answer:?}");
    world.agent.wait_for_line("the client speaks no TLS", LIMIT).await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_a_running_shutdown_goes_on() {
    let world = World::start(&["--hook-client-ca", "CA"]).await;
    let scheduler = world.issue(&world.authority, "scheduler");
    let mut client = world.client(Some(scheduler)).await;
    eventually("the hook to know its token", LIMIT, async || match calls(&client, Some(HOOK_TOKEN)).await {
        Code::Ok => Ok(()),
        other => Err(other),
    })
    .await;
    let order = with_token(request("s1"), Some(HOOK_TOKEN));
    let mut stream = client.shutdown(order).await.unwrap().into_inner();
    world.stage.until_lines("terms", 1).await;

    // Everything is new: the CA, the certificate of the hook, and that of the scheduler.
    let next = Authority::new();
    next.issue(&["127.0.0.1"]).write(world.stage.path(), "hook");
    next.write(world.stage.path(), "ca.pem");
    let renewed = world.issue(&next, "renewed");
    eventually("the new certificates to be in use", LIMIT, async || {
        let mut socket = world.dial(&world.stage.path().join("ca.pem"), Some(renewed.clone())).await?;
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        socket.flush().await?;
        socket.read_u8().await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    })
    .await;

    world.stage.let_go();
    let followed = async {
        while let Some(response) = stream.message().await.unwrap() {
            if response.status.unwrap().phase() == ShutdownPhase::Stopped {
                return;
            }
        }
        panic!("the stream has ended before the application");
    };
    tokio::time::timeout(LIMIT, followed).await.expect("the end in time");
    assert_eq!(world.stage.lines("terms").len(), 1);
}

#[tokio::test]
async fn beyond_loopback_there_is_tls_or_it_is_said_at_the_start_that_there_is_none() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let mut refused = stage.agent_at(&scheduler, &["--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:1"]);
    assert_eq!(refused.wait(LIMIT).await.code(), Some(2));
    refused.wait_for_line("say --insecure if the network is trusted", LIMIT).await;
    assert!(stage.lines("starts").is_empty());
    let flags = ["--insecure", "--listen", "0.0.0.0:0", "--advertise", "127.0.0.1:1"];
    let knowing = stage.agent_at(&scheduler, &flags);
    knowing
        .wait_for_line("the hook is served without TLS, and whoever is on the network can read its token", LIMIT)
        .await;
    stage.until_lines("starts", 1).await;
    assert_eq!(scheduler.book().registrations[0].instance.as_ref().unwrap().endpoint, "127.0.0.1:1");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_before_anything_is_started() {
    let (stage, scheduler) = (Stage::new(), Scheduler::start().await);
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]).write(stage.path(), "hook");
    let (certificate, key) = (pair.certificate.display().to_string(), pair.key.display().to_string());
    let mut agent = stage.agent_at(
        &scheduler,
        &["--listen", "127.0.0.1:0", "--cert", &certificate, "--key", &key, "--hook-client-ca", "does-not-exist.pem"],
    );
    assert_eq!(agent.wait(LIMIT).await.code(), Some(1));
    agent.wait_for_line("cannot read does-not-exist.pem (--hook-client-ca)", LIMIT).await;
    assert!(stage.lines("starts").is_empty());
}
