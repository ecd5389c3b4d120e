//! Stopping: a normal stop, bad requests, repetition, taking over, kill, deadline, cancel, settle.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quiesce_agent::hook::{Drain, Records};
use quiesce_agent::serve::Access;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, Evidence, ShutdownPhase, ShutdownRequest};
use tokio::sync::Semaphore;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::scripted::{Manner, Scripted, Told};
use crate::world::{INSTANCE, TOKEN, World, millis, outcome, reason, request, seconds};

fn failed(reason: &str) -> (Code, String) {
    (Code::FailedPrecondition, reason.to_owned())
}

// S01 S07 S11 S12 S13
#[tokio::test]
async fn a_stop_ends_with_a_result_when_nothing_is_left() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let last = world.stop(request("s1")).await;
    let result = last.result.clone().unwrap();
    assert_eq!((outcome(&last), last.phase()), (Outcome::Stopped, ShutdownPhase::Stopped));
    assert_eq!((result.evidence(), result.exit_code, result.clean), (Evidence::GroupEmpty, Some(0), Some(true)));
    assert!(result.held && !app.is_alive());
    assert_eq!((last.shutdown_id.as_str(), last.completion_token.as_str()), ("s1", TOKEN));
}

// H16
#[tokio::test]
async fn the_hold_comes_before_the_order_to_stop() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    world.stop(request("s1")).await;
    assert_eq!(app.told(), [Told::Hold("operations/op-1".to_owned()), Told::Stop("s1".to_owned())]);
}

// S02 S03
#[tokio::test]
async fn the_first_report_comes_at_once_and_no_result_before_the_end() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    // Reports are snapshots: a reader that comes a moment later finds the next phase already.
    let first = reports.next().await.unwrap().unwrap();
    assert!(first.phase() <= ShutdownPhase::Stopping && first.result.is_none());
    assert!(app.is_alive());
    app.exit(7);
    let last = reports.last().await;
    let result = last.result.unwrap();
    assert_eq!((result.outcome(), result.exit_code, result.clean), (Outcome::Stopped, Some(7), Some(false)));
}

#[tokio::test]
async fn what_it_said_before_is_not_repeated_and_what_it_says_now_is_passed_on() {
    let app = Scripted::running(Manner::Waits);
    app.say("ready to accept connections");
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let first = reports.until_phase(ShutdownPhase::Stopping).await;
    assert!(first.message.starts_with("told to stop"), "{}", first.message);
    app.say("saving");
    assert_eq!(reports.next().await.unwrap().unwrap().message, "saving");
    app.exit(0);
    reports.last().await;
}

// R06 A04
#[tokio::test]
async fn who_joins_hears_a_report_that_nobody_has_read_before() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let seen = reports.until_phase(ShutdownPhase::Stopping).await;
    drop(reports);
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let joined = reports.next().await.unwrap().unwrap();
    assert!(joined.sequence > seen.sequence, "{} behind {}", joined.sequence, seen.sequence);
    assert_eq!(joined.message, seen.message);
    app.exit(0);
    let last = reports.last().await;
    // The final report keeps its sequence when it is sent again (H4).
    assert_eq!(world.stop(request("s1")).await.sequence, last.sequence);
}

// S05
#[tokio::test]
async fn heartbeats_come_when_nothing_is_new() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let heartbeat_interval = millis(100);
    let mut reports = world.shutdown(ShutdownRequest { heartbeat_interval, ..request("s1") }).await.unwrap();
    let first = reports.until_phase(ShutdownPhase::Stopping).await;
    for _ in 0..3 {
        assert_eq!(reports.next().await.unwrap().unwrap().message, first.message);
    }
    app.exit(0);
    reports.last().await;
}

#[tokio::test]
async fn what_the_application_says_is_reported() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    app.say("Waiting to flush the buffer pool");
    reports.until(|status| status.message.contains("buffer pool")).await;
    app.exit(0);
    reports.last().await;
}

#[tokio::test]
async fn a_wish_for_more_time_is_a_total_from_acceptance() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(ShutdownRequest { grace_period: seconds(10), ..request("s1") }).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    app.wish(Duration::from_secs(5));
    app.wish(Duration::from_secs(30));
    let status = reports.until(|status| status.wanted_grace_period.is_some()).await;
    let wanted = status.wanted_grace_period.unwrap().seconds;
    assert!((30..60).contains(&wanted), "{wanted}");
    app.exit(0);
    reports.last().await;
}

// S15
#[tokio::test]
async fn an_application_that_does_not_run_is_held_and_reported_as_such() {
    let app = Scripted::stopped();
    let world = World::new(app.clone()).await;
    let last = world.stop(request("s1")).await;
    assert_eq!((outcome(&last), last.phase()), (Outcome::NotRunning, ShutdownPhase::Stopped));
    assert!(last.result.unwrap().held);
    assert_eq!(app.stops(), 0);
}

// S16
#[tokio::test]
async fn an_id_alone_is_enough() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let request = ShutdownRequest { shutdown_id: "try-1".to_owned(), ..Default::default() };
    let mut stream = world.client.clone().shutdown(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(response) = stream.message().await.unwrap() {
        last = response.status;
    }
    assert_eq!(outcome(&last.unwrap()), Outcome::Stopped);
}

// S18
#[tokio::test]
async fn an_application_that_dies_by_itself_meanwhile_has_stopped() {
    let app = Scripted::running(Manner::Waits);
    let (drain, gate) = drain_until();
    let world = World::open(app.clone(), Records::volatile(), Some(drain), Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Draining).await;
    app.exit(1);
    let last = reports.last().await;
    assert_eq!((outcome(&last), app.stops()), (Outcome::Stopped, 0));
    drop(gate);
}

// S19
#[tokio::test]
async fn large_parameters_are_taken() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let parameters = (0..64).map(|n| (format!("key-{n}"), "v".repeat(1024))).collect();
    let reason = "r".repeat(4096);
    let last = world.stop(ShutdownRequest { parameters, reason, ..request("s1") }).await;
    assert_eq!(outcome(&last), Outcome::Stopped);
}

// B01 B02 B04
#[tokio::test]
async fn bad_requests_name_every_field_and_touch_nothing() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    for id in ["", "a b", &"x".repeat(129)] {
        let bad = ShutdownRequest { operation: "nonsense".to_owned(), ..request(id) };
        let status = world.refusal(bad).await;
        assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 2);
    }
    assert_eq!(app.told(), []);
}

// B03 H13
#[tokio::test]
async fn another_instance_is_refused() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let instance = "applications/shop/instances/shop-1".to_owned();
    let status = world.refusal(ShutdownRequest { instance, ..request("s1") }).await;
    assert_eq!(reason(&status), failed("WRONG_INSTANCE"));
    assert_eq!(app.told(), []);
}

// B05
#[tokio::test]
async fn an_application_that_cannot_be_told_still_runs() {
    let app = Scripted::running(Manner::Deaf);
    let world = World::new(app.clone()).await;
    let last = world.stop(request("s1")).await;
    assert_eq!((outcome(&last), last.phase()), (Outcome::StillRunning, ShutdownPhase::Failed));
    assert!(app.is_alive());
}

// H15
#[tokio::test]
async fn an_older_epoch_is_refused_and_none_is_not_checked() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    world.stop(request("s1")).await;
    world.client.clone().start_application(start(5)).await.unwrap();
    app.become_ready();
    let status = world.refusal(ShutdownRequest { epoch: 4, ..request("s2") }).await;
    assert_eq!(reason(&status), failed("EPOCH_STALE"));
    assert_eq!(outcome(&world.stop(ShutdownRequest { epoch: 0, ..request("s3") }).await), Outcome::Stopped);
}

fn start(epoch: i64) -> v1::StartApplicationRequest {
    v1::StartApplicationRequest { epoch, instance: INSTANCE.to_owned(), ..Default::default() }
}

// R01 R11
#[tokio::test]
async fn a_repeated_call_gets_the_very_same_final_report() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let first = world.stop(request("s1")).await;
    assert_eq!(world.stop(request("s1")).await, first);
    assert_eq!(app.stops(), 1);
}

// R02
#[tokio::test]
async fn ten_callers_at_once_share_one_shutdown() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(world.shutdown(request("s1")).await.unwrap());
    }
    app.is_told(1).await;
    app.exit(0);
    let results = join_all(calls.into_iter().map(|reports| reports.last())).await;
    assert!(results.iter().all(|result| *result == results[0]));
    assert_eq!(app.stops(), 1);
}

// R03
#[tokio::test]
async fn of_a_repeated_request_only_the_id_counts() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let first = world.stop(request("s1")).await;
    let other = ShutdownRequest {
        shutdown_id: "s1".to_owned(),
        instance: "garbage".to_owned(),
        epoch: -3,
        completion_token: "other".to_owned(),
        ..Default::default()
    };
    assert_eq!(world.stop(other).await, first);
}

// R04 R06 H9
#[tokio::test]
async fn a_caller_that_goes_away_changes_nothing() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    let seen = reports.until_phase(ShutdownPhase::Stopping).await.sequence;
    drop(reports);
    let mut again = world.connect().await.shutdown(request("s1")).await.unwrap().into_inner();
    let joined = again.message().await.unwrap().unwrap().status.unwrap();
    assert!(joined.sequence >= seen && joined.phase() == ShutdownPhase::Stopping);
    app.is_told(1).await;
    app.exit(0);
    assert_eq!(outcome(&world.stop(request("s1")).await), Outcome::Stopped);
    assert_eq!(app.stops(), 1);
}

// R05
#[tokio::test]
async fn a_deadline_of_the_caller_is_not_the_applications() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut call = tonic::Request::new(request("s1"));
    call.set_timeout(Duration::from_millis(300));
    let mut client = world.client.clone();
    let called = async {
        let mut stream = client.shutdown(call).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    // Whether this library ends a stream at its deadline or the caller has to: it ends early.
    let _early = tokio::time::timeout(Duration::from_millis(300), called).await;
    app.exit(0);
    assert_eq!(outcome(&world.stop(request("s1")).await), Outcome::Stopped);
}

// R08 R10
#[tokio::test]
async fn one_shutdown_at_a_time() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(ShutdownRequest { attempt: 2, ..request("s1") }).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    let other = ShutdownRequest { operation: "operations/op-2".to_owned(), attempt: 9, ..request("s2") };
    let aborted = (Code::Aborted, "SHUTDOWN_IN_PROGRESS".to_owned());
    assert_eq!(reason(&world.refusal(other).await), aborted);
    for attempt in [1, 2] {
        let status = world.refusal(ShutdownRequest { attempt, ..request("s3") }).await;
        assert_eq!(reason(&status), aborted);
        assert!(status.get_details_retry_info().is_some());
    }
    app.exit(0);
    assert_eq!(outcome(&reports.last().await), Outcome::Stopped);
}

// R09
#[tokio::test]
async fn a_later_attempt_takes_over() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut older = world.shutdown(request("s1")).await.unwrap();
    older.until_phase(ShutdownPhase::Stopping).await;
    app.is_told(1).await;
    let mut newer = world.shutdown(ShutdownRequest { attempt: 2, ..request("s2") }).await.unwrap();
    assert_eq!(reason(&older.error().await), (Code::Aborted, "SHUTDOWN_SUPERSEDED".to_owned()));
    newer.until_phase(ShutdownPhase::Stopping).await;
    app.is_told(2).await;
    app.exit(0);
    assert_eq!(newer.last().await.shutdown_id, "s2");
    assert_eq!(app.stops(), 2);
}

/// Found by seed 204 of the simulation: the shutdown of an abandoned operation, whose application would not stop, kept
/// every later operation from stopping or killing it.
#[tokio::test]
async fn a_later_operation_takes_over() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut older = world.shutdown(ShutdownRequest { attempt: 7, epoch: 4, ..request("s1") }).await.unwrap();
    app.is_told(1).await;
    let next = |epoch| {
        let operation = "operations/op-2".to_owned();
        ShutdownRequest { operation, attempt: 1, epoch, ..request("s2") }
    };
    for epoch in [0, 3, 4] {
        assert_eq!(reason(&world.refusal(next(epoch)).await), (Code::Aborted, "SHUTDOWN_IN_PROGRESS".to_owned()));
    }
    let mut newer = world.shutdown(next(5)).await.unwrap();
    assert_eq!(reason(&older.error().await), (Code::Aborted, "SHUTDOWN_SUPERSEDED".to_owned()));
    newer.until_phase(ShutdownPhase::Stopping).await;
    app.is_told(2).await;
    let late = ShutdownRequest { attempt: 8, epoch: 4, ..request("s3") };
    assert_eq!(
        reason(&world.refusal(late).await),
        (Code::Aborted, "SHUTDOWN_IN_PROGRESS".to_owned()),
        "not back again"
    );
    app.exit(0);
    assert_eq!(newer.last().await.shutdown_id, "s2");
}

// R12 L01
#[tokio::test]
async fn many_cycles_of_stop_and_start() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    for cycle in 0..20_i64 {
        let id = format!("s{cycle}");
        let last = world.stop(ShutdownRequest { epoch: cycle + 1, ..request(&id) }).await;
        assert_eq!((last.shutdown_id, app.stops()), (id, cycle as usize + 1));
        world.client.clone().start_application(start(cycle + 2)).await.unwrap();
        app.become_ready();
    }
}

// K01 K02 H12
#[tokio::test]
async fn a_hook_never_kills_by_itself() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let (grace_period, heartbeat_interval) = (millis(1), millis(100));
    let overdue = ShutdownRequest { grace_period, heartbeat_interval, ..request("s1") };
    let mut reports = world.shutdown(overdue).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    for _ in 0..5 {
        assert_eq!(reports.next().await.unwrap().unwrap().phase(), ShutdownPhase::Stopping);
    }
    assert!(app.is_alive() && !app.told().contains(&Told::Kill));
}

fn kill(shutdown_id: &str, token: &str) -> v1::KillApplicationRequest {
    let (shutdown_id, completion_token) = (shutdown_id.to_owned(), token.to_owned());
    v1::KillApplicationRequest { shutdown_id, completion_token, reason: "test".to_owned() }
}

// K03 K04 K05 K06
#[tokio::test]
async fn killing_takes_the_token_of_this_shutdown() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut client = world.client.clone();
    let unknown = client.kill_application(kill("s1", TOKEN)).await.unwrap_err();
    assert_eq!(reason(&unknown), (Code::NotFound, "SHUTDOWN_NOT_FOUND".to_owned()));
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    for wrong in ["", "qct1.other"] {
        let status = client.kill_application(kill("s1", wrong)).await.unwrap_err();
        assert_eq!(reason(&status), (Code::PermissionDenied, "COMPLETION_TOKEN_INVALID".to_owned()));
    }
    assert!(app.is_alive());
    client.kill_application(kill("s1", TOKEN)).await.unwrap();
    let last = reports.last().await;
    assert_eq!((outcome(&last), last.phase()), (Outcome::Killed, ShutdownPhase::Stopped));
    client.kill_application(kill("s1", TOKEN)).await.unwrap();
    assert_eq!(app.told().iter().filter(|told| **told == Told::Kill).count(), 1);
}

#[tokio::test]
async fn a_kill_while_draining_holds_first_and_does_not_ask() {
    let app = Scripted::running(Manner::Waits);
    let (drain, gate) = drain_until();
    let world = World::open(app.clone(), Records::volatile(), Some(drain), Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Draining).await;
    world.client.clone().kill_application(kill("s1", TOKEN)).await.unwrap();
    assert_eq!(outcome(&reports.last().await), Outcome::Killed);
    assert_eq!(app.told(), [Told::Hold("operations/op-1".to_owned()), Told::Kill]);
    drop(gate);
}

// D01 D02
#[tokio::test]
async fn the_deadline_of_a_known_shutdown_can_be_moved() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let update = |id: &str| v1::UpdateDeadlineRequest {
        shutdown_id: id.to_owned(),
        grace_period: seconds(90),
        granted: true,
        ..Default::default()
    };
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    let mut client = world.client.clone();
    client.update_deadline(update("s1")).await.unwrap();
    let status = client.update_deadline(update("s9")).await.unwrap_err();
    assert_eq!(reason(&status), (Code::NotFound, "SHUTDOWN_NOT_FOUND".to_owned()));
    app.exit(0);
    reports.last().await;
}

/// A drain that lasts until a permit is there.
fn drain_until() -> (Drain, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let drain: Drain = Arc::new(move |_| {
        let waits = Arc::clone(&waits);
        Box::pin(async move {
            waits.acquire().await.unwrap().forget();
            Ok(())
        })
    });
    (drain, gate)
}

fn cancel(shutdown_id: &str) -> v1::CancelShutdownRequest {
    v1::CancelShutdownRequest { shutdown_id: shutdown_id.to_owned(), reason: "test".to_owned() }
}

// C01 C03
#[tokio::test]
async fn a_shutdown_that_drains_can_be_taken_back() {
    let app = Scripted::running(Manner::Quick);
    let (drain, gate) = drain_until();
    let world = World::open(app.clone(), Records::volatile(), Some(drain), Access::connected()).await;
    let mut client = world.client.clone();
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Draining).await;
    let first = client.cancel_shutdown(cancel("s1")).await.unwrap().into_inner().status.unwrap();
    assert_eq!((outcome(&first), first.phase()), (Outcome::Cancelled, ShutdownPhase::Cancelled));
    assert_eq!(reports.last().await, first);
    assert_eq!(client.cancel_shutdown(cancel("s1")).await.unwrap().into_inner().status.unwrap(), first);
    assert!(app.is_alive() && app.told().is_empty());
    gate.add_permits(1);
    assert_eq!(outcome(&world.stop(request("s2")).await), Outcome::Stopped);
}

// C02
#[tokio::test]
async fn past_the_point_of_no_return_nothing_is_taken_back() {
    let app = Scripted::running(Manner::Waits);
    let (drain, gate) = drain_until();
    gate.add_permits(1);
    let world = World::open(app.clone(), Records::volatile(), Some(drain), Access::connected()).await;
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    let status = world.client.clone().cancel_shutdown(cancel("s1")).await.unwrap_err();
    assert_eq!(reason(&status), failed("POINT_OF_NO_RETURN"));
    app.exit(0);
    reports.last().await;
}

#[tokio::test]
async fn a_drain_that_fails_keeps_the_application_running() {
    let app = Scripted::running(Manner::Quick);
    let drain: Drain = Arc::new(|_| Box::pin(async { Err("replica lag".to_owned()) }));
    let world = World::open(app.clone(), Records::volatile(), Some(drain), Access::connected()).await;
    let last = world.stop(request("s1")).await;
    assert_eq!(outcome(&last), Outcome::StillRunning);
    assert!(last.message.contains("replica lag") && app.told().is_empty());
}

// Q01
#[tokio::test]
async fn checking_changes_nothing() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    for _ in 0..20 {
        let request = v1::CheckShutdownRequest { instance: INSTANCE.to_owned(), ..Default::default() };
        assert!(world.client.clone().check_shutdown(request).await.unwrap().into_inner().ok);
    }
    assert!(app.is_alive() && app.told().is_empty());
}

// G01 G02 G03
#[tokio::test]
async fn the_latest_report_can_be_asked_for() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let get = async |id: &str| {
        let request = v1::GetShutdownRequest { shutdown_id: id.to_owned() };
        world.client.clone().get_shutdown(request).await.map(|response| response.into_inner().status.unwrap())
    };
    assert_eq!(get("").await.unwrap_err().code(), Code::NotFound);
    let mut reports = world.shutdown(request("s1")).await.unwrap();
    reports.until_phase(ShutdownPhase::Stopping).await;
    let status = get("s1").await.unwrap();
    assert!(status.result.is_none() && status.completion_token.is_empty());
    assert_eq!(get("s9").await.unwrap_err().code(), Code::NotFound);
    app.exit(0);
    let last = reports.last().await;
    assert_eq!(get("s1").await.unwrap(), last);
    assert_eq!(get("").await.unwrap(), last);
}

// T01 T02
#[tokio::test]
async fn settling_notices_an_application_that_comes_back() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let mut reports = world.shutdown(ShutdownRequest { settle_period: seconds(600), ..request("s1") }).await.unwrap();
    reports.until(|status| status.message.contains("starts it again")).await;
    app.respawn();
    let last = reports.last().await;
    assert_eq!((outcome(&last), last.phase()), (Outcome::Restarted, ShutdownPhase::Failed));
}

#[tokio::test]
async fn settling_ends_with_stopped_when_nothing_happens() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let last = world.stop(ShutdownRequest { settle_period: millis(200), ..request("s1") }).await;
    assert_eq!(outcome(&last), Outcome::Stopped);
}
