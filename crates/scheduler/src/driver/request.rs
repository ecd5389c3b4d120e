//! What hooks are told: requests composed from the operation and its secrets, the same each time they are composed.

use std::collections::HashMap;
use std::time::Duration;

use quiesce_operation::member::Member;
use quiesce_operation::start::StartMember;
use quiesce_operation::{Disposition, InstanceId, Kind, Moment, Operation};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;

use crate::convert::{self, duration_to_wire};
use crate::secrets::{CompletionToken, ShutdownId};

/// How many reports a hook is asked for within `heartbeat_timeout`: one may get lost and one may be late.
const HEARTBEATS_PER_TIMEOUT: u32 = 3;

/// The id of the shutdown of `instance` under the fence `attempt`.
pub(super) fn shutdown_id(operation: &Operation, instance: &InstanceId, attempt: u32) -> ShutdownId {
    ShutdownId { operation: operation.id().clone(), attempt, instance: instance.clone() }
}

pub(super) fn shutdown(
    operation: &Operation,
    member: &Member,
    id: &ShutdownId,
    token: &CompletionToken,
    clock: &dyn Clock,
) -> v1::ShutdownRequest {
    let (request, policy) = (operation.request(), operation.policy());
    let grace = member.shutdown.as_ref().map_or(policy.grace_period, |shutdown| shutdown.grace);
    let now = Moment::from_millis(clock.now());
    let deadline = member.shutdown.as_ref().and_then(|shutdown| shutdown.deadline()).unwrap_or(now + grace);
    v1::ShutdownRequest {
        shutdown_id: id.to_string(),
        operation: convert::operation_name(operation.id()),
        instance: instance_name(operation, &member.instance),
        attempt: convert::int(id.attempt),
        kind: match request.kind {
            Kind::Migrate => v1::OperationKind::Migrate,
            Kind::Delete => v1::OperationKind::Delete,
        }
        .into(),
        grace_period: Some(duration_to_wire(grace)),
        deadline_time: Some(clock.wall(deadline.as_millis()).into()),
        heartbeat_interval: Some(heartbeat_interval(operation)),
        max_extension: Some(duration_to_wire(policy.max_extension)),
        settle_period: Some(duration_to_wire(policy.settle_period)),
        completion_token: token.reveal().to_owned(),
        parameters: parameters(operation),
        target_cluster: request.target.as_ref().map_or_else(String::new, ToString::to_string),
        reason: request.caller.reason.clone(),
        epoch: convert::long(member.epoch),
    }
}

pub(super) fn update_deadline(
    member: &Member,
    id: &ShutdownId,
    grace: Duration,
    granted: bool,
    clock: &dyn Clock,
) -> v1::UpdateDeadlineRequest {
    let accepted = member.shutdown.as_ref().and_then(|shutdown| shutdown.accepted);
    let accepted = accepted.unwrap_or(Moment::from_millis(clock.now()));
    v1::UpdateDeadlineRequest {
        shutdown_id: id.to_string(),
        grace_period: Some(duration_to_wire(grace)),
        deadline_time: Some(clock.wall((accepted + grace).as_millis()).into()),
        granted,
    }
}

pub(super) fn kill(operation: &Operation, id: &ShutdownId, token: &CompletionToken) -> v1::KillApplicationRequest {
    v1::KillApplicationRequest {
        shutdown_id: id.to_string(),
        completion_token: token.reveal().to_owned(),
        reason: operation.message().to_owned(),
    }
}

pub(super) fn cancel(operation: &Operation, id: &ShutdownId) -> v1::CancelShutdownRequest {
    v1::CancelShutdownRequest { shutdown_id: id.to_string(), reason: operation.message().to_owned() }
}

pub(super) fn start(operation: &Operation, start: &StartMember) -> v1::StartApplicationRequest {
    let (request, policy) = (operation.request(), operation.policy());
    v1::StartApplicationRequest {
        epoch: convert::long(start.epoch),
        instance: instance_name(operation, &start.instance),
        operation: convert::operation_name(operation.id()),
        start_timeout: Some(duration_to_wire(policy.start_timeout)),
        heartbeat_interval: Some(heartbeat_interval(operation)),
        source_cluster: if start.rollback { String::new() } else { request.source.to_string() },
        rollback: start.rollback,
        parameters: parameters(operation),
        reason: request.caller.reason.clone(),
    }
}

pub(super) fn conclude(
    operation: &Operation,
    instance: &InstanceId,
    epoch: u64,
    disposition: Disposition,
) -> v1::ConcludeShutdownRequest {
    use v1::conclude_shutdown_request::Disposition as Wire;
    v1::ConcludeShutdownRequest {
        operation: convert::operation_name(operation.id()),
        instance: instance_name(operation, instance),
        epoch: convert::long(epoch),
        disposition: match disposition {
            Disposition::Standby => Wire::Standby,
            Disposition::Retired => Wire::Retired,
        }
        .into(),
    }
}

fn instance_name(operation: &Operation, instance: &InstanceId) -> String {
    convert::instance_name(&operation.request().application, instance)
}

fn heartbeat_interval(operation: &Operation) -> prost_types::Duration {
    duration_to_wire(operation.policy().heartbeat_timeout / HEARTBEATS_PER_TIMEOUT)
}

fn parameters(operation: &Operation) -> HashMap<String, String> {
    operation.policy().parameters.clone().into_iter().collect()
}
