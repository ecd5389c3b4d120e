//! What is right and wrong with a setup: what a doctor finds, and how grave it is.
//!
//! Owns the findings. Each module looks at one thing, from here to the hooks: files, the way to the scheduler, the
//! scheduler itself, the applications. Nothing is changed by looking.

pub(crate) mod applications;
pub(crate) mod clocks;
pub(crate) mod connection;
pub(crate) mod files;
pub(crate) mod scheduler;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use quiesce_runtime::tls::Certificate;
use serde::Serialize;

use crate::error::Error;
use crate::output::text;

/// A certificate that is good for less than this should have been renewed: those of `quiesce pki` live for 30 days.
const RENEW_BEFORE: Duration = Duration::from_hours(7 * 24);

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// It works, but not as it should, or not for long.
    Warning,
    /// Something does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    /// What was looked at: `tls`, `clock`, `db/db-0`.
    pub(crate) subject: String,
    pub(crate) what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// All that was found, in the order of looking.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    pub(crate) fn ok(&mut self, subject: impl Into<String>, what: impl AsRef<str>) {
        self.add(Verdict::Ok, subject, what, None);
    }

    pub(crate) fn warning(&mut self, subject: impl Into<String>, what: impl AsRef<str>, next: impl Into<String>) {
        self.add(Verdict::Warning, subject, what, Some(next.into()));
    }

    pub(crate) fn problem(&mut self, subject: impl Into<String>, what: impl AsRef<str>, next: impl Into<String>) {
        self.add(Verdict::Problem, subject, what, Some(next.into()));
    }

    /// An error of ours as a problem.
    pub(crate) fn error(&mut self, subject: impl Into<String>, error: &Error) {
        let (what, next) = error.finding();
        self.add(Verdict::Problem, subject, what, next);
    }

    fn add(&mut self, verdict: Verdict, subject: impl Into<String>, what: impl AsRef<str>, next: Option<String>) {
        let next = next.map(|next| text::clean(&next)).filter(|next| !next.is_empty());
        self.findings.push(Finding { verdict, subject: subject.into(), what: text::clean(what.as_ref()), next });
    }

    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether nothing worse than `verdict` was found behind the first `from` findings.
    fn is_at_most(&self, verdict: Verdict, from: usize) -> bool {
        self.findings.iter().skip(from).all(|finding| finding.verdict as u8 <= verdict as u8)
    }

    /// A certificate that was looked at in other ways already: how long it is still good.
    fn validity(&mut self, subject: &str, whose: &str, certificate: &Certificate, now: SystemTime, renew: &str) {
        let until = humantime::format_rfc3339_seconds(certificate.until);
        match certificate.until.duration_since(now) {
            Err(_) => self.problem(subject, format!("{whose} has expired, at {until}"), renew),
            Ok(_) if certificate.from > now => {
                let from = humantime::format_rfc3339_seconds(certificate.from);
                self.problem(
                    subject,
                    format!("{whose} is not good before {from}"),
                    "set the clock of this machine, or wait",
                );
            }
            Ok(left) if left < RENEW_BEFORE => {
                self.warning(subject, format!("{whose} expires in {}, at {until}", text::span(left)), renew);
            }
            Ok(_) => self.ok(subject, format!("{whose} is good until {until}")),
        }
    }
}
