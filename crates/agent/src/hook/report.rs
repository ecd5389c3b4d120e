//! What the hook says about a shutdown or a start, in our own types.
//!
//! The wire form is made in [`super::wire`], the durable form is the serde of [`Report`] inside a versioned record.
//! Nothing here decides anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::application::{Evidence, Ready};
use crate::token::Token;

/// Where a shutdown stands; the order is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    Accepted,
    Draining,
    /// The point of no return.
    Stopping,
    Killing,
    Stopped,
    Failed,
    Cancelled,
}

impl Phase {
    /// The name of the contract, without prefix.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Draining => "DRAINING",
            Self::Stopping => "STOPPING",
            Self::Killing => "KILLING",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// How a shutdown came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Stopped,
    Killed,
    NotRunning,
    StillRunning,
    Restarted,
    Cancelled,
}

impl Outcome {
    /// The name of the contract, without prefix.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Killed => "KILLED",
            Self::NotRunning => "NOT_RUNNING",
            Self::StillRunning => "STILL_RUNNING",
            Self::Restarted => "RESTARTED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The phase a shutdown ends in with this outcome.
    pub(crate) fn phase(self) -> Phase {
        match self {
            Self::Stopped | Self::Killed | Self::NotRunning => Phase::Stopped,
            Self::StillRunning | Self::Restarted => Phase::Failed,
            Self::Cancelled => Phase::Cancelled,
        }
    }
}

/// The result of a shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// `None` where nothing ended.
    pub(crate) evidence: Option<Evidence>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) exit_signal: Option<i32>,
    pub(crate) clean: Option<bool>,
    /// From acceptance to the end.
    pub(crate) duration: Duration,
    pub(crate) message: String,
    pub(crate) held: bool,
}

/// One report of a shutdown: a snapshot. The last one has a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) shutdown_id: String,
    pub(crate) sequence: i32,
    pub(crate) phase: Phase,
    pub(crate) message: String,
    /// Wall clock, milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The total grace period the application would like to have.
    pub(crate) wanted: Option<Duration>,
    pub(crate) verdict: Option<Verdict>,
}

/// What those who follow a shutdown see.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Accepted, but not yet durable: nothing has been said.
    Unsaid,
    /// It goes on.
    Live(Report),
    /// It is over. The token goes out with this and with nothing else.
    Final(Report, Option<Token>),
    /// The stream ends with an error.
    Refused(Refusal),
}

/// A report to hand out, with the token when it is final.
pub(crate) type Snapshot = (Report, Option<Token>);

/// Where a start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StartPhase {
    Accepted,
    Starting,
    Ready,
    Failed,
}

impl StartPhase {
    /// The name of the contract, without prefix.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Starting => "STARTING",
            Self::Ready => "READY",
            Self::Failed => "FAILED",
        }
    }
}

/// The result of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartVerdict {
    /// How it is known that it is of use; `None`: it did not come up.
    pub(crate) ready: Option<Ready>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) exit_signal: Option<i32>,
    pub(crate) duration: Duration,
    pub(crate) message: String,
}

/// One report of a start: a snapshot. The last one has a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartReport {
    pub(crate) epoch: u64,
    pub(crate) sequence: i32,
    pub(crate) phase: StartPhase,
    pub(crate) message: String,
    /// Wall clock, milliseconds since 1970.
    pub(crate) time_ms: u64,
    pub(crate) verdict: Option<StartVerdict>,
}

/// What those who follow a start see.
#[derive(Debug, Clone)]
pub(crate) enum StartProgress {
    /// A report; the last one has a verdict.
    Report(StartReport),
    /// The stream ends with an error.
    Refused(Refusal),
}
