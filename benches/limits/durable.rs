//! Durable transitions: writers change records through the store as the scheduler does, beside a bare log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::median;
use quiesce_store::embedded::{EmbeddedStore, Options};
use quiesce_store::{Batch, Expect, Key, Revision, Space, Store, WRITES_MAX};
use uuid::Uuid;

use crate::disk::Log;
use crate::process::disk_directory;
use crate::size::Size;

/// A record of an operation with one instance, and one entry of the log of events: what they take when stored, rounded.
const RECORD_BYTES: usize = 800;
const EVENT_BYTES: usize = 600;
const GOAL: Goal = Goal::RatioAtLeast(1.0 / 3.0);
/// Steps through the records that meet each of them once, in no order: a prime larger than their number.
const SCATTER: usize = 1_000_003;

/// In which order records are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// That of their acceptance, as when all move on together.
    Accepted,
    /// None at all.
    Scattered,
}

struct Records {
    store: EmbeddedStore,
    keys: Vec<Key>,
    revisions: Vec<AtomicUsize>,
}

impl Records {
    async fn create(directory: &Path, count: usize) -> anyhow::Result<Arc<Self>> {
        let store = EmbeddedStore::open(directory, &Options::new(Uuid::new_v4()))?;
        // Ids rise with time, as those of operations do.
        let keys: Vec<_> =
            (0..count).map(|number| Space::Operations.key(&format!("019ac000-0000-7000-8000-{number:012}"))).collect();
        let mut revisions = Vec::with_capacity(count);
        for keys in keys.chunks(WRITES_MAX) {
            let put = |batch: Batch, key: &Key| batch.put(key.clone(), noise(revisions.len(), RECORD_BYTES));
            let committed = store.commit(keys.iter().fold(Batch::new(), put)).await?;
            revisions.extend((0..keys.len()).map(|place| committed.first.plus(place as u64)));
        }
        let revisions = revisions.into_iter().map(|revision| AtomicUsize::new(as_usize(revision))).collect();
        Ok(Arc::new(Self { store, keys, revisions }))
    }

    /// One transition: the record is as it was read, what happened is told, the record is written.
    async fn change(&self, number: usize) -> anyhow::Result<()> {
        let (key, revision) = (&self.keys[number], &self.revisions[number]);
        let found = Revision::new(revision.load(Ordering::Relaxed) as u64);
        let batch = Batch::new()
            .expect(key.clone(), Expect::Revision(found))
            .append(Space::Events, noise(number, EVENT_BYTES))
            .put(key.clone(), noise(number, RECORD_BYTES));
        let committed = self.store.commit(batch).await?;
        revision.store(as_usize(committed.last), Ordering::Relaxed);
        Ok(())
    }
}

fn as_usize(revision: Revision) -> usize {
    usize::try_from(revision.as_u64()).unwrap_or(usize::MAX)
}

/// Bytes that no engine can compress (xorshift).
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir_in(disk_directory())?;
    let records = Records::create(&directory.path().join("store"), size.records).await?;
    let mut rows = Vec::new();
    for writers in size.writers {
        let (mut ordered, mut scattered, mut log) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..size.rounds {
            let bare = Log::create(&directory.path().join(format!("log-{writers}-{round}")))?;
            ordered.push(through_store(size, writers, &records, Order::Accepted).await?);
            log.push(
                write_all(size, writers, |number| {
                    let bare = bare.clone();
                    async move { bare.append(noise(number, RECORD_BYTES + EVENT_BYTES)).await }
                })
                .await?,
            );
            scattered.push(through_store(size, writers, &records, Order::Scattered).await?);
        }
        let middle = |values| median(values).unwrap_or_default();
        let log = middle(log);
        for (order, rates, goal) in [("in order", ordered, GOAL), ("in no order", scattered, Goal::None)] {
            rows.push(
                Row::new(format!("durable transitions, {writers} writers, {order}"), Unit::PerSecond, middle(rates))
                    .beside("append-only file, one sync for all that wait, same bytes", log)
                    .goal(goal),
            );
        }
    }
    Ok(rows)
}

async fn through_store(size: &Size, writers: usize, records: &Arc<Records>, order: Order) -> anyhow::Result<f64> {
    write_all(size, writers, |number| {
        let records = Arc::clone(records);
        let count = records.keys.len();
        let number = match order {
            Order::Accepted => number % count,
            Order::Scattered => number.wrapping_mul(SCATTER) % count,
        };
        async move { records.change(number).await }
    })
    .await
}

/// Writers that write one after the other until the time is up; how many writes became durable in a second. Each has its own
/// place in a row, so no two of them change the same record.
async fn write_all<F>(size: &Size, writers: usize, write: impl Fn(usize) -> F) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let begin = Instant::now();
    let end = begin + size.slice;
    let writer = |writer: usize| {
        let write = &write;
        async move {
            let mut count = 0;
            while Instant::now() < end {
                write(count * writers + writer).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }
    };
    let counts = futures::future::try_join_all((0..writers).map(writer)).await?;
    let total: usize = counts.into_iter().sum();
    Ok(total as f64 / begin.elapsed().as_secs_f64())
}
