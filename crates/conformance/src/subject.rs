//! What is put to the test: an application, the hook before it, and how to reach that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quiesce_runtime::telemetry::chain;
use tokio::time::{Instant, sleep};

use crate::check::Stop;
use crate::fixture::Fixture;
use crate::gateway::Gateway;
use crate::reach::{Endpoint, Hook, Line, ReachError};

/// Longest wait for a hook that was just started to answer, on a machine that is busy with something else.
const UP_LIMIT: Duration = Duration::from_secs(15);
/// The same for one that dials in: it may be in the middle of its longest pause (rule A5: 30 s, and a fifth more).
const BACK_LIMIT: Duration = Duration::from_secs(45);
/// Pause between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(50);

/// How long is waited for what takes its time. Shorter ones make a run quicker, and prove less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// How long a final report is left alone before it is asked for again (R11).
    pub kept: Duration,
    /// How long a silent application is watched for heartbeats nobody asked for (S06).
    pub silent: Duration,
    /// How long a reader does not read (R07).
    pub unread: Duration,
    /// How long an application is watched after its grace period (K01, K02).
    pub overdue: Duration,
    /// How long an idle connection is watched for a PING (A06).
    pub ping: Duration,
    /// How long the gateway is away (A08).
    pub away: Duration,
    /// How often the application is stopped and started in a row (L01).
    pub cycles: u32,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            kept: Duration::from_secs(60),
            silent: Duration::from_secs(16),
            unread: Duration::from_secs(5),
            overdue: Duration::from_secs(5),
            ping: Duration::from_secs(30),
            away: Duration::from_secs(120),
            cycles: 20,
        }
    }
}

impl Waits {
    /// With the longer time that a final report has to be kept (H11).
    #[must_use]
    pub fn slow(self) -> Self {
        Self { kept: Duration::from_secs(600), ..self }
    }
}

/// What else the checks have to know.
#[derive(Clone, Default)]
pub struct Settings {
    /// Sent as `authorization: Bearer`.
    pub bearer: Option<String>,
    /// The instance the hook serves, when it does not say so itself.
    pub instance: Option<String>,
    /// How long is waited.
    pub waits: Waits,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("instance", &self.instance).field("waits", &self.waits).finish_non_exhaustive()
    }
}

/// What is put to the test. Clones are the same.
#[derive(Clone)]
pub struct Subject {
    pub(crate) fixture: Arc<dyn Fixture>,
    pub(crate) settings: Settings,
    reach: Reach,
}

#[derive(Clone)]
enum Reach {
    Listening(Endpoint),
    Registered(Gateway),
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A connection to the hook, and what is said on it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) hook: Hook,
    pub(crate) line: Line,
}

impl Subject {
    /// A hook that listens at `endpoint`.
    #[must_use]
    pub fn listening(fixture: Arc<dyn Fixture>, endpoint: Endpoint, settings: Settings) -> Self {
        Self { fixture, settings, reach: Reach::Listening(endpoint) }
    }

    /// A hook that registers with `gateway`: it dials in, or says there where it listens.
    #[must_use]
    pub fn registering(fixture: Arc<dyn Fixture>, gateway: Gateway, settings: Settings) -> Self {
        Self { fixture, settings, reach: Reach::Registered(gateway) }
    }

    /// The gateway, for a hook that has dialled in.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        match &self.reach {
            Reach::Registered(gateway) => Some(gateway),
            Reach::Listening(_) => None,
        }
    }

    /// What calls of the hook prove themselves with.
    pub(crate) fn bearer(&self) -> Option<String> {
        match &self.reach {
            Reach::Listening(_) => self.settings.bearer.clone(),
            Reach::Registered(gateway) => gateway.hook_token(),
        }
    }

    /// A connection, at once. Of a hook that dials in, the one there is.
    async fn line(&self, limit: Duration) -> Result<Line, ReachError> {
        match &self.reach {
            Reach::Listening(endpoint) => endpoint.connect().await,
            Reach::Registered(gateway) => gateway.line(limit).await,
        }
    }

    /// A connection on which the hook answers; waits for one.
    pub(crate) async fn connect(&self) -> Result<Connection, Stop> {
        self.connect_within(self.up_limit()).await
    }

    fn up_limit(&self) -> Duration {
        match self.reach {
            Reach::Listening(_) => UP_LIMIT,
            Reach::Registered(_) => BACK_LIMIT,
        }
    }

    /// The same with another limit.
    pub(crate) async fn connect_within(&self, limit: Duration) -> Result<Connection, Stop> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let problem = match self.line(left).await {
                Ok(line) => {
                    let mut hook = line.client(self.bearer().as_deref());
                    let asked = hook.get_hook_info(quiesce_protocol::v1::GetHookInfoRequest {});
                    match tokio::time::timeout(left.min(Duration::from_secs(2)), asked).await {
                        Ok(Ok(_)) => return Ok(Connection { hook, line }),
                        Ok(Err(status)) => format!("GetHookInfo ends with {}", crate::check::tell(&status)),
                        Err(_elapsed) => "GetHookInfo is not answered".to_owned(),
                    }
                }
                // No certificate becomes another one by waiting.
                Err(error @ ReachError::Secure { .. }) => {
                    return Err(Stop::failed("a secure connection", chain(&error).to_string()));
                }
                Err(error) => chain(&error).to_string(),
            };
            if Instant::now() >= end {
                return Err(Stop::failed(format!("a hook that answers GetHookInfo within {limit:?}"), problem));
            }
            sleep(AGAIN).await;
        }
    }

    /// A connection without asking anything, with these credentials.
    pub(crate) async fn connect_as(&self, bearer: Option<&str>) -> Result<Connection, Stop> {
        let line = self.line(self.up_limit()).await;
        let line = line.map_err(|error| Stop::failed("a connection", chain(&error).to_string()))?;
        Ok(Connection { hook: line.client(bearer), line })
    }
}
