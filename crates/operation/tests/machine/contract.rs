//! The table of transitions, read from the comment at `Operation` in the contract: what is written there is what is
//! promised.

use std::collections::BTreeSet;

use quiesce_operation::StateName;

const TYPES: &str = include_str!("../../../../proto/quiesce/v1/types.proto");

pub(crate) const STATES: [StateName; 15] = [
    StateName::Pending,
    StateName::Preparing,
    StateName::Stopping,
    StateName::BackingOff,
    StateName::Forcing,
    StateName::Stopped,
    StateName::Starting,
    StateName::Finalizing,
    StateName::Cancelling,
    StateName::RollingBack,
    StateName::Degraded,
    StateName::Succeeded,
    StateName::Cancelled,
    StateName::RolledBack,
    StateName::Abandoned,
];

fn state(word: &str) -> Option<StateName> {
    STATES.into_iter().find(|state| state.as_str() == word)
}

/// Every pair (from, to) of the comment.
pub(crate) fn transitions() -> BTreeSet<(StateName, StateName)> {
    let begin = TYPES.find("// Transitions, and nothing else:").expect("the comment at Operation has the table");
    let end = begin + TYPES[begin..].find("are final.").expect("the table ends with the final states");
    let mut found = BTreeSet::new();
    let mut from = None;
    for line in TYPES[begin..end].lines().skip(1) {
        let mut text = line.trim_start_matches('/').trim();
        if let Some((left, right)) = text.split_once("->") {
            from = Some(state(left.trim()).expect("a row begins with a state"));
            text = right;
        } else if text.starts_with("SUCCEEDED") {
            break;
        }
        // What stands in parentheses says when, in words.
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        found.extend(words.filter_map(state).map(|to| (from.expect("a row has begun"), to)));
    }
    found
}
