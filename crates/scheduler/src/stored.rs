//! What a scheduler has stored, read for whoever holds it against the truth from outside: simulations above all.
//!
//! Reading only. What is written, and when, is the business of [`crate::driver`] and [`crate::admission`].

use quiesce_operation::{EventKind, Operation, OperationId, StateName};
use quiesce_store::record::{self, DecodeError};

use crate::records::{EventRecord, OperationRecord};

/// One entry of the event log, as far as it says what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// To which operation.
    pub operation: OperationId,
    /// What.
    pub kind: EventKind,
    /// The state before.
    pub previous: StateName,
    /// The state after it.
    pub state: StateName,
}

/// The operation in a value of `Space::Operations`.
///
/// # Errors
/// The value is not one this scheduler could have written.
pub fn operation(value: &[u8]) -> Result<Operation, DecodeError> {
    record::decode::<OperationRecord>(value).map(|OperationRecord(operation)| operation)
}

/// The event in a value of `Space::Events`.
///
/// # Errors
/// The value is not one this scheduler could have written.
pub fn event(value: &[u8]) -> Result<StoredEvent, DecodeError> {
    let EventRecord { kind, previous, operation, .. } = record::decode(value)?;
    Ok(StoredEvent { operation: operation.id, kind, previous, state: operation.state })
}
