//! Policies: overrides from the wire and back, and the policy in effect for readers.

use std::collections::BTreeMap;
use std::time::Duration;

use quiesce_operation::{FailureStrategy, Policy, PolicyOverrides};
use quiesce_protocol::v1;

use super::report::{evidence_from_wire, evidence_to_wire};
use super::{duration_to_wire, int};
use crate::validate::Violations;

/// The set fields of `policy`; what cannot be expressed or is out of bounds whatever it is merged with is noted under
/// `field`.
pub(crate) fn overrides_from_wire(
    policy: Option<&v1::ShutdownPolicy>,
    field: &str,
    bad: &mut Violations,
) -> PolicyOverrides {
    let Some(policy) = policy else { return PolicyOverrides::default() };
    let mut time = |name: &str, value: &Option<prost_types::Duration>| -> Option<Duration> {
        bad.duration(&format!("{field}.{name}"), value.as_ref())
    };
    let retry = policy.retry.unwrap_or_default();
    let mut found = PolicyOverrides {
        grace_period: time("grace_period", &policy.grace_period),
        heartbeat_timeout: time("heartbeat_timeout", &policy.heartbeat_timeout),
        accept_timeout: time("accept_timeout", &policy.accept_timeout),
        kill_timeout: time("kill_timeout", &policy.kill_timeout),
        max_extension: time("max_extension", &policy.max_extension),
        overall_timeout: time("overall_timeout", &policy.overall_timeout),
        settle_period: time("settle_period", &policy.settle_period),
        start_timeout: time("start_timeout", &policy.start_timeout),
        initial_backoff: time("retry.initial_backoff", &retry.initial_backoff),
        max_backoff: time("retry.max_backoff", &retry.max_backoff),
        backoff_multiplier: retry.backoff_multiplier,
        allow_unverified: policy.allow_unverified,
        hold_on_unclean_exit: policy.hold_on_unclean_exit,
        ..PolicyOverrides::default()
    };
    found.max_attempts = bad.count(&format!("{field}.retry.max_attempts"), retry.max_attempts);
    found.max_parallel_stops = bad.count(&format!("{field}.max_parallel_stops"), policy.max_parallel_stops);
    found.failure_strategy = match v1::FailureStrategy::try_from(policy.failure_strategy) {
        Ok(v1::FailureStrategy::Unspecified) => None,
        Ok(v1::FailureStrategy::GiveUp) => Some(FailureStrategy::GiveUp),
        Ok(v1::FailureStrategy::Force) => Some(FailureStrategy::Force),
        Err(_) => {
            bad.unknown_enum(&format!("{field}.failure_strategy"), policy.failure_strategy);
            None
        }
    };
    found.min_evidence = match v1::Evidence::try_from(policy.min_evidence) {
        Ok(v1::Evidence::Unspecified) => None,
        Ok(_) => Some(evidence_from_wire(policy.min_evidence)),
        Err(_) => {
            bad.unknown_enum(&format!("{field}.min_evidence"), policy.min_evidence);
            None
        }
    };
    if !policy.parameters.is_empty() {
        found.parameters = Some(bad.parameters(&format!("{field}.parameters"), &policy.parameters));
    }
    bad.overrides(field, &found);
    found
}

/// The set fields, as they were given.
pub(crate) fn overrides_to_wire(overrides: &PolicyOverrides) -> v1::ShutdownPolicy {
    let o = overrides;
    let retry = v1::RetryPolicy {
        max_attempts: o.max_attempts.map(int),
        initial_backoff: o.initial_backoff.map(duration_to_wire),
        max_backoff: o.max_backoff.map(duration_to_wire),
        backoff_multiplier: o.backoff_multiplier,
    };
    v1::ShutdownPolicy {
        grace_period: o.grace_period.map(duration_to_wire),
        heartbeat_timeout: o.heartbeat_timeout.map(duration_to_wire),
        accept_timeout: o.accept_timeout.map(duration_to_wire),
        kill_timeout: o.kill_timeout.map(duration_to_wire),
        max_extension: o.max_extension.map(duration_to_wire),
        overall_timeout: o.overall_timeout.map(duration_to_wire),
        settle_period: o.settle_period.map(duration_to_wire),
        retry: (retry != v1::RetryPolicy::default()).then_some(retry),
        failure_strategy: o.failure_strategy.map_or(v1::FailureStrategy::Unspecified, strategy_to_wire).into(),
        allow_unverified: o.allow_unverified,
        hold_on_unclean_exit: o.hold_on_unclean_exit,
        max_parallel_stops: o.max_parallel_stops.map(int),
        parameters: o.parameters.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        min_evidence: o.min_evidence.map_or(v1::Evidence::Unspecified, evidence_to_wire).into(),
        start_timeout: o.start_timeout.map(duration_to_wire),
    }
}

/// A policy in effect: every field set.
pub(crate) fn policy_to_wire(policy: &Policy) -> v1::ShutdownPolicy {
    overrides_to_wire(&all_set(policy))
}

fn all_set(policy: &Policy) -> PolicyOverrides {
    let Policy {
        grace_period,
        heartbeat_timeout,
        accept_timeout,
        kill_timeout,
        max_extension,
        overall_timeout,
        settle_period,
        max_attempts,
        initial_backoff,
        max_backoff,
        backoff_multiplier,
        failure_strategy,
        allow_unverified,
        hold_on_unclean_exit,
        max_parallel_stops,
        parameters,
        min_evidence,
        start_timeout,
    } = policy.clone();
    PolicyOverrides {
        grace_period: Some(grace_period),
        heartbeat_timeout: Some(heartbeat_timeout),
        accept_timeout: Some(accept_timeout),
        kill_timeout: Some(kill_timeout),
        max_extension: Some(max_extension),
        overall_timeout: Some(overall_timeout),
        settle_period: Some(settle_period),
        max_attempts: Some(max_attempts),
        initial_backoff: Some(initial_backoff),
        max_backoff: Some(max_backoff),
        backoff_multiplier: Some(backoff_multiplier),
        failure_strategy: Some(failure_strategy),
        allow_unverified: Some(allow_unverified),
        hold_on_unclean_exit: Some(hold_on_unclean_exit),
        max_parallel_stops: Some(max_parallel_stops),
        parameters: Some(BTreeMap::clone(&parameters)),
        min_evidence: Some(min_evidence),
        start_timeout: Some(start_timeout),
    }
}

fn strategy_to_wire(strategy: FailureStrategy) -> v1::FailureStrategy {
    match strategy {
        FailureStrategy::GiveUp => v1::FailureStrategy::GiveUp,
        FailureStrategy::Force => v1::FailureStrategy::Force,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Problem;

    fn violations(policy: v1::ShutdownPolicy) -> Vec<String> {
        let mut bad = Violations::new();
        overrides_from_wire(Some(&policy), "policy", &mut bad);
        match bad.check() {
            Ok(()) => Vec::new(),
            Err(Problem::InvalidFields(found)) => found.into_iter().map(|violation| violation.field).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_cannot_be_expressed_hides_nothing_that_is_out_of_bounds() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let retry = v1::RetryPolicy { max_attempts: Some(500), ..Default::default() };
        let policy = v1::ShutdownPolicy {
            grace_period: seconds(-1),
            start_timeout: seconds(0),
            retry: Some(retry),
            ..Default::default()
        };
        assert_eq!(violations(policy), ["policy.grace_period", "policy.start_timeout", "policy.retry.max_attempts"]);
        // It may fit to what is inherited.
        let retry = v1::RetryPolicy { initial_backoff: seconds(3600), ..Default::default() };
        assert!(violations(v1::ShutdownPolicy { retry: Some(retry), ..Default::default() }).is_empty());
    }
}
