//! A sound store is called sound, and each thing that is wrong in another one leads to a finding that says so.

use std::collections::BTreeMap;

use bytes::Bytes;
use quiesce_operation::request::{Caller, Kind, Placement, Request};
use quiesce_operation::{InstanceId, Operation, Policy, PolicyOverrides, Registered};

use super::*;
use crate::records::{Admission, Connect};

const APPLICATION: &str = "db";

fn application() -> ApplicationId {
    ApplicationId::parse(APPLICATION).unwrap()
}

fn cluster() -> ClusterId {
    ClusterId::parse("a").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::parse("db-0").unwrap()
}

fn moment(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

/// A sound store with one application that is being deleted; changed by a test, then audited.
struct Scene {
    application: ApplicationRecord,
    instance: InstanceRecord,
    operation: Operation,
    event: EventRecord,
    more: Vec<(Key, Bytes)>,
    without: Vec<Key>,
}

impl Scene {
    fn new() -> Self {
        let request = Request {
            application: application(),
            kind: Kind::Delete,
            source: cluster(),
            target: None,
            placement: Placement::Agents,
            force: false,
            caller: Caller { identity: "ann".to_owned(), reason: String::new() },
            request_id: String::new(),
            labels: BTreeMap::new(),
            time: moment(1_000),
            trace: None,
        };
        let member = Registered { instance: instance(), cluster: cluster(), stop_order: 0, epoch: 2 };
        let id = OperationId::parse("op-1").unwrap();
        let (operation, events) = Operation::accept(id, request, Policy::built_in(), vec![member], Vec::new(), 2);
        let event = EventRecord::new(&operation, &events[0]);
        let application = ApplicationRecord {
            name: application(),
            display_name: String::new(),
            cluster: cluster(),
            policy: PolicyOverrides::default(),
            placement: Placement::Agents,
            expected_instances: None,
            labels: BTreeMap::new(),
            active_operation: Some(operation.id().clone()),
            epoch: 3,
            created: moment(1),
            updated: moment(1),
            moved_by: None,
            restored: None,
        };
        let admission = Admission { agent_id: "x".to_owned(), start_id: "s".to_owned(), epoch: 3, ended: false };
        let instance = InstanceRecord {
            credential: None,
            application: application.name.clone(),
            instance: instance(),
            connect: Connect::DialIn,
            cluster: cluster(),
            stop_order: 0,
            labels: BTreeMap::new(),
            agent_id: "x".to_owned(),
            epoch: 3,
            admission: Some(admission),
            created: moment(1),
            updated: moment(1),
        };
        Self { application, instance, operation, event, more: Vec::new(), without: Vec::new() }
    }

    /// The findings, as they are printed.
    fn findings(self) -> Vec<String> {
        let place = ClusterRecord {
            name: cluster(),
            display_name: String::new(),
            labels: BTreeMap::new(),
            created: moment(1),
            updated: moment(1),
        };
        let event_at = Space::Events.log_key(Revision::new(1));
        let mut entries = vec![
            (event_at.clone(), record::encode(&self.event)),
            (application_key(&self.application.name), record::encode(&self.application)),
            (instance_key(&self.instance.application, &self.instance.instance), record::encode(&self.instance)),
            (cluster_key(&cluster()), record::encode(&place)),
            (operation_key(self.operation.id()), record::encode(&OperationRecord(self.operation))),
        ];
        entries.retain(|(key, _)| !self.without.contains(key));
        entries.extend(self.more);
        let mut entries: Vec<_> = (1_u64..).zip(entries).collect();
        let last = Revision::new(entries.len() as u64);
        entries.sort_by(|(_, (one, _)), (_, (other, _))| one.cmp(other));
        let mut audit = Audit::default();
        for (revision, (key, value)) in entries {
            let key = Bytes::copy_from_slice(key.as_bytes());
            audit.take(Stored { key, value, revision: Revision::new(revision) });
        }
        let checked = audit.finish(None, last);
        checked.findings.iter().map(ToString::to_string).collect()
    }
}

/// That a change leads to exactly one finding, which says this.
#[track_caller]
fn finds(change: impl FnOnce(&mut Scene), wanted: &str) {
    let mut scene = Scene::new();
    change(&mut scene);
    let findings = scene.findings();
    assert!(findings.len() == 1 && findings[0].contains(wanted), "{wanted:?} in {findings:#?}");
}

#[test]
fn a_sound_store_is_called_sound() {
    assert_eq!(Scene::new().findings(), Vec::<String>::new());
}

#[test]
fn references_that_lead_nowhere_are_found() {
    let op = |text: &str| OperationId::parse(text).unwrap();
    let scene = |change: fn(&mut Scene)| {
        let mut scene = Scene::new();
        change(&mut scene);
        scene.findings()
    };
    let dangling = scene(|scene| scene.application.active_operation = Some(OperationId::parse("op-2").unwrap()));
    assert_eq!(
        dangling,
        [
            "Applications/db: it is held by op-2, which is not there",
            "Operations/op-1: it is open, but its application db is not held by it"
        ]
    );
    finds(|scene| scene.application.active_operation = None, "it is open, but its application db is not held by it");
    finds(|scene| scene.instance.cluster = ClusterId::parse("b").unwrap(), "its cluster b is not there");
    let orphaned = scene(|scene| scene.without.push(application_key(&application())));
    assert_eq!(orphaned.len(), 2, "{orphaned:?}");
    assert!(orphaned.iter().all(|finding| finding.contains("application db is not there")), "{orphaned:?}");
    let both = TombstoneRecord { operation: op("op-0"), time: moment(1), epoch: 1 };
    finds(
        |scene| scene.more.push((tombstone_key(&application()), record::encode(&both))),
        "it is there and deleted at the same time",
    );
}

#[test]
fn numbers_from_the_future_are_found() {
    finds(|scene| scene.instance.epoch = 4, "its application has given out 3");
    finds(
        |scene| {
            if let Some(admission) = &mut scene.instance.admission {
                admission.epoch = 9;
            }
        },
        "under an epoch above its own",
    );
    finds(
        |scene| {
            scene.instance = InstanceRecord { epoch: 2, admission: None, ..scene.instance.clone() };
            scene.application.epoch = 2;
        },
        "its epoch is 2, but op-1 has given out 3",
    );
}

#[test]
fn records_in_the_wrong_place_or_form_are_found() {
    finds(|scene| scene.more.push((Space::Clusters.key("b"), Bytes::from_static(b"\x01garbage"))), "damaged envelope");
    finds(|scene| scene.more.push((Space::Meta.key("odd"), Bytes::new())), "this program writes no such record");
    let elsewhere = record::encode(&Scene::new().instance);
    finds(
        |scene| scene.more.push((Space::Instances.key("db/db-9"), elsewhere)),
        "what lies there calls itself Instances/db/db-0",
    );
}

#[test]
fn an_event_that_contradicts_its_operation_is_found() {
    finds(|scene| scene.event.operation.state = StateName::Succeeded, "says SUCCEEDED");
    let trimmed = HistoryRecord { trimmed_through: 1, time: moment(1) };
    finds(|scene| scene.more.push((history_key(), record::encode(&trimmed))), "events up to 1 are gone");
}

#[test]
fn a_key_or_a_revision_that_cannot_be_is_found() {
    let mut audit = Audit::default();
    for key in [&b"\x99odd"[..], b"\x01\x01clock"] {
        let stored = Stored { key: Bytes::from_static(key), value: Bytes::new(), revision: Revision::new(7) };
        audit.take(stored);
    }
    let checked = audit.finish(None, Revision::new(6));
    let problems: Vec<_> = checked.findings.iter().map(|finding| finding.problem.as_str()).collect();
    assert!(problems[0].contains("no program writes such a key"), "{problems:?}");
    assert!(problems[1].contains("two entries claim to be the same write"), "{problems:?}");
    assert!(problems.last().unwrap().contains("the store says it has come to 6"), "{problems:?}");
}
