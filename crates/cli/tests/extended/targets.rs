//! A target that does not come up: the source runs again, under a higher epoch.

use quiesce_protocol::v1::instance;
use quiesce_testkit::process::alive;

use crate::program::Program;
use crate::stack::{Agent, Stack};

/// Migrates to this target; what comes back is the source.
async fn rolls_back(stack: Stack, target: impl FnOnce(Agent, Vec<String>) -> Agent, reason: &str) {
    let program = Program::new(&stack);
    let command = program.command(&[]);
    let _source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = target(stack.agent("b", "b-0").standby(), command).start();
    stack.instance_is("b-0", instance::State::Held).await;

    let args = ["migrate", "db", "--to", "b", "--start-timeout", "3s", "-o", "json"];
    let operation = stack.quiesce(&args).await.expect(3).json();
    assert_eq!(operation["state"], "STATE_ROLLED_BACK", "{operation:#}");
    assert_eq!(operation["failure"]["reason"], reason, "{operation:#}");
    program.told(program.of("start").len() - 1);
    program.never_twice();
    let last = program.of("start").pop().unwrap();
    assert_eq!(last.instance, "a-0", "{:#?}", program.entries());
    assert!(alive(last.pid));
    assert!(last.epoch > 2, "{:#?}", program.entries());
    stack.instance_is("a-0", instance::State::Ready).await;
    stack.instance_is("b-0", instance::State::Held).await;

    // Nothing is in the way of the next try, which fails alike.
    let operation = stack.quiesce(&args).await.expect(3).json();
    assert_eq!(operation["state"], "STATE_ROLLED_BACK", "{operation:#}");
    program.never_twice();
}

#[tokio::test]
async fn a_target_that_exits_at_once() {
    let target = |agent: Agent, _command| agent.running(["sh", "-c", "exit 1"]);
    rolls_back(Stack::start().await, target, "REASON_START_FAILED").await;
}

#[tokio::test]
async fn a_target_whose_command_does_not_exist_is_found_before_anything_is_stopped() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let _source = stack.agent("a", "a-0").running(program.command(&[])).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(["quiesce-no-such-command"]).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let operation =
        stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json", "--attempts", "1"]).await.expect(3).json();
    assert_eq!(operation["state"], "STATE_DEGRADED", "{operation:#}");
    assert_eq!(operation["failure"]["reason"], "REASON_CHECK_FAILED", "{operation:#}");
    assert!(operation["failure"]["message"].as_str().unwrap().contains("quiesce-no-such-command"), "{operation:#}");
    program.told(0);
}

#[tokio::test]
async fn a_target_that_is_never_ready() {
    // It does not speak sd_notify, and nothing ever listens on this port.
    let target = |agent: Agent, command: Vec<String>| {
        let silent = ["env", "-u", "NOTIFY_SOCKET"].into_iter().map(str::to_owned).chain(command);
        agent.with(&["--ready-tcp", "127.0.0.1:1"]).running(silent)
    };
    rolls_back(Stack::start().await, target, "REASON_START_TIMEOUT").await;
}
