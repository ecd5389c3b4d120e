//! A scheduler that checks its callers, and callers with credentials.

use std::path::PathBuf;
use std::sync::Arc;

use quiesce_protocol::v1;
use quiesce_scheduler::access::{self, Mode, Target};
use quiesce_scheduler::secrets::Rotation;
use quiesce_scheduler::{Config, StoreChoice};
use quiesce_store::Store;
use quiesce_store::memory::MemoryStore;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;
use v1::access_client::AccessClient;
use v1::agent_gateway_client::AgentGatewayClient;
use v1::scheduler_client::SchedulerClient;
use v1::token::Role;

use crate::world::World;

/// Sends one header, or two.
#[derive(Debug, Clone)]
pub(crate) struct Headers(pub(super) Vec<String>);

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata: &mut MetadataMap = request.metadata_mut();
        for header in &self.0 {
            metadata.append("authorization", MetadataValue::try_from(header.as_str()).unwrap());
        }
        Ok(request)
    }
}

type Guarded = InterceptedService<Channel, Headers>;

/// Somebody who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) scheduler: SchedulerClient<Guarded>,
    pub(crate) gateway: AgentGatewayClient<Guarded>,
    pub(crate) access: AccessClient<Guarded>,
}

/// A scheduler that checks its callers.
pub(crate) struct House {
    pub(crate) world: World,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: tempfile::TempDir,
    channel: Channel,
}

impl House {
    pub(crate) async fn open() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Uuid::new_v4()));
        Self::again(store, tempfile::tempdir().unwrap()).await
    }

    /// Another life over the same store.
    pub(crate) async fn again(store: Arc<dyn Store>, directory: tempfile::TempDir) -> Self {
        let access = access::Config {
            mode: Mode::Enforced,
            principals: Vec::new(),
            admin_token_file: Some(directory.path().join("admin.token")),
            audit: Target::File(directory.path().join("audit.jsonl")),
            rotation: Rotation::WhenDue,
        };
        let config =
            Config { store: StoreChoice::Given(Arc::clone(&store)), access, page: true, ..Config::ephemeral() };
        let world = World::with(config).await;
        let url = format!("http://{}", world.address);
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        Self { world, store, directory, channel }
    }

    pub(crate) async fn close(self) -> (Arc<dyn Store>, tempfile::TempDir) {
        let Self { world, store, directory, channel } = self;
        drop(channel);
        world.stop().await;
        (store, directory)
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn with_headers(&self, headers: Vec<String>) -> Caller {
        let headers = Headers(headers);
        Caller {
            scheduler: SchedulerClient::with_interceptor(self.channel.clone(), headers.clone()),
            gateway: AgentGatewayClient::with_interceptor(self.channel.clone(), headers.clone()),
            access: AccessClient::with_interceptor(self.channel.clone(), headers),
        }
    }

    pub(crate) fn caller(&self, token: &str) -> Caller {
        self.with_headers(vec![format!("Bearer {token}")])
    }

    pub(crate) fn nobody(&self) -> Caller {
        self.with_headers(Vec::new())
    }

    pub(crate) fn first_token(&self) -> String {
        std::fs::read_to_string(self.path("admin.token")).unwrap().trim().to_owned()
    }

    pub(crate) fn admin(&self) -> Caller {
        self.caller(&self.first_token())
    }

    /// A new token, with its name.
    pub(crate) async fn token(&self, wanted: v1::CreateTokenRequest) -> (String, String) {
        let made = self.admin().access.create_token(wanted).await.unwrap().into_inner();
        (made.bearer_token, made.token.unwrap().name)
    }

    pub(crate) async fn person(&self, role: Role, applications: &[&str]) -> String {
        self.token(wanted(role, applications)).await.0
    }

    pub(crate) async fn application(&self, name: &str) {
        let application = Some(crate::world::application(&format!("applications/{name}"), "a"));
        let request = v1::CreateApplicationRequest { application, ..Default::default() };
        self.admin().scheduler.create_application(request).await.unwrap();
    }

    /// The credential of an instance that has joined.
    pub(crate) async fn instance(&self, application: &str, instance: &str) -> String {
        let join = self.person(Role::Agent, &[application]).await;
        let request = dialling(&format!("applications/{application}/instances/{instance}"), "agent");
        let answer = self.caller(&join).gateway.register_instance(request).await.unwrap().into_inner();
        assert!(answer.instance_token.starts_with("qit1."));
        answer.instance_token
    }
}

pub(crate) fn wanted(role: Role, applications: &[&str]) -> v1::CreateTokenRequest {
    let token = v1::Token {
        display_name: "somebody".to_owned(),
        role: role.into(),
        applications: applications.iter().map(|name| format!("applications/{name}")).collect(),
        ..Default::default()
    };
    v1::CreateTokenRequest { token: Some(token), ..Default::default() }
}

/// Registers an instance that dials in.
pub(crate) fn dialling(name: &str, agent_id: &str) -> v1::RegisterInstanceRequest {
    let instance = v1::Instance {
        name: name.to_owned(),
        connect_mode: v1::instance::ConnectMode::DialIn.into(),
        agent_id: agent_id.to_owned(),
        ..Default::default()
    };
    v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() }
}
