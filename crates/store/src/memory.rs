//! The model of a store: an ordered map behind a lock.
//!
//! Serves tests and trials. Nothing is durable; "durable" here means "applied". It shares no code with the engines
//! beyond the types of the contract, so that comparing them means something.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Batch, CommitError, Committed, Entry, Key, ReadError, Revision, Scan, Store, Write};

/// A store that lives and dies with its process. Clones share the same data.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    life: Uuid,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    entries: BTreeMap<Key, (Bytes, Revision)>,
    durable: watch::Sender<Revision>,
}

impl MemoryStore {
    /// An empty store whose history is called `life`.
    pub fn new(life: Uuid) -> Self {
        let state = State { entries: BTreeMap::new(), durable: watch::Sender::new(Revision::ZERO) };
        Self { life, state: Arc::new(Mutex::new(state)) }
    }

    /// A store that holds `entries` of another one and goes on behind `revision`.
    pub fn holding(life: Uuid, revision: Revision, entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.key, (entry.value, entry.revision))).collect();
        let state = State { entries, durable: watch::Sender::new(revision) };
        Self { life, state: Arc::new(Mutex::new(state)) }
    }

    /// Everything in it, in the order of keys.
    pub fn entries(&self) -> Vec<Entry> {
        let state = self.state();
        let entry = |(key, (value, revision)): (&Key, &(Bytes, Revision))| Entry {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        };
        state.entries.iter().map(entry).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

impl State {
    fn apply(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        batch.check_size()?;
        for (key, expected) in batch.expectations() {
            let found = self.entries.get(key).map(|(_, revision)| *revision);
            if !expected.holds(found) {
                return Err(CommitError::Conflict { key: key.clone(), expected: *expected, found });
            }
        }
        let before = *self.durable.borrow();
        let mut last = before;
        for write in batch.writes() {
            last = last.plus(1);
            match write {
                Write::Put { key, value } => {
                    self.entries.insert(key.clone(), (value.clone(), last));
                }
                Write::Delete { key } => {
                    self.entries.remove(key);
                }
                Write::Append { space, value } => {
                    self.entries.insert(space.log_key(last), (value.clone(), last));
                }
                Write::Trim { space, through } => {
                    self.entries.retain(|key, _| key.space() != *space || key.revision().is_none_or(|r| r > *through));
                }
            }
        }
        if last > before {
            self.durable.send_replace(last);
        }
        Ok(Committed { first: last.min(before.plus(1)), last })
    }

    fn scan(&self, scan: &Scan) -> Vec<Entry> {
        let entry = |(key, (value, revision)): (&Key, &(Bytes, Revision))| Entry {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        };
        let Some((start, end)) = scan.bounds() else { return Vec::new() };
        let range = self.entries.range::<[u8], _>((as_slice(&start), as_slice(&end)));
        if scan.reverse {
            range.rev().take(scan.page_max()).map(entry).collect()
        } else {
            range.take(scan.page_max()).map(entry).collect()
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move { self.state().apply(batch) })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>> {
        Box::pin(async move {
            let state = self.state();
            let stored = state.entries.get(&key);
            Ok(stored.map(|(value, revision)| Entry { value: value.clone(), revision: *revision, key: key.clone() }))
        })
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>> {
        Box::pin(async move { Ok(self.state().scan(&scan)) })
    }

    fn durable(&self) -> watch::Receiver<Revision> {
        self.state().durable.subscribe()
    }

    fn life(&self) -> Uuid {
        self.life
    }
}
