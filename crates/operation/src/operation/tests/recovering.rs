//! After a restart of the scheduler an operation goes on where it was, with what is left of its time.

use super::*;
use crate::member::RECONNECT_MAX;

#[test]
fn recovery_goes_on_with_what_is_left_of_the_grace_period() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
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
fn an_old_deadline_is_judged_only_after_the_hook_could_speak() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.now = world.now + secs(600);
    world.restart();
    assert_eq!(world.state(), StateName::Stopping);
    world.ends("a-0", 9, StopOutcome::Stopped);
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing, "it had ended in the meantime");
}

#[test]
fn an_old_deadline_is_judged_when_the_hook_stays_silent() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.now = world.now + secs(600);
    world.restart();
    world.pass(RECONNECT_MAX);
    assert_eq!(world.reason(), Reason::GraceTimeout);
}

#[test]
fn once_the_hook_has_spoken_an_old_deadline_is_judged() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.now = world.now + secs(600);
    world.restart();
    world.pass(secs(1));
    assert_eq!(world.state(), StateName::Stopping);
    world.says("a-0", report(2, StopPhase::Stopping));
    assert_eq!(world.state(), StateName::Stopping);
    world.pass(secs(1));
    assert_eq!(world.reason(), Reason::GraceTimeout);
}

#[test]
fn a_kill_is_repeated_behind_the_join_and_keeps_its_timer() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
    world.reports_for("a-0", 60);
    world.answer_kill("a-0", Ok(()));
    world.restart();
    let attempt = world.fence("a-0");
    let instance = || id("a-0");
    assert_eq!(
        world.drain(),
        [
            Effect::Shutdown { instance: instance(), attempt, anew: true },
            Effect::Kill { instance: instance(), attempt }
        ]
    );
    world.answer_kill("a-0", Ok(()));
    world.pass(RECONNECT_MAX);
    assert_eq!(world.reason(), Reason::KillTimeout);
}

#[test]
fn the_preparation_is_asked_again_and_old_answers_are_dropped() {
    let mut world = World::deletion(Policy::built_in());
    world.feed(Input::Begin);
    let old = world.drain();
    world.restart();
    world.effects.extend(old);
    world.effects.reverse();
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    assert_eq!(world.state(), StateName::Preparing, "an answer with an old serial");
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    assert_eq!(world.state(), StateName::Stopping);
}

#[test]
fn a_backoff_that_is_over_goes_on_at_once() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.ends("a-0", 1, StopOutcome::StillRunning);
    assert_eq!(world.state(), StateName::BackingOff);
    world.now = world.now + secs(60);
    world.restart();
    assert_eq!(world.state(), StateName::Preparing);
}

#[test]
fn a_look_back_is_asked_again() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.restart();
    assert_eq!(world.state(), StateName::Stopping);
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
}

#[test]
fn a_start_is_joined_under_its_epoch_with_what_is_left_of_its_time() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.pass(secs(100));
    world.restart();
    assert_eq!(world.drain(), [Effect::Start { instance: id("b-0"), epoch: 9, rollback: false }]);
    world.pass(RECONNECT_MAX);
    assert_eq!((world.state(), world.reason()), (StateName::RollingBack, Reason::StartTimeout));
}

#[test]
fn while_taking_back_nobody_is_called_to_stop() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.cancel();
    world.restart();
    assert_eq!(world.drain(), [Effect::CancelShutdown { instance: id("a-0"), attempt: 1 }]);
}

#[test]
fn the_way_back_goes_on() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.starts("b-0", false);
    world.restart();
    assert_eq!(world.told(), ["b-0"]);
    world.ends("b-0", 1, StopOutcome::NotRunning);
    world.restart();
    assert_eq!(world.ordered(), ["a-0"]);
    world.starts("a-0", true);
    assert_eq!(world.state(), StateName::RolledBack);
}

#[test]
fn hooks_are_told_again_what_becomes_of_them() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    world.stops("a-0");
    world.answer_probes();
    world.restart();
    assert_eq!(world.state(), StateName::Finalizing);
    world.conclude_all();
    assert_eq!(world.state(), StateName::Succeeded);
}

#[test]
fn resting_and_finished_operations_do_nothing_but_listen() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.reports_for("a-0", 60);
    world.restart();
    assert_eq!(world.state(), StateName::Degraded);
    assert_eq!(world.told(), ["a-0"], "a late end is an end");
    world.cancel();
    assert_eq!(world.state(), StateName::Abandoned);
    world.restart();
    assert_eq!(world.drain(), []);
}

#[test]
fn a_hook_that_forgets_is_not_called_again_while_the_operation_rests() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    let capabilities = Capabilities { durable: false, ..ALL };
    world.answer_probe("a-0", Ok(Probe { capabilities, ..probe(AppState::Running) }));
    world.reports_for("a-0", 60);
    assert_eq!(world.state(), StateName::Degraded);
    world.restart();
    assert_eq!(world.drain(), [], "it would take that for a new order");
}

#[test]
fn an_overall_timeout_that_ran_out_meanwhile_is_judged_only_after_the_hook_could_speak() {
    let policy = Policy { overall_timeout: secs(30), ..Policy::built_in() };
    let mut world = World::deletion(policy).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.now = world.now + secs(600);
    world.restart();
    world.pass(RECONNECT_MAX - secs(1));
    assert_eq!(world.state(), StateName::Stopping);
    world.pass(secs(1));
    assert_eq!(world.state(), StateName::Degraded);
}
