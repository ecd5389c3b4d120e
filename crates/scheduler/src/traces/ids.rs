//! Ids of the spans of an operation: they follow from what the span is about, so that every life of the scheduler gives
//! the same span the same id, and children can name parents that are sent later.

use quiesce_operation::{InstanceId, OperationId};
use sha2::{Digest as _, Sha256};

pub(super) fn operation(operation: &OperationId) -> u64 {
    of(operation, "operation", "", 0)
}

/// The `place`th state an operation has been in.
pub(super) fn state(operation: &OperationId, place: u64) -> u64 {
    of(operation, "state", "", place)
}

pub(super) fn shutdown(operation: &OperationId, instance: &InstanceId, fence: u32) -> u64 {
    of(operation, "shutdown", instance.as_str(), fence.into())
}

pub(super) fn start(operation: &OperationId, instance: &InstanceId, epoch: u64) -> u64 {
    of(operation, "start", instance.as_str(), epoch)
}

fn of(operation: &OperationId, what: &str, instance: &str, number: u64) -> u64 {
    // No part has a zero byte in it.
    let text = format!("{operation}\0{what}\0{instance}\0{number}");
    let digest = Sha256::digest(text.as_bytes());
    let id = digest.iter().take(size_of::<u64>()).fold(0, |id, byte| id << 8 | u64::from(*byte));
    id.max(1) // zero is no id
}
