//! The only bridge between the wire (`quiesce-protocol`) and the domain (`quiesce-operation` and the records).
//!
//! What a *request* may not hold is refused in [`crate::validate`] before it gets here; what hooks say is read in
//! [`crate::hooks::wire`]. Writing leaves out secrets. Nothing here decides anything.

pub(crate) mod operation;
pub(crate) mod policy;
pub(crate) mod report;
pub(crate) mod resource;

use std::time::{Duration, UNIX_EPOCH};

use quiesce_operation::{ApplicationId, InstanceId, Moment, OperationId};
use quiesce_runtime::clock::Clock;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// `applications/{application}`
pub(crate) fn application_name(application: &ApplicationId) -> String {
    format!("applications/{application}")
}

/// `applications/{application}/instances/{instance}`
pub(crate) fn instance_name(application: &ApplicationId, instance: &InstanceId) -> String {
    format!("applications/{application}/instances/{instance}")
}

/// `operations/{operation}`
pub(crate) fn operation_name(operation: &OperationId) -> String {
    format!("operations/{operation}")
}

/// A moment as wall time, for people and for the wire.
pub(crate) fn timestamp(clock: &dyn Clock, moment: Moment) -> prost_types::Timestamp {
    clock.wall(moment.as_millis()).into()
}

/// The moment it is.
pub(crate) fn now(clock: &dyn Clock) -> Moment {
    Moment::from_millis(clock.now())
}

/// A duration for the wire. Ours are bounded to days, so the conversion cannot fail; should one ever be larger, the
/// largest the wire knows says "very long".
pub(crate) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A duration of the wire; `None` if it is negative or breaks the rules of its message (nanoseconds of a second's worth,
/// one sign). The library's own conversion mends some of that silently, and overflows over the most negative one.
pub(crate) fn duration_from_wire(duration: &prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < NANOS_PER_SECOND)?;
    Some(Duration::new(seconds, nanos))
}

fn millis_to_wire(millis: u64) -> prost_types::Timestamp {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH).into()
}

/// Counts and numbers that are `u32` here and `int32` on the wire; all of them are small.
pub(crate) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Epochs and revisions are `u64` here and `int64` on the wire.
pub(crate) fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that is never negative among friends; among others it is nothing.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durations_by_the_rules_of_their_message_are_read() {
        let read = |seconds, nanos| duration_from_wire(&prost_types::Duration { seconds, nanos });
        assert_eq!(read(0, 0), Some(Duration::ZERO));
        assert_eq!(read(i64::MAX, 999_999_999), Some(Duration::new(i64::MAX.unsigned_abs(), 999_999_999)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (2, -1), (-2, 1), (2, 1_000_000_000), (i64::MIN, -999_999_999)] {
            assert_eq!(read(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
