//! The checks of a scheduler, in groups, and running them.
//!
//! They know a scheduler by the public services alone. Hooks are played by the checks themselves; every check uses names
//! of its own and takes away what it made, so that checks run beside each other and beside other users of that scheduler.

use std::fmt;

use futures::stream::{self, StreamExt as _};
use quiesce_protocol::v1;
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::check::{self, Stop};
use crate::run::{CHECK_LIMIT, CheckResult, Outcome, Report, Selection};
use stage::Stage;
use subject::Subject;

/// A table of checks: id, level, title, rule, advice, what is needed, the function.
macro_rules! checks {
    ($($id:ident $level:ident $title:literal, $rule:expr, $advice:literal, [$($need:expr),*], $run:path;)*) => {
        &[$(crate::check::Check {
            id: stringify!($id),
            level: crate::check::Level::$level,
            title: $title,
            rule: $rule,
            advice: $advice,
            needs: &[$($need),*],
            run: |stage| Box::pin($run(stage)),
        }),*]
    };
}

mod admitting;
pub mod args;
mod attempts;
mod completion;
mod deciding;
mod dialling;
mod durability;
mod errors;
mod extensions;
pub(crate) mod fake;
mod lists;
mod operations;
mod resources;
mod rules;
pub mod stage;
mod starting;
pub mod subject;
mod watches;

/// One check of a scheduler.
type Check = check::Check<Stage, Need>;
/// Checks of a scheduler that belong together.
pub type Group = check::Group<Stage, Need>;

/// What has to be there for a check to make sense. What is missing skips it, and is the reason that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The scheduler can be started anew.
    Restart,
    /// Callers need a token.
    Enforced,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "scheduler.restart",
            Self::Enforced => "access enforced",
        })
    }
}

/// All there are.
pub const GROUPS: &[Group] = &[
    Group { name: "resources", checks: resources::CHECKS },
    Group { name: "lists", checks: lists::CHECKS },
    Group { name: "operations", checks: operations::CHECKS },
    Group { name: "attempts", checks: attempts::CHECKS },
    Group { name: "starting", checks: starting::CHECKS },
    Group { name: "admitting", checks: admitting::CHECKS },
    Group { name: "extensions", checks: extensions::CHECKS },
    Group { name: "completion", checks: completion::CHECKS },
    Group { name: "deciding", checks: deciding::CHECKS },
    Group { name: "watches", checks: watches::CHECKS },
    Group { name: "errors", checks: errors::CHECKS },
    Group { name: "dialling", checks: dialling::CHECKS },
    Group { name: "durability", checks: durability::CHECKS },
];

/// How many checks are under way at a time. They mostly wait for timers; more would make a small scheduler late.
const PARALLEL: usize = 4;

/// The scheduler does not answer at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the scheduler cannot be used: expected {expected}, but {seen}")]
pub struct BeginError {
    /// What was waited for.
    pub expected: String,
    /// What happened instead.
    pub seen: String,
}

/// Runs the checks that `selection` takes, several at a time except for those that start the scheduler anew, which come
/// last; `told` hears of each result, in their order.
///
/// # Errors
/// That nothing could be checked at all.
pub async fn run(
    subject: &Subject,
    selection: &Selection,
    mut told: impl FnMut(&CheckResult),
) -> Result<Report, BeginError> {
    let mut report = Report::default();
    let of = |group: &'static Group| group.checks.iter().map(move |check| (group.name, check));
    let taken = GROUPS.iter().flat_map(of).filter(|(group, check)| selection.takes(group, check.id));
    let (alone, together): (Vec<_>, Vec<_>) = taken.partition(|(_, check)| check.needs.contains(&Need::Restart));
    if alone.is_empty() && together.is_empty() {
        return Ok(report);
    }
    let known = &Known::find_out(subject).await?;
    let judge = |(group, check): (&'static str, &'static Check)| async move {
        let began = Instant::now();
        let verdict = match known.missing(subject, check) {
            Some(reason) => Err(Stop::Skipped(reason)),
            None => perform(subject, known, check).await,
        };
        CheckResult {
            group,
            check: check.about(),
            outcome: Outcome::from(verdict),
            duration: began.elapsed(),
            expected_failure: selection.expected_failures.get(check.id).cloned(),
        }
    };
    for (checks, parallel) in [(together, PARALLEL), (alone, 1)] {
        let mut results = stream::iter(checks).map(judge).buffered(parallel);
        while let Some(result) = results.next().await {
            told(&result);
            report.results.push(result);
        }
    }
    Ok(report)
}

/// One check, and everything cleared away behind it.
async fn perform(subject: &Subject, known: &Known, check: &Check) -> Result<(), Stop> {
    let stage = Stage::new(subject.clone(), known.info.clone(), check.id).await?;
    let verdict = match timeout(CHECK_LIMIT, (check.run)(&stage)).await {
        Ok(verdict) => verdict,
        Err(_elapsed) => Err(Stop::failed(format!("an end of this check within {CHECK_LIMIT:?}"), "it hangs")),
    };
    // A verdict comes before a stage that cannot be cleared.
    let cleared = stage.clear(verdict.is_err()).await;
    verdict.and(cleared)
}

/// What is found out once.
struct Known {
    info: v1::GetServerInfoResponse,
    enforced: bool,
}

impl Known {
    async fn find_out(subject: &Subject) -> Result<Self, BeginError> {
        let found = async {
            let mut calls = subject.connect().await?;
            let info = stage::ok("GetServerInfo", calls.scheduler.get_server_info(v1::GetServerInfoRequest {}).await)?;
            let mut nobody = calls.with_bearer(None);
            let refused = nobody.scheduler.get_server_info(v1::GetServerInfoRequest {}).await;
            let enforced = refused.is_err_and(|status| status.code() == Code::Unauthenticated);
            Ok(Self { info, enforced })
        };
        found.await.map_err(|stop| match stop {
            Stop::Failed { expected, seen } => BeginError { expected, seen },
            Stop::Broken(seen) | Stop::Skipped(seen) => BeginError { expected: "an answer".to_owned(), seen },
        })
    }

    /// Why the check makes no sense here.
    fn missing(&self, subject: &Subject, check: &Check) -> Option<String> {
        check.needs.iter().find_map(|need| match *need {
            Need::Restart if subject.restart.is_none() => Some("scheduler.restart is not set".to_owned()),
            Need::Enforced if !self.enforced => {
                Some("the scheduler serves callers without a token: access is open".to_owned())
            }
            Need::Restart | Need::Enforced => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_every_check_says_what_it_is() {
        let mut seen = BTreeSet::new();
        for check in GROUPS.iter().flat_map(|group| group.checks) {
            assert!(seen.insert(check.id), "{} twice", check.id);
            assert!(rules::ALL.contains(&check.rule), "{}: its rule is none of the contract", check.id);
            assert!(!check.title.is_empty() && !check.advice.is_empty(), "{}", check.id);
        }
    }
}
