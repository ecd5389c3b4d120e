//! Taking it back: before, during, after.

use super::*;

#[test]
fn before_anything_was_told_to_stop_it_is_cancelled() {
    let mut world = World::migration(Policy::built_in());
    world.feed(Input::Begin);
    let step = world.operation.cancel(world.now, &caller()).unwrap();
    world.take(step);
    assert_eq!(world.state(), StateName::Cancelled);
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Shutdown { .. })));
}

#[test]
fn while_an_instance_is_being_stopped_it_is_too_late() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let refusal = world.operation.cancel(world.now, &caller()).unwrap_err();
    assert!(matches!(refusal, crate::Refusal::PointOfNoReturn { .. }));
}

#[test]
fn a_target_that_does_not_come_up_brings_the_source_back_under_a_higher_epoch() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.drain();
    world.starts("b-0", false);
    assert_eq!(world.state(), StateName::RollingBack);
    let attempt = world.fence("b-0");
    assert_eq!(world.drain(), [Effect::Shutdown { instance: id("b-0"), attempt, anew: true }], "the target first");
    world.ends("b-0", 1, StopOutcome::NotRunning);
    assert_eq!(world.drain(), [Effect::Start { instance: id("a-0"), epoch: 10, rollback: true }]);
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

#[test]
fn the_source_stays_down_while_the_end_of_the_target_is_not_proven() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.drain();
    world.starts("b-0", false);
    world.drain();
    world.pass(secs(60));
    assert_eq!(world.state(), StateName::Degraded);
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Start { .. })));
}

#[test]
fn while_draining_it_is_taken_back_if_the_hook_says_so() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.says("a-0", report(1, StopPhase::Draining));
    world.drain();
    world.cancel();
    assert_eq!(world.drain(), [Effect::CancelShutdown { instance: id("a-0"), attempt: 1 }]);
    world.answer_cancel("a-0", Ok(()));
    assert_eq!(world.state(), StateName::Cancelled);
    world.cancel();
    assert_eq!(world.state(), StateName::Cancelled, "repeating it is fine");
}

#[test]
fn the_report_that_it_was_taken_back_is_as_good_as_the_answer() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.says("a-0", report(1, StopPhase::Draining));
    world.cancel();
    world.ends("a-0", 2, StopOutcome::Cancelled);
    assert_eq!(world.state(), StateName::Cancelled);
}

#[test]
fn a_hook_that_has_told_the_application_makes_it_too_late() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.says("a-0", report(1, StopPhase::Draining));
    world.cancel();
    world.drain();
    world.answer_cancel("a-0", Err(error(CallErrorClass::PointOfNoReturn)));
    assert_eq!((world.state(), world.told()), (StateName::Stopping, vec!["a-0".to_owned()]));
    assert!(world.operation.point_of_no_return().is_some());
    world.ends("a-0", 2, StopOutcome::Stopped);
    world.answer_probes();
    assert_eq!(world.state(), StateName::Starting);
}

fn two() -> World {
    let mut world = World::new(request(Kind::Delete), Policy::built_in(), &[("a-0", 0), ("a-1", 0)], &[]);
    world.feed(Input::Begin);
    world.answer_probes();
    world
}

#[test]
fn every_hook_has_its_say_before_it_is_decided() {
    let mut world = two();
    world.says("a-0", report(1, StopPhase::Draining));
    world.says("a-1", report(1, StopPhase::Draining));
    world.cancel();
    world.answer_cancel("a-0", Err(error(CallErrorClass::PointOfNoReturn)));
    assert_eq!(world.state(), StateName::Cancelling);
    world.drain();
    world.answer_cancel("a-1", Ok(()));
    assert_eq!(world.state(), StateName::Stopping);
    let called = world.drain();
    assert!(called.contains(&Effect::Shutdown { instance: id("a-0"), attempt: 1, anew: false }), "joined");
    assert!(called.contains(&Effect::Shutdown { instance: id("a-1"), attempt: 2, anew: true }), "under a new fence");
}

#[test]
fn a_hook_that_refused_outright_does_not_keep_the_others_from_being_taken_back() {
    let mut world = two();
    world.call_ends("a-0", error(CallErrorClass::Rejected));
    world.says("a-1", report(1, StopPhase::Draining));
    world.cancel();
    world.answer_cancel("a-1", Ok(()));
    assert_eq!(world.state(), StateName::Cancelled);
}

#[test]
fn while_it_is_taken_back_nobody_is_called_again() {
    let mut world = two();
    world.call_ends("a-0", lost());
    world.cancel();
    world.drain();
    world.pass(secs(9));
    assert!(world.told().is_empty());
}

#[test]
fn a_hook_that_has_not_heard_of_it_may_hear_of_it_yet() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.cancel();
    world.answer_cancel("a-0", Err(error(CallErrorClass::NotFound)));
    assert_eq!(world.state(), StateName::Cancelling);
    world.drain();
    world.says("a-0", report(1, StopPhase::Accepted));
    world.pass(secs(1));
    assert!(world.drain().contains(&Effect::CancelShutdown { instance: id("a-0"), attempt: 1 }), "asked again");
    world.answer_cancel("a-0", Ok(()));
    assert_eq!(world.state(), StateName::Cancelled);
}

#[test]
fn hooks_that_do_not_say_leave_it_to_a_person_and_count_as_told() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.cancel();
    world.answer_cancel("a-0", Err(lost()));
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::HookUnreachable));
    world.cancel();
    assert_eq!(world.state(), StateName::Abandoned, "nobody can say that nothing was told to stop");
}

#[test]
fn a_hook_without_cancel_makes_it_too_late_from_the_call_on() {
    let mut world = World::deletion(Policy::built_in());
    world.feed(Input::Begin);
    let capabilities = Capabilities { cancel: false, ..ALL };
    world.answer_probe("a-0", Ok(Probe { capabilities, ..probe(AppState::Running) }));
    assert!(!world.operation.is_cancellable());
}

#[test]
fn at_the_gate_it_goes_back_and_the_source_runs_again() {
    let mut request = request(Kind::Migrate);
    request.placement = Placement::External { require_confirmation: true };
    let mut world = World::new(request, Policy::built_in(), &[("a-0", 0)], &[]).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.cancel();
    assert_eq!((world.state(), world.ordered()), (StateName::RollingBack, vec!["a-0".to_owned()]));
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
    world.cancel();
}

#[test]
fn out_of_a_rest_it_starts_again_what_has_stopped() {
    let sources = &[("a-0", 0), ("a-1", 0)];
    let policy = once(FailureStrategy::GiveUp);
    let mut world = World::new(request(Kind::Delete), policy, sources, &[]).until_stopping();
    world.stops("a-0");
    world.ends("a-1", 1, StopOutcome::StillRunning);
    assert_eq!(world.state(), StateName::Degraded);
    world.cancel();
    assert_eq!(world.ordered(), ["a-0"]);
    world.says("a-1", report(1, StopPhase::Stopping));
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

#[test]
fn out_of_a_rest_on_the_way_back_it_is_closed() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.starts("b-0", false);
    world.pass(secs(10));
    assert_eq!(world.state(), StateName::Degraded);
    world.cancel();
    assert_eq!(world.state(), StateName::Abandoned);
}

#[test]
fn what_is_over_cannot_be_taken_back() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.conclude_all();
    let refusal = world.operation.cancel(world.now, &caller()).unwrap_err();
    assert!(matches!(refusal, crate::Refusal::Done { .. }));
}

#[test]
fn too_late_behind_the_overall_timeout_is_over_at_once() {
    let policy = Policy { overall_timeout: secs(8), ..Policy::built_in() };
    let mut world = World::new(request(Kind::Delete), policy, &[("a-0", 0), ("a-1", 0)], &[]).until_stopping();
    world.says("a-0", report(1, StopPhase::Draining));
    world.says("a-1", report(1, StopPhase::Draining));
    world.cancel();
    world.answer_cancel("a-0", Err(error(CallErrorClass::PointOfNoReturn)));
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::OverallTimeout));
}

#[test]
fn what_ends_on_the_way_back_is_started_again_with_the_others() {
    let sources = &[("a-0", 0), ("a-1", 0)];
    let policy = once(FailureStrategy::GiveUp);
    let mut world = World::new(request(Kind::Delete), policy, sources, &[]).until_stopping();
    world.stops("a-0");
    world.reports_for("a-1", 60);
    world.cancel();
    assert_eq!(world.ordered(), ["a-0"]);
    world.ends("a-1", 100, StopOutcome::Stopped);
    assert_eq!(world.ordered(), ["a-1"]);
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RollingBack);
    world.starts("a-1", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

/// Found by seed 62 of the simulation: a deletion stops the standbys too, and they were started as if they had run.
#[test]
fn a_deletion_that_is_taken_back_starts_no_standby_beside_what_runs() {
    let mut world = World::deletion_beside_a_standby(once(FailureStrategy::GiveUp)).until_stopping();
    world.ends("b-0", 1, StopOutcome::NotRunning);
    world.says("a-0", report(1, StopPhase::Stopping));
    world.call_ends("a-0", error(CallErrorClass::Rejected));
    assert_eq!(world.state(), StateName::Degraded);
    world.drain();
    world.cancel();
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Start { .. })), "b-0 only stood by");
    assert_eq!(world.state(), StateName::Abandoned);
}

/// Found by seed 1287 of the simulation: a migration was abandoned while its target would not stop, so the application ran
/// there; the deletion that followed was taken back, and the source started beside it.
#[test]
fn a_deletion_that_is_taken_back_starts_nothing_while_the_application_may_run_elsewhere() {
    let mut world = World::deletion_beside_a_standby(once(FailureStrategy::GiveUp)).until_stopping();
    world.ends("a-0", 1, StopOutcome::NotRunning);
    world.says("b-0", report(1, StopPhase::Stopping));
    world.call_ends("b-0", error(CallErrorClass::Rejected));
    assert_eq!(world.state(), StateName::Degraded);
    world.drain();
    world.cancel();
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Start { .. })), "b-0 may run");
    assert_eq!(world.state(), StateName::Abandoned);
}
