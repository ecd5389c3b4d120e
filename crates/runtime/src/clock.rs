//! The timeline: the one measure of time in which deadlines are written down.
//!
//! A deadline outlives the process that set it, so neither of the usual clocks will do: the monotonic clock begins
//! anew at every boot, and the wall clock is set, stepped and slewed by others. The *timeline* is a count of
//! milliseconds that never goes back and goes on over restarts. It starts as wall time once, at the first start ever,
//! and from then on advances by `CLOCK_BOOTTIME`; a stored [`Anchor`] ties the next process to it.
//!
//! Owns reading the clocks. It does not store anchors (its user does) and sets no timers: `tokio`'s timers run on
//! `CLOCK_MONOTONIC`, which stands still while the machine is suspended, whereas the timeline goes on. A timer that
//! fires therefore only means "look at the clock again", and [`sleep_until`] does so.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

#[cfg(test)]
mod tests;

/// The longest [`sleep_until`] sleeps before it looks at the clock again: how late a deadline can be noticed after
/// the machine was suspended. A second is nothing to a grace period and one wake-up per second costs nothing.
const RECHECK: Duration = Duration::from_secs(1);

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What everything with deadlines needs to know of time. [`Timeline`] in production, [`ManualClock`] in tests.
pub trait Clock: Send + Sync {
    /// Milliseconds on the timeline. Never less than an earlier answer.
    fn now(&self) -> u64;

    /// About when that is or was by the wall clock. For people and timestamps on the wire only: the answer for the
    /// same instant changes whenever somebody sets the clock.
    fn wall(&self, timeline_ms: u64) -> SystemTime;
}

/// The wall clock as it is set now, for showing a person how long ago something was. Nothing may be decided by it.
#[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
pub fn wall_now() -> SystemTime {
    SystemTime::now()
}

/// Waits until `clock` has reached `deadline_ms`; returns at once if it has already. Cancel-safe.
pub async fn sleep_until(clock: &dyn Clock, deadline_ms: u64) {
    loop {
        let left = Duration::from_millis(deadline_ms.saturating_sub(clock.now()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(RECHECK)).await;
    }
}

/// One instant as all clocks saw it; what ties the timeline of the next process to that of this one.
///
/// Store the one from the start, and again from time to time: within one boot every anchor leads to the same
/// timeline, but after a reboot with the wall clock set back the timeline goes on from the last stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The kernel's random name of the boot.
    pub boot_id: String,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub boottime_ms: u64,
    /// The timeline in milliseconds.
    pub timeline_ms: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: u64,
}

/// The clocks of a machine, as far as the timeline needs them.
pub trait Source: Send + Sync {
    /// Identifies the boot; the same as long as [`Source::boottime_ms`] counts on.
    fn boot_id(&self) -> io::Result<String>;
    /// Milliseconds since boot, time spent in suspend included.
    fn boottime_ms(&self) -> u64;
    /// Milliseconds since 1970 by the wall clock; 0 if it is set before that.
    fn wall_ms(&self) -> u64;
}

impl<T: Source + ?Sized> Source for Arc<T> {
    fn boot_id(&self) -> io::Result<String> {
        (**self).boot_id()
    }

    fn boottime_ms(&self) -> u64 {
        (**self).boottime_ms()
    }

    fn wall_ms(&self) -> u64 {
        (**self).wall_ms()
    }
}

/// The clocks of the Linux kernel this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Source for Kernel {
    fn boot_id(&self) -> io::Result<String> {
        Ok(fs::read_to_string(BOOT_ID)?.trim().to_owned())
    }

    fn boottime_ms(&self) -> u64 {
        let time = clock_gettime(ClockId::Boottime);
        // The kernel's answer is never negative; should it ever be, standing still is safer than wrapping round.
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
    }

    fn wall_ms(&self) -> u64 {
        millis_since_epoch(wall_now())
    }
}

/// Why a timeline cannot be established.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Without the boot id an anchor of this boot cannot be told from one of another.
    #[error("cannot read the boot id from {BOOT_ID}")]
    BootId(#[source] io::Error),
}

/// The timeline of this process.
pub struct Timeline {
    source: Box<dyn Source>,
    boot_id: String,
    /// `CLOCK_BOOTTIME` and the timeline when this process started.
    start_boottime_ms: u64,
    start_timeline_ms: u64,
    /// The last answer given. `CLOCK_BOOTTIME` does not go back by itself, but a virtual machine or container restored
    /// from a checkpoint can find it behind.
    last_ms: AtomicU64,
}

impl Timeline {
    /// Continues from the `stored` anchor; without one the timeline begins now, at wall time.
    pub fn start(stored: Option<&Anchor>) -> Result<Self, StartError> {
        Self::start_with(Box::new(Kernel), stored)
    }

    /// The same on other clocks than this machine's.
    ///
    /// With an anchor of the same boot, time since then is counted by `CLOCK_BOOTTIME`. With one of another boot the
    /// wall clock is all there is: time passed if it says so, and none did if it is behind the anchor.
    pub fn start_with(source: Box<dyn Source>, stored: Option<&Anchor>) -> Result<Self, StartError> {
        let boot_id = source.boot_id().map_err(StartError::BootId)?;
        let boottime_ms = source.boottime_ms();
        let start_timeline_ms = match stored {
            Some(anchor) if anchor.boot_id == boot_id => {
                anchor.timeline_ms.saturating_add(boottime_ms.saturating_sub(anchor.boottime_ms))
            }
            Some(anchor) => anchor.timeline_ms.saturating_add(source.wall_ms().saturating_sub(anchor.wall_ms)),
            None => source.wall_ms(),
        };
        Ok(Self {
            source,
            boot_id,
            start_boottime_ms: boottime_ms,
            start_timeline_ms,
            last_ms: AtomicU64::new(start_timeline_ms),
        })
    }

    /// This instant, to be stored.
    pub fn anchor(&self) -> Anchor {
        let boottime_ms = self.source.boottime_ms();
        Anchor {
            boot_id: self.boot_id.clone(),
            boottime_ms,
            timeline_ms: self.at(boottime_ms),
            wall_ms: self.source.wall_ms(),
        }
    }

    /// The wall clock, milliseconds since 1970. For people only, as [`wall_now`].
    pub fn wall_ms(&self) -> u64 {
        self.source.wall_ms()
    }

    fn at(&self, boottime_ms: u64) -> u64 {
        let since_start = boottime_ms.saturating_sub(self.start_boottime_ms);
        let now = self.start_timeline_ms.saturating_add(since_start);
        now.max(self.last_ms.fetch_max(now, Ordering::AcqRel))
    }
}

impl Clock for Timeline {
    fn now(&self) -> u64 {
        self.at(self.source.boottime_ms())
    }

    fn wall(&self, timeline_ms: u64) -> SystemTime {
        shift(self.source.wall_ms(), self.now(), timeline_ms)
    }
}

impl std::fmt::Debug for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timeline").field("boot_id", &self.boot_id).field("now", &self.now()).finish_non_exhaustive()
    }
}

/// A clock that stands still until it is moved; its wall clock shows the timeline.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms) }
    }

    /// Moves the clock on. Who sleeps on it with [`sleep_until`] notices within a second of real or paused time.
    pub fn advance(&self, by: Duration) {
        // More than the age of the universe in milliseconds saturates, which no test means.
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(millis, Ordering::AcqRel);
    }

    /// Moves the clock on to `now_ms`; stays where it is if that is in the past, since a timeline never goes back.
    pub fn advance_to(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.now_ms.load(Ordering::Acquire)
    }

    fn wall(&self, timeline_ms: u64) -> SystemTime {
        shift(0, 0, timeline_ms)
    }
}

/// The wall time of `timeline_ms`, given that the timeline shows `now_ms` while the wall clock shows `wall_ms`.
fn shift(wall_ms: u64, now_ms: u64, timeline_ms: u64) -> SystemTime {
    let millis = match timeline_ms.checked_sub(now_ms) {
        Some(ahead) => wall_ms.saturating_add(ahead),
        None => wall_ms.saturating_sub(now_ms - timeline_ms),
    };
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

fn millis_since_epoch(time: SystemTime) -> u64 {
    // A clock set before 1970 has no battery: it counts as not set at all.
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
