//! Drives operations: one task owns each open one, makes every change durable, and only then acts on it.
//!
//! Owns the open operations and their records, the application's `epoch` and `active_operation` while one is open, and
//! what the end of an operation does to the registry. It decides nothing: what happens next is the business of
//! [`quiesce_operation`]; how hooks are reached that of [`crate::hooks`]. It must not act before a commit has resolved.

use std::time::Duration;

use bytes::Bytes;
use quiesce_operation::{Caller, Moment, Operation, OperationId, PolicyOverrides, Refusal};
use quiesce_store::{Batch, CommitError, Key, ReadError, Revision};

use crate::secrets::CompletionToken;
use quiesce_operation::report::StopResult;

/// An operation as it is stored.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The operation.
    pub operation: Operation,
    /// Revision of its record.
    pub revision: Revision,
}

/// What a person can ask of an operation that exists.
#[derive(Debug)]
pub enum Command {
    /// Take it back, or close it out of DEGRADED.
    Cancel(Caller),
    /// Try again from DEGRADED.
    Retry {
        /// Who asks.
        by: Caller,
        /// Kill instead of stopping.
        force: bool,
        /// Changes to the policy from here on.
        policy: PolicyOverrides,
        /// The request id, to be stored together with the outcome.
        remember: Option<RequestIdWrite>,
    },
    /// Prolong the grace period.
    Extend {
        /// The new total.
        grace: Duration,
    },
    /// The caller has done its part.
    Confirm(Caller),
    /// A forced deletion takes over. Its accepting batch is committed together with the last record of this operation,
    /// and says what becomes of the application's record.
    Supersede {
        /// The operation that takes over.
        by: OperationId,
        /// What makes it durable.
        accept: Batch,
    },
}

/// A request id to be written in the same batch as the outcome of its request; must not be there yet.
#[derive(Debug, Clone)]
pub struct RequestIdWrite {
    /// Its key.
    pub key: Key,
    /// The encoded record.
    pub record: Bytes,
}

/// Why a command has no durable outcome.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such operation.
    #[error("operation {0} does not exist")]
    NotFound(OperationId),
    /// The operation's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What had to be written together with it is not as expected: the request id is taken, or the application has
    /// changed. Nothing was done; read again and decide anew.
    #[error("what had to be written together with the command has changed meanwhile")]
    Conflict(#[source] CommitError),
    /// Too many wait for this operation already. Nothing was done.
    #[error("operation {0} has too many requests waiting")]
    Busy(OperationId),
    /// The store does not take the outcome at the moment. It may still become durable.
    #[error("the store does not take the outcome of the command for operation {0}; it may still become durable")]
    Stalled(OperationId),
    /// Nobody drives the operation: the scheduler is shutting down, or has failed to take it up.
    #[error("nobody drives operation {0} at the moment")]
    NotDriven(OperationId),
    /// The store cannot be read.
    #[error("cannot read operation {0}")]
    Read(OperationId, #[source] ReadError),
}

/// Why a result or wish that came beside the stream does not count.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// There is no such shutdown.
    #[error("shutdown not found")]
    NotFound,
    /// The token is not that of the shutdown.
    #[error("the completion token is not that of the shutdown")]
    TokenInvalid,
    /// The attempt is over, with another result.
    #[error("the attempt is over")]
    Stale,
    /// Nothing is left to be granted; the total in force stays.
    #[error("no further extension is left")]
    Exhausted {
        /// What is in force.
        granted: Granted,
    },
    /// The driver could not make it durable now; repeat it.
    #[error("the completion could not be recorded")]
    NotRecorded(#[source] CommandError),
}

/// The time an application has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Total grace period in force.
    pub grace: Duration,
    /// When it ends.
    pub deadline: Moment,
    /// What is left of the policy's `max_extension`.
    pub remaining: Duration,
}

/// The driver, for everybody else. Cheap to clone.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// Takes up an operation that the caller has made durable; `revision` is that of its record.
    pub async fn adopt(&self, operation: Operation, revision: Revision) {
        unimplemented!()
    }

    /// Carries out a command and answers when its outcome is durable. Bounded: after a time a command that could not
    /// be made durable is answered with [`CommandError::Stalled`].
    pub async fn command(&self, id: &OperationId, command: Command) -> Result<Snapshot, CommandError> {
        unimplemented!()
    }

    /// Takes a result that came beside the stream. The first of stream and call wins; the same result again is `Ok`.
    pub async fn complete(
        &self,
        shutdown_id: &str,
        token: &CompletionToken,
        result: StopResult,
    ) -> Result<(), CompletionError> {
        unimplemented!()
    }

    /// Asks for more time beside the stream: `wanted` is the total.
    pub async fn want_more_time(
        &self,
        shutdown_id: &str,
        token: &CompletionToken,
        wanted: Duration,
    ) -> Result<Granted, CompletionError> {
        unimplemented!()
    }

    /// Whether every open operation is being driven and its changes reach the store: part of readiness.
    pub fn is_healthy(&self) -> bool {
        unimplemented!()
    }
}
