//! Watches: W01 to W13.

use futures::StreamExt as _;
use quiesce_protocol::v1;
use tokio::time::timeout;
use tonic::{Code, Streaming};
use v1::operation::State;
use v1::operation_event::Type;

use crate::hook::Stop;
use crate::world::{LIMIT, World, expect_error, seconds};

async fn next(stream: &mut Streaming<v1::WatchOperationsResponse>) -> v1::OperationEvent {
    let response = timeout(LIMIT, stream.next()).await.expect("an event in time").expect("no end").unwrap();
    response.event.unwrap()
}

async fn one(world: &mut World, request: v1::WatchOperationRequest) -> Vec<v1::OperationEvent> {
    let stream = world.scheduler.watch_operation(request).await.unwrap().into_inner();
    let events = stream.map(|response| response.unwrap().event.unwrap()).collect();
    timeout(LIMIT, events).await.expect("the watch ends")
}

fn watch(name: &str, token: &str) -> v1::WatchOperationRequest {
    v1::WatchOperationRequest { name: name.to_owned(), resume_token: token.to_owned(), ..Default::default() }
}

fn all(filter: &str) -> v1::WatchOperationsRequest {
    v1::WatchOperationsRequest { filter: filter.to_owned(), ..Default::default() }
}

fn kinds(events: &[v1::OperationEvent]) -> Vec<Type> {
    events.iter().map(v1::OperationEvent::r#type).collect()
}

#[tokio::test]
async fn one_operation_is_followed_to_its_end() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    let stream = world.scheduler.watch_operation(watch(&operation.name, "")).await.unwrap().into_inner();
    world.operation_is(&operation.name, State::Stopping).await;
    hook.play(|script| script.stop = Stop::AtOnce);
    let events: Vec<_> = timeout(LIMIT, stream.map(|one| one.unwrap().event.unwrap()).collect()).await.unwrap();
    assert_eq!(events[0].r#type(), Type::Snapshot);
    assert!(events[0].resume_token.is_empty() && events[0].operation.as_ref().unwrap().instances.len() == 1);
    let last = events.last().unwrap();
    assert_eq!((last.r#type(), last.operation.as_ref().unwrap().state()), (Type::StateChanged, State::Succeeded));
    assert!(kinds(&events).contains(&Type::InstanceStopped));
    let revisions: Vec<i64> = events[1..].iter().map(|event| event.revision).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b || (a == b && *a == revisions[0])), "{revisions:?}");

    // It is over: the snapshot is all there is.
    let done = one(&mut world, watch(&operation.name, "")).await;
    assert_eq!(kinds(&done), [Type::Snapshot]);

    // From every token exactly the rest, then the end.
    for (index, event) in events.iter().enumerate().skip(1) {
        let rest = one(&mut world, watch(&operation.name, &event.resume_token)).await;
        assert_eq!(kinds(&rest), kinds(&events[index + 1..]), "from event {index}");
    }
    world.stop().await;
}

#[tokio::test]
async fn all_operations_are_followed_from_snapshot_and_bookmark_on() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let first = world.migrate("shop", "b", "").await.unwrap();
    world.operation_is(&first.name, State::Stopping).await;
    let mut stream = world.scheduler.watch_operations(all("")).await.unwrap().into_inner();
    let snapshot = next(&mut stream).await;
    assert_eq!((snapshot.r#type(), snapshot.operation.unwrap().name), (Type::Snapshot, first.name.clone()));
    let bookmark = loop {
        let event = next(&mut stream).await;
        if event.r#type() == Type::Bookmark {
            break event;
        }
    };
    assert!(!bookmark.resume_token.is_empty() && bookmark.operation.is_none());
    hook.play(|script| script.stop = Stop::AtOnce);
    let mut seen = Vec::new();
    while seen.last() != Some(&State::Succeeded) {
        let event = next(&mut stream).await;
        if event.r#type() == Type::StateChanged {
            seen.push(event.operation.unwrap().state());
        }
    }
    assert_eq!(seen, [State::Stopped, State::Finalizing, State::Succeeded]);

    let resumed = v1::WatchOperationsRequest { resume_token: bookmark.resume_token.clone(), ..all("") };
    let mut stream = world.scheduler.watch_operations(resumed).await.unwrap().into_inner();
    assert!(next(&mut stream).await.revision > bookmark.revision);
    let other = v1::WatchOperationsRequest { resume_token: bookmark.resume_token, ..all("kind = DELETE") };
    let refused = world.scheduler.watch_operations(other).await.map(|_| ());
    expect_error(refused, Code::InvalidArgument, "INVALID_RESUME_TOKEN");
    world.stop().await;
}

#[tokio::test]
async fn a_watch_can_begin_with_what_happens_now_and_filter() {
    let mut world = World::start().await;
    for name in ["one", "two"] {
        world.create(&format!("applications/{name}"), "a").await;
    }
    let request = v1::WatchOperationsRequest { skip_snapshot: true, ..all("application = two") };
    let mut stream = world.scheduler.watch_operations(request).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.r#type(), Type::Bookmark);
    world.delete("one", true).await.unwrap();
    let two = world.delete("two", true).await.unwrap();
    let event = next(&mut stream).await;
    assert_eq!((event.r#type(), event.operation.unwrap().name), (Type::Created, two.name.clone()));
    world.operation_is(&two.name, State::Succeeded).await;

    let request = v1::WatchOperationsRequest { include_done: true, ..all("") };
    let mut stream = world.scheduler.watch_operations(request).await.unwrap().into_inner();
    assert_eq!([next(&mut stream).await.r#type(), next(&mut stream).await.r#type()], [Type::Snapshot; 2]);
    world.stop().await;
}

#[tokio::test]
async fn a_quiet_watch_gets_bookmarks() {
    let mut world = World::start().await;
    let request = v1::WatchOperationsRequest { bookmark_interval: seconds(1), ..all("") };
    let mut stream = world.scheduler.watch_operations(request).await.unwrap().into_inner();
    for _ in 0..2 {
        assert_eq!(next(&mut stream).await.r#type(), Type::Bookmark);
    }
    let request = v1::WatchOperationsRequest {
        bookmark_interval: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
        ..all("")
    };
    expect_error(world.scheduler.watch_operations(request).await.map(|_| ()), Code::InvalidArgument, "INVALID_FIELD");
    world.stop().await;
}

#[tokio::test]
async fn a_script_can_end_when_a_person_is_needed() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::Refuse).await;
    let retry = Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() });
    let request = v1::MigrateApplicationRequest {
        name: "applications/shop".to_owned(),
        target_cluster: "b".to_owned(),
        policy: Some(v1::ShutdownPolicy { retry, ..Default::default() }),
        ..Default::default()
    };
    let operation = world.scheduler.migrate_application(request).await.unwrap().into_inner().operation.unwrap();
    let request = v1::WatchOperationRequest { end_on_degraded: true, ..watch(&operation.name, "") };
    let events = one(&mut world, request.clone()).await;
    assert_eq!(events.last().unwrap().operation.as_ref().unwrap().state(), State::Degraded);
    assert_eq!(kinds(&one(&mut world, request).await), [Type::Snapshot]);
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let mut world = World::start().await;
    let refused = world.scheduler.watch_operation(watch("operations/none", "")).await.map(|_| ());
    expect_error(refused, Code::NotFound, "OPERATION_NOT_FOUND");
    let garbage = v1::WatchOperationsRequest { resume_token: "garbage".to_owned(), ..all("") };
    let refused = world.scheduler.watch_operations(garbage).await.map(|_| ());
    expect_error(refused, Code::InvalidArgument, "INVALID_RESUME_TOKEN");

    let mut other = World::start().await;
    let mut stream = other.scheduler.watch_operations(all("")).await.unwrap().into_inner();
    let foreign = v1::WatchOperationsRequest { resume_token: next(&mut stream).await.resume_token, ..all("") };
    let refused = world.scheduler.watch_operations(foreign).await.map(|_| ());
    expect_error(refused, Code::OutOfRange, "RESUME_TOKEN_EXPIRED");
    drop(stream);
    other.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn when_the_scheduler_stops_a_watch_ends_with_a_token() {
    let mut world = World::start().await;
    let mut stream = world.scheduler.watch_operations(all("")).await.unwrap().into_inner();
    next(&mut stream).await;
    let stopped = world.tell_to_stop();
    assert_eq!(next(&mut stream).await.r#type(), Type::Bookmark);
    let end = timeout(LIMIT, stream.next()).await.unwrap().unwrap();
    expect_error(end, Code::Unavailable, "NOT_SERVING");
    timeout(LIMIT, stopped).await.unwrap().unwrap();
}
