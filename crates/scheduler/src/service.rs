//! The gRPC services: from a request on the wire to the part of the scheduler that knows, and back.
//!
//! One child per resource. A handler validates, calls, converts; it decides nothing. Whatever changes something runs as
//! a task of its own: a caller that goes away (deadline, broken connection) must not leave a change half told.

mod access;
mod applications;
mod clusters;
mod gateway;
mod instances;
mod operations;

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use quiesce_operation::{Policy, Trace};
use quiesce_protocol::v1;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::trace_context::TraceContext;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::access::{Access, Ask, Entry, Made, Principal};
use crate::admission::Admission;
use crate::attach::Attachments;
use crate::convert::duration_to_wire;
use crate::convert::policy::policy_to_wire;
use crate::driver::Handle;
use crate::page::PAGE_MAX;
use crate::registry::Registry;
use crate::status::Problem;
use crate::watch::Watches;
use crate::{idempotency, retention, traces};

/// Most watches open at the same time. Each costs a cursor and some buffers; far more than people and machines that
/// have a reason to look.
const WATCHES_MAX: usize = 2000;

/// What the handlers work with.
pub(crate) struct Parts {
    pub(crate) access: Arc<Access>,
    pub(crate) registry: Registry,
    pub(crate) admission: Admission,
    pub(crate) driver: Handle,
    pub(crate) attachments: Attachments,
    pub(crate) watches: Watches,
    pub(crate) tasks: Tasks,
    pub(crate) default_policy: Arc<Policy>,
    /// Where agents dial in, when that is not where they called.
    pub(crate) attach_endpoint: String,
    /// Hooks on other addresses than loopback may be registered without TLS.
    pub(crate) hooks_in_clear: bool,
}

/// All services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    parts: Arc<Parts>,
    watch_permits: Arc<Semaphore>,
}

impl std::ops::Deref for Service {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), watch_permits: Arc::new(Semaphore::new(WATCHES_MAX)) }
    }

    /// Runs a change to its end, whether or not the caller waits for it.
    async fn carry_out<T, F>(&self, name: &'static str, change: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let done = self.tasks.spawn(name, change).join().await;
        done.unwrap_or(Err(Problem::NotServing("the scheduler is stopping")))
    }

    /// What arrives and from whom, if he may send it. The only way in which handlers get a request.
    async fn open<T: Ask>(&self, request: Request<T>) -> Result<(Principal, T), Problem> {
        let (_, mut extensions, message) = request.into_parts();
        // Put there by the layer around the services; without it nobody is known.
        let caller = extensions
            .remove::<Principal>()
            .unwrap_or_else(|| Principal::anonymous(None, crate::access::Rights::Nothing));
        let need = message.need();
        if let Some(entry) = extensions.get::<Arc<Entry>>() {
            entry.subject(&need);
        }
        self.access.permit(&caller, &need).await?;
        Ok((caller, message))
    }

    /// `events` for as long as `caller` is still who he was when they began.
    fn watched<E: Send + 'static>(
        &self,
        caller: Principal,
        events: BoxStream<'static, Result<v1::OperationEvent, Problem>>,
        wrap: fn(v1::OperationEvent) -> E,
    ) -> BoxStream<'static, Result<E, Status>> {
        let (access, caller) = (Arc::clone(&self.access), Arc::new(caller));
        let checked = events.then(move |event| {
            let (access, caller) = (Arc::clone(&access), Arc::clone(&caller));
            async move {
                access.still(&caller).await?;
                event.map(wrap).map_err(Status::from)
            }
        });
        checked.boxed()
    }

    fn server_info(&self) -> v1::GetServerInfoResponse {
        v1::GetServerInfoResponse {
            implementation: "quiesce".to_owned(),
            implementation_version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol_version: "1.0".to_owned(),
            default_policy: Some(policy_to_wire(&self.default_policy)),
            max_page_size: i32::try_from(PAGE_MAX).unwrap_or(i32::MAX),
            request_id_retention: Some(duration_to_wire(idempotency::RETENTION)),
            event_retention: Some(duration_to_wire(retention::EVENTS_FOR)),
            operation_retention: Some(duration_to_wire(retention::OPERATIONS_FOR)),
            attach_endpoint: self.attach_endpoint.clone(),
        }
    }
}

fn answer<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// The same for a call that made something; `name` is where the answer says what that is called.
fn answer_made<T>(result: Result<T, Problem>, name: impl FnOnce(&T) -> Option<&str>) -> Result<Response<T>, Status> {
    let mut response = answer(result)?;
    if let Some(name) = name(response.get_ref()).filter(|name| !name.is_empty()) {
        let made = Made(name.to_owned());
        response.extensions_mut().insert(made);
    }
    Ok(response)
}

#[tonic::async_trait]
impl v1::scheduler_server::Scheduler for Service {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.open(request).await?;
        Ok(Response::new(self.server_info()))
    }

    async fn create_application(
        &self,
        request: Request<v1::CreateApplicationRequest>,
    ) -> Result<Response<v1::CreateApplicationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(applications::create(self, opened).await)
    }

    async fn get_application(
        &self,
        request: Request<v1::GetApplicationRequest>,
    ) -> Result<Response<v1::GetApplicationResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(applications::get(self, request).await)
    }

    async fn list_applications(
        &self,
        request: Request<v1::ListApplicationsRequest>,
    ) -> Result<Response<v1::ListApplicationsResponse>, Status> {
        let opened = self.open(request).await?;
        answer(applications::list(self, opened).await)
    }

    async fn update_application(
        &self,
        request: Request<v1::UpdateApplicationRequest>,
    ) -> Result<Response<v1::UpdateApplicationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(applications::update(self, opened).await)
    }

    async fn migrate_application(
        &self,
        request: Request<v1::MigrateApplicationRequest>,
    ) -> Result<Response<v1::MigrateApplicationResponse>, Status> {
        let trace = traced(&request);
        let opened = self.open(request).await?;
        answer_made(operations::migrate(self, opened, trace).await, |made| Some(&made.operation.as_ref()?.name))
    }

    async fn delete_application(
        &self,
        request: Request<v1::DeleteApplicationRequest>,
    ) -> Result<Response<v1::DeleteApplicationResponse>, Status> {
        let trace = traced(&request);
        let opened = self.open(request).await?;
        answer_made(operations::delete(self, opened, trace).await, |made| Some(&made.operation.as_ref()?.name))
    }

    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Result<Response<v1::CreateClusterResponse>, Status> {
        let opened = self.open(request).await?;
        answer(clusters::create(self, opened).await)
    }

    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::GetClusterResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(clusters::get(self, request).await)
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Result<Response<v1::ListClustersResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(clusters::list(self, request).await)
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Result<Response<v1::UpdateClusterResponse>, Status> {
        let opened = self.open(request).await?;
        answer(clusters::update(self, opened).await)
    }

    async fn delete_cluster(
        &self,
        request: Request<v1::DeleteClusterRequest>,
    ) -> Result<Response<v1::DeleteClusterResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(clusters::delete(self, request).await)
    }

    async fn get_instance(
        &self,
        request: Request<v1::GetInstanceRequest>,
    ) -> Result<Response<v1::GetInstanceResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(instances::get(self, request).await)
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let opened = self.open(request).await?;
        answer(instances::list(self, opened).await)
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(operations::get(self, request).await)
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let opened = self.open(request).await?;
        answer(operations::list(self, opened).await)
    }

    type WatchOperationStream = BoxStream<'static, Result<v1::WatchOperationResponse, Status>>;

    async fn watch_operation(
        &self,
        request: Request<v1::WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let (caller, request) = self.open(request).await?;
        let events = operations::watch_one(self, request).await?;
        let wrap = |event| v1::WatchOperationResponse { event: Some(event) };
        Ok(Response::new(self.watched(caller, events, wrap)))
    }

    type WatchOperationsStream = BoxStream<'static, Result<v1::WatchOperationsResponse, Status>>;

    async fn watch_operations(
        &self,
        request: Request<v1::WatchOperationsRequest>,
    ) -> Result<Response<Self::WatchOperationsStream>, Status> {
        let (caller, request) = self.open(request).await?;
        let events = operations::watch_all(self, request, caller.sees()).await?;
        let wrap = |event| v1::WatchOperationsResponse { event: Some(event) };
        Ok(Response::new(self.watched(caller, events, wrap)))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(operations::cancel(self, opened).await)
    }

    async fn retry_operation(
        &self,
        request: Request<v1::RetryOperationRequest>,
    ) -> Result<Response<v1::RetryOperationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(operations::retry(self, opened).await)
    }

    async fn extend_operation(
        &self,
        request: Request<v1::ExtendOperationRequest>,
    ) -> Result<Response<v1::ExtendOperationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(operations::extend(self, opened).await)
    }

    async fn confirm_operation(
        &self,
        request: Request<v1::ConfirmOperationRequest>,
    ) -> Result<Response<v1::ConfirmOperationResponse>, Status> {
        let opened = self.open(request).await?;
        answer(operations::confirm(self, opened).await)
    }
}

#[tonic::async_trait]
impl v1::agent_gateway_server::AgentGateway for Service {
    async fn register_instance(
        &self,
        request: Request<v1::RegisterInstanceRequest>,
    ) -> Result<Response<v1::RegisterInstanceResponse>, Status> {
        let opened = self.open(request).await?;
        answer(gateway::register(self, opened).await)
    }

    async fn deregister_instance(
        &self,
        request: Request<v1::DeregisterInstanceRequest>,
    ) -> Result<Response<v1::DeregisterInstanceResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(gateway::deregister(self, request).await)
    }

    async fn admit_start(
        &self,
        request: Request<v1::AdmitStartRequest>,
    ) -> Result<Response<v1::AdmitStartResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(gateway::admit_start(self, request).await)
    }

    async fn report_end(
        &self,
        request: Request<v1::ReportEndRequest>,
    ) -> Result<Response<v1::ReportEndResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(gateway::report_end(self, request).await)
    }

    async fn complete_shutdown(
        &self,
        request: Request<v1::CompleteShutdownRequest>,
    ) -> Result<Response<v1::CompleteShutdownResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(gateway::complete_shutdown(self, request).await)
    }

    async fn extend_deadline(
        &self,
        request: Request<v1::ExtendDeadlineRequest>,
    ) -> Result<Response<v1::ExtendDeadlineResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(gateway::extend_deadline(self, request).await)
    }
}

#[tonic::async_trait]
impl v1::access_server::Access for Service {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let opened = self.open(request).await?;
        answer_made(access::create(self, opened).await, |made| Some(&made.token.as_ref()?.name))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(access::list(self, request).await)
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let (_, request) = self.open(request).await?;
        answer(access::revoke(self, request).await)
    }
}

/// Where a call stands in a trace, as the layer around the services has found out.
fn traced<T>(request: &Request<T>) -> Option<Trace> {
    request.extensions().get::<TraceContext>().map(traces::to_store)
}
