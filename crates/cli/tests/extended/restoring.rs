//! A scheduler that lost its state gets an old one back: agents and watchers have seen more than it knows.

use std::fs;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::eventually;
use serde_json::Value;

use crate::program::Program;
use crate::stack::{Actor, Agent, SOON, Stack, touch};

/// An application on `a` with a standby on `b`, under a real agent each.
struct World {
    stack: Stack,
    program: Program,
    source: Agent,
    source_agent: Actor,
    _target_agent: Actor,
}

impl World {
    async fn start() -> Self {
        let stack = Stack::start().await;
        let program = Program::new(&stack);
        let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
        let source = stack.agent("a", "a-0").running(command.clone());
        let source_agent = source.start();
        stack.instance_is("a-0", instance::State::Ready).await;
        // Ready is what lives for a second; on a busy machine the program may not have begun to listen by then.
        program.reaches("start", 1).await;
        let target_agent = stack.agent("b", "b-0").standby().running(command).start();
        stack.instance_is("b-0", instance::State::Held).await;
        Self { stack, program, source, source_agent, _target_agent: target_agent }
    }

    /// Saves the state of the scheduler, which runs on.
    async fn back_up(&self) {
        let ran = self.store(&["backup", self.stack.path("backup").to_str().unwrap(), "-o", "json"]).await.expect(0);
        assert_eq!(ran.json()["online"], true, "{}", ran.stdout);
    }

    /// Stops the scheduler, saves its state, and starts it again: agents and operations go on.
    async fn stop_and_back_up(&mut self) {
        self.stack.stop_scheduler().await;
        let ran = self.store(&["backup", self.stack.path("backup").to_str().unwrap()]).await.expect(0);
        assert!(ran.stdout.contains("written and read back"), "{}", ran.stdout);
        self.store(&["check"]).await.expect(0);
        self.stack.start_scheduler().await;
    }

    async fn store(&self, args: &[&str]) -> crate::stack::Ran {
        let data = self.stack.data_dir();
        self.stack.quiesce(&[&["store"], args, &["--data-dir", data.to_str().unwrap()]].concat()).await
    }

    /// The machine of the scheduler is lost, and another one begins with the backup. Returns what the restore said.
    async fn lose_and_restore(&mut self) -> Value {
        self.stack.crash_scheduler().await;
        fs::remove_dir_all(self.stack.data_dir()).unwrap();
        let file = self.stack.path("backup");
        let ran = self.store(&["restore", file.to_str().unwrap(), "-o", "json"]).await.expect(0);
        self.stack.start_scheduler().await;
        ran.json()
    }

    /// The agent of the source dies and comes back; says when it has been told to wait.
    async fn restart_source(&mut self, waits_for: &str) {
        self.source_agent.kill_9().await;
        self.source_agent = self.source.start();
        self.source_agent.wait_for_line(waits_for, SOON).await;
    }

    async fn runs_on(&self, instance: &str) {
        self.stack.instance_is(instance, instance::State::Ready).await;
    }

    async fn readmit(&self, args: &[&str]) {
        self.stack.quiesce(&[&["readmit", "db"], args].concat()).await.expect(0);
    }

    async fn ends_well(&self) {
        self.program.never_twice();
    }
}

#[tokio::test]
async fn an_application_that_moved_after_the_backup_gets_no_second_copy_and_only_higher_epochs() {
    let mut world = World::start().await;
    touch(&world.stack.path("release"));
    let watch = world.stack.watch(&[]);
    watch.is_open().await;
    world.back_up().await;
    world.stack.quiesce(&["migrate", "db", "--to", "b"]).await.expect(0);
    world.runs_on("b-0").await;
    let moved = watch.sees("SUCCEEDED", |event| event["operation"]["state"] == "STATE_SUCCEEDED").await;
    let lost_epoch = world.program.reaches("start", 2).await[1].epoch;

    let restored = world.lose_and_restore().await;
    assert_eq!(restored["unconfirmedApplications"], serde_json::json!(["applications/db"]));
    let token = moved["resumeToken"].as_str().unwrap();
    let resumed = world.stack.quiesce(&["watch", "--since", token, "-o", "json"]).await.expect(1);
    assert!(resumed.stderr.contains("RESUME_TOKEN_EXPIRED"), "{}", resumed.stderr);

    // The scheduler believes that it runs on a. It does not act on that.
    world.runs_on("b-0").await;
    let refused = world.stack.quiesce(&["migrate", "db", "--to", "b"]).await.expect(1);
    for part in ["RESTORE_UNCONFIRMED", "quiesce readmit db"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let listed = world.stack.quiesce(&["get", "applications"]).await.expect(0);
    assert!(listed.stdout.contains("UNCONFIRMED"), "{}", listed.stdout);
    world.restart_source("RESTORE_UNCONFIRMED").await;
    world.readmit(&["--cluster", "b"]).await;
    world.source_agent.wait_for_line("held: waiting for the scheduler", SOON).await;
    assert_eq!(world.program.of("start").len(), 2, "{:?}", world.program.entries());

    // Now it knows, and moves it back, with a permission above all that the lost life has given.
    world.stack.quiesce(&["migrate", "db", "--to", "a"]).await.expect(0);
    world.runs_on("a-0").await;
    let epochs: Vec<_> = world.program.reaches("start", 3).await.iter().map(|entry| entry.epoch).collect();
    assert!(epochs.len() == 3 && epochs[2] > lost_epoch, "{epochs:?}");
    world.ends_well().await;
    world.stack.stop_scheduler().await;
    world.store(&["check"]).await.expect(0);
}

#[tokio::test]
async fn an_operation_that_was_open_in_the_backup_tells_nobody_again() {
    let mut world = World::start().await;
    let operation = world.stack.begin(&["migrate", "db", "--to", "b", "--request-id", "ticket-1"]).await;
    world.program.reaches("term", 1).await;
    world.stack.reaches(&operation, State::Stopping, SOON).await;
    world.stop_and_back_up().await;
    touch(&world.stack.path("release"));
    world.stack.reaches(&operation, State::Succeeded, SOON).await;
    world.program.reaches("start", 2).await;
    world.runs_on("b-0").await;

    let restored = world.lose_and_restore().await;
    assert_eq!(restored["closedOperations"], serde_json::json!([operation]));
    let found = world.stack.operation(&operation).await;
    assert_eq!(found.state(), State::Abandoned);
    assert!(found.message.contains("backup taken at"), "{}", found.message);
    // The request that led to it is not carried out again.
    let again = ["migrate", "db", "--to", "b", "--request-id", "ticket-1", "--detach", "-o", "json"];
    let again = world.stack.quiesce(&again).await.expect(0);
    assert_eq!(again.json()["name"], Value::String(operation));
    world.runs_on("b-0").await;
    world.restart_source("RESTORE_UNCONFIRMED").await;
    world.program.told(1);
    assert_eq!(world.program.of("start").len(), 2, "{:?}", world.program.entries());

    world.readmit(&["--cluster", "b"]).await;
    world.stack.quiesce(&["delete", "db"]).await.expect(0);
    eventually("the application to be gone", SOON, || async {
        let ends = world.program.of("end").len();
        if ends == 2 { Ok(()) } else { Err(ends) }
    })
    .await;
    world.ends_well().await;
}

#[tokio::test]
async fn an_agent_that_waits_for_its_first_permission_gets_it_when_the_application_is_readmitted() {
    let mut world = World::start().await;
    touch(&world.stack.path("release"));
    world.back_up().await;
    world.lose_and_restore().await;
    world.runs_on("a-0").await;
    // A copy that runs may crash and come back under the permission it has; a new one needs a person's word.
    let command = world.program.command(&[]);
    let first = world.stack.agent("a", "a-1").running(command).start();
    first.wait_for_line("RESTORE_UNCONFIRMED", SOON).await;
    assert_eq!(world.program.of("start").len(), 1);
    world.stack.quiesce(&["readmit", "--all"]).await.expect(0);
    first.wait_for_line("permission to start", SOON).await;
}
