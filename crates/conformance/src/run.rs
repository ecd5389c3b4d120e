//! Running checks, and what came of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use regex::Regex;
use serde::Serialize;

use crate::check::{About, Level, Stop};

/// Longest time one check may take beside what it was told to wait: what hangs is a failure, and the next ones get their
/// turn.
pub const CHECK_LIMIT: Duration = Duration::from_secs(120);

/// Which checks are run, and which of them are known to fail.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only groups whose name contains a match.
    pub suite: Option<Regex>,
    /// Only checks whose id is matched.
    pub case: Option<Regex>,
    /// Ids that are expected to fail, each with the reason.
    pub expected_failures: BTreeMap<String, String>,
}

impl Selection {
    /// Whether this check is to be run.
    #[must_use]
    pub fn takes(&self, group: &str, id: &str) -> bool {
        self.suite.as_ref().is_none_or(|suite| suite.is_match(group))
            && self.case.as_ref().is_none_or(|case| case.is_match(id))
    }

    /// Reads a file of expected failures: an id at the beginning of each line, then the reason; `#` begins a comment.
    ///
    /// # Errors
    /// Every line that is none, by its number.
    pub fn parse_expected(text: &str, known: &[&str]) -> Result<BTreeMap<String, String>, Vec<String>> {
        let mut expected = BTreeMap::new();
        let mut problems = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (id, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            if known.contains(&id) {
                expected.insert(id.to_owned(), reason.trim().to_owned());
            } else {
                problems.push(format!("line {}: there is no check {id:?}", number + 1));
            }
        }
        if problems.is_empty() { Ok(expected) } else { Err(problems) }
    }
}

/// How one check came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// The rule is kept.
    Passed,
    /// It does not.
    Failed {
        /// What the rule asks for.
        expected: String,
        /// What happened instead.
        seen: String,
    },
    /// It was not judged, and why.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The fixture did not do its part.
    Broken {
        /// What went wrong.
        problem: String,
    },
}

impl From<Result<(), Stop>> for Outcome {
    fn from(verdict: Result<(), Stop>) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Stop::Failed { expected, seen }) => Self::Failed { expected, seen },
            Err(Stop::Skipped(reason)) => Self::Skipped { reason },
            Err(Stop::Broken(problem)) => Self::Broken { problem },
        }
    }
}

/// A check that was run.
#[derive(Debug, Clone)]
pub struct CheckResult {
    /// Name of its group.
    pub group: &'static str,
    /// Which.
    pub check: About,
    /// How it came out.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// The reason why it was expected to fail, if it was.
    pub expected_failure: Option<String>,
}

/// What a result means for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it should be.
    Passed,
    /// Counts against what is judged.
    Failed,
    /// Counts only when one is strict.
    Warning,
    /// Known to fail, and does.
    ExpectedFailure,
    /// Known to fail, and does not: the list is out of date.
    UnexpectedPass,
    /// Not judged.
    Skipped,
}

impl CheckResult {
    /// What it means for the whole.
    #[must_use]
    pub fn standing(&self, strict: bool) -> Standing {
        match (&self.outcome, &self.expected_failure) {
            (Outcome::Passed, None) => Standing::Passed,
            (Outcome::Passed, Some(_)) => Standing::UnexpectedPass,
            (Outcome::Skipped { .. }, _) => Standing::Skipped,
            (Outcome::Failed { .. }, Some(_)) => Standing::ExpectedFailure,
            (Outcome::Failed { .. }, None) if self.check.level == Level::Should && !strict => Standing::Warning,
            // Of a fixture that does not work nothing was expected.
            (Outcome::Failed { .. } | Outcome::Broken { .. }, _) => Standing::Failed,
        }
    }
}

/// All results of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order in which they were run.
    pub results: Vec<CheckResult>,
}

impl Report {
    /// Whether nothing counts against what was judged, and no list of expected failures is out of date.
    #[must_use]
    pub fn is_passed(&self, strict: bool) -> bool {
        let bad = |result: &CheckResult| matches!(result.standing(strict), Standing::Failed | Standing::UnexpectedPass);
        !self.results.iter().any(bad)
    }

    /// The ids of the checks that failed, whatever was expected of them.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |result: &&CheckResult| matches!(result.outcome, Outcome::Failed { .. } | Outcome::Broken { .. });
        self.results.iter().filter(failed).map(|result| result.check.id).collect()
    }

    /// How many stand so.
    #[must_use]
    pub fn count(&self, standing: Standing, strict: bool) -> usize {
        self.results.iter().filter(|result| result.standing(strict) == standing).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in &self.results {
            f.write_str(&crate::output::line(result, false))?;
        }
        f.write_str(&crate::output::summary(self, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_failures_are_ids_with_reasons() {
        let text = "# ours\nS13 the runtime has no pidfd\n\nK07   # later\n";
        let expected = Selection::parse_expected(text, &["S13", "K07"]).unwrap();
        assert_eq!(expected["S13"], "the runtime has no pidfd");
        assert_eq!(expected["K07"], "");
        let problems = Selection::parse_expected("S13\nX99 what", &["S13"]).unwrap_err();
        assert_eq!(problems, ["line 2: there is no check \"X99\""]);
    }
}
