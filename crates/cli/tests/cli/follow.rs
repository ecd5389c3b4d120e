//! Migrating, deleting, watching: endings and their exit codes, broken streams, timeouts, detaching.

use quiesce_protocol::v1::{
    FailureStrategy, Instance, ShutdownPlan, instance, operation::State, operation_event::Type, shutdown_plan,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tonic::{Code, Status};

use crate::fake::{Fake, Script, Step, refusal};
use crate::run::{command, event, operation, quiesce};

/// A scheduler whose one operation begins STOPPING and ends in `last`.
async fn ending_in(last: State) -> Fake {
    let steps =
        vec![Step::Send(event(Type::Snapshot, 1, State::Stopping)), Step::Send(event(Type::StateChanged, 2, last))];
    Fake::start(Script { operations: vec![operation(last)], watches: [steps].into(), ..Script::default() }).await
}

#[tokio::test]
async fn a_migration_that_succeeds_exits_with_0_and_says_so() {
    let fake = ending_in(State::Succeeded).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "--reason", "maintenance"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "2023-11-14T22:13:21Z op-1 SNAPSHOT STOPPING migrate db a -> b");
    assert!(lines[1].contains(" STATE_CHANGED "), "{}", lines[1]);
    assert_eq!(lines[2], "done: db runs on b, epoch 2 (12s)");
    let request = fake.script().migrations.remove(0);
    assert_eq!((request.name.as_str(), request.target_cluster.as_str()), ("applications/db", "b"));
    assert_eq!(request.reason, "maintenance");
    assert_eq!(request.request_id.len(), 36, "a generated id is a UUID");
    assert_eq!(request.policy, None);
}

#[tokio::test]
async fn an_operation_that_ends_another_way_exits_with_3() {
    for (last, says) in [
        (State::Degraded, "DEGRADED"),
        (State::RolledBack, "ROLLED_BACK: db runs on a again"),
        (State::Cancelled, "CANCELLED: db was not told to stop"),
        (State::Abandoned, "ABANDONED"),
    ] {
        let fake = ending_in(last).await;
        let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b"]).await;
        assert_eq!(ran.code, Some(3), "{last:?}: {}", ran.stderr);
        assert!(ran.stdout.contains(says), "{last:?}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn a_degraded_end_names_the_next_command() {
    let fake = ending_in(State::Degraded).await;
    let ran = quiesce(&fake.url, &["watch", "op-1"]).await;
    assert_eq!(ran.code, Some(3));
    assert!(ran.stdout.contains("next: quiesce retry op-1"), "{}", ran.stdout);
}

#[tokio::test]
async fn json_of_a_migration_is_the_final_operation_and_nothing_else() {
    let fake = ending_in(State::Succeeded).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "-o", "json"]).await;
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.json()["state"], "STATE_SUCCEEDED");
    assert_eq!(ran.json()["done"], true);
    assert_eq!(ran.json()["epoch"], "2", "64 bits are strings in proto3 JSON");

    let fake = ending_in(State::RolledBack).await;
    let ran = quiesce(&fake.url, &["delete", "db", "-o", "json"]).await;
    assert_eq!(ran.code, Some(3));
    assert_eq!(ran.json()["state"], "STATE_ROLLED_BACK");
    assert!(ran.stderr.contains("ROLLED_BACK"), "people still learn why: {}", ran.stderr);
}

#[tokio::test]
async fn json_of_a_watch_is_one_event_per_line_with_its_token() {
    let fake = ending_in(State::Succeeded).await;
    let ran = quiesce(&fake.url, &["watch", "operations/op-1", "-o", "json", "--since", "token-0"]).await;
    assert_eq!(ran.code, Some(0));
    let events: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["type"], "TYPE_STATE_CHANGED");
    assert_eq!(events[1]["resumeToken"], "token-2");
    assert_eq!(fake.script().resumed, ["token-0"]);
}

#[tokio::test]
async fn a_broken_watch_goes_on_behind_the_last_event() {
    let fake = Fake::start(Script {
        operations: vec![operation(State::Succeeded)],
        watches: [
            vec![
                Step::Send(event(Type::Snapshot, 1, State::Preparing)),
                Step::Send(event(Type::StateChanged, 2, State::Stopping)),
                Step::Break(Status::unavailable("restarting")),
            ],
            vec![Step::Break(refusal("WATCH_TOO_SLOW", Code::ResourceExhausted, "too slow", &[]))],
            vec![Step::Send(event(Type::StateChanged, 3, State::Succeeded))],
        ]
        .into(),
        ..Script::default()
    })
    .await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fake.script().resumed, ["", "token-2", "token-2"]);
    assert_eq!(ran.stdout.matches("STATE_CHANGED").count(), 2, "nothing twice: {}", ran.stdout);
    assert!(ran.stderr.contains("watch interrupted (restarting); reconnecting"), "{}", ran.stderr);
    assert!(ran.stderr.contains("watching again"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_opened_again() {
    let silent = vec![Step::Send(event(Type::StateChanged, 2, State::Stopping)), Step::Hang];
    let again = vec![Step::Send(event(Type::StateChanged, 3, State::Succeeded))];
    let fake = Fake::start(Script {
        operations: vec![operation(State::Succeeded)],
        watches: [silent, again].into(),
        ..Script::default()
    })
    .await;
    let ran = quiesce(&fake.url, &["watch", "op-1"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("no sign of life from the scheduler"), "{}", ran.stderr);
    assert_eq!(fake.script().resumed, ["", "token-2"]);
}

#[tokio::test]
async fn an_expired_token_of_a_running_watch_begins_anew_and_says_so() {
    let fake = Fake::start(Script {
        operations: vec![operation(State::Succeeded)],
        watches: [
            vec![
                Step::Send(event(Type::StateChanged, 2, State::Stopping)),
                Step::Break(Status::unavailable("restored from a backup")),
            ],
            vec![Step::Break(refusal("RESUME_TOKEN_EXPIRED", Code::OutOfRange, "history is gone", &[]))],
            vec![Step::Send(event(Type::Snapshot, 9, State::Succeeded))],
        ]
        .into(),
        ..Script::default()
    })
    .await;
    let ran = quiesce(&fake.url, &["watch", "op-1"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fake.script().resumed, ["", "token-2", ""]);
}

#[tokio::test]
async fn an_expired_token_of_the_caller_is_an_error() {
    let expired = refusal("RESUME_TOKEN_EXPIRED", Code::OutOfRange, "history is gone", &[]);
    let fake = Fake::start(Script { watches: [vec![Step::Break(expired)]].into(), ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["watch", "--since", "old"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("RESUME_TOKEN_EXPIRED") && ran.stderr.contains("without --since"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_watch_behind_the_end_is_over_at_once() {
    let fake = Fake::start(Script {
        operations: vec![operation(State::Succeeded)],
        watches: [vec![]].into(),
        ..Script::default()
    })
    .await;
    let ran = quiesce(&fake.url, &["watch", "op-1", "--since", "token-9"]).await;
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1), "{}{}", ran.stdout, ran.stderr);
}

#[tokio::test]
async fn waiting_too_long_exits_with_4_and_the_operation_goes_on() {
    let script = || Script {
        operations: vec![operation(State::Stopping)],
        watches: [vec![Step::Send(event(Type::Snapshot, 1, State::Stopping)), Step::Hang]].into(),
        ..Script::default()
    };
    let fake = Fake::start(script()).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "--timeout", "300ms"]).await;
    assert_eq!(ran.code, Some(4));
    assert!(ran.stderr.contains("goes on") && ran.stderr.contains("quiesce watch op-1"), "{}", ran.stderr);

    let fake = Fake::start(script()).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "--timeout", "300ms", "-o", "json"]).await;
    assert_eq!((ran.code, ran.json()["state"].as_str()), (Some(4), Some("STATE_STOPPING")));
}

#[tokio::test]
async fn ctrl_c_detaches() {
    let fake = Fake::start(Script {
        operations: vec![operation(State::Stopping)],
        watches: [vec![Step::Send(event(Type::Snapshot, 1, State::Stopping)), Step::Hang]].into(),
        ..Script::default()
    })
    .await;
    let mut child = command(&fake.url, &["migrate", "db", "--to", "b"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(stdout.next_line().await.unwrap().unwrap().contains("SNAPSHOT"));
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(4));
    assert!(said.contains("detached; op-1, now STOPPING, goes on") && said.contains("quiesce cancel op-1"), "{said}");
}

#[tokio::test]
async fn detach_returns_with_the_accepted_operation() {
    let fake = Fake::start(Script { operations: vec![operation(State::Pending)], ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "--detach", "-o", "json"]).await;
    assert_eq!((ran.code, ran.json()["state"].as_str()), (Some(0), Some("STATE_PENDING")));
    assert!(fake.script().resumed.is_empty(), "nothing is watched");
}

#[tokio::test]
async fn an_unavailable_scheduler_is_asked_again_with_the_same_id() {
    let fake = ending_in(State::Succeeded).await;
    fake.script().refusals.push_back(refusal("NOT_SERVING", Code::Unavailable, "starting", &[]));
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let script = fake.script();
    assert_eq!(script.migrations.len(), 2);
    assert_eq!(script.migrations[0].request_id, script.migrations[1].request_id);
}

#[tokio::test]
async fn refusals_are_explained() {
    for (status, says) in [
        (
            refusal("OPERATION_IN_PROGRESS", Code::Aborted, "held", &[("operation", "operations/op-9")]),
            "quiesce watch op-9, or quiesce cancel op-9",
        ),
        (
            refusal("TARGET_NOT_READY", Code::FailedPrecondition, "nobody stands by", &[("cluster", "b")]),
            "quiesce agent --application db --cluster b --standby",
        ),
    ] {
        let fake = Fake::start(Script { refusals: [status].into(), ..Script::default() }).await;
        let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        assert!(ran.stderr.contains(says), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn force_is_the_strategy_of_a_migration_and_the_flag_of_a_deletion() {
    let fake = ending_in(State::Succeeded).await;
    quiesce(&fake.url, &["migrate", "db", "--to", "b", "--force", "--grace-period", "5s", "--detach"]).await;
    quiesce(&fake.url, &["delete", "db", "--force", "--detach", "--request-id", "r-1"]).await;
    let script = fake.script();
    let policy = script.migrations[0].policy.clone().unwrap();
    assert_eq!(policy.failure_strategy(), FailureStrategy::Force);
    assert_eq!(policy.grace_period.unwrap().seconds, 5);
    assert!(script.deletions[0].force);
    assert_eq!(script.deletions[0].request_id, "r-1");
}

fn standby(cluster: &str) -> Instance {
    Instance {
        name: format!("applications/db/instances/db-{cluster}"),
        cluster: cluster.to_owned(),
        state: instance::State::Held.into(),
        ..Instance::default()
    }
}

#[tokio::test]
async fn the_only_standby_cluster_is_the_target() {
    let fake = ending_in(State::Succeeded).await;
    fake.script().applications.push(quiesce_protocol::v1::Application {
        name: "applications/db".to_owned(),
        cluster: "a".to_owned(),
        ..Default::default()
    });
    let none = quiesce(&fake.url, &["migrate", "db"]).await;
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("no instance stands by outside of a"), "{}", none.stderr);

    fake.script().instances = vec![standby("b")];
    let one = quiesce(&fake.url, &["migrate", "db"]).await;
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert!(one.stderr.contains("migrating db to b"), "{}", one.stderr);

    fake.script().instances = vec![standby("b"), standby("c")];
    let two = quiesce(&fake.url, &["migrate", "db"]).await;
    assert_eq!(two.code, Some(1));
    assert!(two.stderr.contains("--to b") && two.stderr.contains("--to c"), "{}", two.stderr);
    assert_eq!(fake.script().migrations.len(), 1);
}

#[tokio::test]
async fn a_dry_run_shows_the_plan() {
    let step = shutdown_plan::Step {
        instance: "applications/db/instances/db-0".to_owned(),
        reachable: true,
        ok: Some(false),
        findings: vec!["SIGTERM is ignored".to_owned()],
        ..Default::default()
    };
    let plan =
        ShutdownPlan { steps: vec![step], warnings: vec!["one hook cannot kill".to_owned()], ..Default::default() };
    let fake = Fake::start(Script { operations: vec![operation(State::Unspecified)], plan, ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["migrate", "db", "--to", "b", "--dry-run"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("SIGTERM is ignored") && ran.stdout.contains("warning: one hook cannot kill"));
    assert!(fake.script().migrations[0].validate_only);
    let ran = quiesce(&fake.url, &["delete", "db", "--dry-run", "-o", "json"]).await;
    assert_eq!(ran.json()["plan"]["steps"][0]["ok"], false);
}
