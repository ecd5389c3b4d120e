//! Time as the core sees it: a number of milliseconds that somebody else counts.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use minicbor::{Decode, Encode};

/// A point on the scheduler's timeline, in milliseconds. The timeline never goes back and goes on over restarts of the
/// scheduler (the driver sees to that), so a stored deadline keeps its *remaining* time. It is not a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Moment(#[n(0)] u64);

impl Moment {
    /// The moment `millis` milliseconds after the origin of the timeline.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the origin of the timeline.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a deadline further away than the timeline reaches never comes.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
