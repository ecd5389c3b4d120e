//! Field masks of updates: which leaves of a resource a caller wants to change.
//!
//! A mask is turned into the set of leaves it covers, before anything is written. A leaf that is covered but unset in
//! the request is cleared.

use quiesce_operation::PolicyOverrides;

use crate::status::shown;
use crate::validate::Violations;

/// Most paths of a mask: far more than a resource has leaves.
const PATHS_MAX: usize = 100;

/// Leaves of `Application.policy`: path, how to copy it, whether it is set.
type PolicyLeaf = (&'static str, fn(&mut PolicyOverrides, &PolicyOverrides), fn(&PolicyOverrides) -> bool);

macro_rules! policy_leaves {
    ($($path:literal => $field:ident),+ $(,)?) => {
        &[$((concat!("policy.", $path), |to, from| to.$field.clone_from(&from.$field), |of| of.$field.is_some())),+]
    };
}

const POLICY_LEAVES: &[PolicyLeaf] = policy_leaves! {
    "grace_period" => grace_period,
    "heartbeat_timeout" => heartbeat_timeout,
    "accept_timeout" => accept_timeout,
    "kill_timeout" => kill_timeout,
    "max_extension" => max_extension,
    "overall_timeout" => overall_timeout,
    "settle_period" => settle_period,
    "retry.max_attempts" => max_attempts,
    "retry.initial_backoff" => initial_backoff,
    "retry.max_backoff" => max_backoff,
    "retry.backoff_multiplier" => backoff_multiplier,
    "failure_strategy" => failure_strategy,
    "allow_unverified" => allow_unverified,
    "hold_on_unclean_exit" => hold_on_unclean_exit,
    "max_parallel_stops" => max_parallel_stops,
    "parameters" => parameters,
    "min_evidence" => min_evidence,
    "start_timeout" => start_timeout,
};

/// Fields of a resource that only the scheduler writes; a mask may name them, to no effect.
const OUTPUT_ONLY: &[&str] = &[
    "name",
    "etag",
    "state",
    "active_operation",
    "instance_count",
    "ready_instance_count",
    "standby_instance_count",
    "application_count",
    "create_time",
    "update_time",
    "epoch",
];

/// Leaves that are covered by their own name only: a person's word, never said in passing.
const ONLY_BY_NAME: &[&str] = &["restore_time"];

/// The leaves that an update covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    leaves: Vec<&'static str>,
}

impl Mask {
    /// The leaves covered by `paths`, for a resource with the plain leaves `plain` and, if `policy`, those of a policy.
    /// A path covers itself and everything below; `*` covers all. Unknown paths are violations.
    pub(crate) fn parse(paths: &[String], plain: &'static [&'static str], policy: bool, bad: &mut Violations) -> Self {
        if paths.len() > PATHS_MAX {
            bad.add("update_mask", format!("must have at most {PATHS_MAX} paths, has {}", paths.len()));
            return Self { leaves: Vec::new() };
        }
        let covers = |path: &str, leaf: &str| {
            (path == "*" && !ONLY_BY_NAME.contains(&leaf))
                || leaf == path
                || leaf.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
        };
        let all: Vec<&'static str> = all_leaves(plain, policy);
        for path in paths {
            if !all.iter().any(|leaf| covers(path, leaf)) && !OUTPUT_ONLY.contains(&path.as_str()) {
                bad.add("update_mask", format!("`{}` is not a field that can be changed", shown(path)));
            }
        }
        Self { leaves: all.into_iter().filter(|leaf| paths.iter().any(|path| covers(path, leaf))).collect() }
    }

    /// The leaves for which `is_set` says that the request has them: the meaning of a mask that is not there.
    pub(crate) fn of_set(
        plain: &'static [&'static str],
        is_set: impl Fn(&str) -> bool,
        policy: &PolicyOverrides,
    ) -> Self {
        let plain = plain.iter().copied().filter(|leaf| is_set(leaf));
        let policy = POLICY_LEAVES.iter().filter(|(_, _, is_set)| is_set(policy)).map(|(path, _, _)| *path);
        Self { leaves: plain.chain(policy).collect() }
    }

    /// The leaves, for telling requests apart.
    pub(crate) fn leaves(&self) -> &[&'static str] {
        &self.leaves
    }

    /// Whether `leaf` is covered.
    pub(crate) fn covers(&self, leaf: &str) -> bool {
        self.leaves.contains(&leaf)
    }

    /// Copies the covered leaves of a policy.
    pub(crate) fn apply_policy(&self, to: &mut PolicyOverrides, from: &PolicyOverrides) {
        for (path, copy, _) in POLICY_LEAVES {
            if self.covers(path) {
                copy(to, from);
            }
        }
    }
}

fn all_leaves(plain: &'static [&'static str], policy: bool) -> Vec<&'static str> {
    let policy: &[PolicyLeaf] = if policy { POLICY_LEAVES } else { &[] };
    plain.iter().copied().chain(policy.iter().map(|(path, _, _)| *path)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PLAIN: &[&str] = &["display_name", "labels"];

    fn mask(paths: &[&str]) -> (Mask, bool) {
        let mut bad = Violations::new();
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mask = Mask::parse(&paths, PLAIN, true, &mut bad);
        (mask, bad.check().is_ok())
    }

    #[test]
    fn a_path_covers_what_is_below_it() {
        assert!(mask(&["policy.retry"]).0.covers("policy.retry.max_backoff"));
        assert!(!mask(&["policy.retry"]).0.covers("policy.grace_period"));
        assert!(mask(&["*"]).0.covers("labels") && mask(&["policy"]).0.covers("policy.parameters"));
        assert!(!mask(&["pol"]).1 && !mask(&["policy.grace"]).1 && !mask(&[""]).1);
        assert!(mask(&["etag", "state"]).1, "output-only fields are ignored");
    }

    #[test]
    fn covered_leaves_are_copied_even_when_unset() {
        let second = Some(Duration::from_secs(1));
        let mut to = PolicyOverrides { grace_period: second, kill_timeout: second, ..PolicyOverrides::default() };
        mask(&["policy.grace_period"]).0.apply_policy(&mut to, &PolicyOverrides::default());
        assert_eq!((to.grace_period, to.kill_timeout), (None, second));
    }

    #[test]
    fn without_a_mask_what_is_set_counts() {
        let policy = PolicyOverrides { max_attempts: Some(2), ..PolicyOverrides::default() };
        let mask = Mask::of_set(PLAIN, |leaf| leaf == "labels", &policy);
        assert!(mask.covers("labels") && mask.covers("policy.retry.max_attempts"));
        assert!(!mask.covers("display_name") && !mask.covers("policy.grace_period"));
    }
}
