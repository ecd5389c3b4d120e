//! Runs many seeds and tells of those that break a law, or tells the story of one.
//!
//! ```text
//! just sim SEEDS=100000        seeds 0 to 99,999
//! SEED=4711 just sim           one seed, with its story
//! ```
//!
//! A second number is a block: `simulate 100000 7` runs seeds 700,000 to 799,999. With `FINGERPRINTS` set, each seed is
//! printed with a number that stands for its whole story: what makes the simulation faster must not change any.

#![allow(clippy::print_stdout, reason = "this is a program for people")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quiesce_simulation::world::{self, Outcome};

/// How many failing seeds are shown; each of them may take a person a day.
const SHOWN_MAX: usize = 20;

fn main() -> ExitCode {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return tell(seed);
    }
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let count = arguments.next().unwrap_or(1_000);
    let block = arguments.next().unwrap_or(0);
    many(block * count, count)
}

fn tell(seed: u64) -> ExitCode {
    let Outcome { violations, story, .. } = world::run(seed, true);
    for line in story {
        println!("{line}");
    }
    for violation in &violations {
        println!("seed {seed} breaks {violation}");
    }
    ExitCode::from(u8::from(!violations.is_empty()))
}

/// A number that differs when anything in the story does.
fn fingerprint(outcome: &Outcome) -> u64 {
    let mut hasher = DefaultHasher::new();
    outcome.story.hash(&mut hasher);
    hasher.finish()
}

fn many(first: u64, count: u64) -> ExitCode {
    let fingerprints = std::env::var_os("FINGERPRINTS").is_some();
    let begin = Instant::now();
    let next = AtomicU64::new(first);
    let ends: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let simulated = Mutex::new(Duration::ZERO);
    let failing: Mutex<Vec<u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = world::run(seed, fingerprints);
                    if fingerprints {
                        println!("seed {seed} is {:016x}", fingerprint(&outcome));
                    }
                    *simulated.lock().expect("no run panics") += outcome.simulated;
                    let mut ends = ends.lock().expect("no run panics");
                    for end in outcome.ends {
                        *ends.entry(end.as_str()).or_default() += 1;
                    }
                    drop(ends);
                    if !outcome.violations.is_empty() {
                        let mut failing = failing.lock().expect("no run panics");
                        if failing.len() < SHOWN_MAX {
                            for violation in &outcome.violations {
                                println!("seed {seed} breaks {violation}");
                            }
                        }
                        failing.push(seed);
                    }
                }
            });
        }
    });
    let took = begin.elapsed();
    let simulated = simulated.into_inner().expect("no run panics");
    let mut failing = failing.into_inner().expect("no run panics");
    failing.sort_unstable();
    println!("operations: {:?}", ends.into_inner().expect("no run panics"));
    println!(
        "{count} seeds from {first} in {took:.1?} ({:.0}/s), {:.1} days of simulated time",
        count as f64 / took.as_secs_f64(),
        simulated.as_secs_f64() / 86_400.0
    );
    println!("{} seeds break a law: {:?}", failing.len(), &failing[..failing.len().min(SHOWN_MAX)]);
    ExitCode::from(u8::from(!failing.is_empty()))
}
