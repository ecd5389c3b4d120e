//! Migrations and deletions: O01 to O12, and what people ask of operations.

use quiesce_protocol::v1;
use tonic::Code;
use v1::operation::State;

use crate::hook::{Hook, Stop};
use crate::world::{World, expect_error, seconds};

#[tokio::test]
async fn a_migration_stops_everything_and_moves_the_application() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    assert_eq!((operation.source_cluster.as_str(), operation.target_cluster.as_str()), ("a", "b"));
    assert_eq!(operation.requester, "anonymous@127.0.0.1");
    let done = world.operation_is(&operation.name, State::Succeeded).await;
    assert!(done.done && done.counts.unwrap().stopped == 1 && done.instances[0].verified);
    assert!(done.instances[0].status.as_ref().unwrap().completion_token.is_empty(), "tokens are secrets");
    assert_eq!(hook.calls("Shutdown"), 1);
    let application = world.application("shop").await.unwrap();
    assert_eq!((application.cluster.as_str(), application.active_operation.as_str()), ("b", ""));
    assert_eq!(application.state(), v1::application::State::Stopped);
    assert_eq!(application.instance_count, 0, "the source's instances are forgotten");
    world.stop().await;
}

#[tokio::test]
async fn a_deletion_forgets_the_application_once_everything_has_stopped() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.delete("shop", false).await.unwrap();
    world.operation_is(&operation.name, State::Stopping).await;
    assert_eq!(world.application("shop").await.unwrap().state(), v1::application::State::Stopping);
    world.instance_is("applications/shop/instances/one", v1::instance::State::Stopping).await;
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    expect_error(world.application("shop").await, Code::NotFound, "APPLICATION_NOT_FOUND");
    world.stop().await;
}

#[tokio::test]
async fn an_application_is_held_by_one_operation() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    let refused = world.migrate("shop", "c", "").await;
    let status = refused.as_ref().unwrap_err();
    assert!(tonic_types::StatusExt::get_details_retry_info(status).is_some());
    assert_eq!(expect_error(refused, Code::Aborted, "OPERATION_IN_PROGRESS")["operation"], operation.name);
    expect_error(world.delete("shop", true).await, Code::Aborted, "OPERATION_IN_PROGRESS");
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_begin_is_refused_with_its_reason() {
    let mut world = World::start().await;
    world.create("applications/shop", "a").await;
    expect_error(world.migrate("none", "b", "").await, Code::NotFound, "APPLICATION_NOT_FOUND");
    expect_error(world.migrate("shop", "b", "").await, Code::FailedPrecondition, "NO_INSTANCES");
    let refused = world.migrate("shop", "a", "").await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "ALREADY_ON_TARGET")["cluster"], "a");
    let guarded = v1::MigrateApplicationRequest {
        name: "applications/shop".to_owned(),
        target_cluster: "b".to_owned(),
        source_cluster: "elsewhere".to_owned(),
        ..Default::default()
    };
    let refused = world.scheduler.migrate_application(guarded).await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "SOURCE_CLUSTER_MISMATCH")["cluster"], "a");

    let hook = Hook::start(Stop::AtOnce).await;
    world.register("applications/shop/instances/one", "a", &hook).await.unwrap();
    let change = v1::Application {
        name: "applications/shop".to_owned(),
        expected_instances: Some(2),
        placement: Some(v1::Placement { driver: Some(v1::placement::Driver::Agents(v1::AgentsPlacement {})) }),
        ..Default::default()
    };
    let update = |application| v1::UpdateApplicationRequest { application: Some(application), ..Default::default() };
    world.scheduler.update_application(update(change.clone())).await.unwrap();
    let missing = expect_error(world.migrate("shop", "b", "").await, Code::FailedPrecondition, "INSTANCES_MISSING");
    assert_eq!((missing["expected"].as_str(), missing["registered"].as_str()), ("2", "1"));
    let enough = v1::Application { expected_instances: Some(1), ..change };
    world.scheduler.update_application(update(enough)).await.unwrap();
    let refused = world.migrate("shop", "b", "").await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "TARGET_NOT_READY")["cluster"], "b");
    world.stop().await;
}

#[tokio::test]
async fn twenty_parallel_requests_with_one_id_are_one_operation() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    let calls = (0..20).map(|_| {
        let mut scheduler = world.scheduler.clone();
        async move {
            let request = v1::MigrateApplicationRequest {
                name: "applications/shop".to_owned(),
                target_cluster: "b".to_owned(),
                request_id: "ticket-4711".to_owned(),
                ..Default::default()
            };
            scheduler.migrate_application(request).await.unwrap().into_inner().operation.unwrap().name
        }
    });
    let mut names = futures::future::join_all(calls).await;
    names.dedup();
    assert_eq!(names.len(), 1, "{names:?}");
    world.operation_is(&names[0], State::Succeeded).await;
    assert_eq!(hook.calls("Shutdown"), 1);
    // The same request after the end finds the same operation; other content is a conflict.
    assert_eq!(world.migrate("shop", "b", "ticket-4711").await.unwrap().name, names[0]);
    expect_error(world.migrate("shop", "c", "ticket-4711").await, Code::AlreadyExists, "REQUEST_ID_CONFLICT");
    world.stop().await;
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_id() {
    let mut world = World::start().await;
    world.create("applications/shop", "a").await;
    expect_error(world.migrate("shop", "b", "id").await, Code::FailedPrecondition, "NO_INSTANCES");
    let hook = Hook::start(Stop::AtOnce).await;
    world.register("applications/shop/instances/one", "a", &hook).await.unwrap();
    world.migrate("shop", "c", "id").await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_dry_run_asks_and_changes_nothing() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    let before = world.application("shop").await.unwrap();
    let request = v1::DeleteApplicationRequest {
        name: "applications/shop".to_owned(),
        request_id: "id".to_owned(),
        validate_only: true,
        policy: Some(v1::ShutdownPolicy {
            failure_strategy: v1::FailureStrategy::Force.into(),
            settle_period: seconds(2),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = world.scheduler.delete_application(request).await.unwrap().into_inner();
    let (preview, plan) = (answer.operation.unwrap(), answer.plan.unwrap());
    assert_eq!((preview.name.as_str(), preview.state()), ("", State::Unspecified));
    assert_eq!(plan.steps.len(), 1);
    assert!(plan.steps[0].reachable && plan.steps[0].ok == Some(true));
    assert!(plan.warnings.iter().any(|warning| warning.contains("settle_period")), "{:?}", plan.warnings);
    // 3 x (probe 10 + accept 10 + grace 60 + settle 2) + backoffs 1.2 + 2.4 + forcing (10 + 10)
    assert_eq!(plan.worst_case_duration.unwrap().seconds, 269);
    assert_eq!((hook.calls("Shutdown"), hook.calls("CheckShutdown") > 0), (0, true));
    assert_eq!(world.application("shop").await.unwrap(), before);
    let operations = world.scheduler.list_operations(v1::ListOperationsRequest::default()).await.unwrap();
    assert!(operations.into_inner().operations.is_empty());
    world.migrate("shop", "b", "id").await.unwrap();
    world.stop().await;
}

fn one_attempt() -> Option<v1::ShutdownPolicy> {
    let retry = Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() });
    Some(v1::ShutdownPolicy { retry, ..Default::default() })
}

async fn degraded(world: &mut World) -> (Hook, v1::Operation) {
    let hook = world.populated("shop", Stop::Refuse).await;
    let request = v1::MigrateApplicationRequest {
        name: "applications/shop".to_owned(),
        target_cluster: "b".to_owned(),
        policy: one_attempt(),
        ..Default::default()
    };
    let operation = world.scheduler.migrate_application(request).await.unwrap().into_inner().operation.unwrap();
    let operation = world.operation_is(&operation.name, State::Degraded).await;
    (hook, operation)
}

#[tokio::test]
async fn a_degraded_operation_says_what_to_do_and_can_be_retried() {
    let mut world = World::start().await;
    let (hook, operation) = degraded(&mut world).await;
    assert!(!operation.advice.is_empty() && operation.failure.is_some());
    assert_eq!(world.application("shop").await.unwrap().state(), v1::application::State::Degraded);
    hook.play(|script| script.stop = Stop::AtOnce);
    let retry = v1::RetryOperationRequest {
        name: operation.name.clone(),
        request_id: "again".to_owned(),
        ..Default::default()
    };
    world.scheduler.retry_operation(retry.clone()).await.unwrap();
    let done = world.operation_is(&operation.name, State::Succeeded).await;
    assert_eq!(done.round, 2);
    let repeated = world.scheduler.retry_operation(retry.clone()).await.unwrap().into_inner();
    assert_eq!(repeated.operation.unwrap().state(), State::Succeeded);
    let anew = v1::RetryOperationRequest { request_id: String::new(), ..retry };
    let refused = world.scheduler.retry_operation(anew).await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "OPERATION_NOT_DEGRADED")["state"], "SUCCEEDED");
    world.stop().await;
}

#[tokio::test]
async fn a_forced_deletion_takes_over_from_a_degraded_operation() {
    let mut world = World::start().await;
    let (hook, old) = degraded(&mut world).await;
    hook.play(|script| script.stop = Stop::Hang);
    expect_error(world.delete("shop", false).await, Code::Aborted, "OPERATION_IN_PROGRESS");
    let new = world.delete("shop", true).await.unwrap();
    assert!(new.force && new.overrides[0].kind() == v1::r#override::Kind::Force);
    let old = world.operation_is(&old.name, State::Abandoned).await;
    assert_eq!(old.superseded_by, new.name);
    world.operation_is(&new.name, State::Succeeded).await;
    expect_error(world.application("shop").await, Code::NotFound, "APPLICATION_NOT_FOUND");
    world.stop().await;
}

#[tokio::test]
async fn a_forced_deletion_without_instances_just_forgets() {
    let mut world = World::start().await;
    world.create("applications/shop", "a").await;
    let operation = world.delete("shop", true).await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    expect_error(world.application("shop").await, Code::NotFound, "APPLICATION_NOT_FOUND");
    world.stop().await;
}

#[tokio::test]
async fn it_is_too_late_to_cancel_while_instances_stop() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    quiesce_testkit::eventually("the point of no return", crate::world::LIMIT, || {
        let mut scheduler = world.scheduler.clone();
        let request = v1::GetOperationRequest { name: operation.name.clone() };
        async move {
            let found = scheduler.get_operation(request).await.unwrap().into_inner().operation.unwrap();
            found.point_of_no_return_time.is_some()
        }
    })
    .await;
    let cancel = v1::CancelOperationRequest { name: operation.name.clone(), ..Default::default() };
    let refused = world.scheduler.cancel_operation(cancel.clone()).await;
    expect_error(refused, Code::FailedPrecondition, "POINT_OF_NO_RETURN");
    let extend =
        v1::ExtendOperationRequest { name: operation.name.clone(), grace_period: seconds(600), ..Default::default() };
    let before = world.operation(&operation.name).await.deadline_time.unwrap();
    let extended = world.scheduler.extend_operation(extend).await.unwrap().into_inner().operation.unwrap();
    assert!(extended.deadline_time.unwrap().seconds >= before.seconds + 500);
    let confirm = v1::ConfirmOperationRequest { name: operation.name.clone(), ..Default::default() };
    let refused = world.scheduler.confirm_operation(confirm).await;
    expect_error(refused, Code::FailedPrecondition, "OPERATION_NOT_CONFIRMABLE");
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    expect_error(world.scheduler.cancel_operation(cancel).await, Code::FailedPrecondition, "OPERATION_DONE");
    world.stop().await;
}

#[tokio::test]
async fn with_confirmation_the_gate_waits_for_the_caller() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let external = v1::ExternalPlacement { require_confirmation: true };
    let placement = v1::Placement { driver: Some(v1::placement::Driver::External(external)) };
    let application =
        v1::Application { name: "applications/shop".to_owned(), placement: Some(placement), ..Default::default() };
    let update = v1::UpdateApplicationRequest { application: Some(application), ..Default::default() };
    world.scheduler.update_application(update).await.unwrap();
    let operation = world.migrate("shop", "b", "").await.unwrap();
    let stopped = world.operation_is(&operation.name, State::Stopped).await;
    assert!(stopped.awaiting_confirmation);
    let confirm = v1::ConfirmOperationRequest { name: operation.name.clone(), ..Default::default() };
    world.scheduler.confirm_operation(confirm.clone()).await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    world.scheduler.confirm_operation(confirm).await.unwrap();
    world.stop().await;
}
