//! The scheduler's store: it outlives the scheduler, and takes its time.
//!
//! Between the order to commit and the moment at which it counts, and again until the scheduler hears of it, time
//! passes: a crash falls before or after, and the next life finds what was durable.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, CommitError, Committed, Entry, Key, ReadError, Revision, Scan, Store};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::ambush::Ambush;

/// A commit takes up to twice as long.
const SYNC_MAX_MS: u64 = 3;

/// A store on a disk of its own.
pub(super) struct Storage {
    inner: MemoryStore,
    /// One commit after the other.
    turn: tokio::sync::Mutex<()>,
    chance: Mutex<StdRng>,
    pub(super) ambush: Ambush,
}

impl Storage {
    pub(super) fn new(seed: u64, ambush: Ambush) -> Arc<Self> {
        let inner = MemoryStore::new(Uuid::from_u64_pair(seed, 1));
        let chance = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self { inner, turn: tokio::sync::Mutex::new(()), chance, ambush })
    }

    async fn pass_time(&self) {
        self.ambush.pass().await;
        let millis = self.chance.lock().unwrap_or_else(PoisonError::into_inner).random_range(0..=SYNC_MAX_MS);
        sleep(Duration::from_millis(millis)).await;
    }
}

impl Store for Storage {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let committed = {
                let _turn = self.turn.lock().await;
                self.pass_time().await;
                self.inner.commit(batch).await?
            };
            self.pass_time().await;
            Ok(committed)
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>> {
        self.inner.get(key)
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>> {
        self.inner.scan(scan)
    }

    fn durable(&self) -> watch::Receiver<Revision> {
        self.inner.durable()
    }

    fn life(&self) -> Uuid {
        self.inner.life()
    }
}
