//! Crashes at awkward moments: the operation ends right, and the application is told once.

use std::time::{Duration, SystemTime};

use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::{Operation, instance};
use quiesce_runtime::clock::wall_now;
use quiesce_testkit::eventually;
use quiesce_testkit::process::alive;
use quiesce_testkit::proxy::Mode;
use tokio::time::Instant;

use crate::program::Program;
use crate::stack::{Actor, Agent, SOON, Stack, touch};

/// An agent that was away has to find its way back: backoff of a few seconds on both sides.
const AWAY: Duration = Duration::from_secs(40);

/// How much the deadline may seem to move because it is shown on the wall clock, which is read anew by every scheduler.
const CLOCK_READING: Duration = Duration::from_millis(100);

/// Time that has passed since the acceptance before anybody comes back: a grace granted anew would end so much later,
/// and that shows beyond doubt.
const WOULD_SHOW: Duration = Duration::from_millis(500);

/// A hook is asked for a report three times in `heartbeat_timeout`, which is 15 s: after such a silence one is missing.
const MISSED: Duration = Duration::from_secs(7);

/// An application that, once told, stays until the test lets it go; in the middle of its shutdown.
struct MidShutdown {
    stack: Stack,
    program: Program,
    source: Agent,
    source_agent: Actor,
    _target_agent: Actor,
    operation: String,
    /// When its grace ends, as the scheduler said before anything crashed.
    deadline: prost_types::Timestamp,
    accepted: Instant,
}

impl MidShutdown {
    async fn begin() -> Self {
        let stack = Stack::start().await;
        let program = Program::new(&stack);
        let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
        let source = stack.agent("a", "a-0").running(command.clone());
        let source_agent = source.start();
        stack.instance_is("a-0", instance::State::Ready).await;
        let target_agent = stack.agent("b", "b-0").standby().running(command).start();
        stack.instance_is("b-0", instance::State::Held).await;
        let operation = stack.begin(&["migrate", "db", "--to", "b"]).await;
        program.reaches("term", 1).await;
        let accepted = Instant::now();
        let deadline = eventually("the point of no return to be recorded", SOON, || async {
            let now = stack.operation(&operation).await;
            now.point_of_no_return_time.and(now.instances[0].deadline_time)
        })
        .await;
        Self { stack, program, source, source_agent, _target_agent: target_agent, operation, deadline, accepted }
    }

    /// Lets the application go, and checks that everything came out as if nothing had crashed.
    async fn end(self) -> Operation {
        touch(&self.stack.path("release"));
        let operation = self.stack.reaches(&self.operation, State::Succeeded, AWAY).await;
        self.program.told(1);
        self.program.never_twice();
        let starts = self.program.of("start");
        assert_eq!(starts.len(), 2, "{starts:?}");
        assert_eq!(starts[1].instance, "b-0");
        assert_eq!(operation.instances[0].attempt, 1, "{operation:#?}");
        operation
    }

    /// Waits, with somebody down, until a grace that is granted anew would show. Returns the present time.
    async fn a_new_grace_would_show(&self) -> SystemTime {
        let enough = || async { self.accepted.elapsed() > WOULD_SHOW };
        eventually("the grace to have become shorter", SOON, enough).await;
        wall_now()
    }

    /// That the operation goes on, hears the hook after that time, and has not granted the grace again.
    async fn same_deadline(&self, after: SystemTime) {
        eventually("the hook to be heard again", AWAY, || async {
            let seen = self.stack.try_instance("a-0").await?.last_seen_time.map(wall);
            if seen.is_some_and(|seen| seen > after) { Ok(()) } else { Err(format!("seen {seen:?}")) }
        })
        .await;
        let operation = self.stack.operation(&self.operation).await;
        assert_eq!(operation.state(), State::Stopping, "{operation:#?}");
        let deadline = wall(operation.instances[0].deadline_time.expect("it is being stopped"));
        let before = wall(self.deadline);
        let moved = deadline.duration_since(before).unwrap_or_else(|earlier| earlier.duration());
        assert!(moved <= CLOCK_READING, "the deadline moved by {moved:?}, from {before:?} to {deadline:?}");
    }

    fn application_runs(&self) -> bool {
        alive(self.program.of("start")[0].pid)
    }
}

fn wall(time: prost_types::Timestamp) -> SystemTime {
    time.try_into().expect("a time after 1970")
}

#[tokio::test]
async fn the_scheduler_crashes() {
    let mut world = MidShutdown::begin().await;
    world.stack.crash_scheduler().await;
    let crashed = world.a_new_grace_would_show().await;
    world.stack.start_scheduler().await;
    world.same_deadline(crashed).await;
    world.end().await;
}

#[tokio::test]
async fn the_scheduler_crashes_and_the_application_ends_meanwhile() {
    let mut world = MidShutdown::begin().await;
    world.stack.crash_scheduler().await;
    touch(&world.stack.path("release"));
    eventually("the application to be gone", SOON, || async { !world.application_runs() }).await;
    world.stack.start_scheduler().await;
    let operation = world.end().await;
    let result = operation.instances[0].status.clone().unwrap().result.unwrap();
    assert_eq!(result.exit_code, Some(0), "{result:#?}");
}

#[tokio::test]
async fn the_agent_crashes() {
    let mut world = MidShutdown::begin().await;
    world.source_agent.kill_9().await;
    assert!(world.application_runs(), "the application died with its agent");
    let crashed = world.a_new_grace_would_show().await;
    let _again = world.source.start();
    world.same_deadline(crashed).await;
    world.end().await;
}

#[tokio::test]
async fn the_agent_crashes_and_the_application_ends_meanwhile() {
    let mut world = MidShutdown::begin().await;
    world.source_agent.kill_9().await;
    touch(&world.stack.path("release"));
    eventually("the application to be gone", SOON, || async { !world.application_runs() }).await;
    let _again = world.source.start();
    world.end().await;
}

#[tokio::test]
async fn scheduler_and_agent_crash_together() {
    let mut world = MidShutdown::begin().await;
    world.source_agent.kill_9().await;
    world.stack.crash_scheduler().await;
    assert!(world.application_runs(), "the application died with its agent");
    let crashed = world.a_new_grace_would_show().await;
    let _again = world.source.start();
    world.stack.start_scheduler().await;
    world.same_deadline(crashed).await;
    world.end().await;
}

#[tokio::test]
async fn the_targets_agent_crashes_during_the_start() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let ready = stack.path("ready");
    let command = program.command(&[]);
    let _source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    // It says nothing itself, so that the test decides when it is ready.
    let silent = ["env", "-u", "NOTIFY_SOCKET"].into_iter().map(str::to_owned).chain(command);
    let check = format!("test -e {}", ready.display());
    let target = stack.agent("b", "b-0").standby().with(&["--ready-command", &check]).running(silent);
    let mut target_agent = target.start();
    stack.instance_is("b-0", instance::State::Held).await;

    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    program.reaches("start", 2).await;
    stack.reaches(&name, State::Starting, SOON).await;
    target_agent.kill_9().await;
    let _again = target.start();
    stack.instance_is("b-0", instance::State::Starting).await;
    touch(&ready);
    let operation = eventually("the operation to end", AWAY, || async {
        let now = stack.operation(&name).await;
        if now.done { Ok(now) } else { Err(format!("{:?}: {}", now.state(), now.message)) }
    })
    .await;
    program.never_twice();
    let living: Vec<_> = program.of("start").into_iter().filter(|entry| alive(entry.pid)).collect();
    assert_eq!(living.len(), 1, "{operation:#?}");
    let expected = match operation.state() {
        State::Succeeded => "b-0",
        State::RolledBack => "a-0",
        other => panic!("{other:?}: {operation:#?}"),
    };
    assert_eq!(living[0].instance, expected);
}

async fn the_network_between_them_fails(mode: Mode) {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let proxy = stack.proxy().await;
    let release = stack.path("release");
    let command = program.command(&["--until", release.to_str().unwrap()]);
    let source = stack.agent("a", "a-0").through(&proxy).running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    program.reaches("term", 1).await;

    proxy.set_mode(mode);
    touch(&release);
    program.reaches("end", 1).await;
    // It has ended, its agent knows, and the scheduler misses a report.
    source.wait_for_line("shutdown over", SOON).await;
    eventually("a report to be missed", SOON, || async {
        let seen = stack.try_instance("a-0").await?.last_seen_time.map(wall).ok_or("it was never seen")?;
        let silence = wall_now().duration_since(seen).unwrap_or_default();
        if silence > MISSED { Ok(()) } else { Err(format!("silent for {silence:?}")) }
    })
    .await;
    assert_eq!(stack.operation(&name).await.state(), State::Stopping);
    assert_eq!(program.of("start").len(), 1, "started elsewhere without proof");
    proxy.set_mode(Mode::Pass);
    stack.reaches(&name, State::Succeeded, AWAY).await;
    program.told(1);
    program.never_twice();
}

#[tokio::test]
async fn the_network_is_cut() {
    the_network_between_them_fails(Mode::Cut).await;
}

#[tokio::test]
async fn the_network_stands_still() {
    the_network_between_them_fails(Mode::Hold).await;
}

#[tokio::test]
async fn the_network_swallows_everything() {
    the_network_between_them_fails(Mode::BlackHole).await;
}

#[tokio::test]
async fn the_application_crashes_while_the_operation_prepares() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let proxy = stack.proxy().await;
    let crash = stack.path("crash");
    let command = program.command(&["--crash", crash.to_str().unwrap()]);
    let source = stack.agent("a", "a-0").through(&proxy).running(command.clone());
    let mut source_agent = source.start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;

    proxy.set_mode(Mode::Hold);
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    stack.reaches(&name, State::Preparing, SOON).await;
    let first = program.of("start").remove(0);
    touch(&crash);
    eventually("the application to be gone", SOON, || async { !alive(first.pid) }).await;
    std::fs::remove_file(&crash).unwrap();
    proxy.set_mode(Mode::Pass);
    // An application that ends by itself ends its agent alike, unless the operation has come to it before.
    let again = tokio::select! {
        code = source_agent.ends() => {
            assert_eq!(code, Some(9));
            Some(source.start())
        }
        () = eventually("the operation to end", AWAY, || async { stack.operation(&name).await.done }) => None,
    };
    let operation = eventually("the operation to rest", AWAY, || async {
        let now = stack.operation(&name).await;
        let rests = now.done || now.state() == State::Degraded;
        if rests { Ok(now) } else { Err(format!("{:?}: {}", now.state(), now.message)) }
    })
    .await;
    drop(again);
    program.never_twice();
    match operation.state() {
        // Stopped by the operation after it came back, or found not running with proof; then it runs on b.
        State::Succeeded => assert_eq!(program.of("start").pop().unwrap().instance, "b-0"),
        State::Degraded => assert!(!operation.advice.is_empty(), "{operation:#?}"),
        other => panic!("{other:?}: {operation:#?}"),
    }
}
