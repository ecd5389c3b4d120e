//! A scheduler that does what a test says: it holds resources, remembers requests, and plays watch streams from a script.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use quiesce_protocol::v1::agent_gateway_server::{AgentGateway, AgentGatewayServer};
use quiesce_protocol::v1::scheduler_server::{Scheduler, SchedulerServer};
use quiesce_protocol::v1::*;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// Smaller than what clients ask for, so that every listing walks through pages.
const PAGE: usize = 2;

/// One thing a watch stream does.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Box<OperationEvent>),
    Break(Status),
    /// Stays open and says nothing more.
    Hang,
}

/// What the fake knows and has seen.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) applications: Vec<Application>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) plan: ShutdownPlan,
    /// What the next calls of any unary method but Get and List are refused with.
    pub(crate) refusals: VecDeque<Status>,
    /// What each watch stream does, in the order of their opening.
    pub(crate) watches: VecDeque<Vec<Step>>,
    pub(crate) migrations: Vec<MigrateApplicationRequest>,
    pub(crate) deletions: Vec<DeleteApplicationRequest>,
    pub(crate) retries: Vec<RetryOperationRequest>,
    pub(crate) extensions: Vec<ExtendOperationRequest>,
    pub(crate) updates: Vec<UpdateApplicationRequest>,
    /// The resume token of each watch.
    pub(crate) resumed: Vec<String>,
}

/// The running fake.
pub(crate) struct Fake {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    /// Serves on a port of its own until the test's runtime ends.
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let script = Arc::new(Mutex::new(script));
        let server = tonic::transport::Server::builder()
            .add_service(SchedulerServer::new(Service(script.clone())))
            .add_service(AgentGatewayServer::new(Service(script.clone())));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, script }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics while it holds the script")
    }
}

struct Service(Arc<Mutex<Script>>);

impl Service {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("no test panics while it holds the script")
    }

    /// The script, unless this call is to be refused.
    fn accept(&self) -> Result<MutexGuard<'_, Script>, Status> {
        let mut script = self.script();
        match script.refusals.pop_front() {
            Some(status) => Err(status),
            None => Ok(script),
        }
    }

    fn operation(script: &Script, name: &str) -> Result<Operation, Status> {
        let found = script.operations.iter().find(|operation| operation.name == name).cloned();
        found.ok_or_else(|| refusal("OPERATION_NOT_FOUND", tonic::Code::NotFound, "no such operation", &[]))
    }

    fn open_operation(script: &Script) -> Option<Operation> {
        script.operations.first().cloned()
    }

    fn play<T: Send + 'static>(
        &self,
        token: String,
        wrap: impl Fn(OperationEvent) -> T + Send + 'static,
    ) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
        let mut script = self.script();
        script.resumed.push(token);
        let steps = script.watches.pop_front().unwrap_or_else(|| vec![Step::Hang]);
        let hangs = steps.iter().any(|step| matches!(step, Step::Hang));
        let items = steps.into_iter().filter_map(move |step| match step {
            Step::Send(event) => Some(Ok(wrap(*event))),
            Step::Break(status) => Some(Err(status)),
            Step::Hang => None,
        });
        let stream = tokio_stream::iter(items);
        if hangs { Box::pin(stream.chain(tokio_stream::pending())) } else { Box::pin(stream) }
    }
}

/// A refusal as the contract has it.
pub(crate) fn refusal(reason: &str, code: tonic::Code, message: &str, metadata: &[(&str, &str)]) -> Status {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let metadata: std::collections::HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "quiesce.v1", metadata))
}

fn page<T: Clone>(all: &[T], token: &str) -> Result<(Vec<T>, String), Status> {
    let from: usize =
        if token.is_empty() { 0 } else { token.parse().map_err(|_| Status::invalid_argument("token"))? };
    let to = all.len().min(from + PAGE);
    Ok((all[from..to].to_vec(), if to < all.len() { to.to_string() } else { String::new() }))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Scheduler for Service {
    async fn get_server_info(&self, _: Request<GetServerInfoRequest>) -> Answer<GetServerInfoResponse> {
        let default_policy = ShutdownPolicy {
            grace_period: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..ShutdownPolicy::default()
        };
        Ok(Response::new(GetServerInfoResponse {
            implementation: "fake".to_owned(),
            implementation_version: "7".to_owned(),
            protocol_version: "1.0".to_owned(),
            default_policy: Some(default_policy),
            ..Default::default()
        }))
    }

    async fn get_application(&self, request: Request<GetApplicationRequest>) -> Answer<GetApplicationResponse> {
        let name = request.into_inner().name;
        let found = self.script().applications.iter().find(|application| application.name == name).cloned();
        let missing = || refusal("APPLICATION_NOT_FOUND", tonic::Code::NotFound, "no such application", &[]);
        Ok(Response::new(GetApplicationResponse { application: Some(found.ok_or_else(missing)?) }))
    }

    async fn list_applications(&self, request: Request<ListApplicationsRequest>) -> Answer<ListApplicationsResponse> {
        let (applications, next_page_token) = page(&self.script().applications, &request.into_inner().page_token)?;
        Ok(Response::new(ListApplicationsResponse { applications, next_page_token }))
    }

    async fn update_application(
        &self,
        request: Request<UpdateApplicationRequest>,
    ) -> Answer<UpdateApplicationResponse> {
        let request = request.into_inner();
        let mut script = self.accept()?;
        script.updates.push(request.clone());
        let wanted = request.application.expect("apply sends an application");
        match script.applications.iter_mut().find(|known| known.name == wanted.name) {
            Some(known) => *known = wanted.clone(),
            None => script.applications.push(wanted.clone()),
        }
        Ok(Response::new(UpdateApplicationResponse { application: Some(wanted) }))
    }

    async fn migrate_application(
        &self,
        request: Request<MigrateApplicationRequest>,
    ) -> Answer<MigrateApplicationResponse> {
        let request = request.into_inner();
        self.script().migrations.push(request.clone());
        let script = self.accept()?;
        let plan = request.validate_only.then(|| script.plan.clone());
        Ok(Response::new(MigrateApplicationResponse { operation: Self::open_operation(&script), plan }))
    }

    async fn delete_application(
        &self,
        request: Request<DeleteApplicationRequest>,
    ) -> Answer<DeleteApplicationResponse> {
        let request = request.into_inner();
        self.script().deletions.push(request.clone());
        let script = self.accept()?;
        let plan = request.validate_only.then(|| script.plan.clone());
        Ok(Response::new(DeleteApplicationResponse { operation: Self::open_operation(&script), plan }))
    }

    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Answer<GetClusterResponse> {
        let name = request.into_inner().name;
        let found = self.script().clusters.iter().find(|cluster| cluster.name == name).cloned();
        let missing = || refusal("CLUSTER_NOT_FOUND", tonic::Code::NotFound, "no such cluster", &[]);
        Ok(Response::new(GetClusterResponse { cluster: Some(found.ok_or_else(missing)?) }))
    }

    async fn list_clusters(&self, request: Request<ListClustersRequest>) -> Answer<ListClustersResponse> {
        let (clusters, next_page_token) = page(&self.script().clusters, &request.into_inner().page_token)?;
        Ok(Response::new(ListClustersResponse { clusters, next_page_token }))
    }

    async fn update_cluster(&self, request: Request<UpdateClusterRequest>) -> Answer<UpdateClusterResponse> {
        let cluster = request.into_inner().cluster;
        self.accept()?.clusters.extend(cluster.clone());
        Ok(Response::new(UpdateClusterResponse { cluster }))
    }

    async fn get_instance(&self, request: Request<GetInstanceRequest>) -> Answer<GetInstanceResponse> {
        let name = request.into_inner().name;
        let found = self.script().instances.iter().find(|instance| instance.name == name).cloned();
        let missing = || refusal("INSTANCE_NOT_FOUND", tonic::Code::NotFound, "no such instance", &[]);
        Ok(Response::new(GetInstanceResponse { instance: Some(found.ok_or_else(missing)?) }))
    }

    async fn list_instances(&self, request: Request<ListInstancesRequest>) -> Answer<ListInstancesResponse> {
        let (instances, next_page_token) = page(&self.script().instances, &request.into_inner().page_token)?;
        Ok(Response::new(ListInstancesResponse { instances, next_page_token }))
    }

    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Answer<GetOperationResponse> {
        let operation = Self::operation(&self.script(), &request.into_inner().name)?;
        Ok(Response::new(GetOperationResponse { operation: Some(operation) }))
    }

    async fn list_operations(&self, request: Request<ListOperationsRequest>) -> Answer<ListOperationsResponse> {
        let (operations, next_page_token) = page(&self.script().operations, &request.into_inner().page_token)?;
        Ok(Response::new(ListOperationsResponse { operations, next_page_token }))
    }

    type WatchOperationStream = Pin<Box<dyn Stream<Item = Result<WatchOperationResponse, Status>> + Send>>;

    async fn watch_operation(&self, request: Request<WatchOperationRequest>) -> Answer<Self::WatchOperationStream> {
        let token = request.into_inner().resume_token;
        Ok(Response::new(self.play(token, |event| WatchOperationResponse { event: Some(event) })))
    }

    type WatchOperationsStream = Pin<Box<dyn Stream<Item = Result<WatchOperationsResponse, Status>> + Send>>;

    async fn watch_operations(&self, request: Request<WatchOperationsRequest>) -> Answer<Self::WatchOperationsStream> {
        let token = request.into_inner().resume_token;
        Ok(Response::new(self.play(token, |event| WatchOperationsResponse { event: Some(event) })))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Answer<CancelOperationResponse> {
        let operation = Self::operation(&*self.accept()?, &request.into_inner().name)?;
        Ok(Response::new(CancelOperationResponse { operation: Some(operation) }))
    }

    async fn retry_operation(&self, request: Request<RetryOperationRequest>) -> Answer<RetryOperationResponse> {
        let request = request.into_inner();
        let mut script = self.accept()?;
        script.retries.push(request.clone());
        Ok(Response::new(RetryOperationResponse { operation: Some(Self::operation(&script, &request.name)?) }))
    }

    async fn extend_operation(&self, request: Request<ExtendOperationRequest>) -> Answer<ExtendOperationResponse> {
        let request = request.into_inner();
        let mut script = self.accept()?;
        script.extensions.push(request.clone());
        Ok(Response::new(ExtendOperationResponse { operation: Some(Self::operation(&script, &request.name)?) }))
    }

    async fn confirm_operation(&self, request: Request<ConfirmOperationRequest>) -> Answer<ConfirmOperationResponse> {
        let operation = Self::operation(&*self.accept()?, &request.into_inner().name)?;
        Ok(Response::new(ConfirmOperationResponse { operation: Some(operation) }))
    }

    async fn create_application(&self, _: Request<CreateApplicationRequest>) -> Answer<CreateApplicationResponse> {
        Err(Status::unimplemented("the command line updates with allow_missing"))
    }

    async fn create_cluster(&self, _: Request<CreateClusterRequest>) -> Answer<CreateClusterResponse> {
        Err(Status::unimplemented("the command line updates with allow_missing"))
    }

    async fn delete_cluster(&self, _: Request<DeleteClusterRequest>) -> Answer<DeleteClusterResponse> {
        Err(Status::unimplemented("there is no such command"))
    }
}

/// Of what agents call, people use one: forgetting an instance.
#[tonic::async_trait]
impl AgentGateway for Service {
    async fn deregister_instance(
        &self,
        request: Request<DeregisterInstanceRequest>,
    ) -> Answer<DeregisterInstanceResponse> {
        let name = request.into_inner().name;
        self.accept()?.instances.retain(|instance| instance.name != name);
        Ok(Response::new(DeregisterInstanceResponse {}))
    }

    async fn register_instance(&self, _: Request<RegisterInstanceRequest>) -> Answer<RegisterInstanceResponse> {
        Err(Status::unimplemented("for agents"))
    }

    async fn admit_start(&self, _: Request<AdmitStartRequest>) -> Answer<AdmitStartResponse> {
        Err(Status::unimplemented("for agents"))
    }

    async fn report_end(&self, _: Request<ReportEndRequest>) -> Answer<ReportEndResponse> {
        Err(Status::unimplemented("for agents"))
    }

    async fn complete_shutdown(&self, _: Request<CompleteShutdownRequest>) -> Answer<CompleteShutdownResponse> {
        Err(Status::unimplemented("for agents"))
    }

    async fn extend_deadline(&self, _: Request<ExtendDeadlineRequest>) -> Answer<ExtendDeadlineResponse> {
        Err(Status::unimplemented("for agents"))
    }
}
