//! A store that fails on demand: for tests of whoever persists first and acts then.
//!
//! Owns no data; it stands in front of any other store. Reads always pass.
//!
//! ```
//! # use std::sync::Arc;
//! # use quiesce_store::{Batch, CommitError, Space, Store, fault::FaultyStore, memory::MemoryStore};
//! # use uuid::Uuid;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = FaultyStore::new(Arc::new(MemoryStore::new(Uuid::nil())));
//! store.fail_next(1, CommitError::Full);
//! let batch = || Batch::new().put(Space::Meta.key("name"), "value");
//! assert!(store.commit(batch()).await.is_err());
//! assert!(store.commit(batch()).await.is_ok());
//! assert_eq!(store.commits(), 1);
//! # });
//! ```

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Batch, CommitError, Committed, Condition, Entry, Key, ReadError, Revision, Scan, Store};

/// Wraps a store and makes its commits fail or wait. Clones steer the same faults.
#[derive(Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: watch::Sender<Plan>,
}

/// What happens to the commits to come, and what happened to those before.
#[derive(Clone, Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    held: bool,
    waiting: usize,
    attempts: u64,
    commits: u64,
}

#[derive(Clone, Debug)]
struct Fault {
    error: CommitError,
    /// How many commits it still strikes; `None` means all.
    remaining: Option<u64>,
    /// Whether the batch is committed all the same, and only the answer is lost.
    applied: bool,
}

impl FaultyStore {
    /// Passes everything on until told otherwise.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, plan: watch::Sender::new(Plan::default()) }
    }

    /// The next `count` commits fail with `error`, and nothing of them is stored. Replaces an earlier fault.
    pub fn fail_next(&self, count: u64, error: CommitError) {
        self.set_fault(Some(Fault { error, remaining: Some(count), applied: false }));
    }

    /// Every commit fails with `error` until [`FaultyStore::heal`]; with [`CommitError::Full`], a full disk.
    pub fn fail_all(&self, error: CommitError) {
        self.set_fault(Some(Fault { error, remaining: None, applied: false }));
    }

    /// The next `count` commits are stored, but the caller hears `error`: the acknowledgement is lost, as in a crash
    /// right after the sync.
    pub fn lose_next(&self, count: u64, error: CommitError) {
        self.set_fault(Some(Fault { error, remaining: Some(count), applied: true }));
    }

    /// Commits pass again. Does not release commits that are held.
    pub fn heal(&self) {
        self.set_fault(None);
    }

    /// Commits wait, before anything of them is stored, until [`FaultyStore::release`].
    pub fn hold(&self) {
        self.plan.send_modify(|plan| plan.held = true);
    }

    /// Held commits go on, and meet the fault that is set by then.
    pub fn release(&self) {
        self.plan.send_modify(|plan| plan.held = false);
    }

    /// Resolves when at least `count` commits are held.
    pub async fn held(&self, count: usize) {
        self.until(|plan| plan.held && plan.waiting >= count).await;
    }

    /// How many commits were asked for, whatever became of them.
    pub fn attempts(&self) -> u64 {
        self.plan.borrow().attempts
    }

    /// How many commits were stored, those with a lost acknowledgement included.
    pub fn commits(&self) -> u64 {
        self.plan.borrow().commits
    }

    fn set_fault(&self, fault: Option<Fault>) {
        self.plan.send_modify(|plan| plan.fault = fault);
    }

    async fn until(&self, reached: impl FnMut(&Plan) -> bool) {
        // The sender is borrowed from `self`, so it cannot be gone.
        let Ok(_) = self.plan.subscribe().wait_for(reached).await else { return };
    }

    /// The fault that strikes this commit, if any; counts it.
    fn take_fault(&self) -> Option<Fault> {
        let mut struck = None;
        self.plan.send_modify(|plan| {
            let Some(fault) = plan.fault.as_mut() else { return };
            if let Some(remaining) = fault.remaining.as_mut() {
                if *remaining == 0 {
                    plan.fault = None;
                    return;
                }
                *remaining -= 1;
            }
            struck = Some(fault.clone());
        });
        struck
    }

    async fn pass(&self, batch: Batch) -> Result<Committed, CommitError> {
        let committed = self.inner.commit(batch).await?;
        self.plan.send_modify(|plan| plan.commits += 1);
        Ok(committed)
    }
}

/// Counts a commit as waiting for as long as it lives, so that a dropped commit is not counted for ever.
struct Waiting<'a>(&'a watch::Sender<Plan>);

impl<'a> Waiting<'a> {
    fn new(plan: &'a watch::Sender<Plan>) -> Self {
        plan.send_modify(|plan| plan.waiting += 1);
        Self(plan)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|plan| plan.waiting -= 1);
    }
}

impl Store for FaultyStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            self.plan.send_modify(|plan| plan.attempts += 1);
            let waiting = Waiting::new(&self.plan);
            self.until(|plan| !plan.held).await;
            drop(waiting);
            match self.take_fault() {
                None => self.pass(batch).await,
                Some(fault) if fault.applied => {
                    self.pass(batch).await?;
                    Err(fault.error)
                }
                Some(fault) => Err(fault.error),
            }
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

    /// As a lasting fault has it; one that strikes a number of commits is over before anybody could ask.
    fn condition(&self) -> BoxFuture<'_, Condition> {
        let lasting = self.plan.borrow().fault.as_ref().filter(|fault| fault.remaining.is_none()).cloned();
        match lasting {
            Some(fault) => Box::pin(std::future::ready(Condition::of(&fault.error))),
            None => self.inner.condition(),
        }
    }
}
