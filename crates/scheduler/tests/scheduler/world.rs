//! One scheduler on free ports, and the calls tests make all the time.

use std::net::SocketAddr;
use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_scheduler::{Config, Scheduler};
use quiesce_testkit::eventually;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::agent_gateway_client::AgentGatewayClient;
use v1::operation::State;
use v1::scheduler_client::SchedulerClient;

use crate::hook::{Hook, Stop};

/// Longest wait for something that takes milliseconds on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) scheduler: SchedulerClient<Channel>,
    pub(crate) gateway: AgentGatewayClient<Channel>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Config::ephemeral()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let mut world = Self::lazily_with(config).await;
        let endpoint = Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
        let channel = endpoint.connect().await.unwrap();
        world.scheduler = SchedulerClient::new(channel.clone());
        world.gateway = AgentGatewayClient::new(channel);
        world
    }

    /// The same, with clients that have not connected yet, for a scheduler that plain ones cannot talk to.
    pub(crate) async fn lazily_with(config: Config) -> Self {
        let bound = Scheduler::bind(config).await.unwrap();
        let (address, admin) = (bound.local_addr(), bound.admin_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            bound.run(async move { drop(stopped.await) }).await.unwrap();
        });
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let (scheduler, gateway) = (SchedulerClient::new(channel.clone()), AgentGatewayClient::new(channel));
        Self { scheduler, gateway, address, admin, stop, task }
    }

    /// Stops the scheduler gracefully and waits for that.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        drop((self.scheduler, self.gateway));
        tokio::time::timeout(LIMIT, self.task).await.expect("the scheduler stops in time").unwrap();
    }

    /// Tells the scheduler to stop, without waiting.
    pub(crate) fn tell_to_stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.task
    }

    pub(crate) async fn create(&mut self, name: &str, cluster: &str) -> v1::Application {
        let application = application(name, cluster);
        let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
        self.scheduler.create_application(request).await.unwrap().into_inner().application.unwrap()
    }

    pub(crate) async fn register(&mut self, name: &str, cluster: &str, hook: &Hook) -> Result<String, Status> {
        let instance = v1::Instance {
            name: name.to_owned(),
            endpoint: hook.address.to_string(),
            cluster: cluster.to_owned(),
            agent_id: format!("agent of {name}"),
            ..Default::default()
        };
        let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
        Ok(self.gateway.register_instance(request).await?.into_inner().hook_token)
    }

    /// An application `name` on cluster `a` with one hook, known to be ready.
    pub(crate) async fn populated(&mut self, name: &str, stop: Stop) -> Hook {
        self.create(&format!("applications/{name}"), "a").await;
        let hook = Hook::start(stop).await;
        self.register(&format!("applications/{name}/instances/one"), "a", &hook).await.unwrap();
        self.instance_is(&format!("applications/{name}/instances/one"), v1::instance::State::Ready).await;
        hook
    }

    pub(crate) async fn instance_is(&self, name: &str, state: v1::instance::State) {
        eventually(format!("{name} to be {state:?}"), LIMIT, || {
            let (mut scheduler, name) = (self.scheduler.clone(), name.to_owned());
            async move {
                let request = v1::GetInstanceRequest { name };
                let found = scheduler.get_instance(request).await.unwrap().into_inner().instance.unwrap();
                if found.state() == state { Ok(()) } else { Err(format!("{:?}", found.state())) }
            }
        })
        .await;
    }

    pub(crate) async fn migrate(&mut self, name: &str, to: &str, id: &str) -> Result<v1::Operation, Status> {
        let request = v1::MigrateApplicationRequest {
            name: format!("applications/{name}"),
            target_cluster: to.to_owned(),
            request_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.scheduler.migrate_application(request).await?.into_inner().operation.unwrap())
    }

    pub(crate) async fn delete(&mut self, name: &str, force: bool) -> Result<v1::Operation, Status> {
        let name = format!("applications/{name}");
        let request = v1::DeleteApplicationRequest { name, force, ..Default::default() };
        Ok(self.scheduler.delete_application(request).await?.into_inner().operation.unwrap())
    }

    pub(crate) async fn operation(&mut self, name: &str) -> v1::Operation {
        let request = v1::GetOperationRequest { name: name.to_owned() };
        self.scheduler.get_operation(request).await.unwrap().into_inner().operation.unwrap()
    }

    pub(crate) async fn operation_is(&self, name: &str, state: State) -> v1::Operation {
        eventually(format!("{name} to be {state:?}"), LIMIT, || {
            let (mut scheduler, name) = (self.scheduler.clone(), name.to_owned());
            async move {
                let request = v1::GetOperationRequest { name };
                let found = scheduler.get_operation(request).await.unwrap().into_inner().operation.unwrap();
                if found.state() == state { Ok(found) } else { Err(format!("{:?}: {}", found.state(), found.message)) }
            }
        })
        .await
    }

    pub(crate) async fn application(&mut self, name: &str) -> Result<v1::Application, Status> {
        let request = v1::GetApplicationRequest { name: format!("applications/{name}") };
        Ok(self.scheduler.get_application(request).await?.into_inner().application.unwrap())
    }
}

pub(crate) fn application(name: &str, cluster: &str) -> v1::Application {
    v1::Application { name: name.to_owned(), cluster: cluster.to_owned(), ..Default::default() }
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Checks what every error has (E01, E03) and returns its metadata.
#[track_caller]
pub(crate) fn expect_error<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> std::collections::HashMap<String, String> {
    let status = result.expect_err("an error");
    let details = status.get_error_details_vec();
    let infos: Vec<_> =
        details.iter().filter(|detail| matches!(detail, tonic_types::ErrorDetail::ErrorInfo(_))).collect();
    assert_eq!(infos.len(), 1, "exactly one ErrorInfo: {status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "quiesce.v1"), "{status:?}");
    match code {
        Code::InvalidArgument => assert!(details.bad_request().is_some(), "{status:?}"),
        Code::FailedPrecondition => {
            let unmet = details.precondition_failure().expect("PreconditionFailure");
            assert_eq!(unmet.violations[0].r#type, reason);
        }
        Code::Unavailable => assert!(details.retry_info().is_some(), "{status:?}"),
        _ => {}
    }
    info.metadata.clone()
}

/// The fields that are wrong, and what is.
pub(crate) fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let found = &details.bad_request().expect("field violations").field_violations;
    found.iter().map(|violation| (violation.field.clone(), violation.description.clone())).collect()
}

/// The paths of the fields an INVALID_ARGUMENT complains of.
#[track_caller]
pub(crate) fn bad_fields<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<String> {
    let status = result.expect_err("an error");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    violations(&status).into_iter().map(|(field, _)| field).collect()
}
