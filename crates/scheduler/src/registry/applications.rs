//! Applications: made known, changed, and their policies checked.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::Encode;
use quiesce_operation::{ApplicationId, ClusterId, Placement, PolicyOverrides};
use quiesce_store::{Batch, Expect};

use super::{Registry, TRIES, contended};
use crate::convert;
use crate::convert::resource::etag;
use crate::idempotency::{RequestId, Use};
use crate::mask::Mask;
use crate::records::{
    ApplicationRecord, RequestResult, RestoredRecord, Stored, TombstoneRecord, application_key, load, put,
    restored_key, tombstone_key,
};
use crate::status::Problem;
use crate::validate::Violations;

/// The fields of an application that a mask may name, the policy's aside.
pub(crate) const APPLICATION_LEAVES: &[&str] =
    &["display_name", "cluster", "placement", "expected_instances", "labels", RESTORE_TIME];

/// The leaf whose clearing confirms where an application runs after a restore.
pub(crate) const RESTORE_TIME: &str = "restore_time";

/// How long after a restore an application that the backup does not know may be an old one: a day, in which every agent
/// that still runs has come back (it tries twice a minute) and people have looked.
const UNKNOWN_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// An application as a caller describes it.
#[derive(Debug, Clone, PartialEq, Encode)]
pub(crate) struct ApplicationDraft {
    #[n(0)]
    pub(crate) name: ApplicationId,
    #[n(1)]
    pub(crate) display_name: String,
    /// Required to create it.
    #[n(2)]
    pub(crate) cluster: Option<ClusterId>,
    #[n(3)]
    pub(crate) policy: PolicyOverrides,
    #[n(4)]
    pub(crate) placement: Placement,
    #[n(5)]
    pub(crate) expected_instances: Option<u32>,
    #[n(6)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// A change of an application.
#[derive(Debug)]
pub(crate) struct ApplicationUpdate {
    pub(crate) draft: ApplicationDraft,
    pub(crate) mask: Mask,
    pub(crate) etag: String,
    pub(crate) allow_missing: bool,
}

impl Registry {
    /// Makes an application known. With `dry_run` everything is checked and nothing stored.
    pub(crate) async fn create_application(
        &self,
        draft: &ApplicationDraft,
        request_id: Option<&RequestId>,
        dry_run: bool,
    ) -> Result<Stored<ApplicationRecord>, Problem> {
        self.check_policy("application.policy", &draft.policy)?;
        for _ in 0..TRIES {
            let free = self.look_up(request_id).await?;
            if let Some(Use::Taken(_)) = free {
                return self.application(&draft.name).await;
            }
            let key = application_key(&draft.name);
            if load::<ApplicationRecord>(&*self.store, key).await?.is_some() {
                let exists = Problem::ApplicationExists(convert::application_name(&draft.name));
                self.unless_repeated(request_id, exists).await?;
                continue;
            }
            let (batch, record) = self.creation(Batch::new(), draft).await?;
            if dry_run {
                return Ok(Stored { revision: quiesce_store::Revision::ZERO, record });
            }
            let batch = self.remember(batch, request_id, free, RequestResult::Application(draft.name.clone()));
            if self.commit(batch).await?.is_some() {
                return self.application(&draft.name).await;
            }
        }
        Err(contended())
    }

    /// Adds to `batch` that an application begins its life: its record, its cluster, and no tombstone.
    pub(super) async fn creation(
        &self,
        batch: Batch,
        draft: &ApplicationDraft,
    ) -> Result<(Batch, ApplicationRecord), Problem> {
        let Some(cluster) = draft.cluster.clone() else {
            return Err(Problem::field("application.cluster", "must be set"));
        };
        let tombstone_key = tombstone_key(&draft.name);
        let tombstone = load::<TombstoneRecord>(&*self.store, tombstone_key.clone()).await?;
        let now = convert::now(&*self.clock);
        let restored = load::<RestoredRecord>(&*self.store, restored_key()).await?.map(|stored| stored.record);
        let floor = restored.as_ref().map_or(0, |restored| restored.epoch_floor);
        let record = ApplicationRecord {
            name: draft.name.clone(),
            display_name: draft.display_name.clone(),
            cluster: cluster.clone(),
            policy: draft.policy.clone(),
            placement: draft.placement,
            expected_instances: draft.expected_instances,
            labels: draft.labels.clone(),
            active_operation: None,
            // A new life begins above the epochs of the one before, or a survivor of it could not be told apart.
            epoch: tombstone.as_ref().map_or(0, |tombstone| tombstone.record.epoch).max(floor),
            created: now,
            updated: now,
            moved_by: None,
            restored: restored.filter(|restored| now.since(restored.time) < UNKNOWN_FOR).map(|restored| restored.time),
        };
        let key = application_key(&draft.name);
        let mut batch = self.ensure_cluster(batch, &cluster).await?;
        if let Some(tombstone) = tombstone {
            batch = batch.expect(tombstone_key.clone(), tombstone.unchanged()).delete(tombstone_key);
        }
        Ok((put(batch.expect(key.clone(), Expect::Absent), key, &record), record))
    }

    /// Changes an application.
    pub(crate) async fn update_application(
        &self,
        update: &ApplicationUpdate,
        request_id: Option<&RequestId>,
        dry_run: bool,
    ) -> Result<Stored<ApplicationRecord>, Problem> {
        let name = &update.draft.name;
        for _ in 0..TRIES {
            let free = self.look_up(request_id).await?;
            if let Some(Use::Taken(_)) = free {
                return self.application(name).await;
            }
            let key = application_key(name);
            let result = RequestResult::Application(name.clone());
            let (batch, record, revision) = match load::<ApplicationRecord>(&*self.store, key.clone()).await? {
                Some(stored) => {
                    if !update.etag.is_empty() && update.etag != etag(stored.revision) {
                        let mismatch = Problem::EtagMismatch(convert::application_name(name));
                        self.unless_repeated(request_id, mismatch).await?;
                        continue;
                    }
                    let record = self.changed(&stored.record, update)?;
                    if record == stored.record {
                        if dry_run || request_id.is_none() {
                            return Ok(stored);
                        }
                        (Batch::new().expect(key, stored.unchanged()), record, stored.revision)
                    } else {
                        let mut batch = Batch::new().expect(key.clone(), stored.unchanged());
                        if record.cluster != stored.record.cluster {
                            batch = self.ensure_cluster(batch, &record.cluster).await?;
                        }
                        let record = ApplicationRecord { updated: convert::now(&*self.clock), ..record };
                        (put(batch, key, &record), record, stored.revision)
                    }
                }
                None if update.allow_missing => {
                    self.check_policy("application.policy", &update.draft.policy)?;
                    let (batch, record) = self.creation(Batch::new(), &update.draft).await?;
                    (batch, record, quiesce_store::Revision::ZERO)
                }
                None => return Err(Problem::ApplicationNotFound(convert::application_name(name))),
            };
            if dry_run {
                return Ok(Stored { revision, record });
            }
            if self.commit(self.remember(batch, request_id, free, result)).await?.is_some() {
                return self.application(name).await;
            }
        }
        Err(contended())
    }

    fn changed(&self, stored: &ApplicationRecord, update: &ApplicationUpdate) -> Result<ApplicationRecord, Problem> {
        let ApplicationUpdate { draft, mask, .. } = update;
        let mut record = stored.clone();
        if mask.covers("display_name") {
            record.display_name.clone_from(&draft.display_name);
        }
        if mask.covers("labels") {
            record.labels.clone_from(&draft.labels);
        }
        if mask.covers("expected_instances") {
            record.expected_instances = draft.expected_instances;
        }
        if mask.covers("placement") {
            record.placement = draft.placement;
        }
        if mask.covers("cluster") {
            let Some(cluster) = &draft.cluster else {
                return Err(Problem::field("application.cluster", "must be set"));
            };
            record.cluster = cluster.clone();
        }
        if mask.covers(RESTORE_TIME) {
            record.restored = None;
        }
        mask.apply_policy(&mut record.policy, &draft.policy);
        self.check_policy("application.policy", &record.policy)?;
        match &stored.active_operation {
            Some(operation) if record.cluster != stored.cluster => Err(Problem::OperationInProgress {
                application: convert::application_name(&stored.name),
                operation: operation.clone(),
            }),
            Some(_) | None => Ok(record),
        }
    }

    /// The bounds of the scheduler's default with `overrides` on top.
    pub(crate) fn check_policy(&self, field: &str, overrides: &PolicyOverrides) -> Result<(), Problem> {
        let mut bad = Violations::new();
        bad.policy(field, &self.default_policy.with(overrides));
        bad.check()
    }
}
