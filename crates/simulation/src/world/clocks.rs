//! The clocks of the scheduler's machine: in virtual time, and with a wall clock that somebody sets.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quiesce_operation::Moment;
use quiesce_runtime::clock::Source;
use quiesce_runtime::machine::Entropy;
use tokio::time::Instant;

use crate::chance::Chance;

/// When the worlds begin: some time after 1970, since clocks set before are taken for none.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Clocks that agree at first.
#[derive(Debug)]
pub(super) struct Clocks {
    begin: Instant,
    /// Suspended so long in all: the boot clock goes on, timers do not.
    suspended_ms: AtomicU64,
    wall_offset_ms: AtomicI64,
}

impl Clocks {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), suspended_ms: AtomicU64::new(0), wall_offset_ms: AtomicI64::new(0) }
    }

    /// What the scheduler's timeline shows: it began as wall time, and has followed the boot clock since.
    pub(super) fn timeline(&self) -> Moment {
        Moment::from_millis(BEGIN_MS + self.boottime_ms())
    }

    /// Somebody sets the wall clock.
    pub(super) fn step_wall(&self, millis: i64) {
        self.wall_offset_ms.fetch_add(millis, Ordering::Relaxed);
    }

    /// The machine slept.
    pub(super) fn suspend(&self, slept: Duration) {
        self.suspended_ms.fetch_add(u64::try_from(slept.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl Source for Clocks {
    fn boot_id(&self) -> io::Result<String> {
        Ok("scheduler-boot".to_owned())
    }

    fn boottime_ms(&self) -> u64 {
        let awake = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        awake + self.suspended_ms.load(Ordering::Relaxed)
    }

    fn wall_ms(&self) -> u64 {
        (BEGIN_MS + self.boottime_ms()).saturating_add_signed(self.wall_offset_ms.load(Ordering::Relaxed))
    }
}

/// Random bytes of a seed.
#[derive(Debug)]
pub(super) struct Seeded(pub(super) Chance);

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.fill(buffer);
        Ok(())
    }
}
