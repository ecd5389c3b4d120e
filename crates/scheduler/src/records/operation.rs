//! The record of an operation, and the summary of one as it stood at some event.

use minicbor::{Decode, Encode};
use quiesce_operation::{Failure, Moment, Operation, OperationId, Override, Policy, Request, StateName};

/// An operation as it is stored: the whole machine. Whoever decodes one calls its `validate` before use.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct OperationRecord(#[n(0)] pub(crate) Operation);

/// Instances by how far they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Counts {
    /// Not asked to stop yet.
    #[n(0)]
    pub(crate) waiting: u32,
    /// Asked to stop, not over.
    #[n(1)]
    pub(crate) stopping: u32,
    /// Ended, verified.
    #[n(2)]
    pub(crate) stopped: u32,
    /// Ended as far as anybody can tell.
    #[n(3)]
    pub(crate) unverified: u32,
    /// Attempt over, still running or unknown.
    #[n(4)]
    pub(crate) failed: u32,
}

impl Counts {
    fn of(operation: &Operation) -> Self {
        let quiesce_operation::operation::Counts { waiting, stopping, stopped, unverified, failed } =
            operation.counts();
        Self { waiting, stopping, stopped, unverified, failed }
    }
}

/// An operation without its instances: what lists and events show. Stored with each event, so that history reads as it
/// was, whatever becomes of the operation.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[allow(missing_docs, reason = "the fields are those of the contract's Operation, described there")]
pub(crate) struct Summary {
    #[n(0)]
    pub(crate) id: OperationId,
    #[n(1)]
    pub(crate) request: Request,
    #[n(2)]
    pub(crate) policy: Policy,
    #[n(3)]
    pub(crate) state: StateName,
    #[n(4)]
    pub(crate) cancellable: bool,
    #[n(5)]
    pub(crate) attempt: u32,
    #[n(6)]
    pub(crate) round: u32,
    #[n(7)]
    pub(crate) counts: Counts,
    #[n(8)]
    pub(crate) failure: Option<Failure>,
    #[n(9)]
    pub(crate) updated: Moment,
    #[n(10)]
    pub(crate) point_of_no_return: Option<Moment>,
    #[n(11)]
    pub(crate) deadline: Option<Moment>,
    #[n(12)]
    pub(crate) next_attempt: Option<Moment>,
    #[n(13)]
    pub(crate) ended: Option<Moment>,
    #[n(14)]
    pub(crate) superseded_by: Option<OperationId>,
    #[n(15)]
    pub(crate) epoch: u64,
    #[n(16)]
    pub(crate) advice: String,
    #[n(17)]
    pub(crate) awaits_confirmation: bool,
    #[n(18)]
    pub(crate) overrides: Vec<Override>,
    #[n(19)]
    pub(crate) message: String,
}

impl Summary {
    /// How `operation` stands now.
    #[must_use]
    pub(crate) fn of(operation: &Operation) -> Self {
        Self {
            id: operation.id().clone(),
            request: operation.request().clone(),
            policy: operation.policy().clone(),
            state: operation.state(),
            cancellable: operation.is_cancellable(),
            attempt: operation.attempt(),
            round: operation.round(),
            counts: Counts::of(operation),
            failure: operation.failure().cloned(),
            updated: operation.updated(),
            point_of_no_return: operation.point_of_no_return(),
            deadline: operation.deadline(),
            next_attempt: operation.next_attempt(),
            ended: operation.ended(),
            superseded_by: operation.superseded_by().cloned(),
            epoch: operation.epoch(),
            advice: operation.advice(),
            awaits_confirmation: operation.awaits_confirmation(),
            overrides: operation.overrides().to_vec(),
            message: operation.message().to_owned(),
        }
    }

    /// Whether the state is final.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.state.is_final()
    }
}
