//! The plan of a recovery, as text: a diff is reviewed like a change of behaviour.

use std::collections::BTreeMap;

use quiesce_operation::{ApplicationId, Input, Kind, Moment, Operation, Placement, Registered, Request, StateName};
use quiesce_store::Revision;

use super::world::{SOURCE, caller, cluster, hasty, instance, operation_id};
use crate::driver::Snapshot;
use crate::driver::recovery::{Found, Plan};

const NOW: Moment = Moment::from_millis(1_000_000);

fn accepted(id: &str, application: &str) -> Operation {
    let request = Request {
        application: ApplicationId::parse(application).unwrap(),
        kind: Kind::Delete,
        source: cluster(SOURCE),
        target: None,
        placement: Placement::External { require_confirmation: false },
        force: false,
        caller: caller(),
        request_id: String::new(),
        labels: BTreeMap::new(),
        time: NOW,
        trace: None,
    };
    let member = Registered { instance: instance("a"), cluster: cluster(SOURCE), stop_order: 0, epoch: 0 };
    Operation::accept(operation_id(id), request, hasty(), vec![member], Vec::new(), 0).0
}

fn begun(id: &str, application: &str) -> Operation {
    let mut operation = accepted(id, application);
    assert!(operation.handle(NOW, Input::Begin).changed);
    operation
}

fn cancelled(id: &str, application: &str) -> Operation {
    let mut operation = begun(id, application);
    assert!(operation.cancel(NOW, &caller()).unwrap().changed);
    assert_eq!(operation.state(), StateName::Cancelled);
    operation
}

#[test]
fn the_plan_takes_up_what_is_open_and_refuses_what_makes_no_sense() {
    let found = |revision, operation: Operation| Found {
        key: format!("Operations/{}", operation.id()),
        operation: Ok(Snapshot { operation, revision: Revision::new(revision) }),
    };
    let damaged = Found { key: "Operations/op-5".to_owned(), operation: Err("damaged content".to_owned()) };
    let plan = Plan::of([
        found(3, accepted("op-1", "shop")),
        found(9, begun("op-2", "bank")),
        found(12, cancelled("op-3", "mail")),
        found(14, begun("op-4", "shop")),
        damaged,
        found(20, begun("op-6", "mail")),
    ]);
    let expected = include_str!("plan.txt");
    assert_eq!(plan.to_string(), expected);
}

#[test]
fn nothing_in_the_store_is_nothing_to_do() {
    assert_eq!(Plan::of([]).to_string(), "");
}
