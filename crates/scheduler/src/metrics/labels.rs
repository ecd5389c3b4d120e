//! What the labels of metrics can say: a closed list of words for each kind, so that no id and no text of others becomes
//! one. The words are those of the contract, in lower case.

use quiesce_operation::report::{AppState, Evidence, StopOutcome};
use quiesce_operation::{Kind, Reason, StateName};
use quiesce_store::Condition;
use quiesce_store::embedded::CommitOutcome;
use tonic::Code;

use crate::hooks::HookState;

/// Something a label can say.
pub(crate) trait Label: Copy + 'static {
    /// All there are.
    const ALL: &'static [Self];

    /// The word.
    fn word(self) -> &'static str;
}

/// The word, for who knows nothing of labels.
pub(crate) fn label(label: impl Label) -> &'static str {
    label.word()
}

/// The same word as the contract spells it, for texts.
pub(crate) fn name(label: impl Label) -> String {
    label.word().to_ascii_uppercase()
}

/// Gives each variant its word; one without does not compile.
macro_rules! labels {
    ($($type:ident { $($variant:ident => $word:literal),+ $(,)? })+) => {$(
        impl Label for $type {
            const ALL: &'static [Self] = &[$($type::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $($type::$variant => $word),+
                }
            }
        }
    )+};
}

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// There are too many, at all or of its peer.
    Limit,
    /// The handshake failed.
    Tls,
    /// What it said first is nothing we know, or did not come in time.
    Preface,
    /// It wanted to dial in with a token that is no good.
    Attach,
}

/// Why a caller was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barred {
    /// The credential is no good.
    Refused,
    /// Too many from there were no good.
    Throttled,
}

/// What became of a wish for more time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    /// There is more time.
    Granted,
    /// There is not, or less than was asked for.
    Denied,
}

/// What became of a span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exported {
    /// The collector has it.
    Sent,
    /// The collector did not take it, or was not there.
    Failed,
    /// Too many waited already.
    Dropped,
}

/// What a start was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The target of a migration.
    Target,
    /// The source, again.
    Rollback,
}

/// What a watch follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// One operation, to its end.
    One,
    /// All that match.
    All,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// There was nothing more to say.
    Finished,
    /// The watcher left, or is not allowed any more.
    Gone,
    /// The watcher was so far behind that history had gone.
    TooSlow,
    /// The scheduler stops.
    Stopping,
    /// The store could not be read.
    Failed,
}

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// What callers and agents see.
    Callers,
}

labels! {
    Kind { Migrate => "migrate", Delete => "delete" }
    StateName {
        Pending => "pending",
        Preparing => "preparing",
        Stopping => "stopping",
        BackingOff => "backing_off",
        Forcing => "forcing",
        Stopped => "stopped",
        Starting => "starting",
        Finalizing => "finalizing",
        Cancelling => "cancelling",
        RollingBack => "rolling_back",
        Degraded => "degraded",
        Succeeded => "succeeded",
        Cancelled => "cancelled",
        RolledBack => "rolled_back",
        Abandoned => "abandoned",
    }
    Reason {
        HookUnreachable => "hook_unreachable",
        HookRejected => "hook_rejected",
        ProtocolError => "protocol_error",
        AcceptTimeout => "accept_timeout",
        HeartbeatTimeout => "heartbeat_timeout",
        GraceTimeout => "grace_timeout",
        KillTimeout => "kill_timeout",
        OverallTimeout => "overall_timeout",
        StillRunning => "still_running",
        Restarted => "restarted",
        Unverified => "unverified",
        UncleanExit => "unclean_exit",
        CheckFailed => "check_failed",
        StartFailed => "start_failed",
        StartTimeout => "start_timeout",
    }
    StopOutcome {
        Stopped => "stopped",
        Killed => "killed",
        NotRunning => "not_running",
        StillRunning => "still_running",
        Restarted => "restarted",
        Unknown => "unknown",
        Cancelled => "cancelled",
    }
    Evidence {
        Claimed => "claimed",
        ProcessGone => "process_gone",
        Manager => "manager",
        ExitObserved => "exit_observed",
        ChildReaped => "child_reaped",
        GroupEmpty => "group_empty",
    }
    AppState {
        Unspecified => "unknown",
        Running => "running",
        Stopped => "stopped",
        Held => "held",
        Starting => "starting",
        Stopping => "stopping",
    }
    HookState { Unknown => "unknown", Ready => "ready", NotReady => "not_ready", Unreachable => "unreachable" }
    Condition {
        Good => "good",
        Full => "full",
        ReadOnly => "read_only",
        Failed => "failed",
        Closed => "closed",
    }
    CommitOutcome { Durable => "durable", Conflict => "conflict", Refused => "refused" }
    Code {
        Ok => "Ok",
        Cancelled => "Cancelled",
        Unknown => "Unknown",
        InvalidArgument => "InvalidArgument",
        DeadlineExceeded => "DeadlineExceeded",
        NotFound => "NotFound",
        AlreadyExists => "AlreadyExists",
        PermissionDenied => "PermissionDenied",
        ResourceExhausted => "ResourceExhausted",
        FailedPrecondition => "FailedPrecondition",
        Aborted => "Aborted",
        OutOfRange => "OutOfRange",
        Unimplemented => "Unimplemented",
        Internal => "Internal",
        Unavailable => "Unavailable",
        DataLoss => "DataLoss",
        Unauthenticated => "Unauthenticated",
    }
    Turned { Limit => "limit", Tls => "tls", Preface => "preface", Attach => "attach_token" }
    Barred { Refused => "refused", Throttled => "throttled" }
    Exported {
        Sent => "sent",
        Failed => "failed",
        Dropped => "dropped",
    }
    Extension { Granted => "granted", Denied => "denied" }
    Purpose { Target => "target", Rollback => "rollback" }
    Followed { One => "one", All => "all" }
    Ended {
        Finished => "finished",
        Gone => "gone",
        TooSlow => "too_slow",
        Stopping => "stopping",
        Failed => "failed",
    }
    Edge { Callers => "callers" }
}
