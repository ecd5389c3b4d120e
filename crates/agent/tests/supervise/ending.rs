//! When a run is over, and how that is known.

use quiesce_agent::{
    application::{AppState, Application, Evidence},
    supervise::Config,
};
use quiesce_testkit::eventually;

use crate::ground::{Ground, LIMIT, is_alone, lives, now, start, stop, until};

#[tokio::test]
async fn an_exit_code_is_passed_on() {
    let ground = Ground::new();
    let supervisor = ground.started("exit 7").await;
    let status = until(&supervisor, "the end", |status| status.end.is_some()).await;
    let end = status.end.unwrap();
    assert_eq!((end.exit_code, end.clean, status.state), (Some(7), Some(false), AppState::Stopped));
    assert_eq!(end.message, "exited with 7");
}

#[tokio::test]
async fn a_death_by_signal_is_told_from_an_exit() {
    let ground = Ground::new();
    let supervisor = ground.started("kill -ABRT $$").await;
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_code, end.exit_signal, end.clean, end.killed), (None, Some(6), Some(false), false));
    assert_eq!(end.message, "was ended by SIGABRT");
}

#[tokio::test]
async fn other_exit_codes_can_mean_success() {
    let ground = Ground::new();
    let mut config = ground.script("exit 143");
    config.success = vec![0, 143];
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!(end.clean, Some(true));
}

#[tokio::test]
async fn it_has_not_stopped_before_the_last_child_is_gone() {
    let ground = Ground::new();
    let script = "(trap '' TERM; echo up >$0/up; while [ ! -e $0/go ]; do sleep 0.02; done) & wait";
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    let status = until(&supervisor, "the first process to end", |status| status.message.contains("left")).await;
    assert_eq!((status.state, status.end), (AppState::Stopping, None));
    assert!(status.processes >= 1);
    assert!(status.message.starts_with("the first process was ended by SIGTERM"), "{}", status.message);
    std::fs::write(ground.file("go"), "").unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_signal, end.evidence), (Some(15), Evidence::GroupEmpty));
}

#[tokio::test]
async fn children_that_outlive_the_first_process_are_told_too() {
    let ground = Ground::new();
    let script = r#"
        sh -c 'trap "echo told >$0/told; exit 0" TERM; echo up >$0/up; while :; do sleep 0.02; done' $0 &
        wait
    "#;
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    stop(&supervisor, "s-1").await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(ground.written("told").await, "told");
}

#[tokio::test]
async fn a_daemon_that_left_its_group_and_session_still_belongs_to_it() {
    let ground = Ground::new();
    let script = "(setsid sh -c 'echo $$ >$0/pid; while :; do sleep 0.02; done' $0 &) ; exit 0";
    let supervisor = ground.started(script).await;
    let daemon = ground.written("pid").await;
    let status = until(&supervisor, "the first process to end", |status| status.message.contains("left")).await;
    assert_eq!((status.state, status.end), (AppState::Starting, None), "the run is not over");

    let refused = start(&supervisor, 2).await.unwrap_err();
    assert!(refused.to_string().contains("still live"), "{refused}");

    stop(&supervisor, "s-1").await;
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.exit_code, end.evidence), (Some(0), Evidence::GroupEmpty));
    assert!(!lives(&daemon));
    start(&supervisor, 2).await.unwrap();
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_daemon_without_any_mark_still_belongs_to_it() {
    if !is_alone("ending::a_daemon_without_any_mark_still_belongs_to_it") {
        return;
    }
    let ground = Ground::new();
    let script =
        "(env -i /usr/bin/setsid /bin/sh -c 'echo $$ >$0/pid; while :; do /bin/sleep 0.02; done' $0 &) ; exit 0";
    let supervisor = ground.started(script).await;
    let daemon = ground.written("pid").await;
    until(&supervisor, "the first process to end", |status| status.message.contains("left")).await;
    assert_eq!(now(&supervisor).end, None);
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert!(!lives(&daemon));
}

#[tokio::test]
async fn orphans_are_reaped_and_the_children_of_others_are_not() {
    if !is_alone("ending::orphans_are_reaped_and_the_children_of_others_are_not") {
        return;
    }
    let ground = Ground::new();
    let mut other = tokio::process::Command::new("sh").args(["-c", "exit 5"]).spawn().unwrap();
    let script = "for i in 1 2 3 4 5; do (setsid sh -c 'exit 1' &); done; echo up >$0/up; while :; do sleep 0.02; done";
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    let me = std::process::id().to_string();
    eventually("no zombie of ours but the stranger's", LIMIT, async || {
        let zombies = zombies_of(&me);
        if zombies.iter().all(|zombie| Some(*zombie) == other.id()) { Ok(()) } else { Err(format!("{zombies:?}")) }
    })
    .await;
    assert_eq!(other.wait().await.unwrap().code(), Some(5), "its parent gets its exit code");
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    eventually("no zombie at all", LIMIT, async || zombies_of(&me).is_empty()).await;
}

fn zombies_of(parent: &str) -> Vec<u32> {
    let mut zombies = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        if fields[0] == "Z" && fields[1] == parent {
            zombies.push(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    zombies
}

#[tokio::test]
async fn many_processes_are_no_problem() {
    let ground = Ground::new();
    // More than are watched one by one.
    let script = "i=0; while [ $i -lt 300 ]; do sleep 600 & i=$((i+1)); done; echo up >$0/up; wait";
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    supervisor.check().await;
    until(&supervisor, "all of them", |status| status.processes == 301).await;
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn a_stop_of_an_application_that_has_just_ended_is_fine() {
    let ground = Ground::new();
    let supervisor = ground.open(Config::new(vec!["true".into()])).await;
    for epoch in 1..20 {
        start(&supervisor, epoch).await.unwrap();
        stop(&supervisor, "s").await;
        supervisor.kill().await.unwrap();
        until(&supervisor, "the end", |status| status.end.is_some()).await;
    }
}
