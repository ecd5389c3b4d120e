//! Tokens are good for what they were made for, and for nothing else: not for another attempt, instance or operation, not
//! in another life of the scheduler, not twice.

use std::sync::Arc;

use quiesce_protocol::v1;
use quiesce_scheduler::{Config, StoreChoice};
use quiesce_store::memory::MemoryStore;
use quiesce_testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use uuid::Uuid;
use v1::operation::State;

use crate::hook::{Hook, Stop};
use crate::world::{LIMIT, World, expect_error};

/// Says that the application of `shutdown` has stopped, with `token`.
async fn complete(world: &mut World, shutdown: &str, token: &str) -> Result<(), Status> {
    let request = v1::CompleteShutdownRequest {
        shutdown_id: shutdown.to_owned(),
        completion_token: token.to_owned(),
        result: Some(v1::StopResult {
            outcome: v1::stop_result::Outcome::Stopped.into(),
            evidence: v1::Evidence::GroupEmpty.into(),
            ..Default::default()
        }),
    };
    world.gateway.complete_shutdown(request).await.map(drop)
}

async fn told(hook: &Hook, attempt: i32) -> v1::ShutdownRequest {
    eventually(format!("attempt {attempt}"), LIMIT, async || {
        hook.shutdowns().into_iter().find(|one| one.attempt == attempt).ok_or("not yet")
    })
    .await
}

#[tokio::test]
async fn a_completion_token_is_worthless_for_everything_else() {
    let store = StoreChoice::Given(Arc::new(MemoryStore::new(Uuid::new_v4())));
    let config = Config { store, ..Config::ephemeral() };
    let mut world = World::with(config.clone()).await;
    let one = world.populated("shop", Stop::Refuse).await;
    let (two, bank) = (Hook::start(Stop::Refuse).await, world.populated("bank", Stop::Hang).await);
    world.register("applications/shop/instances/two", "a", &two).await.unwrap();
    world.instance_is("applications/shop/instances/two", v1::instance::State::Ready).await;
    let once = v1::RetryPolicy { max_attempts: Some(1), ..Default::default() };
    let request = v1::DeleteApplicationRequest {
        name: "applications/shop".to_owned(),
        policy: Some(v1::ShutdownPolicy { retry: Some(once), ..Default::default() }),
        ..Default::default()
    };
    let operation = world.scheduler.delete_application(request).await.unwrap().into_inner().operation.unwrap();
    let other = world.delete("bank", false).await.unwrap();
    world.operation_is(&operation.name, State::Degraded).await;
    for hook in [&one, &two] {
        hook.play(|script| script.stop = Stop::Hang);
    }
    let again = v1::RetryOperationRequest { name: operation.name.clone(), ..Default::default() };
    world.scheduler.retry_operation(again).await.unwrap();
    let (first, second) = (told(&one, 1).await, told(&one, 2).await);
    let (of_two, of_bank) = (told(&two, 2).await, told(&bank, 1).await);

    for life in 0..2 {
        if life > 0 {
            world.stop().await;
            world = World::with(config.clone()).await;
        }
        for strange in [&first, &of_two, &of_bank] {
            let refused = complete(&mut world, &second.shutdown_id, &strange.completion_token).await;
            expect_error(refused, Code::PermissionDenied, "COMPLETION_TOKEN_INVALID");
        }
        let late = complete(&mut world, &first.shutdown_id, &first.completion_token).await;
        expect_error(late, Code::FailedPrecondition, "COMPLETION_TOKEN_STALE");
        assert_eq!(world.operation(&operation.name).await.state(), State::Stopping);
    }

    for hook in [&one, &two] {
        hook.play(|script| script.app = v1::hook_info::AppState::Stopped);
    }
    complete(&mut world, &second.shutdown_id, &second.completion_token).await.unwrap();
    complete(&mut world, &of_two.shutdown_id, &of_two.completion_token).await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    assert_eq!(world.operation(&other.name).await.state(), State::Stopping, "nothing of it ended another operation");
    world.stop().await;
}

/// Dials in with `token`; the line that is answered.
async fn attach(world: &World, token: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(world.address).await.unwrap();
    socket.write_all(format!("QUIESCE/1 ATTACH {token}\r\n").as_bytes()).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(timeout(LIMIT, socket.read_u8()).await.unwrap().unwrap());
    }
    (socket, String::from_utf8(line).unwrap())
}

#[tokio::test]
async fn an_attach_token_is_good_once_and_in_this_life_of_the_scheduler_only() {
    let store = StoreChoice::Given(Arc::new(MemoryStore::new(Uuid::new_v4())));
    let config = Config { store, ..Config::ephemeral() };
    let mut world = World::with(config.clone()).await;
    world.create("applications/shop", "a").await;
    let register = async |world: &mut World| {
        let instance = v1::Instance {
            name: "applications/shop/instances/one".to_owned(),
            cluster: "a".to_owned(),
            connect_mode: v1::instance::ConnectMode::DialIn.into(),
            agent_id: "agent".to_owned(),
            ..Default::default()
        };
        let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
        world.gateway.register_instance(request).await.unwrap().into_inner().attach_token
    };
    let (used, unused) = (register(&mut world).await, register(&mut world).await);
    let (_attached, answer) = attach(&world, &used).await;
    assert_eq!(answer, "QUIESCE/1 OK\r\n");
    const NO: &str = "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n";
    assert_eq!(attach(&world, &used).await.1, NO);
    world.stop().await;

    let mut world = World::with(config).await;
    for old in [&used, &unused] {
        assert_eq!(attach(&world, old).await.1, NO);
    }
    let fresh = register(&mut world).await;
    assert_eq!(attach(&world, &fresh).await.1, "QUIESCE/1 OK\r\n");
    world.stop().await;
}
