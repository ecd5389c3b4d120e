//! A question for a page of entries.

use std::ops::Bound;

use crate::{Key, Space};

/// Most entries in one page, whatever the caller asks for: a page is held in memory and made in one go, so it bounds
/// both the memory of a read and the time it pins old pages of the engine.
pub const SCAN_MAX: usize = 1000;

/// A range of stored key bytes: its lower and its upper end.
pub type KeyBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Which entries to read. Built by struct update: `Scan { prefix: "db-".into(), ..Scan::all(Space::Instances) }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The space to read.
    pub space: Space,
    /// Only keys whose id starts with this. Empty: every key of the space, log entries too.
    pub prefix: String,
    /// Only keys above this one.
    pub after: Option<Key>,
    /// Only keys below this one.
    pub before: Option<Key>,
    /// At most so many entries; more than [`SCAN_MAX`] means [`SCAN_MAX`].
    pub limit: usize,
    /// From the highest key down.
    pub reverse: bool,
}

impl Scan {
    /// The first page of everything in `space`.
    pub fn all(space: Space) -> Self {
        Self { space, prefix: String::new(), after: None, before: None, limit: SCAN_MAX, reverse: false }
    }

    /// How many entries the page holds at most.
    pub fn page_max(&self) -> usize {
        self.limit.min(SCAN_MAX)
    }

    /// The bounds of this scan in stored bytes, for a backend; `None` when nothing can lie between them.
    pub fn bounds(&self) -> Option<KeyBounds> {
        let range = if self.prefix.is_empty() { self.space.range() } else { self.space.prefix_range(&self.prefix) };
        let after = self.after.as_ref().map(Key::as_bytes).filter(|after| *after >= range.start.as_slice());
        let before = self.before.as_ref().map(Key::as_bytes).filter(|before| *before < range.end.as_slice());
        let low = after.unwrap_or(&range.start);
        let high = before.unwrap_or(&range.end);
        // Ordered maps refuse such ranges (the standard one panics), and there is nothing in them.
        if low >= high {
            return None;
        }
        let start = if after.is_some() { Bound::Excluded(low.to_vec()) } else { Bound::Included(low.to_vec()) };
        Some((start, Bound::Excluded(high.to_vec())))
    }
}
