//! The right to run, the hold, what an application finds when it starts, and when it is ready.

use std::{fs, process::Command};

use quiesce_agent::{
    application::{AppState, Application, HoldKind, HoldOrder, Permission, Ready, StartError, StartOrder},
    supervise::Config,
};

use crate::ground::{Ground, is_alone, new_epoch, now, start, stop, traced, until};

fn hold(epoch: u64) -> HoldOrder {
    HoldOrder { operation: "operations/o-1".into(), kind: HoldKind::Migrate, epoch }
}

fn standing() -> StartOrder {
    StartOrder { permission: Permission::Standing, ..new_epoch(0) }
}

#[tokio::test]
async fn an_application_finds_out_who_it_is() {
    // In a process of its own, whose environment has a secret: the role.
    if !is_alone("starting::an_application_finds_out_who_it_is") {
        return;
    }
    let ground = Ground::new();
    let script = "env | grep -E '^(QUIESCE_|NOTIFY_|TRACE)' | sort >$0/env.new; mv $0/env.new $0/env";
    let mut config = ground.script(script);
    config.withheld = vec!["QUIESCE_TEST_ROLE".into()];
    let supervisor = ground.open(config).await;
    supervisor.start(StartOrder { trace: Some(traced()), ..new_epoch(12) }).await.unwrap();
    let environment = ground.written("env").await;
    let names: Vec<&str> = environment.lines().map(|line| line.split_once('=').unwrap().0).collect();
    assert_eq!(
        names,
        [
            "NOTIFY_SOCKET",
            "QUIESCE_APPLICATION",
            "QUIESCE_CLUSTER",
            "QUIESCE_EPOCH",
            "QUIESCE_INSTANCE",
            "QUIESCE_RUN_ID",
            "TRACEPARENT",
            "TRACESTATE"
        ]
    );
    assert!(environment.contains(&format!("TRACEPARENT={}\nTRACESTATE=vendor=1", traced())), "{environment}");
    assert!(environment.contains("QUIESCE_EPOCH=12\nQUIESCE_INSTANCE=db-0"), "{environment}");
}

#[tokio::test]
async fn an_application_has_the_descriptors_of_any_child_and_no_more() {
    // In a process of its own, where no other test opens anything meanwhile.
    if !is_alone("starting::an_application_has_the_descriptors_of_any_child_and_no_more") {
        return;
    }
    let ground = Ground::new();
    let script = "readlink /proc/$$/fd/0 >$0/found.new; ls /proc/$$/fd >>$0/found.new; mv $0/found.new $0/found";
    let mut plain = Command::new("/bin/sh");
    assert!(plain.args(["-c", script, ground.file("").to_str().unwrap()]).status().unwrap().success());
    let of_a_plain_child = fs::read_to_string(ground.file("found")).unwrap();
    fs::remove_file(ground.file("found")).unwrap();

    let supervisor = ground.open(ground.script(script)).await;
    start(&supervisor, 1).await.unwrap();
    assert_eq!(ground.written("found").await, of_a_plain_child.trim());
}

#[tokio::test]
async fn an_epoch_permits_one_start() {
    let ground = Ground::new();
    let supervisor = ground.started("exit 0").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert!(matches!(start(&supervisor, 1).await, Err(StartError::Outdated { epoch: 1, highest: 1 })));
    start(&supervisor, 5).await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert!(matches!(start(&supervisor, 4).await, Err(StartError::Outdated { epoch: 4, highest: 5 })));
}

#[tokio::test]
async fn a_standing_permission_needs_nobody() {
    let ground = Ground::new();
    let supervisor = ground.open(ground.script("exit 0")).await;
    assert!(matches!(supervisor.start(standing()).await, Err(StartError::NoPermission)));
    start(&supervisor, 3).await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    supervisor.start(standing()).await.unwrap();
    assert_eq!(now(&supervisor).epoch, 3);
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn what_is_held_stays_stopped_until_a_new_epoch() {
    let ground = Ground::new();
    let script = "trap 'exit 0' TERM; echo up >$0/up; while :; do sleep 0.02; done";
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    supervisor.hold(hold(1)).await.unwrap();
    assert_eq!(now(&supervisor).hold.unwrap().operation, "operations/o-1");
    assert_ne!(now(&supervisor).state, AppState::Held, "it still runs");
    stop(&supervisor, "s-1").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(now(&supervisor).state, AppState::Held);
    assert!(matches!(supervisor.start(standing()).await, Err(StartError::Held(_))));
    drop(supervisor);

    let supervisor = ground.reopen(script).await;
    assert_eq!(now(&supervisor).state, AppState::Held, "a hold survives a restart of the agent");
    assert!(now(&supervisor).end.is_some(), "and so does the last end");
    assert!(matches!(start(&supervisor, 1).await, Err(StartError::Outdated { .. })));
    start(&supervisor, 2).await.unwrap();
    assert_eq!(now(&supervisor).hold, None);
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.state == AppState::Stopped).await;
}

#[tokio::test]
async fn removing_the_hold_file_gives_back_no_permission() {
    let ground = Ground::new();
    let supervisor = ground.started("exit 0").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    supervisor.hold(hold(1)).await.unwrap();
    drop(supervisor);
    fs::remove_file(ground.state().join("hold.json")).unwrap();
    let supervisor = ground.reopen("exit 0").await;
    assert!(matches!(supervisor.start(standing()).await, Err(StartError::NoPermission)));
    start(&supervisor, 2).await.unwrap();
}

#[tokio::test]
async fn what_was_deleted_does_not_come_back_by_itself() {
    let ground = Ground::new();
    let supervisor = ground.started("exit 0").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    supervisor.hold(HoldOrder { kind: HoldKind::Delete, ..hold(1) }).await.unwrap();
    supervisor.retire().await.unwrap();
    supervisor.retire().await.unwrap();
    supervisor.hold(hold(1)).await.unwrap();
    drop(supervisor);
    let supervisor = ground.reopen("exit 0").await;
    let error = start(&supervisor, 99).await.unwrap_err();
    assert!(matches!(error, StartError::Deleted { .. }));
    assert!(error.to_string().contains("start the agent again"), "{error}");
}

#[tokio::test]
async fn a_standby_waits_for_its_first_epoch() {
    let ground = Ground::new();
    let supervisor = ground.open(ground.script("sleep 600")).await;
    supervisor.hold(HoldOrder { operation: String::new(), kind: HoldKind::Standby, epoch: 0 }).await.unwrap();
    assert_eq!(now(&supervisor).state, AppState::Held);
    start(&supervisor, 1).await.unwrap();
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_uses_up_its_epoch_and_leaves_nothing() {
    let ground = Ground::new();
    let supervisor = ground.open(Config::new(vec!["/nowhere/program".into()])).await;
    assert!(matches!(start(&supervisor, 1).await, Err(StartError::Spawn { .. })));
    let status = now(&supervisor);
    assert_eq!((status.state, status.end), (AppState::Stopped, None), "what never ran has not ended");
    assert!(status.message.contains("cannot execute /nowhere/program"), "{}", status.message);
    assert!(matches!(start(&supervisor, 1).await, Err(StartError::Outdated { .. })));
}

#[tokio::test]
async fn nothing_is_started_that_could_not_be_written_down() {
    let ground = Ground::new();
    let supervisor = ground.open(ground.script("echo up >$0/up")).await;
    fs::create_dir(ground.state().join("journal.new")).unwrap();
    assert!(matches!(start(&supervisor, 1).await, Err(StartError::NotDurable(_))));
    assert_eq!(now(&supervisor).state, AppState::Stopped);
    assert!(!ground.file("up").exists());
}

#[tokio::test]
async fn staying_alive_is_ready_when_nothing_better_is_known() {
    let ground = Ground::new();
    let supervisor = ground.open(Config::new(vec!["sleep".into(), "600".into()])).await;
    start(&supervisor, 1).await.unwrap();
    assert_eq!(now(&supervisor).state, AppState::Starting);
    let status = until(&supervisor, "ready", |status| status.ready.is_some()).await;
    assert_eq!((status.ready, status.state), (Some(Ready::Settled), AppState::Running));
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_ready_command_decides() {
    let ground = Ground::new();
    let mut config = ground.script("while [ ! -e $0/go ]; do sleep 0.02; done; echo up >$0/up; sleep 600");
    config.ready = format!("command:test -e {}", ground.file("up").display()).parse().unwrap();
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    fs::write(ground.file("go"), "").unwrap();
    let status = until(&supervisor, "ready", |status| status.ready.is_some()).await;
    assert_eq!(status.ready, Some(Ready::Command));
    assert!(ground.file("up").exists());
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}
