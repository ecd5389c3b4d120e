//! Telling an application to stop, once; killing it; knowing beforehand what would not work.

use std::{collections::BTreeMap, time::Duration};

use quiesce_agent::{
    application::{AppState, Application, Evidence, StopError, StopOrder},
    supervise::{Config, StopMethod},
};

use crate::ground::{Ground, lives, now, start, stop, traced, until};

/// Says that it runs, counts SIGTERM, goes on.
const COUNTS: &str = r#"n=0; trap 'n=$((n+1)); echo $n >$0/terms' TERM; echo up >$0/up; while :; do sleep 0.02; done"#;

#[tokio::test]
async fn an_application_that_obeys_is_proved_to_have_stopped() {
    let ground = Ground::new();
    let supervisor = ground.started("trap 'exit 0' TERM; echo up >$0/up; while :; do sleep 0.02; done").await;
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    let status = until(&supervisor, "the end", |status| status.end.is_some()).await;
    let end = status.end.unwrap();
    assert_eq!(status.state, AppState::Stopped);
    assert_eq!((end.exit_code, end.exit_signal, end.killed), (Some(0), None, false));
    assert_eq!((end.evidence, end.clean), (Evidence::GroupEmpty, Some(true)));
    assert_eq!((status.processes, status.pid, status.epoch), (0, None, 1));
}

#[tokio::test]
async fn one_shutdown_tells_once_and_the_next_attempt_tells_again() {
    let ground = Ground::new();
    let supervisor = ground.started(COUNTS).await;
    ground.written("up").await;
    for _ in 0..5 {
        stop(&supervisor, "s-1").await;
        assert_eq!(now(&supervisor).state, AppState::Stopping);
    }
    assert_eq!(ground.written("terms").await, "1");
    std::fs::remove_file(ground.file("terms")).unwrap();
    stop(&supervisor, "s-2").await;
    assert_eq!(ground.written("terms").await, "2", "the second signal is the second attempt's");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn with_nothing_to_stop_or_kill_there_is_nothing_to_do() {
    let ground = Ground::new();
    let supervisor = ground.open(ground.script("exit 0")).await;
    stop(&supervisor, "s-1").await;
    supervisor.kill().await.unwrap();
    assert_eq!((now(&supervisor).state, now(&supervisor).end), (AppState::Stopped, None));
}

#[tokio::test]
async fn an_application_that_ignores_the_signal_is_found_out_beforehand_and_can_be_killed() {
    let ground = Ground::new();
    let supervisor = ground.started("trap '' TERM; echo up >$0/up; while :; do sleep 0.02; done").await;
    ground.written("up").await;
    let findings = supervisor.check().await;
    assert!(!findings.ok);
    assert!(findings.findings[0].contains("ignores SIGTERM, a stop would not work"), "{findings:?}");

    stop(&supervisor, "s-1").await;
    assert_eq!(now(&supervisor).state, AppState::Stopping);
    assert!(now(&supervisor).processes >= 1);
    supervisor.kill().await.unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_signal, end.killed, end.clean), (Some(9), true, Some(false)));
    assert_eq!(end.evidence, Evidence::GroupEmpty);
}

#[tokio::test]
async fn the_check_remarks_on_an_application_that_would_just_die() {
    let ground = Ground::new();
    let supervisor = ground.open(Config::new(vec!["sleep".into(), "600".into()])).await;
    assert_eq!(supervisor.check().await.findings, ["the application is not running"]);
    start(&supervisor, 1).await.unwrap();
    let findings = supervisor.check().await;
    assert!(findings.ok);
    assert!(findings.findings[0].contains("does not handle SIGTERM"), "{findings:?}");
    stop(&supervisor, "s-1").await;
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_signal, end.clean), (Some(15), None), "nobody knows whether it had something to save");
}

/// Killed by somebody else, or crashed, while it was saving: that it had been told is no excuse.
async fn is_not_clean(stop_method: StopMethod, signal: &str, number: i32) {
    let ground = Ground::new();
    let mut config =
        ground.script(&format!("trap 'kill -{signal} $$' TERM; echo up >$0/up; while :; do sleep 0.02; done"));
    config.stop = stop_method;
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_signal, end.killed, end.clean), (Some(number), false, Some(false)), "{end:?}");
}

#[tokio::test]
async fn what_is_killed_by_others_while_it_stops_has_not_ended_cleanly() {
    is_not_clean(StopMethod::Signals("SIGTERM".parse().unwrap()), "KILL", 9).await;
}

#[tokio::test]
async fn what_crashes_while_it_stops_has_not_ended_cleanly() {
    is_not_clean(StopMethod::Signals("SIGTERM".parse().unwrap()), "SEGV", 11).await;
    is_not_clean(StopMethod::Command("kill $QUIESCE_PID".parse().unwrap()), "ABRT", 6).await;
}

#[tokio::test]
async fn the_ladder_goes_on_when_a_signal_does_not_help() {
    let ground = Ground::new();
    let mut config =
        ground.script("trap 'echo int >$0/int' INT; trap 'exit 3' TERM; echo up >$0/up; while :; do sleep 0.02; done");
    config.stop = StopMethod::Signals("SIGINT:100ms,SIGTERM".parse().unwrap());
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_code, end.clean), (Some(3), Some(false)));
    assert_eq!(ground.written("int").await, "int");
}

#[tokio::test]
async fn the_stop_command_learns_what_it_needs_and_its_success_is_no_proof() {
    let ground = Ground::new();
    let mut config = ground.script("trap 'exit 0' USR1; echo up >$0/up; while :; do sleep 0.02; done");
    let say = ground.file("said");
    let line = format!(
        "echo $QUIESCE_EPOCH $QUIESCE_SHUTDOWN_ID $QUIESCE_GRACE_SECONDS $QUIESCE_PARAMETER_HOW_FAST $QUIESCE_PID \
         $TRACEPARENT $TRACESTATE >{0}.new; mv {0}.new {0}",
        say.display()
    );
    config.stop = StopMethod::Command(line.parse().unwrap());
    let supervisor = ground.open(config).await;
    start(&supervisor, 4).await.unwrap();
    ground.written("up").await;
    let pid = now(&supervisor).pid.unwrap();
    let order = StopOrder {
        shutdown_id: "s-9".into(),
        grace: Some(Duration::from_secs(60)),
        parameters: BTreeMap::from([("how-fast".to_owned(), "very".to_owned())]),
        trace: Some(traced()),
    };
    supervisor.stop(order).await.unwrap();
    assert_eq!(ground.written("said").await, format!("4 s-9 60 very {pid} {} vendor=1", traced()));
    let status = until(&supervisor, "the command to return", |status| status.message.contains("returned")).await;
    assert_eq!((status.state, status.end), (AppState::Stopping, None), "it still runs");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_stop_command_that_does_not_exist_is_found_out_and_tells_nobody() {
    let ground = Ground::new();
    let mut config = Config::new(vec!["sleep".into(), "600".into()]);
    config.stop = StopMethod::Command("/nowhere/stop now".parse().unwrap());
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    let findings = supervisor.check().await;
    assert!(!findings.ok && findings.findings[0].contains("no executable /nowhere/stop"), "{findings:?}");
    let error = supervisor.stop(StopOrder { shutdown_id: "s-1".into(), ..StopOrder::default() }).await.unwrap_err();
    assert!(matches!(error, StopError::NotTold { .. }), "{error}");
    assert_ne!(now(&supervisor).state, AppState::Stopping, "nobody was told");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_suspended_application_is_found_out() {
    let ground = Ground::new();
    let supervisor =
        ground.started("trap 'exit 0' TERM; echo up >$0/up; kill -STOP $$; while :; do sleep 0.02; done").await;
    ground.written("up").await;
    quiesce_testkit::eventually("the finding", crate::ground::LIMIT, async || {
        supervisor.check().await.findings.iter().any(|finding| finding.contains("suspended"))
    })
    .await;
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn killing_reaches_the_whole_tree() {
    let ground = Ground::new();
    let script = r"
        setsid sh -c 'sleep 600 & echo $! >$0/deep; wait' $0 &
        sleep 600 & echo $! >$0/child
        trap '' TERM; wait; wait
    ";
    let supervisor = ground.started(script).await;
    let (deep, child) = (ground.written("deep").await, ground.written("child").await);
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert!(!lives(&deep) && !lives(&child));
}
