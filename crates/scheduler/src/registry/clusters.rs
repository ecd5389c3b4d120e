//! Clusters: made known on purpose or by being named, changed, forgotten when nobody names them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minicbor::Encode;
use quiesce_operation::ClusterId;
use quiesce_store::{Batch, Expect, Revision, Scan, Space};

use super::{ClusterView, Registry, TRIES, contended};
use crate::convert;
use crate::convert::resource::etag;
use crate::idempotency::{RequestId, Use};
use crate::mask::Mask;
use crate::records::{
    ApplicationRecord, ClusterRecord, InstanceRecord, RequestResult, Stored, cluster_key, load, load_all, put,
};
use crate::status::Problem;

/// The fields of a cluster that a mask may name.
pub(crate) const CLUSTER_LEAVES: &[&str] = &["display_name", "labels"];

/// A cluster as a caller describes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode)]
pub(crate) struct ClusterDraft {
    #[n(0)]
    pub(crate) name: ClusterId,
    #[n(1)]
    pub(crate) display_name: String,
    #[n(2)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// A change of a cluster.
#[derive(Debug)]
pub(crate) struct ClusterUpdate {
    pub(crate) draft: ClusterDraft,
    pub(crate) mask: Mask,
    pub(crate) etag: String,
    pub(crate) allow_missing: bool,
}

/// Who names which cluster.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counts: HashMap<ClusterId, (usize, usize)>,
}

impl Usage {
    /// Applications and instances that name `cluster`.
    pub(crate) fn of(&self, cluster: &ClusterId) -> (usize, usize) {
        self.counts.get(cluster).copied().unwrap_or_default()
    }
}

fn cluster_name(id: &ClusterId) -> String {
    format!("clusters/{id}")
}

impl Registry {
    /// A cluster as it is stored.
    pub(crate) async fn cluster(&self, id: &ClusterId) -> Result<Stored<ClusterRecord>, Problem> {
        let found = load(&*self.store, cluster_key(id)).await?;
        found.ok_or_else(|| Problem::ClusterNotFound(cluster_name(id)))
    }

    /// Counts over the whole registry, begun after this call.
    pub(crate) async fn usage(&self) -> Result<Arc<Usage>, Problem> {
        self.usage.take(async || self.count().await).await
    }

    async fn count(&self) -> Result<Usage, Problem> {
        let mut usage = Usage::default();
        for application in load_all::<ApplicationRecord>(&*self.store, Scan::all(Space::Applications)).await? {
            usage.counts.entry(application.record.cluster).or_default().0 += 1;
        }
        for instance in load_all::<InstanceRecord>(&*self.store, Scan::all(Space::Instances)).await? {
            usage.counts.entry(instance.record.cluster).or_default().1 += 1;
        }
        Ok(usage)
    }

    /// What readers see of a cluster.
    pub(crate) async fn view_cluster(&self, cluster: Stored<ClusterRecord>) -> Result<ClusterView, Problem> {
        let (applications, instances) = self.usage().await?.of(&cluster.record.name);
        Ok(ClusterView { cluster, applications, instances })
    }

    /// Makes a cluster known.
    pub(crate) async fn create_cluster(
        &self,
        draft: &ClusterDraft,
        request_id: Option<&RequestId>,
        dry_run: bool,
    ) -> Result<Stored<ClusterRecord>, Problem> {
        for _ in 0..TRIES {
            let free = self.look_up(request_id).await?;
            if let Some(Use::Taken(_)) = free {
                return self.cluster(&draft.name).await;
            }
            if load::<ClusterRecord>(&*self.store, cluster_key(&draft.name)).await?.is_some() {
                self.unless_repeated(request_id, Problem::ClusterExists(cluster_name(&draft.name))).await?;
                continue;
            }
            let record = self.new_cluster(draft);
            if dry_run {
                return Ok(Stored { revision: Revision::ZERO, record });
            }
            let key = cluster_key(&draft.name);
            let batch = put(Batch::new().expect(key.clone(), Expect::Absent), key, &record);
            let batch = self.remember(batch, request_id, free, RequestResult::Cluster(draft.name.clone()));
            if self.commit(batch).await?.is_some() {
                return self.cluster(&draft.name).await;
            }
        }
        Err(contended())
    }

    fn new_cluster(&self, draft: &ClusterDraft) -> ClusterRecord {
        let now = convert::now(&*self.clock);
        let ClusterDraft { name, display_name, labels } = draft.clone();
        ClusterRecord { name, display_name, labels, created: now, updated: now }
    }

    /// Changes a cluster.
    pub(crate) async fn update_cluster(
        &self,
        update: &ClusterUpdate,
        request_id: Option<&RequestId>,
        dry_run: bool,
    ) -> Result<Stored<ClusterRecord>, Problem> {
        let ClusterUpdate { draft, mask, .. } = update;
        for _ in 0..TRIES {
            let free = self.look_up(request_id).await?;
            if let Some(Use::Taken(_)) = free {
                return self.cluster(&draft.name).await;
            }
            let key = cluster_key(&draft.name);
            let (expect, record, revision) = match load::<ClusterRecord>(&*self.store, key.clone()).await? {
                Some(stored) => {
                    if !update.etag.is_empty() && update.etag != etag(stored.revision) {
                        let mismatch = Problem::EtagMismatch(cluster_name(&draft.name));
                        self.unless_repeated(request_id, mismatch).await?;
                        continue;
                    }
                    let mut record = stored.record.clone();
                    if mask.covers("display_name") {
                        record.display_name.clone_from(&draft.display_name);
                    }
                    if mask.covers("labels") {
                        record.labels.clone_from(&draft.labels);
                    }
                    record.updated = convert::now(&*self.clock);
                    (stored.unchanged(), record, stored.revision)
                }
                None if update.allow_missing => (Expect::Absent, self.new_cluster(draft), Revision::ZERO),
                None => return Err(Problem::ClusterNotFound(cluster_name(&draft.name))),
            };
            if dry_run {
                return Ok(Stored { revision, record });
            }
            let batch = put(Batch::new().expect(key.clone(), expect), key, &record);
            let batch = self.remember(batch, request_id, free, RequestResult::Cluster(draft.name.clone()));
            if self.commit(batch).await?.is_some() {
                return self.cluster(&draft.name).await;
            }
        }
        Err(contended())
    }

    /// Forgets a cluster that nobody names.
    pub(crate) async fn delete_cluster(&self, id: &ClusterId, wanted_etag: &str) -> Result<(), Problem> {
        for _ in 0..TRIES {
            let stored = self.cluster(id).await?;
            if !wanted_etag.is_empty() && wanted_etag != etag(stored.revision) {
                return Err(Problem::EtagMismatch(cluster_name(id)));
            }
            let (applications, instances) = self.usage().await?.of(id);
            if applications + instances > 0 {
                return Err(Problem::ClusterInUse { name: cluster_name(id), applications, instances });
            }
            let key = cluster_key(id);
            let batch = Batch::new().expect(key.clone(), stored.unchanged()).delete(key);
            if self.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }
}
