//! How fast commits become durable: the store, the engines it could stand on, and the bare disk below them, in one run.
//!
//! ```text
//! cargo run --release -p quiesce-store --example commit_rate [--features measure-fjall] [DIRECTORY]
//! ```
//!
//! Each writer puts a record of 512 bytes under a new, time-ordered key, waits until it is durable, and puts the next.
//! `log`, `redb` and `fjall` share one committer loop, the one the store has: block for the first, take what waits, one
//! durable write for all. `store` is `EmbeddedStore`, with everything it does on top. Use the ratios: the speed of a disk
//! depends on the day. The figures the choice of engine rests on are in `docs/decisions/`.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use quiesce_store::embedded::{EmbeddedStore, Options};
use quiesce_store::{Batch, Space, Store};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// The engines take turns, a slice of time each, and the table shows medians: disks change their mood within seconds.
const SLICE: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
const WRITERS: [usize; 3] = [1, 64, 1000];
const VALUE_BYTES: usize = 512;
/// As in the store: queue and group hold as many as can wait.
const QUEUE_MAX: usize = 1024;
const RECORDS: redb::TableDefinition<'static, &[u8], &[u8]> = redb::TableDefinition::new("records");

/// Something that makes a group of records durable with one sync.
trait Engine: Send + 'static {
    fn commit(&mut self, group: &[Put]) -> anyhow::Result<()>;
}

struct Put {
    key: String,
    value: Vec<u8>,
    done: oneshot::Sender<()>,
}

struct Log(File);

impl Engine for Log {
    fn commit(&mut self, group: &[Put]) -> anyhow::Result<()> {
        let bytes: Vec<u8> = group.iter().flat_map(|put| [put.key.as_bytes(), &put.value].concat()).collect();
        self.0.write_all(&bytes)?;
        Ok(self.0.sync_data()?)
    }
}

struct Redb(redb::Database);

impl Engine for Redb {
    fn commit(&mut self, group: &[Put]) -> anyhow::Result<()> {
        let transaction = self.0.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for put in group {
                records.insert(put.key.as_bytes(), put.value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(feature = "measure-fjall")]
struct Fjall(fjall::Database, fjall::Keyspace);

#[cfg(feature = "measure-fjall")]
impl Engine for Fjall {
    fn commit(&mut self, group: &[Put]) -> anyhow::Result<()> {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
        for put in group {
            batch.insert(&self.1, put.key.as_bytes(), put.value.as_slice());
        }
        Ok(batch.commit()?)
    }
}

/// What is measured, in the order of the rows.
const NAMES: &[&str] = &[
    "log",
    "redb",
    #[cfg(feature = "measure-fjall")]
    "fjall",
    "store",
];

/// What one slice of time showed.
struct Slice {
    puts: f64,
    syncs: f64,
    p50: Duration,
    p99: Duration,
}

fn main() -> anyhow::Result<()> {
    let parent = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let parent = tempfile::tempdir_in(parent).context("a directory on the disk to measure")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    println!(
        "{:7} {:6} {:>9} {:>9} {:>8} {:>8} {:>7}",
        "writers", "engine", "puts/s", "syncs/s", "p50 us", "p99 us", "to log"
    );
    for writers in WRITERS {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            let mut slices = Vec::new();
            for name in NAMES {
                let path = parent.path().join(format!("{name}-{writers}-{round}"));
                slices.push(measure(&runtime, name, writers, &path)?);
            }
            rounds.push(slices);
        }
        for (row, name) in NAMES.iter().enumerate() {
            let of = |value: &dyn Fn(&[Slice]) -> f64| median(rounds.iter().map(|slices| value(slices)).collect());
            println!(
                "{writers:7} {name:6} {:9.0} {:9.0} {:8.0} {:8.0} {:7.2}",
                of(&|slices| slices[row].puts),
                of(&|slices| slices[row].syncs),
                of(&|slices| slices[row].p50.as_secs_f64() * 1e6),
                of(&|slices| slices[row].p99.as_secs_f64() * 1e6),
                of(&|slices| slices[row].puts / slices[0].puts),
            );
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(runtime: &tokio::runtime::Runtime, name: &str, writers: usize, path: &Path) -> anyhow::Result<Slice> {
    match name {
        "log" => measure_engine(runtime, writers, Log(File::create(path)?)),
        "redb" => measure_engine(runtime, writers, Redb(redb::Database::create(path)?)),
        #[cfg(feature = "measure-fjall")]
        "fjall" => {
            let database = fjall::Database::builder(path).open()?;
            let records = database.keyspace("records", fjall::KeyspaceCreateOptions::default)?;
            measure_engine(runtime, writers, Fjall(database, records))
        }
        _ => measure_store(runtime, writers, path),
    }
}

fn measure_engine(runtime: &tokio::runtime::Runtime, writers: usize, mut engine: impl Engine) -> anyhow::Result<Slice> {
    let (sender, mut queue) = mpsc::channel::<Put>(QUEUE_MAX);
    let committer = std::thread::spawn(move || -> anyhow::Result<u64> {
        let mut syncs = 0;
        while let Some(first) = queue.blocking_recv() {
            let mut group = vec![first];
            while group.len() < QUEUE_MAX {
                let Ok(next) = queue.try_recv() else { break };
                group.push(next);
            }
            engine.commit(&group)?;
            syncs += 1;
            for put in group {
                // A writer whose time is up does not wait for its last put.
                let _unheard = put.done.send(());
            }
        }
        Ok(syncs)
    });
    let latencies = runtime.block_on(write_all(writers, move |key, value| {
        let sender = sender.clone();
        async move {
            let (done, durable) = oneshot::channel();
            sender.send(Put { key, value, done }).await.context("the committer is gone")?;
            durable.await.context("the committer is gone")
        }
    }))?;
    let syncs = committer.join().map_err(|_| anyhow::anyhow!("the committer panicked"))??;
    Ok(slice(latencies, syncs))
}

fn measure_store(runtime: &tokio::runtime::Runtime, writers: usize, path: &Path) -> anyhow::Result<Slice> {
    let store = Arc::new(EmbeddedStore::open(path, &Options::new(Uuid::new_v4()))?);
    // The durable revision is shown once per sync.
    let mut durable = store.durable();
    let syncs = runtime.spawn(async move {
        let mut syncs = 0;
        while durable.changed().await.is_ok() {
            syncs += 1;
        }
        syncs
    });
    let latencies = runtime.block_on(write_all(writers, |key, value| {
        let store = Arc::clone(&store);
        async move {
            store.commit(Batch::new().put(Space::Operations.key(&key), value)).await?;
            Ok(())
        }
    }))?;
    drop(store);
    Ok(slice(latencies, runtime.block_on(syncs)?))
}

/// Lets `writers` put one record after the other until the time is up. Returns how long each put took.
async fn write_all<F>(writers: usize, put: impl Fn(String, Vec<u8>) -> F) -> anyhow::Result<Vec<Duration>>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let next = AtomicU64::new(0);
    let end = Instant::now() + SLICE;
    let writer = || async {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let start = Instant::now();
            put(format!("{number:024}"), noise(number)).await?;
            latencies.push(start.elapsed());
        }
        anyhow::Ok(latencies)
    };
    let latencies = futures::future::try_join_all((0..writers).map(|_| writer())).await?;
    Ok(latencies.concat())
}

/// Bytes that no engine can compress (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..VALUE_BYTES / 8).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().collect()
}

fn slice(mut latencies: Vec<Duration>, syncs: u64) -> Slice {
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
    let per_second = |count: f64| count / SLICE.as_secs_f64();
    Slice { puts: per_second(latencies.len() as f64), syncs: per_second(syncs as f64), p50: at(50), p99: at(99) }
}
