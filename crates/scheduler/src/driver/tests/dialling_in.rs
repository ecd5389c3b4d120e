//! Agents that dial in: group A of the conformance suite.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use quiesce_operation::StateName;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Evidence, ShutdownPhase};
use quiesce_testkit::eventually;
use quiesce_testkit::hook::{Act, Call, Script, ScriptedHook};
use quiesce_testkit::proxy::TcpProxy;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::world::{LIMIT, SOURCE, World, application, hasty, instance};
use crate::hooks::HookState;
use crate::records::Connect;

/// Takes connections as the server does once it has seen a `Q`.
async fn door(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let attachments = world.attachments.clone();
    tokio::spawn(async move {
        while let Ok((socket, peer)) = listener.accept().await {
            let attachments = attachments.clone();
            tokio::spawn(async move { attachments.attach(socket, peer).await });
        }
    });
    address
}

fn token(world: &World) -> String {
    world.attachments.issue(&application(), &instance("a")).unwrap().reveal().to_owned()
}

/// Dials, says the line, returns the socket and what was answered.
async fn dial(door: SocketAddr, line: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(door).await.unwrap();
    socket.write_all(line.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        answer.push(timeout(LIMIT, socket.read_u8()).await.unwrap().unwrap());
    }
    (socket, String::from_utf8(answer).unwrap())
}

async fn attach(world: &World, door: SocketAddr, hook: &ScriptedHook) {
    let (socket, answer) = dial(door, &format!("QUIESCE/1 ATTACH {}\r\n", token(world))).await;
    assert_eq!(answer, "QUIESCE/1 OK\r\n");
    hook.serve(socket);
}

async fn attached(world: &World) {
    eventually("the agent to be attached", LIMIT, async || {
        world.hooks.presence(&application(), &instance("a")).state == HookState::Ready
    })
    .await;
}

#[tokio::test]
async fn an_attached_agent_is_shut_down_over_its_own_connection() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let hook = ScriptedHook::new(Script::default());
    attach(&world, door, &hook).await;
    attached(&world).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert!(hook.calls().contains(&Call::GetHookInfo(None)), "no bearer on a connection the agent opened itself");
}

#[tokio::test]
async fn wrong_used_and_malformed_lines_get_a_typed_answer() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let refused = "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n";
    assert_eq!(dial(door, "QUIESCE/1 ATTACH qat1.nonsense\r\n").await.1, refused);
    let line = format!("QUIESCE/1 ATTACH {}\r\n", token(&world));
    assert_eq!(dial(door, &line).await.1, "QUIESCE/1 OK\r\n");
    let (socket, answer) = dial(door, &line).await;
    assert_eq!(answer, refused);
    let mut rest = String::new();
    timeout(LIMIT, BufReader::new(socket).read_line(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "", "the connection is closed after an error");
    assert_eq!(dial(door, "QUEUE\r\n").await.1, "QUIESCE/1 ERROR INVALID_ARGUMENT INVALID_FIELD\r\n");
}

#[tokio::test]
async fn a_new_connection_replaces_the_older_one_which_is_closed() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let (older, newer) = (ScriptedHook::new(Script::default()), ScriptedHook::new(Script::default()));
    let (old_way, new_way) = (TcpProxy::start(door).await, TcpProxy::start(door).await);
    attach(&world, old_way.address(), &older).await;
    attached(&world).await;
    assert_eq!(old_way.open(), 1);
    attach(&world, new_way.address(), &newer).await;
    newer.told(|calls| !calls.is_empty()).await;
    eventually("the older connection to be closed", LIMIT, async || old_way.open() == 0).await;
    assert_eq!(new_way.open(), 1);
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!((older.shutdowns().len(), newer.shutdowns().len()), (0, 1));
}

#[tokio::test]
async fn a_connection_of_another_instance_is_not_taken() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let mut script = Script::default();
    script.info.instance = "applications/shop/instances/b".to_owned();
    let hook = ScriptedHook::new(script);
    let (socket, _ok) = dial(door, &format!("QUIESCE/1 ATTACH {}\r\n", token(&world))).await;
    let serving = hook.serve(socket);
    hook.told(|calls| !calls.is_empty()).await;
    let state = world.hooks.presence(&application(), &instance("a")).state;
    assert!(matches!(state, HookState::Unknown | HookState::Unreachable), "{state:?}");
    serving.abort();
}

#[tokio::test]
async fn an_agent_that_comes_back_in_mid_shutdown_is_joined_with_the_same_id() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let network = TcpProxy::start(door).await;
    let hook = ScriptedHook::new(Script::of([vec![
        Act::Report(ShutdownPhase::Stopping),
        Act::UntilReleased,
        Act::Result(Outcome::Stopped, Evidence::GroupEmpty),
    ]]));
    attach(&world, network.address(), &hook).await;
    attached(&world).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    network.cut_connections();
    eventually("the loss to be noticed", LIMIT, async || {
        !world.hooks.presence(&application(), &instance("a")).connected
    })
    .await;
    attach(&world, network.address(), &hook).await;
    hook.told(|calls| calls.iter().filter(|call| matches!(call, Call::Shutdown(_))).count() >= 2).await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
    let ids: BTreeSet<_> = hook.shutdowns().into_iter().map(|request| request.shutdown_id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn an_agent_that_dials_in_while_it_is_asked_for_is_asked_at_once() {
    let world = World::new().await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let door = door(&world).await;
    let id = world.delete(hasty()).await;
    world.until_state(&id, StateName::Preparing).await;
    attach(&world, door, &ScriptedHook::new(Script::default())).await;
    world.end(&id, StateName::Succeeded).await;
}
