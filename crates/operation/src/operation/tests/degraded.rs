//! Resting in DEGRADED: late news, unclean ends, superseding, confirming.

use super::*;
use crate::Refusal;

fn degraded() -> World {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.reports_for("a-0", 60);
    assert_eq!(world.state(), StateName::Degraded);
    world
}

#[test]
fn a_late_end_is_noted_and_a_retry_goes_on_from_there() {
    let mut world = degraded();
    world.ends("a-0", 100, StopOutcome::Stopped);
    assert_eq!((world.state(), world.operation.counts().stopped), (StateName::Degraded, 1));
    world.drain();
    world.retry(false, &PolicyOverrides::default());
    assert!(world.told().is_empty(), "it has stopped");
    world.answer_probes();
    assert_eq!(world.state(), StateName::Stopping, "the look back");
}

#[test]
fn an_end_that_was_not_clean_rests_if_the_policy_says_so_and_a_retry_accepts_it() {
    let policy = Policy { hold_on_unclean_exit: true, ..Policy::built_in() };
    let mut world = World::deletion(policy).until_stopping();
    let crashed = StopResult { clean: Some(false), exit_code: Some(3), ..result(StopOutcome::Stopped) };
    world.says("a-0", StopReport { result: Some(crashed), ..report(1, StopPhase::Stopped) });
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::UncleanExit));
    assert!(world.operation.failure().unwrap().message.contains("exit code 3"));
    world.retry(false, &PolicyOverrides::default());
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn a_forced_deletion_takes_over_only_from_a_rest() {
    let by = || OperationId::parse("op-2").unwrap();
    let mut world = degraded();
    let step = world.operation.supersede(world.now, by()).unwrap();
    world.take(step);
    assert_eq!((world.state(), world.operation.superseded_by()), (StateName::Abandoned, Some(&by())));

    let mut world = World::deletion(Policy::built_in()).until_stopping();
    let refusal = world.operation.supersede(world.now, by()).unwrap_err();
    assert!(matches!(refusal, Refusal::NotDegraded { .. }));
}

#[test]
fn only_a_rest_can_be_retried_and_only_within_bounds() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    let none = PolicyOverrides::default();
    let refusal = world.operation.retry(world.now, &caller(), false, &none).unwrap_err();
    assert!(matches!(refusal, Refusal::NotDegraded { .. }));

    let mut world = degraded();
    let bad = PolicyOverrides { max_attempts: Some(0), ..none };
    let before = world.operation.clone();
    let refusal = world.operation.retry(world.now, &caller(), false, &bad).unwrap_err();
    assert!(matches!(refusal, Refusal::Policy { .. }));
    assert_eq!(world.operation, before);
}

#[test]
fn nothing_happens_behind_the_end() {
    let mut world = degraded();
    world.cancel();
    assert_eq!(world.state(), StateName::Abandoned);
    let events = world.events.len();
    world.ends("a-0", 100, StopOutcome::Stopped);
    assert_eq!(world.events.len(), events, "the event that makes it done is the last");
}

#[test]
fn the_gate_waits_for_the_caller_who_moves_the_workload() {
    let mut request = request(Kind::Migrate);
    request.placement = Placement::External { require_confirmation: true };
    let mut world = World::new(request, Policy::built_in(), &[("a-0", 0)], &[]).until_stopping();
    let refusal = world.operation.confirm(world.now, &caller()).unwrap_err();
    assert!(matches!(refusal, Refusal::NotConfirmable { .. }));
    world.stops("a-0");
    world.answer_probes();
    assert!(world.operation.awaits_confirmation());
    assert!(world.operation.advice().contains("quiesce confirm op-1"));
    world.pass(secs(24 * 3600));
    assert_eq!(world.state(), StateName::Stopped);
    for _ in 0..2 {
        let step = world.operation.confirm(world.now, &caller()).unwrap();
        world.take(step);
    }
    world.conclude_all();
    assert_eq!(world.state(), StateName::Succeeded);
    world.operation.confirm(world.now, &caller()).unwrap();
}

#[test]
fn without_confirmation_the_gate_opens_by_itself() {
    let mut request = request(Kind::Migrate);
    request.placement = Placement::External { require_confirmation: false };
    let mut world = World::new(request, Policy::built_in(), &[("a-0", 0)], &[]).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn a_report_of_a_shutdown_that_was_never_called_proves_nothing() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    world.pass(secs(10));
    assert_eq!((world.state(), world.fence("a-0")), (StateName::Degraded, 0));
    world.ends("a-0", 1, StopOutcome::Stopped);
    assert_eq!(world.operation.counts().stopped, 0);
}
