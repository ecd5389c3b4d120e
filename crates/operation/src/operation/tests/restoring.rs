//! A store that was put back from a backup closes what was open in it.

use super::*;

fn closed(world: &World) -> (Operation, Step) {
    let mut operation = world.operation.clone();
    let step = operation.close_restored(world.now, &caller(), "a backup of yesterday");
    (operation, step)
}

#[test]
fn what_was_under_way_is_abandoned_and_no_hook_is_called() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let (operation, step) = closed(&world);
    operation.validate().unwrap();
    assert_eq!(operation.state(), StateName::Abandoned);
    assert!(operation.message().contains("a backup of yesterday") && operation.message().contains("ann"));
    assert!(step.changed && step.effects.is_empty(), "{:?}", step.effects);
    assert!(!operation.members()[0].is_verified(), "nothing is proven by a restore");
    let changes: Vec<_> = step.events.iter().filter(|event| event.kind == EventKind::StateChanged).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].previous, changes[0].state), (StateName::Stopping, StateName::Abandoned));
    assert_eq!(operation.next_deadline(), None);
}

#[test]
fn nothing_that_is_said_afterwards_moves_it() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.operation = closed(&world).0;
    let before = world.operation.clone();
    world.ends("a-0", 9, StopOutcome::Stopped);
    assert_eq!(world.operation, before);
    assert!(world.operation.recover(world.now).effects.is_empty());
}

#[test]
fn a_start_under_way_is_no_start_that_is_waited_for() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    assert!(world.operation.starts().iter().any(|start| start.is_in_flight()), "{:?}", world.state());
    let (operation, step) = closed(&world);
    operation.validate().unwrap();
    assert!(operation.starts().iter().all(|start| !start.is_in_flight()));
    assert!(step.effects.is_empty());
}

#[test]
fn what_is_over_stays_as_it_is() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.operation = closed(&world).0;
    let (again, step) = closed(&world);
    assert_eq!(again, world.operation);
    assert!(!step.changed && step.events.is_empty());
}
