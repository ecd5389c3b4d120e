//! The default engine: one `redb` file in a directory of its own, for one scheduler.
//!
//! Owns the data directory, the committer thread and the mapping of the contract to `redb`. One thread writes: it takes
//! the first batch that waits, then everything else that waits, and makes all of it durable with one sync. Under load
//! a sync is shared by many batches; without load a batch waits for nobody.
//!
//! Linux only: it relies on `flock`, on `fsync` of directories and on file modes.
//!
//! # When the engine fails
//!
//! After an input or output error `redb` refuses all work until it is opened again, because what it holds in memory may no
//! longer be what is on disk. So the committer opens it again, under the lock that it holds already, and looks what became
//! of the group at hand: it is there whole or not at all, and says so. Only when the file cannot be opened at once does the
//! group get [`CommitError::Engine`]; until it can, everything else gets [`CommitError::Unavailable`], and reads
//! [`ReadError::Unavailable`]. A file that comes back without what was acknowledged, or as another store, ends the store
//! for good: [`CommitError::Closed`], and the sender of [`Store::durable`] goes away.
//!
//! A full disk is noticed before it comes to that: see [`Options::reserve_bytes`].

mod committer;
mod export;
#[cfg(test)]
mod failing_disk;
mod format;
mod observer;
mod open;
#[cfg(test)]
mod power_loss;
mod put_back;
mod room;
#[cfg(test)]
mod simulated_disk;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use redb::{Database, ReadableDatabase};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::{Batch, CommitError, Committed, Condition, EngineError, Entry, Key, ReadError, Revision, Scan, Store};
use committer::{Committer, Request};
use format::RECORDS;
use observer::Nobody;
use open::{DirectoryLock, Opened};
use room::Room;

pub use export::Stored;
pub use format::FORMAT_VERSION;
pub use observer::{CommitOutcome, Observer};
pub use open::{DATABASE_FILE, OpenError};
pub use put_back::{PutBackError, put_back};

/// Most batches that wait for the committer. A thousand is a few groups' worth, so the committer never idles under load,
/// and at 5,000 single commits a second a full queue is a fifth of a second of waiting. When it is full, commit waits.
const QUEUE_MAX: usize = 1024;

/// Most bytes of batches that wait for the committer, so that a thousand of the largest cannot fill the memory; four of
/// the largest batches. When it is full, commit waits.
const QUEUE_BYTES_MAX: u32 = 16 << 20;

/// Entries that a scan reads where it is asked for; with more it goes on on a blocking thread. Enough for the instances of most
/// applications and for the events of one group of commits, and read in some tens of microseconds.
const READ_HERE_MAX: usize = 64;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The life of the store if it is created now.
    pub new_life: Uuid,
    /// Make a store if there is none. Whoever only looks at one does not want to make it.
    pub create: bool,
    /// Memory the engine may use to cache pages.
    pub cache_bytes: usize,
    /// Free space on the file system below which commits are refused with [`CommitError::Full`], before the engine has
    /// to find out by failing. The store heals by itself when there is room again.
    pub reserve_bytes: u64,
    /// Hears how commits go.
    pub observer: Arc<dyn Observer>,
}

impl Options {
    /// The state of a busy scheduler is some tens of megabytes; this keeps most of it in memory.
    pub const CACHE_BYTES: usize = 64 << 20;

    /// Several times what one group of commits can need, copies of pages included.
    pub const RESERVE_BYTES: u64 = 64 << 20;

    /// The defaults, with the life of the store in case it is created.
    pub fn new(new_life: Uuid) -> Self {
        Self {
            new_life,
            create: true,
            cache_bytes: Self::CACHE_BYTES,
            reserve_bytes: Self::RESERVE_BYTES,
            observer: Arc::new(Nobody),
        }
    }
}

/// A store in a directory of its own. One process at a time; see the [module](self) for what happens on failure.
///
/// Single entries and short pages are read where they are asked for. They are in memory but for rare exceptions (opening the
/// store has read the whole file), and to hand over to another thread costs more than all the rest of a transition. Longer
/// reads run on blocking threads of the tokio runtime that has to be around them.
#[derive(Debug)]
pub struct EmbeddedStore {
    /// Gone once the store is closing, which ends the committer when it has done what is queued.
    requests: Option<mpsc::Sender<Request>>,
    queued_bytes: Arc<Semaphore>,
    durable: watch::Receiver<Revision>,
    life: Uuid,
    engine: Option<Arc<Engine>>,
    room: Room,
    observer: Arc<dyn Observer>,
    committer: Option<JoinHandle<Result<(), EngineError>>>,
    /// Hears of the end of the engine. The mutex is never contended; it makes the receiver shareable.
    engine_gone: Mutex<blocking::Receiver<()>>,
}

/// The open database. Fields are dropped in order: the file is closed, then the lock is given up, then it is told.
#[derive(Debug)]
struct Engine {
    /// None while it is being opened again. Only the committer writes; readers hold it for one page at a time.
    database: RwLock<Option<Database>>,
    /// From the moment the engine fails until a change has become durable again.
    failed: AtomicBool,
    _lock: DirectoryLock,
    _gone: blocking::SyncSender<()>,
}

impl Engine {
    /// Runs `work` on the database, unless it is being opened again.
    fn with<T>(&self, work: impl FnOnce(&Database) -> T) -> Option<T> {
        self.database.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(work)
    }

    /// The same, unless that would have to wait.
    fn try_with<T>(&self, work: impl FnOnce(&Database) -> T) -> Option<T> {
        match self.database.try_read() {
            Ok(database) => database.as_ref().map(work),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().as_ref().map(work),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the database away, once the reads under way have ended, or puts one in place.
    fn replace(&self, database: Option<Database>) -> Option<Database> {
        std::mem::replace(&mut *self.database.write().unwrap_or_else(PoisonError::into_inner), database)
    }
}

/// Why a store did not close in order. Everything that was acknowledged is durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The engine had failed before.
    #[error("the storage engine had failed")]
    Engine {
        /// What the engine said.
        #[source]
        source: EngineError,
    },
    /// The committer thread panicked.
    #[error("the committer thread panicked")]
    Panicked,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, and creates both if need be (directory 0700, file 0600).
    ///
    /// Blocks, about 0.2 s per 70 MB of file in the page cache and about a second when it comes from a slow disk: every
    /// page is checked against its checksum, after a clean end as after a crash. What opens is sound; what is not is
    /// [`OpenError::Damaged`] here and no surprise later. A scheduler reads most of it at its start anyway. For the same
    /// reason `redb`'s quick repair is off: it makes each single commit 1.6 times slower to save only this time.
    pub fn open(directory: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::start(directory, options, open::open(directory, options)?, Committer::run)
    }

    /// Starts the committer on an open database. The parts come in for the sake of tests that exchange one.
    fn start(
        directory: &Path,
        options: &Options,
        opened: Opened,
        run: impl FnOnce(Committer) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (gone, engine_gone) = blocking::sync_channel(0);
        let engine = Arc::new(Engine {
            database: RwLock::new(Some(opened.database)),
            failed: AtomicBool::new(false),
            _lock: opened.lock,
            _gone: gone,
        });
        let room = Room { directory: directory.to_owned(), reserve_bytes: options.reserve_bytes };
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (durable_sender, durable) = watch::channel(opened.revision);
        let committer = Committer {
            engine: Arc::clone(&engine),
            queue,
            durable: durable_sender,
            room: room.clone(),
            life: opened.life,
            reopen: opened.reopen,
            observer: Arc::clone(&options.observer),
        };
        let committer = std::thread::Builder::new()
            .name("quiesce-store".to_owned())
            .spawn(move || run(committer))
            .map_err(|source| OpenError::Io { doing: "start the committer for", path: directory.to_owned(), source })?;
        Ok(Self {
            requests: Some(requests),
            queued_bytes: Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize)),
            durable,
            life: opened.life,
            engine: Some(engine),
            room,
            observer: Arc::clone(&options.observer),
            committer: Some(committer),
            engine_gone: Mutex::new(engine_gone),
        })
    }

    /// Commits what is queued, ends the committer and closes the file. When it returns, the store can be opened again.
    ///
    /// Blocks for at most the commit and the reads that are under way. Dropping the store does the same, and logs the
    /// error.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), CloseError> {
        self.requests = None;
        let Some(committer) = self.committer.take() else { return Ok(()) };
        let result = match committer.join() {
            Ok(result) => result.map_err(|source| CloseError::Engine { source }),
            Err(_panic) => Err(CloseError::Panicked),
        };
        self.engine = None;
        let gone = self.engine_gone.get_mut().expect("nothing panics while it holds the lock");
        // Nothing is ever sent: the error comes when the last read has let go of the engine.
        match gone.recv() {
            Ok(()) | Err(blocking::RecvError) => result,
        }
    }

    async fn submit(&self, batch: Batch) -> Result<Committed, CommitError> {
        let bytes = u32::try_from(batch.check_size()?).expect("a batch is bounded far below 4 GiB");
        let permit = Arc::clone(&self.queued_bytes).acquire_many_owned(bytes).await.map_err(|_| CommitError::Closed)?;
        let (reply, outcome) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(CommitError::Closed)?;
        requests.send(Request { batch, reply, permit }).await.map_err(|_| CommitError::Closed)?;
        outcome.await.map_err(|_| CommitError::Closed)?
    }

    /// Runs a short read where it is asked for; none if the engine is not to be had at once.
    fn read_here<T>(&self, read: impl FnOnce(&Database) -> Result<T, ReadFailure>) -> Option<Result<T, ReadError>> {
        let engine = self.engine.as_ref()?;
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| engine.try_with(read)));
        outcome.map_or_else(|_panic| Some(Err(panicked())), |found| found.map(|found| self.told(found)))
    }

    /// Runs a read on a blocking thread: it may take long.
    async fn read<T, F>(&self, read: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Database) -> Result<T, ReadFailure> + Send + 'static,
    {
        let engine = Arc::clone(self.engine.as_ref().ok_or(ReadError::Closed)?);
        match tokio::task::spawn_blocking(move || engine.with(read)).await {
            Ok(None) => Err(ReadError::Unavailable),
            Ok(Some(found)) => self.told(found),
            Err(lost) if lost.is_cancelled() => Err(ReadError::Closed),
            Err(_panicked) => Err(panicked()),
        }
    }

    /// What the caller hears; the committer hears of a failure as well.
    fn told<T>(&self, found: Result<T, ReadFailure>) -> Result<T, ReadError> {
        found.map_err(|failure| {
            self.nudge();
            failure.into()
        })
    }

    /// Has the committer look at the engine, which may refuse everything since a read failed: with a batch that changes
    /// nothing. Not to be had when much else waits, which does as well.
    fn nudge(&self) {
        let Some(requests) = &self.requests else { return };
        let Ok(permit) = Arc::clone(&self.queued_bytes).try_acquire_many_owned(0) else { return };
        let (reply, _outcome) = oneshot::channel();
        let _full = requests.try_send(Request { batch: Batch::new(), reply, permit });
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::error!(error = &error as &dyn std::error::Error, "store did not close in order");
        }
    }
}

impl Store for EmbeddedStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let asked = Instant::now();
            let result = self.submit(batch).await;
            self.observer.committed(CommitOutcome::of(&result), asked.elapsed());
            result
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>> {
        Box::pin(async move {
            match self.read_here(|database| entry(database, &key)) {
                Some(found) => found,
                None => self.read(move |database| entry(database, &key)).await,
            }
        })
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>> {
        Box::pin(async move {
            let most = scan.page_max();
            match self.read_here(|database| page(database, &scan, most.min(READ_HERE_MAX))) {
                Some(Ok(page)) if page.len() == READ_HERE_MAX && page.len() < most => {}
                Some(found) => return found,
                None => {}
            }
            self.read(move |database| page(database, &scan, most)).await
        })
    }

    fn durable(&self) -> watch::Receiver<Revision> {
        self.durable.clone()
    }

    fn life(&self) -> Uuid {
        self.life
    }

    fn condition(&self) -> BoxFuture<'_, Condition> {
        let Some(engine) = self.engine.clone().filter(|_| self.durable.has_changed().is_ok()) else {
            return Box::pin(std::future::ready(Condition::Closed));
        };
        let room = self.room.clone();
        Box::pin(async move {
            // A file system that is away can keep even this waiting.
            let looked = tokio::task::spawn_blocking(move || room.check()).await;
            match looked {
                Ok(Ok(())) if !engine.failed.load(Ordering::Acquire) => Condition::Good,
                Ok(Err(refusal)) => Condition::of(&refusal),
                Ok(Ok(())) | Err(_) => Condition::Failed,
            }
        })
    }
}

fn entry(database: &Database, key: &Key) -> Result<Option<Entry>, ReadFailure> {
    let records = database.begin_read()?.open_table(RECORDS)?;
    let Some(stored) = records.get(key.as_bytes())? else { return Ok(None) };
    let (revision, value) = stored.value();
    Ok(Some(Entry { value: Bytes::copy_from_slice(value), revision: Revision::new(revision), key: key.clone() }))
}

fn page(database: &Database, scan: &Scan, most: usize) -> Result<Vec<Entry>, ReadFailure> {
    let Some((start, end)) = scan.bounds() else { return Ok(Vec::new()) };
    let bounds = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
    let records = database.begin_read()?.open_table(RECORDS)?;
    let mut range = records.range::<&[u8]>(bounds)?;
    let mut page = Vec::new();
    while page.len() < most {
        let Some(next) = (if scan.reverse { range.next_back() } else { range.next() }) else { break };
        let (key, stored) = next?;
        let key = Key::from_bytes(Bytes::copy_from_slice(key.value()))
            .ok_or(ReadFailure::Damaged("a key that no space makes"))?;
        let (revision, value) = stored.value();
        page.push(Entry { key, value: Bytes::copy_from_slice(value), revision: Revision::new(revision) });
    }
    Ok(page)
}

fn panicked() -> ReadError {
    ReadError::Engine { source: EngineError::new(std::io::Error::other("the storage engine panicked in a read")) }
}

/// What can happen inside a read, before it is known to the caller.
enum ReadFailure {
    Engine(redb::Error),
    Damaged(&'static str),
}

impl<E: Into<redb::Error>> From<E> for ReadFailure {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl From<ReadFailure> for ReadError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Engine(error) => Self::Engine { source: EngineError::new(error) },
            ReadFailure::Damaged(what) => Self::Damaged { what },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Space;

    #[tokio::test]
    async fn a_panic_of_the_committer_is_heard_by_all_and_frees_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(Uuid::new_v4());
        let run = |mut committer: Committer| {
            let _taken = committer.queue.blocking_recv();
            panic!("as if the engine had a bug");
        };
        let store = {
            let opened = open::open(directory.path(), &options).unwrap();
            EmbeddedStore::start(directory.path(), &options, opened, run).unwrap()
        };
        let mut durable = store.durable();
        let batch = || Batch::new().put(Space::Meta.key("a"), "a");
        // The first was taken, the second may still be in the queue, the third comes too late.
        let (taken, queued) = futures::join!(store.commit(batch()), store.commit(batch()));
        for outcome in [taken, queued, store.commit(batch()).await] {
            assert!(matches!(outcome, Err(CommitError::Closed)), "{outcome:?}");
        }
        assert!(durable.changed().await.is_err());
        assert!(store.get(Space::Meta.key("a")).await.unwrap().is_none());
        assert!(matches!(store.close(), Err(CloseError::Panicked)));
        EmbeddedStore::open(directory.path(), &options).unwrap().close().unwrap();
    }
}
