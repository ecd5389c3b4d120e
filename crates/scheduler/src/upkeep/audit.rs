//! What must be true of all records together.
//!
//! Every record by itself: it can be read, it lies where its name says, it makes sense. Then the references between them.
//! Nothing is repaired here: which of two records that contradict each other is right, only a person can know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use quiesce_operation::{ApplicationId, ClusterId, Moment, OperationId, StateName};
use quiesce_runtime::telemetry::chain;
use quiesce_store::embedded::Stored;
use quiesce_store::record::{self, Record};
use quiesce_store::{Entry, Key, Revision, Space};
use uuid::Uuid;

use super::{Checked, FINDINGS_MAX};
use crate::records::{
    AnchorRecord, ApplicationRecord, ClusterRecord, EventRecord, HistoryRecord, InstanceRecord, OperationRecord,
    RequestIdRecord, RestoredRecord, TokenRecord, TombstoneRecord, anchor_key, application_key, cluster_key,
    history_key, instance_key, operation_key, restored_key, token_key, tombstone_key,
};
use crate::secrets;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: a resource, a key, or a file.
    pub at: String,
    /// What.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.problem)
    }
}

/// How many records there are, readable or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the number of what its name says")]
pub struct Counts {
    pub applications: usize,
    pub instances: usize,
    pub clusters: usize,
    pub operations: usize,
    /// Those of them that are not over.
    pub open_operations: usize,
    pub events: usize,
    pub requests: usize,
    pub tombstones: usize,
}

/// The records seen so far, as far as others refer to them.
#[derive(Default)]
pub(super) struct Audit {
    counts: Counts,
    findings: Vec<Finding>,
    further: usize,
    revisions: BTreeSet<Revision>,
    newest: Revision,
    applications: BTreeMap<ApplicationId, ApplicationRecord>,
    clusters: BTreeSet<ClusterId>,
    instances: Vec<InstanceRecord>,
    operations: BTreeMap<OperationId, Held>,
    tombstones: BTreeSet<ApplicationId>,
    /// The last event of each operation.
    events: BTreeMap<OperationId, (Moment, StateName, Revision)>,
    trimmed_through: Revision,
    first_event: Option<Revision>,
}

/// What of an operation others refer to.
struct Held {
    application: ApplicationId,
    state: StateName,
    epoch: u64,
    revision: Revision,
}

impl Audit {
    /// Looks at one entry. They come in the order of their keys.
    pub(super) fn take(&mut self, stored: Stored) {
        self.newest = self.newest.max(stored.revision);
        if !self.revisions.insert(stored.revision) {
            let revision = stored.revision;
            self.finding(format!("revision {revision}"), "two entries claim to be the same write");
        }
        let key = stored.key.clone();
        match stored.entry() {
            Some(entry) => self.entry(&entry),
            None => self.finding(format!("key {key:?}"), "no program writes such a key"),
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match entry.key.space() {
            Space::Meta => self.meta(entry),
            Space::Applications => {
                self.counts.applications += 1;
                let Some(record) = self.read::<ApplicationRecord>(entry) else { return };
                self.belongs(entry, &application_key(&record.name));
                self.applications.insert(record.name.clone(), record);
            }
            Space::Instances => {
                self.counts.instances += 1;
                let Some(record) = self.read::<InstanceRecord>(entry) else { return };
                self.belongs(entry, &instance_key(&record.application, &record.instance));
                self.instances.push(record);
            }
            Space::Clusters => {
                self.counts.clusters += 1;
                let Some(record) = self.read::<ClusterRecord>(entry) else { return };
                self.belongs(entry, &cluster_key(&record.name));
                self.clusters.insert(record.name);
            }
            Space::Operations => self.operation(entry),
            Space::Requests => {
                self.counts.requests += 1;
                self.read::<RequestIdRecord>(entry);
            }
            Space::Events => self.event(entry),
            Space::Tokens => {
                let Some(record) = self.read::<TokenRecord>(entry) else { return };
                self.belongs(entry, &token_key(&record.id));
            }
            Space::Tombstones => {
                self.counts.tombstones += 1;
                let Some(record) = self.read::<TombstoneRecord>(entry) else { return };
                match entry.key.id().map(ApplicationId::parse) {
                    Some(Ok(name)) if tombstone_key(&name) == entry.key => drop(self.tombstones.insert(name)),
                    Some(_) | None => self.finding(
                        entry.key.to_string(),
                        format!("no application is called that, but {} has deleted it", record.operation),
                    ),
                }
            }
        }
    }

    fn meta(&mut self, entry: &Entry) {
        if entry.key == anchor_key() {
            self.read::<AnchorRecord>(entry);
        } else if entry.key == history_key() {
            let record = self.read::<HistoryRecord>(entry);
            self.trimmed_through = record.map_or(Revision::ZERO, |record| Revision::new(record.trimmed_through));
        } else if entry.key == restored_key() {
            self.read::<RestoredRecord>(entry);
        } else if secrets::is_stored_key(&entry.key) {
            if let Err(error) = secrets::check_stored(&entry.value) {
                self.finding(entry.key.to_string(), chain(&error).to_string());
            }
        } else {
            self.finding(entry.key.to_string(), "this program writes no such record; a newer one may");
        }
    }

    fn operation(&mut self, entry: &Entry) {
        self.counts.operations += 1;
        let Some(OperationRecord(operation)) = self.read::<OperationRecord>(entry) else { return };
        self.belongs(entry, &operation_key(operation.id()));
        if let Err(error) = operation.validate() {
            self.finding(entry.key.to_string(), chain(&error).to_string());
        }
        if !operation.is_done() {
            self.counts.open_operations += 1;
        }
        let held = Held {
            application: operation.request().application.clone(),
            state: operation.state(),
            epoch: operation.epoch(),
            revision: entry.revision,
        };
        self.operations.insert(operation.id().clone(), held);
    }

    fn event(&mut self, entry: &Entry) {
        self.counts.events += 1;
        let Some(record) = self.read::<EventRecord>(entry) else { return };
        if entry.key.revision() != Some(entry.revision) {
            self.finding(entry.key.to_string(), format!("it was written as revision {}", entry.revision));
        }
        self.first_event = self.first_event.or(Some(entry.revision));
        let (id, time) = (record.operation.id.clone(), record.time);
        let last = self.events.insert(id.clone(), (time, record.operation.state, entry.revision));
        if last.is_some_and(|(before, ..)| before > time) {
            self.finding(entry.key.to_string(), format!("it happened to {id} before the event in front of it"));
        }
    }

    /// The record in `entry`; what is wrong with it is a finding.
    fn read<T: Record>(&mut self, entry: &Entry) -> Option<T> {
        match record::decode(&entry.value) {
            Ok(record) => Some(record),
            Err(error) => {
                self.finding(entry.key.to_string(), chain(&error).to_string());
                None
            }
        }
    }

    fn belongs(&mut self, entry: &Entry, key: &Key) {
        if entry.key != *key {
            self.finding(entry.key.to_string(), format!("what lies there calls itself {key}"));
        }
    }

    fn finding(&mut self, at: impl Into<String>, problem: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { at: at.into(), problem: problem.into() });
        } else {
            self.further += 1;
        }
    }

    /// Everything has been seen: now what they say of one another.
    pub(super) fn finish(mut self, life: Option<Uuid>, revision: Revision) -> Checked {
        if self.newest > revision {
            let problem = format!("an entry has revision {}, the store says it has come to {revision}", self.newest);
            self.finding("revision", problem);
        }
        self.check_applications();
        self.check_instances();
        self.check_operations();
        self.check_history();
        let Self { counts, findings, further, .. } = self;
        Checked { life, revision, counts, findings, further }
    }

    fn check_applications(&mut self) {
        for (name, record) in std::mem::take(&mut self.applications) {
            let at = application_key(&name).to_string();
            if let Some(id) = &record.active_operation {
                match self.operations.get(id) {
                    None => self.finding(&at, format!("it is held by {id}, which is not there")),
                    Some(held) if held.state.is_final() => {
                        let state = held.state.as_str();
                        self.finding(&at, format!("it is held by {id}, which is over: {state}"));
                    }
                    Some(held) if held.application != name => {
                        let other = held.application.clone();
                        self.finding(&at, format!("it is held by {id}, which is an operation of {other}"));
                    }
                    Some(held) if held.epoch > record.epoch => {
                        let problem = format!("its epoch is {}, but {id} has given out {}", record.epoch, held.epoch);
                        self.finding(&at, problem);
                    }
                    Some(_) => {}
                }
            }
            if !self.clusters.contains(&record.cluster) {
                self.finding(&at, format!("its cluster {} is not there", record.cluster));
            }
            if self.tombstones.contains(&name) {
                self.finding(&at, "it is there and deleted at the same time");
            }
            self.applications.insert(name, record);
        }
    }

    fn check_instances(&mut self) {
        for record in std::mem::take(&mut self.instances) {
            let at = instance_key(&record.application, &record.instance).to_string();
            match self.applications.get(&record.application).map(|application| application.epoch) {
                None => self.finding(&at, format!("its application {} is not there", record.application)),
                Some(epoch) if epoch < record.epoch => {
                    self.finding(&at, format!("its epoch is {}, its application has given out {epoch}", record.epoch));
                }
                Some(_) => {}
            }
            if record.admission.as_ref().is_some_and(|admission| admission.epoch > record.epoch) {
                self.finding(&at, format!("it was permitted to start under an epoch above its own, {}", record.epoch));
            }
            if !self.clusters.contains(&record.cluster) {
                self.finding(&at, format!("its cluster {} is not there", record.cluster));
            }
        }
    }

    fn check_operations(&mut self) {
        for (id, held) in std::mem::take(&mut self.operations) {
            let at = operation_key(&id).to_string();
            if !held.state.is_final() {
                match self.applications.get(&held.application) {
                    None => {
                        self.finding(&at, format!("it is open, and its application {} is not there", held.application))
                    }
                    Some(record) if record.active_operation.as_ref() != Some(&id) => {
                        let problem = format!("it is open, but its application {} is not held by it", held.application);
                        self.finding(&at, problem);
                    }
                    Some(_) => {}
                }
            }
            match self.events.get(&id) {
                Some((_, state, revision)) if *state != held.state => {
                    let (said, is) = (state.as_str(), held.state.as_str());
                    self.finding(&at, format!("it is {is}, but its last event, at revision {revision}, says {said}"));
                }
                Some((.., revision)) if *revision > held.revision => {
                    self.finding(&at, format!("its last event, at revision {revision}, is newer than itself"));
                }
                Some(_) | None => {}
            }
        }
    }

    fn check_history(&mut self) {
        if let Some(first) = self.first_event.filter(|first| *first <= self.trimmed_through) {
            let problem = format!("events up to {} are gone, it says, but {first} is there", self.trimmed_through);
            self.finding(history_key().to_string(), problem);
        }
    }
}

#[cfg(test)]
mod tests;
