//! Placement external: the caller moves the workload, quiesce is the gate.

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::process::alive;

use crate::program::Program;
use crate::stack::{Actor, SOON, Stack};

/// An application that waits at the gate, with everything stopped.
async fn at_the_gate(stack: &Stack, program: &Program) -> (Actor, String) {
    stack.apply("kind: Application\nname: db\ncluster: a\nplacement: {external: {requireConfirmation: true}}\n").await;
    let agent = stack.agent("a", "a-0").running(program.command(&[])).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    let operation = stack.reaches(&name, State::Stopped, SOON).await;
    assert!(operation.awaiting_confirmation, "{operation:#?}");
    assert!(operation.advice.contains("confirm"), "{}", operation.advice);
    program.told(1);
    assert!(!alive(program.of("start")[0].pid));
    (agent, name)
}

#[tokio::test]
async fn the_gate_opens_with_the_confirmation() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let (_agent, name) = at_the_gate(&stack, &program).await;
    stack.quiesce(&["confirm", &name, "--reason", "it runs on b"]).await.expect(0);
    let operation = stack.reaches(&name, State::Succeeded, SOON).await;
    assert_eq!(operation.instances[0].status.clone().unwrap().result.unwrap().exit_code, Some(0));
    assert_eq!(program.of("start").len(), 1, "nobody else may start it");
    let application = stack.quiesce(&["get", "applications", "db", "-o", "json"]).await.expect(0).json();
    assert_eq!(application["cluster"], "b", "{application:#}");
    // Said again it is still right.
    stack.quiesce(&["confirm", &name]).await.expect(0);
}

#[tokio::test]
async fn a_cancel_at_the_gate_brings_the_source_back() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let (_agent, name) = at_the_gate(&stack, &program).await;
    stack.quiesce(&["cancel", &name]).await.expect(0);
    stack.reaches(&name, State::RolledBack, SOON).await;
    let starts = program.reaches("start", 2).await;
    assert!(alive(starts[1].pid));
    program.told(1);
    program.never_twice();
    stack.instance_is("a-0", instance::State::Ready).await;
}
