//! What went wrong, and what people overrode.

use minicbor::{Decode, Encode};

use crate::id::InstanceId;
use crate::moment::Moment;

/// The kinds of failure of the contract (`Failure.Reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// No connection to the hook, or it broke and could not be restored.
    #[n(0)]
    HookUnreachable,
    /// The hook refused with an error.
    #[n(1)]
    HookRejected,
    /// The hook broke the rules.
    #[n(2)]
    ProtocolError,
    /// No answer within `accept_timeout`.
    #[n(3)]
    AcceptTimeout,
    /// No report within `heartbeat_timeout`.
    #[n(4)]
    HeartbeatTimeout,
    /// Still running at the end of the grace period.
    #[n(5)]
    GraceTimeout,
    /// Still running `kill_timeout` after the kill.
    #[n(6)]
    KillTimeout,
    /// `overall_timeout` is over.
    #[n(7)]
    OverallTimeout,
    /// The hook reports that it still runs.
    #[n(8)]
    StillRunning,
    /// It was started again behind our back.
    #[n(9)]
    Restarted,
    /// Ended or not, nobody can tell.
    #[n(10)]
    Unverified,
    /// Ended, but not cleanly, and the policy holds on that.
    #[n(11)]
    UncleanExit,
    /// The hook says that a stop would not work.
    #[n(12)]
    CheckFailed,
    /// The application could not be started, or ended before it was ready.
    #[n(13)]
    StartFailed,
    /// Not ready within `start_timeout`.
    #[n(14)]
    StartTimeout,
}

impl Reason {
    /// Whether a caller's `allow_unverified` may stand in for the missing proof. Not when the hook is there and says
    /// that the application lives: then nothing is missing.
    #[must_use]
    pub(crate) fn is_missing_proof(self) -> bool {
        match self {
            Self::HookUnreachable
            | Self::HookRejected
            | Self::ProtocolError
            | Self::AcceptTimeout
            | Self::HeartbeatTimeout
            | Self::Unverified => true,
            Self::GraceTimeout
            | Self::KillTimeout
            | Self::OverallTimeout
            | Self::StillRunning
            | Self::Restarted
            | Self::UncleanExit
            | Self::CheckFailed
            | Self::StartFailed
            | Self::StartTimeout => false,
        }
    }
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// What kind.
    #[n(0)]
    pub reason: Reason,
    /// For people.
    #[n(1)]
    pub message: String,
    /// The instance concerned; none: the operation as a whole.
    #[n(2)]
    pub instance: Option<InstanceId>,
    /// The attempt concerned; 0: none.
    #[n(3)]
    pub attempt: u32,
    /// The hook's gRPC status code by name; empty if none.
    #[n(4)]
    pub grpc_code: String,
    /// When.
    #[n(5)]
    pub time: Moment,
}

/// What a named caller overrode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum OverrideKind {
    /// Kill instead of stopping gracefully.
    #[n(0)]
    Force,
    /// Go on although an end could not be verified.
    #[n(1)]
    AllowUnverified,
}

/// A named caller's decision to go on without proof or by force. Kept for ever.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Override {
    /// What.
    #[n(0)]
    pub kind: OverrideKind,
    /// Who.
    #[n(1)]
    pub requester: String,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// When.
    #[n(3)]
    pub time: Moment,
    /// Whose proof was missing; none: permission given, not used yet.
    #[n(4)]
    pub instance: Option<InstanceId>,
}
