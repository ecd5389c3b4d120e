//! One entry of the event log: what happened to one operation, and how it stood afterwards.
//!
//! Appended in the batch that puts the operation's record, before it. The revision of the event is that of its entry.

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};
use quiesce_operation::member::Member;
use quiesce_operation::start::StartMember;
use quiesce_operation::{Event, EventKind, Failure, Moment, Operation, StateName};

use super::operation::Summary;

/// Most overrides an event repeats, the newest ones. A forced deletion of 500 instances has 500 of them, and as many
/// events in one batch; [`Summary`] of the operation itself keeps every one.
const OVERRIDES_IN_EVENT_MAX: usize = 16;

/// One thing that happened to one operation.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct EventRecord {
    /// What.
    #[cbor(n(0), encode_with = "encode_kind", decode_with = "decode_kind")]
    pub(crate) kind: EventKind,
    /// When.
    #[n(1)]
    pub(crate) time: Moment,
    /// The state before; the same as after unless the state changed.
    #[n(2)]
    pub(crate) previous: StateName,
    /// What went wrong.
    #[n(3)]
    pub(crate) failure: Option<Failure>,
    /// One line for people.
    #[n(4)]
    pub(crate) message: String,
    /// The operation after it.
    #[n(5)]
    pub(crate) operation: Summary,
    /// The instance concerned, as one being stopped.
    #[n(6)]
    pub(crate) member: Option<Member>,
    /// The instance concerned, as one being started.
    #[n(7)]
    pub(crate) start: Option<StartMember>,
}

impl EventRecord {
    /// `event` of `operation`, which has taken it in already.
    #[must_use]
    pub(crate) fn new(operation: &Operation, event: &Event) -> Self {
        let mut summary = Summary::of(operation);
        // Several events of one step pass through several states; each shows its own.
        summary.state = event.state;
        let surplus = summary.overrides.len().saturating_sub(OVERRIDES_IN_EVENT_MAX);
        summary.overrides.drain(..surplus);
        let stop = event.instance.as_ref().filter(|_| !event.start);
        let start = event.instance.as_ref().filter(|_| event.start);
        Self {
            kind: event.kind,
            time: event.time,
            previous: event.previous,
            failure: event.failure.clone(),
            message: event.message.clone(),
            operation: summary,
            member: stop.and_then(|id| operation.member(id)).cloned(),
            start: start.and_then(|id| operation.starts().iter().rfind(|start| start.instance == *id)).cloned(),
        }
    }
}

/// The stored number of a kind is its place here; places are never changed, new kinds go to the end.
const KINDS: [EventKind; 11] = [
    EventKind::Created,
    EventKind::StateChanged,
    EventKind::Progress,
    EventKind::Timeout,
    EventKind::DeadlineExtended,
    EventKind::ExtensionDenied,
    EventKind::AttemptFailed,
    EventKind::InstanceStopped,
    EventKind::InstanceStarting,
    EventKind::InstanceReady,
    EventKind::Override,
];

fn encode_kind<C, W: Write>(
    kind: &EventKind,
    encoder: &mut Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    let place = KINDS.iter().position(|one| one == kind).and_then(|place| u8::try_from(place).ok());
    encoder.u8(place.ok_or_else(|| minicbor::encode::Error::message("kind of event without a stored number"))?)?;
    Ok(())
}

fn decode_kind<C>(decoder: &mut Decoder<'_>, _: &mut C) -> Result<EventKind, minicbor::decode::Error> {
    let kind = KINDS.get(usize::from(decoder.u8()?)).copied();
    kind.ok_or_else(|| minicbor::decode::Error::message("kind of event this program does not know"))
}
