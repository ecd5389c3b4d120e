//! How fast the progress of one instance is shown: a burst at once, then at intervals.
//!
//! Owns nothing but the count. It does not decide what is worth showing, and is forgotten over a restart.

use std::time::Duration;

use crate::moment::Moment;

/// Time between two progress events of one instance that differ in text only, in the long run: what a person can
/// follow, and a bound on what a chatty hook can make the store write.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Progress events of one instance that may follow each other at once. On its way out an application says what it does
/// in quick steps; many are gone before one interval has passed, and what they said would never be seen.
pub(crate) const PROGRESS_BURST: u32 = 8;

/// What was shown of one instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// When all that was shown is made up for, at one per interval.
    even: Option<Moment>,
}

impl Pace {
    /// When more may be shown; `None`: now.
    pub(crate) fn next(self, now: Moment) -> Option<Moment> {
        let ahead = self.even.map_or(Duration::ZERO, |even| even.since(now));
        let allowed = PROGRESS_INTERVAL * (PROGRESS_BURST - 1);
        (ahead > allowed).then(|| now + (ahead - allowed))
    }

    /// Something is shown now.
    pub(crate) fn show(&mut self, now: Moment) {
        self.even = Some(self.even.map_or(now, |even| even.max(now)) + PROGRESS_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_shown_at_once_and_the_rest_at_intervals() {
        let now = Moment::from_millis(1_000_000);
        let mut pace = Pace::default();
        for _ in 0..PROGRESS_BURST {
            assert_eq!(pace.next(now), None);
            pace.show(now);
        }
        assert_eq!(pace.next(now), Some(now + PROGRESS_INTERVAL));
        let later = now + PROGRESS_INTERVAL;
        assert_eq!(pace.next(later), None);
        pace.show(later);
        assert_eq!(pace.next(later), Some(later + PROGRESS_INTERVAL));
        assert_eq!(pace.next(later + PROGRESS_INTERVAL * PROGRESS_BURST), None);
    }
}
