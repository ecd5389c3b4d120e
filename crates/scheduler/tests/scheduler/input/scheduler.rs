//! The table of Scheduler.

use std::time::Duration;

use quiesce_testkit::input::{Row, Rpc, Table, flag, form, ignored, optional, present, required, rpc};
use serde_json::json;
use tonic::Code;

use super::ground::{Ground, ONE, SHOP};
use super::shared::{application, cluster, page, policy, request_id};

/// Longest duration of the contract that has no limit of its own.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn wrong_requests_to_the_scheduler_are_named_field_by_field_and_change_nothing() {
    let ground = Ground::prepare().await;
    let rpcs = [applications(), clusters(), instances(), operations(&ground), words(&ground), watches(&ground)];
    let table = Table::of("quiesce.v1.Scheduler", rpcs.into_iter().flatten());
    ground.run(table).await;
}

fn applications() -> Vec<Rpc> {
    let etag = || optional("etag", form::line(256)).but("0", Code::Aborted, "ETAG_MISMATCH");
    let name =
        || {
            required("name", form::application())
                .but("applications/nobody", Code::NotFound, "APPLICATION_NOT_FOUND")
                .but("applications/busy", Code::Aborted, "OPERATION_IN_PROGRESS")
        };
    vec![
        rpc("GetServerInfo", json!({})),
        rpc(
            "CreateApplication",
            json!({"application": {"name": "applications/new", "cluster": "a"}, "validateOnly": true}),
        )
        .rows(application("application"))
        .rows([
            present("application", &["application.name", "application.cluster"]),
            required("application.name", form::application()).but(SHOP, Code::AlreadyExists, "APPLICATION_EXISTS"),
            required("application.cluster", form::cluster()),
            ignored("application.etag", "nothing to compare with"),
            request_id(),
            flag("validate_only"),
        ]),
        rpc("GetApplication", json!({"name": SHOP})).rows([required("name", form::application()).but(
            "applications/nobody",
            Code::NotFound,
            "APPLICATION_NOT_FOUND",
        )]),
        rpc("ListApplications", json!({})).rows(page()),
        rpc("UpdateApplication", json!({"application": {"name": SHOP}, "validateOnly": true}))
            .rows(application("application"))
            .rows([
                present("application", &["application.name"]),
                required("application.name", form::application()).but(
                    "applications/nobody",
                    Code::NotFound,
                    "APPLICATION_NOT_FOUND",
                ),
                optional("application.cluster", form::cluster()),
                optional("application.etag", form::line(256)).but("0", Code::Aborted, "ETAG_MISMATCH"),
                optional("update_mask", form::mask()),
                flag("allow_missing"),
                request_id(),
                flag("validate_only"),
            ]),
        rpc("MigrateApplication", json!({"name": SHOP, "targetCluster": "b", "validateOnly": true}))
            .rows(policy("policy"))
            .rows([
                name(),
                required("target_cluster", form::cluster()).but("a", Code::FailedPrecondition, "ALREADY_ON_TARGET"),
                optional("source_cluster", form::cluster()).but(
                    "elsewhere",
                    Code::FailedPrecondition,
                    "SOURCE_CLUSTER_MISMATCH",
                ),
                request_id(),
                flag("validate_only"),
                optional("reason", form::text(4096)),
                optional("labels", form::labels()),
                etag(),
            ]),
        rpc("DeleteApplication", json!({"name": SHOP, "validateOnly": true})).rows(policy("policy")).rows([
            name(),
            flag("force"),
            request_id(),
            flag("validate_only"),
            optional("reason", form::text(4096)),
            optional("labels", form::labels()),
            etag(),
        ]),
    ]
}

fn clusters() -> Vec<Rpc> {
    let unknown = |row: Row| row.but("clusters/nowhere", Code::NotFound, "CLUSTER_NOT_FOUND");
    vec![
        rpc("CreateCluster", json!({"cluster": {"name": "clusters/new"}, "validateOnly": true})).rows(cluster()).rows(
            [
                present("cluster", &["cluster.name"]),
                ignored("cluster.etag", "nothing to compare with"),
                request_id(),
                flag("validate_only"),
            ],
        ),
        rpc("GetCluster", json!({"name": "clusters/a"})).rows([unknown(required("name", form::cluster_name()))]),
        rpc("ListClusters", json!({})).rows(page()),
        rpc("UpdateCluster", json!({"cluster": {"name": "clusters/a"}, "validateOnly": true})).rows(cluster()).rows([
            present("cluster", &["cluster.name"]),
            optional("cluster.etag", form::line(256)).but("0", Code::Aborted, "ETAG_MISMATCH"),
            optional("update_mask", form::mask()),
            flag("allow_missing"),
            request_id(),
            flag("validate_only"),
        ]),
        // In use, so that it stays.
        rpc("DeleteCluster", json!({"name": "clusters/a"})).rows([
            unknown(required("name", form::cluster_name())),
            optional("etag", form::line(256)).but("0", Code::Aborted, "ETAG_MISMATCH"),
        ]),
    ]
}

fn instances() -> Vec<Rpc> {
    vec![
        rpc("GetInstance", json!({"name": ONE})).rows([required("name", form::instance())
            .but("applications/nobody/instances/one", Code::NotFound, "INSTANCE_NOT_FOUND")
            .but("applications/shop/instances/two", Code::NotFound, "INSTANCE_NOT_FOUND")]),
        rpc("ListInstances", json!({"parent": "applications/-"})).rows(page()).rows([required(
            "parent",
            form::application(),
        )
        .but("applications/nobody", Code::NotFound, "APPLICATION_NOT_FOUND")]),
    ]
}

/// An operation by its name.
fn operation() -> Row {
    required("name", form::operation()).but("operations/op-0", Code::NotFound, "OPERATION_NOT_FOUND")
}

fn operations(ground: &Ground) -> Vec<Rpc> {
    vec![
        rpc("GetOperation", json!({"name": ground.done})).rows([operation()]),
        rpc("ListOperations", json!({})).rows(page()),
    ]
}

/// What is said to an operation. All of it is refused by one that is over, so that nothing happens.
fn words(ground: &Ground) -> Vec<Rpc> {
    let done = &ground.done;
    let reason = || optional("reason", form::text(4096));
    vec![
        rpc("CancelOperation", json!({"name": done})).rows([operation(), reason()]),
        rpc("RetryOperation", json!({"name": done})).rows(policy("policy")).rows([
            operation(),
            flag("force"),
            request_id(),
            reason(),
        ]),
        rpc("ExtendOperation", json!({"name": done, "gracePeriod": "90s"})).rows([
            operation(),
            required("grace_period", form::duration(Duration::ZERO, DAY)),
            reason(),
        ]),
        rpc("ConfirmOperation", json!({"name": done})).rows([
            operation().but(ground.degraded.as_str(), Code::FailedPrecondition, "OPERATION_NOT_CONFIRMABLE"),
            reason(),
        ]),
    ]
}

fn watches(ground: &Ground) -> Vec<Rpc> {
    let interval = || optional("bookmark_interval", form::duration(Duration::from_secs(1), WEEK));
    vec![
        rpc("WatchOperation", json!({"name": ground.done})).rows([
            operation(),
            // A token of the watch of all operations is none of this one.
            optional("resume_token", form::opaque().into_iter().chain(foreign(&ground.resume_token)).collect())
                .reason("INVALID_RESUME_TOKEN"),
            flag("end_on_degraded"),
            interval(),
        ]),
        rpc("WatchOperations", json!({"skipSnapshot": true})).rows([
            optional("filter", form::filter().into_iter().chain(states()).collect()).reason("INVALID_FILTER"),
            optional("resume_token", form::opaque()).reason("INVALID_RESUME_TOKEN"),
            flag("skip_snapshot"),
            flag("include_done"),
            interval(),
        ]),
    ]
}

fn foreign(token: &str) -> Vec<(String, quiesce_testkit::input::Given)> {
    vec![("of another watch".to_owned(), token.into())]
}

/// Filters that a listing takes and a watch does not.
fn states() -> Vec<(String, quiesce_testkit::input::Given)> {
    ["state = DEGRADED", "done = true"].map(|filter| (filter.to_owned(), filter.into())).into()
}
