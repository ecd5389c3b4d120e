//! What hooks say: reports of a shutdown, reports of a start, answers to checks. Facts of others, judged elsewhere.

use std::fmt;
use std::time::Duration;

use minicbor::{Decode, Encode};

/// How the end of an application is known, from weak to strong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Evidence {
    /// Somebody says so. Never verifies.
    #[n(0)]
    Claimed,
    /// The process is not there any more.
    #[n(1)]
    ProcessGone,
    /// A service manager or container runtime reports it as stopped.
    #[n(2)]
    Manager,
    /// The exit of the very process was observed.
    #[n(3)]
    ExitObserved,
    /// The parent has seen its wait status.
    #[n(4)]
    ChildReaped,
    /// The whole group of processes is empty.
    #[n(5)]
    GroupEmpty,
}

impl fmt::Display for Evidence {
    /// The name of the contract, without prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claimed => "CLAIMED",
            Self::ProcessGone => "PROCESS_GONE",
            Self::Manager => "MANAGER",
            Self::ExitObserved => "EXIT_OBSERVED",
            Self::ChildReaped => "CHILD_REAPED",
            Self::GroupEmpty => "GROUP_EMPTY",
        })
    }
}

/// Whether the application really stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StopOutcome {
    /// It ended after having been asked to.
    #[n(0)]
    Stopped,
    /// It ended because it was killed.
    #[n(1)]
    Killed,
    /// It was not running in the first place.
    #[n(2)]
    NotRunning,
    /// It still runs.
    #[n(3)]
    StillRunning,
    /// It ended, but something started it again.
    #[n(4)]
    Restarted,
    /// The hook cannot tell.
    #[n(5)]
    Unknown,
    /// The shutdown was taken back in time.
    #[n(6)]
    Cancelled,
}

/// How a shutdown of one instance came out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StopResult {
    /// Whether it stopped.
    #[n(0)]
    pub outcome: StopOutcome,
    /// How that is known.
    #[n(1)]
    pub evidence: Evidence,
    /// Exit status, if seen.
    #[n(2)]
    pub exit_code: Option<i32>,
    /// Signal that ended it, if seen.
    #[n(3)]
    pub exit_signal: Option<i32>,
    /// Whether it ended the way it ends when all went well; unset: not known.
    #[n(4)]
    pub clean: Option<bool>,
    /// From acceptance to the end.
    #[n(5)]
    pub duration: Option<Duration>,
    /// For people.
    #[n(6)]
    pub message: String,
    /// Whether the hook keeps it from being started again.
    #[n(7)]
    pub held: bool,
}

impl StopResult {
    /// Whether this result proves the end of the application, given the weakest evidence that counts.
    #[must_use]
    pub fn proves_end(&self, min_evidence: Evidence) -> bool {
        match self.outcome {
            StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => {
                self.evidence > Evidence::Claimed && self.evidence >= min_evidence
            }
            StopOutcome::StillRunning | StopOutcome::Restarted | StopOutcome::Unknown | StopOutcome::Cancelled => false,
        }
    }
}

/// Where a shutdown stands; the order is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StopPhase {
    /// Understood; nothing has happened to the application.
    #[n(0)]
    Accepted,
    /// It takes no new work; it can still be called back.
    #[n(1)]
    Draining,
    /// It has been told to stop: the point of no return.
    #[n(2)]
    Stopping,
    /// SIGKILL or its like has been sent.
    #[n(3)]
    Killing,
    /// Over: no process is left.
    #[n(4)]
    Stopped,
    /// Over: this attempt will not stop it.
    #[n(5)]
    Failed,
    /// Over: taken back.
    #[n(6)]
    Cancelled,
}

impl fmt::Display for StopPhase {
    /// The name of the contract, without prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "ACCEPTED",
            Self::Draining => "DRAINING",
            Self::Stopping => "STOPPING",
            Self::Killing => "KILLING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

impl StopPhase {
    /// Whether the application has been told to stop by then. A failed shutdown may or may not have told it: the
    /// careful reading is that it has.
    #[must_use]
    pub fn is_past_no_return(self) -> bool {
        match self {
            Self::Accepted | Self::Draining | Self::Cancelled => false,
            Self::Stopping | Self::Killing | Self::Stopped | Self::Failed => true,
        }
    }
}

/// The whole truth about one shutdown at one moment, as the hook sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StopReport {
    /// Rises from report to report of one shutdown.
    #[n(0)]
    pub sequence: u32,
    /// Where it stands.
    #[n(1)]
    pub phase: StopPhase,
    /// 0 to 100, when the application can tell.
    #[n(2)]
    pub percent: Option<u8>,
    /// What the application is doing, a short name.
    #[n(3)]
    pub step: String,
    /// For people.
    #[n(4)]
    pub message: String,
    /// Clock of the agent, milliseconds since 1970; for show.
    #[n(5)]
    pub report_time: Option<u64>,
    /// The total grace period the application would like to have.
    #[n(6)]
    pub wanted_grace_period: Option<Duration>,
    /// Set in the last report. Whoever hands this in has checked the completion token.
    #[n(7)]
    pub result: Option<StopResult>,
}

impl StopReport {
    /// Whether `other` says the same for a reader: all but sequence and time.
    #[must_use]
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.phase == other.phase
            && self.percent == other.percent
            && self.step == other.step
            && self.message == other.message
            && self.wanted_grace_period == other.wanted_grace_period
            && self.result == other.result
    }
}

/// How readiness of a started application is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Readiness {
    /// The hook does not say.
    #[n(0)]
    Unspecified,
    /// The application said so.
    #[n(1)]
    Notified,
    /// A readiness command succeeded.
    #[n(2)]
    Command,
    /// A TCP port accepts connections.
    #[n(3)]
    Tcp,
    /// It has stayed alive for a settling time.
    #[n(4)]
    Settled,
}

impl fmt::Display for Readiness {
    /// The name of the contract, without prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Notified => "NOTIFIED",
            Self::Command => "COMMAND",
            Self::Tcp => "TCP",
            Self::Settled => "SETTLED",
        })
    }
}

/// How a start of one instance came out.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StartResult {
    /// Whether it runs and is ready.
    #[n(0)]
    pub ready: bool,
    /// How that is known.
    #[n(1)]
    pub readiness: Readiness,
    /// Exit status, if it ended and that was seen.
    #[n(2)]
    pub exit_code: Option<i32>,
    /// Signal that ended it, if seen.
    #[n(3)]
    pub exit_signal: Option<i32>,
    /// From acceptance to readiness or failure.
    #[n(4)]
    pub duration: Option<Duration>,
    /// For people.
    #[n(5)]
    pub message: String,
}

/// Where a start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum StartPhase {
    /// Understood, epoch recorded.
    #[n(0)]
    Accepted,
    /// Started, not ready yet.
    #[n(1)]
    Starting,
    /// Over: ready.
    #[n(2)]
    Ready,
    /// Over: it did not come up.
    #[n(3)]
    Failed,
}

/// The whole truth about one start at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StartReport {
    /// Rises from report to report of one start.
    #[n(0)]
    pub sequence: u32,
    /// Where it stands.
    #[n(1)]
    pub phase: StartPhase,
    /// For people.
    #[n(2)]
    pub message: String,
    /// Clock of the agent, milliseconds since 1970; for show.
    #[n(3)]
    pub report_time: Option<u64>,
    /// Set in the last report.
    #[n(4)]
    pub result: Option<StartResult>,
}

/// What a hook can do beyond the two calls every hook has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct Capabilities {
    /// CheckShutdown.
    #[n(0)]
    pub check: bool,
    /// GetShutdown.
    #[n(1)]
    pub status: bool,
    /// CancelShutdown.
    #[n(2)]
    pub cancel: bool,
    /// UpdateDeadline.
    #[n(3)]
    pub update_deadline: bool,
    /// KillApplication.
    #[n(4)]
    pub kill: bool,
    /// settle_period is honoured.
    #[n(5)]
    pub settle: bool,
    /// Shutdowns survive a restart of the agent.
    #[n(6)]
    pub durable: bool,
    /// StartApplication.
    #[n(7)]
    pub start: bool,
    /// The hold survives restarts.
    #[n(8)]
    pub hold: bool,
    /// ConcludeShutdown.
    #[n(9)]
    pub conclude: bool,
}

/// State of the application as its hook sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum AppState {
    /// The hook cannot tell.
    #[n(0)]
    Unspecified,
    /// At least one process exists.
    #[n(1)]
    Running,
    /// No process exists.
    #[n(2)]
    Stopped,
    /// No process exists and nothing can start one but the hook.
    #[n(3)]
    Held,
    /// Started, not ready yet.
    #[n(4)]
    Starting,
    /// Told to stop, not ended yet.
    #[n(5)]
    Stopping,
}

impl AppState {
    /// Whether the hook says that a process exists.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match self {
            Self::Running | Self::Starting | Self::Stopping => true,
            Self::Unspecified | Self::Stopped | Self::Held => false,
        }
    }
}

/// The answer of a hook to GetHookInfo and, where it has it, CheckShutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What the hook can do.
    pub capabilities: Capabilities,
    /// Whether it could stop the application now.
    pub ready: bool,
    /// Why not, or what CheckShutdown found.
    pub findings: Vec<String>,
    /// Whether the application runs.
    pub app_state: AppState,
    /// The highest epoch the hook has seen.
    pub epoch: u64,
    /// Why it could not start the application now; empty: it could, for all it knows.
    pub cannot_start: String,
}

/// Why a call of a hook brought no answer, or none that counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CallError {
    /// What the scheduler makes of it.
    #[n(0)]
    pub class: CallErrorClass,
    /// The gRPC status code by name; empty if none.
    #[n(1)]
    pub grpc_code: String,
    /// For people.
    #[n(2)]
    pub message: String,
}

/// How the end of a call is read; the table stands at `ShutdownHook` in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum CallErrorClass {
    /// No connection, or it broke: not over, join again.
    #[n(0)]
    Lost,
    /// The hook is busy: pause, then repeat.
    #[n(1)]
    Busy,
    /// The hook refuses: the attempt has failed.
    #[n(2)]
    Rejected,
    /// The hook broke the rules: the attempt has failed.
    #[n(3)]
    Protocol,
    /// The hook does not have this call.
    #[n(4)]
    Unimplemented,
    /// The hook does not know the shutdown.
    #[n(5)]
    NotFound,
    /// Too late: the application has been told to stop.
    #[n(6)]
    PointOfNoReturn,
}
