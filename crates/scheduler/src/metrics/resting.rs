//! Since when operations rest in one state: kept up to date with every change, so that to look costs nothing however many
//! operations there are.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use quiesce_operation::{Moment, OperationId};

/// The operations in one state, oldest first.
#[derive(Debug, Default)]
pub(super) struct Resting {
    since: HashMap<OperationId, Moment>,
    order: BTreeSet<(Moment, OperationId)>,
}

impl Resting {
    /// An operation has come to rest. One that rests already goes on resting.
    pub(super) fn begin(&mut self, id: &OperationId, now: Moment) {
        if self.since.contains_key(id) {
            return;
        }
        self.since.insert(id.clone(), now);
        self.order.insert((now, id.clone()));
    }

    /// It is elsewhere now.
    pub(super) fn end(&mut self, id: &OperationId) {
        if let Some(since) = self.since.remove(id) {
            self.order.remove(&(since, id.clone()));
        }
    }

    /// How long the oldest rests; zero: none does.
    pub(super) fn longest(&self, now: Moment) -> Duration {
        self.order.first().map_or(Duration::ZERO, |(since, _)| now.since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_counts_until_it_leaves() {
        let (first, second) = (OperationId::parse("op-1").unwrap(), OperationId::parse("op-2").unwrap());
        let at = |seconds: u64| Moment::from_millis(seconds * 1_000);
        let mut resting = Resting::default();
        assert_eq!(resting.longest(at(5)), Duration::ZERO);
        resting.begin(&first, at(10));
        resting.begin(&second, at(20));
        resting.begin(&first, at(25));
        assert_eq!(resting.longest(at(30)), Duration::from_secs(20));
        resting.end(&first);
        assert_eq!(resting.longest(at(30)), Duration::from_secs(10));
        resting.end(&second);
        resting.end(&second);
        assert_eq!(resting.longest(at(30)), Duration::ZERO);
    }
}
