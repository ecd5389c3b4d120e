//! The table of AgentGateway.

use std::time::Duration;

use quiesce_testkit::input::{Rpc, Table, flag, form, free, ignored, optional, present, required, rpc};
use serde_json::json;
use tonic::Code;

use super::ground::{AGENT, Ground, ONE, START};
use super::shared::{application, stop_result};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const NOBODY: &str = "applications/nobody/instances/one";
const TWO: &str = "applications/shop/instances/two";

#[tokio::test]
async fn wrong_requests_to_the_gateway_are_named_field_by_field_and_change_nothing() {
    let ground = Ground::prepare().await;
    let rpcs = [registering(&ground), running(), stopping(&ground)];
    let table = Table::of("quiesce.v1.AgentGateway", rpcs.into_iter().flatten());
    ground.run(table).await;
}

fn registering(ground: &Ground) -> Vec<Rpc> {
    // As it was registered, so that it changes nothing.
    let again = json!({
        "instance": {"name": ONE, "endpoint": ground.endpoint, "agentId": AGENT},
        "defaultApplication": {"cluster": "a"},
    });
    let instance = |field: &str| format!("instance.{field}");
    vec![
        rpc("RegisterInstance", again)
            .rows([
                present("instance", &["instance.name", "instance.endpoint"]),
                required("instance.name", form::instance()).but(
                    "applications/busy/instances/two",
                    Code::FailedPrecondition,
                    "APPLICATION_STOPPING",
                ),
                optional("instance.connect_mode", form::known_value()),
                required("instance.endpoint", form::endpoint()),
                optional("instance.cluster", form::cluster()),
                free("instance.stop_order", "any order is one"),
                optional("instance.labels", form::labels()),
                optional("instance.agent_id", form::line(64)).but(
                    "another",
                    Code::FailedPrecondition,
                    "INSTANCE_IN_USE",
                ),
                flag("held"),
            ])
            .rows(
                ["state", "last_seen_time", "create_time", "update_time", "epoch", "unreachable_reason"]
                    .map(|field| ignored(instance(field), "output only")),
            )
            .rows([ignored("instance.hook", "a first impression, read as the careful way; the hook is asked at once")])
            .rows(application("default_application"))
            .rows([
                optional("default_application.cluster", form::cluster()),
                ignored("default_application.name", "the instance's name has it"),
                ignored("default_application.etag", "nothing to compare with"),
            ]),
        // Unknown, so that nothing is forgotten.
        rpc("DeregisterInstance", json!({"name": NOBODY})).rows([required("name", form::instance())
            .but(ONE, Code::FailedPrecondition, "INSTANCE_IN_USE")
            .but("applications/busy/instances/one", Code::Aborted, "OPERATION_IN_PROGRESS")]),
    ]
}

fn running() -> Vec<Rpc> {
    let agent = || optional("agent_id", form::line(64));
    vec![
        // The start that was permitted before.
        rpc("AdmitStart", json!({"instance": ONE, "startId": START, "agentId": AGENT})).rows([
            required("instance", form::instance())
                .but(NOBODY, Code::NotFound, "APPLICATION_NOT_FOUND")
                .but(TWO, Code::NotFound, "INSTANCE_NOT_FOUND")
                .but("applications/busy/instances/one", Code::FailedPrecondition, "START_NOT_PERMITTED"),
            required("start_id", form::token(64, "._:-")),
            agent().but("another", Code::FailedPrecondition, "INSTANCE_IN_USE"),
            optional("last_epoch", form::epoch(0)),
            optional("held_by", form::operation()),
        ]),
        // Of an epoch that is not in force.
        rpc(
            "ReportEnd",
            json!({"instance": ONE, "agentId": AGENT, "epoch": "0", "result": {"outcome": "OUTCOME_STOPPED"}}),
        )
        .rows([
            required("instance", form::instance()).but(NOBODY, Code::NotFound, "INSTANCE_NOT_FOUND").but(
                TWO,
                Code::NotFound,
                "INSTANCE_NOT_FOUND",
            ),
            agent(),
            optional("epoch", form::epoch(0)),
            stop_result("result"),
        ]),
    ]
}

/// Refused for the token, so that nothing is counted.
fn stopping(ground: &Ground) -> Vec<Rpc> {
    let (running, token) = &ground.running;
    let (over, old_token) = &ground.over;
    let id = || {
        required("shutdown_id", form::token(128, "._-"))
            .but("op-0.1.one", Code::PermissionDenied, "COMPLETION_TOKEN_INVALID")
            .but(over.as_str(), Code::PermissionDenied, "COMPLETION_TOKEN_INVALID")
    };
    let secret = || {
        required("completion_token", form::secret(512))
            .but(old_token.as_str(), Code::PermissionDenied, "COMPLETION_TOKEN_INVALID")
            .but(format!("{token}x"), Code::PermissionDenied, "COMPLETION_TOKEN_INVALID")
            .but("\0", Code::PermissionDenied, "COMPLETION_TOKEN_INVALID")
    };
    let with = |key: &str, value| {
        let mut request = json!({"shutdownId": running, "completionToken": "qct1.1.wrong"});
        request[key] = value;
        request
    };
    vec![
        rpc("ExtendDeadline", with("wantedGracePeriod", json!("90s"))).rows([
            id(),
            secret(),
            required("wanted_grace_period", form::duration(Duration::ZERO, WEEK)),
            optional("reason", form::text(4096)),
        ]),
        rpc("CompleteShutdown", with("result", json!({"outcome": "OUTCOME_STOPPED"}))).rows([
            id(),
            secret(),
            stop_result("result"),
        ]),
    ]
}
