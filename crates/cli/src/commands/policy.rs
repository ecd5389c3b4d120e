//! Flags to policy overrides.

use quiesce_protocol::v1::{FailureStrategy, RetryPolicy, ShutdownPolicy};

use crate::args::PolicyArgs;

/// The overrides; `None` when no flag was given. `force` adds [`FailureStrategy::Force`].
pub(super) fn overrides(args: &PolicyArgs, force: bool) -> Option<ShutdownPolicy> {
    let duration = |value: Option<std::time::Duration>| {
        // Seven days at most (see `args::duration`), so it fits.
        value.and_then(|value| prost_types::Duration::try_from(value).ok())
    };
    let policy = ShutdownPolicy {
        grace_period: duration(args.grace_period),
        max_extension: duration(args.max_extension),
        start_timeout: duration(args.start_timeout),
        retry: args.attempts.map(|attempts| RetryPolicy { max_attempts: Some(attempts), ..RetryPolicy::default() }),
        failure_strategy: if force { FailureStrategy::Force } else { FailureStrategy::Unspecified }.into(),
        allow_unverified: args.allow_unverified.then_some(true),
        ..ShutdownPolicy::default()
    };
    (policy != ShutdownPolicy::default()).then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_flag_overrides_nothing() {
        assert_eq!(overrides(&PolicyArgs::default(), false), None);
    }

    #[test]
    fn force_is_the_strategy_of_this_operation() {
        let args = PolicyArgs { grace_period: Some(Duration::from_secs(5)), ..PolicyArgs::default() };
        let policy = overrides(&args, true).unwrap();
        assert_eq!(policy.failure_strategy(), FailureStrategy::Force);
        assert_eq!(policy.grace_period, Some(prost_types::Duration { seconds: 5, nanos: 0 }));
        assert_eq!(policy.retry, None);
    }
}
