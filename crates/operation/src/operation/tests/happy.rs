//! What happens when everybody does as told.

use super::*;
use crate::operation::Closing;

#[test]
fn a_migration_stops_verifies_starts_and_concludes() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    assert_eq!(
        world.drain(),
        [Effect::Shutdown { instance: id("a-0"), attempt: 1, anew: true }],
        "only the source is told to stop"
    );
    world.stops("a-0");
    assert_eq!(world.state(), StateName::Stopping, "the end is looked at once more");
    world.answer_probes();
    assert_eq!(world.state(), StateName::Starting);
    assert_eq!(world.drain(), [Effect::Start { instance: id("b-0"), epoch: 9, rollback: false }]);
    world.starts("b-0", true);
    assert_eq!(world.state(), StateName::Finalizing);
    world.conclude_all();
    assert_eq!(world.states(), ["PREPARING", "STOPPING", "STOPPED", "STARTING", "FINALIZING", "SUCCEEDED"]);
    let cluster = ClusterId::parse("b").unwrap();
    assert_eq!(world.operation.closing(), Some(Closing::Moved { cluster, forget_source: false }));
    assert_eq!(world.operation.epoch(), 9);
}

#[test]
fn a_deletion_ends_with_the_application_removed() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.drain();
    world.stops("a-0");
    world.answer_probes();
    world.conclude_all();
    assert_eq!(world.states(), ["PREPARING", "STOPPING", "STOPPED", "FINALIZING", "SUCCEEDED"]);
    assert_eq!(world.operation.closing(), Some(Closing::Removed));
}

#[test]
fn what_is_said_in_the_moment_before_the_end_is_shown() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let last_words = StopReport { message: "saving the snapshot".to_owned(), ..report(2, StopPhase::Stopping) };
    world.says("a-0", last_words);
    world.ends("a-0", 3, StopOutcome::Stopped);
    let mut progress = world.events.iter().filter(|event| event.kind == EventKind::Progress);
    assert!(progress.any(|event| event.message == "saving the snapshot"), "{:#?}", world.events);
}

/// Says more at once than is shown at once, and returns what the last report said.
fn speak_in_haste(world: &mut World) -> String {
    for sequence in 1..=30 {
        let said = StopReport { message: format!("page {sequence} of 30"), ..report(sequence, StopPhase::Stopping) };
        world.says("a-0", said);
    }
    "page 30 of 30".to_owned()
}

/// What was shown last of an instance before `kind` was.
fn shown_before(world: &World, kind: EventKind) -> Option<&str> {
    let end = world.events.iter().position(|event| event.kind == kind).unwrap();
    let shown = world.events[..end].iter().rfind(|event| event.kind == EventKind::Progress);
    shown.map(|event| event.message.as_str())
}

#[test]
fn the_last_of_many_quick_reports_is_shown_before_the_end() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    let last = speak_in_haste(&mut world);
    world.ends("a-0", 31, StopOutcome::Stopped);
    assert_eq!(shown_before(&world, EventKind::InstanceStopped), Some(last.as_str()));
    let shown = world.events.iter().filter(|event| event.kind == EventKind::Progress).count();
    assert!(shown < 15, "{shown} of 30 were shown");
}

#[test]
fn the_last_of_many_quick_reports_is_shown_before_a_failure() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    let last = speak_in_haste(&mut world);
    world.ends("a-0", 31, StopOutcome::StillRunning);
    assert_eq!(shown_before(&world, EventKind::AttemptFailed), Some(last.as_str()));
}

#[test]
fn lower_stop_orders_stop_first_and_start_last() {
    let mut world = World::new(
        request(Kind::Migrate),
        Policy::built_in(),
        &[("primary", 1), ("replica-0", 0), ("replica-1", 0)],
        &[("new-primary", 1), ("new-replica", 0)],
    )
    .until_stopping();
    assert_eq!(world.told(), ["replica-0", "replica-1"]);
    world.stops("replica-0");
    assert!(world.told().is_empty(), "the primary waits for all replicas");
    world.stops("replica-1");
    assert_eq!(world.told(), ["primary"]);
    world.stops("primary");
    world.answer_probes();
    assert_eq!(world.ordered(), ["new-primary"]);
    world.starts("new-primary", true);
    assert_eq!(world.ordered(), ["new-replica"]);
}
