//! The grammar of the machine: what goes in, what comes out.
//!
//! The driver's duty: make the operation durable (and its events with it), *then* perform the effects, then feed the
//! answers back as inputs. Every effect and every answer carries a fence; what comes back with an old one is dropped
//! here, not there.

use std::time::Duration;

use crate::failure::Failure;
use crate::id::{InstanceId, OperationId};
use crate::moment::Moment;
use crate::operation::StateName;
use crate::report::{CallError, Probe, StartReport, StopReport};

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The operation is stored and its turn has come.
    Begin,
    /// Answer to [`Effect::Probe`].
    Probed {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the effect.
        serial: u32,
        /// What the hook said.
        answer: Result<Probe, CallError>,
    },
    /// A report of a shutdown, from the stream or beside it; a result in it has been checked for its token.
    StopReported {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the shutdown.
        attempt: u32,
        /// The report.
        report: StopReport,
    },
    /// The Shutdown call ended without a result, or with one that does not count.
    StopCallEnded {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the shutdown.
        attempt: u32,
        /// How.
        error: CallError,
    },
    /// The application asks for more time beside the stream.
    MoreTimeWanted {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the shutdown.
        attempt: u32,
        /// The total it would like to have.
        wanted: Duration,
    },
    /// Answer to [`Effect::Kill`].
    KillAnswered {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the shutdown.
        attempt: u32,
        /// Whether the signals are out.
        answer: Result<(), CallError>,
    },
    /// Answer to [`Effect::CancelShutdown`].
    CancelAnswered {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the shutdown.
        attempt: u32,
        /// Whether it was taken back.
        answer: Result<(), CallError>,
    },
    /// A report of a start.
    StartReported {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the start.
        epoch: u64,
        /// The report.
        report: StartReport,
    },
    /// The StartApplication call ended without a result.
    StartCallEnded {
        /// Whom it concerns.
        instance: InstanceId,
        /// Fence of the start.
        epoch: u64,
        /// How.
        error: CallError,
    },
    /// Answer to [`Effect::Conclude`].
    Concluded {
        /// Whom it concerns.
        instance: InstanceId,
        /// Whether the hook took note.
        answer: Result<(), CallError>,
    },
}

/// What becomes of a stopped instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Stay held and stand by.
    Standby,
    /// Deleted for good.
    Retired,
}

/// Something to do outside, once the operation is durable. Doing it twice must be harmless: recovery repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// GetHookInfo and, where the hook has it and `check` says so, CheckShutdown. Answer: [`Input::Probed`].
    Probe {
        /// Whom to ask.
        instance: InstanceId,
        /// Fence.
        serial: u32,
        /// Whether to ask for a pre-flight check of a stop.
        check: bool,
    },
    /// Call Shutdown with the id of this attempt, or join it when it runs; reuse a stream of the same attempt that is
    /// still open unless `anew`. Answers: [`Input::StopReported`], [`Input::StopCallEnded`].
    Shutdown {
        /// Whom to stop.
        instance: InstanceId,
        /// Fence; also the attempt number the hook sees.
        attempt: u32,
        /// Give up a stream that is open but silent.
        anew: bool,
    },
    /// Tell the hook its new total grace period. No answer needed: a join tells it again.
    UpdateDeadline {
        /// Whom.
        instance: InstanceId,
        /// Fence.
        attempt: u32,
        /// The new total.
        grace: Duration,
        /// Whether the application got all it wanted.
        granted: bool,
    },
    /// KillApplication. Answer: [`Input::KillAnswered`].
    Kill {
        /// Whom.
        instance: InstanceId,
        /// Fence.
        attempt: u32,
    },
    /// CancelShutdown. Answer: [`Input::CancelAnswered`].
    CancelShutdown {
        /// Whom.
        instance: InstanceId,
        /// Fence.
        attempt: u32,
    },
    /// Call StartApplication, or join the start of this epoch. Answers: [`Input::StartReported`],
    /// [`Input::StartCallEnded`].
    Start {
        /// Whom.
        instance: InstanceId,
        /// Permission to run, and fence.
        epoch: u64,
        /// Whether a source is started again.
        rollback: bool,
    },
    /// ConcludeShutdown. Answer: [`Input::Concluded`].
    Conclude {
        /// Whom.
        instance: InstanceId,
        /// Epoch of the stopped run.
        epoch: u64,
        /// What becomes of it.
        disposition: Disposition,
    },
}

/// What kind of thing happened; the wire calls it `OperationEvent.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The operation was accepted.
    Created,
    /// The state changed.
    StateChanged,
    /// An instance reported something new.
    Progress,
    /// A timer ran out; the failure says which.
    Timeout,
    /// A deadline was moved.
    DeadlineExtended,
    /// An instance wanted more time and did not get all of it.
    ExtensionDenied,
    /// An attempt on an instance failed.
    AttemptFailed,
    /// An instance has ended.
    InstanceStopped,
    /// A copy is being started.
    InstanceStarting,
    /// A started copy is ready.
    InstanceReady,
    /// An explicit override was given or used.
    Override,
}

/// One thing that happened, to be stored together with the operation and shown to watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// State of the operation after it.
    pub state: StateName,
    /// State before it; differs from `state` in [`EventKind::StateChanged`] only.
    pub previous: StateName,
    /// The instance concerned.
    pub instance: Option<InstanceId>,
    /// Whether `instance` is meant as one being started.
    pub start: bool,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// One line for people.
    pub message: String,
    /// When.
    pub time: Moment,
}

/// The outcome of one input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Whether the operation has to be made durable.
    pub changed: bool,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What to do once it is durable.
    pub effects: Vec<Effect>,
}

/// A request by a person or service that cannot be granted in the present state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Cancel: the application has been told to stop.
    #[error("{operation} is past the point of no return: an instance has been told to stop")]
    PointOfNoReturn {
        /// Which operation.
        operation: OperationId,
        /// Since when.
        since: Option<Moment>,
    },
    /// It is over.
    #[error("{operation} is over ({})", state.as_str())]
    Done {
        /// Which operation.
        operation: OperationId,
        /// How it ended.
        state: StateName,
    },
    /// Retry, supersede: it does not wait for a person.
    #[error("{operation} is {}, not DEGRADED", state.as_str())]
    NotDegraded {
        /// Which operation.
        operation: OperationId,
        /// Where it stands.
        state: StateName,
    },
    /// Confirm: it does not wait for a confirmation.
    #[error("{operation} does not wait for a confirmation, it is {}", state.as_str())]
    NotConfirmable {
        /// Which operation.
        operation: OperationId,
        /// Where it stands.
        state: StateName,
    },
    /// The policy that would be in force is out of bounds.
    #[error("the policy is out of bounds")]
    Policy {
        /// Every field and what is wrong with it.
        violations: Vec<(&'static str, String)>,
    },
}
