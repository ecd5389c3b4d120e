//! What was stored is whole, or refused.

use super::*;
use crate::member::Run;
use crate::operation::{COUNTED_TOO_FAR, State};
use crate::start::StartRun;

type Break = fn(&mut Operation);

#[test]
fn broken_data_is_refused() {
    let breaks: [(&str, Break); 14] = [
        ("round 0", |operation| operation.round = 0),
        (COUNTED_TOO_FAR, |operation| operation.round = u32::MAX),
        (COUNTED_TOO_FAR, |operation| operation.tries = u32::MAX),
        (COUNTED_TOO_FAR, |operation| operation.serial = u32::MAX),
        (COUNTED_TOO_FAR, |operation| operation.epoch = u64::MAX),
        ("an instance behind the gate that has not ended", |operation| operation.state = State::Starting),
        ("a migration without a target", |operation| operation.request.target = None),
        ("an end without a final state, or the other way round", |operation| operation.ended = Some(operation.updated)),
        ("a fence from the future", |operation| operation.tries = 0),
        ("an epoch from the future", |operation| operation.starts[0].epoch = 99),
        ("a policy out of bounds", |operation| operation.policy.max_attempts = 0),
        ("a shutdown under way that nothing is known of", |operation| operation.members[0].shutdown = None),
        ("a start without permission", |operation| {
            let until = operation.updated;
            operation.starts[0].run = StartRun::Ordered { until, heard_until: until, again: None };
        }),
        ("an instance twice", |operation| operation.starts[0].instance = operation.members[0].instance.clone()),
    ];
    let world = World::migration(Policy::built_in()).until_stopping();
    assert!(matches!(world.operation.members[0].run, Run::Calling { .. }));
    assert_eq!(world.operation.validate(), Ok(()));
    for (what, spoil) in breaks {
        let mut operation = world.operation.clone();
        spoil(&mut operation);
        assert_eq!(operation.validate().unwrap_err().what, what);
    }
}

#[test]
fn whoever_was_not_asked_in_forcing_is_killed_and_does_not_pass_for_stopped() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    let operation = &mut world.operation;
    operation.state = State::Forcing;
    operation.members[0].run = Run::Waiting;
    assert_eq!(operation.validate(), Ok(()));
    let step = operation.recover(operation.updated());
    assert_eq!(operation.state(), StateName::Forcing);
    assert!(matches!(operation.members[0].run, Run::Calling { then_kill: true, .. }));
    assert!(step.effects.iter().any(|effect| matches!(effect, Effect::Shutdown { .. })));
}

#[test]
fn times_that_were_stored_too_long_are_counted_on_with() {
    let mut world = World::migration(Policy::built_in()).until_stopping();
    let operation = &mut world.operation;
    let now = operation.updated();
    let again = Some(crate::member::Again { at: now, pause: Duration::MAX });
    operation.members[0].run = Run::Calling { until: now, again, then_kill: false };
    operation.spent = Duration::MAX;
    let shutdown = operation.members[0].shutdown.as_mut().unwrap();
    shutdown.extension = Duration::MAX;
    let (instance, attempt) = (operation.members[0].instance.clone(), operation.members[0].fence());
    let _step = operation.extend(now, Duration::from_secs(600)).unwrap();
    let error = crate::report::CallError {
        class: crate::report::CallErrorClass::Lost,
        grpc_code: String::new(),
        message: String::new(),
    };
    let _step = operation.handle(now, Input::StopCallEnded { instance, attempt, error });
    let _step = operation.handle_deadline(now + Duration::from_secs(3600));
    assert_eq!(operation.validate(), Ok(()));
}

#[test]
fn names_are_checked_when_they_are_read() {
    let stored = minicbor::to_vec("Not A Name").unwrap();
    assert!(minicbor::decode::<ApplicationId>(&stored).is_err());
}

#[test]
fn cut_data_is_refused_and_does_not_panic() {
    let world = World::migration(Policy::built_in()).until_stopping();
    let stored = minicbor::to_vec(&world.operation).unwrap();
    for end in 0..stored.len() {
        assert!(minicbor::decode::<Operation>(&stored[..end]).is_err(), "{end} bytes");
    }
}
