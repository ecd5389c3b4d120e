//! Whole schedulers, agents and clients on simulated hosts: no seed may break a promise, and a seed replays.
//!
//! `SEEDS=N` runs N seeds (`FIRST=M` the ones from M on), `SEED=N` runs one and prints its story. Seeds that once found
//! something are in `regressions.txt` and run always. With `RUSTFLAGS="--cfg tokio_unstable"` a seed replays exactly;
//! without, tokio's own chance is not seeded, and a seed stands for the same plan only.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use quiesce_simulation::stack::{self, Run};

/// How many seeds a bare `cargo test` runs; CI runs more.
const SEEDS: u64 = 6;
/// Lines of the story that are shown of a seed that failed; `SEED=N` shows all.
const LAST_LINES: usize = 60;

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        let run = stack::run(seed);
        println!("{}", run.story.join("\n"));
        assert!(run.is_good(), "seed {seed}:\n{}", run.violations.join("\n"));
        return;
    }
    let first = number("FIRST").unwrap_or(1);
    let count = number("SEEDS").unwrap_or(SEEDS);
    all_good((first..first + count).collect());
}

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    let seeds = include_str!("regressions.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = |line: &str| {
        line.split_whitespace().next().and_then(|seed| seed.parse().ok()).expect("a line begins with its seed")
    };
    all_good(seeds.map(seed).collect());
}

/// Runs all seeds, as many at a time as there are processors.
fn all_good(seeds: Vec<u64>) {
    let next = AtomicU64::new(0);
    let bad: Mutex<Vec<Run>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(seed) =
                    usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|place| seeds.get(place))
                {
                    let run = stack::run(*seed);
                    if !run.is_good() {
                        bad.lock().unwrap_or_else(PoisonError::into_inner).push(run);
                    }
                }
            });
        }
    });
    let mut bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    bad.sort_by_key(|run| run.seed);
    for run in &bad {
        println!("seed {} ended so:", run.seed);
        println!("{}\n", run.story[run.story.len().saturating_sub(LAST_LINES)..].join("\n"));
    }
    let violations: Vec<_> =
        bad.iter().map(|run| format!("SEED={}:\n  {}", run.seed, run.violations.join("\n  "))).collect();
    assert!(
        bad.is_empty(),
        "{} of {} seeds failed; replay one with SEED=N\n{}",
        bad.len(),
        seeds.len(),
        violations.join("\n")
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
