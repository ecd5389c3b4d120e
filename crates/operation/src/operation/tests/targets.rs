//! The target coming up, or not, and the way back.

use super::*;

fn starting() -> World {
    let mut world = World::migration(once(FailureStrategy::GiveUp)).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    assert_eq!(world.ordered(), ["b-0"]);
    world
}

#[test]
fn a_target_that_is_not_ready_in_time_is_stopped_and_the_source_runs_again() {
    let mut world = starting();
    world.pass(secs(120));
    assert_eq!((world.state(), world.reason()), (StateName::RollingBack, Reason::StartTimeout));
    assert_eq!(world.told(), ["b-0"]);
    world.stops("b-0");
    assert_eq!(world.ordered(), ["a-0"]);
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

#[test]
fn a_silent_start_is_joined_again_under_its_epoch() {
    let mut world = starting();
    world.pass(secs(15));
    assert_eq!(world.drain(), [Effect::Start { instance: id("b-0"), epoch: 9, rollback: false }]);
}

#[test]
fn a_target_out_of_reach_on_the_way_back_keeps_the_source_down() {
    let mut world = starting();
    world.starts("b-0", false);
    world.call_ends("b-0", lost());
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::HookUnreachable));
    assert!(world.ordered().is_empty());
    world.retry(false, &PolicyOverrides::default());
    assert_eq!((world.state(), world.told()), (StateName::RollingBack, vec!["b-0".to_owned()]));
    world.ends("b-0", 1, StopOutcome::NotRunning);
    assert_eq!(world.ordered(), ["a-0"]);
}

#[test]
fn a_late_end_of_the_target_saves_the_way_back() {
    let mut world = starting();
    world.starts("b-0", false);
    world.reports_for("b-0", 60);
    assert_eq!(world.state(), StateName::Degraded);
    world.ends("b-0", 100, StopOutcome::Stopped);
    world.drain();
    world.retry(false, &PolicyOverrides::default());
    assert_eq!(world.ordered(), ["a-0"]);
}

#[test]
fn a_retry_with_force_on_the_way_back_kills_the_target() {
    let mut world = starting();
    world.starts("b-0", false);
    world.reports_for("b-0", 60);
    world.drain();
    world.retry(true, &PolicyOverrides::default());
    assert_eq!(world.kills(), 1);
    assert!(!world.operation.overrides().is_empty());
}

#[test]
fn a_source_that_does_not_come_back_rests_and_gets_a_new_epoch_in_the_next_try() {
    let mut world = starting();
    world.starts("b-0", false);
    world.ends("b-0", 1, StopOutcome::NotRunning);
    assert_eq!(world.drain().last(), Some(&Effect::Start { instance: id("a-0"), epoch: 10, rollback: true }));
    world.starts("a-0", false);
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::StartFailed));
    world.retry(false, &PolicyOverrides::default());
    assert_eq!(world.drain(), [Effect::Start { instance: id("a-0"), epoch: 11, rollback: true }]);
}

#[test]
fn a_source_nobody_can_tell_of_is_joined_under_its_own_epoch_and_may_come_up_late() {
    let mut world = starting();
    world.starts("b-0", false);
    world.ends("b-0", 1, StopOutcome::NotRunning);
    world.pass(secs(120));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::StartTimeout));
    world.starts("a-0", true);
    world.drain();
    world.retry(false, &PolicyOverrides::default());
    assert_eq!((world.state(), world.ordered()), (StateName::RolledBack, vec![]));
}

#[test]
fn a_target_whose_hook_counts_anew_behind_a_restart_has_come_up() {
    let mut world = starting();
    let epoch = world.start_of("b-0");
    let message = "loading".to_owned();
    let report = StartReport { sequence: 5, phase: StartPhase::Starting, message, report_time: None, result: None };
    world.feed(Input::StartReported { instance: id("b-0"), epoch, report });
    world.starts("b-0", true);
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn a_target_that_reports_late_is_stopped_all_the_same() {
    let mut world = starting();
    world.pass(secs(120));
    world.drain();
    world.starts("b-0", true);
    assert_eq!(world.state(), StateName::RollingBack);
    assert!(world.ordered().is_empty());
}

#[test]
fn going_back_on_request_gives_up_targets_that_were_ready() {
    let targets = &[("b-0", 1), ("b-1", 0)];
    let policy = Policy::built_in();
    let mut world = World::new(request(Kind::Migrate), policy, &[("a-0", 0)], targets).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.starts("b-0", true);
    world.drain();
    world.cancel();
    assert_eq!(world.told(), ["b-0", "b-1"]);
    assert!(world.operation.starts().iter().all(|start| !start.is_ready()));
}

#[test]
fn a_source_given_up_without_proof_is_asked_to_start_as_well_so_that_rolled_back_is_true() {
    let sources = &[("a-0", 0), ("a-1", 0)];
    let policy = Policy { allow_unverified: true, ..once(FailureStrategy::Force) };
    let mut world = World::new(request(Kind::Migrate), policy, sources, &[("b-0", 0)]).until_stopping();
    world.stops("a-0");
    world.pass(secs(20));
    world.answer_probes();
    assert_eq!((world.state(), world.operation.counts().unverified), (StateName::Starting, 1));
    world.starts("b-0", false);
    world.drain();
    world.ends("b-0", 1, StopOutcome::NotRunning);
    assert_eq!(world.ordered(), ["a-0", "a-1"]);
    world.starts("a-0", true);
    let epoch = world.start_of("a-1");
    world.feed(Input::StartCallEnded { instance: id("a-1"), epoch, error: error(CallErrorClass::Rejected) });
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::StartFailed));
}
