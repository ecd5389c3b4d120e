//! One operation as a watcher knows it, assembled from events. Rendering it is pure: model, moment, size in; lines out.
//!
//! Owns what is shown of an operation while it runs and when it is over ([`view`], [`verdict`], [`log`]). It reads no
//! clock, knows no terminal and talks to nobody.

pub(crate) mod log;
pub(crate) mod verdict;
pub(crate) mod view;

use std::time::{Duration, Instant, SystemTime};

use quiesce_protocol::v1::{InstanceShutdown, InstanceStart, Operation, OperationEvent, operation_event};

use crate::output::text;

/// The latest known state of one operation, its instances and starts included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) operation: Operation,
    clock: Option<SchedulerClock>,
}

/// The scheduler's clock as last heard. Deadlines are read from that clock, so that a skew between the machines does not
/// show as time left; between two events the local monotonic clock carries it on.
#[derive(Debug, Clone, Copy)]
struct SchedulerClock {
    said: SystemTime,
    heard: Instant,
}

impl SchedulerClock {
    fn now(self, at: Instant) -> SystemTime {
        self.said + at.saturating_duration_since(self.heard)
    }
}

impl Model {
    /// What the answer to a request shows; time left is known from the first event on.
    pub(crate) fn new(operation: Operation) -> Self {
        Self { operation, clock: None }
    }

    /// Takes in an event that arrived at `at`.
    pub(crate) fn apply(&mut self, event: &OperationEvent, at: Instant) {
        if let Some(said) = text::time(event.event_time.as_ref()) {
            // An event that was held up says an earlier time than is known already.
            if self.clock.is_none_or(|clock| clock.now(at) < said) {
                self.clock = Some(SchedulerClock { said, heard: at });
            }
        }
        if let Some(operation) = &event.operation {
            let before = std::mem::replace(&mut self.operation, operation.clone());
            if event.r#type() != operation_event::Type::Snapshot {
                // Only snapshots carry the lists.
                if self.operation.instances.is_empty() {
                    self.operation.instances = before.instances;
                }
                if self.operation.starts.is_empty() {
                    self.operation.starts = before.starts;
                }
            }
        }
        if let Some(instance) = &event.instance {
            upsert(&mut self.operation.instances, instance.clone(), |known: &InstanceShutdown| &known.instance);
        }
        if let Some(start) = &event.start {
            upsert(&mut self.operation.starts, start.clone(), |known: &InstanceStart| &known.instance);
        }
    }

    /// Takes in the operation as it was asked for, unless an event has told more: then its lists, where none are known.
    pub(crate) fn fill(&mut self, operation: Operation) {
        if operation.revision >= self.operation.revision {
            self.operation = operation;
            return;
        }
        for instance in operation.instances {
            if !self.operation.instances.iter().any(|known| known.instance == instance.instance) {
                self.operation.instances.push(instance);
            }
        }
        for start in operation.starts {
            if !self.operation.starts.iter().any(|known| known.instance == start.instance) {
                self.operation.starts.push(start);
            }
        }
    }

    /// How much time is left until `deadline`; `None` when there is none or the scheduler's clock is not known yet.
    pub(crate) fn left(&self, deadline: Option<&prost_types::Timestamp>, at: Instant) -> Option<Duration> {
        let deadline = text::time(deadline)?;
        Some(deadline.duration_since(self.clock?.now(at)).unwrap_or_default())
    }

    /// How long the operation has been open, or took in all.
    pub(crate) fn elapsed(&self, at: Instant) -> Option<Duration> {
        let begin = text::time(self.operation.create_time.as_ref())?;
        let end = match text::time(self.operation.end_time.as_ref()) {
            Some(end) => end,
            None => self.clock?.now(at),
        };
        Some(end.duration_since(begin).unwrap_or_default())
    }
}

/// Replaces the entry with the same key, or adds one.
fn upsert<T>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> &String) {
    match list.iter_mut().find(|known| key(known) == key(&item)) {
        Some(known) => *known = item,
        None => list.push(item),
    }
}

#[cfg(test)]
mod tests;
