//! What the agent asks its scheduler: the client of `AgentGateway`.
//!
//! Owns the calls, their deadlines, and what an error means for the agent ([`Class`]). It repeats nothing by itself:
//! who asks knows for how long an answer is of use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request as HttpRequest, Response as HttpResponse};
use hyper_util::rt::TokioIo;
use quiesce_protocol::ERROR_DOMAIN;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use quiesce_protocol::v1::{self, ErrorReason};
use quiesce_runtime::backoff::Backoff;
use quiesce_runtime::machine::{Machine, Socket};
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{ConnectError, Connector};
use tonic::body::Body;
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use crate::application::End;
use crate::credential::Credential;
use crate::hook::end_to_wire;
use crate::identity::Identity;

/// A scheduler that has not answered by then is treated as away; its answers take milliseconds.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Establishing the connection, as part of that.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A call that has no answer after this time asks whether anybody is there, and waits as long again; then the connection
/// is given up and the next call makes a new one. Both together are less than [`CALL_LIMIT`]: otherwise every call would
/// end before the connection does, and one that a firewall on the way has forgotten would be used for ever.
const SIGN_OF_LIFE: Duration = Duration::from_secs(4);

/// For as long may what the agent sends stay unacknowledged before a connection to the scheduler counts as broken. Without
/// it a connection that a firewall has forgotten, or that lost something for good, is kept by TCP for a quarter of an hour:
/// every call on it would time out, and an agent that has to dial in would stay away for that long.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The first repetition comes quickly, since a scheduler that restarts is back within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Rule A5.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The pauses between two tries to reach the scheduler with a call; for dialling in see [`crate::link`].
pub(crate) fn pauses(machine: &Machine) -> Backoff {
    Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, machine.randomness())
}

/// What calls are spoken in, for ALPN.
const PROTOCOL: &[u8] = b"h2";

/// What calls are made over.
pub type Channel = BoxCloneSyncService<HttpRequest<Body>, HttpResponse<Body>, Status>;

/// The scheduler, as an agent sees it. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Gateway {
    channel: Channel,
    authority: String,
    machine: Machine,
    credential: Credential,
    tls: Option<Connector>,
}

/// The URL of the scheduler cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("scheduler URL {url:?} {problem}")]
pub struct UrlError {
    url: String,
    problem: &'static str,
}

/// What an error asks of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again later.
    Pause,
    /// The instance is not known (any more): register first.
    Register,
    /// The application was deleted for good.
    Deleted,
    /// Somebody has to change something; trying again is harmless and will do no good until then.
    Never,
}

/// Why the scheduler did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {call}: {reason}{}", if message.is_empty() { String::new() } else { format!(": {message}") })]
pub struct CallError {
    call: &'static str,
    class: Class,
    silence: bool,
    /// ErrorInfo.reason, or else the name of the gRPC code.
    reason: String,
    message: String,
}

impl CallError {
    /// Whether the scheduler has said nothing at all: away, restarting, not the leader.
    pub(crate) fn is_silence(&self) -> bool {
        self.silence
    }

    /// Whether a person has yet to say where the application runs; then the answer will be another one.
    pub(crate) fn awaits_a_person(&self) -> bool {
        self.reason == "RESTORE_UNCONFIRMED"
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        self.class
    }

    fn new(call: &'static str, status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let reason = info.and_then(|info| ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)));
        let class = match reason {
            Some(
                ErrorReason::ApplicationNotFound
                | ErrorReason::StartNotPermitted
                | ErrorReason::RestoreUnconfirmed
                | ErrorReason::InstanceInUse
                | ErrorReason::ApplicationStopping
                | ErrorReason::OperationInProgress
                | ErrorReason::LimitExceeded
                | ErrorReason::NotServing,
            ) => Class::Pause,
            Some(ErrorReason::InstanceNotFound) => Class::Register,
            Some(ErrorReason::ApplicationDeleted) => Class::Deleted,
            Some(_) => Class::Never,
            None => match status.code() {
                Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::ResourceExhausted => Class::Pause,
                _ => Class::Never,
            },
        };
        // A pause nobody gave a reason for: the call did not get through.
        let silence = class == Class::Pause
            && matches!(reason, None | Some(ErrorReason::NotServing | ErrorReason::LimitExceeded));
        let reason = reason.map_or_else(
            || format!("{:?}", status.code()),
            |reason| reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned(),
        );
        Self { call, class, silence, reason, message: status.message().to_owned() }
    }
}

/// What is registered.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) identity: Identity,
    pub(crate) agent_id: String,
    /// Where the hook listens; `None`: the agent dials in.
    pub(crate) endpoint: Option<String>,
    pub(crate) stop_order: i32,
    pub(crate) labels: HashMap<String, String>,
    /// The agent holds its application, or stands by.
    pub(crate) held: bool,
    /// Policy of the application, should the scheduler not know it yet.
    pub(crate) policy: v1::ShutdownPolicy,
}

impl Registration {
    fn to_wire(&self) -> v1::RegisterInstanceRequest {
        let mode = match self.endpoint {
            Some(_) => v1::instance::ConnectMode::Listen,
            None => v1::instance::ConnectMode::DialIn,
        };
        let instance = v1::Instance {
            name: self.identity.instance_name(),
            connect_mode: mode.into(),
            endpoint: self.endpoint.clone().unwrap_or_default(),
            cluster: self.identity.cluster().to_owned(),
            stop_order: self.stop_order,
            labels: self.labels.clone(),
            agent_id: self.agent_id.clone(),
            ..Default::default()
        };
        let agents = v1::placement::Driver::Agents(v1::AgentsPlacement {});
        // A held agent or a standby must not bring an application into being.
        let default_application = (!self.held).then(|| v1::Application {
            cluster: self.identity.cluster().to_owned(),
            placement: Some(v1::Placement { driver: Some(agents) }),
            policy: Some(self.policy.clone()),
            ..Default::default()
        });
        v1::RegisterInstanceRequest { instance: Some(instance), default_application, held: self.held }
    }
}

impl Gateway {
    /// A scheduler at `url`, such as `http://127.0.0.1:7600`, or `https://` with `tls`. Connects from `machine` when it
    /// is first asked something.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(machine: Machine, url: &str, tls: Option<Connector>) -> Result<Self, UrlError> {
        let wrong = |problem| UrlError { url: url.to_owned(), problem };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong("is not a URL"))?;
        let uri = endpoint.uri();
        let port = match (uri.scheme_str(), &tls) {
            (Some("http"), None) => 80,
            (Some("https"), Some(_)) => 443,
            (Some("http"), Some(_)) => return Err(wrong("is for talk in the clear, although there are files for TLS")),
            (Some("https"), None) => return Err(wrong("is for TLS, but there are no files for it")),
            (_, _) => return Err(wrong("must begin with http:// or https://")),
        };
        let host: Arc<str> = uri.host().ok_or_else(|| wrong("has no host"))?.into();
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(port));
        let (network, address, secure) = (Arc::clone(&machine.network), authority.clone(), tls.clone());
        let connector = service_fn(move |_: Uri| {
            let (network, address) = (Arc::clone(&network), address.clone());
            let (secure, host) = (secure.clone(), Arc::clone(&host));
            async move {
                let socket = network.connect(&address, Some(SILENCE_MAX)).await?;
                let socket: Box<dyn Socket> = match secure {
                    Some(tls) => Box::pin(tls.connect(socket, &host, PROTOCOL)).await?,
                    None => socket,
                };
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(socket))
            }
        });
        let endpoint = endpoint
            .connect_timeout(CONNECT_LIMIT)
            .timeout(CALL_LIMIT)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE);
        let channel = endpoint.connect_with_connector_lazy(connector);
        let channel = BoxCloneSyncService::new(channel.map_err(status));
        Ok(Self { channel, authority, machine, tls, credential: Credential::none() })
    }

    /// A scheduler that is called over `channel`; whoever brings it has to end calls that take too long.
    pub fn over(channel: Channel, authority: &str, machine: Machine) -> Self {
        Self { channel, authority: authority.to_owned(), machine, tls: None, credential: Credential::none() }
    }

    /// The same, proving who calls.
    pub(crate) fn with(self, credential: Credential) -> Self {
        Self { credential, ..self }
    }

    /// `host:port` of the scheduler.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What makes its connections secure, if they are.
    pub(crate) fn tls(&self) -> Option<&Connector> {
        self.tls.as_ref()
    }

    /// The machine it connects from.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether anybody accepts connections there right now.
    pub(crate) async fn is_reachable(&self) -> bool {
        let connected = tokio::time::timeout(CONNECT_LIMIT, self.machine.network.connect(&self.authority, None)).await;
        matches!(connected, Ok(Ok(_)))
    }

    pub(crate) async fn register(
        &self,
        registration: &Registration,
    ) -> Result<v1::RegisterInstanceResponse, CallError> {
        let request = self.proven("register", registration.to_wire(), true)?;
        let answer = self.client().register_instance(request).await;
        let answer = answer.map_err(|status| self.failed("register", &status))?.into_inner();
        if !answer.instance_token.is_empty() {
            self.credential.keep(&answer.instance_token).await;
        }
        Ok(answer)
    }

    /// Asks for permission to start, named `start_id`: the same name gets the same epoch.
    pub(crate) async fn admit_start(
        &self,
        registration: &Registration,
        start_id: &str,
        last_epoch: u64,
        held_by: &str,
    ) -> Result<u64, CallError> {
        let request = v1::AdmitStartRequest {
            instance: registration.identity.instance_name(),
            start_id: start_id.to_owned(),
            agent_id: registration.agent_id.clone(),
            last_epoch: i64::try_from(last_epoch).unwrap_or(i64::MAX),
            held_by: held_by.to_owned(),
        };
        let call = "get permission to start";
        let answer = self.client().admit_start(self.proven(call, request, false)?).await;
        let epoch = answer.map_err(|status| self.failed(call, &status))?.into_inner().epoch;
        u64::try_from(epoch).ok().filter(|epoch| *epoch > last_epoch).ok_or_else(|| CallError {
            call,
            class: Class::Pause,
            silence: false,
            reason: "PROTOCOL_ERROR".to_owned(),
            message: format!("epoch {epoch} is not higher than {last_epoch}"),
        })
    }

    /// Says that the application has ended outside of any operation.
    pub(crate) async fn report_end(&self, registration: &Registration, epoch: u64, end: &End) -> Result<(), CallError> {
        let request = v1::ReportEndRequest {
            instance: registration.identity.instance_name(),
            agent_id: registration.agent_id.clone(),
            epoch: i64::try_from(epoch).unwrap_or(i64::MAX),
            result: Some(end_to_wire(end)),
        };
        let call = "report the end";
        let answer = self.client().report_end(self.proven(call, request, false)?).await;
        answer.map(drop).map_err(|status| self.failed(call, &status))
    }

    /// The request with its deadline, and with what proves who sends it.
    fn proven<T>(&self, call: &'static str, message: T, registering: bool) -> Result<Request<T>, CallError> {
        let mut request = bounded(message);
        let authorization = self.credential.authorization(registering).map_err(|message| CallError {
            call,
            class: Class::Never,
            silence: false,
            reason: "CREDENTIALS_INVALID".to_owned(),
            message,
        })?;
        if let Some(authorization) = authorization {
            request.metadata_mut().insert("authorization", authorization);
        }
        Ok(request)
    }

    fn failed(&self, call: &'static str, status: &Status) -> CallError {
        if status.code() == Code::Unauthenticated {
            self.credential.was_rejected();
        }
        CallError::new(call, status)
    }

    fn client(&self) -> AgentGatewayClient<Channel> {
        AgentGatewayClient::new(self.channel.clone())
    }
}

/// A connection that was not to be had. What TLS has to say about it says also what to do.
fn status(error: tonic::transport::Error) -> Status {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if let Some(refused) = found.downcast_ref::<ConnectError>() {
            return Status::unavailable(chain(refused).to_string());
        }
        cause = found.source();
    }
    Status::from_error(Box::new(error))
}

/// The deadline travels with the call, so that a slow scheduler can give up as well.
fn bounded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[tokio::test]
    async fn only_urls_that_can_be_used_are_taken() {
        assert_eq!(
            Gateway::new(Machine::local(), "http://127.0.0.1:7600", None).unwrap().authority(),
            "127.0.0.1:7600"
        );
        assert_eq!(Gateway::new(Machine::local(), "http://[::1]:7600", None).unwrap().authority(), "[::1]:7600");
        for wrong in ["https://example.net", "127.0.0.1:7600", "ftp://x", "http://", ""] {
            assert!(Gateway::new(Machine::local(), wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_are_classified_by_reason_before_code() {
        let with = |code, reason: &str| {
            let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
            CallError::new("register", &Status::with_error_details(code, "text", details)).class()
        };
        assert_eq!(with(Code::NotFound, "APPLICATION_NOT_FOUND"), Class::Pause);
        assert_eq!(with(Code::NotFound, "INSTANCE_NOT_FOUND"), Class::Register);
        assert_eq!(with(Code::FailedPrecondition, "APPLICATION_DELETED"), Class::Deleted);
        assert_eq!(with(Code::FailedPrecondition, "START_NOT_PERMITTED"), Class::Pause);
        assert_eq!(with(Code::FailedPrecondition, "RESTORE_UNCONFIRMED"), Class::Pause);
        assert_eq!(with(Code::Unauthenticated, "CREDENTIALS_INVALID"), Class::Never);
        assert_eq!(CallError::new("register", &Status::unavailable("")).class(), Class::Pause);
        assert_eq!(CallError::new("register", &Status::unimplemented("")).class(), Class::Never);
    }
}
