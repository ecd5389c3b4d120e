//! Requests to migrate and to delete: checked, tried dry, accepted.
//!
//! Accepting is one batch: the application is held, the request id used up, the operation and its first event stored.
//! After that batch, and only then, the driver takes the operation up and the caller hears of it. What happens to the
//! operation from there on is not decided here.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use minicbor::Encode;
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, Kind, Operation, OperationId, Placement, PolicyOverrides, Registered, Request,
    StateName, Trace,
};
use quiesce_protocol::v1;
use quiesce_runtime::machine::Machine;
use quiesce_store::{Batch, Expect, Revision, Space};
use uuid::Builder;

use quiesce_mutation::{Mutant, active};

use crate::convert;
use crate::convert::resource::etag;
use crate::driver::{Command, CommandError, Handle};
use crate::idempotency::{RequestId, Use};
use crate::records::{
    ApplicationRecord, EventRecord, InstanceRecord, OperationRecord, RequestResult, Stored, application_key, load,
    operation_key, put,
};
use crate::registry::{Registry, TRIES, contended};
use crate::status::Problem;

/// What a caller asks for. Its encoding is what a request id stands for; `etag` and guards are part of it.
#[derive(Debug, Clone, Encode)]
pub(crate) struct Ask {
    #[n(0)]
    pub(crate) application: ApplicationId,
    #[n(1)]
    pub(crate) kind: Kind,
    #[n(2)]
    pub(crate) target: Option<ClusterId>,
    /// Where the caller believes it runs.
    #[n(3)]
    pub(crate) source: Option<ClusterId>,
    #[n(4)]
    pub(crate) policy: PolicyOverrides,
    #[n(5)]
    pub(crate) force: bool,
    #[n(6)]
    pub(crate) reason: String,
    #[n(7)]
    pub(crate) labels: BTreeMap<String, String>,
    #[n(8)]
    pub(crate) etag: String,
}

/// Who asks, under which id.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) identity: String,
    pub(crate) request_id: String,
    /// Where the call stands in a trace.
    pub(crate) trace: Option<Trace>,
}

/// An operation that was accepted, now or before.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) operation: Operation,
    pub(crate) revision: Revision,
}

/// Everything that was checked, ready to be stored.
struct Draft {
    application: Stored<ApplicationRecord>,
    operation: Operation,
    events: Vec<quiesce_operation::Event>,
    /// A degraded operation that this one takes over from.
    supersedes: Option<OperationId>,
}

/// Accepts operations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Admission {
    registry: Registry,
    driver: Handle,
    machine: Machine,
    /// The millisecond of the last identifier.
    last_id: Arc<AtomicU64>,
}

impl Admission {
    pub(crate) fn new(registry: Registry, driver: Handle, machine: Machine) -> Self {
        Self { registry, driver, machine, last_id: Arc::default() }
    }

    /// Accepts the request, or finds what the same request led to before.
    pub(crate) async fn accept(&self, ask: &Ask, asker: &Asker) -> Result<Accepted, Problem> {
        let method = match ask.kind {
            Kind::Migrate => "MigrateApplication",
            Kind::Delete => "DeleteApplication",
        };
        let request_id = RequestId::of(method, &asker.identity, &asker.request_id, ask);
        for _ in 0..TRIES {
            let free = self.registry.look_up(request_id.as_ref()).await?;
            if let Some(Use::Taken(RequestResult::Operation(id))) = &free {
                return self.operation(id).await;
            }
            let draft = match self.draft(ask, asker).await {
                Ok(draft) => draft,
                Err(problem) => {
                    self.registry.unless_repeated(request_id.as_ref(), problem).await?;
                    continue;
                }
            };
            let id = draft.operation.id().clone();
            let batch = self.batch(&draft).await?;
            let batch = self.registry.remember(batch, request_id.as_ref(), free, RequestResult::Operation(id.clone()));
            let batch = finish(batch, &draft);
            if active(Mutant::AnswersBeforePersisting) {
                return Ok(Accepted { operation: draft.operation, revision: Revision::ZERO });
            }
            let revision = match &draft.supersedes {
                None => self.registry.commit(batch).await?.map(|committed| committed.last),
                Some(old) => self.supersede(old, &id, batch).await?,
            };
            if let Some(revision) = revision {
                let operation = draft.operation;
                self.driver.adopt(operation.clone(), revision).await;
                return Ok(Accepted { operation, revision });
            }
        }
        Err(contended())
    }

    /// Checks the request as [`Admission::accept`] does and asks the hooks; stores nothing.
    pub(crate) async fn rehearse(&self, ask: &Ask, asker: &Asker) -> Result<(Operation, v1::ShutdownPlan), Problem> {
        let Draft { operation, .. } = self.draft(ask, asker).await?;
        let plan = plan::make(&operation, &self.registry.hooks).await;
        Ok((operation, plan))
    }

    /// An operation as it is stored.
    pub(crate) async fn operation(&self, id: &OperationId) -> Result<Accepted, Problem> {
        let found = load::<OperationRecord>(&*self.registry.store, operation_key(id)).await?;
        let Stored { revision, record: OperationRecord(operation) } =
            found.ok_or_else(|| Problem::OperationNotFound(convert::operation_name(id)))?;
        Ok(Accepted { operation, revision })
    }

    /// Everything the contract has checked before an operation begins.
    async fn draft(&self, ask: &Ask, asker: &Asker) -> Result<Draft, Problem> {
        let name = convert::application_name(&ask.application);
        let application = self.registry.application(&ask.application).await?;
        let record = &application.record;
        let policy = self.registry.default_policy.with(&record.policy).with(&ask.policy);
        let mut bad = crate::validate::Violations::new();
        bad.policy("policy", &policy);
        bad.check()?;
        if !ask.etag.is_empty() && ask.etag != etag(application.revision) {
            return Err(Problem::EtagMismatch(name));
        }
        if record.restored.is_some() {
            return Err(Problem::RestoreUnconfirmed(name));
        }
        let supersedes = self.holder_to_supersede(ask, record).await?;
        if ask.source.as_ref().is_some_and(|source| *source != record.cluster) {
            return Err(Problem::SourceClusterMismatch { application: name, cluster: record.cluster.clone() });
        }
        if ask.target.as_ref() == Some(&record.cluster) {
            return Err(Problem::AlreadyOnTarget { application: name, cluster: record.cluster.clone() });
        }
        let instances = self.registry.instances(&ask.application).await?;
        let members = members(ask, record, &instances)?;
        let targets = targets(ask, record, &instances)?;
        let request = Request {
            application: ask.application.clone(),
            kind: ask.kind,
            source: record.cluster.clone(),
            target: ask.target.clone(),
            placement: record.placement,
            force: ask.force,
            caller: Caller { identity: asker.identity.clone(), reason: ask.reason.clone() },
            request_id: asker.request_id.clone(),
            labels: ask.labels.clone(),
            time: convert::now(&*self.registry.clock),
            trace: asker.trace.clone(),
        };
        let (operation, events) = Operation::accept(self.new_id()?, request, policy, members, targets, record.epoch);
        Ok(Draft { application, operation, events, supersedes })
    }

    /// Nobody may hold the application, except that a forced deletion takes over from what is DEGRADED.
    async fn holder_to_supersede(
        &self,
        ask: &Ask,
        application: &ApplicationRecord,
    ) -> Result<Option<OperationId>, Problem> {
        let Some(id) = &application.active_operation else { return Ok(None) };
        let holder = self.registry.holder(application).await?;
        let degraded = holder.is_some_and(|holder| holder.state() == StateName::Degraded);
        if ask.kind == Kind::Delete && ask.force && degraded {
            return Ok(Some(id.clone()));
        }
        let application = convert::application_name(&application.name);
        Err(Problem::OperationInProgress { application, operation: id.clone() })
    }

    /// The beginning of the accepting batch: the application is held, the target cluster known.
    async fn batch(&self, draft: &Draft) -> Result<Batch, Problem> {
        let Draft { application, operation, .. } = draft;
        let key = application_key(&application.record.name);
        let record = ApplicationRecord {
            active_operation: Some(operation.id().clone()),
            epoch: operation.epoch(),
            updated: operation.request().time,
            ..application.record.clone()
        };
        let mut batch = Batch::new().expect(key.clone(), application.unchanged());
        if let Some(target) = &operation.request().target {
            batch = self.registry.ensure_cluster(batch, target).await?;
        }
        Ok(put(batch, key, &record))
    }

    /// Has the driver close the old operation in the batch that accepts the new one. `None`: look again.
    async fn supersede(
        &self,
        old: &OperationId,
        new: &OperationId,
        accept: Batch,
    ) -> Result<Option<Revision>, Problem> {
        let command = Command::Supersede { by: new.clone(), accept };
        match self.driver.command(old, command).await {
            Ok(_) => Ok(Some(self.operation(new).await?.revision)),
            // Somebody has retried, cancelled or superseded it meanwhile; the next look tells what to say.
            Err(CommandError::Conflict(_) | CommandError::Refused(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A new identifier. Made from the timeline, which never goes back, so that later operations sort behind earlier
    /// ones whatever becomes of the wall clock; no two of one process share a millisecond.
    fn new_id(&self) -> Result<OperationId, Problem> {
        let now = self.registry.clock.now();
        let next = |last: u64| now.max(last + 1);
        let last = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        let millis = next(last.unwrap_or_else(|last| last));
        let mut random = [0; 10];
        self.machine.entropy.fill(&mut random).map_err(|error| Problem::Internal(Box::new(error)))?;
        Ok(OperationId::from_uuid(Builder::from_unix_timestamp_millis(millis, &random).into_uuid()))
    }
}

/// The end of the accepting batch: events first, the record last, so that its revision is above theirs.
fn finish(mut batch: Batch, draft: &Draft) -> Batch {
    let Draft { operation, events, .. } = draft;
    for event in events {
        let record = EventRecord::new(operation, event);
        batch = batch.append(Space::Events, quiesce_store::record::encode(&record));
    }
    let key = operation_key(operation.id());
    put(batch.expect(key.clone(), Expect::Absent), key, &OperationRecord(operation.clone()))
}

/// Whom the operation stops: a migration what is on the source, a deletion everything, standbys included.
fn members(
    ask: &Ask,
    application: &ApplicationRecord,
    instances: &[Stored<InstanceRecord>],
) -> Result<Vec<Registered>, Problem> {
    let name = || convert::application_name(&application.name);
    let at_home = |one: &&Stored<InstanceRecord>| one.record.cluster == application.cluster;
    let home = instances.iter().filter(at_home).count();
    let members: Vec<Registered> = match ask.kind {
        Kind::Migrate => instances.iter().filter(at_home).map(|one| one.record.registered()).collect(),
        Kind::Delete => instances.iter().map(|one| one.record.registered()).collect(),
    };
    if ask.force {
        return Ok(members);
    }
    if members.is_empty() {
        return Err(Problem::NoInstances(name()));
    }
    match application.expected_instances {
        Some(expected) if usize::try_from(expected).is_ok_and(|expected| home < expected) => {
            Err(Problem::InstancesMissing { application: name(), expected, registered: home })
        }
        Some(_) | None => Ok(members),
    }
}

/// Whom the operation starts: with placement agents what stands by on the target.
fn targets(
    ask: &Ask,
    application: &ApplicationRecord,
    instances: &[Stored<InstanceRecord>],
) -> Result<Vec<Registered>, Problem> {
    let Some(target) = &ask.target else { return Ok(Vec::new()) };
    match application.placement {
        Placement::External { .. } => Ok(Vec::new()),
        Placement::Agents => {
            let there = instances.iter().filter(|one| one.record.cluster == *target);
            let targets: Vec<Registered> = there.map(|one| one.record.registered()).collect();
            if targets.is_empty() {
                let application = convert::application_name(&application.name);
                return Err(Problem::TargetNotReady { application, cluster: target.clone() });
            }
            Ok(targets)
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::NotFound(id) => Self::OperationNotFound(convert::operation_name(&id)),
            CommandError::Refused(refusal) => Self::Refused(refusal),
            CommandError::Conflict(_) => contended(),
            CommandError::Busy(_) => Self::LimitExceeded { limit: "commands waiting for one operation" },
            CommandError::Stalled(_) => Self::NotServing("the store does not take the outcome of the command"),
            CommandError::NotDriven(_) => Self::NotServing("the operation is not driven at the moment"),
            CommandError::Load(..) => Self::NotServing("the store cannot be read"),
        }
    }
}
