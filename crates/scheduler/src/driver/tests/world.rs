//! A scheduler without its service: store, hooks, driver, and what admission would have written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, InstanceId, Kind, Moment, Operation, OperationId, Placement, Policy, Reason,
    Request, StateName,
};
use quiesce_runtime::clock::{Clock, Timeline};
use quiesce_runtime::drain;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, CommitError, Committed, Entry, Expect, Key, ReadError, Revision, Scan, Space, Store};
use quiesce_testkit::hook::{Call, Listening, Script, ScriptedHook};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use crate::attach::Attachments;
use crate::driver::{Handle, Parts};
use crate::hooks::{Dialler, Hooks};
use crate::records::{self, ApplicationRecord, Connect, EventRecord, InstanceRecord, OperationRecord};
use crate::secrets::{Rotation, Secrets, entropy_of};
use crate::traces::Traces;

/// Longest wait for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const SOURCE: &str = "north";
pub(super) const TARGET: &str = "south";

/// A driver and what it works with.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) hooks: Hooks,
    pub(super) secrets: Arc<Secrets>,
    pub(super) attachments: Attachments,
    pub(super) handle: Handle,
    tasks: Tasks,
    pub(super) drain: drain::Signal,
}

/// An application in the registry.
pub(super) fn application() -> ApplicationId {
    ApplicationId::parse("shop").unwrap()
}

pub(super) fn instance(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

pub(super) fn cluster(name: &str) -> ClusterId {
    ClusterId::parse(name).unwrap()
}

pub(super) fn operation_id(name: &str) -> OperationId {
    OperationId::parse(name).unwrap()
}

pub(super) fn caller() -> Caller {
    Caller { identity: "ops@example".to_owned(), reason: "moving house".to_owned() }
}

/// Short timers, one attempt, so that a test sees the outcome of each.
pub(super) fn hasty() -> Policy {
    Policy {
        grace_period: Duration::from_secs(20),
        heartbeat_timeout: Duration::from_secs(1),
        accept_timeout: Duration::from_secs(2),
        kill_timeout: Duration::from_secs(1),
        max_attempts: 1,
        initial_backoff: Duration::from_millis(100),
        start_timeout: Duration::from_secs(10),
        ..Policy::built_in()
    }
}

pub(super) fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(Uuid::nil()))
}

impl World {
    pub(super) async fn new() -> Self {
        Self::over(memory()).await
    }

    /// A scheduler process that begins with what is in `store`, nothing taken up yet.
    pub(super) async fn over(store: Arc<dyn Store>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Timeline::start(None).unwrap());
        Self::with_clock(store, clock).await
    }

    pub(super) async fn with_clock(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let machine = Machine::local();
        let secrets = Arc::new(
            Secrets::load(&*store, &mut entropy_of(&machine), Moment::from_millis(0), Rotation::WhenDue).await.unwrap(),
        );
        let (signal, drain) = drain::channel();
        let tasks = Tasks::new();
        let hooks = Hooks::new(
            Arc::clone(&secrets),
            Arc::clone(&clock),
            Arc::new(Dialler::load(None, None, true, &machine).unwrap()),
            tasks.clone(),
            drain.clone(),
        );
        let attachments = Attachments::new(hooks.clone(), Arc::clone(&secrets), entropy_of(&machine));
        let handle = Handle::new(Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            hooks: hooks.clone(),
            secrets: Arc::clone(&secrets),
            tasks: tasks.clone(),
            drain,
            traces: Traces::default(),
            randomness: Box::new(|| Box::new(|| 0.5)),
        });
        Self { store, clock, hooks, secrets, attachments, handle, tasks, drain: signal }
    }

    /// Makes known what is registered, and takes up what is open, as a starting scheduler does.
    pub(super) async fn recover(&self) {
        let all = records::load_all::<InstanceRecord>(&*self.store, Scan::all(Space::Instances)).await.unwrap();
        for stored in all {
            self.hooks.registered(&stored.record);
        }
        self.handle.recover().await.unwrap();
    }

    /// The process dies: whatever it was doing is not done.
    pub(super) async fn crash(self) {
        let _names = self.tasks.shutdown(Duration::ZERO).await;
    }

    pub(super) fn now(&self) -> Moment {
        Moment::from_millis(self.clock.now())
    }

    /// Registers an instance whose hook listens.
    pub(super) async fn register(&self, name: &str, cluster: &str, listening: &Listening) {
        self.register_at(name, cluster, Connect::Listen { endpoint: listening.address.to_string() }).await;
    }

    pub(super) async fn register_at(&self, name: &str, at: &str, connect: Connect) {
        let record = InstanceRecord {
            credential: None,
            application: application(),
            instance: instance(name),
            connect,
            cluster: cluster(at),
            stop_order: 0,
            labels: BTreeMap::new(),
            agent_id: String::new(),
            epoch: 0,
            admission: None,
            created: self.now(),
            updated: self.now(),
        };
        let key = records::instance_key(&record.application, &record.instance);
        self.store.commit(records::put(Batch::new(), key, &record)).await.unwrap();
        self.hooks.registered(&record);
    }

    /// Takes an instance off the registry, but not its hook: an open operation goes on with it.
    pub(super) async fn forget(&self, name: &str) {
        let key = records::instance_key(&application(), &instance(name));
        self.store.commit(Batch::new().delete(key)).await.unwrap();
    }

    /// What admission writes for a new operation.
    pub(super) async fn acceptance(
        &self,
        id: &str,
        kind: Kind,
        placement: Placement,
        policy: Policy,
    ) -> (Operation, Batch) {
        let all =
            records::load_all::<InstanceRecord>(&*self.store, records::instances_of(&application())).await.unwrap();
        let registered = |at: &str| {
            let here = all.iter().filter(|stored| stored.record.cluster == cluster(at));
            here.map(|stored| stored.record.registered()).collect::<Vec<_>>()
        };
        let request = Request {
            application: application(),
            kind,
            source: cluster(SOURCE),
            target: (kind == Kind::Migrate).then(|| cluster(TARGET)),
            placement,
            force: false,
            caller: caller(),
            request_id: String::new(),
            labels: BTreeMap::new(),
            time: self.now(),
            trace: None,
        };
        let (operation, events) =
            Operation::accept(operation_id(id), request, policy, registered(SOURCE), registered(TARGET), 0);
        let mut batch = Batch::new();
        for event in &events {
            let event = EventRecord::new(&operation, event);
            batch = batch.append(Space::Events, quiesce_store::record::encode(&event));
        }
        let key = records::application_key(&application());
        let record = ApplicationRecord {
            name: application(),
            display_name: String::new(),
            cluster: cluster(SOURCE),
            policy: Default::default(),
            placement,
            expected_instances: None,
            labels: BTreeMap::new(),
            active_operation: Some(operation.id().clone()),
            epoch: 0,
            created: self.now(),
            updated: self.now(),
            moved_by: None,
            restored: None,
        };
        batch = records::put(batch, key, &record);
        let key = records::operation_key(operation.id());
        batch = records::put(batch.expect(key.clone(), Expect::Absent), key, &OperationRecord(operation.clone()));
        (operation, batch)
    }

    /// Accepts an operation and hands it to the driver.
    pub(super) async fn begin(&self, id: &str, kind: Kind, placement: Placement, policy: Policy) -> OperationId {
        let (operation, batch) = self.acceptance(id, kind, placement, policy).await;
        let revision = self.store.commit(batch).await.unwrap().last;
        let id = operation.id().clone();
        self.handle.adopt(operation, revision).await;
        id
    }

    pub(super) async fn delete(&self, policy: Policy) -> OperationId {
        self.begin("op-1", Kind::Delete, Placement::External { require_confirmation: false }, policy).await
    }

    pub(super) async fn operation(&self, id: &OperationId) -> Operation {
        let stored = records::load::<OperationRecord>(&*self.store, records::operation_key(id)).await.unwrap();
        stored.expect("the operation was accepted").record.0
    }

    pub(super) async fn application(&self) -> Option<ApplicationRecord> {
        let stored = records::load::<ApplicationRecord>(&*self.store, records::application_key(&application())).await;
        stored.unwrap().map(|stored| stored.record)
    }

    /// The operation as soon as it is stored such that `reached`.
    pub(super) async fn until(&self, id: &OperationId, reached: impl Fn(&Operation) -> bool) -> Operation {
        let mut durable = self.store.durable();
        let wait = async {
            loop {
                durable.borrow_and_update();
                let operation = self.operation(id).await;
                if reached(&operation) {
                    return operation;
                }
                durable.changed().await.unwrap();
            }
        };
        match timeout(LIMIT, wait).await {
            Ok(operation) => operation,
            Err(_) => panic!("waited {LIMIT:?}; the operation is {:#?}", self.operation(id).await),
        }
    }

    pub(super) async fn until_state(&self, id: &OperationId, state: StateName) -> Operation {
        self.until(id, |operation| operation.state() == state).await
    }

    /// The operation at its end, which has to be `state`.
    pub(super) async fn end(&self, id: &OperationId, state: StateName) -> Operation {
        let operation =
            self.until(id, |operation| operation.is_done() || operation.state() == StateName::Degraded).await;
        assert_eq!(operation.state(), state, "{operation:#?}");
        operation
    }

    /// The operation at rest in DEGRADED, for `reason`.
    pub(super) async fn degraded(&self, id: &OperationId, reason: Reason) -> Operation {
        let operation = self.end(id, StateName::Degraded).await;
        let failure = operation.failure().expect("whoever is DEGRADED says why");
        assert_eq!(failure.reason, reason, "{failure:?}");
        operation
    }

    pub(super) async fn events(&self) -> Vec<EventRecord> {
        let all = records::load_all::<EventRecord>(&*self.store, Scan::all(Space::Events)).await.unwrap();
        all.into_iter().map(|stored| stored.record).collect()
    }
}

/// A hook that plays `script`, and listens.
pub(super) async fn hook(script: Script) -> (ScriptedHook, Listening) {
    let hook = ScriptedHook::new(script);
    let listening = hook.listen().await;
    (hook, listening)
}

/// How often it was told so.
pub(super) fn count(hook: &ScriptedHook, is: impl Fn(&Call) -> bool) -> usize {
    hook.calls().iter().filter(|call| is(call)).count()
}

/// A store that stops at a commit: before it is applied, or before its answer is heard.
#[derive(Clone)]
pub(super) struct StoppingStore {
    inner: Arc<dyn Store>,
    plan: watch::Sender<Plan>,
}

#[derive(Clone, Default)]
struct Plan {
    stop: Option<Stop>,
    seen: u64,
    stopped: bool,
}

/// Where a store stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The commit of that number never reaches the disk.
    Before(u64),
    /// It does, but nobody hears of it.
    After(u64),
}

impl StoppingStore {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, plan: watch::Sender::new(Plan::default()) }
    }

    /// Counts commits from here, and stops at one of them.
    pub(super) fn stop_at(&self, stop: Stop) {
        self.plan.send_replace(Plan { stop: Some(stop), ..Plan::default() });
    }

    /// Resolves when it has stopped.
    pub(super) async fn stopped(&self) {
        self.plan.subscribe().wait_for(|plan| plan.stopped).await.unwrap();
    }

    async fn stop_if(&self, here: Stop) {
        let stops = self.plan.borrow().stop == Some(here);
        if stops {
            self.plan.send_modify(|plan| plan.stopped = true);
            std::future::pending::<()>().await;
        }
    }
}

impl Store for StoppingStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let mut number = 0;
            self.plan.send_modify(|plan| {
                number = plan.seen;
                plan.seen += 1;
            });
            self.stop_if(Stop::Before(number)).await;
            let committed = self.inner.commit(batch).await;
            self.stop_if(Stop::After(number)).await;
            committed
        })
    }

    fn get(&self, key: Key) -> BoxFuture<'_, Result<Option<Entry>, ReadError>> {
        self.inner.get(key)
    }

    fn scan(&self, scan: Scan) -> BoxFuture<'_, Result<Vec<Entry>, ReadError>> {
        self.inner.scan(scan)
    }

    fn durable(&self) -> watch::Receiver<Revision> {
        self.inner.durable()
    }

    fn life(&self) -> Uuid {
        self.inner.life()
    }
}
