//! The live view, the verdict and the log of a scripted migration, as an 80-column terminal shows them.

use std::time::{Duration, Instant};

use prost_types::Timestamp;
use quiesce_protocol::v1::{
    AgentsPlacement, Evidence, Failure, InstanceShutdown, InstanceStart, Operation, OperationEvent, OperationKind,
    Placement, ShutdownPhase, ShutdownStatus, StartPhase, StartStatus, StopResult, failure, operation, operation_event,
    placement, stop_result,
};

use super::{Model, log, verdict, view};
use crate::output::text::Line;

const SIZE: (usize, usize) = (80, 24);

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

fn operation(state: operation::State) -> Operation {
    Operation {
        name: "operations/op-7f3k".to_owned(),
        application: "applications/db".to_owned(),
        kind: OperationKind::Migrate.into(),
        state: state.into(),
        source_cluster: "a".to_owned(),
        target_cluster: "b".to_owned(),
        placement: Some(Placement { driver: Some(placement::Driver::Agents(AgentsPlacement {})) }),
        create_time: at(0),
        ..Operation::default()
    }
}

fn shutdown(instance: &str, phase: ShutdownPhase, message: &str) -> InstanceShutdown {
    let status = ShutdownStatus { phase: phase.into(), message: message.to_owned(), ..ShutdownStatus::default() };
    InstanceShutdown {
        instance: format!("applications/db/instances/{instance}"),
        status: Some(status),
        attempt: 1,
        deadline_time: at(60),
        ..InstanceShutdown::default()
    }
}

fn ended(instance: &str) -> InstanceShutdown {
    let mut shutdown = shutdown(instance, ShutdownPhase::Stopped, "");
    shutdown.verified = true;
    shutdown.status.as_mut().unwrap().result = Some(StopResult {
        outcome: stop_result::Outcome::Stopped.into(),
        evidence: Evidence::GroupEmpty.into(),
        exit_code: Some(0),
        clean: Some(true),
        duration: Some(prost_types::Duration { seconds: 3, nanos: 400_000_000 }),
        held: true,
        ..StopResult::default()
    });
    shutdown
}

fn event(kind: operation_event::Type, seconds: i64, operation: Operation) -> OperationEvent {
    OperationEvent {
        r#type: kind.into(),
        event_time: at(seconds),
        resume_token: format!("t{seconds}"),
        operation: Some(operation),
        ..OperationEvent::default()
    }
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain().trim_end().to_owned() + "\n").collect()
}

/// A migration of two instances, twelve seconds in.
fn stopping(heard: Instant) -> Model {
    let mut snapshot = operation(operation::State::Stopping);
    let mut busy = shutdown("db-0", ShutdownPhase::Stopping, "Waiting to flush the buffer pool, then to write the log");
    busy.status.as_mut().unwrap().percent = Some(45);
    snapshot.instances = vec![busy, shutdown("db-1", ShutdownPhase::Accepted, "")];
    let mut model = Model::default();
    model.apply(&event(operation_event::Type::Snapshot, 10, snapshot), heard);
    let mut stopped = event(operation_event::Type::InstanceStopped, 12, operation(operation::State::Stopping));
    stopped.instance = Some(ended("db-1"));
    model.apply(&stopped, heard + Duration::from_secs(2));
    model
}

#[test]
fn the_view_shows_each_instance_and_counts_down_between_events() {
    let heard = Instant::now();
    let model = stopping(heard);
    assert_eq!(
        text(&view::render(&model, heard + Duration::from_secs(5), SIZE)),
        "\
migrate db  a -> b  STOPPING  15s  op-7f3k
waiting for 1 of 2 instances to end

INSTANCE  PHASE     EVIDENCE     LEFT  TRY  SAYS
db-0      STOPPING  -            45s   1    45% Waiting to flush the buffer poo\u{2026}
db-1      STOPPED   GROUP_EMPTY  -     1    exit 0, after 3.4s
"
    );
}

#[test]
fn the_view_stays_within_the_terminal() {
    let heard = Instant::now();
    let mut model = stopping(heard);
    let many = (0..40).map(|n| shutdown(&format!("db-{n}"), ShutdownPhase::Stopping, "\x1b[31m\u{6f22}\u{5b57} busy"));
    model.operation.instances = many.collect();
    let lines = view::render(&model, heard, (40, 10));
    assert_eq!(lines.len(), 9);
    assert!(lines.iter().all(|line| unicode_width::UnicodeWidthStr::width(line.plain().as_str()) <= 40));
    assert_eq!(lines[8].plain(), "... and 36 more lines");
    assert!(!text(&lines).contains('\x1b'));
}

#[test]
fn the_target_shows_once_it_starts() {
    let heard = Instant::now();
    let mut model = stopping(heard);
    model.operation.instances = vec![ended("db-0")];
    let mut starting = event(operation_event::Type::InstanceStarting, 14, operation(operation::State::Starting));
    starting.start = Some(InstanceStart {
        instance: "applications/db/instances/db-b".to_owned(),
        epoch: 8,
        status: Some(StartStatus {
            phase: StartPhase::Starting.into(),
            message: "Recovering".to_owned(),
            ..StartStatus::default()
        }),
        deadline_time: at(134),
        ..InstanceStart::default()
    });
    model.apply(&starting, heard + Duration::from_secs(4));
    assert_eq!(
        text(&view::render(&model, heard + Duration::from_secs(4), SIZE)),
        "\
migrate db  a -> b  STARTING  14s  op-7f3k
waiting for 1 of 1 instances to become ready on b

INSTANCE  PHASE    EVIDENCE     LEFT  TRY  SAYS
db-0      STOPPED  GROUP_EMPTY  -     1    exit 0, after 3.4s

START  PHASE     READINESS  LEFT   EPOCH  SAYS
db-b   STARTING  -          2m00s  8      Recovering
"
    );
}

#[test]
fn an_event_that_was_held_up_does_not_turn_the_clock_back() {
    let heard = Instant::now();
    let mut model = stopping(heard);
    let late = event(operation_event::Type::Progress, 11, operation(operation::State::Stopping));
    model.apply(&late, heard + Duration::from_secs(6));
    let lines = view::render(&model, heard + Duration::from_secs(6), SIZE);
    assert!(lines[0].plain().contains(" 16s "), "{}", lines[0].plain());
}

#[test]
fn a_degraded_operation_ends_with_the_reason_and_the_next_command() {
    let mut degraded = operation(operation::State::Degraded);
    degraded.failure = Some(Failure {
        reason: failure::Reason::GraceTimeout.into(),
        message: "still running after 60s".to_owned(),
        instance: "applications/db/instances/db-0".to_owned(),
        ..Failure::default()
    });
    assert_eq!(
        text(&verdict::verdict(&degraded)),
        "\
DEGRADED: GRACE_TIMEOUT db-0: still running after 60s
  next: quiesce retry op-7f3k            (try again)
  next: quiesce retry op-7f3k --force    (kill it; may lose data)
  next: quiesce cancel op-7f3k           (take it back)
"
    );
    degraded.advice = "look at db-0, then: quiesce retry op-7f3k".to_owned();
    let advised = text(&verdict::verdict(&degraded));
    assert!(advised.ends_with("still running after 60s\n  next: look at db-0, then: quiesce retry op-7f3k\n"));
    assert!(!verdict::is_success(&degraded) && verdict::is_settled(&degraded));
}

#[test]
fn success_says_where_it_runs_and_how_long_that_took() {
    let mut done = operation(operation::State::Succeeded);
    (done.done, done.end_time, done.epoch) = (true, at(15), 8);
    assert_eq!(text(&verdict::verdict(&done)), "done: db runs on b, epoch 8 (15s)\n");
    done.placement = None;
    assert!(text(&verdict::verdict(&done)).contains("it is safe to start it on b"));
}

#[test]
fn an_unclean_end_is_said_even_on_success() {
    let mut done = operation(operation::State::Succeeded);
    let mut killed = ended("db-0");
    killed.status.as_mut().unwrap().result.as_mut().unwrap().clean = Some(false);
    done.instances = vec![killed];
    assert!(text(&verdict::verdict(&done)).contains("db-0 did not end cleanly"));
}

#[test]
fn the_log_has_one_greppable_line_for_each_event() {
    let snapshot = event(operation_event::Type::Snapshot, 10, operation(operation::State::Stopping));
    let mut stopped = event(operation_event::Type::InstanceStopped, 12, operation(operation::State::Stopping));
    stopped.instance = Some(ended("db-1"));
    let mut progress = event(operation_event::Type::Progress, 12, operation(operation::State::Stopping));
    progress.instance = Some(shutdown("db-0", ShutdownPhase::Stopping, "two\nlines"));
    progress.message = "two lines".to_owned();
    let mut changed = event(operation_event::Type::StateChanged, 13, operation(operation::State::Stopped));
    changed.previous_state = operation::State::Stopping.into();
    changed.message = "every instance has stopped".to_owned();
    let bookmark = OperationEvent { r#type: operation_event::Type::Bookmark.into(), ..OperationEvent::default() };
    let lines: Vec<Line> = [snapshot, progress, stopped, changed, bookmark].iter().filter_map(log::line).collect();
    assert_eq!(
        text(&lines),
        "\
2023-11-14T22:13:30Z op-7f3k SNAPSHOT STOPPING migrate db a -> b
2023-11-14T22:13:32Z op-7f3k PROGRESS db-0 STOPPING attempt=1 left=48s two lines
2023-11-14T22:13:32Z op-7f3k INSTANCE_STOPPED db-1 STOPPED attempt=1 evidence=GROUP_EMPTY exit 0, after 3.4s
2023-11-14T22:13:33Z op-7f3k STATE_CHANGED STOPPING -> STOPPED every instance has stopped
"
    );
}

#[test]
fn a_failure_names_its_instance_once() {
    let failure = Failure {
        reason: failure::Reason::HookUnreachable.into(),
        instance: "applications/db/instances/a-1".to_owned(),
        message: "a-1: its hook could not be reached for 10s".to_owned(),
        ..Failure::default()
    };
    assert_eq!(view::describe_failure(&failure), "HOOK_UNREACHABLE a-1: its hook could not be reached for 10s");
}
