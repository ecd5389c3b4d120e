//! Chance from a seed: the same seed, the same numbers, on every machine and with every version of this project.
//!
//! That is why it is written down here instead of taken from a library, which promises that for one version at most:
//! a seed that once found a bug has to find it for ever.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). Clones share the sequence.
#[derive(Debug, Clone)]
pub struct Chance(Arc<Mutex<u64>>);

impl Chance {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A sequence of its own, so that what draws from it does not disturb others.
    #[must_use]
    pub fn split(&self) -> Self {
        Self::new(self.next())
    }

    /// 64 random bits.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range.
    pub fn within(&self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start()).saturating_add(1);
        range.start() + self.next() % span.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// True in `count` of a thousand cases.
    pub fn permille(&self, count: u64) -> bool {
        self.next() % 1000 < count
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        let last = u64::try_from(of.len()).unwrap_or(u64::MAX).saturating_sub(1);
        of[usize::try_from(self.within(0..=last)).unwrap_or(0)]
    }

    /// A span of milliseconds.
    pub fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Fills a buffer.
    pub fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_sequence() {
        // The first numbers of SplitMix64 for seed 1234567, as its authors publish them.
        let chance = Chance::new(1_234_567);
        assert_eq!(chance.next(), 6_457_827_717_110_365_317);
        assert_eq!(chance.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_number_stays_in_its_range() {
        let chance = Chance::new(1);
        assert!((0..1000).map(|_| chance.within(3..=5)).all(|number| (3..=5).contains(&number)));
        assert_eq!(chance.within(7..=7), 7);
    }
}
