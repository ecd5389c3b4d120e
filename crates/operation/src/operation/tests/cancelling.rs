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
    let mut world = World::migration(Policy::built_in()).to_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let refusal = world.operation.cancel(world.now, &caller()).unwrap_err();
    assert!(matches!(refusal, crate::Refusal::PointOfNoReturn { .. }));
}

#[test]
fn a_target_that_does_not_come_up_brings_the_source_back_under_a_higher_epoch() {
    let mut world = World::migration(Policy::built_in()).to_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.drain();
    world.starts("b-0", false);
    assert_eq!(world.state(), StateName::RollingBack);
    let attempt = world.fence("b-0");
    assert_eq!(world.drain(), [Effect::Shutdown { instance: id("b-0"), attempt, anew: true }], "the target first");
    world.ends("b-0", 1, StopOutcome::NotRunning);
    assert_eq!(world.drain(), [Effect::Start { instance: id("a-0"), epoch: 9, rollback: true }]);
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

#[test]
fn the_source_stays_down_while_the_end_of_the_target_is_not_proven() {
    let mut world = World::migration(Policy::built_in()).to_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.drain();
    world.starts("b-0", false);
    world.drain();
    world.pass(secs(60));
    assert_eq!(world.state(), StateName::Degraded);
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Start { .. })));
}
