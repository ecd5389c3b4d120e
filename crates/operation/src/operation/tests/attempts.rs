//! Several instances, several attempts, several rounds.

use super::*;

const THREE: &[(&str, i32)] = &[("a-0", 0), ("a-1", 0), ("a-2", 0)];

fn three(policy: Policy) -> World {
    World::new(request(Kind::Delete), policy, THREE, &[]).until_stopping()
}

#[test]
fn no_more_than_allowed_are_stopped_at_a_time() {
    let mut world = three(Policy { max_parallel_stops: 2, ..Policy::built_in() });
    assert_eq!(world.told(), ["a-0", "a-1"]);
    world.says("a-0", report(1, StopPhase::Stopping));
    assert!(world.told().is_empty());
    world.ends("a-1", 1, StopOutcome::Stopped);
    assert_eq!(world.told(), ["a-2"]);
}

#[test]
fn the_gate_opens_only_when_the_last_one_has_ended() {
    let mut world = three(Policy::built_in());
    world.stops("a-0");
    world.stops("a-1");
    assert_eq!(world.state(), StateName::Stopping);
    let counts = world.operation.counts();
    assert_eq!((counts.stopped, counts.stopping), (2, 1));
    world.stops("a-2");
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn the_next_attempt_leaves_those_that_have_stopped_alone() {
    let mut world = three(Policy::built_in());
    world.drain();
    world.stops("a-0");
    world.stops("a-1");
    world.ends("a-2", 1, StopOutcome::StillRunning);
    assert_eq!(world.state(), StateName::BackingOff);
    let until = world.operation.next_attempt().unwrap();
    world.pass(until.since(world.now));
    world.answer_probes();
    assert_eq!(world.state(), StateName::Stopping);
    assert_eq!(world.drain(), [Effect::Shutdown { instance: id("a-2"), attempt: 2, anew: true }]);
    assert_eq!(world.operation.attempt(), 2);
}

#[test]
fn a_failed_instance_ends_the_attempt_only_when_the_others_are_through() {
    let mut world = three(Policy::built_in());
    world.says("a-1", report(1, StopPhase::Stopping));
    world.ends("a-2", 1, StopOutcome::StillRunning);
    world.stops("a-0");
    assert_eq!(world.state(), StateName::Stopping);
    world.ends("a-1", 2, StopOutcome::Stopped);
    assert_eq!(world.state(), StateName::BackingOff);
}

#[test]
fn a_late_end_of_a_failed_instance_saves_the_attempt() {
    let mut world = three(Policy::built_in());
    world.stops("a-0");
    world.says("a-2", report(1, StopPhase::Stopping));
    world.call_ends("a-2", error(CallErrorClass::Protocol));
    world.ends("a-2", 2, StopOutcome::Stopped);
    world.stops("a-1");
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn the_last_attempt_is_followed_by_a_rest() {
    let mut world = World::deletion(Policy { max_attempts: 3, ..Policy::built_in() });
    world.feed(Input::Begin);
    for attempt in 1..=3 {
        world.answer_probes();
        assert_eq!((world.state(), world.operation.attempt()), (StateName::Stopping, attempt));
        world.ends("a-0", 1, StopOutcome::StillRunning);
        if let Some(until) = world.operation.next_attempt() {
            world.pass(until.since(world.now));
        }
    }
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::StillRunning));
    assert_eq!(world.count(EventKind::AttemptFailed), 3);
}

#[test]
fn a_retry_begins_a_round_with_new_fences_and_leaves_the_stopped_alone() {
    let mut world = three(once(FailureStrategy::GiveUp));
    world.stops("a-0");
    world.stops("a-1");
    world.ends("a-2", 1, StopOutcome::StillRunning);
    let before = world.fence("a-2");
    world.drain();
    world.retry(false, &PolicyOverrides::default());
    world.answer_probes();
    assert_eq!((world.operation.round(), world.operation.attempt()), (2, 1));
    assert_eq!(world.told(), ["a-2"]);
    assert!(world.fence("a-2") > before);
}

#[test]
fn what_carries_an_old_fence_changes_nothing() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.ends("a-0", 1, StopOutcome::StillRunning);
    let until = world.operation.next_attempt().unwrap();
    world.pass(until.since(world.now));
    world.answer_probes();
    let before = world.operation.clone();
    let (instance, attempt) = (id("a-0"), 1);
    let end = StopReport { result: Some(result(StopOutcome::Stopped)), ..report(9, StopPhase::Stopped) };
    for input in [
        Input::Begin,
        Input::Probed { instance: instance.clone(), serial: 1, answer: Ok(probe(AppState::Stopped)) },
        Input::StopReported { instance: instance.clone(), attempt, report: end },
        Input::StopCallEnded { instance: instance.clone(), attempt, error: error(CallErrorClass::Protocol) },
        Input::MoreTimeWanted { instance: instance.clone(), attempt, wanted: secs(999) },
        Input::KillAnswered { instance: instance.clone(), attempt, answer: Ok(()) },
        Input::CancelAnswered { instance: instance.clone(), attempt, answer: Ok(()) },
        Input::StartCallEnded { instance: instance.clone(), epoch: 7, error: lost() },
        Input::Concluded { instance, answer: Ok(()) },
    ] {
        let said = format!("{input:?}");
        let step = world.operation.handle(world.now, input);
        assert_eq!(step, Step::default(), "{said}");
        assert_eq!(world.operation, before, "{said}");
    }
}
