//! After everything has ended it is looked at once more, right before the gate opens.

use super::*;

#[test]
fn what_has_been_started_again_behind_our_back_fails_the_attempt() {
    let mut world = World::migration(once(FailureStrategy::GiveUp)).until_stopping();
    world.stops("a-0");
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::Restarted));
    assert!(world.ordered().is_empty());
}

#[test]
fn a_repeated_report_of_the_old_end_proves_nothing_any_more() {
    let mut world = World::migration(once(FailureStrategy::GiveUp)).until_stopping();
    world.stops("a-0");
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    world.ends("a-0", 2, StopOutcome::Stopped);
    assert_eq!(world.operation.counts().failed, 1);
}

#[test]
fn a_hook_that_is_gone_says_nothing_against_a_verified_end() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probe("a-0", Err(error(CallErrorClass::Rejected)));
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn one_lost_call_is_no_answer_and_is_repeated() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.stops("a-0");
    world.answer_probe("a-0", Err(lost()));
    assert_eq!(world.state(), StateName::Stopping);
    world.pass(secs(1));
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    assert_eq!(world.reason(), Reason::Restarted);
}

#[test]
fn a_silent_hook_holds_it_up_no_longer_than_the_accept_timeout() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.pass(secs(10));
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn an_attempt_waits_for_the_whole_look_back_and_the_next_one_looks_again() {
    let sources = &[("a-0", 0), ("a-1", 0)];
    let mut world = World::new(request(Kind::Delete), Policy::built_in(), sources, &[]).until_stopping();
    world.stops("a-0");
    world.stops("a-1");
    world.answer_probe("a-1", Ok(probe(AppState::Running)));
    assert_eq!(world.state(), StateName::Stopping, "a-0 has not answered");
    world.answer_probe("a-0", Ok(probe(AppState::Held)));
    assert_eq!(world.state(), StateName::BackingOff);
    let until = world.operation.next_attempt().unwrap();
    world.pass(until.since(world.now));
    world.answer_probes();
    world.stops("a-1");
    world.answer_probe("a-1", Ok(probe(AppState::Held)));
    assert_eq!(world.state(), StateName::Stopping);
    world.answer_probe("a-0", Ok(probe(AppState::Held)));
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn a_hook_that_noticed_the_restart_itself_is_believed() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.ends("a-0", 1, StopOutcome::Restarted);
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::Restarted));
}
