//! How long to wait before the next try: exponential, capped, with jitter.
//!
//! Owns the arithmetic only. It does not sleep, does not decide what is worth retrying, and has no randomness of its
//! own: the caller hands it in, so that tests are exact and a simulation replays.

use std::fmt;
use std::time::Duration;

/// Half the width of the spread around a nominal delay: a fleet that lost its scheduler in one moment must not come
/// back in one moment.
const JITTER: f64 = 0.2;

/// Uniform numbers in `0.0..1.0`. Values outside are clamped.
pub type Randomness = Box<dyn FnMut() -> f64 + Send>;

/// A sequence of delays: `initial`, doubled each time up to `cap`, each spread by +-20 %.
///
/// The spread is put on after the cap, so that waiting at the cap is spread as well: with a cap of 30 s a delay is
/// between 24 s and 36 s.
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    nominal: Duration,
    random: Randomness,
}

impl Backoff {
    /// Delays from `initial` doubling to `cap`. A `cap` below `initial` makes every delay `cap`.
    pub fn new(initial: Duration, cap: Duration, random: Randomness) -> Self {
        Self { initial, cap, nominal: initial.min(cap), random }
    }

    /// The delay before the next try; each call moves one step along the sequence.
    pub fn next_delay(&mut self) -> Duration {
        let nominal = self.nominal;
        self.nominal = nominal.saturating_mul(2).min(self.cap);
        let unit = (self.random)().clamp(0.0, 1.0);
        nominal.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit)
    }

    /// Begins the sequence again, after a try that worked.
    pub fn reset(&mut self) {
        self.nominal = self.initial.min(self.cap);
    }
}

impl fmt::Debug for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff")
            .field("initial", &self.initial)
            .field("cap", &self.cap)
            .field("nominal", &self.nominal)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 1 s to 30 s.
    fn middling() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(30), Box::new(|| 0.5))
    }

    fn seconds(backoff: &mut Backoff, count: usize) -> Vec<f64> {
        (0..count).map(|_| backoff.next_delay().as_secs_f64()).collect()
    }

    #[test]
    fn delays_double_up_to_the_cap() {
        let mut backoff = middling();
        assert_eq!(seconds(&mut backoff, 7), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    }

    #[test]
    fn jitter_spreads_each_delay_by_a_fifth_either_way() {
        let mut ends = [0.0, 1.0].into_iter().cycle();
        let mut backoff =
            Backoff::new(Duration::from_secs(10), Duration::from_secs(10), Box::new(move || ends.next().unwrap()));
        assert_eq!(seconds(&mut backoff, 4), [8.0, 12.0, 8.0, 12.0]);
    }

    #[test]
    fn reset_begins_again() {
        let mut backoff = middling();
        seconds(&mut backoff, 5);
        backoff.reset();
        assert_eq!(seconds(&mut backoff, 2), [1.0, 2.0]);
    }

    #[test]
    fn randomness_out_of_range_cannot_break_the_bounds() {
        let mut wild = [-7.0, 99.0, f64::INFINITY].into_iter();
        let mut backoff =
            Backoff::new(Duration::from_secs(1), Duration::from_secs(1), Box::new(move || wild.next().unwrap()));
        assert_eq!(seconds(&mut backoff, 3), [0.8, 1.2, 1.2]);
    }

    #[test]
    fn a_cap_below_the_initial_delay_wins() {
        let mut backoff = Backoff::new(Duration::from_secs(9), Duration::from_secs(3), Box::new(|| 0.5));
        assert_eq!(seconds(&mut backoff, 3), [3.0, 3.0, 3.0]);
    }

    #[test]
    fn the_longest_delays_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(u64::MAX / 4), Duration::MAX / 2, Box::new(|| 0.5));
        assert!(backoff.next_delay() <= backoff.next_delay());
        backoff.next_delay();
    }
}
