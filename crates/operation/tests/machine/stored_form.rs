//! The stored form: an operation written by an earlier build is read as it was meant, in every state.
//!
//! `operation-1.cbor` holds the operations of all scenes of the table of transitions, as form 1 wrote them. It is not
//! written anew when a field is added, for a new field has to be optional; a test that fails here says that stored
//! operations of running schedulers would be lost.

use std::path::PathBuf;

use quiesce_operation::{FailureStrategy, Input, Operation, StateName};

use crate::scene::{Scene, policy};
use crate::transitions::scenes;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/operation-1.cbor")
}

fn operations() -> Vec<Operation> {
    scenes().into_iter().map(|(_, scene)| scene.operation).collect()
}

/// Without what is not stored.
fn through_the_store(operation: &Operation) -> Operation {
    minicbor::decode(&minicbor::to_vec(operation).unwrap()).unwrap()
}

#[test]
fn operations_stored_in_form_1_are_read_as_they_were_meant() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden(), minicbor::to_vec(operations()).unwrap()).unwrap();
    }
    let stored = std::fs::read(golden()).expect("the stored form is checked in");
    let read: Vec<Operation> = minicbor::decode(&stored).expect("operations of form 1");
    for ((title, scene), read) in scenes().into_iter().zip(&read) {
        assert_eq!(read.validate(), Ok(()), "{title}");
        assert_eq!(*read, through_the_store(&scene.operation), "{title}");
    }
    assert_eq!(read.len(), scenes().len());
}

#[test]
fn what_is_written_today_can_be_read_by_the_build_that_wrote_form_1() {
    let stored = std::fs::read(golden()).expect("the stored form is checked in");
    let written = minicbor::to_vec(operations()).unwrap();
    assert!(written == stored, "a field has a new number, or a new field is written where it has no meaning");
}

#[test]
fn every_operation_goes_on_from_the_store_as_it_would_have_without() {
    for (title, scene) in scenes() {
        let mut from_memory = scene.operation.clone();
        let mut from_store = through_the_store(&scene.operation);
        assert_eq!(from_store.recover(scene.now), from_memory.recover(scene.now), "{title}");
        assert_eq!(from_store.next_deadline(), from_memory.next_deadline(), "{title}");
    }
}

#[test]
fn a_pending_operation_waits_for_its_turn_behind_a_restart() {
    let scene = Scene::migration(policy(FailureStrategy::GiveUp, 2));
    let mut operation = through_the_store(&scene.operation);
    assert!(operation.recover(scene.now).effects.is_empty());
    let step = operation.handle(scene.now, Input::Begin);
    assert_eq!((operation.state(), step.changed), (StateName::Preparing, true));
}
