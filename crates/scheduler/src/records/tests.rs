//! The stored form of every record, byte for byte: what a scheduler wrote once, every later one must read.
//!
//! `golden/records-1.txt` holds one line a record, its kind and its bytes in hexadecimal. A line is never changed; a new
//! form of a record gets a new version, an upgrade, and a line of its own. `UPDATE_GOLDEN=1` adds what is missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use quiesce_operation::request::{Caller, Kind, Placement, Request};
use quiesce_operation::{Operation, Policy, PolicyOverrides, Registered};

use super::*;

const GOLDEN: &str = "src/records/golden/records-1.txt";

fn application() -> ApplicationId {
    ApplicationId::parse("db").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::parse("db-0").unwrap()
}

fn cluster(name: &str) -> ClusterId {
    ClusterId::parse(name).unwrap()
}

fn moment(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("tier".to_owned(), "gold".to_owned())])
}

fn operation() -> (Operation, Vec<quiesce_operation::Event>) {
    let request = Request {
        application: application(),
        kind: Kind::Migrate,
        source: cluster("a"),
        target: Some(cluster("b")),
        placement: Placement::Agents,
        force: false,
        caller: Caller { identity: "ann".to_owned(), reason: "moving".to_owned() },
        request_id: "ticket-1".to_owned(),
        labels: labels(),
        time: moment(1_000),
        trace: None,
    };
    let registered = |name: &str, at: &str| Registered {
        instance: InstanceId::parse(name).unwrap(),
        cluster: cluster(at),
        stop_order: 1,
        epoch: 6,
    };
    let id = OperationId::parse("op-1").unwrap();
    Operation::accept(id, request, Policy::built_in(), vec![registered("db-0", "a")], vec![registered("db-1", "b")], 6)
}

fn application_record() -> ApplicationRecord {
    ApplicationRecord {
        name: application(),
        display_name: "the database".to_owned(),
        cluster: cluster("a"),
        policy: PolicyOverrides { max_attempts: Some(5), ..PolicyOverrides::default() },
        placement: Placement::External { require_confirmation: true },
        expected_instances: Some(2),
        labels: labels(),
        active_operation: Some(OperationId::parse("op-1").unwrap()),
        epoch: 7,
        created: moment(1),
        updated: moment(2),
        moved_by: Some(OperationId::parse("op-0").unwrap()),
        restored: None,
    }
}

fn restored_application() -> ApplicationRecord {
    ApplicationRecord { restored: Some(moment(6)), ..application_record() }
}

fn instance_record(connect: Connect) -> InstanceRecord {
    let admission = Admission { agent_id: "agent".to_owned(), start_id: "start".to_owned(), epoch: 7, ended: true };
    InstanceRecord {
        application: application(),
        instance: instance(),
        connect,
        cluster: cluster("a"),
        stop_order: -3,
        labels: labels(),
        agent_id: "agent".to_owned(),
        epoch: 7,
        admission: Some(admission),
        created: moment(1),
        updated: moment(2),
        credential: None,
    }
}

fn token() -> TokenRecord {
    TokenRecord {
        id: "t0123456789abcdef".to_owned(),
        digest: [9; 32],
        display_name: "ann".to_owned(),
        role: TokenRole::Agent { uses_max: 3 },
        applications: std::collections::BTreeSet::from([application()]),
        uses: 1,
        creator: "bob".to_owned(),
        created: moment(7),
        expires: moment(8),
    }
}

/// One of each, with every field set.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |record: &dyn Fn() -> bytes::Bytes| record().to_vec();
    let (operation, events) = operation();
    let event = EventRecord::new(&operation, &events[0]);
    let request = |result| RequestIdRecord { content: [7; 32], result, time: moment(3) };
    let anchor = Anchor { boot_id: "boot".to_owned(), boottime_ms: 1, timeline_ms: 2, wall_ms: 3 };
    let tombstone = TombstoneRecord { operation: operation.id().clone(), time: moment(4), epoch: 7 };
    let place = ClusterRecord {
        name: cluster("a"),
        display_name: "north".to_owned(),
        labels: labels(),
        created: moment(1),
        updated: moment(2),
    };
    let listening = Connect::Listen { endpoint: "127.0.0.1:7080".to_owned() };
    vec![
        ("application", bytes(&|| record::encode(&application_record()))),
        ("instance that listens", bytes(&|| record::encode(&instance_record(listening.clone())))),
        ("instance that dials in", bytes(&|| record::encode(&instance_record(Connect::DialIn)))),
        ("cluster", bytes(&|| record::encode(&place))),
        ("tombstone", bytes(&|| record::encode(&tombstone))),
        ("operation", bytes(&|| record::encode(&OperationRecord(operation.clone())))),
        ("event", bytes(&|| record::encode(&event))),
        (
            "request of an operation",
            bytes(&|| record::encode(&request(RequestResult::Operation(operation.id().clone())))),
        ),
        ("request of an application", bytes(&|| record::encode(&request(RequestResult::Application(application()))))),
        ("request of a cluster", bytes(&|| record::encode(&request(RequestResult::Cluster(cluster("a")))))),
        ("clock", bytes(&|| record::encode(&AnchorRecord::from(anchor.clone())))),
        ("history", bytes(&|| record::encode(&HistoryRecord { trimmed_through: 9, time: moment(5) }))),
        ("application of a restored store", bytes(&|| record::encode(&restored_application()))),
        (
            "restored",
            bytes(&|| record::encode(&RestoredRecord { time: moment(6), taken_ms: 5, epoch_floor: 1_000_000 })),
        ),
        ("token", bytes(&|| record::encode(&token()))),
        (
            "instance with a credential",
            bytes(&|| record::encode(&InstanceRecord { credential: Some(42), ..instance_record(Connect::DialIn) })),
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn every_record_is_written_as_it_always_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN);
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let written: String = samples().into_iter().fold(String::new(), |mut text, (what, bytes)| {
        writeln!(text, "{what}: {}", hex(&bytes)).unwrap();
        text
    });
    for (known, written) in known.lines().zip(written.lines()) {
        assert_eq!(known, written, "the stored form has changed: give the record a new version and an upgrade");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &written).unwrap();
        return;
    }
    assert_eq!(known.lines().count(), written.lines().count(), "a record without a line in {GOLDEN}");
}

#[test]
fn what_was_written_once_is_read() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN)).unwrap();
    let stored = |what: &str| -> Vec<u8> {
        let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": ")).unwrap();
        (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
    };
    assert_eq!(record::decode::<ApplicationRecord>(&stored("application")).unwrap(), application_record());
    let restored = record::decode::<ApplicationRecord>(&stored("application of a restored store")).unwrap();
    assert_eq!(restored, restored_application());
    let dialling = record::decode::<InstanceRecord>(&stored("instance that dials in")).unwrap();
    assert_eq!(dialling, instance_record(Connect::DialIn));
    assert_eq!(record::decode::<TokenRecord>(&stored("token")).unwrap(), token());
    let (operation, events) = operation();
    assert_eq!(record::decode::<OperationRecord>(&stored("operation")).unwrap().0, operation);
    assert_eq!(record::decode::<EventRecord>(&stored("event")).unwrap(), EventRecord::new(&operation, &events[0]));
    assert!(record::decode::<ClusterRecord>(&stored("tombstone")).is_err(), "a record of another kind");
}
