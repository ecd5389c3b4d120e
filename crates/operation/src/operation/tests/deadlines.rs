//! Timers: each is a failure of its own, and none begins again with its full length.

use super::*;

#[test]
fn a_deaf_application_is_left_running_and_a_person_is_told_what_to_do() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
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
fn time_to_settle_is_no_time_of_the_application() {
    let policy = Policy { settle_period: secs(30), ..once(FailureStrategy::Force) };
    let mut world = World::deletion(policy).until_stopping();
    for second in 0..89 {
        world.says("a-0", report(second + 1, StopPhase::Stopping));
        world.pass(secs(1));
    }
    assert_eq!(world.state(), StateName::Stopping, "it may have ended in time, and its hook watches on");
    world.pass(secs(1));
    assert_eq!(world.state(), StateName::Forcing);
    let attempt = world.fence("a-0");
    world.feed(Input::KillAnswered { instance: id("a-0"), attempt, answer: Ok(()) });
    for second in 0..39 {
        world.says("a-0", report(second + 100, StopPhase::Killing));
        world.pass(secs(1));
    }
    assert_eq!(world.state(), StateName::Forcing, "nor is it time of the kill");
    world.pass(secs(1));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::KillTimeout));
}

#[test]
fn force_kills_after_the_grace_period_and_goes_on_once_verified() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
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
    let mut world = World::deletion(Policy::built_in()).until_stopping();
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
fn a_hook_that_does_not_answer_the_call_runs_into_the_accept_timeout() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::AcceptTimeout));
    assert!(world.operation.point_of_no_return().is_some(), "it may have heard the call");
}

#[test]
fn a_hook_that_cannot_be_reached_is_called_again_until_the_accept_timeout() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.drain();
    while world.state() == StateName::Stopping {
        world.call_ends("a-0", lost());
        world.pass(secs(3));
        let calls = world.told().len();
        assert!(calls <= 1, "{calls} calls in three seconds");
    }
    assert_eq!(world.reason(), Reason::HookUnreachable);
}

#[test]
fn silence_leads_to_one_new_call_and_then_to_the_heartbeat_timeout() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.drain();
    world.pass(secs(15));
    assert_eq!(world.drain(), [Effect::Shutdown { instance: id("a-0"), attempt: 1, anew: true }]);
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::HeartbeatTimeout));
}

#[test]
fn a_report_after_the_new_call_ends_the_silence() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.pass(secs(15));
    world.says("a-0", report(2, StopPhase::Stopping));
    world.drain();
    world.pass(secs(14));
    assert_eq!((world.state(), world.told()), (StateName::Stopping, vec![]));
}

#[test]
fn silence_on_a_broken_connection_is_joined_once_at_a_time() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    world.drain();
    world.call_ends("a-0", lost());
    world.pass(secs(14));
    assert_eq!(world.told().len(), 1, "the connection that broke");
    world.pass(secs(1));
    assert_eq!(world.told().len(), 1, "the silence");
    world.pass(secs(10));
    assert_eq!((world.told().len(), world.reason()), (0, Reason::HookUnreachable));
}

#[test]
fn an_application_that_survives_the_kill_runs_into_the_kill_timeout() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
    world.reports_for("a-0", 60);
    world.answer_kill("a-0", Ok(()));
    world.pass(secs(9));
    world.answer_kill("a-0", Ok(()));
    assert_eq!(world.state(), StateName::Forcing, "an answer repeated does not begin the timer again");
    world.pass(secs(1));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::KillTimeout));
}

#[test]
fn the_overall_timeout_ends_all_attempts_and_a_retry_grants_it_once_more() {
    let policy = Policy { overall_timeout: secs(40), max_attempts: 100, ..Policy::built_in() };
    let mut world = World::deletion(policy).until_stopping();
    world.reports_for("a-0", 40);
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::OverallTimeout));
    world.pass(secs(3600));
    world.retry(false, &PolicyOverrides::default());
    world.answer_probes();
    world.pass(secs(9));
    assert_eq!(world.state(), StateName::Stopping);
}

#[test]
fn the_overall_timeout_does_not_count_the_rest_in_degraded() {
    let policy = Policy { overall_timeout: secs(100), ..once(FailureStrategy::GiveUp) };
    let mut world = World::deletion(policy).until_stopping();
    world.reports_for("a-0", 60);
    assert_eq!(world.reason(), Reason::GraceTimeout);
    world.pass(secs(3600));
    world.retry(false, &PolicyOverrides::default());
    world.answer_probes();
    world.reports_for("a-0", 39);
    assert_eq!(world.state(), StateName::Stopping);
    world.reports_for("a-0", 1);
    assert_eq!(world.reason(), Reason::OverallTimeout);
}

#[test]
fn an_answer_to_the_preparation_after_the_overall_timeout_reports_nobody_as_restarted() {
    let policy = Policy { overall_timeout: secs(5), ..Policy::built_in() };
    let mut world = World::deletion(policy);
    world.feed(Input::Begin);
    world.pass(secs(5));
    world.answer_probes();
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::OverallTimeout));
    assert_eq!(world.operation.next_deadline(), None);
}
