//! When two worlds are the same: when nothing that can still happen tells them apart.
//!
//! All that a world is made of, written down, with every moment to come as its distance from now and every moment that
//! has been as just that. A moment that has been still counts where a deadline is reckoned from it: the deadlines are
//! written down too. How much of the progress was shown to watchers decides nothing, and is left out.

use std::hash::{DefaultHasher, Hasher};

use quiesce_operation::member::Member;
use quiesce_operation::{Moment, Operation};

const MOMENT: &str = "Moment(";
/// What stands before the moment at which shown progress is made up for.
const PACE: &str = "even: Some(";

/// A number for `text`, a description in which only moments depend on when it is.
pub(crate) fn fingerprint(text: &str, now: Moment) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut rest = text;
    while let Some(at) = rest.find(MOMENT) {
        let (before, behind) = (&rest[..at], &rest[at + MOMENT.len()..]);
        let end = behind.find(')').expect("a moment is closed");
        let moment = Moment::from_millis(behind[..end].parse().expect("a moment is a number"));
        hasher.write(before.as_bytes());
        let ahead = if before.ends_with(PACE) { 0 } else { moment.since(now).as_millis() };
        hasher.write_u128(ahead);
        rest = &behind[end..];
    }
    hasher.write(rest.as_bytes());
    hasher.finish()
}

/// The deadlines of an operation that are reckoned from a moment that has been.
pub(crate) fn deadlines(operation: &Operation) -> Vec<Option<Moment>> {
    operation.members().iter().chain(operation.undo()).map(Member::deadline).collect()
}
