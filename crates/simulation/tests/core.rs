//! Many seeds of the whole world in memory. `SIMULATION_SEEDS` says how many; the seeds that failed once come first, from
//! `core_regressions.txt`.

#![allow(clippy::unwrap_used, reason = "tests panic, so that the failing line is shown")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use quiesce_operation::StateName;
use quiesce_simulation::world;

/// Seeds of a plain `cargo test`: some seconds.
const SEEDS: u64 = 60;

fn wanted() -> u64 {
    std::env::var("SIMULATION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS)
}

/// Runs `seeds` on all processors; those that break a law, with how.
fn failing(seeds: &[u64]) -> Vec<String> {
    let next = AtomicU64::new(0);
    let failing = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    let broken = world::run(*seed, false).violations;
                    let broken = broken.iter().map(|violation| format!("seed {seed} breaks {violation}"));
                    failing.lock().unwrap().extend(broken);
                }
            });
        }
    });
    failing.into_inner().unwrap()
}

#[test]
fn no_seed_breaks_a_law() {
    let regressions = include_str!("core_regressions.txt").lines().filter_map(|line| line.split_whitespace().next());
    let mut seeds: Vec<u64> = regressions.filter_map(|seed| seed.parse().ok()).collect();
    assert!(!seeds.is_empty(), "the seeds that found something are kept");
    seeds.extend(0..wanted());
    let failing = failing(&seeds);
    assert!(
        failing.is_empty(),
        "{}\nread the story of a seed with\n  SEED=N just sim\nand keep it in core_regressions.txt",
        failing.join("\n")
    );
    println!("{} seeds, no law broken", seeds.len());
}

/// Only with `--cfg tokio_unstable` can tokio's own chance be given a seed.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_is_one_story() {
    for seed in 0..40 {
        let (one, other) = (world::run(seed, true), world::run(seed, true));
        for (line, (one, other)) in one.story.iter().zip(&other.story).enumerate() {
            assert_eq!(one, other, "seed {seed} tells another story from line {line} on");
        }
        assert_eq!(one.story.len(), other.story.len());
    }
}

#[test]
fn the_worlds_come_to_all_kinds_of_ends() {
    let mut ends: Vec<StateName> = (0..40).flat_map(|seed| world::run(seed, false).ends).collect();
    ends.sort_by_key(|end| end.as_str());
    ends.dedup();
    for end in [StateName::Succeeded, StateName::RolledBack] {
        assert!(ends.contains(&end), "{} does not occur: the worlds are too gentle, or too harsh", end.as_str());
    }
}
