//! The connection to the scheduler: connecting, deadlines, repeating what may be repeated, walking through pages.
//!
//! Owns when a call is tried again. Every call made through it is safe to repeat: reads, calls that are idempotent by
//! themselves, and calls with a request id. It interprets no answer.

use std::time::Duration;

use quiesce_protocol::v1::access_client::AccessClient;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::error::Error;

/// A scheduler that runs answers in milliseconds; this leaves room for a bad link and none for doubt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
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

/// What a listing found.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    /// There is more than the bound lets through.
    pub(crate) truncated: bool,
}

impl Client {
    /// Connects to the scheduler at `url`.
    ///
    /// # Errors
    ///
    /// [`Error::Address`] for what is no usable URL, [`Error::Unreachable`] when nobody answers.
    pub(crate) async fn connect(url: &str, bearer: Bearer) -> Result<Self, Error> {
        let address = |why: &str| Error::Address { url: url.to_owned(), why: why.to_owned() };
        if url.starts_with("https://") {
            return Err(address("this build speaks plain http only"));
        }
        if !url.starts_with("http://") {
            return Err(address("it does not begin with http://"));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| address(&error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|source| Error::Unreachable { url: url.to_owned(), source })?;
        Ok(Self {
            api: SchedulerClient::with_interceptor(channel.clone(), bearer.clone()),
            gateway: AgentGatewayClient::with_interceptor(channel.clone(), bearer.clone()),
            access: AccessClient::with_interceptor(channel, bearer),
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
            if status.code() != Code::Unavailable || last {
                return Err(Error::rpc(what, status));
            }
            let wanted = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or(delay);
            tokio::time::sleep(wanted.max(delay).min(LONGEST_RETRY_DELAY)).await;
            delay *= 2;
        }
        unreachable!("the last try returns")
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
