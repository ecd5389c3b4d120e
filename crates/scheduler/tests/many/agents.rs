//! Agents of the tests: a scripted hook, registered, which listens or dials in again and again.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_testkit::hook::{Listening, ScriptedHook};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Status;
use tonic::transport::Channel;
use v1::agent_gateway_client::AgentGatewayClient;
use v1::instance::ConnectMode;

use crate::stage::{LIMIT, Stage};

/// Pause of an agent before it dials again.
const REDIAL: Duration = Duration::from_millis(200);

/// How the scheduler reaches an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Listens,
    DialsIn,
}

/// An agent; it is gone when this is dropped.
pub(crate) struct Agent {
    pub(crate) hook: ScriptedHook,
    _listening: Option<Listening>,
    _dialling: JoinSet<()>,
}

/// What there is to say of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `application/instance`.
    pub(crate) name: String,
    pub(crate) cluster: &'static str,
    pub(crate) stop_order: i32,
}

impl Place {
    /// The first instance of an application at its source.
    pub(crate) fn only(application: &str) -> Self {
        Self { name: format!("{application}/one"), cluster: "a", stop_order: 0 }
    }

    pub(crate) fn resource_name(&self) -> String {
        let (application, instance) = self.name.split_once('/').unwrap();
        format!("applications/{application}/instances/{instance}")
    }

    pub(crate) fn agent_id(&self) -> String {
        format!("agent of {}", self.name)
    }

    fn instance(&self) -> v1::Instance {
        v1::Instance {
            name: self.resource_name(),
            cluster: self.cluster.to_owned(),
            stop_order: self.stop_order,
            agent_id: self.agent_id(),
            ..Default::default()
        }
    }
}

impl Agent {
    pub(crate) async fn start(stage: &Stage, place: &Place, hook: ScriptedHook, reach: Reach) -> Self {
        match reach {
            Reach::Listens => {
                let listening = hook.listen().await;
                register_at(stage, place, &listening.address.to_string()).await.unwrap();
                Self { hook, _listening: Some(listening), _dialling: JoinSet::new() }
            }
            Reach::DialsIn => {
                let (place, agent) = (place.clone(), hook.clone());
                let (mut gateway, address) = (stage.gateway.clone(), stage.address.to_string());
                // Registered when this returns; everything after that in its own time.
                let mut token = Some(register_to_dial_in(&mut gateway, &place).await.unwrap());
                let mut dialling = JoinSet::new();
                dialling.spawn(async move {
                    loop {
                        let attached = match token.take() {
                            Some(token) => attach(&address, &token).await,
                            None => match register_to_dial_in(&mut gateway, &place).await {
                                Ok(token) => attach(&address, &token).await,
                                Err(_) => None,
                            },
                        };
                        if let Some(socket) = attached {
                            agent.serve_until_gone(socket).await;
                        }
                        sleep(REDIAL).await;
                    }
                });
                Self { hook, _listening: None, _dialling: dialling }
            }
        }
    }
}

/// Registers an instance whose hook is said to listen there.
pub(crate) async fn register_at(stage: &Stage, place: &Place, endpoint: &str) -> Result<(), Status> {
    let instance = v1::Instance { endpoint: endpoint.to_owned(), ..place.instance() };
    let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
    stage.gateway.clone().register_instance(request).await.map(drop)
}

/// Registers an instance whose agent dials in; returns the attach token.
pub(crate) async fn register_to_dial_in(
    gateway: &mut AgentGatewayClient<Channel>,
    place: &Place,
) -> Result<String, Status> {
    let instance = v1::Instance { connect_mode: ConnectMode::DialIn.into(), ..place.instance() };
    let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
    Ok(gateway.register_instance(request).await?.into_inner().attach_token)
}

/// Dials in; none if the scheduler is not there or says no.
pub(crate) async fn attach(address: &str, token: &str) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).await.ok()?;
    let mut answer = [0; "QUIESCE/1 OK\r\n".len()];
    let greeting = async {
        socket.write_all(format!("QUIESCE/1 ATTACH {token}\r\n").as_bytes()).await.ok()?;
        socket.read_exact(&mut answer).await.ok()
    };
    tokio::time::timeout(LIMIT, greeting).await.ok()??;
    (answer == *b"QUIESCE/1 OK\r\n").then_some(socket)
}
