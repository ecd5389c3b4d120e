//! Stored values: what can be read is written again as the same bytes from then on, and can be shown.

use minicbor::{Decode, Encode};
use quiesce_operation::StateName;
use quiesce_protocol::v1;
use quiesce_runtime::clock::{Anchor, ManualClock};
use quiesce_store::Revision;
use quiesce_store::record::{DecodeError, Record, Upgrade, UpgradeError, decode, encode, from_cbor, to_cbor};

use crate::convert::operation::{event_to_wire, operation_to_wire};
use crate::convert::resource::{application_to_wire, cluster_to_wire, instance_state, instance_to_wire};
use crate::hooks::{HookState, Presence};
use crate::records::{
    AnchorRecord, ApplicationRecord, ClusterRecord, EventRecord, HistoryRecord, InstanceRecord, OperationRecord,
    RequestIdRecord, RestoredRecord, Stored, TokenRecord, TombstoneRecord,
};
use crate::registry::{ApplicationView, ClusterView, InstanceView};

/// A stored value with its envelope, of whatever kind.
#[must_use]
pub fn record(bytes: &[u8]) -> bool {
    let taken = [
        holds(bytes, show_application),
        holds(bytes, show_instance),
        holds(bytes, show_cluster),
        holds(bytes, |_: TombstoneRecord| ()),
        holds(bytes, |_: RestoredRecord| ()),
        holds(bytes, show_operation),
        holds(bytes, show_event),
        holds(bytes, |_: RequestIdRecord| ()),
        holds(bytes, |anchor: AnchorRecord| assert_eq!(AnchorRecord::from(Anchor::from(anchor.clone())), anchor)),
        holds(bytes, |_: HistoryRecord| ()),
        holds(bytes, |_: TokenRecord| ()),
        holds(bytes, |_: Upgraded| ()),
    ];
    let times = taken.iter().filter(|taken| **taken).count();
    assert!(times <= 1, "one value is two kinds of record");
    times == 1
}

fn holds<T: Record>(bytes: &[u8], show: fn(T)) -> bool {
    let found: T = match decode(bytes) {
        Ok(found) => found,
        Err(DecodeError::WrongKind { found, .. }) => {
            assert_ne!(found, T::KIND);
            return false;
        }
        Err(_) => return false,
    };
    // Not what was read, which an older program may have written, but what comes of it is written the same for ever.
    let written = encode(&found);
    let again: T = decode(&written).unwrap_or_else(|error| panic!("a {} that was written: {error:?}", T::KIND));
    assert!(encode(&again) == written, "a {} changes by being read and written", T::KIND);
    show(found);
    true
}

fn clock() -> ManualClock {
    ManualClock::new(1_700_000_000_000)
}

fn stored<T>(record: T) -> Stored<T> {
    Stored { revision: Revision::new(7), record }
}

fn show_application(record: ApplicationRecord) {
    let name = record.name.to_string();
    let view = ApplicationView { application: stored(record), operation: None, instances: Vec::new() };
    assert_eq!(application_to_wire(&clock(), &view).name, format!("applications/{name}"));
}

fn show_instance(record: InstanceRecord) {
    let name = format!("applications/{}/instances/{}", record.application, record.instance);
    let presence = Presence { state: HookState::Unknown, last_seen: Some(record.updated), ..Presence::default() };
    let state = instance_state(&record, &presence, None);
    let view = InstanceView { instance: stored(record), presence, state };
    assert_eq!(instance_to_wire(&clock(), &view).name, name);
}

fn show_cluster(record: ClusterRecord) {
    let name = format!("clusters/{}", record.name);
    let view = ClusterView { cluster: stored(record), applications: 1, instances: 2 };
    assert_eq!(cluster_to_wire(&clock(), &view).name, name);
}

fn show_operation(OperationRecord(operation): OperationRecord) {
    // What is not whole is refused before anybody sees it.
    if operation.validate().is_err() {
        return;
    }
    let shown = operation_to_wire(&clock(), &operation, Revision::new(7));
    assert_eq!(shown.instances.len(), operation.members().len() + operation.undo().len());
    assert_eq!(shown.done, operation.is_done());
    assert_eq!(shown.state() == v1::operation::State::Degraded, operation.state() == StateName::Degraded);
}

fn show_event(record: EventRecord) {
    let shown = event_to_wire(&clock(), &record, Revision::new(7));
    assert_eq!(shown.revision, 7);
    assert_ne!(shown.r#type(), v1::operation_event::Type::Unspecified);
}

/// A record with a past, which none of the real ones has yet: the way through the upgrades is checked with it.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct Upgraded {
    #[n(0)]
    pub(super) seconds: u64,
}

impl Record for Upgraded {
    const KIND: &'static str = "upgraded";
    const VERSION: u16 = 2;
    const UPGRADES: &'static [Upgrade] = &[count_seconds];
}

/// What version 1 of it was.
#[derive(Debug, Encode, Decode)]
pub(super) struct Minutes {
    #[n(0)]
    pub(super) minutes: u64,
}

fn count_seconds(content: &[u8]) -> Result<Vec<u8>, UpgradeError> {
    let Minutes { minutes } = from_cbor(content).map_err(|source| UpgradeError::Malformed { source })?;
    let seconds = minutes.checked_mul(60).ok_or(UpgradeError::Inexpressible { reason: "too many minutes" })?;
    Ok(to_cbor(&Upgraded { seconds }))
}
