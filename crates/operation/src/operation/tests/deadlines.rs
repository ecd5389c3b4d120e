//! Timers: each is a failure of its own, and none begins again with its full length.

use super::*;
use crate::failure::Reason;
use crate::policy::FailureStrategy;

fn once(strategy: FailureStrategy) -> Policy {
    Policy { max_attempts: 1, failure_strategy: strategy, ..Policy::built_in() }
}

#[test]
fn a_deaf_application_is_left_running_and_a_person_is_told_what_to_do() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).to_stopping();
    for second in 0..60 {
        world.says("a-0", report(second + 1, StopPhase::Stopping));
        world.pass(secs(1));
    }
    assert_eq!(world.state(), StateName::Degraded);
    assert_eq!(world.operation.failure().unwrap().reason, Reason::GraceTimeout);
    assert!(!world.drain().iter().any(|effect| matches!(effect, Effect::Kill { .. })), "nothing is killed");
    assert!(world.operation.advice().contains("quiesce retry op-1"), "{}", world.operation.advice());
    assert_eq!(world.operation.next_deadline(), None, "it rests");
}

#[test]
fn force_kills_after_the_grace_period_and_goes_on_once_verified() {
    let mut world = World::deletion(once(FailureStrategy::Force)).to_stopping();
    for second in 0..60 {
        world.says("a-0", report(second + 1, StopPhase::Stopping));
        world.pass(secs(1));
    }
    assert_eq!(world.state(), StateName::Forcing);
    let attempt = world.fence("a-0");
    assert!(world.drain().contains(&Effect::Kill { instance: id("a-0"), attempt }), "within the same shutdown");
    world.feed(Input::KillAnswered { instance: id("a-0"), attempt, answer: Ok(()) });
    world.ends("a-0", 100, StopOutcome::Killed);
    world.answer_probes();
    world.conclude_all();
    assert_eq!(world.state(), StateName::Succeeded);
    assert_eq!(world.operation.overrides().len(), 1, "the force stays in the record");
}

#[test]
fn a_broken_call_is_joined_again_under_the_same_fence() {
    let mut world = World::deletion(Policy::built_in()).to_stopping();
    world.drain();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.call_ends("a-0", lost());
    assert!(world.drain().is_empty(), "not at once");
    world.pass(secs(1));
    assert_eq!(world.drain(), [Effect::Shutdown { instance: id("a-0"), attempt: 1, anew: false }]);
    world.ends("a-0", 5, StopOutcome::Stopped);
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn recovery_goes_on_with_what_is_left_of_the_grace_period() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).to_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let deadline = world.operation.deadline().unwrap();
    world.now = world.now + secs(30);
    let stored = minicbor::to_vec(&world.operation).unwrap();
    let mut operation: Operation = minicbor::decode(&stored).unwrap();
    operation.validate().unwrap();
    let step = operation.recover(world.now);
    assert_eq!(
        step.effects,
        [Effect::Shutdown { instance: id("a-0"), attempt: 1, anew: true }],
        "joined, not repeated"
    );
    assert_eq!(operation.deadline(), Some(deadline));
    world.operation = operation;
    for second in 0..31 {
        world.says("a-0", report(second + 2, StopPhase::Stopping));
        world.pass(secs(1));
    }
    assert_eq!(world.operation.failure().unwrap().reason, Reason::GraceTimeout);
}

#[test]
fn a_wish_within_the_limit_is_granted_once_and_a_larger_one_cut() {
    let policy = Policy { max_extension: secs(30), ..once(FailureStrategy::GiveUp) };
    let mut world = World::deletion(policy).to_stopping();
    world.drain();
    let wish = |sequence, seconds| StopReport {
        wanted_grace_period: Some(secs(seconds)),
        ..report(sequence, StopPhase::Stopping)
    };
    world.says("a-0", wish(1, 80));
    let grace = |world: &mut World| {
        world.drain().into_iter().find_map(|effect| match effect {
            Effect::UpdateDeadline { grace, granted, .. } => Some((grace, granted)),
            _ => None,
        })
    };
    assert_eq!(grace(&mut world), Some((secs(80), true)));
    world.says("a-0", wish(2, 80));
    assert_eq!(grace(&mut world), None);
    world.says("a-0", wish(3, 200));
    assert_eq!(grace(&mut world), Some((secs(90), false)));
    world.says("a-0", wish(4, 200));
    assert_eq!(grace(&mut world), None);
    assert_eq!((world.count(EventKind::DeadlineExtended), world.count(EventKind::ExtensionDenied)), (2, 1));
}
