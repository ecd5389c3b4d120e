//! Operations, their instances and their events for readers. Nothing is read from the wire here.

use quiesce_operation::member::{Member, Run};
use quiesce_operation::start::{StartMember, StartRun};
use quiesce_operation::{
    ApplicationId, EventKind, Failure, Kind, Operation, OperationId, OverrideKind, Placement, Reason, StateName,
};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_store::Revision;
use v1::operation::State as WireState;

use super::policy::policy_to_wire;
use super::report::{start_report_to_wire, stop_report_to_wire};
use super::{application_name, duration_to_wire, instance_name, int, long, operation_name, timestamp};
use crate::records::{Counts, EventRecord, Summary};
use crate::secrets::ShutdownId;

/// An operation with its instances.
pub(crate) fn operation_to_wire(clock: &dyn Clock, operation: &Operation, revision: Revision) -> v1::Operation {
    let application = &operation.request().application;
    let members = operation.members().iter().chain(operation.undo());
    v1::Operation {
        instances: members.map(|member| member_to_wire(clock, application, operation.id(), member)).collect(),
        starts: operation.starts().iter().map(|start| start_to_wire(clock, application, start)).collect(),
        ..summary_to_wire(clock, &Summary::of(operation), revision)
    }
}

/// An operation without its instances.
pub(crate) fn summary_to_wire(clock: &dyn Clock, summary: &Summary, revision: Revision) -> v1::Operation {
    let Summary { id, request, policy, .. } = summary;
    let application = &request.application;
    let time = |moment| timestamp(clock, moment);
    v1::Operation {
        name: operation_name(id),
        application: application_name(application),
        kind: kind_to_wire(request.kind).into(),
        state: state_to_wire(summary.state).into(),
        done: summary.is_done(),
        cancellable: summary.cancellable,
        force: request.force,
        message: summary.message.clone(),
        source_cluster: request.source.to_string(),
        target_cluster: request.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        policy: Some(policy_to_wire(policy)),
        attempt: int(summary.attempt),
        round: int(summary.round),
        counts: Some(counts_to_wire(summary.counts)),
        instances: Vec::new(),
        failure: summary.failure.as_ref().map(|failure| failure_to_wire(clock, application, failure)),
        reason: request.caller.reason.clone(),
        request_id: request.request_id.clone(),
        labels: request.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        requester: request.caller.identity.clone(),
        create_time: Some(time(request.time)),
        update_time: Some(time(summary.updated)),
        point_of_no_return_time: summary.point_of_no_return.map(time),
        deadline_time: summary.deadline.map(time),
        next_attempt_time: summary.next_attempt.map(time),
        end_time: summary.ended.map(time),
        revision: long(revision.as_u64()),
        superseded_by: summary.superseded_by.as_ref().map(operation_name).unwrap_or_default(),
        epoch: long(summary.epoch),
        placement: Some(placement_to_wire(request.placement)),
        starts: Vec::new(),
        advice: summary.advice.clone(),
        awaiting_confirmation: summary.awaits_confirmation,
        overrides: summary
            .overrides
            .iter()
            .map(|one| v1::Override {
                kind: match one.kind {
                    OverrideKind::Force => v1::r#override::Kind::Force,
                    OverrideKind::AllowUnverified => v1::r#override::Kind::AllowUnverified,
                }
                .into(),
                requester: one.requester.clone(),
                reason: one.reason.clone(),
                time: Some(time(one.time)),
                instance: one.instance.as_ref().map(|id| instance_name(application, id)).unwrap_or_default(),
            })
            .collect(),
    }
}

/// One entry of the event log. `resume_token` is left to the watch, which alone knows what it is for.
pub(crate) fn event_to_wire(clock: &dyn Clock, event: &EventRecord, revision: Revision) -> v1::OperationEvent {
    let Summary { id, request, .. } = &event.operation;
    let application = &request.application;
    let previous = match event.kind {
        EventKind::StateChanged => state_to_wire(event.previous),
        EventKind::Created
        | EventKind::Progress
        | EventKind::Timeout
        | EventKind::DeadlineExtended
        | EventKind::ExtensionDenied
        | EventKind::AttemptFailed
        | EventKind::InstanceStopped
        | EventKind::InstanceStarting
        | EventKind::InstanceReady
        | EventKind::Override => WireState::Unspecified,
    };
    v1::OperationEvent {
        revision: long(revision.as_u64()),
        r#type: event_type(event.kind).into(),
        event_time: Some(timestamp(clock, event.time)),
        resume_token: String::new(),
        operation: Some(summary_to_wire(clock, &event.operation, revision)),
        instance: event.member.as_ref().map(|member| member_to_wire(clock, application, id, member)),
        failure: event.failure.as_ref().map(|failure| failure_to_wire(clock, application, failure)),
        previous_state: previous.into(),
        message: event.message.clone(),
        start: event.start.as_ref().map(|start| start_to_wire(clock, application, start)),
    }
}

/// The kind of an event on the wire.
pub(crate) fn event_type(kind: EventKind) -> v1::operation_event::Type {
    use v1::operation_event::Type as W;
    match kind {
        EventKind::Created => W::Created,
        EventKind::StateChanged => W::StateChanged,
        EventKind::Progress => W::Progress,
        EventKind::Timeout => W::Timeout,
        EventKind::DeadlineExtended => W::DeadlineExtended,
        EventKind::ExtensionDenied => W::ExtensionDenied,
        EventKind::AttemptFailed => W::AttemptFailed,
        EventKind::InstanceStopped => W::InstanceStopped,
        EventKind::InstanceStarting => W::InstanceStarting,
        EventKind::InstanceReady => W::InstanceReady,
        EventKind::Override => W::Override,
    }
}

fn member_to_wire(
    clock: &dyn Clock,
    application: &ApplicationId,
    operation: &OperationId,
    member: &Member,
) -> v1::InstanceShutdown {
    let shutdown = member.shutdown.as_ref();
    let report = shutdown.and_then(|shutdown| Some((shutdown.fence, shutdown.report.as_ref()?)));
    v1::InstanceShutdown {
        instance: instance_name(application, &member.instance),
        status: report.map(|(attempt, report)| {
            let id = ShutdownId { operation: operation.clone(), attempt, instance: member.instance.clone() };
            stop_report_to_wire(report, id.to_string())
        }),
        attempt: int(member.attempt),
        accept_time: shutdown.and_then(|shutdown| shutdown.accepted).map(|moment| timestamp(clock, moment)),
        deadline_time: member.deadline().map(|moment| timestamp(clock, moment)),
        extension: shutdown.map(|shutdown| duration_to_wire(shutdown.extension)),
        heartbeat_time: shutdown.and_then(|shutdown| shutdown.heard).map(|moment| timestamp(clock, moment)),
        verified: member.run == Run::Stopped,
        failure: member.failure.as_ref().map(|failure| failure_to_wire(clock, application, failure)),
    }
}

fn start_to_wire(clock: &dyn Clock, application: &ApplicationId, start: &StartMember) -> v1::InstanceStart {
    let deadline = match start.run {
        StartRun::Ordered { until, .. } => Some(until),
        StartRun::Waiting | StartRun::Ready | StartRun::Failed => None,
    };
    v1::InstanceStart {
        instance: instance_name(application, &start.instance),
        epoch: long(start.epoch),
        status: start.report.as_ref().map(|report| start_report_to_wire(report, start.epoch)),
        rollback: start.rollback,
        order_time: start.ordered.map(|moment| timestamp(clock, moment)),
        deadline_time: deadline.map(|moment| timestamp(clock, moment)),
        ready: start.run == StartRun::Ready,
        failure: start.failure.as_ref().map(|failure| failure_to_wire(clock, application, failure)),
    }
}

fn failure_to_wire(clock: &dyn Clock, application: &ApplicationId, failure: &Failure) -> v1::Failure {
    use v1::failure::Reason as W;
    let reason = match failure.reason {
        Reason::HookUnreachable => W::HookUnreachable,
        Reason::HookRejected => W::HookRejected,
        Reason::ProtocolError => W::ProtocolError,
        Reason::AcceptTimeout => W::AcceptTimeout,
        Reason::HeartbeatTimeout => W::HeartbeatTimeout,
        Reason::GraceTimeout => W::GraceTimeout,
        Reason::KillTimeout => W::KillTimeout,
        Reason::OverallTimeout => W::OverallTimeout,
        Reason::StillRunning => W::StillRunning,
        Reason::Restarted => W::Restarted,
        Reason::Unverified => W::Unverified,
        Reason::UncleanExit => W::UncleanExit,
        Reason::CheckFailed => W::CheckFailed,
        Reason::StartFailed => W::StartFailed,
        Reason::StartTimeout => W::StartTimeout,
    };
    v1::Failure {
        reason: reason.into(),
        message: failure.message.clone(),
        instance: failure.instance.as_ref().map(|id| instance_name(application, id)).unwrap_or_default(),
        attempt: int(failure.attempt),
        grpc_code: failure.grpc_code.clone(),
        time: Some(timestamp(clock, failure.time)),
    }
}

fn kind_to_wire(kind: Kind) -> v1::OperationKind {
    match kind {
        Kind::Migrate => v1::OperationKind::Migrate,
        Kind::Delete => v1::OperationKind::Delete,
    }
}

/// A state for the wire.
pub(crate) fn state_to_wire(state: StateName) -> WireState {
    match state {
        StateName::Pending => WireState::Pending,
        StateName::Preparing => WireState::Preparing,
        StateName::Stopping => WireState::Stopping,
        StateName::BackingOff => WireState::BackingOff,
        StateName::Forcing => WireState::Forcing,
        StateName::Stopped => WireState::Stopped,
        StateName::Starting => WireState::Starting,
        StateName::Finalizing => WireState::Finalizing,
        StateName::Cancelling => WireState::Cancelling,
        StateName::RollingBack => WireState::RollingBack,
        StateName::Degraded => WireState::Degraded,
        StateName::Succeeded => WireState::Succeeded,
        StateName::Cancelled => WireState::Cancelled,
        StateName::RolledBack => WireState::RolledBack,
        StateName::Abandoned => WireState::Abandoned,
    }
}

fn counts_to_wire(counts: Counts) -> v1::InstanceCounts {
    v1::InstanceCounts {
        waiting: int(counts.waiting),
        stopping: int(counts.stopping),
        stopped: int(counts.stopped),
        unverified: int(counts.unverified),
        failed: int(counts.failed),
    }
}

/// A placement for the wire, every field set.
pub(crate) fn placement_to_wire(placement: Placement) -> v1::Placement {
    use v1::placement::Driver;
    let driver = match placement {
        Placement::External { require_confirmation } => {
            Driver::External(v1::ExternalPlacement { require_confirmation })
        }
        Placement::Agents => Driver::Agents(v1::AgentsPlacement {}),
    };
    v1::Placement { driver: Some(driver) }
}
