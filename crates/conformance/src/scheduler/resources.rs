//! N: applications and instances.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use quiesce_protocol::v1;
use quiesce_protocol::v1::instance::State as InstanceState;
use quiesce_protocol::v1::operation::State;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::fake::{Call, Script, stops, waits};
use super::stage::{POLL, Stage, labels, millis, ok, patient, quick, some};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

/// How long the scheduler may take to notice that a hook has changed its mind or has gone.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(45);

pub(super) const CHECKS: &[Check] = checks! {
    N01 Must "an application that was created is there as it was given, with etag, times and its cluster",
        rules::EXISTS, "Store every field that is not output only.", [], round_trip;
    N02 Must "names are checked, and every violation of a request is listed",
        rules::NAMES, "Check the whole request before you answer.", [], names;
    N03 Must "an application that is there already: ALREADY_EXISTS / APPLICATION_EXISTS",
        rules::EXISTS, "Look whether it is there, in the same step that creates it.", [], exists;
    N04 Must "update with a mask, a nested one, none, and with allow_missing",
        rules::UPDATE, "Change what the mask names, and nothing else.", [], update;
    N05 Must "another etag: ABORTED / ETAG_MISMATCH, and nothing is changed",
        rules::ETAG, "Compare the etag in the same step that writes.", [], etag;
    N06 Must "output-only fields of a request are ignored",
        rules::CREATE, "Take from a request what clients may set.", [], output_only;
    N07 Must "an unknown enum value is INVALID_ARGUMENT, an unknown field is ignored",
        rules::UNKNOWN, "Refuse values you have no name for; never refuse fields.", [], unknown;
    N08 Must "policy: the request over the application over the default, every field set in Operation.policy",
        rules::POLICY, "Merge field by field; store what came of it with the operation.", [], merge;
    N09 Must "a policy out of bounds is refused, with every field that is",
        rules::VIOLATIONS, "Check the bounds of every field of a policy.", [], bounds;
    N10 Must "registering again replaces the registration; of an unknown application it is NOT_FOUND",
        rules::REGISTER, "Registration is an upsert by name.", [], register;
    N11 Must "while stopping, a new name is APPLICATION_STOPPING, a known one is OK",
        rules::STOPPING, "Take agents back that come again; let nobody new in.", [], stopping;
    N12 Must "an instance cannot be forgotten during an operation",
        rules::DEREGISTER, "Refuse it: going away is no proof of having stopped.", [], deregister;
    N13 Must "the state of an instance follows its hook: READY, NOT_READY, UNREACHABLE",
        rules::INSTANCE, "Ask every few seconds, with GetHookInfo.", [], follows;
    N14 Must "hook_token comes as bearer, stays the same, and is in no answer of Get or List",
        rules::HOOK_TOKEN, "Send it with every call of the hook, and show it to nobody else.", [], hook_token;
    N15 Must "a cluster is there as it was given, is changed with its etag, and cannot be forgotten while it is named",
        rules::CLUSTER, "Count who names a cluster, in the same step that forgets it.", [], clusters;
};

async fn round_trip(stage: &Stage) -> Verdict {
    let given = v1::Application {
        display_name: "A shop".to_owned(),
        labels: labels([("tier", "gold")]),
        expected_instances: Some(3),
        ..stage.unmade(quick())
    };
    let made = stage.create(given.clone()).await?;
    let found = stage.get_application(&given.name).await?;
    expect(made == found, "Get as Create has answered", format!("{found:?} after {made:?}"))?;
    let same = found.name == given.name
        && found.display_name == given.display_name
        && found.labels == given.labels
        && found.expected_instances == given.expected_instances
        && found.cluster == given.cluster
        && found.policy == given.policy;
    expect(same, format!("{given:?}"), format!("{found:?}"))?;
    let filled = !found.etag.is_empty() && found.create_time.is_some() && found.update_time.is_some();
    expect(filled, "etag, create_time and update_time", format!("{found:?}"))?;
    expect(found.state() == v1::application::State::Active, "STATE_ACTIVE", found.state().as_str_name())?;
    let request = v1::GetClusterRequest { name: format!("clusters/{}", given.cluster) };
    let cluster = ok("GetCluster", stage.calls().scheduler.get_cluster(request).await)?.cluster;
    let count = some("the cluster", cluster)?.application_count;
    expect(count == 1, "application_count 1", count)
}

/// The fields a refused request is said to be wrong in.
fn fields(answer: Result<(), Status>) -> Result<BTreeSet<String>, Stop> {
    let Err(status) = answer else { return Err(Stop::failed("INVALID_ARGUMENT / INVALID_FIELD", "OK")) };
    refused::<()>(Err(status.clone()), &[Code::InvalidArgument], "INVALID_FIELD")?;
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    Ok(violations.into_iter().map(|violation| violation.field).collect())
}

async fn try_create(stage: &Stage, application: v1::Application) -> Result<(), Status> {
    let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
    stage.calls().scheduler.create_application(request).await.map(drop)
}

async fn names(stage: &Stage) -> Verdict {
    let long = "a".repeat(64);
    for wrong in ["", "shop", "applications/", "applications/Shop", "applications/-shop", "applications/shop-"] {
        let named =
            fields(try_create(stage, v1::Application { name: wrong.to_owned(), ..stage.unmade(quick()) }).await);
        let named = named.map_err(|stop| about(stop, wrong))?;
        expect(named.contains("application.name"), format!("{wrong:?}: application.name"), format!("{named:?}"))?;
    }
    let application = v1::Application {
        name: format!("applications/{long}"),
        cluster: "no cluster".to_owned(),
        display_name: "d".repeat(129),
        expected_instances: Some(-1),
        ..stage.unmade(quick())
    };
    let named = fields(try_create(stage, application).await)?;
    let expected =
        ["application.cluster", "application.display_name", "application.expected_instances", "application.name"];
    let all = expected.iter().all(|field| named.contains(*field));
    expect(all, format!("violations of {expected:?}"), format!("{named:?}"))
}

fn about(stop: Stop, what: &str) -> Stop {
    match stop {
        Stop::Failed { expected, seen } => Stop::failed(format!("{what:?}: {expected}"), seen),
        other => other,
    }
}

async fn exists(stage: &Stage) -> Verdict {
    let made = stage.create(stage.unmade(quick())).await?;
    let again = v1::Application { name: made.name.clone(), cluster: stage.cluster("b"), ..stage.unmade(quick()) };
    refused(try_create(stage, again).await, &[Code::AlreadyExists], "APPLICATION_EXISTS")?;
    let found = stage.get_application(&made.name).await?;
    expect(found == made, "the application as it was", format!("{found:?}"))
}

async fn try_update(stage: &Stage, request: v1::UpdateApplicationRequest) -> Result<v1::Application, Status> {
    let answer = stage.calls().scheduler.update_application(request).await?.into_inner();
    Ok(answer.application.unwrap_or_default())
}

fn paths(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

async fn update(stage: &Stage) -> Verdict {
    let made = stage.create(v1::Application { labels: labels([("tier", "gold")]), ..stage.unmade(quick()) }).await?;
    let failed = |status: Status| Stop::failed("UpdateApplication: OK", tell(&status));
    let change = v1::Application {
        name: made.name.clone(),
        display_name: "New".to_owned(),
        labels: labels([("tier", "iron")]),
        policy: Some(v1::ShutdownPolicy { grace_period: millis(7_000), ..Default::default() }),
        ..Default::default()
    };
    let request = |update_mask| v1::UpdateApplicationRequest {
        application: Some(change.clone()),
        update_mask,
        ..Default::default()
    };
    let found = try_update(stage, request(paths(&["display_name"]))).await.map_err(failed)?;
    let only = found.display_name == "New" && found.labels == made.labels && found.policy == made.policy;
    expect(only, "display_name changed, and nothing else", format!("{found:?}"))?;
    expect(found.etag != made.etag, "another etag", "the same")?;
    let found = try_update(stage, request(paths(&["policy.grace_period"]))).await.map_err(failed)?;
    let wanted = v1::ShutdownPolicy { grace_period: millis(7_000), ..quick() };
    let only = found.policy == Some(wanted) && found.labels == made.labels;
    expect(only, "policy.grace_period changed, and nothing else", format!("{found:?}"))?;
    let found = try_update(stage, request(None)).await.map_err(failed)?;
    let all = found.labels == change.labels && found.cluster == made.cluster;
    expect(all, "what is set changed, and nothing else", format!("{found:?}"))?;
    let absent = stage.unmade(quick());
    let request = v1::UpdateApplicationRequest { application: Some(absent.clone()), ..Default::default() };
    refused(try_update(stage, request.clone()).await, &[Code::NotFound], "APPLICATION_NOT_FOUND")?;
    let request = v1::UpdateApplicationRequest { allow_missing: true, ..request };
    let found = try_update(stage, request).await.map_err(failed)?;
    expect(found.name == absent.name, "it is created", format!("{found:?}"))
}

async fn etag(stage: &Stage) -> Verdict {
    let made = stage.create(stage.unmade(quick())).await?;
    let change = v1::Application {
        name: made.name.clone(),
        display_name: "New".to_owned(),
        etag: format!("{}x", made.etag),
        ..Default::default()
    };
    let request = v1::UpdateApplicationRequest { application: Some(change.clone()), ..Default::default() };
    refused(try_update(stage, request).await, &[Code::Aborted], "ETAG_MISMATCH")?;
    let found = stage.get_application(&made.name).await?;
    expect(found == made, "the application as it was", format!("{found:?}"))?;
    let change = v1::Application { etag: made.etag, ..change };
    let request = v1::UpdateApplicationRequest { application: Some(change), ..Default::default() };
    try_update(stage, request).await.map(drop).map_err(|status| Stop::failed("the right etag: OK", tell(&status)))
}

async fn output_only(stage: &Stage) -> Verdict {
    let given = v1::Application {
        state: v1::application::State::Degraded.into(),
        active_operation: "operations/op-none".to_owned(),
        instance_count: 7,
        ready_instance_count: 7,
        epoch: 99,
        etag: "mine".to_owned(),
        ..stage.unmade(quick())
    };
    let made = stage.create(given).await?;
    let ignored = made.state() == v1::application::State::Active
        && made.active_operation.is_empty()
        && made.instance_count == 0
        && made.ready_instance_count == 0
        && made.epoch == 0
        && made.etag != "mine";
    expect(ignored, "output-only fields as the scheduler has them", format!("{made:?}"))
}

async fn unknown(stage: &Stage) -> Verdict {
    let wrong = v1::ShutdownPolicy { failure_strategy: 99, ..quick() };
    refused(try_create(stage, stage.unmade(wrong)).await, &[Code::InvalidArgument], "INVALID_FIELD")?;
    let request = v1::CreateApplicationRequest { application: Some(stage.unmade(quick())), ..Default::default() };
    let mut bytes = request.encode_to_vec();
    prost::encoding::string::encode(crate::raw::UNKNOWN_FIELD, &"from the future".to_owned(), &mut bytes);
    let path = "/quiesce.v1.Scheduler/CreateApplication";
    let answer =
        crate::raw::unary(&stage.calls().line, stage.subject.bearer.as_deref(), path, Bytes::from(bytes)).await;
    answer.map(drop).map_err(|status| Stop::failed("a request with an unknown field: OK", tell(&status)))
}

async fn merge(stage: &Stage) -> Verdict {
    let of_application =
        v1::ShutdownPolicy { grace_period: millis(7_000), kill_timeout: millis(3_000), ..Default::default() };
    let name = stage.create(stage.unmade(of_application)).await?.name;
    stage.instance(&name, "one", Script::of([stops()])).await?;
    let of_request = v1::ShutdownPolicy { grace_period: millis(5_000), ..Default::default() };
    let request =
        v1::MigrateApplicationRequest { policy: Some(of_request), validate_only: true, ..stage.migration(&name) };
    let operation = stage.try_migrate(request).await;
    let operation = operation.map_err(|status| Stop::failed("a dry run: OK", tell(&status)))?;
    let found = some("Operation.policy", operation.policy)?;
    let default = some("default_policy", stage.info.default_policy.clone())?;
    let wanted = v1::ShutdownPolicy { grace_period: millis(5_000), kill_timeout: millis(3_000), ..default };
    expect(found == wanted, format!("{wanted:?}"), format!("{found:?}"))?;
    let full = found.heartbeat_timeout.is_some()
        && found.accept_timeout.is_some()
        && found.max_extension.is_some()
        && found.overall_timeout.is_some()
        && found.settle_period.is_some()
        && found.start_timeout.is_some()
        && found.retry.is_some()
        && found.allow_unverified.is_some()
        && found.hold_on_unclean_exit.is_some()
        && found.max_parallel_stops.is_some();
    expect(full, "every field set", format!("{found:?}"))
}

async fn bounds(stage: &Stage) -> Verdict {
    let wrong = v1::ShutdownPolicy {
        grace_period: millis(25 * 3_600 * 1_000),
        heartbeat_timeout: millis(500),
        min_evidence: v1::Evidence::Claimed.into(),
        retry: Some(v1::RetryPolicy {
            max_attempts: Some(101),
            initial_backoff: millis(50),
            max_backoff: millis(1_000),
            backoff_multiplier: Some(11.0),
        }),
        ..Default::default()
    };
    let named = fields(try_create(stage, stage.unmade(wrong)).await)?;
    for field in [
        "grace_period",
        "heartbeat_timeout",
        "min_evidence",
        "retry.max_attempts",
        "retry.initial_backoff",
        "retry.backoff_multiplier",
    ] {
        let field = format!("application.policy.{field}");
        expect(named.contains(&field), format!("a violation of {field}"), format!("{named:?}"))?;
    }
    Ok(())
}

async fn register(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let hook = stage.fake(Script::of([stops()]));
    let again = stage.listening(&staged.name, "one", &hook).await?;
    let again = v1::Instance { stop_order: 4, ..again };
    let stored = some("an instance", stage.register(again.clone()).await?.instance)?;
    expect(stored.endpoint == again.endpoint, &again.endpoint, &stored.endpoint)?;
    let request = v1::ListInstancesRequest { parent: staged.name, ..Default::default() };
    let listed = ok("ListInstances", stage.calls().scheduler.list_instances(request).await)?.instances;
    let replaced = listed.len() == 1 && listed[0].stop_order == 4;
    expect(replaced, "one instance, the later registration", format!("{listed:?}"))?;
    let nobody = stage.listening(&stage.name(), "one", &hook).await?;
    let request = v1::RegisterInstanceRequest { instance: Some(nobody), ..Default::default() };
    refused(stage.calls().gateway.register_instance(request).await, &[Code::NotFound], "APPLICATION_NOT_FOUND")
}

async fn stopping(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Stopping).await?;
    let newcomer = stage.fake(Script::of([stops()]));
    let request = v1::RegisterInstanceRequest {
        instance: Some(stage.listening(&staged.name, "two", &newcomer).await?),
        ..Default::default()
    };
    let answer = stage.calls().gateway.register_instance(request).await;
    refused(answer, &[Code::FailedPrecondition], "APPLICATION_STOPPING")?;
    let known = stage.listening(&staged.name, "one", &staged.hook).await?;
    stage.register(known).await.map(drop)
}

async fn deregister(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Stopping).await?;
    let request = v1::DeregisterInstanceRequest { name: format!("{}/instances/one", staged.name) };
    let answer = stage.calls().gateway.deregister_instance(request).await;
    refused(answer, &[Code::Aborted], "OPERATION_IN_PROGRESS")?;
    stage.get_instance(&format!("{}/instances/one", staged.name)).await.map(drop)
}

async fn follows(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let name = format!("{}/instances/one", staged.name);
    let until = async |wanted: InstanceState| {
        let end = Instant::now() + NOTICED;
        loop {
            let found = stage.get_instance(&name).await?.state();
            if found == wanted {
                return Ok(());
            }
            if Instant::now() >= end {
                let expected = format!("{} within {NOTICED:?}", wanted.as_str_name());
                return Err(Stop::failed(expected, found.as_str_name()));
            }
            sleep(POLL).await;
        }
    };
    until(InstanceState::Ready).await?;
    staged.hook.change(|script| script.info.ready = Some(false));
    until(InstanceState::NotReady).await?;
    staged.hook.vanish();
    until(InstanceState::Unreachable).await
}

async fn hook_token(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let hook = stage.fake(Script::of([stops()]));
    let instance = stage.listening(&name, "one", &hook).await?;
    let token = stage.register(instance.clone()).await?.hook_token;
    expect(!token.is_empty(), "a hook_token", "none")?;
    let again = stage.register(instance.clone()).await?.hook_token;
    expect(again == token, "the same hook_token", "another one")?;
    let bearer = format!("Bearer {token}");
    let sent = |calls: &[(Instant, Call)]| {
        calls.iter().any(|(_, call)| matches!(call, Call::Info(Some(sent)) if *sent == bearer))
    };
    expect(hook.told(super::stage::PLENTY, sent).await, "GetHookInfo with the hook_token as bearer", "none")?;
    let mut calls = stage.calls();
    let request = v1::GetInstanceRequest { name: instance.name };
    let one = ok("GetInstance", calls.scheduler.get_instance(request).await)?;
    let request = v1::ListInstancesRequest { parent: name, ..Default::default() };
    let all = ok("ListInstances", calls.scheduler.list_instances(request).await)?;
    for bytes in [one.encode_to_vec(), all.encode_to_vec()] {
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        expect(!found, "no token in the answers", "the hook_token")?;
    }
    Ok(())
}

async fn clusters(stage: &Stage) -> Verdict {
    let mut scheduler = stage.calls().scheduler;
    let name = format!("clusters/{}", stage.cluster("a"));
    let given = v1::Cluster {
        name: name.clone(),
        display_name: "a place".to_owned(),
        labels: labels([("tier", "edge")]),
        ..Default::default()
    };
    let request = v1::CreateClusterRequest { cluster: Some(given.clone()), ..Default::default() };
    let made = ok("CreateCluster", scheduler.create_cluster(request.clone()).await)?.cluster;
    let made = some("the cluster", made)?;
    let same = made.display_name == given.display_name && made.labels == given.labels && !made.etag.is_empty();
    expect(same, "the cluster as it was given, with an etag", format!("{made:?}"))?;
    refused(scheduler.create_cluster(request).await, &[Code::AlreadyExists], "CLUSTER_EXISTS")?;
    let filter = format!("name = \"{name}\"");
    let request = v1::ListClustersRequest { filter, ..Default::default() };
    let listed = ok("ListClusters", scheduler.list_clusters(request).await)?.clusters;
    let count = listed.iter().filter(|cluster| cluster.name == name).count();
    expect(count == 1, format!("{name} once in the list"), count)?;
    let change = v1::Cluster { display_name: "another".to_owned(), ..made.clone() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] });
    let request = v1::UpdateClusterRequest { cluster: Some(change), update_mask, ..Default::default() };
    let changed = ok("UpdateCluster", scheduler.update_cluster(request.clone()).await)?.cluster.unwrap_or_default();
    let fits = changed.display_name == "another" && changed.labels == given.labels && changed.etag != made.etag;
    expect(fits, "another display_name and etag, the same labels", format!("{changed:?}"))?;
    refused(scheduler.update_cluster(request).await, &[Code::Aborted], "ETAG_MISMATCH")?;
    let application = stage.create(stage.unmade(quick())).await?;
    let request = v1::DeleteClusterRequest { name: name.clone(), ..Default::default() };
    refused(scheduler.delete_cluster(request.clone()).await, &[Code::FailedPrecondition], "CLUSTER_IN_USE")?;
    let unused = v1::CreateClusterRequest {
        cluster: Some(v1::Cluster { name: format!("clusters/{}", stage.cluster("b")), ..Default::default() }),
        ..Default::default()
    };
    ok("CreateCluster", scheduler.create_cluster(unused).await)?;
    let request = v1::DeleteClusterRequest { name: format!("clusters/{}", stage.cluster("b")), ..request };
    ok("DeleteCluster", scheduler.delete_cluster(request.clone()).await)?;
    refused(scheduler.delete_cluster(request).await, &[Code::NotFound], "CLUSTER_NOT_FOUND")?;
    expect(application.cluster == stage.cluster("a"), stage.cluster("a"), application.cluster)
}
