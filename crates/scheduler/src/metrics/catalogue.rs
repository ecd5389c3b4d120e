//! Registers metrics and remembers how they were declared, so that the page about them is made of the same words.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::labels::Label;

/// Before every name.
const PREFIX: &str = "quiesce";
/// Labels of one series. Words of closed lists only.
pub(super) type Labels<const N: usize> = [(&'static str, &'static str); N];

/// A label and what it can say.
#[derive(Debug, Clone)]
pub(super) struct Values {
    name: &'static str,
    words: Vec<&'static str>,
    /// In place of the words on the page, where they are too many or not ours. Then no series is made beforehand.
    described: Option<&'static str>,
}

impl Values {
    /// Everything its type can say.
    pub(super) fn of<L: Label>(name: &'static str) -> Self {
        Self::some::<L>(name, |_| true)
    }

    /// Some of it.
    pub(super) fn some<L: Label>(name: &'static str, among: impl Fn(L) -> bool) -> Self {
        let words = L::ALL.iter().copied().filter(|one| among(*one)).map(Label::word).collect();
        Self { name, words, described: None }
    }

    /// What is made when it first occurs.
    pub(super) fn described(name: &'static str, what: &'static str) -> Self {
        Self { name, words: Vec::new(), described: Some(what) }
    }
}

/// One metric, as the page shows it.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the test that writes the page reads it"))]
struct Entry {
    name: String,
    kind: &'static str,
    labels: Vec<Values>,
    help: &'static str,
}

/// What has been declared.
#[derive(Debug)]
pub(super) struct Catalogue {
    registry: Registry,
    entries: Vec<Entry>,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        Self { registry: Registry::with_prefix(PREFIX), entries: Vec::new() }
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &'static str) -> Counter {
        self.one(name, "counter", help, Counter::default())
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge {
        self.one(name, "gauge", help, Gauge::default())
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, empty: fn() -> Histogram) -> Histogram {
        self.one(name, "histogram", help, empty())
    }

    pub(super) fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Values; N],
    ) -> Family<Labels<N>, Counter> {
        self.family(name, "counter", help, labels, Family::default())
    }

    pub(super) fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Values; N],
    ) -> Family<Labels<N>, Gauge> {
        self.family(name, "gauge", help, labels, Family::default())
    }

    pub(super) fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: [Values; N],
        empty: fn() -> Histogram,
    ) -> Family<Labels<N>, Histogram> {
        self.family(name, "histogram", help, labels, Family::new_with_constructor(empty))
    }

    /// What is scraped.
    pub(super) fn into_registry(self) -> Registry {
        self.registry
    }

    /// The names of all series.
    #[cfg(test)]
    pub(super) fn series(&self) -> Vec<String> {
        let names = self.entries.iter().flat_map(|entry| match entry.kind {
            "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", entry.name)).to_vec(),
            _ => vec![entry.name.clone()],
        });
        names.collect()
    }

    fn one<M: Metric + Clone>(&mut self, name: &'static str, kind: &'static str, help: &'static str, metric: M) -> M {
        self.remember(name, kind, help, Vec::new());
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// A series that is there at 0 before anything happens: a rate sees the first time, a query that finds nothing is
    /// wrong.
    fn family<M, const N: usize>(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
        labels: [Values; N],
        family: Family<Labels<N>, M>,
    ) -> Family<Labels<N>, M>
    where
        M: Clone,
        Family<Labels<N>, M>: Metric + Clone,
    {
        for series in all_series(&labels) {
            drop(family.get_or_create(&series));
        }
        self.remember(name, kind, help, labels.to_vec());
        self.registry.register(name, help, family.clone());
        family
    }

    fn remember(&mut self, name: &str, kind: &'static str, help: &'static str, labels: Vec<Values>) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.entries.push(Entry { name: format!("{PREFIX}_{name}{suffix}"), kind, labels, help });
    }

    /// The rows of `docs/metrics.md`, by name.
    #[cfg(test)]
    pub(super) fn rows(&self) -> String {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let mut text = String::new();
        for Entry { name, kind, labels, help } in entries {
            let labels: Vec<_> = labels.iter().map(Values::to_string).collect();
            text += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join("; "));
        }
        text
    }
}

impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| format!("`{word}`")).collect();
        match self.described {
            None => write!(f, "`{}`: {}", self.name, words.join(", ")),
            Some(what) => write!(f, "`{}`: {what}", self.name),
        }
    }
}

/// Every combination of the labels' words; none where the words of one are not known beforehand.
fn all_series<const N: usize>(labels: &[Values; N]) -> Vec<Labels<N>> {
    let count = labels.iter().map(|one| one.words.len()).product();
    let series = |number: usize| {
        let mut rest = number;
        labels.each_ref().map(|Values { name, words, .. }| {
            let word = words[rest % words.len()];
            rest /= words.len();
            (*name, word)
        })
    };
    (0..count).map(series).collect()
}
