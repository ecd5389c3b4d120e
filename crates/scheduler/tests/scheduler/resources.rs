//! Applications and clusters: N01 to N09.

use prost_types::FieldMask;
use quiesce_protocol::v1;
use tonic::Code;

use crate::hook::Stop;
use crate::world::{World, application, bad_fields, expect_error, seconds};

fn create(application: v1::Application, request_id: &str) -> v1::CreateApplicationRequest {
    v1::CreateApplicationRequest {
        application: Some(application),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

fn update(application: v1::Application, paths: &[&str]) -> v1::UpdateApplicationRequest {
    let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    v1::UpdateApplicationRequest { application: Some(application), update_mask, ..Default::default() }
}

#[tokio::test]
async fn an_application_is_stored_as_it_was_given() {
    let mut world = World::start().await;
    let given = v1::Application {
        display_name: "Shop".to_owned(),
        policy: Some(v1::ShutdownPolicy { grace_period: seconds(90), ..Default::default() }),
        expected_instances: Some(2),
        labels: [("team".to_owned(), "db".to_owned())].into(),
        // Output only: ignored.
        state: v1::application::State::Degraded.into(),
        epoch: 77,
        instance_count: 5,
        ..application("applications/shop", "edge-1")
    };
    world.scheduler.create_application(create(given.clone(), "")).await.unwrap();
    let found = world.application("shop").await.unwrap();
    assert_eq!((found.display_name.as_str(), found.cluster.as_str()), ("Shop", "edge-1"));
    assert_eq!((&found.policy, found.expected_instances, found.labels.len()), (&given.policy, Some(2), 1));
    assert_eq!((found.state(), found.epoch, found.instance_count), (v1::application::State::Active, 0, 0));
    assert!(!found.etag.is_empty() && found.create_time.is_some());
    let cluster = v1::GetClusterRequest { name: "clusters/edge-1".to_owned() };
    let cluster = world.scheduler.get_cluster(cluster).await.unwrap().into_inner().cluster.unwrap();
    assert_eq!(cluster.application_count, 1);
    let again = world.scheduler.create_application(create(given, "")).await;
    expect_error(again, Code::AlreadyExists, "APPLICATION_EXISTS");
    world.stop().await;
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let mut world = World::start().await;
    let bad = v1::Application {
        display_name: "x".repeat(129),
        policy: Some(v1::ShutdownPolicy {
            grace_period: seconds(-1),
            failure_strategy: 99,
            min_evidence: v1::Evidence::Claimed.into(),
            retry: Some(v1::RetryPolicy { max_attempts: Some(101), ..Default::default() }),
            ..Default::default()
        }),
        expected_instances: Some(-1),
        labels: [("k".repeat(64), String::new())].into(),
        ..application("applications/Shop", "a b")
    };
    let fields = bad_fields(world.scheduler.create_application(create(bad, "not a request id")).await);
    for field in [
        "request_id",
        "application.name",
        "application.cluster",
        "application.display_name",
        "application.policy.grace_period",
        "application.policy.failure_strategy",
        "application.expected_instances",
    ] {
        assert!(fields.iter().any(|found| found == field), "{field} in {fields:?}");
    }
    let policy = Some(v1::ShutdownPolicy {
        heartbeat_timeout: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
        min_evidence: v1::Evidence::Claimed.into(),
        retry: Some(v1::RetryPolicy { max_attempts: Some(101), ..Default::default() }),
        ..Default::default()
    });
    let bounds = v1::Application { policy, ..application("applications/shop", "a") };
    let fields = bad_fields(world.scheduler.create_application(create(bounds, "")).await);
    let wanted = ["heartbeat_timeout", "retry.max_attempts", "min_evidence"].map(|f| format!("application.policy.{f}"));
    assert_eq!(fields, wanted);
    world.stop().await;
}

#[tokio::test]
async fn an_update_changes_what_its_mask_covers() {
    let mut world = World::start().await;
    let policy = v1::ShutdownPolicy {
        grace_period: seconds(90),
        kill_timeout: seconds(5),
        retry: Some(v1::RetryPolicy { max_attempts: Some(5), ..Default::default() }),
        ..Default::default()
    };
    let first = v1::Application { policy: Some(policy), ..application("applications/shop", "a") };
    world.scheduler.create_application(create(first, "")).await.unwrap();

    let change = v1::Application {
        display_name: "not covered".to_owned(),
        policy: Some(v1::ShutdownPolicy { grace_period: seconds(30), ..Default::default() }),
        ..application("applications/shop", "")
    };
    let paths = ["policy.grace_period", "policy.retry"];
    world.scheduler.update_application(update(change.clone(), &paths)).await.unwrap();
    let found = world.application("shop").await.unwrap();
    let policy = found.policy.unwrap();
    assert_eq!((policy.grace_period, policy.kill_timeout, policy.retry), (seconds(30), seconds(5), None));
    assert_eq!((found.display_name.as_str(), found.cluster.as_str()), ("", "a"));

    let no_mask = v1::UpdateApplicationRequest { application: Some(change.clone()), ..Default::default() };
    world.scheduler.update_application(no_mask).await.unwrap();
    assert_eq!(world.application("shop").await.unwrap().display_name, "not covered");

    let fields = bad_fields(world.scheduler.update_application(update(change, &["polici"])).await);
    assert_eq!(fields, ["update_mask"]);

    let missing = application("applications/new", "a");
    let refused = world.scheduler.update_application(update(missing.clone(), &["*"])).await;
    expect_error(refused, Code::NotFound, "APPLICATION_NOT_FOUND");
    let allowed = v1::UpdateApplicationRequest { allow_missing: true, ..update(missing, &["*"]) };
    world.scheduler.update_application(allowed).await.unwrap();
    assert!(world.application("new").await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn an_old_etag_is_refused() {
    let mut world = World::start().await;
    let first = world.create("applications/shop", "a").await;
    let change = v1::Application { display_name: "one".to_owned(), ..first.clone() };
    world.scheduler.update_application(update(change, &["display_name"])).await.unwrap();
    let stale = v1::Application { display_name: "two".to_owned(), ..first };
    let refused = world.scheduler.update_application(update(stale, &["display_name"])).await;
    let metadata = expect_error(refused, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(metadata["name"], "applications/shop");
    world.stop().await;
}

#[tokio::test]
async fn a_create_is_idempotent_by_its_request_id() {
    let mut world = World::start().await;
    let shop = application("applications/shop", "a");
    world.scheduler.create_application(create(shop.clone(), "id-1")).await.unwrap();
    world.scheduler.create_application(create(shop.clone(), "id-1")).await.unwrap();
    let other = v1::Application { display_name: "other".to_owned(), ..shop };
    let refused = world.scheduler.create_application(create(other, "id-1")).await;
    expect_error(refused, Code::AlreadyExists, "REQUEST_ID_CONFLICT");
    world.stop().await;
}

#[tokio::test]
async fn a_policy_merges_from_default_application_and_request() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let policy = v1::ShutdownPolicy { grace_period: seconds(90), kill_timeout: seconds(7), ..Default::default() };
    let change = v1::Application { policy: Some(policy), ..application("applications/shop", "") };
    world.scheduler.update_application(update(change, &["policy"])).await.unwrap();
    let request = v1::MigrateApplicationRequest {
        name: "applications/shop".to_owned(),
        target_cluster: "b".to_owned(),
        validate_only: true,
        policy: Some(v1::ShutdownPolicy { grace_period: seconds(33), ..Default::default() }),
        ..Default::default()
    };
    let preview = world.scheduler.migrate_application(request).await.unwrap().into_inner();
    let policy = preview.operation.unwrap().policy.unwrap();
    assert_eq!(
        (policy.grace_period, policy.kill_timeout, policy.accept_timeout),
        (seconds(33), seconds(7), seconds(10))
    );
    assert_eq!(policy.retry.unwrap().max_attempts, Some(3));
    assert_eq!(policy.failure_strategy(), v1::FailureStrategy::GiveUp);
    assert_eq!((policy.allow_unverified, policy.max_parallel_stops), (Some(false), Some(0)));
    world.stop().await;
}

#[tokio::test]
async fn clusters_are_made_changed_and_forgotten() {
    let mut world = World::start().await;
    let cluster = v1::Cluster { name: "clusters/edge-1".to_owned(), ..Default::default() };
    let create = v1::CreateClusterRequest { cluster: Some(cluster.clone()), ..Default::default() };
    world.scheduler.create_cluster(create.clone()).await.unwrap();
    expect_error(world.scheduler.create_cluster(create).await, Code::AlreadyExists, "CLUSTER_EXISTS");
    let change = v1::Cluster { display_name: "Edge".to_owned(), ..cluster };
    let request = v1::UpdateClusterRequest { cluster: Some(change), ..Default::default() };
    let found = world.scheduler.update_cluster(request).await.unwrap().into_inner().cluster.unwrap();
    assert_eq!(found.display_name, "Edge");
    world.create("applications/shop", "edge-1").await;
    let delete = v1::DeleteClusterRequest { name: "clusters/edge-1".to_owned(), ..Default::default() };
    let refused = world.scheduler.delete_cluster(delete.clone()).await;
    assert_eq!(expect_error(refused, Code::FailedPrecondition, "CLUSTER_IN_USE")["applications"], "1");
    let moved = world.scheduler.update_application(update(application("applications/shop", "edge-2"), &["cluster"]));
    moved.await.unwrap();
    world.scheduler.delete_cluster(delete.clone()).await.unwrap();
    expect_error(world.scheduler.delete_cluster(delete).await, Code::NotFound, "CLUSTER_NOT_FOUND");
    world.stop().await;
}
