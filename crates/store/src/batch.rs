//! A set of preconditions and writes that is committed whole.

use std::fmt;

use bytes::Bytes;

use crate::{CommitError, KEY_BYTES_MAX, Key, Limit, Revision, Space};

/// Longest value. The largest record is an operation with all its instances; a few hundred bytes for each of a thousand
/// instances stay below. A page of a scan ([`crate::SCAN_MAX`] values) must fit into memory.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most expectations and writes in a batch, each: a record and an event for each of 500 instances, with room to spare.
/// Bounds how long one batch can keep the others of its group waiting.
pub const WRITES_MAX: usize = 1024;

/// Most bytes of keys and values in one batch; a few of the largest values. Bounds what one group holds in memory.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// What must be true of a key before a batch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is stored there.
    Absent,
    /// Something is stored there.
    Present,
    /// What is stored there was put by the write with this revision: nobody changed it since it was read.
    Revision(Revision),
}

impl Expect {
    /// Whether this holds for a key whose entry has the revision `found`.
    pub fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Revision(expected) => found == Some(expected),
        }
    }
}

/// One change. Each takes one revision, whether or not it found something to change.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores `value` at `key`, over what was there.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
    },
    /// Removes what is stored at `key`, if anything.
    Delete {
        /// Where.
        key: Key,
    },
    /// Stores `value` at the key made of `space` and the revision of this very write, so that the entries of a log are
    /// in commit order without anyone numbering them.
    Append {
        /// The space of the log.
        space: Space,
        /// What.
        value: Bytes,
    },
    /// Removes all log entries of `space` with a revision up to and including `through`. Records with an id stay.
    Trim {
        /// The space of the log.
        space: Space,
        /// The last revision to remove.
        through: Revision,
    },
}

/// Without the values: among them are keys, which nobody is to see.
impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "Put({key:?}, {} bytes)", value.len()),
            Self::Delete { key } => write!(f, "Delete({key:?})"),
            Self::Append { space, value } => write!(f, "Append({space:?}, {} bytes)", value.len()),
            Self::Trim { space, through } => write!(f, "Trim({space:?}, {through:?})"),
        }
    }
}

/// Preconditions and writes that are committed together: all or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a batch changes nothing until it is committed"]
pub struct Batch {
    expectations: Vec<(Key, Expect)>,
    writes: Vec<Write>,
}

impl Batch {
    /// A batch that expects nothing and writes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The batch is refused with [`CommitError::Conflict`] unless this holds before its first write.
    pub fn expect(mut self, key: Key, expect: Expect) -> Self {
        self.expectations.push((key, expect));
        self
    }

    /// Adds a [`Write::Put`].
    pub fn put(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.write(Write::Put { key, value: value.into() })
    }

    /// Adds a [`Write::Delete`].
    pub fn delete(self, key: Key) -> Self {
        self.write(Write::Delete { key })
    }

    /// Adds a [`Write::Append`].
    pub fn append(self, space: Space, value: impl Into<Bytes>) -> Self {
        self.write(Write::Append { space, value: value.into() })
    }

    /// Adds a [`Write::Trim`].
    pub fn trim(self, space: Space, through: Revision) -> Self {
        self.write(Write::Trim { space, through })
    }

    /// Adds a write.
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Whether there is nothing to write and nothing to check.
    pub fn is_empty(&self) -> bool {
        self.expectations.is_empty() && self.writes.is_empty()
    }

    /// The preconditions, in the order they were added.
    pub fn expectations(&self) -> &[(Key, Expect)] {
        &self.expectations
    }

    /// The writes, in the order they were added.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Checks the bounds every backend enforces before it accepts a batch. Returns the bytes of keys and values.
    pub fn check_size(&self) -> Result<usize, CommitError> {
        within(Limit::Writes, self.writes.len(), WRITES_MAX)?;
        within(Limit::Expectations, self.expectations.len(), WRITES_MAX)?;
        let mut total = 0;
        for (key, _) in &self.expectations {
            within(Limit::Key, key.as_bytes().len(), KEY_BYTES_MAX)?;
            total += key.as_bytes().len();
        }
        for write in &self.writes {
            let (key, value) = match write {
                Write::Put { key, value } => (key.as_bytes().len(), value.len()),
                Write::Delete { key } => (key.as_bytes().len(), 0),
                Write::Append { value, .. } => (0, value.len()),
                Write::Trim { .. } => (0, 0),
            };
            within(Limit::Key, key, KEY_BYTES_MAX)?;
            within(Limit::Value, value, VALUE_BYTES_MAX)?;
            total += key + value;
        }
        within(Limit::Batch, total, BATCH_BYTES_MAX)?;
        Ok(total)
    }
}

fn within(limit: Limit, size: usize, max: usize) -> Result<(), CommitError> {
    if size > max { Err(CommitError::TooLarge { limit, size, max }) } else { Ok(()) }
}
