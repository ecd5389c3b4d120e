//! The one thread that writes: group commit, and what happens when the engine fails.
//!
//! Owns the write transaction, the numbering of writes and the opening again. It must not decide anything but
//! preconditions: what a batch means is its author's business.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable, Table};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use uuid::Uuid;

use super::Engine;
use super::format::{self, RECORDS};
use super::observer::Observer;
use super::open::{OpenError, Reopen};
use super::room::Room;
use crate::{Batch, CommitError, Committed, EngineError, Key, Revision, Write};

/// Most batches in one transaction: all that can wait. More would not make a sync much cheaper per batch (a thousand
/// writers already share one), and the last of a group waits for the first.
const GROUP_MAX: usize = super::QUEUE_MAX;

/// A group takes no further batch once it holds so many bytes, so that one sync never waits for much more than this to
/// reach the disk.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// First and longest pause before the engine is opened again: soon enough after the cause has gone, and seldom enough not
/// to keep a core busy with checking a large file.
const REOPEN_FIRST: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(5);

/// How often, meanwhile, those are answered who want to commit.
const REFUSE_EVERY: Duration = Duration::from_millis(20);

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
    pub(super) room: Room,
    pub(super) life: Uuid,
    pub(super) reopen: Reopen,
    pub(super) observer: Arc<dyn Observer>,
}

/// What a group will be told if its transaction commits, and the revision the store has then.
struct Draft {
    outcomes: Vec<Result<Committed, CommitError>>,
    last: Revision,
}

/// Why the engine was not opened again.
#[derive(Debug, thiserror::Error)]
enum ReopenError {
    #[error("the store cannot be opened again")]
    Open(#[source] OpenError),
    #[error("the store cannot be written again")]
    Write(#[source] redb::Error),
    /// Never to be cured by waiting.
    #[error("the file is not what it was: revision {found} of life {life}, but {durable} was acknowledged")]
    NotOurs { found: Revision, life: Uuid, durable: Revision },
}

impl Committer {
    /// Commits groups until every sender is gone, or the file turns out not to be what it was.
    pub(super) fn run(mut self) -> Result<(), EngineError> {
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first);
            if let Err(refusal) = self.room.check() {
                group.into_iter().for_each(|request| answer(request, Err(refusal.clone())));
                continue;
            }
            let mut draft = Draft { outcomes: Vec::with_capacity(group.len()), last: *self.durable.borrow() };
            match self.commit(&group, &mut draft) {
                Ok(()) => {
                    let outcomes = draft.outcomes.into_iter();
                    group.into_iter().zip(outcomes).for_each(|(request, outcome)| answer(request, outcome));
                }
                Err(error) => self.recover(group, draft, error)?,
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

    /// One transaction for the whole group. The draft is true only once this has returned: a conflict may rest on a
    /// write of an earlier batch of the same group.
    fn commit(&self, group: &[Request], draft: &mut Draft) -> Result<(), redb::Error> {
        let begun = Instant::now();
        let written = self.engine.with(|database| commit(database, group, draft));
        if written.expect("only this thread takes the database away, and puts it back before it commits")? {
            self.observer.synced(group.len(), begun.elapsed());
            self.durable.send_replace(draft.last);
        }
        Ok(())
    }

    /// The engine has failed in this group: opens it again, and tells the group what became of it. Returns when the store
    /// takes changes again or is closed; an error when it never will.
    fn recover(&mut self, group: Vec<Request>, draft: Draft, error: redb::Error) -> Result<(), EngineError> {
        self.engine.failed.store(true, Ordering::Release);
        let path = self.room.directory.display().to_string();
        tracing::error!(error = &error as &dyn Error, path, "storage engine failed, opening it again");
        let (before, source) = (*self.durable.borrow(), EngineError::new(error));
        let reopened = self.reopen();
        let whole = draft.outcomes.len() == group.len();
        for (index, request) in group.into_iter().enumerate() {
            let outcome = match &reopened {
                Ok(found) if whole && *found == draft.last && draft.last > before => draft.outcomes[index].clone(),
                Ok(_) => Err(CommitError::Unavailable { source: source.clone() }),
                Err(_) => Err(CommitError::Engine { source: source.clone() }),
            };
            answer(request, outcome);
        }
        let mut failure = match reopened.and_then(|_| self.prove()) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let mut pause = REOPEN_FIRST;
        loop {
            if let ReopenError::NotOurs { .. } = failure {
                tracing::error!(error = &failure as &dyn Error, path, "the store is not opened again");
                return Err(EngineError::new(failure));
            }
            tracing::debug!(error = &failure as &dyn Error, path, "the store is tried again soon");
            if !self.refuse_for(pause, &source) {
                return Err(source);
            }
            pause = (pause * 2).min(REOPEN_MAX);
            match self.reopen().and_then(|_| self.prove()) {
                Ok(()) => return Ok(()),
                Err(next) => failure = next,
            }
        }
    }

    /// Closes what is open and opens it again. Returns the revision found.
    fn reopen(&self) -> Result<Revision, ReopenError> {
        // Closed before it is opened: the engine locks its file. Closing after a failure reports that failure again.
        drop(self.engine.replace(None));
        let (database, facts) = (self.reopen)().map_err(ReopenError::Open)?;
        let durable = *self.durable.borrow();
        if facts.life != self.life || facts.revision < durable {
            return Err(ReopenError::NotOurs { found: facts.revision, life: facts.life, durable });
        }
        self.engine.replace(Some(database));
        if facts.revision > durable {
            self.durable.send_replace(facts.revision);
        }
        Ok(facts.revision)
    }

    /// Makes a change durable, so that the store is not called sound because it can be read.
    fn prove(&self) -> Result<(), ReopenError> {
        let revision = *self.durable.borrow();
        let touched = self.engine.with(|database| format::touch(database, revision));
        touched.expect("the database was put in place before").map_err(ReopenError::Write)?;
        self.engine.failed.store(false, Ordering::Release);
        tracing::info!(path = %self.room.directory.display(), %revision, "the store takes changes again");
        Ok(())
    }

    /// Answers whoever wants to commit that it is not to be had; false when nobody is left who could.
    fn refuse_for(&mut self, pause: Duration, source: &EngineError) -> bool {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            match self.queue.try_recv() {
                Ok(request) => answer(request, Err(self.refusal(source))),
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => park_timeout(REFUSE_EVERY),
            }
        }
        true
    }

    /// What keeps it from being opened, as far as it can be told.
    fn refusal(&self, source: &EngineError) -> CommitError {
        self.room.check().err().unwrap_or_else(|| CommitError::Unavailable { source: source.clone() })
    }
}

/// Writes the group; whether there was anything to write.
fn commit(database: &Database, group: &[Request], draft: &mut Draft) -> Result<bool, redb::Error> {
    let before = draft.last;
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for request in group {
            let outcome = apply(&mut records, &request.batch, &mut draft.last)?;
            draft.outcomes.push(outcome);
        }
    }
    if draft.last == before {
        transaction.abort()?;
        return Ok(false);
    }
    format::set_revision(&transaction, draft.last)?;
    transaction.commit()?;
    Ok(true)
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
