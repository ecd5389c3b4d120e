//! An application that speaks sd_notify.

use std::{env, os::unix::net::UnixDatagram, process::Command};

use quiesce_agent::{
    application::{AppState, Application, Ready},
    supervise::Config,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::ground::{Ground, again, now, role, start, stop, until};

/// Not a test: the application of the others. It waits for the file `go` before it says that it is ready.
#[tokio::test]
async fn application() {
    let Some(directory) = role() else { return };
    let socket = env::var("NOTIFY_SOCKET").unwrap();
    let say = |message: &str| UnixDatagram::unbound().unwrap().send_to(message.as_bytes(), &socket).unwrap();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    say("STATUS=loading");
    let go = std::path::Path::new(&directory).join("go");
    quiesce_testkit::eventually("go", crate::ground::LIMIT, async || go.exists()).await;
    say("READY=1\nSTATUS=serving");
    terminate.recv().await;
    say("STOPPING=1\nSTATUS=flushing 1 of 2\nEXTEND_TIMEOUT_USEC=30000000");
    let end = std::path::Path::new(&directory).join("end");
    quiesce_testkit::eventually("end", crate::ground::LIMIT, async || end.exists()).await;
    say("STATUS=all is saved");
}

fn speaking(ground: &Ground) -> Config {
    let command = again("speaking::application", ground.file("").to_str().unwrap());
    let mut words = vec!["/usr/bin/env".into(), format!("QUIESCE_TEST_ROLE={}", ground.file("").display()).into()];
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(ToOwned::to_owned));
    Config::new(words)
}

#[tokio::test]
async fn what_it_says_of_itself_is_heard() {
    let ground = Ground::new();
    let supervisor = ground.open(speaking(&ground)).await;
    start(&supervisor, 1).await.unwrap();
    let status = until(&supervisor, "loading", |status| status.said.as_deref() == Some("loading")).await;
    assert_eq!((status.state, status.ready), (AppState::Starting, None));
    std::fs::write(ground.file("go"), "").unwrap();
    let status = until(&supervisor, "ready", |status| status.ready.is_some()).await;
    assert_eq!((status.state, status.ready), (AppState::Running, Some(Ready::Notified)));

    stop(&supervisor, "s-1").await;
    let status = until(&supervisor, "the wish for time", |status| status.extend_until.is_some()).await;
    assert!(status.stopping);
    assert_eq!(status.said.as_deref(), Some("flushing 1 of 2"));
    assert!(status.extend_until.unwrap() > std::time::Instant::now());
    std::fs::write(ground.file("end"), "").unwrap();
    let status = until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(status.end.unwrap().exit_code, Some(0));
    assert_eq!(status.said.as_deref(), Some("all is saved"), "its last words are not lost");
    assert_eq!(status.extend_until, None);
}

#[tokio::test]
async fn strangers_are_not_heard() {
    let ground = Ground::new();
    let supervisor = ground.open(speaking(&ground)).await;
    start(&supervisor, 1).await.unwrap();
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"STATUS=forged\nREADY=1", ground.state().join("notify.sock")).unwrap();
    // What the application itself says comes later, and the socket keeps the order.
    let status = until(&supervisor, "loading", |status| status.said.is_some()).await;
    assert_eq!((status.said.as_deref(), status.ready), (Some("loading"), None));
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
}

#[tokio::test]
async fn signals_to_the_agent_are_passed_on() {
    let ground = Ground::new();
    let script = "trap 'echo hup >$0/hup' HUP; echo up >$0/up; while :; do sleep 0.02; done";
    let supervisor = ground.started(script).await;
    ground.written("up").await;
    let mut forwarding = Box::pin(supervisor.clone().forward_signals());
    // The first look registers the handlers; before that the signal would end this process.
    assert!(futures::poll!(&mut forwarding).is_pending());
    let hup = Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status().unwrap();
    assert!(hup.success());
    tokio::select! {
        ended = forwarding => panic!("{ended:?}"),
        written = ground.written("hup") => assert_eq!(written, "hup"),
    }
    supervisor.kill().await.unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(now(&supervisor).processes, 0);
}
