//! The gateway, as far as a hook needs one: takes registrations, lets agents dial in, gives permission to start.
//!
//! Plays the scheduler's side of `proto/quiesce/v1/agent_gateway.proto` for one instance, keeps a record of what happened
//! when, and can be told to misbehave as networks and schedulers do. It decides nothing about the hook.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::agent_gateway_server::{AgentGateway, AgentGatewayServer};
use quiesce_protocol::v1::instance::ConnectMode;
use quiesce_runtime::machine::{Listener, Machine};
use quiesce_runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

use crate::reach::{Endpoint, Line, ReachError};
use crate::tap::{Handle, Tap};

/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest preface line, its end included; of the contract.
const LINE_BYTES_MAX: usize = 512;
/// Longest wait for it, as the scheduler has it.
const LINE_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait of a new attached connection for its first answer.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Connections that wait to be served as gRPC; one agent makes one or two.
const CONNECTIONS: usize = 16;
/// Events that are kept, the newest: far more than a check looks at.
const EVENTS_MAX: usize = 10_000;

/// The gateway. Clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Machine,
    address: String,
    hook_token: String,
    state: watch::Sender<State>,
    handles: Mutex<Vec<Handle>>,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    tokens: BTreeSet<String>,
    registered: Option<v1::Instance>,
    attached: Option<Line>,
    refusals: u32,
    away: bool,
    epoch: i64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Somebody connected.
    Connected,
    /// An agent registered. Its id, and the attach token it was given.
    Registered { agent_id: String, token: String },
    /// Bytes of a preface, as they came.
    Preface(Vec<u8>),
    /// An agent was sent away although its token was good.
    Refused,
    /// An agent is attached and has answered GetHookInfo.
    Attached,
    /// An agent was let in, and did not answer GetHookInfo.
    Silent(String),
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.inner.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Listens at `address` of `machine` until `tasks` end.
    ///
    /// # Errors
    /// That the address cannot be listened on.
    pub async fn bind(machine: Machine, address: &str, tasks: &Tasks) -> io::Result<Self> {
        let listener = machine.network.listen(address, None).await?;
        let inner = Inner {
            machine,
            address: listener.local_addr()?.to_string(),
            hook_token: format!("hook.{}", Uuid::new_v4().simple()),
            state: watch::Sender::new(State::default()),
            handles: Mutex::default(),
        };
        let gateway = Self { inner: Arc::new(inner) };
        let (connections, incoming) = mpsc::channel::<io::Result<Rewound>>(CONNECTIONS);
        let serving = tonic::transport::Server::builder()
            .add_service(AgentGatewayServer::new(gateway.clone()))
            .serve_with_incoming(ReceiverStream::new(incoming));
        tasks.spawn("gateway", async move {
            // It ends with its connections, which is with us.
            let _served = serving.await;
        });
        tasks.spawn("gateway listener", gateway.clone().accept(listener, connections, tasks.clone()));
        Ok(gateway)
    }

    /// Where it listens, `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// What calls of a hook that listens are proved with; none for one that dials in.
    pub(crate) fn hook_token(&self) -> Option<String> {
        let listens = |instance: &v1::Instance| instance.connect_mode() == ConnectMode::Listen;
        let state = self.inner.state.borrow();
        // A unix socket is proof by itself; a token that comes all the same does no harm.
        state.registered.as_ref().is_some_and(listens).then(|| self.inner.hook_token.clone())
    }

    /// Whether the hook dials in.
    pub(crate) fn is_dialled(&self) -> bool {
        let state = self.inner.state.borrow();
        state.registered.as_ref().is_some_and(|instance| instance.connect_mode() == ConnectMode::DialIn)
    }

    /// The name the instance has registered with.
    pub(crate) fn instance(&self) -> Option<String> {
        self.inner.state.borrow().registered.as_ref().map(|instance| instance.name.clone())
    }

    /// A connection to the hook that has registered; waits for it.
    pub(crate) async fn line(&self, limit: Duration) -> Result<Line, ReachError> {
        let mut state = self.inner.state.subscribe();
        let ready = |state: &State| match &state.registered {
            Some(instance) if instance.connect_mode() == ConnectMode::Listen => true,
            Some(_) => state.attached.as_ref().is_some_and(|line| !line.handle.is_gone()),
            None => false,
        };
        let found = match timeout(limit, state.wait_for(ready)).await {
            Ok(Ok(state)) => (state.registered.clone(), state.attached.clone()),
            Ok(Err(_)) | Err(_) => return Err(ReachError::Absent(limit)),
        };
        match found {
            (Some(instance), _) if instance.connect_mode() == ConnectMode::Listen => {
                let endpoint = Endpoint::on(self.inner.machine.clone(), &instance.endpoint, None);
                let endpoint = endpoint.map_err(|error| ReachError::Connect {
                    address: instance.endpoint.clone(),
                    source: io::Error::new(io::ErrorKind::InvalidInput, error),
                })?;
                endpoint.connect().await
            }
            (_, Some(line)) => Ok(line),
            (_, None) => Err(ReachError::Absent(limit)),
        }
    }

    /// The next agents, so many, are sent away although their tokens are good.
    pub(crate) fn refuse(&self, agents: u32) {
        self.inner.state.send_modify(|state| state.refusals = agents);
    }

    /// Whether whoever connects is left standing at once. Going away breaks all connections.
    pub(crate) fn go_away(&self, away: bool) {
        self.inner.state.send_modify(|state| state.away = away);
        if away {
            for handle in self.inner.handles.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                handle.cut();
            }
        }
    }

    /// What has happened since `since`.
    pub(crate) fn events(&self, since: Instant) -> Vec<Event> {
        self.inner.state.borrow().events.iter().filter(|event| event.at >= since).cloned().collect()
    }

    /// Waits for something to have happened since `since`.
    pub(crate) async fn until(
        &self,
        since: Instant,
        limit: Duration,
        happened: impl Fn(&What) -> bool,
    ) -> Option<Event> {
        let mut state = self.inner.state.subscribe();
        let find =
            |state: &State| state.events.iter().find(|event| event.at >= since && happened(&event.what)).cloned();
        match timeout(limit, state.wait_for(|state| find(state).is_some())).await {
            Ok(Ok(state)) => find(&state),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn note(&self, what: What) {
        self.inner.state.send_modify(|state| {
            if state.events.len() == EVENTS_MAX {
                state.events.remove(0);
            }
            state.events.push(Event { at: Instant::now(), what });
        });
    }

    async fn accept(self, listener: Box<dyn Listener>, connections: mpsc::Sender<io::Result<Rewound>>, tasks: Tasks) {
        loop {
            let Ok((socket, _peer)) = listener.accept().await else {
                // Out of files for a moment; whoever wanted in tries again.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            self.note(What::Connected);
            if self.inner.state.borrow().away {
                continue;
            }
            let (tap, handle) = Tap::new(socket);
            let mut handles = self.inner.handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles.retain(|handle| !handle.is_gone());
            handles.push(handle);
            drop(handles);
            tasks.spawn("gateway connection", self.clone().sort(tap, connections.clone()));
        }
    }

    /// Attach or gRPC, by the first byte.
    async fn sort(self, mut tap: Tap, connections: mpsc::Sender<io::Result<Rewound>>) {
        let Ok(Ok(first)) = timeout(LINE_LIMIT, tap.read_u8()).await else { return };
        if first != b'Q' {
            // Nobody left to serve it: the gateway has ended.
            let _ended = connections.send(Ok(Rewound { first: Some(first), inner: tap })).await;
            return;
        }
        let mut line = vec![first];
        let reading = async {
            while line.len() < LINE_BYTES_MAX && !line.ends_with(b"\n") {
                line.push(tap.read_u8().await?);
            }
            Ok::<_, io::Error>(())
        };
        // What came is judged, whether or not it came to an end.
        let _broken = timeout(LINE_LIMIT, reading).await;
        self.note(What::Preface(line.clone()));
        let answer = self.judge(&line);
        let said = async {
            tap.write_all(answer.as_bytes()).await?;
            tap.flush().await
        };
        // An agent that is gone by now comes again.
        if !matches!(timeout(LINE_LIMIT, said).await, Ok(Ok(()))) || answer != "QUIESCE/1 OK\r\n" {
            return;
        }
        self.take(tap).await;
    }

    /// Spends the token. A line that is only nearly right is let pass, or nothing else could be checked; A01 judges it.
    fn judge(&self, line: &[u8]) -> &'static str {
        let text = String::from_utf8_lossy(line);
        let Some(token) = text.split_whitespace().nth(2) else {
            return "QUIESCE/1 ERROR INVALID_ARGUMENT INVALID_FIELD\r\n";
        };
        let mut good = false;
        let mut refused = false;
        self.inner.state.send_modify(|state| {
            good = state.tokens.remove(token);
            refused = good && state.refusals > 0;
            if refused {
                state.refusals -= 1;
            }
        });
        if refused {
            self.note(What::Refused);
        }
        if good && !refused { "QUIESCE/1 OK\r\n" } else { "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n" }
    }

    /// From here on we are the client. An older connection is closed once the new one has answered (A1).
    async fn take(&self, tap: Tap) {
        let line = match Line::over(Box::new(tap)).await {
            Ok(line) => line,
            Err(error) => return self.note(What::Silent(error.to_string())),
        };
        let mut hook = line.client(None);
        match timeout(GREETING_LIMIT, hook.get_hook_info(v1::GetHookInfoRequest {})).await {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => return self.note(What::Silent(crate::check::tell(&status))),
            Err(_elapsed) => return self.note(What::Silent("GetHookInfo was not answered".to_owned())),
        }
        let mut older = None;
        self.inner.state.send_modify(|state| older = state.attached.replace(line));
        if let Some(older) = older {
            older.handle.cut();
        }
        self.note(What::Attached);
    }
}

/// The token of a preface line that is exactly as the contract has it.
pub(crate) fn token_of(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?;
    let token = line.strip_prefix("QUIESCE/1 ATTACH ")?.strip_suffix("\r\n")?;
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(token)
}

/// The agent calls.
#[tonic::async_trait]
impl AgentGateway for Gateway {
    async fn register_instance(
        &self,
        request: Request<v1::RegisterInstanceRequest>,
    ) -> Result<Response<v1::RegisterInstanceResponse>, Status> {
        let Some(instance) = request.into_inner().instance else {
            return Err(Status::invalid_argument("instance is missing"));
        };
        let mut response = v1::RegisterInstanceResponse { instance: Some(instance.clone()), ..Default::default() };
        let token = format!("attach.{}", Uuid::new_v4().simple());
        let dials = instance.connect_mode() == ConnectMode::DialIn;
        if dials {
            response.attach_token.clone_from(&token);
        } else {
            response.hook_token.clone_from(&self.inner.hook_token);
        }
        let agent_id = instance.agent_id.clone();
        self.inner.state.send_modify(|state| {
            state.registered = Some(instance);
            if dials {
                state.tokens.insert(token.clone());
            }
        });
        self.note(What::Registered { agent_id, token });
        Ok(Response::new(response))
    }

    async fn deregister_instance(
        &self,
        _: Request<v1::DeregisterInstanceRequest>,
    ) -> Result<Response<v1::DeregisterInstanceResponse>, Status> {
        Ok(Response::new(v1::DeregisterInstanceResponse {}))
    }

    async fn admit_start(
        &self,
        request: Request<v1::AdmitStartRequest>,
    ) -> Result<Response<v1::AdmitStartResponse>, Status> {
        let v1::AdmitStartRequest { last_epoch, held_by, .. } = request.into_inner();
        if !held_by.is_empty() {
            // Nothing that was stopped comes back by itself.
            return Err(refusal("START_NOT_PERMITTED", "the operation that stopped it is open"));
        }
        let mut epoch = 0;
        self.inner.state.send_modify(|state| {
            state.epoch = state.epoch.max(last_epoch) + 1;
            epoch = state.epoch;
        });
        Ok(Response::new(v1::AdmitStartResponse { epoch }))
    }

    async fn report_end(&self, _: Request<v1::ReportEndRequest>) -> Result<Response<v1::ReportEndResponse>, Status> {
        Ok(Response::new(v1::ReportEndResponse {}))
    }

    async fn complete_shutdown(
        &self,
        _: Request<v1::CompleteShutdownRequest>,
    ) -> Result<Response<v1::CompleteShutdownResponse>, Status> {
        Ok(Response::new(v1::CompleteShutdownResponse {}))
    }

    async fn extend_deadline(
        &self,
        _: Request<v1::ExtendDeadlineRequest>,
    ) -> Result<Response<v1::ExtendDeadlineResponse>, Status> {
        Err(refusal("EXTENSION_EXHAUSTED", "nothing is granted here"))
    }
}

fn refusal(reason: &str, message: &str) -> Status {
    let metadata = HashMap::<String, String>::new();
    let details = ErrorDetails::with_error_info(reason, quiesce_protocol::ERROR_DOMAIN, metadata);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// A connection whose first byte has been looked at.
struct Rewound {
    first: Option<u8>,
    inner: Tap,
}

impl Connected for Rewound {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(first) = self.first.take() {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_of_the_contract_has_a_token() {
        assert_eq!(token_of(b"QUIESCE/1 ATTACH abc\r\n"), Some("abc"));
        for wrong in
            ["QUIESCE/1 ATTACH abc\n", "QUIESCE/1 ATTACH \r\n", "QUIESCE/1 ATTACH a b\r\n", "QUIESCE/2 ATTACH a\r\n"]
        {
            assert_eq!(token_of(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
