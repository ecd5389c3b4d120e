//! Every interleaving of a small protocol, one after the other: the production machine, two agents, a network that
//! delays, doubles, loses and reorders, a scheduler that dies at any moment, people who cancel and force.
//!
//! Where `tests/machine` draws worlds at random, this searches all of one world within its bounds and says so:
//!
//! - [`world`]: what can happen next, and what follows from it;
//! - [`message`]: what is on its way, and what hooks answer;
//! - [`canon`]: when two worlds are the same;
//! - [`invariants`]: what must hold in each of them;
//! - [`flaw`]: what may be wrong with driver and agents, to show that the search has teeth;
//! - [`search`]: breadth first, so that a counterexample is the shortest story there is.
//!
//! `MODEL_FAULTS=2 cargo test -p quiesce-operation --test model` searches further than a plain `cargo test`.

#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

mod canon;
mod flaw;
#[path = "../machine/hook.rs"]
#[allow(dead_code, reason = "the random worlds of tests/machine ask more of it")]
mod hook;
mod invariants;
mod message;
mod search;
mod world;

use quiesce_operation::{FailureStrategy, Kind};

use flaw::Flaw;
use search::{Figures, Story, explore};
use world::{Faults, Setup, World};

/// Faults in one run, of whatever kind, in a plain `cargo test`: the most that is exhausted within seconds.
const FAULTS: u8 = 1;

fn faults() -> u8 {
    std::env::var("MODEL_FAULTS").map_or(FAULTS, |faults| faults.parse().expect("MODEL_FAULTS is a small number"))
}

const MIGRATION: Setup = Setup {
    name: "migration",
    kind: Kind::Migrate,
    strategy: FailureStrategy::GiveUp,
    attempts: 1,
    cancels: 0,
    forces: 0,
    claims: false,
    unkillable: false,
    faults: Faults::Any,
    flaw: None,
};

const DELETION: Setup = Setup { name: "deletion with a standby", kind: Kind::Delete, ..MIGRATION };

/// Faults it takes to find what is wrong on purpose.
const TEETH: u8 = 2;

fn search(setup: Setup, faults: u8) -> Result<Figures, Story> {
    explore(World::new(&setup, faults))
}

/// All of it, and nothing broken.
fn holds(setup: Setup) {
    let (name, kinds) = (setup.name, setup.faults);
    let faults = faults();
    match search(setup, faults) {
        Ok(figures) => figures.print(&format!("{name}, {kinds:?}"), faults),
        Err(story) => panic!("{name}, {faults} faults: {story}"),
    }
}

/// With `kinds` of faults, one after the other: all together they take longer than a plain `cargo test` may.
/// `MODEL_KINDS=together` searches all of them.
fn holds_with(setup: Setup, kinds: &[Faults]) {
    if std::env::var("MODEL_KINDS").is_ok_and(|kinds| kinds == "together") {
        return holds(setup);
    }
    for &faults in kinds {
        holds(Setup { faults, ..setup.clone() });
    }
}

#[test]
fn a_migration_that_is_cancelled_at_any_time() {
    holds_with(Setup { name: "migration, cancel", cancels: 1, ..MIGRATION }, &[Faults::Crashes]);
}

#[test]
fn a_migration_that_is_forced_by_a_person() {
    holds_with(Setup { name: "migration, retry --force", forces: 1, ..MIGRATION }, &[Faults::Time]);
}

#[test]
fn a_migration_that_is_forced_by_its_policy() {
    holds(Setup { name: "migration, strategy FORCE", strategy: FailureStrategy::Force, ..MIGRATION });
}

#[test]
fn a_migration_with_two_attempts() {
    holds(Setup { name: "migration, 2 attempts", attempts: 2, ..MIGRATION });
}

#[test]
fn a_migration_of_what_cannot_be_killed() {
    let strategy = FailureStrategy::Force;
    holds(Setup { name: "migration, unkillable", strategy, unkillable: true, ..MIGRATION });
}

#[test]
fn a_migration_whose_agents_only_claim_the_end() {
    holds_with(Setup { name: "migration, mere claims", claims: true, ..MIGRATION }, &[Faults::Time]);
}

#[test]
fn a_deletion_that_is_cancelled_at_any_time_and_out_of_degraded() {
    let kinds = [Faults::Crashes, Faults::Network, Faults::Time];
    holds_with(Setup { name: "deletion, cancel", cancels: 1, ..DELETION }, &kinds);
}

#[test]
fn a_deletion_that_is_forced_by_a_person() {
    holds_with(Setup { name: "deletion, retry --force", forces: 1, ..DELETION }, &[Faults::Time]);
}

#[test]
fn a_deletion_that_is_forced_by_its_policy() {
    holds(Setup { name: "deletion, strategy FORCE", strategy: FailureStrategy::Force, ..DELETION });
}

/// Found, within a few faults, as a breach of that invariant.
fn finds(setup: Setup, invariant: &str) {
    let story = search(setup, TEETH).expect_err("what is wrong has to be found");
    assert!(story.broken.starts_with(invariant), "{story}");
    assert!(!story.steps.is_empty(), "{story}");
}

#[test]
fn a_driver_that_acts_before_it_writes_is_found() {
    finds(Setup { flaw: Some(Flaw::ActsBeforeWriting), cancels: 1, ..MIGRATION }, "I4: CANCELLED, but");
}

#[test]
fn a_driver_whose_clock_begins_anew_after_a_crash_is_found() {
    finds(Setup { flaw: Some(Flaw::ClockBeginsAnew), ..MIGRATION }, "I3: ");
}

#[test]
fn a_driver_that_believes_claims_is_found() {
    finds(Setup { flaw: Some(Flaw::BelievesClaims), claims: true, ..MIGRATION }, "I");
}

#[test]
fn a_driver_that_takes_a_broken_connection_for_the_end_is_found() {
    finds(Setup { flaw: Some(Flaw::TakesSilenceForTheEnd), ..MIGRATION }, "I");
}

#[test]
fn an_agent_that_uses_an_epoch_again_is_found() {
    finds(Setup { flaw: Some(Flaw::ReusesEpochs), ..MIGRATION }, "I2: ");
}

#[test]
fn an_agent_that_forgets_its_shutdowns_is_found() {
    finds(Setup { flaw: Some(Flaw::ForgetsShutdowns), ..MIGRATION }, "I3: ");
}
