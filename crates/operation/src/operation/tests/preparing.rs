//! PREPARING refuses early, before anything has happened to the application.

use super::*;

#[test]
fn a_target_that_does_not_stand_by_keeps_the_source_running() {
    for bad in [
        probe(AppState::Running),
        Probe { capabilities: Capabilities { start: false, ..ALL }, ..probe(AppState::Held) },
        Probe { cannot_start: "there is no executable db".to_owned(), ..probe(AppState::Held) },
    ] {
        let mut world = World::migration(once(FailureStrategy::Force));
        world.feed(Input::Begin);
        world.answer_probe("b-0", Ok(bad));
        world.answer_probe("a-0", Ok(probe(AppState::Running)));
        assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::CheckFailed));
        assert!(world.drain().is_empty(), "nothing is stopped, let alone killed");
    }
}

#[test]
fn a_target_that_is_not_ready_keeps_even_a_broken_source_from_being_killed() {
    let mut world = World::migration(once(FailureStrategy::Force));
    world.feed(Input::Begin);
    world.answer_probe("b-0", Ok(probe(AppState::Running)));
    world.answer_probe("a-0", Err(error(CallErrorClass::Rejected)));
    assert_eq!((world.state(), world.kills()), (StateName::Degraded, 0));
}

#[test]
fn a_target_that_cannot_be_reached_keeps_the_source_running() {
    let mut world = World::migration(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    world.answer_probe("a-0", Ok(probe(AppState::Running)));
    world.answer_probe("b-0", Err(lost()));
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::HookUnreachable));
    assert!(world.told().is_empty());
    world.cancel();
    assert_eq!(world.state(), StateName::Cancelled);
}

#[test]
fn a_hook_that_says_no_or_nothing_fails_the_attempt() {
    let no = Probe { ready: false, findings: vec!["SIGTERM is ignored".to_owned()], ..probe(AppState::Running) };
    let mut world = World::deletion(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    world.answer_probe("a-0", Ok(no));
    assert_eq!(world.reason(), Reason::CheckFailed);
    assert!(world.operation.failure().unwrap().message.contains("SIGTERM is ignored"));

    let mut world = World::deletion(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::AcceptTimeout));
}

#[test]
fn a_source_out_of_reach_is_killed_if_the_policy_says_so_and_the_proof_is_missing() {
    let mut world = World::deletion(once(FailureStrategy::Force));
    world.feed(Input::Begin);
    world.pass(secs(10));
    assert_eq!(world.state(), StateName::Forcing);
    world.pass(secs(10));
    assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::AcceptTimeout));
}

#[test]
fn nothing_follows_from_no_instances() {
    for (sources, targets) in [(&[][..], &[("b-0", 0)][..]), (&[("a-0", 0)][..], &[][..])] {
        let mut world = World::new(request(Kind::Migrate), once(FailureStrategy::Force), sources, targets);
        world.feed(Input::Begin);
        world.answer_probes();
        assert_eq!((world.state(), world.reason()), (StateName::Degraded, Reason::CheckFailed));
        assert!(world.drain().is_empty());
    }
}

#[test]
fn a_hook_cannot_use_up_the_epochs() {
    let mut world = World::migration(once(FailureStrategy::GiveUp));
    world.feed(Input::Begin);
    world.answer_probe("a-0", Ok(Probe { epoch: u64::MAX, ..probe(AppState::Running) }));
    world.answer_probe("b-0", Ok(Probe { epoch: 40, ..probe(AppState::Held) }));
    assert_eq!((world.state(), world.operation.epoch()), (StateName::Degraded, 40));
    assert_eq!(world.reason(), Reason::ProtocolError);
}
