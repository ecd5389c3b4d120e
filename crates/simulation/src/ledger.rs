//! The scheduler's disk: what a store is to the schedulers of one run, whichever of them lives.
//!
//! Owns what is durable, and what goes wrong between a commit and its answer. What was applied stays, whoever has died
//! meanwhile; what was not, never is.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, CommitError, Committed, Entry, Key, ReadError, Revision, Scan, Store};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::chance::Chance;

/// Is told of every batch that has become durable, at the moment it does.
pub type Observer = Arc<dyn Fn(&Batch, &Committed) + Send + Sync>;

/// A disk. Clones are the same one.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: MemoryStore,
    chance: Chance,
    observer: Observer,
    state: Mutex<State>,
    crashed: Notify,
}

#[derive(Default)]
struct State {
    /// The scheduler that may write; those before it are dead.
    tenant: u64,
    full: bool,
    slow: bool,
    crash: Option<Crash>,
}

/// The scheduler dies at a commit.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// So many commits from now.
    pub after: u64,
    /// When that commit is durable, and nobody has heard of it; otherwise before anything of it is.
    pub applied: bool,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// An empty disk.
    #[must_use]
    pub fn new(chance: Chance, observer: Observer) -> Self {
        let store = MemoryStore::new(Uuid::from_u64_pair(chance.next(), chance.next()));
        let inner = Inner { store, chance, observer, state: Mutex::default(), crashed: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// What the next scheduler gets; from now on those before it write nothing any more.
    #[must_use]
    pub fn lease(&self) -> Arc<dyn Store> {
        let tenant = {
            let mut state = self.state();
            state.tenant += 1;
            state.crash = None;
            state.tenant
        };
        Arc::new(Lease { ledger: self.clone(), tenant })
    }

    /// The scheduler that has it now is dead.
    pub fn evict(&self) {
        self.state().tenant += 1;
    }

    /// The disk is full, or not any more.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// No crash is planned any more.
    pub fn forget_crash(&self) {
        self.state().crash = None;
    }

    /// Commits take long, or not any more.
    pub fn set_slow(&self, slow: bool) {
        self.state().slow = slow;
    }

    /// The scheduler dies at a commit to come.
    pub fn plan_crash(&self, crash: Crash) {
        self.state().crash = Some(crash);
    }

    /// Resolves when the scheduler has come to the planned crash.
    pub async fn crashed(&self) {
        self.inner.crashed.notified().await;
    }

    /// What is durable at `key`.
    #[must_use]
    pub fn read(&self, key: Key) -> Option<Entry> {
        self.inner.store.get(key).now_or_never()?.ok()?
    }

    /// What is durable.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.inner.store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store as long as its scheduler lives.
struct Lease {
    ledger: Ledger,
    tenant: u64,
}

/// What becomes of one commit.
enum Fate {
    Applied,
    Full,
    /// Nobody lives who could hear of it.
    Dead,
    CrashBefore,
    CrashAfter,
}

impl Lease {
    fn fate(&self) -> Fate {
        let mut state = self.ledger.state();
        if state.tenant != self.tenant {
            return Fate::Dead;
        }
        if state.full {
            return Fate::Full;
        }
        match &mut state.crash {
            Some(crash) if crash.after == 0 => {
                let applied = crash.applied;
                state.crash = None;
                if applied { Fate::CrashAfter } else { Fate::CrashBefore }
            }
            Some(crash) => {
                crash.after -= 1;
                Fate::Applied
            }
            None => Fate::Applied,
        }
    }

    fn pause(&self) -> Duration {
        let chance = &self.ledger.inner.chance;
        if self.ledger.state().slow { chance.millis(20..=800) } else { chance.millis(0..=2) }
    }

    async fn apply(&self, batch: Batch) -> Result<Committed, CommitError> {
        let committed = self.ledger.inner.store.commit(batch.clone()).await?;
        (self.ledger.inner.observer)(&batch, &committed);
        Ok(committed)
    }

    async fn die(&self) -> ! {
        self.ledger.inner.crashed.notify_one();
        match std::future::pending::<std::convert::Infallible>().await {}
    }
}

impl Store for Lease {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let pause = self.pause();
            if !pause.is_zero() {
                sleep(pause).await;
            }
            match self.fate() {
                Fate::Applied => {}
                Fate::Full => return Err(CommitError::Full),
                Fate::Dead => std::future::pending().await,
                Fate::CrashBefore => self.die().await,
                Fate::CrashAfter => {
                    // A refusal is as much an answer that nobody hears as a commit.
                    let _unheard = self.apply(batch).await;
                    self.die().await
                }
            }
            let answer = self.apply(batch).await;
            let pause = self.pause();
            if !pause.is_zero() {
                sleep(pause).await;
            }
            answer
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>> {
        self.ledger.inner.store.get(key)
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>> {
        self.ledger.inner.store.scan(scan)
    }

    fn durable(&self) -> watch::Receiver<Revision> {
        self.ledger.inner.store.durable()
    }

    fn life(&self) -> Uuid {
        self.ledger.inner.store.life()
    }
}
