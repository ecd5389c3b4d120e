//! Hooks: how they are reached, what they say, whether they live.
//!
//! Owns at most one connection for each instance, dialled or attached, and the knowledge whether the hook answers. It
//! does not decide what an answer means for an operation, and stores nothing.

use std::time::{Duration, SystemTime};

use quiesce_operation::report::{AppState, CallError, Capabilities, Probe};
use quiesce_operation::{ApplicationId, InstanceId, Moment};

/// What the scheduler knows of the hook of an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Presence {
    /// Whether it answers.
    pub state: HookState,
    /// Its last answer to GetHookInfo, however old.
    pub info: Option<HookInfo>,
    /// When it last proved to be alive.
    pub last_seen: Option<Moment>,
    /// Whether a connection stands (dial-in: attached; listening: the last call went through).
    pub connected: bool,
}

/// Whether a hook answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HookState {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers and could stop the application.
    Ready,
    /// It answers and says it could not.
    NotReady,
    /// It does not answer.
    Unreachable,
}

/// What a hook says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct HookInfo {
    /// The resource name of the instance it serves; empty: it does not know.
    pub instance: String,
    /// Name of the implementation.
    pub implementation: String,
    /// Its version.
    pub implementation_version: String,
    /// Version of the protocol.
    pub protocol_version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it could stop the application now.
    pub ready: bool,
    /// Why not.
    pub not_ready_reason: String,
    /// Whether the application runs.
    pub app_state: AppState,
    /// When the running application was started, by the clock of the agent.
    pub app_start_time: Option<SystemTime>,
    /// The highest epoch it has seen.
    pub epoch: u64,
    /// What the application last said of itself.
    pub app_message: String,
}

/// How an instance is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The hook listens: `host:port`, `[v6]:port` or `unix:/path`.
    Listen {
        /// Where.
        endpoint: String,
    },
    /// The agent dials in.
    DialIn,
}

/// All hooks. Cheap to clone.
#[derive(Clone)]
pub struct Hooks {}

impl Hooks {
    /// Asks a hook who it is and, if `check` and it can tell, whether a shutdown would work. Takes at most `limit`.
    pub async fn probe(
        &self,
        application: &ApplicationId,
        instance: &InstanceId,
        check: bool,
        limit: Duration,
    ) -> Result<Probe, CallError> {
        unimplemented!()
    }

    /// What is known of a hook. Never waits.
    pub fn presence(&self, application: &ApplicationId, instance: &InstanceId) -> Presence {
        unimplemented!()
    }

    /// An instance was registered, or its registration has changed. Probes it at once.
    pub fn registered(&self, application: &ApplicationId, instance: &InstanceId, reach: Reach) {
        unimplemented!()
    }

    /// An instance is not registered any more.
    pub fn forgotten(&self, application: &ApplicationId, instance: &InstanceId) {
        unimplemented!()
    }
}
