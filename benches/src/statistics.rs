//! Medians and quantiles of a few hundred figures.

use std::time::Duration;

/// Durations of one kind, in order.
#[derive(Debug, Clone)]
pub struct Sorted(Vec<Duration>);

impl Sorted {
    /// Sorts them.
    #[must_use]
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// The smallest duration that at least `percent` of all do not exceed; none of nothing is zero.
    #[must_use]
    pub fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// The middle one; of an even number the upper one. None of nothing.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_durations_that_were_measured() {
        let sorted = Sorted::of((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(sorted.quantile(50), Duration::from_millis(100));
        assert_eq!(sorted.quantile(99), Duration::from_millis(198));
        assert_eq!(sorted.quantile(100), Duration::from_millis(200));
        assert_eq!(Sorted::of(vec![Duration::from_millis(7)]).quantile(50), Duration::from_millis(7));
        assert_eq!(Sorted::of(Vec::new()).quantile(99), Duration::ZERO);
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }
}
