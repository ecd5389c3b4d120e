//! What people ask of running operations: group C of the conformance suite.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use quiesce_operation::{Kind, Placement, PolicyOverrides, Reason, Refusal, StateName};
use quiesce_protocol::v1::Evidence;
use quiesce_protocol::v1::ShutdownPhase;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_store::Space;
use quiesce_testkit::hook::{Act, Call, Script, stops};
use tonic::Code;

use super::world::{SOURCE, World, caller, count, hasty, hook, operation_id};
use crate::driver::{Command, CommandError, RequestIdWrite};

#[tokio::test]
async fn a_shutdown_that_still_drains_is_taken_back() {
    let world = World::new().await;
    let acts = vec![
        Act::Report(ShutdownPhase::Draining),
        Act::UntilCancelled,
        Act::Result(Outcome::Cancelled, Evidence::Claimed),
    ];
    let (hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
    world.end(&id, StateName::Cancelled).await;
    assert_eq!(count(&hook, |call| matches!(call, Call::CancelShutdown(_))), 1);
    world.handle.idle().await;
    assert_eq!(world.application().await.unwrap().active_operation, None);
}

#[tokio::test]
async fn a_hook_that_says_it_is_too_late_decides() {
    let world = World::new().await;
    let acts = vec![
        Act::Report(ShutdownPhase::Draining),
        Act::UntilReleased,
        Act::Result(Outcome::Stopped, Evidence::GroupEmpty),
    ];
    let script = Script { cancel_error: Some((Code::FailedPrecondition, "POINT_OF_NO_RETURN")), ..Script::of([acts]) };
    let (hook, listening) = hook(script).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
    world.until_state(&id, StateName::Stopping).await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
    let refused = world.handle.command(&id, Command::Cancel(caller())).await;
    assert!(matches!(refused, Err(CommandError::Refused(Refusal::Done { .. }))), "{refused:?}");
}

#[tokio::test]
async fn past_the_point_of_no_return_a_cancel_is_refused() {
    let world = World::new().await;
    let (_hook, listening) = hook(Script::of([vec![Act::Report(ShutdownPhase::Stopping), Act::UntilReleased]])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.point_of_no_return().is_some()).await;
    let refused = world.handle.command(&id, Command::Cancel(caller())).await;
    assert!(matches!(refused, Err(CommandError::Refused(Refusal::PointOfNoReturn { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_retry_has_new_tokens_and_its_request_id_is_used_up_with_it() {
    let world = World::new().await;
    let still = vec![Act::Report(ShutdownPhase::Accepted), Act::Result(Outcome::StillRunning, Evidence::ExitObserved)];
    let (hook, listening) = hook(Script::of([still.clone(), still, stops()])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.degraded(&id, Reason::StillRunning).await;
    let key = Space::Requests.key("retry/ops@example/r-1");
    let retry = || Command::Retry {
        by: caller(),
        force: false,
        policy: PolicyOverrides::default(),
        remember: Some(RequestIdWrite { key: key.clone(), record: Bytes::from_static(b"r") }),
    };
    let answered = world.handle.command(&id, retry()).await.unwrap();
    assert_eq!(answered.operation.round(), 2);
    assert!(world.store.get(key.clone()).await.unwrap().is_some());
    world.until(&id, |operation| operation.round() == 2 && operation.state() == StateName::Degraded).await;
    let taken = world.handle.command(&id, retry()).await;
    assert!(matches!(taken, Err(CommandError::Conflict(_))), "{taken:?}");
    assert_eq!(world.operation(&id).await.round(), 2, "a request id that is taken changes nothing");
    let Command::Retry { by, force, policy, .. } = retry() else { unreachable!() };
    world.handle.command(&id, Command::Retry { by, force, policy, remember: None }).await.unwrap();
    world.end(&id, StateName::Succeeded).await;
    let tokens: BTreeSet<_> = hook.shutdowns().into_iter().map(|request| request.completion_token).collect();
    assert_eq!(tokens.len(), 3);
}

#[tokio::test]
async fn an_extension_by_a_person_moves_the_deadline_and_is_told() {
    let world = World::new().await;
    let (hook, listening) = hook(Script::of([vec![Act::Report(ShutdownPhase::Stopping), Act::UntilReleased]])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    let before = world.until(&id, |operation| operation.deadline().is_some()).await;
    let extended = world.handle.command(&id, Command::Extend { grace: Duration::from_secs(50) }).await.unwrap();
    let moved = extended.operation.deadline().unwrap().since(before.deadline().unwrap());
    assert_eq!(moved, Duration::from_secs(30));
    hook.told(|calls| calls.iter().any(|call| matches!(call, Call::UpdateDeadline(update) if update.granted))).await;
}

#[tokio::test]
async fn a_forced_deletion_takes_over_in_one_commit() {
    let world = World::new().await;
    let script = Script { findings: vec!["no such process".to_owned()], ..Script::default() };
    let (_hook, listening) = hook(script).await;
    world.register("a", SOURCE, &listening).await;
    let old = world.delete(hasty()).await;
    world.end(&old, StateName::Degraded).await;
    let (_new, accept) =
        world.acceptance("op-2", Kind::Delete, Placement::External { require_confirmation: false }, hasty()).await;
    let command = Command::Supersede { by: operation_id("op-2"), accept };
    let closed = world.handle.command(&old, command).await.unwrap();
    assert_eq!(closed.operation.state(), StateName::Abandoned);
    assert_eq!(closed.operation.superseded_by(), Some(&operation_id("op-2")));
    assert_eq!(world.application().await.unwrap().active_operation, Some(operation_id("op-2")));
    assert_eq!(world.operation(&operation_id("op-2")).await.state(), StateName::Pending);
}

#[tokio::test]
async fn a_caller_that_confirms_lets_it_go_on() {
    let world = World::new().await;
    let (_hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.begin("op-1", Kind::Migrate, Placement::External { require_confirmation: true }, hasty()).await;
    let resting = world.until_state(&id, StateName::Stopped).await;
    assert!(resting.awaits_confirmation());
    world.handle.command(&id, Command::Confirm(caller())).await.unwrap();
    world.end(&id, StateName::Succeeded).await;
    let application = world.application().await.unwrap();
    assert_eq!(application.cluster.as_str(), super::world::TARGET);
    assert_eq!(application.moved_by, Some(id));
    assert!(world.hooks.find(&super::world::application(), &super::world::instance("a")).is_none());
}

#[tokio::test]
async fn a_command_for_nothing_is_not_found() {
    let world = World::new().await;
    let outcome = world.handle.command(&operation_id("op-9"), Command::Cancel(caller())).await;
    assert!(matches!(outcome, Err(CommandError::NotFound(_))), "{outcome:?}");
}
