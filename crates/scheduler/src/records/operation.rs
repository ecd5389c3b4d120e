//! The record of an operation, and the summary of one as it stood at some event.

use std::collections::BTreeMap;

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};
use quiesce_operation::member::Run;
use quiesce_operation::{
    Failure, Kind, Moment, Operation, OperationId, Override, Placement, Policy, Request, StateName,
};

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
    /// Counted over the instances that are to be stopped.
    #[must_use]
    pub(crate) fn of(operation: &Operation) -> Self {
        let mut counts = Self::default();
        for member in operation.members() {
            let count = match member.run {
                Run::Waiting => &mut counts.waiting,
                Run::Calling { .. } | Run::Running { .. } => &mut counts.stopping,
                Run::Stopped => &mut counts.stopped,
                Run::Unverified => &mut counts.unverified,
                Run::Failed => &mut counts.failed,
            };
            *count += 1;
        }
        counts
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
    #[cbor(n(3), encode_with = "encode_state", decode_with = "decode_state")]
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
        }
    }

    /// Whether the state is final.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        is_final(self.state)
    }

    /// Whether it is for a migration.
    #[must_use]
    pub(crate) fn is_migration(&self) -> bool {
        self.request.kind == Kind::Migrate
    }

    /// The placement it was accepted with.
    #[must_use]
    pub(crate) fn placement(&self) -> Placement {
        self.request.placement
    }

    /// Labels of the operation.
    #[must_use]
    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.request.labels
    }
}

/// Whether nothing follows on `state`.
#[must_use]
pub(crate) fn is_final(state: StateName) -> bool {
    match state {
        StateName::Succeeded | StateName::Cancelled | StateName::RolledBack | StateName::Abandoned => true,
        StateName::Pending
        | StateName::Preparing
        | StateName::Stopping
        | StateName::BackingOff
        | StateName::Forcing
        | StateName::Stopped
        | StateName::Starting
        | StateName::Finalizing
        | StateName::Cancelling
        | StateName::RollingBack
        | StateName::Degraded => false,
    }
}

/// The stored number of a state is its place here; places are never changed, new states go to the end.
const STATES: [StateName; 15] = [
    StateName::Pending,
    StateName::Preparing,
    StateName::Stopping,
    StateName::BackingOff,
    StateName::Forcing,
    StateName::Stopped,
    StateName::Starting,
    StateName::Finalizing,
    StateName::Cancelling,
    StateName::RollingBack,
    StateName::Degraded,
    StateName::Succeeded,
    StateName::Cancelled,
    StateName::RolledBack,
    StateName::Abandoned,
];

pub(super) fn encode_state<C, W: Write>(
    state: &StateName,
    encoder: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    encode_place(&STATES, state, encoder)
}

pub(super) fn decode_state<C>(
    decoder: &mut Decoder<'_>,
    _: &mut C,
) -> Result<StateName, minicbor::decode::Error> {
    decode_place(&STATES, decoder)
}

/// Writes the place of `value` in `all`.
pub(super) fn encode_place<T: PartialEq, W: Write>(
    all: &[T],
    value: &T,
    encoder: &mut Encoder<W>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    let place = all.iter().position(|one| one == value);
    let place = place.ok_or_else(|| minicbor::encode::Error::message("value without a stored number"))?;
    encoder.u32(u32::try_from(place).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Reads what [`encode_place`] wrote.
pub(super) fn decode_place<T: Copy>(all: &[T], decoder: &mut Decoder<'_>) -> Result<T, minicbor::decode::Error> {
    let place = decoder.u32()?;
    let found = usize::try_from(place).ok().and_then(|place| all.get(place)).copied();
    found.ok_or_else(|| minicbor::decode::Error::message("number of a value this program does not know"))
}
