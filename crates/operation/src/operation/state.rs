//! The states of an operation, with what belongs to one of them alone, and what is read off them.

use minicbor::{Decode, Encode};

use crate::id::ClusterId;
use crate::member::Again;
use crate::moment::Moment;

/// Where an operation stands, with what belongs to that state alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum State {
    #[n(0)]
    Pending,
    #[n(1)]
    Preparing,
    #[n(2)]
    Stopping,
    #[n(3)]
    BackingOff {
        #[n(0)]
        until: Moment,
    },
    #[n(4)]
    Forcing,
    #[n(5)]
    Stopped {
        /// A person has said that their part is done.
        #[n(0)]
        confirmed: bool,
    },
    #[n(6)]
    Starting,
    #[n(7)]
    Finalizing {
        /// When it ends although a hook has not taken note.
        #[n(0)]
        until: Moment,
        /// When to tell again the hooks that could not be reached.
        #[n(1)]
        again: Option<Again>,
    },
    #[n(8)]
    Cancelling {
        /// When the hooks have to have answered.
        #[n(0)]
        until: Moment,
        /// When to ask again those that could not be reached.
        #[n(1)]
        again: Option<Again>,
    },
    #[n(9)]
    RollingBack,
    #[n(10)]
    Degraded {
        /// What a retry goes on with.
        #[n(0)]
        stage: Stage,
    },
    #[n(11)]
    Succeeded,
    #[n(12)]
    Cancelled,
    #[n(13)]
    RolledBack,
    #[n(14)]
    Abandoned,
}

/// The half of its life in which an operation was degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Stage {
    #[n(0)]
    Stopping,
    #[n(1)]
    RollingBack,
}

/// The name of a state, as on the wire without its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[allow(missing_docs, reason = "the states are described at `Operation.State` of the contract")]
pub enum StateName {
    #[n(0)]
    Pending,
    #[n(1)]
    Preparing,
    #[n(2)]
    Stopping,
    #[n(3)]
    BackingOff,
    #[n(4)]
    Forcing,
    #[n(5)]
    Stopped,
    #[n(6)]
    Starting,
    #[n(7)]
    Finalizing,
    #[n(8)]
    Cancelling,
    #[n(9)]
    RollingBack,
    #[n(10)]
    Degraded,
    #[n(11)]
    Succeeded,
    #[n(12)]
    Cancelled,
    #[n(13)]
    RolledBack,
    #[n(14)]
    Abandoned,
}

impl StateName {
    /// The name as on the wire, without prefix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Preparing => "PREPARING",
            Self::Stopping => "STOPPING",
            Self::BackingOff => "BACKING_OFF",
            Self::Forcing => "FORCING",
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Finalizing => "FINALIZING",
            Self::Cancelling => "CANCELLING",
            Self::RollingBack => "ROLLING_BACK",
            Self::Degraded => "DEGRADED",
            Self::Succeeded => "SUCCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Abandoned => "ABANDONED",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Cancelled | Self::RolledBack | Self::Abandoned => true,
            Self::Pending
            | Self::Preparing
            | Self::Stopping
            | Self::BackingOff
            | Self::Forcing
            | Self::Stopped
            | Self::Starting
            | Self::Finalizing
            | Self::Cancelling
            | Self::RollingBack
            | Self::Degraded => false,
        }
    }
}

/// Instances by how far they are; the five numbers add up to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not asked to stop yet.
    pub waiting: u32,
    /// Asked, not over.
    pub stopping: u32,
    /// Ended, verified.
    pub stopped: u32,
    /// Given up as unverified by override.
    pub unverified: u32,
    /// Attempt over, running or unknown.
    pub failed: u32,
}

/// What the registry has to be told when an operation is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// The application lives at `cluster` now.
    Moved {
        /// The new home.
        cluster: ClusterId,
        /// Forget the instances of the old home: somebody else has moved the workload.
        forget_source: bool,
    },
    /// The application is gone for good.
    Removed,
    /// Nothing has changed but that the operation is over.
    Kept,
}
