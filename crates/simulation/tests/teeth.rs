//! Whether the simulation would notice: every bug that can be switched on has to break a law.
//!
//! `cargo test -p quiesce-simulation --features mutants --test teeth`

#![cfg(feature = "mutants")]
#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

use quiesce_mutation::{Mutant, switch};
use quiesce_simulation::world;

/// A bug that needs more seeds to show than this would not be noticed by a person's first run either.
const SEEDS_MAX: u64 = 4_000;

/// The first seed in which `mutant` breaks a law, and which.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    switch(Some(mutant));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let violations = world::run(seed, false).violations;
        violations.first().map(|violation| (seed, violation.to_string()))
    });
    switch(None);
    found
}

#[test]
fn every_mutant_breaks_a_law() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let missed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    match found(*mutant) {
                        Some((seed, violation)) => println!("{mutant:?}: seed {seed} breaks {violation}"),
                        None => missed.lock().unwrap().push(*mutant),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not noticed within {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn without_a_mutant_nothing_is_broken() {
    switch(None);
    assert!((0..50).all(|seed| world::run(seed, false).violations.is_empty()));
}
