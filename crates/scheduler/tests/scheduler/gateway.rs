//! AgentGateway: registrations, permission to start, completion beside the stream; N10 to N14.

use quiesce_protocol::v1;
use tonic::Code;
use v1::operation::State;

use crate::hook::{Hook, Stop};
use crate::world::{World, application, bad_fields, expect_error, seconds};

const ONE: &str = "applications/shop/instances/one";

fn dial_in(name: &str, agent: &str) -> v1::RegisterInstanceRequest {
    let instance = v1::Instance {
        name: name.to_owned(),
        connect_mode: v1::instance::ConnectMode::DialIn.into(),
        agent_id: agent.to_owned(),
        ..Default::default()
    };
    v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() }
}

#[tokio::test]
async fn an_agent_brings_its_application_along() {
    let mut world = World::start().await;
    expect_error(world.gateway.register_instance(dial_in(ONE, "x")).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    let default_application = Some(v1::Application {
        placement: Some(v1::Placement { driver: Some(v1::placement::Driver::Agents(v1::AgentsPlacement {})) }),
        ..application("", "a")
    });
    let request = v1::RegisterInstanceRequest { default_application, ..dial_in(ONE, "x") };
    let answer = world.gateway.register_instance(request.clone()).await.unwrap().into_inner();
    assert!(answer.attach_token.starts_with("qat1.") && answer.hook_token.is_empty());
    assert_eq!(answer.instance.unwrap().cluster, "a");
    assert_eq!(world.application("shop").await.unwrap().instance_count, 1);
    world.gateway.register_instance(request).await.unwrap();
    let held = v1::RegisterInstanceRequest { held: true, ..dial_in("applications/none/instances/one", "x") };
    expect_error(world.gateway.register_instance(held).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    let bad = v1::Instance { name: "one".to_owned(), connect_mode: 9, ..Default::default() };
    let bad = v1::RegisterInstanceRequest { instance: Some(bad), ..Default::default() };
    let fields = bad_fields(world.gateway.register_instance(bad).await);
    assert_eq!(fields, ["instance.name", "instance.connect_mode"]);
    world.stop().await;
}

#[tokio::test]
async fn a_deleted_application_is_brought_back_by_free_agents_only() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    let operation = world.delete("shop", false).await.unwrap();
    world.operation_is(&operation.name, State::Succeeded).await;
    let held = v1::RegisterInstanceRequest { held: true, ..dial_in(ONE, "x") };
    let refused = world.gateway.register_instance(held.clone()).await;
    let metadata = expect_error(refused, Code::FailedPrecondition, "APPLICATION_DELETED");
    assert_eq!(metadata["operation"], operation.name);
    let anew = v1::RegisterInstanceRequest { default_application: Some(application("", "a")), ..dial_in(ONE, "y") };
    world.gateway.register_instance(anew).await.unwrap();
    world.gateway.register_instance(v1::RegisterInstanceRequest { held: true, ..dial_in(ONE, "y") }).await.unwrap();
    drop(hook);
    world.stop().await;
}

#[tokio::test]
async fn while_it_stops_only_known_instances_register() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    let refused = world.register("applications/shop/instances/two", "a", &hook).await;
    let metadata = expect_error(refused, Code::FailedPrecondition, "APPLICATION_STOPPING");
    assert_eq!(metadata["operation"], operation.name);
    world.register(ONE, "a", &hook).await.unwrap();
    let deregister = v1::DeregisterInstanceRequest { name: ONE.to_owned() };
    let refused = world.gateway.deregister_instance(deregister.clone()).await;
    expect_error(refused, Code::Aborted, "OPERATION_IN_PROGRESS");
    // Another agent proves nothing about the application this one started.
    let refused = world.gateway.register_instance(dial_in(ONE, "somebody else")).await;
    expect_error(refused, Code::FailedPrecondition, "INSTANCE_IN_USE");
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    hook.play(|script| script.app = v1::hook_info::AppState::Held);
    world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, v1::instance::State::Held).await;
    world.gateway.deregister_instance(deregister).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn whoever_runs_a_copy_is_not_forgotten() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    let deregister = v1::DeregisterInstanceRequest { name: ONE.to_owned() };
    let refused = world.gateway.deregister_instance(deregister.clone()).await;
    expect_error(refused, Code::FailedPrecondition, "INSTANCE_IN_USE");
    world.instance_is(ONE, v1::instance::State::Ready).await;
    hook.play(|script| script.app = v1::hook_info::AppState::Stopped);
    world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, v1::instance::State::Stopped).await;
    world.gateway.deregister_instance(deregister).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn an_instance_is_what_its_hook_says() {
    use v1::instance::State as Is;
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::AtOnce).await;
    hook.play(|script| script.ready = false);
    let token = world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, Is::NotReady).await;
    assert_eq!(token, world.register(ONE, "a", &hook).await.unwrap(), "the hook token stays");
    assert!(hook.notes("GetHookInfo").contains(&format!("Bearer {token}")));
    hook.play(|script| script.app = v1::hook_info::AppState::Held);
    world.register(ONE, "a", &hook).await.unwrap();
    world.instance_is(ONE, Is::Held).await;
    let list = v1::ListInstancesRequest { parent: "applications/-".to_owned(), ..Default::default() };
    let listed = world.scheduler.list_instances(list).await.unwrap().into_inner();
    assert!(!format!("{listed:?}").contains(&token), "tokens are secrets");
    assert_eq!(listed.instances[0].hook.as_ref().unwrap().implementation, "scripted");
    world.stop().await;
}

fn admit(start_id: &str, agent: &str) -> v1::AdmitStartRequest {
    v1::AdmitStartRequest {
        instance: ONE.to_owned(),
        start_id: start_id.to_owned(),
        agent_id: agent.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_start_is_admitted_once_with_a_rising_epoch() {
    let mut world = World::start().await;
    expect_error(world.gateway.admit_start(admit("s", "x")).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    world.create("applications/shop", "a").await;
    expect_error(world.gateway.admit_start(admit("s", "x")).await, Code::NotFound, "INSTANCE_NOT_FOUND");
    world.gateway.register_instance(dial_in(ONE, "x")).await.unwrap();
    let first = world.gateway.admit_start(admit("s1", "x")).await.unwrap().into_inner().epoch;
    let again = world.gateway.admit_start(admit("s1", "x")).await.unwrap().into_inner().epoch;
    assert_eq!((first, again), (1, 1));
    let known = v1::AdmitStartRequest { last_epoch: 41, ..admit("s2", "x") };
    assert_eq!(world.gateway.admit_start(known).await.unwrap().into_inner().epoch, 42);
    assert_eq!(world.application("shop").await.unwrap().epoch, 42);
    expect_error(world.gateway.admit_start(admit("s3", "y")).await, Code::FailedPrecondition, "INSTANCE_IN_USE");

    // Another agent takes the name over; the copy of the first is not known to have ended.
    world.gateway.register_instance(dial_in(ONE, "y")).await.unwrap();
    expect_error(world.gateway.admit_start(admit("s3", "y")).await, Code::FailedPrecondition, "INSTANCE_IN_USE");
    let result = v1::StopResult {
        outcome: v1::stop_result::Outcome::Stopped.into(),
        evidence: v1::Evidence::ChildReaped.into(),
        ..Default::default()
    };
    let stale =
        v1::ReportEndRequest { instance: ONE.to_owned(), agent_id: "x".to_owned(), epoch: 1, result: Some(result) };
    world.gateway.report_end(stale.clone()).await.unwrap();
    expect_error(world.gateway.admit_start(admit("s3", "y")).await, Code::FailedPrecondition, "INSTANCE_IN_USE");
    world.gateway.report_end(v1::ReportEndRequest { epoch: 42, ..stale }).await.unwrap();
    assert_eq!(world.gateway.admit_start(admit("s3", "y")).await.unwrap().into_inner().epoch, 43);
    world.stop().await;
}

#[tokio::test]
async fn no_start_is_admitted_while_a_copy_may_run_on_another_cluster() {
    let mut world = World::start().await;
    world.create("applications/shop", "b").await;
    let two = "applications/shop/instances/two";
    for (name, cluster) in [(ONE, "a"), (two, "b")] {
        let instance = v1::Instance { cluster: cluster.to_owned(), ..dial_in(name, cluster).instance.unwrap() };
        let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
        world.gateway.register_instance(request).await.unwrap();
    }
    let there = v1::AdmitStartRequest { instance: two.to_owned(), ..admit("s1", "b") };
    let epoch = world.gateway.admit_start(there).await.unwrap().into_inner().epoch;

    // As behind a migration that was abandoned half-way: the application belongs here, and may run there.
    let home = v1::UpdateApplicationRequest {
        application: Some(application("applications/shop", "a")),
        update_mask: Some(prost_types::FieldMask { paths: vec!["cluster".to_owned()] }),
        ..Default::default()
    };
    world.scheduler.update_application(home).await.unwrap();
    let refused = world.gateway.admit_start(admit("s2", "a")).await;
    assert!(refused.as_ref().unwrap_err().message().contains("two"), "{refused:?} names who may still run");
    expect_error(refused, Code::FailedPrecondition, "START_NOT_PERMITTED");

    let result = v1::StopResult {
        outcome: v1::stop_result::Outcome::Stopped.into(),
        evidence: v1::Evidence::ChildReaped.into(),
        ..Default::default()
    };
    let end = v1::ReportEndRequest { instance: two.to_owned(), agent_id: "b".to_owned(), epoch, result: Some(result) };
    world.gateway.report_end(end).await.unwrap();
    assert_eq!(world.gateway.admit_start(admit("s2", "a")).await.unwrap().into_inner().epoch, epoch + 1);
    world.stop().await;
}

#[tokio::test]
async fn a_start_is_refused_elsewhere_and_during_operations() {
    let mut world = World::start().await;
    let hook = world.populated("shop", Stop::Hang).await;
    let two = v1::Instance { cluster: "b".to_owned(), ..dial_in("", "x").instance.unwrap() };
    let two = v1::Instance { name: "applications/shop/instances/two".to_owned(), ..two };
    let request = v1::RegisterInstanceRequest { instance: Some(two), ..Default::default() };
    world.gateway.register_instance(request).await.unwrap();
    let elsewhere = v1::AdmitStartRequest { instance: "applications/shop/instances/two".to_owned(), ..admit("s", "x") };
    let refused = world.gateway.admit_start(elsewhere).await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "START_NOT_PERMITTED")["cluster"], "a");
    let operation = world.migrate("shop", "b", "").await.unwrap();
    let refused = world.gateway.admit_start(admit("s", &format!("agent of {ONE}"))).await;
    let metadata = expect_error(refused, Code::FailedPrecondition, "START_NOT_PERMITTED");
    assert_eq!(metadata["operation"], operation.name);
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, State::Succeeded).await;
    world.stop().await;
}

#[tokio::test]
async fn completion_needs_the_token_of_the_shutdown() {
    let mut world = World::start().await;
    let result = Some(v1::StopResult::default());
    let unknown = v1::CompleteShutdownRequest {
        shutdown_id: "nothing".to_owned(),
        completion_token: "qct1.1.x".to_owned(),
        result,
    };
    expect_error(world.gateway.complete_shutdown(unknown.clone()).await, Code::NotFound, "SHUTDOWN_NOT_FOUND");
    let wrong = v1::CompleteShutdownRequest { shutdown_id: "op-1.1.one".to_owned(), ..unknown };
    let refused = world.gateway.complete_shutdown(wrong).await;
    expect_error(refused, Code::PermissionDenied, "COMPLETION_TOKEN_INVALID");
    let extend = v1::ExtendDeadlineRequest {
        shutdown_id: "op-1.1.one".to_owned(),
        completion_token: "qct1.1.x".to_owned(),
        wanted_grace_period: seconds(10),
        ..Default::default()
    };
    let refused = world.gateway.extend_deadline(extend).await;
    expect_error(refused, Code::PermissionDenied, "COMPLETION_TOKEN_INVALID");
    world.stop().await;
}

#[tokio::test]
async fn equal_instances_of_many_are_bounded() {
    let mut world = World::start().await;
    world.create("applications/shop", "a").await;
    let hook = Hook::start(Stop::AtOnce).await;
    for name in ["one", "two"] {
        world.register(&format!("applications/shop/instances/{name}"), "a", &hook).await.unwrap();
    }
    let list = v1::ListInstancesRequest { parent: "applications/shop".to_owned(), page_size: 1, ..Default::default() };
    let page = world.scheduler.list_instances(list).await.unwrap().into_inner();
    assert_eq!((page.instances[0].name.as_str(), page.next_page_token.is_empty()), (ONE, false));
    let none = v1::ListInstancesRequest { parent: "applications/none".to_owned(), ..Default::default() };
    expect_error(world.scheduler.list_instances(none).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    world.stop().await;
}
