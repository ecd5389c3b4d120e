//! What all hosts of a run share, and what outlives each of them: disks, memories of people, the plan.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_runtime::machine::Machine;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::ambush::Ambush;
use super::instance::Instance;
use super::judge::Judge;
use super::machine::{Boot, Wires, machine};
use super::plan::{Ask, Plan};
use super::storage::Storage;
use super::story::Story;
use super::watching::{Seen, Watched};

/// The name and port of the scheduler.
pub(super) const SCHEDULER: &str = "scheduler:7600";
/// Longest wait of a client for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) story: Story,
    pub(super) wires: Wires,
    pub(super) judge: Judge,
    pub(super) storage: Arc<Storage>,
    pub(super) instances: Vec<Arc<Instance>>,
    /// Asks the scheduler to stop gracefully.
    pub(super) drain: Arc<Notify>,
    lives: AtomicU64,
    memory: Mutex<Memory>,
}

/// What people remember, whatever becomes of their programs.
#[derive(Default)]
pub(super) struct Memory {
    /// What came of each request of the plan.
    pub(super) outcomes: BTreeMap<usize, Outcome>,
    /// Operations whose followers have seen the end.
    pub(super) followed: BTreeMap<String, v1::operation::State>,
    /// The token from before the first operation.
    pub(super) first_token: Option<String>,
    /// What the watcher has seen so far.
    pub(super) watched: Watched,
    /// Whether the troubles are over.
    pub(super) is_calm: bool,
    /// All operations, as the person last saw them.
    pub(super) listing: Vec<v1::Operation>,
    /// On which cluster each application is at home, as the person last saw it.
    pub(super) homes: BTreeMap<String, String>,
    /// All instances, as the person last saw them.
    pub(super) instances: Vec<v1::Instance>,
    /// Everything that happened, as the scheduler tells it in the end.
    pub(super) truth: Option<Vec<Seen>>,
    /// Why operations rested in DEGRADED, by operation.
    pub(super) degraded: BTreeMap<String, Vec<v1::failure::Reason>>,
    /// How often a person has retried each operation.
    pub(super) retries: BTreeMap<String, usize>,
}

/// The answer to a request, as its caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name of the operation.
    Accepted(String),
    /// Why not.
    Refused(String),
}

impl World {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        let story = Story::default();
        let judge = Judge::new(&story);
        let storage = Storage::new(plan.seed, Ambush::at(plan.ambush));
        let instances = plan.instances(&story, &judge);
        Arc::new(Self {
            story,
            wires: Wires::default(),
            judge,
            storage,
            instances,
            drain: Arc::default(),
            lives: AtomicU64::new(0),
            memory: Mutex::default(),
            plan,
        })
    }

    /// The machine for one more life on `host`.
    pub(super) fn machine(&self, host: &str, boot: Boot) -> Machine {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        machine(host, &self.story, &self.wires, boot, self.plan.seed.wrapping_mul(1_000_003).wrapping_add(life))
    }

    /// A client on `host`, over a connection of its own.
    pub(super) fn client(&self, host: &str) -> SchedulerClient<Channel> {
        let boot = Boot { id: host.to_owned(), at: Duration::ZERO, skew_ms: 0 };
        let network = self.machine(host, boot).network;
        let connector = service_fn(move |_: Uri| {
            let network = Arc::clone(&network);
            async move { network.connect(SCHEDULER, None).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://scheduler:7600").connect_timeout(CONNECT_LIMIT);
        SchedulerClient::new(endpoint.connect_with_connector_lazy(connector))
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who was ambushed just now.
    pub(super) fn ambushed(&self) -> Vec<String> {
        let agents = self.instances.iter().filter(|instance| instance.ambush.springs());
        let agents = agents.map(|instance| instance.host.clone());
        agents.chain(self.storage.ambush.springs().then(|| "scheduler".to_owned())).collect()
    }

    /// The instance on `host`.
    pub(super) fn instance(&self, host: &str) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| instance.host == host)
    }

    /// The outcome of an ask is known now.
    pub(super) fn settle(&self, number: usize, ask: &Ask, outcome: Outcome) {
        let mut memory = self.memory();
        let before = memory.outcomes.insert(number, outcome.clone());
        drop(memory);
        match before {
            None => self.story.tell("caller", format_args!("{}: {outcome:?}", ask.request_id)),
            Some(before) if before != outcome => {
                self.story.violated(
                    "I3 accepted once",
                    format_args!("{} led to {before:?}, then to {outcome:?}", ask.request_id),
                );
            }
            Some(_) => {}
        }
    }
}
