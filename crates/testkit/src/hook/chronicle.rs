//! What many hooks were told and did, in the one order in which it happened: for tests about who comes after whom.

use std::sync::{Arc, Mutex, PoisonError};

/// A record that many hooks write into. Clones are the same record.
#[derive(Debug, Clone, Default)]
pub struct Chronicle {
    entries: Arc<Mutex<Vec<Entry>>>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whom it concerns.
    pub instance: Arc<str>,
    /// What it was.
    pub turn: Turn,
}

/// What can happen to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It was told to stop, under this id; told again under the same id, the hook is joined.
    Told {
        /// The id of the shutdown.
        shutdown_id: String,
    },
    /// Its application has ended, which the hook is about to report.
    Ended,
    /// It was told to start.
    Ordered,
}

impl Chronicle {
    /// Everything so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn write(&self, instance: &Arc<str>, turn: Turn) {
        let entry = Entry { instance: Arc::clone(instance), turn };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }
}
