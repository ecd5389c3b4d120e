//! Requests that are wrong: every RPC of ShutdownHook, every field of its request.
//!
//! A new field fails here until it has a row; [`quiesce_testkit::input`] says what a row is. The requests are refused for
//! something else when their form is right (another instance, an unknown shutdown), so that nothing is ever done.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use quiesce_agent::hook::{Drain, Records};
use quiesce_agent::serve::Access;
use quiesce_testkit::input::{Row, Rpc, Table, flag, form, ignored, optional, required, rpc};
use serde_json::json;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::scripted::{Manner, Scripted};
use crate::world::{INSTANCE, World};

/// Longest duration of the contract that has no limit of its own.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// An instance this hook does not serve.
const OTHER: &str = "applications/shop/instances/other";

#[tokio::test]
async fn wrong_requests_to_a_hook_are_named_field_by_field_and_do_nothing() {
    let app = Scripted::running(Manner::Quick);
    let directory = tempfile::tempdir().unwrap();
    let drain: Drain = Arc::new(|_order| async { Ok(()) }.boxed());
    let records = Records::in_directory(directory.path());
    let world = World::open(app.clone(), records, Some(drain), Access::connected()).await;
    let channel = Endpoint::from_shared(world.url.clone()).unwrap().connect().await.unwrap();
    let told = async || {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|file| {
            let path = file.unwrap().path();
            format!("{}: {:?}", path.display(), std::fs::read(&path).unwrap())
        });
        files.chain([format!("told {:?}, alive: {}", app.told(), app.is_alive())]).collect()
    };
    Table::of("quiesce.v1.ShutdownHook", rpcs()).run(&channel, told).await;
}

fn rpcs() -> Vec<Rpc> {
    let reason = || optional("reason", form::text(4096));
    let shutdown_id = || required("shutdown_id", form::token(128, "._-"));
    let token = || optional("completion_token", form::secret(512));
    let heartbeat = || optional("heartbeat_interval", form::duration(Duration::ZERO, WEEK));
    let for_logs = || ignored("deadline_time", "for logs; no timer is made of somebody else's clock");
    vec![
        rpc("GetHookInfo", json!({})),
        rpc("CheckShutdown", json!({"instance": INSTANCE})).rows([instance(), parameters()]),
        rpc("Shutdown", json!({"shutdownId": "s1", "instance": OTHER, "operation": "operations/op-1"})).rows([
            shutdown_id(),
            optional("operation", form::operation()),
            instance(),
            optional("attempt", form::count()),
            ignored("kind", "an unknown kind is taken for DELETE"),
            optional("grace_period", form::duration(Duration::ZERO, WEEK)),
            for_logs(),
            heartbeat(),
            optional("max_extension", form::duration(Duration::ZERO, WEEK)),
            optional("settle_period", form::duration(Duration::ZERO, WEEK)),
            token(),
            parameters(),
            optional("target_cluster", form::cluster()),
            reason(),
            optional("epoch", form::epoch(0)),
        ]),
        rpc("GetShutdown", json!({"shutdownId": "s1"})).rows([optional("shutdown_id", form::token(128, "._-"))]),
        rpc("CancelShutdown", json!({"shutdownId": "s1"})).rows([shutdown_id(), reason()]),
        rpc("UpdateDeadline", json!({"shutdownId": "s1"})).rows([
            shutdown_id(),
            optional("grace_period", form::duration(Duration::ZERO, WEEK)),
            for_logs(),
            flag("granted"),
        ]),
        rpc("KillApplication", json!({"shutdownId": "s1"})).rows([shutdown_id(), token(), reason()]),
        rpc("StartApplication", json!({"epoch": "2", "instance": OTHER})).rows([
            required("epoch", form::epoch(1)),
            instance(),
            optional("operation", form::operation()),
            optional("start_timeout", form::duration(Duration::ZERO, WEEK)),
            heartbeat(),
            optional("source_cluster", form::cluster()),
            flag("rollback"),
            parameters(),
            reason(),
        ]),
        rpc("ConcludeShutdown", json!({"instance": OTHER})).rows([
            optional("operation", form::operation()),
            instance(),
            optional("epoch", form::epoch(0)),
            ignored("disposition", "an unknown one is taken for STANDBY"),
        ]),
    ]
}

/// The instance of a request: it may be left out, and another one's is refused (H13).
fn instance() -> Row {
    optional("instance", form::instance()).but(
        "applications/other/instances/shop-0",
        Code::FailedPrecondition,
        "WRONG_INSTANCE",
    )
}

fn parameters() -> Row {
    optional("parameters", form::parameters())
}
