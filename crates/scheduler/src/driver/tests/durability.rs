//! Persist, then act; and what is left after a crash.

use std::collections::BTreeSet;
use std::sync::Arc;

use quiesce_operation::{Kind, Moment, Placement, StateName};
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Capability, Evidence, ShutdownPhase};
use quiesce_runtime::clock::ManualClock;
use quiesce_store::fault::FaultyStore;
use quiesce_store::{CommitError, EngineError};
use quiesce_testkit::hook::{Act, Call, Script};
use tokio::time::timeout;

use super::world::{LIMIT, SOURCE, World, application, caller, count, hasty, hook, instance, memory};
use crate::driver::{Command, CommandError};
use crate::records::Connect;

fn is_shutdown(call: &Call) -> bool {
    matches!(call, Call::Shutdown(_))
}

fn is_check(call: &Call) -> bool {
    matches!(call, Call::CheckShutdown(_))
}

#[tokio::test]
async fn nothing_is_asked_before_the_first_commit_has_resolved() {
    let store = FaultyStore::new(memory());
    let world = World::over(Arc::new(store.clone())).await;
    let (hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    let (operation, batch) =
        world.acceptance("op-1", Kind::Delete, Placement::External { require_confirmation: false }, hasty()).await;
    let revision = world.store.commit(batch).await.unwrap().last;
    store.hold();
    let id = operation.id().clone();
    world.handle.adopt(operation, revision).await;
    store.held(1).await;
    // A question that ran ahead would be on the same connection, in front of these.
    for _ in 0..2 {
        world.hooks.probe(&application(), &instance("a"), false, LIMIT).await.unwrap();
    }
    assert_eq!(count(&hook, is_check), 0, "{:?}", hook.calls());
    store.release();
    world.end(&id, StateName::Succeeded).await;
    assert_eq!(count(&hook, is_shutdown), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_cannot_be_stored_is_answered_in_time() {
    let store = FaultyStore::new(memory());
    let clock = Arc::new(ManualClock::new(1_000_000));
    let world = World::with_clock(Arc::new(store.clone()), clock).await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let id = world.delete(hasty()).await;
    world.until_state(&id, StateName::Preparing).await;
    store.fail_all(CommitError::Full);
    let outcome = world.handle.command(&id, Command::Cancel(caller())).await;
    assert!(matches!(outcome, Err(CommandError::Stalled(_))), "{outcome:?}");
    store.heal();
    world.until_state(&id, StateName::Cancelled).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_got_lost_is_found_out_by_looking() {
    let store = FaultyStore::new(memory());
    let clock = Arc::new(ManualClock::new(1_000_000));
    let world = World::with_clock(Arc::new(store.clone()), clock).await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let id = world.delete(hasty()).await;
    world.until_state(&id, StateName::Preparing).await;
    store.lose_next(1, CommitError::Full);
    world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
    world.handle.idle().await;
    assert!(world.handle.is_healthy());
    assert_eq!(world.operation(&id).await.state(), StateName::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_leaves_open_what_it_did_and_the_driver_finds_out() {
    for stored in [true, false] {
        let store = FaultyStore::new(memory());
        let clock = Arc::new(ManualClock::new(1_000_000));
        let world = World::with_clock(Arc::new(store.clone()), clock).await;
        world.register_at("a", SOURCE, Connect::DialIn).await;
        let id = world.delete(hasty()).await;
        world.until_state(&id, StateName::Preparing).await;
        let failed = CommitError::Engine { source: EngineError::new("the disk is gone") };
        if stored {
            store.lose_next(1, failed)
        } else {
            store.fail_next(1, failed)
        }
        world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
        world.handle.idle().await;
        assert!(world.handle.is_healthy(), "stored: {stored}");
        assert_eq!(world.operation(&id).await.state(), StateName::Cancelled);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_written_stops_the_operation_until_it_can() {
    let unavailable = CommitError::Unavailable { source: EngineError::new("the disk is gone") };
    for trouble in [CommitError::Full, CommitError::ReadOnly, unavailable] {
        let store = FaultyStore::new(memory());
        let world = World::over(Arc::new(store.clone())).await;
        let (hook, listening) = hook(Script::of([vec![
            Act::Report(ShutdownPhase::Accepted),
            Act::UntilReleased,
            Act::Result(Outcome::Stopped, Evidence::GroupEmpty),
        ]]))
        .await;
        world.register("a", SOURCE, &listening).await;
        let id = world.delete(hasty()).await;
        hook.told(|calls| calls.iter().any(is_shutdown)).await;
        world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
        store.fail_all(trouble);
        hook.release();
        let before = store.attempts();
        quiesce_testkit::eventually("the driver to try again", LIMIT, async || store.attempts() > before + 1).await;
        assert!(!world.handle.is_healthy());
        assert_eq!(count(&hook, |call| matches!(call, Call::ConcludeShutdown(_))), 0);
        store.heal();
        world.end(&id, StateName::Succeeded).await;
        world.handle.idle().await;
        assert!(world.handle.is_healthy());
        assert!(world.handle.gauges().stalls_total > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_else_has_written_stops_the_driver_loudly() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let world = World::with_clock(memory(), clock).await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let id = world.delete(hasty()).await;
    let operation = world.until_state(&id, StateName::Preparing).await;
    let key = crate::records::operation_key(&id);
    let foreign = crate::records::put(Default::default(), key, &crate::records::OperationRecord(operation));
    world.store.commit(foreign).await.unwrap();
    let outcome = world.handle.command(&id, Command::Cancel(caller())).await;
    assert!(matches!(outcome, Err(CommandError::Stalled(_))), "{outcome:?}");
    world.handle.idle().await;
    assert!(!world.handle.is_healthy());
    assert_eq!(world.operation(&id).await.state(), StateName::Preparing, "nothing was overwritten");
}

#[tokio::test]
async fn a_scheduler_that_shuts_down_lets_its_operations_rest_where_they_are() {
    let disk = memory();
    let world = World::over(disk.clone()).await;
    let (hook, listening) = hook(Script::of([vec![
        Act::Report(ShutdownPhase::Stopping),
        Act::UntilReleased,
        Act::Result(Outcome::Stopped, Evidence::GroupEmpty),
    ]]))
    .await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    world.drain.announce();
    timeout(LIMIT, world.handle.idle()).await.unwrap();
    assert!(world.handle.is_healthy());
    let outcome = world.handle.command(&id, Command::Extend { grace: hasty().grace_period * 2 }).await;
    assert!(matches!(outcome, Err(CommandError::NotDriven(_))), "{outcome:?}");
    world.crash().await;
    let world = World::over(disk).await;
    world.recover().await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
    assert_eq!(hook.shutdowns().iter().map(|request| &request.shutdown_id).collect::<BTreeSet<_>>().len(), 1);
}

#[tokio::test]
async fn a_hook_without_a_journal_is_asked_before_it_is_joined() {
    let mut script = Script::of([vec![Act::Report(ShutdownPhase::Stopping), Act::UntilReleased]]);
    script.info.capabilities.retain(|capability| *capability != i32::from(Capability::Durable));
    let (before, before_at) = hook(script.clone()).await;
    let disk = memory();
    let world = World::over(disk.clone()).await;
    world.register("a", SOURCE, &before_at).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    world.crash().await;
    // The agent was restarted as well, and has forgotten everything.
    let (after, after_at) = hook(script).await;
    let world = World::over(disk).await;
    world.register("a", SOURCE, &after_at).await;
    world.recover().await;
    world.end(&id, StateName::Degraded).await;
    assert_eq!((before.shutdowns().len(), after.shutdowns().len()), (1, 0), "never told to stop twice in one attempt");
}

#[tokio::test]
async fn after_a_restart_the_rest_of_the_grace_period_is_left() {
    let (hook, listening) = hook(Script::of([vec![Act::Report(ShutdownPhase::Stopping), Act::UntilReleased]])).await;
    let disk = memory();
    let world = World::over(disk.clone()).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    let before = world.until(&id, |operation| operation.deadline().is_some()).await;
    world.crash().await;
    let world = World::over(disk).await;
    world.recover().await;
    hook.told(|calls| calls.iter().filter(|call| is_shutdown(call)).count() == 2).await;
    let requests = hook.shutdowns();
    assert_eq!(requests[0].shutdown_id, requests[1].shutdown_id);
    assert_eq!(requests[0].completion_token, requests[1].completion_token);
    assert_eq!(world.operation(&id).await.deadline(), before.deadline());
}

#[tokio::test]
async fn an_operation_that_rests_is_taken_up_and_still_obeys() {
    let disk = memory();
    let world = World::over(disk.clone()).await;
    let (_hook, listening) = hook(Script { findings: vec!["no such process".to_owned()], ..Script::default() }).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Degraded).await;
    world.crash().await;
    let world = World::over(disk).await;
    world.recover().await;
    let cancelled = world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
    assert_eq!(cancelled.operation.state(), StateName::Cancelled);
    timeout(LIMIT, world.handle.idle()).await.unwrap();
    assert_eq!(world.application().await.unwrap().active_operation, None);
    let again = world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
    assert_eq!(again.operation.state(), StateName::Cancelled, "repeating it is fine");
}

#[tokio::test]
async fn a_deletion_leaves_a_tombstone_and_nothing_else() {
    let world = World::new().await;
    let (hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!(world.application().await, None);
    let instances = world.store.scan(crate::records::instances_of(&application())).await.unwrap();
    assert_eq!(instances, []);
    let tombstone = world.store.get(crate::records::tombstone_key(&application())).await.unwrap();
    assert!(tombstone.is_some());
    let concluded = hook.calls().into_iter().any(|call| match call {
        Call::ConcludeShutdown(request) => {
            request.disposition() == quiesce_protocol::v1::conclude_shutdown_request::Disposition::Retired
        }
        _ => false,
    });
    assert!(concluded);
    assert!(world.hooks.find(&application(), &instance("a")).is_none());
}

#[tokio::test]
async fn no_token_is_stored_anywhere() {
    let world = World::new().await;
    let (hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    let token = hook.shutdowns()[0].completion_token.clone();
    let bearer = world.hooks.token(&application(), &instance("a"), Moment::from_millis(0));
    for space in quiesce_store::Space::ALL {
        for entry in world.store.scan(quiesce_store::Scan::all(space)).await.unwrap() {
            let text = String::from_utf8_lossy(&entry.value).into_owned();
            assert!(!text.contains(&token) && !text.contains(bearer.reveal()), "{}", entry.key);
        }
    }
    let sent = hook.calls().into_iter().find_map(|call| match call {
        Call::GetHookInfo(bearer) => bearer,
        _ => None,
    });
    assert_eq!(sent, Some(format!("Bearer {}", bearer.reveal())));
}
