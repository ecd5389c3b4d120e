//! What others may know of how commits go.

use std::fmt;
use std::time::Duration;

use crate::{CommitError, Committed};

/// Hears of every commit and of every sync. Called on the way of commits, so it must not wait for anything.
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// A commit was answered, so long after it had been asked for: its wait for others and for the disk is in it.
    fn committed(&self, outcome: CommitOutcome, took: Duration);

    /// So many batches were made durable by one transaction, which took so long, its sync included.
    fn synced(&self, batches: usize, took: Duration);
}

/// How a commit came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is durable, or there was nothing to write.
    Durable,
    /// Something was not as the batch expects.
    Conflict,
    /// The store did not take it, or cannot tell whether it did.
    Refused,
}

impl CommitOutcome {
    pub(super) fn of(result: &Result<Committed, CommitError>) -> Self {
        match result {
            Ok(_) => Self::Durable,
            Err(CommitError::Conflict { .. }) => Self::Conflict,
            Err(
                CommitError::Full
                | CommitError::ReadOnly
                | CommitError::Unavailable { .. }
                | CommitError::TooLarge { .. }
                | CommitError::Closed
                | CommitError::Engine { .. },
            ) => Self::Refused,
        }
    }
}

/// Nobody wants to know.
#[derive(Debug)]
pub(super) struct Nobody;

impl Observer for Nobody {
    fn committed(&self, _outcome: CommitOutcome, _took: Duration) {}

    fn synced(&self, _batches: usize, _took: Duration) {}
}
