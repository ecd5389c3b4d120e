//! What wrong requests are aimed at: a scheduler with something of everything, in which nothing happens by itself.

use std::sync::Arc;

use quiesce_protocol::v1;
use quiesce_scheduler::{Config, StoreChoice};
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Scan, Space, Store};
use quiesce_testkit::hook::{Act, Listening, Script, ScriptedHook};
use quiesce_testkit::input::Table;
use tonic::transport::Endpoint;
use uuid::Uuid;
use v1::operation::State;

use crate::world::{World, application, seconds};

/// An application on cluster `a` with one instance, at rest.
pub(super) const SHOP: &str = "applications/shop";
/// Its instance.
pub(super) const ONE: &str = "applications/shop/instances/one";
/// The agent of that instance.
pub(super) const AGENT: &str = "agent-1";
/// The start that this agent was permitted.
pub(super) const START: &str = "start-1";

/// Longer than any test.
const FOR_EVER: i64 = 24 * 60 * 60;

pub(super) struct Ground {
    world: World,
    store: Arc<dyn Store>,
    hooks: Vec<(ScriptedHook, Listening)>,
    /// Where the hook of [`ONE`] listens.
    pub(super) endpoint: String,
    /// A deletion that is over.
    pub(super) done: String,
    /// One that rests in DEGRADED.
    pub(super) degraded: String,
    /// The shutdown of the running deletion, and its token.
    pub(super) running: (String, String),
    /// The same of the degraded one, which is over.
    pub(super) over: (String, String),
    /// Resume token of a watch of [`Ground::done`].
    pub(super) resume_token: String,
}

impl Ground {
    pub(super) async fn prepare() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Uuid::new_v4()));
        let config = Config { store: StoreChoice::Given(Arc::clone(&store)), ..Config::ephemeral() };
        let mut world = World::with(config).await;
        let mut hooks = Vec::new();

        let (hook, endpoint) = listening(&mut world, &mut hooks, "shop", "one", Script::default()).await;
        drop(hook);
        let start = v1::AdmitStartRequest {
            instance: ONE.to_owned(),
            start_id: START.to_owned(),
            agent_id: AGENT.to_owned(),
            ..Default::default()
        };
        world.gateway.admit_start(start).await.unwrap();

        world.create("applications/gone", "a").await;
        let done = world.delete("gone", true).await.unwrap().name;
        world.operation_is(&done, State::Succeeded).await;

        let fails = vec![Act::Report(v1::ShutdownPhase::Stopping), still_running()];
        let (stuck, _) = listening(&mut world, &mut hooks, "stuck", "one", Script::of([fails])).await;
        let degraded = delete(&mut world, "applications/stuck").await;
        world.operation_is(&degraded, State::Degraded).await;

        let hangs = vec![Act::Report(v1::ShutdownPhase::Stopping), Act::Hang];
        let (busy, _) = listening(&mut world, &mut hooks, "busy", "one", Script::of([hangs])).await;
        let running = delete(&mut world, "applications/busy").await;
        // The last thing that happens by itself.
        quiesce_testkit::eventually("the report of the running shutdown", crate::world::LIMIT, async || {
            let seen = world.scheduler.clone().get_operation(v1::GetOperationRequest { name: running.clone() }).await;
            let instances = seen.unwrap().into_inner().operation.unwrap().instances;
            let phase = instances.first().and_then(|one| one.status.as_ref()).map(v1::ShutdownStatus::phase);
            if phase == Some(v1::ShutdownPhase::Stopping) { Ok(()) } else { Err(format!("{phase:?}")) }
        })
        .await;

        let credentials = |hook: &ScriptedHook| {
            let request = hook.shutdowns().remove(0);
            (request.shutdown_id, request.completion_token)
        };
        let (running, over) = (credentials(&busy), credentials(&stuck));
        let request = v1::WatchOperationsRequest { skip_snapshot: true, ..Default::default() };
        let mut events = world.scheduler.watch_operations(request).await.unwrap().into_inner();
        let resume_token = events.message().await.unwrap().unwrap().event.unwrap().resume_token;
        Self { world, store, hooks, endpoint, done, degraded, running, over, resume_token }
    }

    /// Runs through `table`, with an eye on the store.
    pub(super) async fn run(self, table: Table) {
        let url = format!("http://{}", self.world.address);
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        table.run(&channel, async || self.contents().await).await;
        drop(self.hooks);
        drop(channel);
        self.world.stop().await;
    }

    /// The whole store, the event log included, but for what the scheduler keeps of itself: the clock's anchor is renewed
    /// now and then. And but for tokens: there is no dry run of making one.
    async fn contents(&self) -> Vec<String> {
        let mut contents = Vec::new();
        for space in Space::ALL.into_iter().filter(|space| !matches!(space, Space::Meta | Space::Tokens)) {
            let entries = self.store.scan(Scan::all(space)).await.unwrap();
            contents.extend(entries.into_iter().map(|entry| format!("{entry:?}")));
        }
        contents
    }
}

/// An application on cluster `a` with one instance whose hook listens and is known to.
async fn listening(
    world: &mut World,
    hooks: &mut Vec<(ScriptedHook, Listening)>,
    name: &str,
    instance: &str,
    script: Script,
) -> (ScriptedHook, String) {
    let name = format!("applications/{name}");
    let request = v1::CreateApplicationRequest {
        application: Some(v1::Application { policy: Some(patient()), ..application(&name, "a") }),
        ..Default::default()
    };
    world.scheduler.create_application(request).await.unwrap();
    let hook = ScriptedHook::new(script);
    let server = hook.listen().await;
    let endpoint = server.address.to_string();
    let name = format!("{name}/instances/{instance}");
    world.gateway.register_instance(registration(&name, &endpoint)).await.unwrap();
    world.instance_is(&name, v1::instance::State::Ready).await;
    hooks.push((hook.clone(), server));
    (hook, endpoint)
}

/// One attempt, and no timer that runs out.
fn patient() -> v1::ShutdownPolicy {
    v1::ShutdownPolicy {
        grace_period: seconds(FOR_EVER),
        heartbeat_timeout: seconds(FOR_EVER),
        retry: Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() }),
        ..Default::default()
    }
}

fn still_running() -> Act {
    Act::Result(v1::stop_result::Outcome::StillRunning, v1::Evidence::Claimed)
}

/// How an agent of the ground registers.
pub(super) fn registration(name: &str, endpoint: &str) -> v1::RegisterInstanceRequest {
    let instance = v1::Instance {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        agent_id: AGENT.to_owned(),
        ..Default::default()
    };
    v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() }
}

async fn delete(world: &mut World, name: &str) -> String {
    let request = v1::DeleteApplicationRequest { name: name.to_owned(), ..Default::default() };
    world.scheduler.delete_application(request).await.unwrap().into_inner().operation.unwrap().name
}
