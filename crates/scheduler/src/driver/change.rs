//! What one step writes: its events, what it means for the registry, and the operation itself, all in one batch.
//!
//! Owns the order of the writes (events, registry, then the operation's record) and their preconditions. Read anew for
//! every try, since others write to the registry as well.

use quiesce_operation::member::Member;
use quiesce_operation::start::StartMember;
use quiesce_operation::{Closing, ClusterId, Event, InstanceId, Operation};
use quiesce_store::{Batch, Expect, Key, Revision, Space, Store, record};
use tracing::warn;

use super::RequestIdWrite;
use crate::records::{
    self, Admission, ApplicationRecord, EventRecord, InstanceRecord, LoadError, OperationRecord, Stored,
    TombstoneRecord,
};

/// One step, about to be made durable.
pub(super) struct Change<'a> {
    /// The operation as it is stored.
    pub(super) before: &'a Operation,
    /// Revision of that.
    pub(super) revision: Revision,
    /// The operation as it is to be stored.
    pub(super) after: &'a Operation,
    /// What happened.
    pub(super) events: &'a [Event],
    /// What has to be written together with it.
    pub(super) along: Option<&'a Along>,
}

/// Writes of others that share the fate of a step.
pub(super) struct Along {
    /// The writes and what they expect.
    pub(super) batch: Batch,
    /// Whether they say what becomes of the application's record.
    pub(super) owns_application: bool,
}

/// A batch, and where in it the operation's record is.
pub(super) struct Built {
    pub(super) batch: Batch,
    /// The operation's record is the write with this number; its revision is the batch's first plus this.
    pub(super) place: u64,
    /// Instances that are not registered any more once this is durable.
    pub(super) forgotten: Vec<InstanceId>,
}

impl Change<'_> {
    /// The batch, given how the registry stands now.
    pub(super) async fn build(&self, store: &dyn Store) -> Result<Built, LoadError> {
        let mut batch = Batch::new();
        for event in self.events {
            batch = batch.append(Space::Events, record::encode(&EventRecord::new(self.after, event)));
        }
        let mut forgotten = Vec::new();
        batch = self.permissions(store, batch).await?;
        if !self.along.is_some_and(|along| along.owns_application) {
            batch = self.application(store, batch, &mut forgotten).await?;
        }
        let key = records::operation_key(self.after.id());
        let place = batch.writes().len();
        batch = batch.expect(key.clone(), Expect::Revision(self.revision));
        batch = records::put(batch, key, &OperationRecord(self.after.clone()));
        if let Some(along) = self.along {
            for (key, expect) in along.batch.expectations() {
                batch = batch.expect(key.clone(), *expect);
            }
            batch = along.batch.writes().iter().cloned().fold(batch, Batch::write);
        }
        // A batch holds a thousand writes at most.
        Ok(Built { batch, place: u64::try_from(place).unwrap_or(u64::MAX), forgotten })
    }

    /// Who may have a live copy: an instance that is being started, before it is; not any more once its end is
    /// verified. AdmitStart refuses another agent as long as somebody may.
    async fn permissions(&self, store: &dyn Store, mut batch: Batch) -> Result<Batch, LoadError> {
        let application = &self.after.request().application;
        let started = self.after.starts().iter().filter(|start| is_new(start, self.before));
        let started = started.map(|start| (&start.instance, start.epoch, false));
        let ended = self.after.members().iter().chain(self.after.undo());
        let ended = ended.filter(|member| is_newly_verified(member, self.before));
        let ended = ended.map(|member| (&member.instance, member.epoch, true));
        for (instance, epoch, ended) in ended.chain(started) {
            let key = records::instance_key(application, instance);
            let Some(stored) = records::load::<InstanceRecord>(store, key.clone()).await? else { continue };
            let expect = stored.unchanged();
            let InstanceRecord { agent_id, admission, .. } = &stored.record;
            let admission = match admission {
                Some(last) if ended && last.epoch <= epoch => Some(Admission { ended, ..last.clone() }),
                Some(_) | None if ended => continue,
                Some(_) | None => {
                    let start_id = self.after.id().to_string();
                    Some(Admission { agent_id: agent_id.clone(), start_id, epoch, ended })
                }
            };
            let mut record = InstanceRecord { admission, updated: self.after.updated(), ..stored.record };
            record.epoch = record.epoch.max(epoch);
            batch = records::put(batch.expect(key.clone(), expect), key, &record);
        }
        Ok(batch)
    }

    /// The application's epoch while the operation is open, and what is left of the application when it is over.
    async fn application(
        &self,
        store: &dyn Store,
        batch: Batch,
        forgotten: &mut Vec<InstanceId>,
    ) -> Result<Batch, LoadError> {
        let closing = self.after.closing().filter(|_| !self.before.is_done());
        if closing.is_none() && self.after.epoch() == self.before.epoch() {
            return Ok(batch);
        }
        let application = &self.after.request().application;
        let key = records::application_key(application);
        let Some(stored) = records::load::<ApplicationRecord>(store, key.clone()).await? else {
            warn!(application = %application, operation.id = %self.after.id(), "application of an open operation is gone");
            return Ok(batch);
        };
        let batch = batch.expect(key.clone(), stored.unchanged());
        let mut record = stored.record;
        record.epoch = record.epoch.max(self.after.epoch());
        record.updated = self.after.updated();
        if closing.is_some() && record.active_operation.as_ref() == Some(self.after.id()) {
            record.active_operation = None;
        }
        match closing {
            None | Some(Closing::Kept) => Ok(records::put(batch, key, &record)),
            Some(Closing::Moved { cluster, forget_source }) => {
                record.cluster = cluster;
                record.moved_by = Some(self.after.id().clone());
                let batch = records::put(batch, key, &record);
                let source = &self.after.request().source;
                if forget_source { self.forget(store, batch, Some(source), forgotten).await } else { Ok(batch) }
            }
            Some(Closing::Removed) => {
                let tombstone = TombstoneRecord {
                    operation: self.after.id().clone(),
                    time: self.after.updated(),
                    epoch: record.epoch,
                };
                let batch = records::put(batch.delete(key), records::tombstone_key(application), &tombstone);
                self.forget(store, batch, None, forgotten).await
            }
        }
    }

    /// Deletes the instances on `cluster`, or all of them.
    async fn forget(
        &self,
        store: &dyn Store,
        batch: Batch,
        cluster: Option<&ClusterId>,
        forgotten: &mut Vec<InstanceId>,
    ) -> Result<Batch, LoadError> {
        let application = &self.after.request().application;
        let instances: Vec<Stored<InstanceRecord>> =
            records::load_all(store, records::instances_of(application)).await?;
        let leaving = instances.into_iter().map(|stored| stored.record);
        let leaving = leaving.filter(|record| cluster.is_none_or(|cluster| record.cluster == *cluster));
        forgotten.extend(leaving.map(|record| record.instance));
        let keys = forgotten.iter().map(|instance| records::instance_key(application, instance));
        Ok(keys.fold(batch, Batch::delete))
    }
}

/// Whether `start` was ordered under its epoch by this very step.
fn is_new(start: &StartMember, before: &Operation) -> bool {
    start.epoch != 0 && before.start(&start.instance, start.epoch).is_none()
}

/// Whether the end of `member` was verified by this very step.
fn is_newly_verified(member: &Member, before: &Operation) -> bool {
    let mut earlier = before.members().iter().chain(before.undo());
    let earlier = earlier.find(|other| other.instance == member.instance);
    member.is_verified() && !earlier.is_some_and(Member::is_verified)
}

impl Along {
    /// A request id that must not be there yet.
    pub(super) fn remember(request: RequestIdWrite) -> Self {
        let RequestIdWrite { key, record } = request;
        Self { batch: Batch::new().expect(key.clone(), Expect::Absent).put(key, record), owns_application: false }
    }

    /// Whether `key` is one of those it expects something of.
    pub(super) fn expects(&self, key: &Key) -> bool {
        self.batch.expectations().iter().any(|(expected, _)| expected == key)
    }
}
