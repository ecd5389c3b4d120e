//! More time: what the application may have, what an operator may give.

use super::*;

#[test]
fn a_wish_within_the_limit_is_granted_once_and_a_larger_one_cut() {
    let policy = Policy { max_extension: secs(30), ..once(FailureStrategy::GiveUp) };
    let mut world = World::deletion(policy).until_stopping();
    world.drain();
    let wish = |sequence, seconds| StopReport {
        wanted_grace_period: Some(secs(seconds)),
        ..report(sequence, StopPhase::Stopping)
    };
    world.says("a-0", wish(1, 80));
    let grace = |world: &mut World| {
        let update = |effect| {
            if let Effect::UpdateDeadline { grace, granted, .. } = effect { Some((grace, granted)) } else { None }
        };
        world.drain().into_iter().find_map(update)
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

#[test]
fn a_wish_beside_the_stream_counts_like_one_within() {
    let policy = Policy { max_extension: secs(30), ..once(FailureStrategy::GiveUp) };
    let mut world = World::deletion(policy).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    let attempt = world.fence("a-0");
    world.feed(Input::MoreTimeWanted { instance: id("a-0"), attempt, wanted: secs(75) });
    world.feed(Input::MoreTimeWanted { instance: id("a-0"), attempt: attempt + 1, wanted: secs(90) });
    let shutdown = world.operation.members()[0].shutdown.clone().unwrap();
    assert_eq!((shutdown.grace, shutdown.extension), (secs(75), secs(15)));
}

#[test]
fn an_operator_may_go_beyond_the_limit_and_less_has_no_effect() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.says("a-0", report(1, StopPhase::Stopping));
    for (asked, has) in [(300, 300), (100, 300)] {
        let step = world.operation.extend(world.now, secs(asked)).unwrap();
        world.take(step);
        assert_eq!(world.operation.members()[0].shutdown.as_ref().unwrap().grace, secs(has));
    }
    assert_eq!(world.count(EventKind::DeadlineExtended), 1);
    world.reports_for("a-0", 299);
    assert_eq!(world.state(), StateName::Stopping);
    world.reports_for("a-0", 1);
    assert_eq!(world.reason(), Reason::GraceTimeout);
}

#[test]
fn who_keeps_asking_for_more_time_is_killed_at_the_limit_and_verified_like_any_other() {
    let policy = Policy { max_extension: secs(30), ..once(FailureStrategy::Force) };
    let mut world = World::deletion(policy).until_stopping();
    for second in 0..90 {
        assert_eq!(world.state(), StateName::Stopping, "after {second} s");
        let wish = StopReport { wanted_grace_period: Some(secs(3600)), ..report(second + 1, StopPhase::Stopping) };
        world.says("a-0", wish);
        world.pass(secs(1));
    }
    assert_eq!(world.state(), StateName::Forcing);
    let attempt = world.fence("a-0");
    assert!(world.drain().contains(&Effect::Kill { instance: id("a-0"), attempt }));
    world.answer_kill("a-0", Ok(()));
    assert_eq!(world.state(), StateName::Forcing, "having been killed is no end");
    world.ends("a-0", 100, StopOutcome::Killed);
    world.answer_probes();
    world.conclude_all();
    assert_eq!(world.state(), StateName::Succeeded);
}

#[test]
fn time_given_before_the_hook_has_answered_counts_and_the_hook_hears_of_it() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    let step = world.operation.extend(world.now, secs(90)).unwrap();
    world.take(step);
    world.drain();
    world.says("a-0", report(1, StopPhase::Stopping));
    let update = Effect::UpdateDeadline { instance: id("a-0"), attempt: 1, grace: secs(90), granted: true };
    assert_eq!(world.drain(), [update]);
    assert_eq!(world.operation.deadline(), Some(world.now + secs(90)));
}

#[test]
fn what_is_being_killed_gets_no_more_time() {
    let policy = Policy { max_extension: secs(60), ..once(FailureStrategy::Force) };
    let mut world = World::deletion(policy).until_stopping();
    world.reports_for("a-0", 60);
    assert_eq!(world.state(), StateName::Forcing);
    let wish = StopReport { wanted_grace_period: Some(secs(90)), ..report(61, StopPhase::Stopping) };
    world.says("a-0", wish);
    assert_eq!(world.count(EventKind::DeadlineExtended), 0);
}

#[test]
fn an_extension_out_of_bounds_or_after_the_end_is_refused() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp));
    let refusal = world.operation.extend(world.now, secs(48 * 3600)).unwrap_err();
    assert!(matches!(refusal, crate::Refusal::Policy { .. }));
    world.cancel();
    let refusal = world.operation.extend(world.now, secs(90)).unwrap_err();
    assert!(matches!(refusal, crate::Refusal::Done { .. }));
}
