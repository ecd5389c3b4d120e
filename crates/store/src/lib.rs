//! Durable records behind a small trait.
//!
//! What this crate is: the one place where the scheduler's state becomes durable. It knows keys, bytes and revisions;
//! what the bytes mean is the business of the crate that writes them.
//!
//! * [`Store`] is the contract, [`memory::MemoryStore`] its model, [`embedded::EmbeddedStore`] the default engine.
//! * [`Batch`] is the unit of change: all of it becomes durable, or nothing of it.
//! * [`archive`] is a backup as a file.
//! * [`record`] is the versioned envelope around stored values.
//! * [`fault::FaultyStore`] makes any store fail on demand, for the tests of others.
//! * `conformance` (feature of the same name) is the suite every backend passes.
//!
//! What it must not do: know the wire protocol, the operation core or a clock. Wire and disk formats evolve apart.
//!
//! # The contract in short
//!
//! Every write takes one [`Revision`]; revisions grow by one, in commit order, for the whole life of a store. A batch is
//! checked against the state that includes every batch committed before it, in the same group or not. A commit that
//! returned `Ok` survives the death of the process and of the machine. A commit that failed left nothing behind and cost
//! no revision, unless it [leaves open](CommitError::leaves_open) what became of it, or the store was closed.

#![warn(
    clippy::wildcard_enum_match_arm,
    reason = "a new kind of write or failure must break the build wherever it matters"
)]

pub mod archive;
mod batch;
mod condition;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embedded;
mod error;
pub mod fault;
mod key;
pub mod memory;
pub mod record;
mod revision;
mod scan;

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

pub use batch::{BATCH_BYTES_MAX, Batch, Expect, VALUE_BYTES_MAX, WRITES_MAX, Write};
pub use condition::Condition;
pub use error::{CommitError, EngineError, Limit, ReadError};
pub use key::{KEY_BYTES_MAX, Key, Space};
pub use revision::Revision;
pub use scan::{KeyBounds, SCAN_MAX, Scan};

/// A stored value with its key and the revision of the write that put it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where the value is stored.
    pub key: Key,
    /// The bytes as they were written.
    pub value: Bytes,
    /// The revision of the write that put this value; what [`Expect::Revision`] compares with.
    pub revision: Revision,
}

/// Without the value: among them are keys, which nobody is to see.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, revision } = self;
        let value = format_args!("{} bytes", value.len());
        f.debug_struct("Entry").field("key", key).field("value", &value).field("revision", revision).finish()
    }
}

/// The revisions of a committed batch: write `i` has revision `first + i`.
///
/// A batch without writes takes no revision; both fields are then the revision its expectations were checked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Revision of the first write.
    pub first: Revision,
    /// Revision of the last write.
    pub last: Revision,
}

/// A durable, ordered map with preconditions and revisions.
///
/// Object safe: it is used as `Arc<dyn Store>`. The thread that polls the futures is kept busy by no more than a short read
/// of what is nearly always in memory.
pub trait Store: Send + Sync + 'static {
    /// Applies all of `batch` or nothing of it, and resolves when that is durable.
    ///
    /// All expectations are checked before the batch's first write. Writes are applied in order, so a later write of a
    /// key wins. A future dropped before it resolves leaves the outcome open, but never half of the batch.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>>;

    /// The entry at `key`, or `None`.
    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>>;

    /// One page of entries in key order (or in reverse), all from one consistent state.
    ///
    /// At most `scan.limit` entries, never more than [`SCAN_MAX`]. For the next page put the last key into
    /// [`Scan::after`] (or [`Scan::before`] when scanning in reverse); a page with fewer entries than were asked for is
    /// the last.
    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>>;

    /// The last durable revision. Never goes back; once it shows `r`, every read sees all writes up to `r`.
    ///
    /// When the store has failed for good or was closed the sender is gone, so `changed()` returns an error.
    fn durable(&self) -> watch::Receiver<Revision>;

    /// The identity of this history: made when the store is created, or when a copy of it is put back.
    ///
    /// Revisions of two lives cannot be compared, so a resume token names the life it belongs to.
    fn life(&self) -> Uuid;

    /// What a commit would meet now. Changes with the disk, not only with what is asked of the store, so whoever wants to
    /// know asks from time to time. A store without a disk is always good.
    fn condition(&self) -> BoxFuture<'_, Condition> {
        Box::pin(std::future::ready(Condition::Good))
    }
}
