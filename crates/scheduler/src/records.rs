//! What the scheduler stores: one record type per kind of thing, its key, and how entries become records again.
//!
//! Owns the disk format above the store's envelope. Fields carry numbers that are never given a second meaning; a new
//! field is optional. Records are not wire messages (see [`crate::convert`]) and hold no secrets but the keys that
//! [`crate::secrets`] keeps in a record of its own.

mod event;
mod operation;
mod registry;
mod request;
#[cfg(test)]
mod tests;
mod token;

use minicbor::{Decode, Encode};
use quiesce_operation::{ApplicationId, ClusterId, InstanceId, Moment, OperationId};
use quiesce_runtime::clock::Anchor;
use quiesce_store::record::{self, DecodeError, Record};
use quiesce_store::{Batch, Entry, Expect, Key, ReadError, Revision, SCAN_MAX, Scan, Space, Store};

pub(crate) use event::EventRecord;
pub(crate) use operation::{Counts, OperationRecord, Summary};
pub(crate) use registry::{Admission, ApplicationRecord, ClusterRecord, Connect, InstanceRecord, TombstoneRecord};
pub(crate) use request::{RequestIdRecord, RequestResult, request_key};
pub(crate) use token::{TokenRecord, TokenRole, token_key};

/// A record type without upgrades behind it.
macro_rules! first_version {
    ($($type:ty => $kind:literal),+ $(,)?) => {$(
        impl Record for $type {
            const KIND: &'static str = $kind;
            const VERSION: u16 = 1;
            const UPGRADES: &'static [quiesce_store::record::Upgrade] = &[];
        }
    )+};
}

first_version! {
    ApplicationRecord => "application",
    InstanceRecord => "instance",
    ClusterRecord => "cluster",
    TombstoneRecord => "tombstone",
    OperationRecord => "operation",
    EventRecord => "event",
    RequestIdRecord => "request",
    AnchorRecord => "clock",
    HistoryRecord => "history",
    RestoredRecord => "restored",
    TokenRecord => "token",
}

/// Key of an application.
pub(crate) fn application_key(application: &ApplicationId) -> Key {
    Space::Applications.key(application.as_str())
}

/// Key of an instance; all instances of an application share the prefix of [`instances_of`].
pub(crate) fn instance_key(application: &ApplicationId, instance: &InstanceId) -> Key {
    Space::Instances.key(&format!("{application}/{instance}"))
}

/// All instances of an application, by name. The separator occurs in no name, so no other application's match.
pub(crate) fn instances_of(application: &ApplicationId) -> Scan {
    Scan { prefix: format!("{application}/"), ..Scan::all(Space::Instances) }
}

/// Key of a cluster.
pub(crate) fn cluster_key(cluster: &ClusterId) -> Key {
    Space::Clusters.key(cluster.as_str())
}

/// Key of an operation; keys of later operations are greater.
pub(crate) fn operation_key(operation: &OperationId) -> Key {
    Space::Operations.key(operation.as_str())
}

/// Key of the tombstone of a deleted application.
pub(crate) fn tombstone_key(application: &ApplicationId) -> Key {
    Space::Tombstones.key(application.as_str())
}

/// Key of the clock anchor.
pub(crate) fn anchor_key() -> Key {
    Space::Meta.key("clock")
}

/// Key of the note about trimmed history.
pub(crate) fn history_key() -> Key {
    Space::Meta.key("history")
}

/// Key of the note about the backup that this life of the store began with.
pub(crate) fn restored_key() -> Key {
    Space::Meta.key("restored")
}

/// A record as it was read, with the revision a write that builds on it has to expect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored<T> {
    /// Of the write that put it.
    pub(crate) revision: Revision,
    /// What was stored.
    pub(crate) record: T,
}

impl<T> Stored<T> {
    /// The precondition that nobody has changed it since.
    #[must_use]
    pub(crate) fn unchanged(&self) -> Expect {
        Expect::Revision(self.revision)
    }
}

/// Why a record could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store did not answer.
    #[error("the store cannot be read")]
    Read(#[source] ReadError),
    /// What is stored is not the record it should be.
    #[error("the record at {key} cannot be read")]
    Damaged {
        /// Where.
        key: String,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
}

/// The record in `entry`.
pub(crate) fn from_entry<T: Record>(entry: &Entry) -> Result<Stored<T>, LoadError> {
    let record =
        record::decode(&entry.value).map_err(|source| LoadError::Damaged { key: entry.key.to_string(), source })?;
    Ok(Stored { revision: entry.revision, record })
}

/// The record at `key`, if there is one.
pub(crate) async fn load<T: Record>(store: &dyn Store, key: Key) -> Result<Option<Stored<T>>, LoadError> {
    let entry = store.get(key).await.map_err(LoadError::Read)?;
    entry.as_ref().map(from_entry).transpose()
}

/// One page of records.
pub(crate) async fn load_page<T: Record>(store: &dyn Store, scan: Scan) -> Result<Vec<(Key, Stored<T>)>, LoadError> {
    let entries = store.scan(scan).await.map_err(LoadError::Read)?;
    entries.iter().map(|entry| Ok((entry.key.clone(), from_entry(entry)?))).collect()
}

/// Every record of `scan`, page by page. For what is bounded elsewhere (instances of one application, applications).
pub(crate) async fn load_all<T: Record>(store: &dyn Store, mut scan: Scan) -> Result<Vec<Stored<T>>, LoadError> {
    let mut found = Vec::new();
    scan.limit = SCAN_MAX;
    loop {
        let page = load_page(store, scan.clone()).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        let full = page.len() == SCAN_MAX;
        if scan.reverse {
            scan.before = Some(last.clone());
        } else {
            scan.after = Some(last.clone());
        }
        found.extend(page.into_iter().map(|(_, stored)| stored));
        if !full {
            return Ok(found);
        }
    }
}

/// `batch` with `record` put at `key`.
pub(crate) fn put<T: Record>(batch: Batch, key: Key, record: &T) -> Batch {
    batch.put(key, record::encode(record))
}

/// The clock anchor that ties the timeline of the next process to this one's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct AnchorRecord {
    #[n(0)]
    boot_id: String,
    #[n(1)]
    boottime_ms: u64,
    #[n(2)]
    timeline_ms: u64,
    #[n(3)]
    wall_ms: u64,
}

impl From<Anchor> for AnchorRecord {
    fn from(anchor: Anchor) -> Self {
        let Anchor { boot_id, boottime_ms, timeline_ms, wall_ms } = anchor;
        Self { boot_id, boottime_ms, timeline_ms, wall_ms }
    }
}

impl From<AnchorRecord> for Anchor {
    fn from(record: AnchorRecord) -> Self {
        let AnchorRecord { boot_id, boottime_ms, timeline_ms, wall_ms } = record;
        Self { boot_id, boottime_ms, timeline_ms, wall_ms }
    }
}

/// That this life of the store began with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RestoredRecord {
    /// When it was put back.
    #[n(0)]
    pub(crate) time: Moment,
    /// When it was taken, in milliseconds since 1970.
    #[n(1)]
    pub(crate) taken_ms: u64,
    /// Every epoch of this life is above this one, and every epoch of earlier lives is not.
    #[n(2)]
    pub(crate) epoch_floor: u64,
}

/// How far back the history of events goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HistoryRecord {
    /// Events up to this revision are gone.
    #[n(0)]
    pub(crate) trimmed_through: u64,
    /// When that was decided.
    #[n(1)]
    pub(crate) time: Moment,
}
