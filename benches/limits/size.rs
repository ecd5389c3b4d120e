//! How much of everything: the whole, or just enough to see that it runs.

use std::time::Duration;

use crate::arguments::Arguments;

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// How often ours and the limit take turns.
    pub(crate) rounds: usize,
    /// Whole operations in a turn.
    pub(crate) whole: usize,
    /// Callers of whole operations.
    pub(crate) callers: usize,
    /// Single operations that are timed one after the other.
    pub(crate) singles: usize,
    /// Records that writers change.
    pub(crate) records: usize,
    /// How long a turn of writing takes.
    pub(crate) slice: Duration,
    /// Numbers of writers.
    pub(crate) writers: [usize; 2],
    /// Operations in flight, few and many.
    pub(crate) in_flight: [usize; 2],
    /// Watchers.
    pub(crate) watchers: usize,
    /// Operations that they see.
    pub(crate) watched: usize,
    /// Starts of an agent, ends of an application.
    pub(crate) starts: usize,
    /// Starts and stops of one application under one agent.
    pub(crate) cycles: usize,
    /// How long an agent is watched doing nothing.
    pub(crate) rest: Duration,
    /// Agents whose applications are deleted at once.
    pub(crate) at_once: usize,
}

impl Size {
    pub(crate) fn of(arguments: &Arguments) -> Self {
        let whole = Self {
            rounds: 5,
            whole: 1500,
            callers: 64,
            singles: 200,
            records: 100_000,
            slice: Duration::from_secs(1),
            writers: [64, 1000],
            in_flight: [1000, 100_000],
            watchers: 1000,
            watched: 64,
            starts: 50,
            cycles: 1000,
            rest: Duration::from_secs(30),
            at_once: 50,
        };
        let mut size = if arguments.smoke {
            Self {
                rounds: 1,
                whole: 64,
                singles: 5,
                records: 1000,
                slice: Duration::from_millis(100),
                writers: [4, 16],
                in_flight: [20, 100],
                watchers: 20,
                watched: 8,
                starts: 3,
                cycles: 5,
                rest: Duration::from_secs(1),
                at_once: 4,
                ..whole
            }
        } else {
            whole
        };
        if let Some(operations) = arguments.operations {
            size.in_flight[1] = operations;
        }
        size
    }
}
