//! Chaos: a Redis moves to and fro under a client that never stops writing, while everything around it is struck at
//! random moments. Whatever was struck, every acknowledged write is there, there never are two servers, nobody is told
//! to stop twice for one attempt, and every operation ends or says what to do.
//!
//! `QUIESCE_CHAOS_MIGRATIONS` says how many migrations, `QUIESCE_CHAOS_SEED` where and when the strikes fall; the seed
//! is printed. A seed that has found something goes into `chaos/seeds.txt`.

mod plan;
mod tally;
mod unit;
mod world;

use std::time::Duration;

use quiesce_runtime::clock::wall_now;

use plan::strikes;
use world::World;

/// Migrations of a run when nobody says how many: CI is to end, and strikes of all kinds come up.
const MIGRATIONS: u64 = 25;

/// Seeds of migrations that have failed once, `SEED NUMBER  # what it was`.
const SEEDS: &str = include_str!("chaos/seeds.txt");

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name} is to be a number, not {text:?}: {error}")))
}

/// Any number does; another one at each run, so that runs add up.
fn fresh_seed() -> u64 {
    let since = wall_now().duration_since(std::time::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

#[tokio::test]
async fn redis_survives_whatever_is_struck_while_it_moves() {
    let migrations = setting("QUIESCE_CHAOS_MIGRATIONS").unwrap_or(MIGRATIONS);
    let seed = setting("QUIESCE_CHAOS_SEED").unwrap_or_else(fresh_seed);
    println!("QUIESCE_CHAOS_SEED={seed} QUIESCE_CHAOS_MIGRATIONS={migrations}");
    let mut world = World::start().await;
    for number in 0..migrations {
        world.migrate(&format!("{seed} {number}"), strikes(seed, number)).await;
    }
    println!("{}", world.end().await);
}

#[tokio::test]
async fn what_failed_once_does_not_fail_again() {
    let known: Vec<_> = SEEDS.lines().filter_map(|line| line.split('#').next()).map(str::trim).collect();
    let mut world = World::start().await;
    for line in known.into_iter().filter(|line| !line.is_empty()) {
        let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let [seed, number] = numbers[..] else { panic!("not SEED NUMBER: {line}") };
        world.migrate(line, strikes(seed, number)).await;
    }
    println!("{}", world.end().await);
}
