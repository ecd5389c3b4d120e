//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What happened, in numbers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// From the request to the final state, of each migration.
    pub(crate) durations: Vec<Duration>,
    /// From the final state until every process and connection was back.
    pub(crate) recoveries: Vec<Duration>,
    pub(crate) strikes: BTreeMap<&'static str, usize>,
    /// In which states of the operation they fell.
    pub(crate) struck_in: BTreeMap<String, usize>,
    pub(crate) outcomes: BTreeMap<String, usize>,
    pub(crate) degraded: BTreeMap<String, usize>,
    pub(crate) attempts: usize,
    pub(crate) sigterms: usize,
    pub(crate) starts: usize,
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) looks: usize,
    pub(crate) alive_at_once: usize,
}

impl Tally {
    pub(crate) fn count(counts: &mut BTreeMap<String, usize>, what: impl Into<String>) {
        *counts.entry(what.into()).or_default() += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.strikes.values().sum();
        writeln!(f, "migrations          {} ({})", self.durations.len(), list(&self.outcomes))?;
        writeln!(f, "rested in DEGRADED  {}", list(&self.degraded))?;
        writeln!(f, "strikes             {all} ({})", list(&self.strikes))?;
        writeln!(f, "struck in           {}", list(&self.struck_in))?;
        writeln!(f, "acknowledged writes {}, lost {}", self.acknowledged, self.lost)?;
        writeln!(
            f,
            "servers started     {}, alive at once {} in {} looks",
            self.starts, self.alive_at_once, self.looks
        )?;
        writeln!(f, "SIGTERM             {} in {} attempts", self.sigterms, self.attempts)?;
        writeln!(f, "to the final state  {}", spread(&self.durations))?;
        write!(f, "then all is back    {}", spread(&self.recoveries))
    }
}

fn list(counts: &BTreeMap<impl fmt::Display, usize>) -> String {
    let words: Vec<_> = counts.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    if words.is_empty() { "never".to_owned() } else { words.join(", ") }
}

fn spread(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let at = |share: usize| sorted.get((sorted.len().saturating_sub(1)) * share / 100).copied().unwrap_or_default();
    format!("p50 {:.1?}, p90 {:.1?}, longest {:.1?}", at(50), at(90), at(100))
}
