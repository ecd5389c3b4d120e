//! Wall times that do not flicker.
//!
//! A moment is stored as a point on the timeline and shown as wall time, and the two clocks are never read in the same
//! instant: the same moment would be shown a millisecond earlier or later from answer to answer. Here the distance
//! between the clocks is kept until somebody really sets the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quiesce_runtime::clock::Clock;

/// Differences up to here are the noise of reading two clocks, and slewing; larger ones mean that the clock was set.
const NOISE_MS: i64 = 50;

/// A clock that shows the same moment always as the same wall time.
pub(crate) struct Steady {
    inner: Arc<dyn Clock>,
    /// Wall clock minus timeline, in milliseconds.
    distance: AtomicI64,
}

impl Steady {
    pub(crate) fn new(inner: Arc<dyn Clock>) -> Self {
        let distance = AtomicI64::new(distance(&*inner));
        Self { inner, distance }
    }
}

/// Wall clock minus timeline, now.
fn distance(clock: &dyn Clock) -> i64 {
    let now = clock.now();
    let wall = clock.wall(now).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    i64::try_from(wall).unwrap_or(i64::MAX).saturating_sub(i64::try_from(now).unwrap_or(i64::MAX))
}

impl Clock for Steady {
    fn now(&self) -> u64 {
        self.inner.now()
    }

    fn wall(&self, timeline_ms: u64) -> SystemTime {
        let now = distance(&*self.inner);
        let kept = self.distance.load(Ordering::Relaxed);
        let distance = if now.abs_diff(kept) > NOISE_MS.unsigned_abs() {
            self.distance.store(now, Ordering::Relaxed);
            now
        } else {
            kept
        };
        let millis = timeline_ms.saturating_add_signed(distance);
        UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// Each look at the wall clock is `noise` later than the timeline thinks.
    struct Noisy {
        noise: AtomicU64,
    }

    impl Clock for Noisy {
        fn now(&self) -> u64 {
            1_000
        }

        fn wall(&self, timeline_ms: u64) -> SystemTime {
            UNIX_EPOCH + Duration::from_millis(timeline_ms + self.noise.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_moment_is_shown_the_same_until_the_clock_is_set() {
        let noisy = Arc::new(Noisy { noise: AtomicU64::new(0) });
        let clock = Steady::new(Arc::clone(&noisy) as Arc<dyn Clock>);
        let shown = clock.wall(500);
        noisy.noise.store(1, Ordering::Relaxed);
        assert_eq!(clock.wall(500), shown);
        noisy.noise.store(3_600_000, Ordering::Relaxed);
        assert_eq!(clock.wall(500), shown + Duration::from_secs(3600));
    }
}
