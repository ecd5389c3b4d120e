//! Hooks that are called in TLS: whose certificate is taken, what is said of others, and which may do without.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use quiesce_protocol::v1;
use quiesce_runtime::clock::Kernel;
use quiesce_runtime::machine::Socket;
use quiesce_runtime::tls::{Acceptor, AcceptorFiles, ClientCertificates, KeyPair, NamedFile};
use quiesce_scheduler::{Config, StoreChoice};
use quiesce_store::memory::MemoryStore;
use quiesce_testkit::certificates::{Authority, Pair};
use quiesce_testkit::eventually;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use uuid::Uuid;
use v1::agent_gateway_client::AgentGatewayClient;
use v1::instance::State;
use v1::scheduler_client::SchedulerClient;

use crate::encrypted::{Ground, channel};
use crate::hook::{Hook, Stop};
use crate::world::{LIMIT, World, seconds, violations};

const ONE: &str = "applications/shop/instances/one";

fn named(setting: &'static str, path: PathBuf) -> NamedFile {
    NamedFile { setting, path }
}

/// Something that speaks TLS in front of `hook`, which does not.
async fn front(hook: &Hook, Pair { certificate, key }: Pair, clients: ClientCertificates) -> SocketAddr {
    let own = KeyPair { certificate: named("--cert", certificate), key: named("--key", key) };
    let acceptor = Acceptor::load(AcceptorFiles { own, clients }, &[b"h2"], Arc::new(Kernel)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), hook.address);
    tokio::spawn(async move {
        loop {
            let (outer, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut accepted) = acceptor.accept(Box::new(outer) as Box<dyn Socket>).await else { return };
                let mut inner = TcpStream::connect(behind).await.unwrap();
                // Either side may go away at any time.
                let _ended = tokio::io::copy_bidirectional(&mut accepted.stream, &mut inner).await;
            });
        }
    });
    address
}

fn registration(endpoint: &str) -> v1::RegisterInstanceRequest {
    let instance = v1::Instance {
        name: ONE.to_owned(),
        endpoint: endpoint.to_owned(),
        cluster: "a".to_owned(),
        agent_id: "agent of one".to_owned(),
        ..Default::default()
    };
    v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() }
}

async fn instance(world: &World) -> v1::Instance {
    let request = v1::GetInstanceRequest { name: ONE.to_owned() };
    world.scheduler.clone().get_instance(request).await.unwrap().into_inner().instance.unwrap()
}

/// Registers the hook at `endpoint`, again and again as agents do, until it is unreachable because of `reason`.
async fn unreachable_because(world: &World, endpoint: &str, reason: &str) {
    eventually(format!("{endpoint} to be unreachable, {reason}"), LIMIT, async || {
        world.gateway.clone().register_instance(registration(endpoint)).await.unwrap();
        let found = instance(world).await;
        let is_so = found.state() == State::Unreachable && found.unreachable_reason.contains(reason);
        if is_so { Ok(()) } else { Err(format!("{:?}: {}", found.state(), found.unreachable_reason)) }
    })
    .await;
}

async fn ready(world: &World, endpoint: &str) {
    eventually(format!("{endpoint} to be ready"), LIMIT, async || {
        world.gateway.clone().register_instance(registration(endpoint)).await.unwrap();
        let found = instance(world).await;
        let is_so = found.state() == State::Ready && found.unreachable_reason.is_empty();
        if is_so { Ok(()) } else { Err(format!("{:?}: {}", found.state(), found.unreachable_reason)) }
    })
    .await;
}

/// The same world, called in TLS.
async fn secured(ground: &Ground, config: Config) -> World {
    let mut world = World::lazily_with(config).await;
    let channel = channel(&ground.connector(None), &world).await;
    (world.scheduler, world.gateway) = (SchedulerClient::new(channel.clone()), AgentGatewayClient::new(channel));
    world
}

#[tokio::test]
async fn an_application_is_stopped_by_a_hook_in_tls() {
    let ground = Ground::new();
    let config = Config { hook_ca: Some(named("tls.hook_ca", ground.ca.clone())), ..Config::ephemeral() };
    let mut world = World::with(config).await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    let pair = ground.authority.issue(&["127.0.0.1"]).write(ground.directory.path(), "hook");
    let address = front(&hook, pair, ClientCertificates::Ignored).await;
    ready(&world, &format!("https://{address}")).await;
    let operation = world.delete("shop", false).await.unwrap();
    world.operation_is(&operation.name, v1::operation::State::Succeeded).await;
    assert_eq!(hook.calls("Shutdown"), 1);
    let bearers = hook.notes("Shutdown");
    assert!(bearers[0].starts_with("Bearer "), "the token is asked for in TLS as well");
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_certificate_of_a_hook_is_said_with_what_helps() {
    let ground = Ground::new();
    let config = Config { hook_ca: Some(named("tls.hook_ca", ground.ca.clone())), ..Config::ephemeral() };
    let mut world = World::with(config).await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    let directory = ground.directory.path();
    let foreign = Authority::new().issue(&["127.0.0.1"]).write(directory, "foreign");
    let other = ground.authority.issue(&["other.example.net"]).write(directory, "other");
    let expired = ground.authority.issue_until(&["127.0.0.1"], 2001).write(directory, "expired");
    for (pair, reason) in [
        (
            foreign,
            "the certificate of 127.0.0.1 is not signed by a CA that is trusted here: name its CA with tls.hook_ca",
        ),
        (other, "the certificate of 127.0.0.1 is for other.example.net"),
        (expired, "the certificate of 127.0.0.1 has expired"),
    ] {
        let address = front(&hook, pair, ClientCertificates::Ignored).await;
        unreachable_because(&world, &format!("https://{address}"), reason).await;
    }
    let plain = format!("https://{}", hook.address);
    unreachable_because(&world, &plain, "speaks no TLS on this port: give the hook a certificate").await;
    assert_eq!(hook.calls("GetHookInfo"), 0, "nobody has been told a token");
    // It counts as any hook that is not reached.
    let retry = Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() });
    let policy = Some(v1::ShutdownPolicy { retry, accept_timeout: seconds(2), ..Default::default() });
    let request = v1::DeleteApplicationRequest { name: "applications/shop".to_owned(), policy, ..Default::default() };
    let operation = world.scheduler.delete_application(request).await.unwrap().into_inner().operation.unwrap();
    let failed = world.operation_is(&operation.name, v1::operation::State::Degraded).await;
    assert!(failed.message.contains("speaks no TLS on this port"), "{}", failed.message);
    world.stop().await;
}

#[tokio::test]
async fn a_hook_that_asks_for_a_certificate_is_shown_that_of_the_scheduler() {
    let ground = Ground::new();
    let hook = Hook::start(Stop::AtOnce).await;
    let directory = ground.directory.path();
    let pair = ground.authority.issue(&["127.0.0.1"]).write(directory, "hook");
    let hook_ca = Some(named("tls.hook_ca", ground.ca.clone()));
    let ours = || ClientCertificates::Required(named("--hook-client-ca", ground.ca.clone()));
    let address = front(&hook, pair.clone(), ours()).await;
    let endpoint = format!("https://{address}");

    let mut world = World::with(Config { hook_ca: hook_ca.clone(), ..Config::ephemeral() }).await;
    world.create("applications/shop", "a").await;
    let advice = "127.0.0.1 takes clients with a certificate only: give one with tls.certificate and tls.key";
    unreachable_because(&world, &endpoint, advice).await;
    world.stop().await;

    let mut world = secured(&ground, Config { hook_ca, ..ground.config() }).await;
    world.create("applications/shop", "a").await;
    ready(&world, &endpoint).await;
    let strangers = Authority::new().write(directory, "strangers.pem");
    let theirs = ClientCertificates::Required(named("--hook-client-ca", strangers));
    let address = front(&hook, pair, theirs).await;
    let advice = "127.0.0.1 refuses the certificate of tls.certificate";
    unreachable_because(&world, &format!("https://{address}"), advice).await;
    world.stop().await;
}

#[tokio::test]
async fn a_new_ca_counts_when_a_hook_is_dialled_again() {
    let ground = Ground::new();
    let config = Config { hook_ca: Some(named("tls.hook_ca", ground.ca.clone())), ..Config::ephemeral() };
    let mut world = World::with(config).await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    let next = Authority::new();
    let pair = next.issue(&["127.0.0.1"]).write(ground.directory.path(), "hook");
    let endpoint = format!("https://{}", front(&hook, pair, ClientCertificates::Ignored).await);
    unreachable_because(&world, &endpoint, "name its CA with tls.hook_ca").await;
    next.write(ground.directory.path(), "ca.pem");
    ready(&world, &endpoint).await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_ca_of_ours_those_of_the_system_are_asked() {
    let ground = Ground::new();
    let mut world = World::start().await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    let pair = ground.authority.issue(&["127.0.0.1"]).write(ground.directory.path(), "hook");
    let address = front(&hook, pair, ClientCertificates::Ignored).await;
    // A system may have none; that is said in the same breath.
    unreachable_because(&world, &format!("https://{address}"), "with tls.hook_ca").await;
    assert_eq!(hook.calls("GetHookInfo"), 0);
    world.stop().await;
}

#[tokio::test]
async fn no_hook_in_the_clear_is_registered_from_a_network() {
    let mut world = World::with(Config { hooks_in_clear: false, ..Config::ephemeral() }).await;
    world.create("applications/shop", "a").await;
    for endpoint in ["10.0.0.7:7080", "db-0.example.net:7080", "[2001:db8::1]:7080", "0.0.0.0:7080"] {
        let refused = world.gateway.register_instance(registration(endpoint)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let [(field, rule)] = &violations(&refused)[..] else { panic!("one violation") };
        assert_eq!(field, "instance.endpoint");
        assert!(rule.contains("register https://host:port") && rule.contains("dial in"), "{rule}");
    }
    for endpoint in ["https://10.0.0.7:7080", "127.0.0.1:7080", "[::1]:7080", "localhost:7080", "unix:/run/hook.sock"] {
        world.gateway.register_instance(registration(endpoint)).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn a_hook_that_was_registered_in_the_clear_before_is_not_told_its_token() {
    let store = || Arc::new(MemoryStore::new(Uuid::nil()));
    let store = StoreChoice::Given(store());
    let before = Config { store: store.clone(), ..Config::ephemeral() };
    let mut world = World::with(before.clone()).await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    // An address like that of a network, on which the kernel reaches this machine.
    ready(&world, &format!("0.0.0.0:{}", hook.address.port())).await;
    world.stop().await;

    let asked = hook.calls("GetHookInfo");
    let world = World::with(Config { hooks_in_clear: false, ..before }).await;
    eventually("the reason to be said", LIMIT, async || {
        let found = instance(&world).await;
        let said = found.unreachable_reason.contains("is called in the clear") && found.state() == State::Unreachable;
        if said { Ok(()) } else { Err(format!("{:?}: {}", found.state(), found.unreachable_reason)) }
    })
    .await;
    assert_eq!(hook.calls("GetHookInfo"), asked);
    world.stop().await;
}
