//! A scheduler of ours on loopback, with access enforced, that can be started anew; and judging it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_conformance::fixture::FixtureError;
use quiesce_conformance::output;
use quiesce_conformance::reach::Endpoint;
use quiesce_conformance::run::{Report, Selection};
use quiesce_conformance::scheduler::{self, subject::Restart, subject::Subject};
use quiesce_scheduler::access::{self, Mode};
use quiesce_scheduler::{Config, Scheduler, StoreChoice};
use quiesce_store::memory::MemoryStore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The scheduler of a test.
pub(crate) struct World {
    config: Config,
    running: Mutex<Option<Running>>,
}

impl World {
    async fn start(config: Config) -> Arc<Self> {
        let (running, address) = run(config.clone()).await;
        let config = Config { listen: address, admin_listen: None, ..config };
        Arc::new(Self { config, running: Mutex::new(Some(running)) })
    }
}

async fn run(config: Config) -> (Running, SocketAddr) {
    let bound = Scheduler::bind(config).await.unwrap();
    let address = bound.local_addr();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        bound.run(async move { drop(stopped.await) }).await.unwrap();
    });
    (Running { stop, task }, address)
}

impl Restart for World {
    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Running { stop, task } = running.unwrap();
            drop(stop);
            task.await.unwrap();
            let (running, _) = run(self.config.clone()).await;
            *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
            Ok(())
        })
    }
}

/// Runs the checks whose ids match, as its first admin.
pub(crate) async fn judge(case: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("admin.token");
    let access =
        access::Config { mode: Mode::Enforced, admin_token_file: Some(token.clone()), ..access::Config::open() };
    let store = StoreChoice::Given(Arc::new(MemoryStore::new(Uuid::new_v4())));
    let world = World::start(Config { store, access, admin_listen: None, ..Config::ephemeral() }).await;
    let endpoint = Endpoint::parse(&world.config.listen.to_string(), None).unwrap();
    let subject = Subject {
        endpoint,
        bearer: Some(std::fs::read_to_string(token).unwrap().trim().to_owned()),
        hook_host: "127.0.0.1".to_owned(),
        restart: Some(Arc::clone(&world) as Arc<dyn Restart>),
        // Long enough for two signs of life; the whole time is for the command.
        quiet: Duration::from_secs(15),
    };
    let selection = Selection { case: Some(case.parse().unwrap()), ..Selection::default() };
    scheduler::run(&subject, &selection, |result| eprint!("{}", output::line(result, true))).await.unwrap()
}
