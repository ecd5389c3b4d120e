//! The number of a write.

use std::fmt;

/// The place of a write in the history of a store. The first write has revision 1; [`Revision::ZERO`] is "before any".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The largest revision there can be; a bound for scans, never the number of a write.
    pub const MAX: Self = Self(u64::MAX);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The revision `count` writes later. Saturates: at a million writes a second the numbers last 580,000 years.
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Big-endian, so that the order of the bytes is the order of the revisions.
    pub const fn to_be_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads what [`Revision::to_be_bytes`] wrote.
    pub const fn from_be_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
