//! A scheduler of straw for one agent: admits starts, and calls the hook without anything in between.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use quiesce_agent::gateway::{Channel, Gateway};
use quiesce_agent::life::{Reach, Serve};
use quiesce_agent::serve::Service;
use quiesce_protocol::ERROR_DOMAIN;
use quiesce_protocol::v1::agent_gateway_server::{AgentGateway, AgentGatewayServer};
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::{self, ReportEndRequest};
use quiesce_runtime::drain;
use quiesce_runtime::machine::Machine;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

const TOKEN: &str = "Bearer hook-token";

type Authorize = fn(Request<()>) -> Result<Request<()>, Status>;
pub(crate) type Client = ShutdownHookClient<InterceptedService<Channel, Authorize>>;

#[derive(Clone)]
pub(crate) struct Straw {
    epoch: Arc<AtomicI64>,
    pub(crate) ends: Arc<Mutex<Vec<ReportEndRequest>>>,
    /// The hook that is served, and how many have been.
    hook: Slot,
}

impl Straw {
    pub(crate) fn new() -> Self {
        Self { epoch: Arc::default(), ends: Arc::default(), hook: watch::Sender::new((0, None)) }
    }

    /// The way between this scheduler and an agent on `machine`.
    pub(crate) fn reach(&self, machine: Machine) -> Reach {
        let never = |never: Infallible| match never {};
        let gateway = AgentGatewayServer::new(self.clone());
        let channel = BoxCloneSyncService::new(ServiceExt::<http::Request<Body>>::map_err(gateway, never));
        let hook = self.hook.clone();
        let serve: Serve = Box::new(move |service, drain| bring(hook, service, drain));
        Reach::Given { gateway: Gateway::over(channel, "straw", machine), endpoint: "hook".to_owned(), serve }
    }

    /// Whoever listened does not any more: its machine knows that it is dead before its tasks have noticed.
    pub(crate) fn forget(&self) {
        self.hook.send_modify(|(number, hook)| {
            *number += 1;
            *hook = None;
        });
    }

    /// The next epoch.
    pub(crate) fn next_epoch(&self) -> i64 {
        self.epoch.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The hook of the agent that lives, as soon as it listens.
    pub(crate) async fn hook(&self) -> Client {
        let mut hooks = self.hook.subscribe();
        let service = hooks.wait_for(|(_, hook)| hook.is_some()).await.unwrap().1.clone().unwrap();
        let never = |never: Infallible| match never {};
        let authorize: Authorize = |mut request| {
            request.metadata_mut().insert("authorization", MetadataValue::from_static(TOKEN));
            Ok(request)
        };
        ShutdownHookClient::with_interceptor(BoxCloneSyncService::new(service.map_err(never)), authorize)
    }
}

type Slot = watch::Sender<(u64, Option<Service>)>;

fn bring(hook: Slot, service: Service, drain: drain::Watch) -> BoxFuture<'static, ()> {
    /// Nobody listens any more, however that came; unless the next agent does so already.
    struct Listening(Slot, u64);
    impl Drop for Listening {
        fn drop(&mut self) {
            self.0.send_if_modified(|(number, hook)| *number == self.1 && hook.take().is_some());
        }
    }
    Box::pin(async move {
        let number = hook.borrow().0 + 1;
        let listening = Listening(hook, number);
        listening.0.send_replace((number, Some(service)));
        drain.signaled().await;
    })
}

#[tonic::async_trait]
impl AgentGateway for Straw {
    async fn register_instance(
        &self,
        _: Request<v1::RegisterInstanceRequest>,
    ) -> Result<Response<v1::RegisterInstanceResponse>, Status> {
        let hook_token = "hook-token".to_owned();
        Ok(Response::new(v1::RegisterInstanceResponse { hook_token, ..Default::default() }))
    }

    async fn deregister_instance(
        &self,
        _: Request<v1::DeregisterInstanceRequest>,
    ) -> Result<Response<v1::DeregisterInstanceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn admit_start(
        &self,
        request: Request<v1::AdmitStartRequest>,
    ) -> Result<Response<v1::AdmitStartResponse>, Status> {
        // An operation that is not over does not let its instance start by itself.
        if !request.get_ref().held_by.is_empty() {
            let details = ErrorDetails::with_error_info("START_NOT_PERMITTED", ERROR_DOMAIN, HashMap::new());
            return Err(Status::with_error_details(Code::FailedPrecondition, "held", details));
        }
        Ok(Response::new(v1::AdmitStartResponse { epoch: self.next_epoch() }))
    }

    async fn report_end(&self, request: Request<ReportEndRequest>) -> Result<Response<v1::ReportEndResponse>, Status> {
        self.ends.lock().unwrap().push(request.into_inner());
        Ok(Response::new(v1::ReportEndResponse {}))
    }

    async fn complete_shutdown(
        &self,
        _: Request<v1::CompleteShutdownRequest>,
    ) -> Result<Response<v1::CompleteShutdownResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn extend_deadline(
        &self,
        _: Request<v1::ExtendDeadlineRequest>,
    ) -> Result<Response<v1::ExtendDeadlineResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
