//! What was stored is whole, or refused.

use super::*;
use crate::member::Run;
use crate::start::StartRun;

type Break = fn(&mut Operation);

#[test]
fn broken_data_is_refused() {
    let breaks: [(&str, Break); 9] = [
        ("round 0", |operation| operation.round = 0),
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
