//! Whatever happens in the small world, the invariants hold. `PROPTEST_CASES` runs more of it; a case that failed once is
//! kept in `regressions.txt` and tried first.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use quiesce_operation::{FailureStrategy, Kind, Placement, Policy};

use crate::contract;
use crate::hook::Temper;
use crate::world::{Happening, Setup, World};

/// Cases of a plain `cargo test`: a few seconds.
const CASES: u32 = 400;

fn temper() -> impl Strategy<Value = Temper> {
    let ends_after = prop_oneof![4 => (0_u8..4).prop_map(Some), 1 => Just(None)];
    let comes_up = prop_oneof![3 => Just(Some(true)), 2 => Just(Some(false)), 1 => Just(None)];
    let wants = prop_oneof![3 => Just(None), 1 => prop::sample::select(vec![6, 9, 40]).prop_map(|s| Some(Duration::from_secs(s)))];
    let rarely = || prop::bool::weighted(0.1);
    (ends_after, rarely(), rarely(), rarely(), comes_up, rarely(), wants).prop_map(
        |(ends_after, gives_up, claims, unkillable, comes_up, forgetful, wants)| Temper {
            ends_after,
            gives_up,
            claims,
            unkillable,
            comes_up,
            forgetful,
            wants,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let strategy = prop_oneof![Just(FailureStrategy::GiveUp), Just(FailureStrategy::Force)];
    let seconds = |values: &'static [u64]| prop::sample::select(values).prop_map(Duration::from_secs);
    (
        strategy,
        any::<bool>(),
        any::<bool>(),
        1_u32..4,
        0_u32..3,
        seconds(&[0, 5, 20]),
        seconds(&[0, 15]),
        seconds(&[1, 6]),
    )
        .prop_map(|(failure_strategy, allow_unverified, hold, attempts, parallel, grace, overall, heartbeat)| {
            Policy {
                failure_strategy,
                allow_unverified,
                hold_on_unclean_exit: hold,
                max_attempts: attempts,
                max_parallel_stops: parallel,
                max_extension: grace / 2,
                grace_period: grace,
                overall_timeout: overall,
                heartbeat_timeout: heartbeat,
                ..Policy::built_in()
            }
        })
}

fn setup() -> impl Strategy<Value = Setup> {
    let kind = prop_oneof![3 => Just((Kind::Migrate, false)), 1 => Just((Kind::Delete, false)), 1 => Just((Kind::Delete, true))];
    let placement = prop_oneof![
        4 => Just(Placement::Agents),
        1 => Just(Placement::External { require_confirmation: true }),
        1 => Just(Placement::External { require_confirmation: false }),
    ];
    let sources = prop::collection::vec((temper(), 0..2), 1..4);
    let targets = prop::collection::vec((temper(), 0..2), 1..3);
    (kind, placement, policy(), sources, targets).prop_map(|((kind, force), placement, policy, sources, targets)| {
        Setup { kind, placement, force, policy, sources, targets }
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        10 => (1_u8..6).prop_map(Happening::Flow),
        6 => any::<u16>().prop_map(Happening::Arrives),
        3 => any::<u16>().prop_map(Happening::Lost),
        3 => any::<u16>().prop_map(Happening::Doubled),
        14 => any::<u8>().prop_map(Happening::Tick),
        4 => (0_u16..3000).prop_map(Happening::Wait),
        3 => Just(Happening::Due),
        2 => any::<bool>().prop_map(Happening::Crash),
        1 => any::<u8>().prop_map(Happening::AgentRestart),
        1 => any::<u8>().prop_map(Happening::Cut),
        1 => Just(Happening::Cancel),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(force, unverified)| Happening::Retry { force, unverified }),
        1 => (0_u16..120).prop_map(Happening::Extend),
        1 => Just(Happening::Confirm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/machine/regressions.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_invariants_hold_whatever_happens(
        setup in setup(),
        happenings in prop::collection::vec(happening(), 0..150),
    ) {
        let mut world = World::new(&setup);
        for happening in happenings {
            world.happens(happening);
        }
        world.settles();
        let table = contract::transitions();
        for moved in &world.seen {
            prop_assert!(table.contains(moved), "{moved:?} is not in the table of the contract");
        }
    }
}
