//! What is put to the test: a scheduler, how it is reached, and how hooks of ours are reached by it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_protocol::v1;
use quiesce_protocol::v1::access_client::AccessClient;
use quiesce_protocol::v1::agent_gateway_client::AgentGatewayClient;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_runtime::telemetry::chain;
use tokio::time::{Instant, sleep};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::check::Stop;
use crate::fixture::{FixtureError, shell};
use crate::reach::{Credential, Endpoint, Line};

/// Longest wait for a scheduler that was just started to answer.
const UP_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(50);
/// How long connections of hooks are watched for PINGs, unless the configuration says otherwise.
pub const QUIET: Duration = Duration::from_secs(90);
/// The setting of the restart, for errors.
pub const RESTART: &str = "scheduler.restart";

/// Ends a scheduler without warning and starts it again, with its state.
pub trait Restart: Send + Sync {
    /// When this returns the scheduler is started; it need not serve yet.
    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>>;
}

/// A command line that does it.
#[derive(Debug, Clone)]
pub struct RestartCommand {
    /// For `/bin/sh`.
    pub line: String,
    /// Where it runs.
    pub directory: PathBuf,
    /// Longest time it may take.
    pub limit: Duration,
}

impl Restart for RestartCommand {
    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async {
            match shell(RESTART, &self.line, &self.directory, self.limit).await?.0 {
                0 => Ok(()),
                code => {
                    let problem = format!("{:?} ended with status {code}", self.line);
                    Err(FixtureError { setting: RESTART, problem })
                }
            }
        })
    }
}

/// A scheduler. Clones are the same one.
#[derive(Clone)]
pub struct Subject {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Sent as `authorization: Bearer`; an admin's, if access is enforced.
    pub bearer: Option<String>,
    /// The address hooks of ours listen on; the scheduler has to reach it.
    pub hook_host: String,
    /// How it is started anew, if it can be.
    pub restart: Option<Arc<dyn Restart>>,
    /// How long the connection of a hook is watched for PINGs (F21); [`QUIET`] is as long as the check is meant.
    pub quiet: Duration,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

type Checked = InterceptedService<Channel, Credential>;

/// One connection, and the clients of every service over it.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) line: Line,
    pub(crate) credential: Credential,
    pub(crate) scheduler: SchedulerClient<Checked>,
    pub(crate) gateway: AgentGatewayClient<Checked>,
    pub(crate) access: AccessClient<Checked>,
}

impl Calls {
    pub(crate) fn new(line: Line, bearer: Option<&str>) -> Self {
        let credential = Credential::new(bearer);
        Self {
            scheduler: SchedulerClient::with_interceptor(line.channel.clone(), credential.clone()),
            gateway: AgentGatewayClient::with_interceptor(line.channel.clone(), credential.clone()),
            access: AccessClient::with_interceptor(line.channel.clone(), credential.clone()),
            credential,
            line,
        }
    }

    /// The same connection for somebody else.
    pub(crate) fn with_bearer(&self, bearer: Option<&str>) -> Self {
        Self::new(self.line.clone(), bearer)
    }
}

impl Subject {
    /// A connection to a scheduler that serves; waits for that.
    pub(crate) async fn connect(&self) -> Result<Calls, Stop> {
        let end = Instant::now() + UP_LIMIT;
        loop {
            let problem = match self.endpoint.connect().await {
                Ok(line) => {
                    let mut calls = Calls::new(line, self.bearer.as_deref());
                    match calls.scheduler.get_server_info(v1::GetServerInfoRequest {}).await {
                        Ok(_info) => return Ok(calls),
                        Err(status) if status.code() == tonic::Code::Unavailable => crate::check::tell(&status),
                        Err(status) => {
                            return Err(Stop::failed("an answer to GetServerInfo", crate::check::tell(&status)));
                        }
                    }
                }
                Err(error) => chain(&error).to_string(),
            };
            if Instant::now() >= end {
                return Err(Stop::failed(format!("a scheduler that serves within {UP_LIMIT:?}"), problem));
            }
            sleep(AGAIN).await;
        }
    }
}
