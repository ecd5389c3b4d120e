//! Failed authentications, counted by address, so that whoever guesses or is misconfigured does not fill the logs.
//!
//! A good credential is always good: many callers may share an address with one who fails, and a secret of 256 bits is
//! not found by trying.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::identity::network;

/// Failures within [`WINDOW`] that are answered and recorded one by one: some more than a person with an old token needs
/// to find out.
const FAILURES_MAX: u32 = 20;
/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses that are counted; the oldest make room.
const ADDRESSES_MAX: usize = 4096;

/// Counts failures.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    since_ms: u64,
    count: u32,
}

impl Throttle {
    /// Notes one more failure from there; whether there have been too many.
    pub(crate) fn failed(&self, from: Option<IpAddr>, now_ms: u64) -> bool {
        // Without an address there is nobody to tell apart, and no network either.
        let Some(from) = from.map(network) else { return false };
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&from) {
            failures.retain(|_, one| now_ms.saturating_sub(one.since_ms) < window);
            if failures.len() >= ADDRESSES_MAX
                && let Some(oldest) = failures.iter().min_by_key(|(_, one)| one.since_ms).map(|(address, _)| *address)
            {
                failures.remove(&oldest);
            }
        }
        let one = failures.entry(from).or_insert(Failures { since_ms: now_ms, count: 0 });
        if now_ms.saturating_sub(one.since_ms) >= window {
            *one = Failures { since_ms: now_ms, count: 0 };
        }
        one.count = one.count.saturating_add(1);
        one.count > FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_address_is_throttled_for_as_long_as_the_window_lasts_and_others_are_not() {
        let throttle = Throttle::default();
        let (one, other) = (Some(Ipv4Addr::LOCALHOST.into()), Some(Ipv4Addr::BROADCAST.into()));
        assert!((0..FAILURES_MAX).all(|_| !throttle.failed(one, 0)));
        assert!(throttle.failed(one, 1) && !throttle.failed(other, 1) && !throttle.failed(None, 1));
        assert!(!throttle.failed(one, 60_000));
    }

    #[test]
    fn neighbours_in_a_network_of_one_caller_count_as_one() {
        let throttle = Throttle::default();
        let at = |last| Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last).into());
        assert!((0..FAILURES_MAX).all(|number| !throttle.failed(at(u16::try_from(number).unwrap()), 0)));
        assert!(throttle.failed(at(999), 0));
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::default();
        for number in 0..2 * u32::try_from(ADDRESSES_MAX).unwrap() {
            throttle.failed(Some(Ipv4Addr::from(number).into()), 0);
        }
        assert_eq!(throttle.failures.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
