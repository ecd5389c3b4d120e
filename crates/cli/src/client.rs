//! The connection to the scheduler: connecting, deadlines, repeating what may be repeated, walking through pages.
//!
//! Owns when a call is tried again. Every call made through it is safe to repeat: reads, calls that are idempotent by
//! themselves, and calls with a request id. It interprets no answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1::access_client::AccessClient;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Connector, ConnectorFiles, ConnectorSettings, answers_in_tls};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tower::service_fn;

use crate::error::Error;

/// A scheduler that runs answers in milliseconds; this leaves room for a bad link and none for doubt.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answers are dry runs, which ask every hook (accept_timeout, 10 s by default) one stop order after the
/// other.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// With [`RETRY_DELAY`] doubling, six tries cover about six seconds: a restart of the scheduler.
const TRIES: u32 = 6;
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// A server may ask for a longer pause (RetryInfo), but not for one that looks like a hang.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(5);
/// The size of a page: well under the server's usual maximum, and under 4 MiB even with large resources.
const PAGE_SIZE: i32 = 100;
/// More than a person reads and few enough to hold: 10,000 resources.
const PAGES: usize = 100;

/// What is spoken with a scheduler, for ALPN.
pub(crate) const PROTOCOL: &[u8] = b"h2";

/// The generated client as calls see it.
pub(crate) type Api = SchedulerClient<Guarded>;
/// A connection whose calls say who makes them.
pub(crate) type Guarded = InterceptedService<Channel, Bearer>;

/// A connected client; clones share the connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    api: Api,
    gateway: AgentGatewayClient<Guarded>,
    access: AccessClient<Guarded>,
    health: HealthClient<Guarded>,
    url: String,
    /// `host:port` where it was asked without TLS.
    plain: Option<String>,
}

/// Says who calls, if there is a token to say it with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// For this token, or for none.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for what no token is.
    pub(crate) fn new(token: Option<&str>) -> Result<Self, Error> {
        let Some(token) = token else { return Ok(Self(None)) };
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_not_a_header| Error::Input {
            problem: "the token holds characters that no token has".to_owned(),
            advice: Vec::new(),
        })?;
        // Keeps it out of what is printed for debugging.
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Whom to ask, and how both know each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// Who signs the scheduler's certificate; without, those the system trusts.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// The flag of these that was given, and not merely set in the environment for whichever scheduler has TLS.
    pub(crate) flag: Option<&'static str>,
}

/// What a listing found.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    /// There is more than the bound lets through.
    pub(crate) truncated: bool,
}

/// An address, taken apart.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: bool,
    /// Name or address, an IPv6 address in brackets.
    pub(crate) host: String,
    /// `host:port`.
    pub(crate) address: String,
}

impl Target {
    /// What the URL means.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for what is no usable URL.
    pub(crate) fn place(&self) -> Result<Place, Error> {
        let url = &self.url;
        let wrong = |why: &str| Error::Address { url: url.to_owned(), why: why.to_owned() };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| wrong(&error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT);
        let uri = endpoint.uri().clone();
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(wrong("it begins neither with http:// nor with https://")),
        };
        if let Some(flag) = self.flag.filter(|_| !tls) {
            return Err(wrong(&format!("{flag} is for a scheduler that speaks TLS, at https://")));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Place { endpoint, tls, address: format!("{host}:{port}"), host })
    }

    /// The files of TLS, loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for what is wrong with them.
    pub(crate) fn connector(&self) -> Result<Connector, Error> {
        let own = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(Error::input("--cert needs the key that belongs to it: --key FILE")),
            (None, Some(_)) => return Err(Error::input("--key needs the certificate it belongs to: --cert FILE")),
        };
        let files = ConnectorFiles { authorities: self.ca.clone(), own, settings: ConnectorSettings::FLAGS };
        Connector::load(files, Machine::local().clocks).map_err(|error| Error::input(chain(&error).to_string()))
    }
}

impl Client {
    /// Connects to the scheduler.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for what is no usable URL, [`Error::Input`] for files that cannot be used,
    /// [`Error::Unreachable`] when nobody answers, or somebody else.
    pub(crate) async fn connect(target: &Target, bearer: Bearer) -> Result<Self, Error> {
        let Place { endpoint, tls, host, address } = target.place()?;
        let url = &target.url;
        let unreachable = |source| Error::Unreachable { url: url.to_owned(), source };
        let (channel, plain) = if tls {
            let (tls, host, address) = (target.connector()?, Arc::<str>::from(host), Arc::<str>::from(address));
            let connector = service_fn(move |_| {
                let (tls, host, address) = (tls.clone(), Arc::clone(&host), Arc::clone(&address));
                async move {
                    let socket = Machine::local().network.connect(&address, None).await?;
                    let secured = Box::pin(tls.connect(socket, &host, PROTOCOL)).await?;
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(secured))
                }
            });
            (endpoint.connect_with_connector(connector).await.map_err(unreachable)?, None)
        } else {
            (endpoint.connect().await.map_err(unreachable)?, Some(address))
        };
        let health = HealthClient::with_interceptor(channel.clone(), bearer.clone());
        Ok(Self {
            api: SchedulerClient::with_interceptor(channel.clone(), bearer.clone()),
            gateway: AgentGatewayClient::with_interceptor(channel.clone(), bearer.clone()),
            access: AccessClient::with_interceptor(channel, bearer),
            health,
            url: url.to_owned(),
            plain,
        })
    }

    /// The bare client, for streams, whose repetition is a matter of resume tokens.
    pub(crate) fn api(&self) -> Api {
        self.api.clone()
    }

    /// The service of the agents, for the little of it that people need.
    pub(crate) fn gateway(&self) -> AgentGatewayClient<Guarded> {
        self.gateway.clone()
    }

    /// The service that says whether the others are served.
    pub(crate) fn health(&self) -> HealthClient<Guarded> {
        self.health.clone()
    }

    /// The service of tokens.
    pub(crate) fn access(&self) -> AccessClient<Guarded> {
        self.access.clone()
    }

    /// Makes one call, again while the scheduler is unavailable. `what` completes "cannot ...".
    ///
    /// # Errors
    ///
    /// [`Error::Rpc`] with the last answer.
    pub(crate) async fn call<T>(
        &self,
        what: &str,
        call: impl AsyncFn(Api) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut delay = RETRY_DELAY;
        for last in (0..TRIES).map(|n| n + 1 == TRIES) {
            let answer = tokio::time::timeout(CALL_TIMEOUT, call(self.api())).await;
            let status = match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs())),
            };
            if let Some(error) = self.wrong_scheme(&status).await {
                return Err(error);
            }
            if status.code() != Code::Unavailable || last {
                return Err(Error::rpc(what, status));
            }
            let wanted = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(delay);
            tokio::time::sleep(wanted.max(delay).min(LONGEST_RETRY_DELAY)).await;
            delay *= 2;
        }
        unreachable!("the last try returns")
    }

    /// The error of a call that came to nothing since the scheduler speaks TLS and we do not.
    pub(crate) async fn wrong_scheme(&self, status: &Status) -> Option<Error> {
        // What the scheduler says itself has details; what broke has none.
        let broke = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
        let plain = self.plain.as_ref().filter(|_| broke && status.details().is_empty())?;
        let socket = tokio::time::timeout(CONNECT_TIMEOUT, Machine::local().network.connect(plain, None)).await;
        let in_tls = Box::pin(answers_in_tls(socket.ok()?.ok()?)).await;
        in_tls.then(|| Error::Address {
            url: self.url.clone(),
            why: format!("the scheduler there speaks TLS. Write https://{plain}, and name its CA with --ca"),
        })
    }

    /// Collects all pages. `page` gets (page size, page token) and answers (items, next page token).
    ///
    /// # Errors
    ///
    /// [`Error::Rpc`] of the page that failed.
    pub(crate) async fn pages<T>(
        &self,
        what: &str,
        page: impl AsyncFn(Api, i32, String) -> Result<(Vec<T>, String), Status>,
    ) -> Result<Listing<T>, Error> {
        let mut items = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let (more, next) =
                self.call(what, async |api| page(api, PAGE_SIZE, token.clone()).await.map(Response::new)).await?;
            items.extend(more);
            if next.is_empty() {
                return Ok(Listing { items, truncated: false });
            }
            token = next;
        }
        Ok(Listing { items, truncated: true })
    }
}
