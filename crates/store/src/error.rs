//! What can go wrong with a commit and with a read.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::{Expect, Key, Revision};

/// Why a batch was not committed.
///
/// Clonable because one failure of the engine is the failure of every batch in its group.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold. Nothing was changed. Read again and decide anew.
    #[error("key {key} is not as expected: expected {expected:?}, found {}", Found(*.found))]
    Conflict {
        /// The key of the first precondition that failed.
        key: Key,
        /// What was expected of it.
        expected: Expect,
        /// The revision of what is stored there, if anything is.
        found: Option<Revision>,
    },
    /// There is no room left to store the batch. Nothing was changed. The same batch can succeed once there is room.
    /// See [`crate::Condition`] for how a store stands without asking it to commit.
    #[error("no room left: free space where the store lives is below its reserve")]
    Full,
    /// The store can be read but not written. Nothing was changed. The same batch can succeed once it can be written.
    #[error("the store cannot be written: its file system is read-only")]
    ReadOnly,
    /// The engine has failed. Nothing was changed. The store opens it again by itself as soon as that works, and then
    /// the same batch can succeed.
    #[error("the storage engine has failed and is being opened again")]
    Unavailable {
        /// What the engine said.
        #[source]
        source: EngineError,
    },
    /// The batch breaks a bound. Nothing was changed.
    #[error("{limit} too large: {size}, at most {max}")]
    TooLarge {
        /// Which bound.
        limit: Limit,
        /// The size found, in the unit of the bound.
        size: usize,
        /// The largest size allowed.
        max: usize,
    },
    /// The store has failed or was closed, and commits nothing any more. If the batch was already accepted its outcome
    /// is open: it is there whole or not at all, which shows when the store is opened again.
    #[error("the store is closed")]
    Closed,
    /// The engine failed. The outcome is open: the batch is there whole or not at all, which shows once the store can
    /// be read again. See [`CommitError::leaves_open`].
    #[error("the storage engine failed")]
    Engine {
        /// What the engine said.
        #[source]
        source: EngineError,
    },
}

impl CommitError {
    /// Whether the same batch can be committed again as it is, without reading first: nothing of it was applied, and the
    /// reason can go away by itself.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Full | Self::ReadOnly | Self::Unavailable { .. } => true,
            Self::Conflict { .. } | Self::TooLarge { .. } | Self::Closed | Self::Engine { .. } => false,
        }
    }

    /// Whether nobody knows what became of the batch, but the store will be able to tell: whoever repeats it with a
    /// precondition on a record that the batch itself writes finds out by the conflict.
    pub fn leaves_open(&self) -> bool {
        match self {
            Self::Engine { .. } => true,
            Self::Conflict { .. }
            | Self::Full
            | Self::ReadOnly
            | Self::Unavailable { .. }
            | Self::TooLarge { .. }
            | Self::Closed => false,
        }
    }
}

/// The bounds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of one key.
    Key,
    /// Bytes of one value.
    Value,
    /// Number of writes.
    Writes,
    /// Number of expectations.
    Expectations,
    /// Bytes of all keys and values together.
    Batch,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "bytes of a key",
            Self::Value => "bytes of a value",
            Self::Writes => "number of writes",
            Self::Expectations => "number of expectations",
            Self::Batch => "bytes of a batch",
        })
    }
}

/// Why something could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// What is stored is not what this store ever writes.
    #[error("stored entry is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The engine has failed and is being opened again.
    #[error("the storage engine has failed and is being opened again")]
    Unavailable,
    /// The engine failed. The store opens it again by itself.
    #[error("the storage engine failed")]
    Engine {
        /// What the engine said.
        #[source]
        source: EngineError,
    },
}

impl ReadError {
    /// Whether the same read can succeed later on this open store.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable | Self::Engine { .. } => true,
            Self::Closed | Self::Damaged { .. } => false,
        }
    }
}

/// What a storage engine said, whichever engine it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(Arc<dyn Error + Send + Sync>);

impl EngineError {
    /// Wraps an engine's own error.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(source.into()))
    }
}

struct Found(Option<Revision>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => write!(f, "revision {revision}"),
            None => f.write_str("nothing"),
        }
    }
}
