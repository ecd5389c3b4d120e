//! Killing, and going on without proof: only where somebody answers for it by name.

use super::*;
use crate::failure::OverrideKind;
use crate::operation::Closing;

fn forced_deletion(sources: &[(&str, i32)]) -> World {
    let mut request = request(Kind::Delete);
    request.force = true;
    let mut world = World::new(request, Policy::built_in(), sources, &[]);
    world.feed(Input::Begin);
    world
}

fn unverified_ok() -> Policy {
    Policy { allow_unverified: true, ..once(FailureStrategy::Force) }
}

#[test]
fn a_forced_deletion_calls_with_no_grace_kills_at_once_and_verifies() {
    let mut world = forced_deletion(&[("a-0", 0)]);
    assert_eq!((world.state(), world.told()), (StateName::Forcing, vec!["a-0".to_owned()]));
    world.says("a-0", report(1, StopPhase::Accepted));
    assert_eq!(world.kills(), 1);
    world.answer_kill("a-0", Ok(()));
    world.ends("a-0", 2, StopOutcome::Killed);
    world.answer_probes();
    assert_eq!(world.state(), StateName::Finalizing);
    let conclude = Effect::Conclude { instance: id("a-0"), epoch: 8, disposition: crate::Disposition::Retired };
    assert!(world.effects.contains(&conclude), "the look back has shown what the hook can do");
    world.conclude_all();
    assert_eq!(world.operation.closing(), Some(Closing::Removed));
}

#[test]
fn a_forced_deletion_without_instances_is_done_at_once() {
    let world = forced_deletion(&[]);
    assert_eq!(world.states(), ["FORCING", "STOPPED", "FINALIZING", "SUCCEEDED"]);
}

#[test]
fn a_forced_deletion_gives_up_what_cannot_be_reached_and_says_so_for_ever() {
    let mut world = forced_deletion(&[("a-0", 0)]);
    world.call_ends("a-0", lost());
    world.pass(secs(10));
    assert_eq!(world.state(), StateName::Succeeded);
    assert_eq!(world.operation.counts().unverified, 1);
    let overrides = world.operation.overrides();
    let kinds: Vec<_> = overrides.iter().map(|one| (one.kind, one.instance.clone())).collect();
    assert_eq!(kinds, [(OverrideKind::Force, None), (OverrideKind::AllowUnverified, Some(id("a-0")))]);
    assert!(overrides.iter().all(|one| one.requester == "ann"));
}

#[test]
fn force_alone_does_not_stand_in_for_proof() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
    world.call_ends("a-0", lost());
    world.pass(secs(20));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::AcceptTimeout));
}

#[test]
fn allow_unverified_stands_in_for_missing_proof_but_not_for_a_live_application() {
    let mut world = World::deletion(unverified_ok()).until_stopping();
    world.pass(secs(20));
    assert_eq!((world.state(), world.operation.counts().unverified), (StateName::Succeeded, 1));

    let mut world = World::deletion(unverified_ok()).until_stopping();
    world.reports_for("a-0", 60);
    world.answer_kill("a-0", Ok(()));
    world.reports_for("a-0", 10);
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::KillTimeout));
}

#[test]
fn who_allows_it_in_a_retry_answers_for_it() {
    for strategy in [FailureStrategy::Force, FailureStrategy::GiveUp] {
        let mut world = World::deletion(once(strategy)).until_stopping();
        world.pass(secs(20));
        assert!(world.operation.advice().contains("--force --allow-unverified"), "{}", world.operation.advice());
        let bob = Caller { identity: "bob".to_owned(), reason: "the host burnt down".to_owned() };
        let overrides = PolicyOverrides { allow_unverified: Some(true), ..PolicyOverrides::default() };
        let step = world.operation.retry(world.now, &bob, true, &overrides).unwrap();
        world.take(step);
        world.feed(Input::Begin);
        world.pass(secs(10));
        assert_eq!(world.state(), StateName::Succeeded);
        let used = world.operation.overrides().last().unwrap();
        assert_eq!((used.requester.as_str(), used.instance.clone()), ("bob", Some(id("a-0"))));
    }
}

#[test]
fn the_same_permission_given_again_is_recorded_once() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    world.pass(secs(10));
    for _ in 0..5 {
        world.retry(true, &PolicyOverrides::default());
        world.pass(secs(20));
        assert_eq!(world.state(), StateName::Degraded);
    }
    assert_eq!(world.operation.overrides().len(), 1);
}

#[test]
fn a_claim_is_no_proof() {
    let mut world = World::deletion(once(FailureStrategy::GiveUp)).until_stopping();
    let claim = StopResult { evidence: Evidence::Claimed, ..result(StopOutcome::Stopped) };
    world.says("a-0", StopReport { result: Some(claim), ..report(1, StopPhase::Stopped) });
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::Unverified));
}

#[test]
fn weaker_evidence_than_the_policy_asks_for_is_no_proof() {
    let policy = Policy { min_evidence: Evidence::GroupEmpty, ..once(FailureStrategy::GiveUp) };
    let mut world = World::deletion(policy).until_stopping();
    let gone = StopResult { evidence: Evidence::ProcessGone, ..result(StopOutcome::Stopped) };
    world.says("a-0", StopReport { result: Some(gone), ..report(1, StopPhase::Stopped) });
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::Unverified));
}

#[test]
fn a_hook_that_cannot_kill_is_not_asked_for_ever() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
    world.reports_for("a-0", 60);
    world.answer_kill("a-0", Err(error(CallErrorClass::Unimplemented)));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::Unverified));
}

#[test]
fn a_broken_kill_is_repeated_until_the_hook_counts_as_gone() {
    let mut world = World::deletion(once(FailureStrategy::Force)).until_stopping();
    world.reports_for("a-0", 60);
    world.drain();
    world.answer_kill("a-0", Err(lost()));
    world.pass(secs(1));
    assert_eq!(world.kills(), 1);
    world.pass(secs(9));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::HookUnreachable));
}

#[test]
fn give_up_never_kills() {
    let mut world = World::deletion(Policy::built_in()).until_stopping();
    while world.state() != StateName::Degraded {
        world.pass(secs(5));
        world.answer_probes();
    }
    assert_eq!(world.kills(), 0);
}

#[test]
fn a_hook_that_took_it_back_says_that_it_runs_and_no_permission_covers_that() {
    let mut world = World::deletion(unverified_ok()).until_stopping();
    world.pass(secs(10));
    assert_eq!(world.state(), StateName::Forcing);
    world.ends("a-0", 1, StopOutcome::Cancelled);
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::StillRunning));
}
