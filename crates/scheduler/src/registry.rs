//! The registry: which applications, instances and clusters there are.
//!
//! Owns their records, each changed by a conditional commit that is tried again when somebody else was faster. Whoever
//! adds or removes an instance writes the application's record, too: so an operation that is being accepted cannot
//! overlook an instance (it expects the application unchanged). It starts and stops nothing.

mod applications;
mod census;
mod clusters;
mod instances;
mod turns;

use std::sync::Arc;

use quiesce_operation::{ApplicationId, ClusterId, InstanceId, Operation, Policy};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_store::{Batch, CommitError, Committed, Expect, Store};

use crate::convert;
use crate::convert::resource::instance_state;
use crate::hooks::{Hooks, Presence};
use crate::idempotency::{RequestId, Use};
use crate::records::{
    ApplicationRecord, ClusterRecord, InstanceRecord, OperationRecord, RequestResult, Stored, cluster_key,
    instances_of, load, load_all, operation_key, put,
};
use crate::status::Problem;

pub(crate) use applications::{APPLICATION_LEAVES, ApplicationDraft, ApplicationUpdate, RESTORE_TIME};
pub(crate) use census::Census;
pub(crate) use clusters::{CLUSTER_LEAVES, ClusterDraft, ClusterUpdate, Usage};
pub(crate) use instances::{Admit, Claim, End, Registration};
pub(crate) use turns::Turns;

/// How often a change is tried when others change the same records at the same time. Each try fails only because
/// somebody else made progress. What many do at the same time, agents above all, waits for its turn before it tries
/// ([`Turns`]); this is for those who meet by chance.
pub(crate) const TRIES: usize = 32;

/// Applications, instances, clusters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hooks: Hooks,
    pub(crate) default_policy: Arc<Policy>,
    pub(crate) turns: Turns,
    pub(crate) usage: Census<Usage>,
}

/// An application with what follows from other records.
#[derive(Debug)]
pub(crate) struct ApplicationView {
    pub(crate) application: Stored<ApplicationRecord>,
    /// The open operation that holds it.
    pub(crate) operation: Option<Operation>,
    pub(crate) instances: Vec<InstanceView>,
}

impl ApplicationView {
    /// Instances in that state.
    pub(crate) fn instances_in(&self, state: v1::instance::State) -> usize {
        self.instances.iter().filter(|one| one.state == state).count()
    }
}

/// An instance with what its hook says.
#[derive(Debug)]
pub(crate) struct InstanceView {
    pub(crate) instance: Stored<InstanceRecord>,
    pub(crate) presence: Presence,
    pub(crate) state: v1::instance::State,
}

/// A cluster with its counts.
#[derive(Debug)]
pub(crate) struct ClusterView {
    pub(crate) cluster: Stored<ClusterRecord>,
    pub(crate) applications: usize,
    pub(crate) instances: usize,
}

impl Registry {
    /// An application as it is stored.
    pub(crate) async fn application(&self, id: &ApplicationId) -> Result<Stored<ApplicationRecord>, Problem> {
        let found = load(&*self.store, crate::records::application_key(id)).await?;
        found.ok_or_else(|| Problem::ApplicationNotFound(convert::application_name(id)))
    }

    /// The instances of an application, by name.
    pub(crate) async fn instances(&self, id: &ApplicationId) -> Result<Vec<Stored<InstanceRecord>>, Problem> {
        Ok(load_all(&*self.store, instances_of(id)).await?)
    }

    /// The operation that holds `application`, if it can be found.
    pub(crate) async fn holder(&self, application: &ApplicationRecord) -> Result<Option<Operation>, Problem> {
        let Some(id) = &application.active_operation else { return Ok(None) };
        let found = load::<OperationRecord>(&*self.store, operation_key(id)).await?;
        Ok(found.map(|stored| stored.record.0))
    }

    /// What readers see of an application.
    pub(crate) async fn view(&self, application: Stored<ApplicationRecord>) -> Result<ApplicationView, Problem> {
        let operation = self.holder(&application.record).await?;
        let instances = self.instances(&application.record.name).await?;
        let instances = instances.into_iter().map(|one| self.view_instance(one, operation.as_ref())).collect();
        Ok(ApplicationView { application, operation, instances })
    }

    /// What readers see of an instance, given the operation that holds its application.
    pub(crate) fn view_instance(
        &self,
        instance: Stored<InstanceRecord>,
        operation: Option<&Operation>,
    ) -> InstanceView {
        let record = &instance.record;
        let presence = self.hooks.presence(&record.application, &record.instance);
        let state = instance_state(record, &presence, operation);
        InstanceView { instance, presence, state }
    }

    /// The presence of a hook.
    pub(crate) fn presence(&self, application: &ApplicationId, instance: &InstanceId) -> Presence {
        self.hooks.presence(application, instance)
    }

    /// Commits `batch`; `None` if somebody else was faster and the caller has to look again.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<Option<Committed>, Problem> {
        match self.store.commit(batch).await {
            Ok(committed) => Ok(Some(committed)),
            Err(CommitError::Conflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds to `batch` that `cluster` is known: made known now, or expected to stay so.
    pub(crate) async fn ensure_cluster(&self, batch: Batch, cluster: &ClusterId) -> Result<Batch, Problem> {
        let key = cluster_key(cluster);
        if load::<ClusterRecord>(&*self.store, key.clone()).await?.is_some() {
            return Ok(batch.expect(key, Expect::Present));
        }
        let now = convert::now(&*self.clock);
        let record = ClusterRecord {
            name: cluster.clone(),
            display_name: String::new(),
            labels: std::collections::BTreeMap::new(),
            created: now,
            updated: now,
        };
        Ok(put(batch.expect(key.clone(), Expect::Absent), key, &record))
    }

    /// The problem, unless the same request has been accepted since its id was looked up: then that may be the very
    /// reason, and it is found by looking again.
    pub(crate) async fn unless_repeated(
        &self,
        request_id: Option<&RequestId>,
        problem: Problem,
    ) -> Result<(), Problem> {
        match self.look_up(request_id).await? {
            Some(Use::Taken(_)) => Ok(()),
            Some(Use::Free(_)) | None => Err(problem),
        }
    }

    /// Whether a request with an id was accepted before. `Free` without id expects nothing.
    pub(crate) async fn look_up(&self, id: Option<&RequestId>) -> Result<Option<Use>, Problem> {
        match id {
            Some(id) => Ok(Some(id.look_up(&*self.store, convert::now(&*self.clock)).await?)),
            None => Ok(None),
        }
    }

    /// Adds the request id to `batch`, if there is one.
    pub(crate) fn remember(
        &self,
        batch: Batch,
        id: Option<&RequestId>,
        free: Option<Use>,
        result: RequestResult,
    ) -> Batch {
        match (id, free) {
            (Some(id), Some(Use::Free(expect))) => id.remember(batch, expect, result, convert::now(&*self.clock)),
            (Some(_), Some(Use::Taken(_)) | None) | (None, _) => batch,
        }
    }
}

/// What is answered when [`TRIES`] were in vain.
pub(crate) fn contended() -> Problem {
    Problem::NotServing("others change the same records without pause")
}
