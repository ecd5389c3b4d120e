//! Pages at 80 columns.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use quiesce_protocol::v1::{
    Application, Failure, FailureStrategy, Operation, OperationKind, Override, RetryPolicy, ShutdownPolicy,
    application, failure, operation, r#override,
};

use super::{Page, effective};
use crate::output::text::Line;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_090)
}

fn text(page: Page) -> String {
    page.into_lines().iter().map(|line: &Line| line.plain().trim_end().to_owned() + "\n").collect()
}

#[test]
fn an_application_shows_its_policy_in_effect_and_what_is_its_own() {
    let own = ShutdownPolicy {
        grace_period: seconds(90),
        retry: Some(RetryPolicy { max_attempts: Some(5), ..RetryPolicy::default() }),
        ..ShutdownPolicy::default()
    };
    let default = ShutdownPolicy {
        grace_period: seconds(60),
        heartbeat_timeout: seconds(15),
        overall_timeout: seconds(0),
        retry: Some(RetryPolicy { max_attempts: Some(3), initial_backoff: seconds(1), ..RetryPolicy::default() }),
        failure_strategy: FailureStrategy::GiveUp.into(),
        ..ShutdownPolicy::default()
    };
    let application = Application {
        name: "applications/db".to_owned(),
        cluster: "a".to_owned(),
        state: application::State::Active.into(),
        labels: [("tier".to_owned(), "db".to_owned()), ("owner".to_owned(), "shop".to_owned())].into(),
        instance_count: 1,
        ready_instance_count: 1,
        expected_instances: Some(2),
        create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..Application::default()
    };
    let mut page = Page::new(Some(80));
    page.application(&application, now());
    page.policy(&effective(&default, &own), Some(&own));
    assert_eq!(
        text(page),
        "\
Application       db
State             ACTIVE
Cluster           a
Placement         external
Instances         1 registered, 1 ready, 0 standing by, 2 expected
Epoch             0
Labels            owner=shop, tier=db
Created           2023-11-14T22:13:20Z (1m30s ago)

Policy (* set here, otherwise the scheduler's default)
Heartbeat         15s
Grace             1m30s *
Overall           no limit
Attempts          5 *
Backoff           1s
On failure        GIVE_UP
"
    );
}

#[test]
fn a_degraded_operation_shows_failure_advice_and_overrides_wrapped() {
    let operation = Operation {
        name: "operations/op-1".to_owned(),
        application: "applications/db".to_owned(),
        kind: OperationKind::Delete.into(),
        state: operation::State::Degraded.into(),
        source_cluster: "a".to_owned(),
        failure: Some(Failure {
            reason: failure::Reason::HookUnreachable.into(),
            instance: "applications/db/instances/db-0".to_owned(),
            message: "no connection to the hook since 22:12:00, four attempts failed, the last with connection refused"
                .to_owned(),
            ..Failure::default()
        }),
        advice: "start the agent of db-0 again, then: quiesce retry op-1".to_owned(),
        overrides: vec![Override {
            kind: r#override::Kind::Force.into(),
            requester: "alice".to_owned(),
            reason: "host is gone".to_owned(),
            time: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..Override::default()
        }],
        attempt: 3,
        round: 1,
        create_time: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..Operation::default()
    };
    let mut page = Page::new(Some(80));
    page.operation(&operation, now());
    assert_eq!(
        text(page),
        "\
Operation         op-1
For               delete db on a
State             DEGRADED
Failure           HOOK_UNREACHABLE db-0: no connection to the hook since
                  22:12:00, four attempts failed, the last with connection
                  refused
Next              start the agent of db-0 again, then: quiesce retry op-1
Override          override FORCE by alice: host is gone at 2023-11-14T22:13:20Z
Placement         external
Attempt           3 in round 1
Epoch             0
Can be cancelled  no
Accepted          2023-11-14T22:13:20Z (1m30s ago)
"
    );
}
