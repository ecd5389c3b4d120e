//! Applications that do not stop as they should.

use std::time::Duration;

use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::{FailureStrategy, failure, instance};
use quiesce_testkit::process::alive;

use crate::program::Program;
use crate::stack::{Actor, SOON, Stack, touch};

/// The application runs on a, and b stands by.
async fn two_clusters(stack: &Stack, command: Vec<String>) -> (Actor, Actor) {
    let source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;
    (source, target)
}

/// A short grace and one attempt, and what follows.
async fn impatient(stack: &Stack, more: &str) {
    stack
        .apply(&format!(
            "kind: Application\nname: db\ncluster: a\nplacement: {{agents: {{}}}}\n\
             policy: {{gracePeriod: 2s, retry: {{maxAttempts: 1}}{more}}}\n"
        ))
        .await;
}

#[tokio::test]
async fn what_does_not_stop_is_kept_running_until_a_person_forces_it() {
    let stack = Stack::start().await;
    impatient(&stack, "").await;
    let program = Program::new(&stack);
    let (_source, _target) = two_clusters(&stack, program.command(&["--on-term", "swallow"])).await;

    let ran = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(3);
    let operation = ran.json();
    assert_eq!(operation["state"], "STATE_DEGRADED", "{operation:#}");
    assert_eq!(operation["failure"]["reason"], "REASON_GRACE_TIMEOUT", "{operation:#}");
    let advice = operation["advice"].as_str().unwrap_or_default();
    assert!(advice.contains("retry") && advice.contains("force"), "{advice}");
    let first = program.of("start").remove(0);
    assert!(alive(first.pid), "it was killed although the strategy is to give up");
    assert_eq!(program.of("start").len(), 1, "{:?}", program.entries());

    let name = operation["name"].as_str().unwrap();
    let forced = stack.quiesce(&["retry", name, "--force", "--reason", "it hangs", "-o", "json"]).await;
    assert_eq!(forced.code, Some(0), "{}{}", forced.stdout, forced.stderr);
    let operation = stack.reaches(name, State::Succeeded, SOON).await;
    assert_eq!(operation.overrides.len(), 1, "{operation:#?}");
    assert_eq!(operation.overrides[0].reason, "it hangs");
    assert!(!alive(first.pid));
    program.never_twice();
    assert_eq!(program.of("start")[1].instance, "b-0");
}

#[tokio::test]
async fn with_the_strategy_force_it_is_killed_after_its_grace() {
    let stack = Stack::start().await;
    impatient(&stack, ", failureStrategy: FAILURE_STRATEGY_FORCE").await;
    let program = Program::new(&stack);
    let (_source, _target) = two_clusters(&stack, program.command(&["--on-term", "swallow"])).await;

    let watch = stack.watch(&[]);
    watch.is_open().await;
    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    let result = &operation["instances"][0]["status"]["result"];
    assert_eq!(result["outcome"], "OUTCOME_KILLED", "{operation:#}");
    assert_eq!(result["evidence"], "EVIDENCE_GROUP_EMPTY", "{operation:#}");
    assert_eq!(result["exitSignal"], 9, "{operation:#}");
    watch.sees("that it was forced", |event| event["operation"]["state"] == "STATE_FORCING").await;
    program.told(1);
    program.never_twice();
}

#[tokio::test]
async fn a_signal_that_is_ignored_is_found_before_anything_is_stopped() {
    let stack = Stack::start().await;
    impatient(&stack, "").await;
    let program = Program::new(&stack);
    let (_source, _target) = two_clusters(&stack, program.command(&["--on-term", "ignore"])).await;

    let plan = stack.quiesce(&["migrate", "db", "--to", "b", "--dry-run"]).await;
    assert!(plan.stdout.contains("SIGTERM"), "{}{}", plan.stdout, plan.stderr);
    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(3).json();
    assert_eq!(operation["state"], "STATE_DEGRADED", "{operation:#}");
    assert_eq!(operation["failure"]["reason"], "REASON_CHECK_FAILED", "{operation:#}");
    assert_eq!(operation["pointOfNoReturnTime"], serde_json::Value::Null, "{operation:#}");

    // Nothing has happened to it, so it can be taken back.
    let name = operation["name"].as_str().unwrap();
    stack.quiesce(&["cancel", name]).await.expect(0);
    stack.reaches(name, State::Cancelled, SOON).await;
    assert!(alive(program.of("start")[0].pid));
    stack.instance_is("a-0", instance::State::Ready).await;
}

async fn is_not_stopped_before_the_last_child(kind: &str) {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let release = stack.path("release");
    let flags = ["--child", kind, "--child-until", release.to_str().unwrap()];
    let (_source, _target) = two_clusters(&stack, program.command(&flags)).await;
    program.reaches("child-start", 1).await;

    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    let main = program.reaches("end", 1).await.remove(0);
    quiesce_testkit::eventually("the main process to be gone", SOON, || async { !alive(main.pid) }).await;
    let watch = stack.watch(&[&name]);
    watch
        .sees("that a process is left", |event| {
            let found = event["operation"]["instances"].as_array().into_iter().flatten().chain([&event["instance"]]);
            found.into_iter().any(|instance| instance["status"]["phase"] == "SHUTDOWN_PHASE_STOPPING")
        })
        .await;
    assert_eq!(stack.operation(&name).await.state(), State::Stopping);
    assert_eq!(program.of("start").len(), 1, "started elsewhere while a child was alive");

    touch(&release);
    let operation = stack.reaches(&name, State::Succeeded, SOON).await;
    let entries: Vec<_> = program.entries().into_iter().map(|entry| entry.event).collect();
    let position = |event: &str| entries.iter().position(|found| found == event).unwrap();
    let second_start = entries.iter().rposition(|event| event == "start").unwrap();
    assert!(position("child-end") < second_start, "{entries:?}");
    let result = operation.instances[0].status.clone().unwrap().result.unwrap();
    assert_eq!(result.exit_code, Some(0), "{result:#?}");
    program.told(1);
    program.never_twice();
}

#[tokio::test]
async fn it_is_not_stopped_before_its_last_child_is_gone() {
    is_not_stopped_before_the_last_child("plain").await;
}

#[tokio::test]
async fn a_child_that_left_session_and_parent_counts_as_well() {
    is_not_stopped_before_the_last_child("daemon").await;
}

#[tokio::test]
async fn an_unclean_exit_is_noted() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let (_source, _target) = two_clusters(&stack, program.command(&["--exit-code", "7"])).await;
    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    let result = &operation["instances"][0]["status"]["result"];
    assert_eq!(result["exitCode"], 7, "{operation:#}");
    assert_eq!(result["clean"], false, "{operation:#}");
    program.never_twice();
}

#[tokio::test]
async fn an_unclean_exit_holds_the_operation_when_told_to() {
    let stack = Stack::start().await;
    impatient(&stack, ", holdOnUncleanExit: true").await;
    let program = Program::new(&stack);
    let (_source, _target) = two_clusters(&stack, program.command(&["--exit-code", "7"])).await;
    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(3).json();
    assert_eq!(operation["state"], "STATE_DEGRADED", "{operation:#}");
    assert_eq!(operation["failure"]["reason"], "REASON_UNCLEAN_EXIT", "{operation:#}");
    assert_eq!(program.of("start").len(), 1);

    // A retry is the decision to go on.
    let name = operation["name"].as_str().unwrap();
    stack.quiesce(&["retry", name, "-o", "json"]).await.expect(0);
    stack.reaches(name, State::Succeeded, SOON).await;
    program.told(1);
    program.never_twice();
}

#[tokio::test]
async fn a_slow_stop_gets_the_time_it_asks_for() {
    let stack = Stack::start().await;
    impatient(&stack, ", maxExtension: 60s").await;
    let program = Program::new(&stack);
    let release = stack.path("release");
    let flags = ["--extend", "30", "--until", release.to_str().unwrap()];
    let (_source, _target) = two_clusters(&stack, program.command(&flags)).await;
    let watch = stack.watch(&[]);
    watch.is_open().await;
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    let event = watch.sees("the extension", |event| event["type"] == "TYPE_DEADLINE_EXTENDED").await;
    let extension: f64 = event["instance"]["extension"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    assert!((25.0..=60.0).contains(&extension), "{event:#}");
    watch.sees("what it says of itself", |event| event["instance"]["status"]["message"] == "Need more time").await;
    touch(&release);
    stack.reaches(&name, State::Succeeded, SOON).await;
    program.told(1);
}

#[tokio::test]
async fn more_than_the_limit_is_denied() {
    let stack = Stack::start().await;
    impatient(&stack, "").await;
    let program = Program::new(&stack);
    let never = stack.path("never");
    let flags = ["--extend", "30", "--until", never.to_str().unwrap()];
    let (_source, _target) = two_clusters(&stack, program.command(&flags)).await;
    let watch = stack.watch(&[]);
    watch.is_open().await;
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    watch.sees("the denial", |event| event["type"] == "TYPE_EXTENSION_DENIED").await;
    let operation = stack.reaches(&name, State::Degraded, Duration::from_secs(30)).await;
    assert_eq!(operation.failure.unwrap().reason(), failure::Reason::GraceTimeout);
    assert_eq!(operation.policy.unwrap().failure_strategy(), FailureStrategy::GiveUp);
    program.told(1);
}
