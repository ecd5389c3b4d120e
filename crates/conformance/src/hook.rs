//! The checks of `ShutdownHook`, in groups, and running them.

use std::collections::BTreeSet;

use quiesce_protocol::v1::Capability;
use tokio::time::{Instant, timeout};

use crate::check::{Check, Group, Need, Stop};
use crate::fixture::Mode;
use crate::run::{CHECK_LIMIT, CheckResult, Outcome, Report, Selection};
use crate::subject::Subject;
use stage::Stage;

mod bad_requests;
mod cancelling;
mod deadlines;
mod dial_in;
mod epochs;
mod idempotency;
mod killing;
mod looking;
mod reachability;
pub(crate) mod reports;
pub mod stage;
mod stopping;

/// All there are.
pub const GROUPS: &[Group] = &[
    Group { name: "reachability", checks: reachability::CHECKS },
    Group { name: "stopping", checks: stopping::CHECKS },
    Group { name: "bad-requests", checks: bad_requests::CHECKS },
    Group { name: "idempotency", checks: idempotency::CHECKS },
    Group { name: "killing", checks: killing::CHECKS },
    Group { name: "deadlines", checks: deadlines::CHECKS },
    Group { name: "cancelling", checks: cancelling::CHECKS },
    Group { name: "looking", checks: looking::CHECKS },
    Group { name: "epochs", checks: epochs::CHECKS },
    Group { name: "dial-in", checks: dial_in::CHECKS },
];

/// Nothing could be checked: the fixture does not work, or the hook does not answer at all.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BeginError {
    /// The fixture does not work.
    #[error("the fixture does not work: {0}")]
    Fixture(String),
    /// The hook does not answer.
    #[error("the hook cannot be reached: expected {expected}, but {seen}")]
    Hook {
        /// What was waited for.
        expected: String,
        /// What happened instead.
        seen: String,
    },
}

/// Runs the checks that `selection` takes, one after the other since there is one application; `told` hears of each
/// result as it comes.
///
/// # Errors
/// That nothing could be checked at all.
pub async fn run(
    subject: &Subject,
    selection: &Selection,
    mut told: impl FnMut(&CheckResult),
) -> Result<Report, BeginError> {
    let mut report = Report::default();
    let taken = || {
        let of = |group: &'static Group| group.checks.iter().map(move |check| (group.name, check));
        GROUPS.iter().flat_map(of).filter(|(group, check)| selection.takes(group, check.id))
    };
    if taken().next().is_none() {
        return Ok(report);
    }
    let known = Known::find_out(subject).await?;
    for (group, check) in taken() {
        let began = Instant::now();
        let verdict = match known.missing(subject, check) {
            Some(reason) => Err(Stop::Skipped(reason)),
            None => perform(subject, &known, check).await,
        };
        let result = CheckResult {
            group,
            check: check.about(),
            outcome: Outcome::from(verdict),
            duration: began.elapsed(),
            expected_failure: selection.expected_failures.get(check.id).cloned(),
        };
        told(&result);
        report.results.push(result);
    }
    Ok(report)
}

/// One check, and the stage cleared behind it.
async fn perform(subject: &Subject, known: &Known, check: &Check) -> Result<(), Stop> {
    let waits = subject.settings.waits;
    let longest = [waits.kept, waits.silent, waits.unread, waits.overdue, waits.ping, waits.away].into_iter().max();
    let limit = CHECK_LIMIT + longest.unwrap_or_default();
    let stage = Stage::new(subject.clone(), known.capabilities.clone(), known.instance.clone(), check.id);
    let verdict = match timeout(limit, (check.run)(&stage)).await {
        Ok(verdict) => verdict,
        Err(_elapsed) => Err(Stop::failed(format!("an end of this check within {limit:?}"), "it hangs")),
    };
    if let Some(gateway) = subject.gateway() {
        gateway.go_away(false);
        gateway.refuse(0);
    }
    // What a check left running must not be in the way of the next one. A verdict comes before a fixture that fails.
    let cleared = subject.fixture.kill().await;
    verdict.and_then(|()| cleared.map_err(Stop::from))
}

/// What is found out once.
struct Known {
    capabilities: BTreeSet<Capability>,
    instance: String,
    modes: Vec<Mode>,
    bearer: bool,
    dials: bool,
}

impl Known {
    async fn find_out(subject: &Subject) -> Result<Self, BeginError> {
        let found = async {
            subject.fixture.start(Mode::Fast).await?;
            let mut connection = subject.connect().await?;
            let info = connection.hook.get_hook_info(quiesce_protocol::v1::GetHookInfoRequest {}).await;
            let info = info.map_err(|status| Stop::failed("an answer to GetHookInfo", crate::check::tell(&status)))?;
            let info = info.into_inner().info.unwrap_or_default();
            let registered = subject.gateway().and_then(|gateway| gateway.instance());
            let named = subject.settings.instance.clone().or(registered).unwrap_or_default();
            Ok(Self {
                capabilities: info.capabilities().collect(),
                instance: if info.instance.is_empty() { named } else { info.instance },
                modes: subject.fixture.modes(),
                bearer: subject.bearer().is_some(),
                dials: subject.gateway().is_some_and(|gateway| gateway.is_dialled()),
            })
        };
        let found = found.await;
        // There is nothing to judge yet; whatever is wrong with it shows again at once.
        let _cleared = subject.fixture.kill().await;
        found.map_err(|stop| match stop {
            Stop::Failed { expected, seen } => BeginError::Hook { expected, seen },
            Stop::Broken(problem) | Stop::Skipped(problem) => BeginError::Fixture(problem),
        })
    }

    /// Why the check makes no sense here.
    fn missing(&self, subject: &Subject, check: &Check) -> Option<String> {
        check.needs.iter().find_map(|need| match *need {
            Need::Mode(mode) if !self.modes.contains(&mode) => Some(format!("app.modes does not have \"{mode}\"")),
            Need::Capability(capability) if !self.capabilities.contains(&capability) => {
                Some(format!("the hook does not announce {}", capability.as_str_name()))
            }
            Need::Restart if !subject.fixture.can_restart() => Some("agent.restart is not set".to_owned()),
            Need::Bearer if !self.bearer => Some(
                "the hook takes no bearer token: its connection is its credential, or hook.bearer is not set"
                    .to_owned(),
            ),
            Need::Instance if self.instance.is_empty() => {
                Some("the hook does not say which instance it serves, and hook.instance is not set".to_owned())
            }
            Need::DialIn if !self.dials => Some("the hook does not dial in (--accept)".to_owned()),
            Need::Mode(_) | Need::Capability(_) | Need::Restart | Need::Bearer | Need::Instance | Need::DialIn => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;
    use crate::rules;

    #[test]
    fn ids_are_unique_and_every_check_says_what_it_is() {
        let mut seen = BTreeSet::new();
        for check in GROUPS.iter().flat_map(|group| group.checks) {
            assert!(seen.insert(check.id), "{} twice", check.id);
            assert!(rules::ALL.contains(&check.rule), "{}: its rule is none of the contract", check.id);
            assert!(!check.title.is_empty() && !check.advice.is_empty(), "{}", check.id);
            let announced = check.needs.iter().any(|need| matches!(need, Need::Capability(_)));
            assert_eq!(check.level == Level::Capability, announced, "{}: level C goes with a capability", check.id);
        }
    }
}
