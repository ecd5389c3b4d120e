//! Whether the driver can do its work, and figures about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of the driver. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    stalled: AtomicUsize,
    failed: AtomicUsize,
    stalls: AtomicU64,
    without_effect: AtomicU64,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauges {
    /// Operations whose last change the store does not take.
    pub stalled: usize,
    /// Operations that ought to be driven and are not, since this process began.
    pub failed: usize,
    /// How often a change was not taken at first, since this process began.
    pub stalls_total: u64,
    /// Inputs that changed nothing: stale, repeated, or of no news.
    pub inputs_without_effect_total: u64,
}

impl Health {
    /// Whether every open operation is driven and can be stored.
    pub(super) fn is_good(&self) -> bool {
        self.counts.stalled.load(Ordering::Relaxed) == 0 && self.counts.failed.load(Ordering::Relaxed) == 0
    }

    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            stalled: self.counts.stalled.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            stalls_total: self.counts.stalls.load(Ordering::Relaxed),
            inputs_without_effect_total: self.counts.without_effect.load(Ordering::Relaxed),
        }
    }

    /// An operation is not driven and should be. Stays until the process is started again.
    pub(super) fn fail(&self) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn without_effect(&self) {
        self.counts.without_effect.fetch_add(1, Ordering::Relaxed);
    }

    /// A change is not taken; until the returned value is dropped.
    pub(super) fn stall(&self) -> Stall {
        self.counts.stalled.fetch_add(1, Ordering::Relaxed);
        self.counts.stalls.fetch_add(1, Ordering::Relaxed);
        Stall { counts: Arc::clone(&self.counts) }
    }
}

/// One operation waits for the store.
#[must_use = "a stall that is dropped at once is over"]
pub(super) struct Stall {
    counts: Arc<Counts>,
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.counts.stalled.fetch_sub(1, Ordering::Relaxed);
    }
}
