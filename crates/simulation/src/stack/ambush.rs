//! Crashes at chosen writes: a program that has got to a certain write to its disk gets no further.
//!
//! A crash at a chosen time hardly ever falls between a write and what depends on it. Here it does: the write waits for
//! ever, and the host is crashed before anything else can happen to it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The writes of one host, one of which may be the last of a life.
#[derive(Debug, Default)]
pub(super) struct Ambush {
    /// Which write it is; 0: none.
    at: u64,
    writes: AtomicU64,
    is_sprung: AtomicBool,
}

impl Ambush {
    pub(super) fn at(write: u64) -> Self {
        Self { at: write, ..Self::default() }
    }

    /// One more write. Does not return from the chosen one.
    pub(super) async fn pass(&self) {
        if self.writes.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.is_sprung.store(true, Ordering::Relaxed);
            pending::<()>().await;
        }
    }

    /// Whether the host is to be crashed now; says so once.
    pub(super) fn springs(&self) -> bool {
        self.is_sprung.swap(false, Ordering::Relaxed)
    }
}
