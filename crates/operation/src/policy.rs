//! How an application is stopped: the policy, its bounds, and how its three levels merge.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::report::Evidence;

/// Longest duration a policy may hold.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Shortest heartbeat timeout: hooks are asked to report three times as often, and faster than that is noise.
pub const HEARTBEAT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Most attempts in one round.
pub const ATTEMPTS_MAX: u32 = 100;
/// Shortest first backoff.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Largest backoff multiplier.
pub const MULTIPLIER_MAX: f64 = 10.0;

/// What to do when every attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum FailureStrategy {
    /// Stop nothing by force; rest in DEGRADED until someone decides.
    #[n(0)]
    GiveUp,
    /// Kill, verify, go on.
    #[n(1)]
    Force,
}

/// A policy with every field set, as it is in force for one operation.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Policy {
    /// Time of one attempt, from acceptance to the end of the application.
    #[n(0)]
    pub grace_period: Duration,
    /// Longest silence of a running shutdown.
    #[n(1)]
    pub heartbeat_timeout: Duration,
    /// Longest wait for a hook to answer at all.
    #[n(2)]
    pub accept_timeout: Duration,
    /// Longest wait for the end after a kill.
    #[n(3)]
    pub kill_timeout: Duration,
    /// By how much the application may prolong `grace_period` in total, per attempt.
    #[n(4)]
    pub max_extension: Duration,
    /// Limit for all attempts together until everything has stopped; zero: none.
    #[n(5)]
    pub overall_timeout: Duration,
    /// How long a hook watches after the end that nothing starts the application again.
    #[n(6)]
    pub settle_period: Duration,
    /// Attempts in one round, the first included.
    #[n(7)]
    pub max_attempts: u32,
    /// Wait before the second attempt.
    #[n(8)]
    pub initial_backoff: Duration,
    /// Longest wait between attempts.
    #[n(9)]
    pub max_backoff: Duration,
    /// Growth of the wait from attempt to attempt.
    #[n(10)]
    pub backoff_multiplier: f64,
    /// What to do when the last attempt has failed.
    #[n(11)]
    pub failure_strategy: FailureStrategy,
    /// With [`FailureStrategy::Force`]: go on although an end could not be verified.
    #[n(12)]
    pub allow_unverified: bool,
    /// Rest in DEGRADED when an application did not end cleanly.
    #[n(13)]
    pub hold_on_unclean_exit: bool,
    /// How many instances of equal stop order are stopped at a time; zero: all.
    #[n(14)]
    pub max_parallel_stops: u32,
    /// Passed to the hooks as they are.
    #[n(15)]
    pub parameters: BTreeMap<String, String>,
    /// The weakest evidence that counts as a verified end; never [`Evidence::Claimed`].
    #[n(16)]
    pub min_evidence: Evidence,
    /// Longest wait for a started instance to become ready.
    #[n(17)]
    pub start_timeout: Duration,
}

impl Policy {
    /// The built-in defaults of the contract.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            grace_period: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(15),
            accept_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(10),
            max_extension: Duration::ZERO,
            overall_timeout: Duration::ZERO,
            settle_period: Duration::ZERO,
            max_attempts: 3,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            backoff_multiplier: 2.0,
            failure_strategy: FailureStrategy::GiveUp,
            allow_unverified: false,
            hold_on_unclean_exit: false,
            max_parallel_stops: 0,
            parameters: BTreeMap::new(),
            min_evidence: Evidence::ProcessGone,
            start_timeout: Duration::from_secs(120),
        }
    }

    /// This policy with the set fields of `overrides` in place of its own. A map is replaced as a whole.
    #[must_use]
    pub fn with(&self, overrides: &PolicyOverrides) -> Self {
        let o = overrides;
        Self {
            grace_period: o.grace_period.unwrap_or(self.grace_period),
            heartbeat_timeout: o.heartbeat_timeout.unwrap_or(self.heartbeat_timeout),
            accept_timeout: o.accept_timeout.unwrap_or(self.accept_timeout),
            kill_timeout: o.kill_timeout.unwrap_or(self.kill_timeout),
            max_extension: o.max_extension.unwrap_or(self.max_extension),
            overall_timeout: o.overall_timeout.unwrap_or(self.overall_timeout),
            settle_period: o.settle_period.unwrap_or(self.settle_period),
            max_attempts: o.max_attempts.unwrap_or(self.max_attempts),
            initial_backoff: o.initial_backoff.unwrap_or(self.initial_backoff),
            max_backoff: o.max_backoff.unwrap_or(self.max_backoff),
            backoff_multiplier: o.backoff_multiplier.unwrap_or(self.backoff_multiplier),
            failure_strategy: o.failure_strategy.unwrap_or(self.failure_strategy),
            allow_unverified: o.allow_unverified.unwrap_or(self.allow_unverified),
            hold_on_unclean_exit: o.hold_on_unclean_exit.unwrap_or(self.hold_on_unclean_exit),
            max_parallel_stops: o.max_parallel_stops.unwrap_or(self.max_parallel_stops),
            parameters: o.parameters.clone().unwrap_or_else(|| self.parameters.clone()),
            min_evidence: o.min_evidence.unwrap_or(self.min_evidence),
            start_timeout: o.start_timeout.unwrap_or(self.start_timeout),
        }
    }

    /// Every field that is out of bounds, as (field path of the contract, what is wrong). Empty: the policy is good.
    #[must_use]
    pub fn violations(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut bound = |field: &'static str, value: Duration, min: Duration| {
            if value < min || value > DURATION_MAX {
                found.push((field, format!("must be between {min:?} and 24h, is {value:?}")));
            }
        };
        let second = Duration::from_secs(1);
        bound("grace_period", self.grace_period, Duration::ZERO);
        bound("heartbeat_timeout", self.heartbeat_timeout, HEARTBEAT_TIMEOUT_MIN);
        bound("accept_timeout", self.accept_timeout, BACKOFF_MIN);
        bound("kill_timeout", self.kill_timeout, BACKOFF_MIN);
        bound("max_extension", self.max_extension, Duration::ZERO);
        bound("overall_timeout", self.overall_timeout, Duration::ZERO);
        bound("settle_period", self.settle_period, Duration::ZERO);
        bound("start_timeout", self.start_timeout, second);
        bound("retry.initial_backoff", self.initial_backoff, BACKOFF_MIN);
        // An initial backoff that is out of bounds itself is not the fault of the maximum.
        let initial = if self.initial_backoff <= DURATION_MAX { self.initial_backoff } else { BACKOFF_MIN };
        bound("retry.max_backoff", self.max_backoff, initial);
        if self.max_attempts == 0 || self.max_attempts > ATTEMPTS_MAX {
            found.push((
                "retry.max_attempts",
                format!("must be between 1 and {ATTEMPTS_MAX}, is {}", self.max_attempts),
            ));
        }
        if !(1.0..=MULTIPLIER_MAX).contains(&self.backoff_multiplier) {
            let value = self.backoff_multiplier;
            found.push(("retry.backoff_multiplier", format!("must be between 1 and {MULTIPLIER_MAX}, is {value}")));
        }
        if self.min_evidence == Evidence::Claimed {
            found.push(("min_evidence", "a claim never verifies an end".to_owned()));
        }
        found
    }

    /// The wait before attempt `attempt` (2 or more), with the jitter factor for `seed`: between 0.8 and 1.2, the same
    /// for the same seed. The seed stands in for randomness, which the core has none of.
    #[must_use]
    pub fn backoff(&self, attempt: u32, seed: u64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(2)).unwrap_or(i32::MAX);
        let wait = self.initial_backoff.as_secs_f64() * self.backoff_multiplier.powi(exponent);
        let wait = wait.min(self.max_backoff.as_secs_f64());
        let fraction = (mix(seed) >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(wait * (0.8 + 0.4 * fraction))
    }
}

/// The finalizer of splitmix64: spreads neighbouring seeds over all of u64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A policy in which every field may be unset; unset means "inherit".
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[allow(missing_docs, reason = "the fields are those of `Policy`, described there")]
pub struct PolicyOverrides {
    #[n(0)]
    pub grace_period: Option<Duration>,
    #[n(1)]
    pub heartbeat_timeout: Option<Duration>,
    #[n(2)]
    pub accept_timeout: Option<Duration>,
    #[n(3)]
    pub kill_timeout: Option<Duration>,
    #[n(4)]
    pub max_extension: Option<Duration>,
    #[n(5)]
    pub overall_timeout: Option<Duration>,
    #[n(6)]
    pub settle_period: Option<Duration>,
    #[n(7)]
    pub max_attempts: Option<u32>,
    #[n(8)]
    pub initial_backoff: Option<Duration>,
    #[n(9)]
    pub max_backoff: Option<Duration>,
    #[n(10)]
    pub backoff_multiplier: Option<f64>,
    #[n(11)]
    pub failure_strategy: Option<FailureStrategy>,
    #[n(12)]
    pub allow_unverified: Option<bool>,
    #[n(13)]
    pub hold_on_unclean_exit: Option<bool>,
    #[n(14)]
    pub max_parallel_stops: Option<u32>,
    #[n(15)]
    pub parameters: Option<BTreeMap<String, String>>,
    #[n(16)]
    pub min_evidence: Option<Evidence>,
    #[n(17)]
    pub start_timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_policy_is_within_its_own_bounds() {
        assert_eq!(Policy::built_in().violations(), []);
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let bad = PolicyOverrides {
            heartbeat_timeout: Some(Duration::ZERO),
            max_attempts: Some(0),
            backoff_multiplier: Some(f64::NAN),
            min_evidence: Some(Evidence::Claimed),
            max_backoff: Some(Duration::from_millis(500)),
            ..PolicyOverrides::default()
        };
        let fields: Vec<_> = Policy::built_in().with(&bad).violations().into_iter().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            [
                "heartbeat_timeout",
                "retry.max_backoff",
                "retry.max_attempts",
                "retry.backoff_multiplier",
                "min_evidence"
            ]
        );
    }

    #[test]
    fn unset_fields_inherit_and_maps_are_replaced_whole() {
        let application = PolicyOverrides {
            grace_period: Some(Duration::from_secs(5)),
            parameters: Some(BTreeMap::from([("a".to_owned(), "1".to_owned())])),
            ..PolicyOverrides::default()
        };
        let request = PolicyOverrides {
            parameters: Some(BTreeMap::from([("b".to_owned(), "2".to_owned())])),
            ..PolicyOverrides::default()
        };
        let merged = Policy::built_in().with(&application).with(&request);
        assert_eq!(merged.grace_period, Duration::from_secs(5));
        assert_eq!(merged.accept_timeout, Policy::built_in().accept_timeout);
        assert_eq!(merged.parameters, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn backoff_doubles_to_its_cap_within_the_jitter() {
        let policy = Policy::built_in();
        for seed in 0..1000 {
            for (attempt, nominal) in [(2, 1.0), (3, 2.0), (4, 4.0), (9, 60.0), (100, 60.0)] {
                let wait = policy.backoff(attempt, seed).as_secs_f64();
                assert!((nominal * 0.8..=nominal * 1.2).contains(&wait), "attempt {attempt}, seed {seed}: {wait}");
            }
        }
        assert_ne!(policy.backoff(2, 1), policy.backoff(2, 2), "jitter must differ between operations");
    }
}
