//! What a store has to forget before it begins a new life from a backup.
//!
//! The world has gone on since the backup was taken: operations have ended, permissions to run were given out,
//! applications have moved. None of it is in the backup, so nothing in it may be acted on as if it were the present:
//!
//! * **Revisions** go on far above anything the lost life can have given out, so that no etag of it fits by chance.
//!   Resume tokens name their life, which is another one now.
//! * **Epochs** of everything are raised in the same way, so that no permission of the lost life outranks or equals a new
//!   one, and commands of this life are not taken for old ones.
//! * **Open operations** are closed: see [`quiesce_operation::Operation::close_restored`]. No shutdown id of theirs is ever
//!   used again, so no answer to an old one is taken for an answer to a new one.
//! * **Applications** are started and stopped no more until a person has confirmed where they run.
//! * **No end is known any more**: what had ended when the backup was taken may have begun again since.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use futures::FutureExt as _;
use quiesce_operation::{Caller, Moment};
use quiesce_runtime::clock::{Clock as _, Kernel, Source as _, StartError, Timeline};
use quiesce_store::archive::Header;
use quiesce_store::memory::MemoryStore;
use quiesce_store::record::{self, Record};
use quiesce_store::{Batch, CommitError, Entry, Key, Revision, SCAN_MAX, Scan, Space, Store as _};
use uuid::Uuid;

use crate::records::{
    Admission, AnchorRecord, ApplicationRecord, EventRecord, InstanceRecord, LoadError, OperationRecord,
    RestoredRecord, TombstoneRecord, anchor_key, load, load_page, put, restored_key,
};

/// How far above the highest number of a backup a new life begins at least. What decides otherwise is the time, which
/// goes on even if one backup is restored twice; this is for clocks that are wrong. More epochs than an application can
/// have been given in years.
const EPOCH_STEP: u64 = 1_000_000;
/// The same for revisions: a thousand writes a second for a month.
const REVISION_STEP: u64 = 1 << 32;

/// Why a backup cannot begin a new life.
#[derive(Debug, thiserror::Error)]
pub enum ReviveError {
    /// A record cannot be read. A check says more.
    #[error("a record cannot be read")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A change is larger than any the scheduler makes.
    #[error("a record cannot be changed")]
    Commit(#[source] CommitError),
    /// There is no clock.
    #[error("cannot establish the time")]
    Clock(#[source] StartError),
}

impl From<LoadError> for ReviveError {
    fn from(error: LoadError) -> Self {
        Self::Load(Box::new(error))
    }
}

/// What a restore has done, and what waits for a person now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new life.
    pub life: Uuid,
    /// When the backup was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Every epoch from now on is higher.
    pub epoch_floor: u64,
    /// Applications that are neither started nor stopped until somebody has confirmed where they run.
    pub unconfirmed: Vec<String>,
    /// Operations that were open in the backup and are closed now.
    pub closed: Vec<String>,
    /// Where the store is now that was in the way.
    pub kept: Option<PathBuf>,
}

/// The entries of the new life and the revision it goes on behind.
pub(super) struct Revived {
    pub(super) entries: Vec<Entry>,
    pub(super) revision: Revision,
    pub(super) restored: Restored,
}

/// Makes of the entries of a backup those of a new life; `by` answers for it.
pub(super) fn revive(header: &Header, entries: Vec<Entry>, by: &str) -> Result<Revived, ReviveError> {
    let wall_ms = Kernel.wall_ms();
    // In microseconds: no store writes a million times a second.
    let floor = (wall_ms.saturating_mul(1000)).max(header.revision().as_u64().saturating_add(REVISION_STEP));
    let store = MemoryStore::holding(header.life(), Revision::new(floor), entries);
    let forgotten = forget(&store, header, wall_ms, by).now_or_never();
    let restored = forgotten.expect("the model of a store waits for nothing")?;
    let revision = *store.durable().borrow();
    Ok(Revived { entries: store.entries(), revision, restored })
}

async fn forget(store: &MemoryStore, header: &Header, wall_ms: u64, by: &str) -> Result<Restored, ReviveError> {
    let anchor = load::<AnchorRecord>(store, anchor_key()).await?;
    let timeline = Timeline::start(anchor.map(|stored| stored.record.into()).as_ref()).map_err(ReviveError::Clock)?;
    let now = Moment::from_millis(timeline.now());
    let applications: Vec<(Key, ApplicationRecord)> = all(store, Space::Applications).await?;
    let instances: Vec<(Key, InstanceRecord)> = all(store, Space::Instances).await?;
    let tombstones: Vec<(Key, TombstoneRecord)> = all(store, Space::Tombstones).await?;
    let operations: Vec<(Key, OperationRecord)> = all(store, Space::Operations).await?;
    let open: Vec<_> = operations.into_iter().filter(|(_, record)| !record.0.is_done()).collect();

    let epochs = applications.iter().map(|(_, one)| one.epoch);
    let epochs = epochs.chain(instances.iter().map(|(_, one)| one.epoch));
    let epochs = epochs.chain(tombstones.iter().map(|(_, one)| one.epoch));
    let highest = epochs.chain(open.iter().map(|(_, one)| one.0.epoch())).max().unwrap_or(0);
    // In milliseconds: no application is started a thousand times a second.
    let epoch_floor = wall_ms.max(highest.saturating_add(EPOCH_STEP));

    let commit = async |batch| store.commit(batch).await.map(drop).map_err(ReviveError::Commit);
    let note = RestoredRecord { time: now, taken_ms: header.taken_ms(), epoch_floor };
    commit(put(Batch::new(), restored_key(), &note)).await?;
    let caller = Caller { identity: by.to_owned(), reason: String::new() };
    let taken = UNIX_EPOCH + Duration::from_millis(header.taken_ms());
    let what = format!("a backup taken at {}", humantime::format_rfc3339_seconds(taken));
    let mut closed = Vec::new();
    for (key, OperationRecord(mut operation)) in open {
        let step = operation.close_restored(now, &caller, &what);
        let mut batch = Batch::new();
        for event in &step.events {
            batch = batch.append(Space::Events, record::encode(&EventRecord::new(&operation, event)));
        }
        closed.push(operation.id().to_string());
        commit(put(batch, key, &OperationRecord(operation))).await?;
    }
    let unconfirmed = applications.iter().map(|(_, record)| record.name.to_string()).collect();
    for (key, record) in applications {
        let (updated, restored) = (now, Some(now));
        let record = ApplicationRecord { epoch: epoch_floor, active_operation: None, updated, restored, ..record };
        commit(put(Batch::new(), key, &record)).await?;
    }
    for (key, record) in instances {
        let admission = record.admission.map(|last| Admission { ended: false, ..last });
        let record = InstanceRecord { epoch: epoch_floor, admission, updated: now, ..record };
        commit(put(Batch::new(), key, &record)).await?;
    }
    for (key, record) in tombstones {
        commit(put(Batch::new(), key, &TombstoneRecord { epoch: epoch_floor, ..record })).await?;
    }
    let taken_ms = header.taken_ms();
    Ok(Restored { life: Uuid::nil(), taken_ms, epoch_floor, unconfirmed, closed, kept: None })
}

/// Every record of a space with its key.
async fn all<T: Record>(store: &MemoryStore, space: Space) -> Result<Vec<(Key, T)>, LoadError> {
    let mut found = Vec::new();
    let mut scan = Scan::all(space);
    loop {
        let page = load_page::<T>(store, scan.clone()).await?;
        let full = page.len() == SCAN_MAX;
        scan.after = page.last().map(|(key, _)| key.clone());
        found.extend(page.into_iter().map(|(key, stored)| (key, stored.record)));
        if !full {
            return Ok(found);
        }
    }
}
