//! How a store stands: whether it takes changes, and if not, what a person has to see to.

use std::fmt;

use crate::CommitError;

/// What a commit would meet. Reads work in all of these but the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It takes changes.
    Good,
    /// There is no room left; it goes on by itself when there is.
    Full,
    /// Its file system is read-only; it goes on by itself when it is not.
    ReadOnly,
    /// The engine has failed and is opened again as soon as that works.
    Failed,
    /// It takes nothing any more until it is opened by another process.
    Closed,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 5] = [Self::Good, Self::Full, Self::ReadOnly, Self::Failed, Self::Closed];

    /// The condition in which a commit ends like this.
    pub fn of(error: &CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } | CommitError::TooLarge { .. } => Self::Good,
            CommitError::Full => Self::Full,
            CommitError::ReadOnly => Self::ReadOnly,
            CommitError::Unavailable { .. } | CommitError::Engine { .. } => Self::Failed,
            CommitError::Closed => Self::Closed,
        }
    }

    /// One word, for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "the store takes changes",
            Self::Full => "the store has no room left",
            Self::ReadOnly => "the store cannot be written: its file system is read-only",
            Self::Failed => "the storage engine has failed and is being opened again",
            Self::Closed => "the store has failed for good; only a new process can open it",
        })
    }
}
