//! Whole schedulers, agents and clients on simulated hosts: no seed may break a promise, and a seed replays.
//!
//! `SEEDS=N` runs N seeds (`FIRST=M` the ones from M on), `SEED=N` runs one and prints its story. Seeds that once found
//! something are in `regressions.txt` and run always. With `RUSTFLAGS="--cfg tokio_unstable"` a seed replays exactly;
//! without, tokio's own chance is not seeded, and a seed stands for the same plan only.
//!
//! Each seed lives in a process of its own: tokio counts its tasks for the whole process, and drops those of a crashed
//! host in an order that depends on the count.

use std::num::NonZero;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::thread;

use quiesce_simulation::stack;

/// How many seeds a bare `cargo test` runs; CI runs more.
const SEEDS: u64 = 6;
/// Seeds with troubles of every kind, to be replayed.
#[cfg(tokio_unstable)]
const REPLAYED: [u64; 4] = [6, 7, 8, 270];
/// Lines of the story that are shown of a seed that failed; `SEED=N` shows all.
const LAST_LINES: usize = 60;

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        let run = stack::run(seed);
        println!("{}", run.story.join("\n"));
        assert!(run.is_good(), "SEED={seed}\n  {}", run.violations.join("\n  "));
        return;
    }
    let first = number("FIRST").unwrap_or(1);
    let count = number("SEEDS").unwrap_or(SEEDS);
    all_good((first..first + count).collect());
}

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    let lines = include_str!("regressions.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = |line: &str| line.split(' ').next().and_then(|seed| seed.parse().ok());
    all_good(lines.map(|line| seed(line).expect("a line begins with its seed")).collect());
}

/// Chance inside tokio is seeded only then.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_replays_line_by_line_in_another_process() {
    for seed in REPLAYED {
        let (once, again) = (story(&live(seed)), story(&live(seed)));
        assert!(!once.is_empty(), "seed {seed} has no story");
        let parting = once.iter().zip(&again).find(|(once, again)| once != again);
        assert_eq!(parting, None, "seed {seed} parts there");
        assert_eq!(once.len(), again.len(), "seed {seed} ends early");
    }
}

/// The lines that begin with a time.
#[cfg(tokio_unstable)]
fn story(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let is_told = |line: &&str| line.starts_with(|first: char| first.is_ascii_digit());
    text.lines().filter(is_told).map(str::to_owned).collect()
}

/// Lives through `seed` in a process of its own.
fn live(seed: u64) -> Output {
    Command::new(std::env::current_exe().expect("a test knows its own program"))
        .args(["--exact", "no_seed_breaks_a_promise", "--nocapture"])
        .env("SEED", seed.to_string())
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("a test can run itself")
}

/// Runs all seeds, as many at a time as there are processors; what fails is shown at once.
#[expect(clippy::print_stdout, reason = "what failed is seen before all seeds are through")]
fn all_good(seeds: Vec<u64>) {
    let left = Mutex::new(seeds.iter().rev().copied().collect::<Vec<_>>());
    let bad = Mutex::new(Vec::new());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some(seed) = next() {
            let output = live(seed);
            if !output.status.success() {
                let story = String::from_utf8_lossy(&output.stdout).into_owned();
                let lines: Vec<_> = story.lines().collect();
                let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
                println!("seed {seed} ended so:\n{last}\n{}", String::from_utf8_lossy(&output.stderr));
                bad.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    let bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(bad.is_empty(), "{} of {} seeds failed, see above; SEED=N replays one: {bad:?}", bad.len(), seeds.len());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}
