//! The one thread that writes: group commit.
//!
//! Owns the write transaction and the numbering of writes. It must not decide anything but preconditions: what a batch
//! means is its author's business.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use redb::{ReadableTable, Table};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::Engine;
use super::format::{self, RECORDS};
use crate::{Batch, CommitError, Committed, EngineError, Key, Revision, Write};

/// Most batches in one transaction: all that can wait. More would not make a sync much cheaper per batch (a thousand
/// writers already share one), and the last of a group waits for the first.
const GROUP_MAX: usize = super::QUEUE_MAX;

/// A group takes no further batch once it holds so many bytes, so that one sync never waits for much more than this to
/// reach the disk.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// A batch whose sizes were checked, and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Result<Committed, CommitError>>,
    /// The batch's share of the bytes that may wait; given back when the batch is done.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The thread's state. Dropping it (at the end, or in a panic) drops the queue and the sender of the durable revision,
/// so whoever waits hears [`CommitError::Closed`].
pub(super) struct Committer {
    pub(super) engine: Arc<Engine>,
    pub(super) queue: mpsc::Receiver<Request>,
    pub(super) durable: watch::Sender<Revision>,
    pub(super) directory: PathBuf,
    pub(super) reserve_bytes: u64,
}

impl Committer {
    /// Commits groups until every sender is gone or the engine fails.
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first);
            match self.commit(&group) {
                Ok(outcomes) => {
                    for (request, outcome) in group.into_iter().zip(outcomes) {
                        answer(request, outcome);
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        path = %self.directory.display(),
                        "storage engine failed, nothing is committed until the store is opened again",
                    );
                    let source = EngineError::new(error);
                    for request in group {
                        answer(request, Err(CommitError::Engine { source: source.clone() }));
                    }
                    return Err(source);
                }
            }
        }
        Ok(())
    }

    /// Everything that waits, up to the bounds, without waiting for more.
    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = first.permit.num_permits();
        let mut group = vec![first];
        while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            match self.queue.try_recv() {
                Ok(next) => {
                    bytes += next.permit.num_permits();
                    group.push(next);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        group
    }

    /// One transaction for the whole group. The outcomes are true only once this has returned: a conflict may rest on a
    /// write of an earlier batch of the same group.
    fn commit(&self, group: &[Request]) -> Result<Vec<Result<Committed, CommitError>>, redb::Error> {
        if let Err(refusal) = self.check_room()? {
            return Ok(group.iter().map(|_| Err(refusal.clone())).collect());
        }
        let before = *self.durable.borrow();
        let mut last = before;
        let mut outcomes = Vec::with_capacity(group.len());
        let transaction = self.engine.database.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for request in group {
                outcomes.push(apply(&mut records, &request.batch, &mut last)?);
            }
        }
        if last == before {
            transaction.abort()?;
        } else {
            format::set_revision(&transaction, last)?;
            transaction.commit()?;
            self.durable.send_replace(last);
        }
        Ok(outcomes)
    }

    /// Asked before every group, because the engine does not survive a write that finds no room.
    fn check_room(&self) -> Result<Result<(), CommitError>, redb::Error> {
        let stat = rustix::fs::statvfs(&self.directory).map_err(io::Error::from)?;
        if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Ok(Err(CommitError::ReadOnly));
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(if free < self.reserve_bytes { Err(CommitError::Full) } else { Ok(()) })
    }
}

/// Checks every expectation, then writes. Only the engine can fail between the first write and the last, and then the
/// whole transaction is given up, so a batch is never applied in part.
fn apply(
    records: &mut Table<'_, &'static [u8], (u64, &'static [u8])>,
    batch: &Batch,
    last: &mut Revision,
) -> Result<Result<Committed, CommitError>, redb::Error> {
    for (key, expected) in batch.expectations() {
        let found = records.get(key.as_bytes())?.map(|stored| Revision::new(stored.value().0));
        if !expected.holds(found) {
            return Ok(Err(CommitError::Conflict { key: key.clone(), expected: *expected, found }));
        }
    }
    let first = if batch.writes().is_empty() { *last } else { last.plus(1) };
    for write in batch.writes() {
        *last = last.plus(1);
        match write {
            Write::Put { key, value } => put(records, key, *last, value)?,
            Write::Delete { key } => drop(records.remove(key.as_bytes())?),
            Write::Append { space, value } => put(records, &space.log_key(*last), *last, value)?,
            Write::Trim { space, through } => {
                let (oldest, newest) = (space.log_key(Revision::ZERO), space.log_key(*through));
                records.retain_in::<&[u8], _>(oldest.as_bytes()..=newest.as_bytes(), |_, _| false)?;
            }
        }
    }
    Ok(Ok(Committed { first, last: *last }))
}

fn put(
    records: &mut Table<'_, &'static [u8], (u64, &'static [u8])>,
    key: &Key,
    revision: Revision,
    value: &[u8],
) -> Result<(), redb::Error> {
    records.insert(key.as_bytes(), (revision.as_u64(), value))?;
    Ok(())
}

fn answer(request: Request, outcome: Result<Committed, CommitError>) {
    // A caller that went away does not hear the outcome; the batch is committed or refused all the same.
    let _unheard = request.reply.send(outcome);
}
