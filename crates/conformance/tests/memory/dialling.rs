//! Agents that dial in, with one fault each in how they do it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use quiesce_agent::hook::Hook;
use quiesce_protocol::v1;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use quiesce_protocol::v1::instance::ConnectMode;
use quiesce_protocol::v1::shutdown_hook_server::ShutdownHookServer;
use quiesce_runtime::backoff::Backoff;
use quiesce_runtime::machine::{Machine, Socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::sleep;
use tonic::transport::Endpoint;

use super::mutants::Accepted;

/// What is under way between socket and server.
const PIPE: usize = 64 * 1024;

/// What is wrong with how an agent dials in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Nothing.
    Good,
    /// Ends the preface with a line feed alone.
    LineFeed,
    /// Uses a token again that was refused.
    KeepsTheToken,
    /// Tries again at once.
    NoPause,
    /// Always waits for a second.
    SamePause,
    /// All agents wait for the same time.
    NoSpread,
    /// Never sends a PING.
    NoPings,
    /// Is somebody else each time.
    NewAgent,
    /// Touches the application when the connection is lost.
    TouchesTheApplication,
}

/// Dials in for ever.
pub(crate) async fn dial_in(
    machine: Machine,
    gateway: String,
    hook: Hook,
    habit: Habit,
    application: Arc<super::imitation::Imitation>,
) {
    let spread: Box<dyn FnMut() -> f64 + Send> =
        if habit == Habit::NoSpread { Box::new(|| 0.5) } else { machine.randomness() };
    let longest = Duration::from_secs(if habit == Habit::SamePause { 1 } else { 30 });
    let mut pauses = Backoff::new(Duration::from_secs(1), longest, spread);
    let mut kept = None;
    let mut lives = 0;
    loop {
        lives += 1;
        let agent_id = if habit == Habit::NewAgent { format!("agent-{lives}") } else { "agent-1".to_owned() };
        let token = match kept.take() {
            Some(token) => Some(token),
            None => register(&machine, &gateway, agent_id).await,
        };
        if let Some(token) = token {
            match attach(&machine, &gateway, &token, habit).await {
                Some(socket) => {
                    pauses.reset();
                    serve(hook.clone(), socket, habit).await;
                    if habit == Habit::TouchesTheApplication {
                        application.signal_again();
                    }
                }
                None if habit == Habit::KeepsTheToken => kept = Some(token),
                None => {}
            }
        }
        let pause = pauses.next_delay();
        sleep(if habit == Habit::NoPause { Duration::from_millis(300) } else { pause }).await;
    }
}

async fn register(machine: &Machine, gateway: &str, agent_id: String) -> Option<String> {
    let socket = machine.network.connect(gateway, None).await.ok()?;
    let once = std::sync::Mutex::new(Some(hyper_util::rt::TokioIo::new(socket)));
    let connector = tower::service_fn(move |_| {
        let socket = once.lock().unwrap().take();
        std::future::ready(socket.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    let channel = Endpoint::from_static("http://gateway").connect_with_connector(connector).await.ok()?;
    let instance = v1::Instance {
        name: "applications/shop/instances/shop-0".to_owned(),
        connect_mode: ConnectMode::DialIn.into(),
        cluster: "edge-1".to_owned(),
        agent_id,
        ..Default::default()
    };
    let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
    let answer = AgentGatewayClient::new(channel).register_instance(request).await.ok()?;
    Some(answer.into_inner().attach_token)
}

async fn attach(machine: &Machine, gateway: &str, token: &str, habit: Habit) -> Option<Box<dyn Socket>> {
    let mut socket = machine.network.connect(gateway, None).await.ok()?;
    let end = if habit == Habit::LineFeed { "\n" } else { "\r\n" };
    socket.write_all(format!("QUIESCE/1 ATTACH {token}{end}").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n") {
        answer.push(socket.read_u8().await.ok()?);
    }
    (answer == b"QUIESCE/1 OK\r\n").then_some(socket)
}

/// Until the connection is gone. It goes with the caller, whatever the server keeps.
async fn serve(hook: Hook, socket: Box<dyn Socket>, habit: Habit) {
    let keepalive = (habit != Habit::NoPings).then_some(Duration::from_secs(20));
    let (near, far) = tokio::io::duplex(PIPE);
    let ((mut from_them, mut to_them), (mut from_us, mut to_us)) = (tokio::io::split(socket), tokio::io::split(near));
    let connection = Accepted(Box::new(far));
    let incoming = stream::once(async { Ok::<_, std::io::Error>(connection) }).chain(stream::pending());
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(keepalive)
        .http2_keepalive_timeout(keepalive)
        .add_service(ShutdownHookServer::new(hook))
        .serve_with_incoming(incoming);
    tokio::select! {
        served = serving => served.unwrap(),
        // However it ends, and on whichever side, it has ended.
        _theirs = tokio::io::copy(&mut from_them, &mut to_us) => {}
        _ours = tokio::io::copy(&mut from_us, &mut to_them) => {}
    }
}
