//! Whole schedulers, agents and clients on simulated hosts: no seed may break a promise, and a seed replays.
//!
//! `SEEDS=N` runs N seeds (`FIRST=M` the ones from M on), `SEED=N` runs one and prints its story. Seeds that once found
//! something are in `regressions.txt` and run always. With `RUSTFLAGS="--cfg tokio_unstable"` a seed replays exactly;
//! without, tokio's own chance is not seeded, and a seed stands for the same plan only.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use quiesce_simulation::stack;

/// How many seeds a bare `cargo test` runs; CI runs more.
const SEEDS: u64 = 6;
/// Seeds with troubles of every kind, to be replayed.
#[cfg(tokio_unstable)]
const REPLAYED: [u64; 3] = [6, 7, 8];
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

/// Chance inside tokio is seeded only then.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_replays_line_by_line_in_another_process() {
    for seed in REPLAYED {
        let here = stack::run(seed).story;
        let other = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "no_seed_breaks_a_promise", "--nocapture"])
            .env("SEED", seed.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8(other.stdout).unwrap();
        let there: Vec<_> = text.lines().skip_while(|line| *line != here[0]).take(here.len()).collect();
        let parting = here.iter().zip(&there).position(|(here, there)| here != there);
        assert_eq!(parting.map(|line| (&here[line], there[line])), None, "seed {seed} parts at line {parting:?}");
        assert_eq!(here.len(), there.len(), "seed {seed} ends early");
    }
}

/// Runs all seeds, as many at a time as there are processors; what fails is shown at once.
fn all_good(seeds: Vec<u64>) {
    let left = Mutex::new(seeds.iter().rev().copied().collect::<Vec<_>>());
    let bad = Mutex::new(Vec::new());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let run = stack::run(seed);
                    if !run.is_good() {
                        let last = run.story.len().saturating_sub(LAST_LINES);
                        println!("seed {seed} ended so:\n{}\n", run.story[last..].join("\n"));
                        let failure = format!("SEED={seed}\n  {}", run.violations.join("\n  "));
                        bad.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    let bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(bad.is_empty(), "{} of {} seeds failed; each replays alone:\n{}", bad.len(), seeds.len(), bad.join("\n"));
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
