//! Instances: registered by their agents, admitted to start, reported as ended, deregistered.

use std::collections::BTreeMap;

use quiesce_operation::report::AppState;
use quiesce_operation::{ApplicationId, ClusterId, InstanceId, Kind, Moment, OperationId, StateName};
use quiesce_store::{Batch, Expect};
use tracing::info;

use super::{ApplicationDraft, Registry, TRIES, contended};
use quiesce_mutation::{Mutant, active};

use crate::access::BAD_CREDENTIAL;
use crate::convert;
use crate::hooks::HookInfo;
use crate::records::{
    Admission, ApplicationRecord, Connect, InstanceRecord, OperationRecord, Stored, TokenRecord, TombstoneRecord,
    application_key, instance_key, load, operation_key, put, token_key, tombstone_key,
};
use crate::status::Problem;

/// Most instances of one application: an operation holds all of them in one record and one batch (see the bounds of the
/// store's batches).
const INSTANCES_MAX: usize = 500;

/// Highest epoch that a hook is believed to have seen: far above the milliseconds since 1970 that a store put back from a
/// backup begins with, and far below the largest number on the wire.
const EPOCH_BELIEVED_MAX: u64 = 1 << 52;

/// What an agent says of its instance.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) application: ApplicationId,
    pub(crate) instance: InstanceId,
    pub(crate) connect: Connect,
    /// None: where the application is.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) stop_order: i32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) agent_id: String,
    /// What to create when the application is not known.
    pub(crate) default_application: Option<ApplicationDraft>,
    /// The agent holds or stands by.
    pub(crate) held: bool,
    pub(crate) claim: Claim,
}

/// By what right somebody registers an instance.
#[derive(Debug)]
pub(crate) enum Claim {
    /// By none that makes him the instance: access is open, or an admin registers a hook that only listens.
    Speaks,
    /// As the instance itself, by this credential.
    Holds(u64),
    /// To become the instance, which has this credential from then on; a token is used once more by that.
    Joins { token: Option<String>, credential: u64 },
}

/// Asks for permission to start.
#[derive(Debug)]
pub(crate) struct Admit {
    pub(crate) application: ApplicationId,
    pub(crate) instance: InstanceId,
    pub(crate) start_id: String,
    pub(crate) agent_id: String,
    pub(crate) last_epoch: u64,
    pub(crate) held_by: Option<OperationId>,
}

/// The end of an application outside of operations.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) application: ApplicationId,
    pub(crate) instance: InstanceId,
    pub(crate) agent_id: String,
    pub(crate) epoch: u64,
}

impl Registry {
    /// An instance as it is stored.
    pub(crate) async fn instance(
        &self,
        application: &ApplicationId,
        instance: &InstanceId,
    ) -> Result<Stored<InstanceRecord>, Problem> {
        let found = load(&*self.store, instance_key(application, instance)).await?;
        found.ok_or_else(|| Problem::InstanceNotFound(convert::instance_name(application, instance)))
    }

    /// Makes an instance known or brings it up to date, and tells the hooks.
    pub(crate) async fn register(&self, wanted: &Registration) -> Result<Stored<InstanceRecord>, Problem> {
        let _turn = self.turns.of(&wanted.application).await;
        for _ in 0..TRIES {
            if let Some(stored) = self.try_register(wanted).await? {
                self.hooks.registered(&stored.record);
                return Ok(stored);
            }
        }
        Err(contended())
    }

    async fn try_register(&self, wanted: &Registration) -> Result<Option<Stored<InstanceRecord>>, Problem> {
        let application_key = application_key(&wanted.application);
        let application = load::<ApplicationRecord>(&*self.store, application_key.clone()).await?;
        let (batch, home) = match application {
            Some(stored) => (Batch::new().expect(application_key.clone(), stored.unchanged()), stored.record),
            None => self.first_registration(wanted).await?,
        };
        let key = instance_key(&wanted.application, &wanted.instance);
        let known = load::<InstanceRecord>(&*self.store, key.clone()).await?;
        self.check_registration(wanted, &home, known.as_ref()).await?;

        let now = convert::now(&*self.clock);
        let record = registered(wanted, &home, known.as_ref().map(|known| &known.record), now);
        if let Some(known) = known.as_ref().filter(|known| known.record == record) {
            return Ok(Some(known.clone()));
        }
        let batch = self.ensure_cluster(batch, &record.cluster).await?;
        let expect = known.as_ref().map_or(Expect::Absent, Stored::unchanged);
        let mut batch = self.use_token(batch.expect(key.clone(), expect), &wanted.claim).await?;
        if known.as_ref().is_none_or(|known| known.record.cluster != record.cluster) {
            // Written although nothing else in it changes, so that an operation that is being accepted notices.
            batch = put(batch, application_key, &ApplicationRecord { updated: now, ..home });
        }
        let record = InstanceRecord { updated: now, ..record };
        let committed = self.commit(put(batch, key, &record)).await?;
        Ok(committed.map(|committed| Stored { revision: committed.last, record }))
    }

    /// Adds to `batch` that the token of whoever joins is used once more, if it still may be.
    async fn use_token(&self, batch: Batch, claim: &Claim) -> Result<Batch, Problem> {
        let Claim::Joins { token: Some(id), .. } = claim else { return Ok(batch) };
        let key = token_key(id);
        let found = load::<TokenRecord>(&*self.store, key.clone()).await?;
        let good = found.filter(|found| found.record.is_good(convert::now(&*self.clock)));
        let Some(stored) = good else { return Err(Problem::CredentialsInvalid(BAD_CREDENTIAL)) };
        let expect = stored.unchanged();
        let record = TokenRecord { uses: stored.record.uses.saturating_add(1), ..stored.record };
        Ok(put(batch.expect(key.clone(), expect), key, &record))
    }

    /// The application is not known: make it, or say why not.
    async fn first_registration(&self, wanted: &Registration) -> Result<(Batch, ApplicationRecord), Problem> {
        let name = || convert::application_name(&wanted.application);
        if wanted.held {
            let tombstone = load::<TombstoneRecord>(&*self.store, tombstone_key(&wanted.application)).await?;
            return Err(match tombstone {
                Some(Stored { record, .. }) => {
                    Problem::ApplicationDeleted { application: name(), operation: record.operation }
                }
                None => Problem::ApplicationNotFound(name()),
            });
        }
        let Some(draft) = &wanted.default_application else { return Err(Problem::ApplicationNotFound(name())) };
        self.check_policy("default_application.policy", &draft.policy)?;
        let cluster = draft.cluster.clone().or_else(|| wanted.cluster.clone());
        let draft = ApplicationDraft { name: wanted.application.clone(), cluster, ..draft.clone() };
        self.creation(Batch::new(), &draft).await
    }

    async fn check_registration(
        &self,
        wanted: &Registration,
        home: &ApplicationRecord,
        known: Option<&Stored<InstanceRecord>>,
    ) -> Result<(), Problem> {
        let Some(known) = known else {
            if matches!(wanted.claim, Claim::Holds(_)) {
                return Err(Problem::CredentialsInvalid(BAD_CREDENTIAL));
            }
            if let Some(operation) = &home.active_operation {
                let application = convert::application_name(&wanted.application);
                return Err(Problem::ApplicationStopping { application, operation: operation.clone() });
            }
            if self.instances(&wanted.application).await?.len() >= INSTANCES_MAX {
                return Err(Problem::LimitExceeded { limit: "instances of one application" });
            }
            return Ok(());
        };
        let in_use = || Problem::InstanceInUse(convert::instance_name(&wanted.application, &wanted.instance));
        match wanted.claim {
            // Looked up again here, since another may have joined since the caller was let in.
            Claim::Holds(credential) if known.record.credential != Some(credential) => {
                return Err(Problem::CredentialsInvalid(BAD_CREDENTIAL));
            }
            // An agent id is no secret: whoever says it without the credential may be another one. He gets the name when
            // nothing is left that could be the copy of its holder.
            Claim::Joins { .. } if known.record.credential.is_some() => {
                let connected = self.presence(&wanted.application, &wanted.instance).connected;
                let may_run = known.record.admission.as_ref().is_some_and(|admission| !admission.ended);
                if connected || may_run || home.active_operation.is_some() {
                    return Err(in_use());
                }
            }
            Claim::Speaks | Claim::Holds(_) | Claim::Joins { .. } => {}
        }
        let before = &known.record.agent_id;
        if before.is_empty() || *before == wanted.agent_id {
            return Ok(());
        }
        // While an operation is open, what another agent says of "its" application proves nothing about the one that
        // is to be stopped.
        let connected = self.presence(&wanted.application, &wanted.instance).connected;
        if connected || home.active_operation.is_some() {
            return Err(in_use());
        }
        Ok(())
    }

    /// Forgets an instance, and tells the hooks. One whose hook says that a copy runs is not gone: forgetting it would
    /// forget the permission it runs under.
    pub(crate) async fn deregister(&self, application: &ApplicationId, instance: &InstanceId) -> Result<(), Problem> {
        let _turn = self.turns.of(application).await;
        for _ in 0..TRIES {
            let key = instance_key(application, instance);
            let Some(known) = load::<InstanceRecord>(&*self.store, key.clone()).await? else { return Ok(()) };
            let mut batch = Batch::new().expect(key.clone(), known.unchanged()).delete(key);
            let home_key = application_key(application);
            if let Some(home) = load::<ApplicationRecord>(&*self.store, home_key.clone()).await? {
                if let Some(operation) = &home.record.active_operation {
                    let application = convert::application_name(application);
                    return Err(Problem::OperationInProgress { application, operation: operation.clone() });
                }
                let expect = home.unchanged();
                let record = ApplicationRecord { updated: convert::now(&*self.clock), ..home.record };
                batch = put(batch.expect(home_key.clone(), expect), home_key, &record);
            }
            let presence = self.presence(application, instance);
            let runs = |info: &HookInfo| !matches!(info.app_state, AppState::Stopped | AppState::Held);
            if presence.connected && presence.info.as_ref().is_none_or(runs) {
                return Err(Problem::InstanceRuns(convert::instance_name(application, instance)));
            }
            if self.commit(batch).await?.is_some() {
                self.hooks.forgotten(application, instance);
                return Ok(());
            }
        }
        Err(contended())
    }

    /// Permits an instance to start its application: a new epoch, or the one that this start was given before.
    pub(crate) async fn admit_start(&self, wanted: &Admit) -> Result<u64, Problem> {
        let _turn = self.turns.of(&wanted.application).await;
        for _ in 0..TRIES {
            if let Some(epoch) = self.try_admit(wanted).await? {
                return Ok(epoch);
            }
        }
        Err(contended())
    }

    async fn try_admit(&self, wanted: &Admit) -> Result<Option<u64>, Problem> {
        let name = || convert::instance_name(&wanted.application, &wanted.instance);
        let application = self.application(&wanted.application).await?;
        let instance = self.instance(&wanted.application, &wanted.instance).await?;
        self.check_admission(wanted, &application.record, &instance.record).await?;
        if let Some(last) = &instance.record.admission {
            if last.agent_id == wanted.agent_id
                && last.start_id == wanted.start_id
                && last.epoch == instance.record.epoch
            {
                return Ok(Some(last.epoch));
            }
            if last.agent_id != wanted.agent_id && !last.ended {
                return Err(Problem::InstanceInUse(name()));
            }
        }
        let now = convert::now(&*self.clock);
        let seen = self.highest_seen(&wanted.application).await?;
        let epoch = application.record.epoch.max(instance.record.epoch).max(wanted.last_epoch).max(seen) + 1;
        let (application_expect, instance_expect) = (application.unchanged(), instance.unchanged());
        let admission =
            Admission { agent_id: wanted.agent_id.clone(), start_id: wanted.start_id.clone(), epoch, ended: false };
        let application = ApplicationRecord { epoch, updated: now, ..application.record };
        let instance = InstanceRecord { epoch, admission: Some(admission), updated: now, ..instance.record };
        let application_key = application_key(&wanted.application);
        let instance_key = instance_key(&wanted.application, &wanted.instance);
        let batch = Batch::new()
            .expect(application_key.clone(), application_expect)
            .expect(instance_key.clone(), instance_expect);
        let batch = put(put(batch, application_key, &application), instance_key, &instance);
        if self.commit(batch).await?.is_none() {
            return Ok(None);
        }
        info!(instance = %name(), epoch, "start admitted");
        Ok(Some(epoch))
    }

    /// The highest epoch that a hook of the application says it has seen. The records know as much, unless the store has
    /// lost what they knew; then whoever was permitted to run by an earlier life must not be outranked by its number.
    async fn highest_seen(&self, application: &ApplicationId) -> Result<u64, Problem> {
        let instances = self.instances(application).await?;
        let seen = instances.iter().filter_map(|one| self.presence(application, &one.record.instance).info);
        // What a hook makes up must not use the numbers up for everybody.
        Ok(seen.map(|info| info.epoch).filter(|epoch| *epoch <= EPOCH_BELIEVED_MAX).max().unwrap_or(0))
    }

    async fn check_admission(
        &self,
        wanted: &Admit,
        application: &ApplicationRecord,
        instance: &InstanceRecord,
    ) -> Result<(), Problem> {
        let name = convert::instance_name(&wanted.application, &wanted.instance);
        let refuse = |why: String, operation: Option<OperationId>| {
            let cluster = application.cluster.clone();
            Err(Problem::StartNotPermitted { instance: name.clone(), why, cluster, operation })
        };
        if application.restored.is_some() {
            return Err(Problem::RestoreUnconfirmed(convert::application_name(&application.name)));
        }
        if instance.agent_id != wanted.agent_id {
            return Err(Problem::InstanceInUse(name));
        }
        if let Some(operation) = &application.active_operation
            && !active(Mutant::AdmitsWhileOpen)
        {
            return refuse(format!("operations/{operation} is open"), Some(operation.clone()));
        }
        if instance.cluster != application.cluster {
            return refuse(format!("the application belongs on cluster {}", application.cluster), None);
        }
        // After a migration that was abandoned half-way the application may run where it was to go. Whoever starts it
        // there writes the application's record as well, so this cannot change behind our back.
        let everywhere = self.instances(&wanted.application).await?;
        let elsewhere = everywhere.iter().map(|stored| &stored.record).find(|other| {
            other.cluster != instance.cluster && other.admission.as_ref().is_some_and(|admission| !admission.ended)
        });
        if let Some(other) = elsewhere {
            let (other, cluster) = (&other.instance, &other.cluster);
            return refuse(format!("{other} on {cluster} may still run, its end was never verified"), None);
        }
        // Whoever holds after a deletion begins a new life on purpose only (see the agent's hold file), even if others
        // have made an application of the same name meanwhile.
        if let Some(held_by) = &wanted.held_by {
            let holder = load::<OperationRecord>(&*self.store, operation_key(held_by)).await?;
            let deleted = holder.is_some_and(|Stored { record: OperationRecord(holder), .. }| {
                holder.request().kind == Kind::Delete && holder.state() == StateName::Succeeded
            });
            if deleted {
                return refuse(format!("operations/{held_by} has deleted it"), Some(held_by.clone()));
            }
        }
        Ok(())
    }

    /// Takes note of the end of a permitted run; `ended` says whether that end is certain.
    pub(crate) async fn report_end(&self, end: &End, ended: bool) -> Result<(), Problem> {
        for _ in 0..TRIES {
            let instance = self.instance(&end.application, &end.instance).await?;
            let expect = instance.unchanged();
            let Some(admission) = instance.record.admission.clone() else { return Ok(()) };
            // The end of a later run than the one known here, which a store that was put back from a backup may not know:
            // an agent runs one copy at a time, so the earlier run has ended as well.
            let in_force = admission.epoch <= end.epoch && admission.agent_id == end.agent_id;
            if !ended || !in_force || admission.ended {
                return Ok(());
            }
            let admission = Some(Admission { ended: true, ..admission });
            let record = InstanceRecord { admission, updated: convert::now(&*self.clock), ..instance.record };
            let key = instance_key(&end.application, &end.instance);
            if self.commit(put(Batch::new().expect(key.clone(), expect), key, &record)).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended())
    }
}

/// The record a registration leads to. What the scheduler knows by itself (epoch, admission) stays.
fn registered(
    wanted: &Registration,
    home: &ApplicationRecord,
    known: Option<&InstanceRecord>,
    now: Moment,
) -> InstanceRecord {
    InstanceRecord {
        application: wanted.application.clone(),
        instance: wanted.instance.clone(),
        connect: wanted.connect.clone(),
        cluster: wanted.cluster.clone().unwrap_or_else(|| home.cluster.clone()),
        stop_order: wanted.stop_order,
        labels: wanted.labels.clone(),
        agent_id: wanted.agent_id.clone(),
        epoch: known.map_or(0, |known| known.epoch),
        admission: known.and_then(|known| known.admission.clone()),
        created: known.map_or(now, |known| known.created),
        updated: known.map_or(now, |known| known.updated),
        credential: match wanted.claim {
            Claim::Joins { credential, .. } => Some(credential),
            Claim::Speaks | Claim::Holds(_) => known.and_then(|known| known.credential),
        },
    }
}
