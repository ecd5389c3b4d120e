//! What the page gets to see of the contract: the same words and numbers, as JSON that a browser reads quickly.
//!
//! States and the like are called as in the contract, without the prefix of their enum. Times are milliseconds since 1970,
//! lengths of time milliseconds. What is not set is left out. Tokens are not in what it is made of.

use prost_types::{Duration, Timestamp};
use quiesce_protocol::v1;
use serde::Serialize;

/// An operation; with its instances where the contract fills them in.
#[derive(Serialize)]
pub(super) struct Operation<'o> {
    name: &'o str,
    application: &'o str,
    kind: &'static str,
    state: &'static str,
    done: bool,
    #[serde(skip_serializing_if = "is_false")]
    force: bool,
    #[serde(skip_serializing_if = "is_false")]
    cancellable: bool,
    #[serde(skip_serializing_if = "is_false")]
    awaits: bool,
    message: &'o str,
    source: &'o str,
    #[serde(skip_serializing_if = "str::is_empty")]
    target: &'o str,
    attempt: i32,
    attempts: i32,
    round: i32,
    epoch: i64,
    counts: Counts,
    created: Option<i64>,
    updated: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<i64>,
    grace: i64,
    extensible: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'o>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'o str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'o str,
    #[serde(skip_serializing_if = "str::is_empty")]
    requester: &'o str,
    overrides: Vec<Overridden<'o>>,
    revision: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    instances: Vec<Shutdown<'o>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    starts: Vec<Start<'o>>,
}

/// How many instances are where.
#[derive(Serialize)]
struct Counts {
    waiting: i32,
    stopping: i32,
    stopped: i32,
    unverified: i32,
    failed: i32,
}

/// What went wrong.
#[derive(Serialize)]
struct Failure<'f> {
    reason: &'static str,
    message: &'f str,
    #[serde(skip_serializing_if = "str::is_empty")]
    instance: &'f str,
}

/// Somebody went on without proof, or by force.
#[derive(Serialize)]
struct Overridden<'o> {
    kind: &'static str,
    requester: &'o str,
    reason: &'o str,
    #[serde(skip_serializing_if = "str::is_empty")]
    instance: &'o str,
}

/// An instance that is stopped.
#[derive(Serialize)]
pub(super) struct Shutdown<'i> {
    instance: &'i str,
    attempt: i32,
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<i64>,
    extension: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    step: &'i str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'i str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'i>>,
}

/// An instance that is started.
#[derive(Serialize)]
pub(super) struct Start<'i> {
    instance: &'i str,
    epoch: i64,
    ready: bool,
    rollback: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'i str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'i>>,
}

/// Something that happened.
#[derive(Serialize)]
pub(super) struct Event<'e> {
    r#type: &'static str,
    time: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    resume: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Operation<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Shutdown<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Start<'e>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure<'e>>,
}

/// An instance as it is registered.
#[derive(Serialize)]
pub(super) struct Instance<'i> {
    name: &'i str,
    cluster: &'i str,
    state: &'static str,
    epoch: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard: Option<i64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    app: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    implementation: &'i str,
    /// Why it is not ready, or not reached.
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'i str,
}

/// `operation` for the page.
pub(super) fn operation(operation: &v1::Operation) -> Operation<'_> {
    let policy = operation.policy.as_ref();
    let counts = operation.counts.unwrap_or_default();
    Operation {
        name: &operation.name,
        application: &operation.application,
        kind: bare(operation.kind().as_str_name(), "OPERATION_KIND_"),
        state: bare(operation.state().as_str_name(), "STATE_"),
        done: operation.done,
        force: operation.force,
        cancellable: operation.cancellable,
        awaits: operation.awaiting_confirmation,
        message: &operation.message,
        source: &operation.source_cluster,
        target: &operation.target_cluster,
        attempt: operation.attempt,
        attempts: policy.and_then(|policy| policy.retry?.max_attempts).unwrap_or_default(),
        round: operation.round,
        epoch: operation.epoch,
        counts: Counts {
            waiting: counts.waiting,
            stopping: counts.stopping,
            stopped: counts.stopped,
            unverified: counts.unverified,
            failed: counts.failed,
        },
        created: time(operation.create_time.as_ref()),
        updated: time(operation.update_time.as_ref()),
        begun: time(operation.point_of_no_return_time.as_ref()),
        deadline: time(operation.deadline_time.as_ref()),
        next: time(operation.next_attempt_time.as_ref()),
        ended: time(operation.end_time.as_ref()),
        grace: length(policy.and_then(|policy| policy.grace_period.as_ref())),
        extensible: length(policy.and_then(|policy| policy.max_extension.as_ref())),
        failure: operation.failure.as_ref().map(failure),
        advice: &operation.advice,
        reason: &operation.reason,
        requester: &operation.requester,
        overrides: operation.overrides.iter().map(overridden).collect(),
        revision: operation.revision,
        instances: operation.instances.iter().map(shutdown).collect(),
        starts: operation.starts.iter().map(start).collect(),
    }
}

/// `event` for the page.
pub(super) fn event(event: &v1::OperationEvent) -> Event<'_> {
    let previous = event.previous_state();
    Event {
        r#type: bare(event.r#type().as_str_name(), "TYPE_"),
        time: time(event.event_time.as_ref()),
        resume: &event.resume_token,
        message: &event.message,
        previous: (previous != v1::operation::State::Unspecified).then(|| bare(previous.as_str_name(), "STATE_")),
        operation: event.operation.as_ref().map(operation),
        instance: event.instance.as_ref().map(shutdown),
        start: event.start.as_ref().map(start),
        failure: event.failure.as_ref().map(failure),
    }
}

/// `instance` for the page.
pub(super) fn instance(instance: &v1::Instance) -> Instance<'_> {
    let hook = instance.hook.as_ref();
    let not_ready = hook.map(|hook| hook.not_ready_reason.as_str()).unwrap_or_default();
    Instance {
        name: &instance.name,
        cluster: &instance.cluster,
        state: bare(instance.state().as_str_name(), "STATE_"),
        epoch: instance.epoch,
        heard: time(instance.last_seen_time.as_ref()),
        app: hook.map(|hook| bare(hook.app_state().as_str_name(), "APP_STATE_")).unwrap_or_default(),
        implementation: hook.map(|hook| hook.implementation.as_str()).unwrap_or_default(),
        why: if instance.unreachable_reason.is_empty() { not_ready } else { &instance.unreachable_reason },
    }
}

fn shutdown(one: &v1::InstanceShutdown) -> Shutdown<'_> {
    let status = one.status.as_ref();
    let result = status.and_then(|status| status.result.as_ref());
    Shutdown {
        instance: &one.instance,
        attempt: one.attempt,
        verified: one.verified,
        accepted: time(one.accept_time.as_ref()),
        deadline: time(one.deadline_time.as_ref()),
        extension: length(one.extension.as_ref()),
        heard: time(one.heartbeat_time.as_ref()),
        phase: status.map(|status| bare(status.phase().as_str_name(), "SHUTDOWN_PHASE_")),
        percent: status.and_then(|status| status.percent),
        step: status.map(|status| status.step.as_str()).unwrap_or_default(),
        message: status.map(|status| status.message.as_str()).unwrap_or_default(),
        outcome: result.map(|result| bare(result.outcome().as_str_name(), "OUTCOME_")),
        evidence: result.map(|result| bare(result.evidence().as_str_name(), "EVIDENCE_")),
        failure: one.failure.as_ref().map(failure),
    }
}

fn start(one: &v1::InstanceStart) -> Start<'_> {
    let status = one.status.as_ref();
    Start {
        instance: &one.instance,
        epoch: one.epoch,
        ready: one.ready,
        rollback: one.rollback,
        ordered: time(one.order_time.as_ref()),
        deadline: time(one.deadline_time.as_ref()),
        phase: status.map(|status| bare(status.phase().as_str_name(), "START_PHASE_")),
        message: status.map(|status| status.message.as_str()).unwrap_or_default(),
        failure: one.failure.as_ref().map(failure),
    }
}

fn failure(failure: &v1::Failure) -> Failure<'_> {
    Failure {
        reason: bare(failure.reason().as_str_name(), "REASON_"),
        message: &failure.message,
        instance: &failure.instance,
    }
}

fn overridden(one: &v1::Override) -> Overridden<'_> {
    Overridden {
        kind: bare(one.kind().as_str_name(), "KIND_"),
        requester: &one.requester,
        reason: &one.reason,
        instance: &one.instance,
    }
}

fn bare(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn time(time: Option<&Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000))
}

fn length(length: Option<&Duration>) -> i64 {
    length.map_or(0, |length| length.seconds.saturating_mul(1000).saturating_add(i64::from(length.nanos) / 1_000_000))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}
