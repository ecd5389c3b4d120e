//! What a restart keeps: everything that was acknowledged.

use std::sync::Arc;

use futures::StreamExt as _;
use quiesce_protocol::v1;
use quiesce_scheduler::access;
use quiesce_scheduler::secrets::Rotation;
use quiesce_scheduler::{BindError, Config, Scheduler, StoreChoice};
use quiesce_store::memory::MemoryStore;
use quiesce_testkit::eventually;
use tokio::time::timeout;
use uuid::Uuid;
use v1::operation::State;

use crate::hook::Stop;
use crate::world::{LIMIT, World};

#[tokio::test]
async fn a_restart_keeps_everything_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = StoreChoice::Embedded { directory: directory.path().to_owned() };
    let config = Config { store, ..Config::ephemeral() };

    let mut world = World::with(config.clone()).await;
    let hook = world.populated("shop", Stop::Hang).await;
    let mut stream =
        world.scheduler.watch_operations(v1::WatchOperationsRequest::default()).await.unwrap().into_inner();
    let bookmark = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().event.unwrap();
    let operation = world.migrate("shop", "b", "id").await.unwrap();
    let stopping = world.operation_is(&operation.name, State::Stopping).await;
    drop(stream);
    world.stop().await;

    let mut world = World::with(config.clone()).await;
    let found = world.operation(&operation.name).await;
    assert_eq!((found.requester, found.attempt, found.epoch), (stopping.requester, 1, stopping.epoch));
    assert_eq!(world.migrate("shop", "b", "id").await.unwrap().name, operation.name);
    hook.play(|script| script.stop = Stop::AtOnce);
    let done = world.operation_is(&operation.name, State::Succeeded).await;
    assert_eq!((done.attempt, done.round), (1, 1), "the same attempt went on");

    // The token of the life before the restart goes on without a gap.
    let request = v1::WatchOperationsRequest { resume_token: bookmark.resume_token, ..Default::default() };
    let mut stream = world.scheduler.watch_operations(request).await.unwrap().into_inner();
    let mut states = Vec::new();
    while states.last() != Some(&State::Succeeded) {
        let event = timeout(LIMIT, stream.next()).await.unwrap().unwrap().unwrap().event.unwrap();
        if event.r#type() == v1::operation_event::Type::StateChanged {
            states.push(event.operation.unwrap().state());
        }
    }
    let wanted = [State::Preparing, State::Stopping, State::Stopped, State::Finalizing, State::Succeeded];
    assert_eq!(states, wanted);
    drop(stream);

    let second = Scheduler::bind(config).await.map(|_| ());
    assert!(matches!(second, Err(BindError::Store(_))), "two schedulers on one directory: {second:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_new_key_disturbs_no_running_shutdown_and_no_hook() {
    let store = StoreChoice::Given(Arc::new(MemoryStore::new(Uuid::new_v4())));
    let config = Config { store, ..Config::ephemeral() };
    let mut world = World::with(config.clone()).await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.delete("shop", false).await.unwrap();
    world.operation_is(&operation.name, State::Stopping).await;
    let before = hook.shutdowns().remove(0);
    let bearer = hook.notes("Shutdown").remove(0);
    world.stop().await;

    let access = access::Config { rotation: Rotation::Now, ..access::Config::open() };
    let mut world = World::with(Config { access, ..config }).await;
    eventually(
        "the shutdown to be joined",
        LIMIT,
        async || {
            if hook.shutdowns().len() > 1 { Ok(()) } else { Err("not yet") }
        },
    )
    .await;
    let joined = hook.shutdowns().pop().unwrap();
    assert_eq!((&joined.shutdown_id, &joined.completion_token), (&before.shutdown_id, &before.completion_token));
    assert_eq!(hook.notes("Shutdown").pop().unwrap(), bearer, "the hook knows no other");
    // Its result has to bring that token.
    hook.play(|script| script.stop = Stop::AtOnce);
    let done = world.operation_is(&operation.name, State::Succeeded).await;
    assert_eq!(done.attempt, 1, "the same attempt went on");

    let next = world.populated("bank", Stop::AtOnce).await;
    let operation = world.delete("bank", false).await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    let key = |token: &str| token.split('.').nth(1).map(str::to_owned);
    let after = next.shutdowns().remove(0);
    assert_ne!(key(&after.completion_token), key(&before.completion_token));
    world.stop().await;
}
