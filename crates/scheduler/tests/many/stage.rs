//! One scheduler over a directory, which can be made to die and be started again at the same address.

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use quiesce_protocol::v1;
use quiesce_scheduler::{Config, Scheduler, StoreChoice};
use quiesce_testkit::eventually;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use v1::agent_gateway_client::AgentGatewayClient;
use v1::operation::State;
use v1::scheduler_client::SchedulerClient;

/// Longest wait for something that takes seconds on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Calls made at the same time while something is set up: enough to fill the store's groups, and below the streams of
/// one connection.
pub(crate) const AT_ONCE: usize = 64;

pub(crate) struct Stage {
    pub(crate) scheduler: SchedulerClient<Channel>,
    pub(crate) gateway: AgentGatewayClient<Channel>,
    pub(crate) address: SocketAddr,
    directory: TempDir,
    process: Option<Process>,
}

/// What dies with the scheduler.
struct Process {
    /// Taken when it is ended.
    runtime: Option<Runtime>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (process, address) = Process::start(&directory, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        // Callers and agents apart: a connection on which many calls are given up at once, as by agents that end, is closed.
        let (scheduler, gateway) = (SchedulerClient::new(connect(address)), AgentGatewayClient::new(connect(address)));
        Self { scheduler, gateway, address, directory, process: Some(process) }
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> SchedulerClient<Channel> {
        SchedulerClient::new(connect(self.address))
    }

    /// The scheduler dies: whatever its tasks were doing is not done.
    pub(crate) async fn crash(&mut self) {
        self.process.take().unwrap().bury().await;
    }

    pub(crate) async fn start_again(&mut self) {
        let (process, _) = Process::start(&self.directory, self.address).await;
        self.process = Some(process);
        self.scheduler = self.client();
    }

    pub(crate) async fn create(&self, name: &str, policy: v1::ShutdownPolicy, placement: v1::placement::Driver) {
        let application = v1::Application {
            name: format!("applications/{name}"),
            cluster: "a".to_owned(),
            policy: Some(policy),
            placement: Some(v1::Placement { driver: Some(placement) }),
            ..Default::default()
        };
        let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
        self.scheduler.clone().create_application(request).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<String, Status> {
        let request = v1::DeleteApplicationRequest { name: format!("applications/{name}"), ..Default::default() };
        Ok(self.scheduler.clone().delete_application(request).await?.into_inner().operation.unwrap().name)
    }

    pub(crate) async fn migrate(&self, name: &str, to: &str) -> Result<String, Status> {
        let name = format!("applications/{name}");
        let request = v1::MigrateApplicationRequest { name, target_cluster: to.to_owned(), ..Default::default() };
        Ok(self.scheduler.clone().migrate_application(request).await?.into_inner().operation.unwrap().name)
    }

    pub(crate) async fn retry(&self, operation: &str) {
        let request = v1::RetryOperationRequest { name: operation.to_owned(), ..Default::default() };
        self.scheduler.clone().retry_operation(request).await.unwrap();
    }

    pub(crate) async fn operation(&self, name: &str) -> v1::Operation {
        let request = v1::GetOperationRequest { name: name.to_owned() };
        self.scheduler.clone().get_operation(request).await.unwrap().into_inner().operation.unwrap()
    }

    /// Waits, by watching, until the operation is over or rests; returns it.
    pub(crate) async fn outcome(&self, name: &str) -> v1::Operation {
        let name = name.to_owned();
        let watching = async {
            let request = v1::WatchOperationRequest { name: name.clone(), end_on_degraded: true, ..Default::default() };
            let mut events = self.scheduler.clone().watch_operation(request).await.unwrap().into_inner();
            while let Some(event) = events.next().await {
                event.unwrap();
            }
        };
        let over = tokio::time::timeout(LIMIT, watching).await;
        let found = self.operation(&name).await;
        assert!(over.is_ok(), "{name} goes on and on: {found:#?}");
        found
    }

    /// Every instance of `application`, once all of them are in one of `states`.
    pub(crate) async fn instances_are(&self, application: &str, count: usize, states: &[v1::instance::State]) {
        eventually(format!("{count} instances of {application} to be {states:?}"), LIMIT, async || {
            let request = v1::ListInstancesRequest {
                parent: format!("applications/{application}"),
                page_size: 500,
                ..Default::default()
            };
            let found = self.scheduler.clone().list_instances(request).await.unwrap().into_inner().instances;
            let there = found.iter().filter(|one| states.contains(&one.state())).count();
            if there == count && found.len() == count { Ok(()) } else { Err(format!("{there} of {}", found.len())) }
        })
        .await;
    }
}

impl Process {
    async fn start(directory: &TempDir, listen: SocketAddr) -> (Self, SocketAddr) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = StoreChoice::Embedded { directory: directory.path().to_owned() };
        let config = Config { listen, store, ..Config::ephemeral() };
        let (ready, address) = oneshot::channel();
        runtime.spawn(async move {
            let bound = Scheduler::bind(config).await.unwrap();
            let address = bound.local_addr();
            bound.run_and_tell(std::future::pending(), |_| ready.send(address).unwrap()).await.unwrap();
        });
        let address = tokio::time::timeout(LIMIT, address).await.expect("the scheduler starts").unwrap();
        (Self { runtime: Some(runtime) }, address)
    }

    /// Ends everything that runs in there, and waits for it: the store must be closed before it is opened again.
    async fn bury(mut self) {
        let runtime = self.runtime.take().unwrap();
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LIMIT)).await.unwrap();
    }
}

/// A connection, made at the first call.
pub(crate) fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// A patient policy: whoever says nothing is in flight for as long as the test takes, and whoever fails tries again.
pub(crate) fn patient() -> v1::ShutdownPolicy {
    v1::ShutdownPolicy {
        grace_period: seconds(1200),
        accept_timeout: seconds(300),
        heartbeat_timeout: seconds(300),
        retry: Some(v1::RetryPolicy {
            max_attempts: Some(100),
            initial_backoff: seconds(5),
            max_backoff: seconds(30),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The external placement, which ends by itself once everything has stopped.
pub(crate) fn external() -> v1::placement::Driver {
    v1::placement::Driver::External(v1::ExternalPlacement { require_confirmation: false })
}

pub(crate) fn agents() -> v1::placement::Driver {
    v1::placement::Driver::Agents(v1::AgentsPlacement {})
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn is_final(state: State) -> bool {
    matches!(state, State::Succeeded | State::Cancelled | State::RolledBack | State::Abandoned)
}
