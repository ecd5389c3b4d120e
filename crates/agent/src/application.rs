//! The seam between the hook protocol and whatever is to be stopped.
//!
//! [`Application`] is what the hook server drives. The supervisor implements it for a child process; any Rust program
//! can implement it for itself and serve the hook in-process, with two methods: [`Application::status`] and
//! [`Application::stop`]. Everything else has an honest default.
//!
//! An implementation owns the application: how it is told, how its end is known. It knows nothing of schedulers,
//! tokens, deadlines or heartbeats. The hook server knows nothing of processes. Neither may be taught the other.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant, SystemTime},
};

use futures::future::BoxFuture;
use quiesce_runtime::trace_context::TraceContext;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One instance of an application, as the hook server sees it.
///
/// All methods may be called at any time, in any order and concurrently; the implementation puts them in order. A
/// future that is dropped does not take back what it began.
pub trait Application: Send + Sync + 'static {
    /// What this application can do beyond `status` and `stop`. Does not change while the program runs.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// The present state and all later ones. Level-triggered: a reader may miss states in between, never the last one.
    /// The sender lives as long as the application object.
    fn status(&self) -> watch::Receiver<AppStatus>;

    /// Would a stop work? Looks, and changes nothing.
    fn check(&self) -> BoxFuture<'_, Findings> {
        Box::pin(async { Findings::default() })
    }

    /// Would a start work, as far as can be seen without trying? The error says why not.
    fn check_start(&self) -> Result<(), String> {
        Ok(())
    }

    /// From the return of `Ok` on, nothing starts the application, neither a crash and restart of this program nor of
    /// the machine, until [`Application::start`] is called with [`Permission::New`]. Durable when it returns. The caller
    /// does this *before* `stop`. The running application notices nothing. Calling it again replaces the order. An
    /// instance that was deleted for good stays so: the call does nothing.
    fn hold(&self, order: HoldOrder) -> BoxFuture<'_, Result<(), HoldError>> {
        let _ = order;
        Box::pin(async { Err(HoldError::Unsupported) })
    }

    /// Tells the application to stop, once per `shutdown_id`, and returns when it has been told; its end shows in
    /// `status`. That it is about to be told is durable before it happens: the same `shutdown_id` never tells it twice,
    /// not even across a crash of this program. Another `shutdown_id` (the next attempt) tells it again. With nothing to
    /// stop it is `Ok` and does nothing.
    fn stop(&self, order: StopOrder) -> BoxFuture<'_, Result<(), StopError>>;

    /// Kills every process of the application. Returns when the signals are out; the verified end shows in `status`.
    /// Whatever appears before the end is verified is killed too. With nothing to kill it is `Ok` and does nothing.
    fn kill(&self) -> BoxFuture<'_, Result<(), KillError>> {
        Box::pin(async { Err(KillError::Unsupported) })
    }

    /// Starts the application. `Ok` says that it was started and under which epoch; that it is of use shows as
    /// [`AppStatus::ready`]. Refuses when the permission is not good enough or anything of the application still
    /// lives. Epoch and run are durable, and the hold is lifted, before the application runs its first instruction:
    /// after a crash in between the permission is used up, it is never used twice.
    fn start(&self, order: StartOrder) -> BoxFuture<'_, Result<(), StartError>> {
        let _ = order;
        Box::pin(async { Err(StartError::Unsupported) })
    }

    /// Whether a start with [`Permission::Standing`] would have the permission it needs.
    fn has_standing_permission(&self) -> bool {
        false
    }

    /// The instance was deleted for good: marks the hold so that nobody starts it again by mistake. Durable when it
    /// returns; calling it again does nothing.
    fn retire(&self) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async { Err(HoldError::Unsupported) })
    }
}

/// What an [`Application`] can do. What is false answers `Unsupported`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `check` looks at something.
    pub check: bool,
    /// `kill` kills.
    pub kill: bool,
    /// `hold` and `retire` hold.
    pub hold: bool,
    /// `start` starts.
    pub start: bool,
    /// A start behind our back would show in `status`.
    pub settle: bool,
    /// The application can ask for more time ([`AppStatus::extend_until`]).
    pub extend: bool,
    /// A stop survives a restart of this program: the same `shutdown_id` joins it.
    pub durable: bool,
}

/// Where the application stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppState {
    /// The implementation cannot tell.
    #[default]
    Unknown,
    /// No process lives, and nothing keeps it from being started.
    Stopped,
    /// No process lives, and nothing but an order with a new epoch starts one.
    Held,
    /// Processes live; not ready yet.
    Starting,
    /// Processes live.
    Running,
    /// Processes live, and they have been told to stop: the point of no return.
    Stopping,
}

/// Everything known about the application at one moment. A snapshot, not an increment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppStatus {
    /// Where it stands.
    pub state: AppState,
    /// Epoch of the running or last run; 0 when it never ran.
    pub epoch: u64,
    /// When the running or last run was started. Wall clock, for people and for noticing another start.
    pub start_time: Option<SystemTime>,
    /// The first process of the run, for people.
    pub pid: Option<u32>,
    /// What the application said last of itself; at most [`SAID_MAX`] bytes.
    pub said: Option<String>,
    /// The application itself said that it is stopping.
    pub stopping: bool,
    /// How it is known that the run is of use; `None` before.
    pub ready: Option<Ready>,
    /// Until then the application wants to be left alone.
    pub extend_until: Option<Instant>,
    /// Live processes of the application; 0 after a verified end.
    pub processes: u32,
    /// What a person should know about the present state, such as processes that outlive the first one.
    pub message: String,
    /// How the last run ended; `None` while one runs, before the first, and after a start that could not be executed.
    pub end: Option<End>,
    /// What keeps the application from being started; also set while it still runs.
    pub hold: Option<Hold>,
}

/// Longest text of an application about itself that is kept. A status line, not a log; sd_notify users stay far below.
pub const SAID_MAX: usize = 512;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Exit status of the first process, if it exited and somebody of ours saw it.
    pub exit_code: Option<i32>,
    /// Signal that ended the first process, if one did and somebody of ours saw it.
    pub exit_signal: Option<i32>,
    /// How it is known that nothing lives any more.
    pub evidence: Evidence,
    /// Whether it ended as it ends when all went well; `None` when that cannot be known.
    pub clean: Option<bool>,
    /// Whether we killed it.
    pub killed: bool,
    /// For people.
    pub message: String,
}

/// How an end is known, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Somebody says so. Not verified.
    Claimed,
    /// The processes are not there any more; nobody saw them go.
    ProcessGone,
    /// A service manager says so.
    Manager,
    /// The exit of the very processes was observed, though not by their parent.
    ExitObserved,
    /// The first process was our child and we have its exit status; of the others less is known.
    ChildReaped,
    /// Our child was reaped and not one process of the application is left.
    GroupEmpty,
}

impl Evidence {
    /// The name of the contract, without prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "CLAIMED",
            Self::ProcessGone => "PROCESS_GONE",
            Self::Manager => "MANAGER",
            Self::ExitObserved => "EXIT_OBSERVED",
            Self::ChildReaped => "CHILD_REAPED",
            Self::GroupEmpty => "GROUP_EMPTY",
        }
    }
}

/// How it is known that a run is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// The application said so.
    Notified,
    /// The ready command exited with 0.
    Command,
    /// Its port accepts connections.
    Tcp,
    /// It stayed alive for a settling time. The weakest proof.
    Settled,
}

impl Ready {
    /// The name of the contract, without prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notified => "NOTIFIED",
            Self::Command => "COMMAND",
            Self::Tcp => "TCP",
            Self::Settled => "SETTLED",
        }
    }
}

/// Result of [`Application::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Whether a stop would work as far as can be seen.
    pub ok: bool,
    /// Why not; or remarks.
    pub findings: Vec<String>,
}

impl Default for Findings {
    fn default() -> Self {
        Self { ok: true, findings: Vec::new() }
    }
}

/// Why the application is kept stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldKind {
    /// It moves to another cluster.
    Migrate,
    /// It is deleted.
    Delete,
    /// It waits to be started for the first time.
    Standby,
}

impl HoldKind {
    /// As the contract names the kind of the operation; what stands by has none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Migrate => "MIGRATE",
            Self::Delete => "DELETE",
            Self::Standby => "STANDBY",
        }
    }
}

impl fmt::Display for HoldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Migrate => "migrate",
            Self::Delete => "delete",
            Self::Standby => "standby",
        })
    }
}

/// Order to keep the application stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldOrder {
    /// Name of the operation it is for; empty when there is none (standby).
    pub operation: String,
    /// Why.
    pub kind: HoldKind,
    /// Epoch that is revoked by it: that of the run that is to end.
    pub epoch: u64,
}

/// What keeps the application from being started. Durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// As ordered.
    pub operation: String,
    /// As ordered.
    pub kind: HoldKind,
    /// As ordered.
    pub epoch: u64,
    /// Since when, RFC 3339, for people.
    pub since: String,
    /// The instance was deleted for good: not even a new epoch starts it.
    pub deleted: bool,
}

/// Order to stop the application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopOrder {
    /// Names the stop: the same id never tells the application twice.
    pub shutdown_id: String,
    /// How long it will be given, for applications and stop commands that want to know. The caller keeps the time.
    pub grace: Option<Duration>,
    /// Parameters of the policy, for the application.
    pub parameters: BTreeMap<String, String>,
    /// Where this stands in the trace of whoever asked, for those who trace too.
    pub trace: Option<TraceContext>,
}

/// Order to start the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOrder {
    /// The right to run.
    pub permission: Permission,
    /// Name of the application.
    pub application: String,
    /// Name of the instance.
    pub instance: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Where this stands in the trace of whoever asked, for those who trace too.
    pub trace: Option<TraceContext>,
}

/// The right to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// A new epoch; has to be higher than any seen. Lifts a hold.
    New(u64),
    /// The run before ended by itself, outside of any operation, and its epoch was not revoked: run again under it.
    /// Refused when there is a hold, when the epoch was revoked by one, or when none was ever seen.
    Standing,
    /// No scheduler is asked (`--start always`): run under the highest epoch seen, 0 if none. Never under a higher one:
    /// only the scheduler makes epochs, and one made here could be handed out elsewhere as well. Refused when there is a
    /// hold.
    Unfenced,
}

/// Why an application could not be told to stop.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The intention could not be made durable; the application was not told.
    #[error("cannot record the stop, so the application was not told")]
    NotDurable(#[source] BoxError),
    /// The application was not reached. Telling it again needs another `shutdown_id`.
    #[error("cannot tell the application to stop: {reason}")]
    NotTold {
        /// What went wrong.
        reason: String,
    },
    /// The application object is gone (this program is ending).
    #[error("the agent is ending")]
    Ended,
}

/// Why an application could not be killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// There is no way to kill it.
    #[error("this application cannot be killed by its hook")]
    Unsupported,
    /// The operating system refused for at least one process; the others were killed.
    #[error("cannot kill all processes of the application: {reason}")]
    Refused {
        /// Which, and why.
        reason: String,
    },
    /// The application object is gone (this program is ending).
    #[error("the agent is ending")]
    Ended,
}

/// Why an application could not be held or retired.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// There is no way to hold it.
    #[error("this application cannot be held by its hook")]
    Unsupported,
    /// The hold could not be made durable: do not rely on it.
    #[error("cannot record the hold")]
    NotDurable(#[source] BoxError),
    /// The application object is gone (this program is ending).
    #[error("the agent is ending")]
    Ended,
}

/// Why an application was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no way to start it.
    #[error("this application cannot be started by its hook")]
    Unsupported,
    /// The epoch is not higher than one already seen.
    #[error("epoch {epoch} is not higher than {highest}, the highest seen here")]
    Outdated {
        /// The epoch of the order.
        epoch: u64,
        /// The highest epoch seen.
        highest: u64,
    },
    /// No epoch was ever given to this instance, or the highest was revoked by a hold.
    #[error("this instance has no standing permission to run: only a new epoch gives one")]
    NoPermission,
    /// It is held; only a new epoch lifts that.
    #[error("held since {} for {} {}: only a start with a new epoch lifts the hold", .0.since, .0.kind, .0.operation)]
    Held(Hold),
    /// It was deleted for good. The message says how to begin a new life on purpose.
    #[error("{message}")]
    Deleted {
        /// What was deleted when, and how to begin a new life on purpose.
        message: String,
    },
    /// It runs already.
    #[error("{processes} processes of the application still live (run of epoch {epoch})")]
    StillRunning {
        /// How many.
        processes: u32,
        /// Epoch of their run.
        epoch: u64,
    },
    /// The start could not be made durable; nothing was started.
    #[error("cannot record the start, so nothing was started")]
    NotDurable(#[source] BoxError),
    /// The application would have nowhere to report that its script is done; nothing was started.
    #[error("cannot listen for the report of the application's script, so nothing was started")]
    Deaf(#[source] std::io::Error),
    /// The command could not be executed. The epoch is used up, unless there was not even a process for it.
    #[error("cannot execute {command}")]
    Spawn {
        /// The program.
        command: String,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The application object is gone (this program is ending).
    #[error("the agent is ending")]
    Ended,
}

/// An error of an implementation, kept as source.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
