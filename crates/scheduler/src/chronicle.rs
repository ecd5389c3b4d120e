//! What became durable, told in the log: one line for each event, so that who reads it can tell the story of an operation
//! from the lines alone. The fields are described in `docs/operations.md`; the agent's lines have the same names.
//!
//! Told where the event log is followed, in its order, and once. Progress is for the level `debug`.

use quiesce_operation::{EventKind, Kind, StateName};
use tracing::{debug, error, info, warn};

use crate::convert::operation::event_type;
use crate::metrics::name;
use crate::records::EventRecord;

/// Tells one event.
pub(crate) fn tell(event: &EventRecord) {
    macro_rules! line {
        ($level:ident, $message:literal) => {{
            let about = About::of(event);
            $level!(
                event = event_type(event.kind).as_str_name().trim_start_matches("TYPE_"),
                operation.id = %event.operation.id,
                application = event.operation.request.application.as_str(),
                kind = about.kind,
                state = event.operation.state.as_str(),
                previous_state = about.previous_state,
                source_cluster = about.source,
                target_cluster = about.target,
                requester = about.requester,
                reason = about.reason,
                instance = about.instance,
                round = event.operation.round,
                attempt = about.attempt,
                epoch = about.epoch,
                phase = about.phase,
                outcome = about.outcome,
                evidence = about.evidence,
                exit_code = about.exit_code,
                exit_signal = about.exit_signal,
                failure = about.failure,
                detail = event.message,
                $message
            );
        }};
    }
    match event.kind {
        EventKind::Created => line!(info, "operation accepted"),
        // Somebody has to act.
        EventKind::StateChanged if event.operation.state == StateName::Degraded => {
            line!(error, "operation waits for a person");
        }
        EventKind::StateChanged => line!(info, "operation changed its state"),
        EventKind::Progress => line!(debug, "progress of an instance"),
        EventKind::Timeout => line!(warn, "timer ran out"),
        EventKind::DeadlineExtended => line!(info, "grace period prolonged"),
        EventKind::ExtensionDenied => line!(warn, "more time not granted in full"),
        EventKind::AttemptFailed => line!(warn, "attempt failed"),
        EventKind::InstanceStopped => line!(info, "instance stopped, its end is verified"),
        EventKind::InstanceStarting => line!(info, "instance is being started"),
        EventKind::InstanceReady => line!(info, "instance is ready"),
        EventKind::Override => line!(warn, "rule of safety set aside"),
    }
}

/// What only some lines have.
#[derive(Default)]
struct About<'a> {
    kind: &'static str,
    previous_state: Option<&'static str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    requester: Option<&'a str>,
    reason: Option<&'a str>,
    instance: Option<&'a str>,
    attempt: Option<u32>,
    epoch: u64,
    phase: Option<String>,
    outcome: Option<String>,
    evidence: Option<String>,
    exit_code: Option<i32>,
    exit_signal: Option<i32>,
    failure: Option<String>,
}

impl<'a> About<'a> {
    fn of(event: &'a EventRecord) -> Self {
        let operation = &event.operation;
        let (request, failure) = (&operation.request, event.failure.as_ref());
        let mut about = Self {
            kind: match request.kind {
                Kind::Migrate => "MIGRATE",
                Kind::Delete => "DELETE",
            },
            instance: failure.and_then(|failure| failure.instance.as_ref()).map(|instance| instance.as_str()),
            attempt: Some(operation.attempt).filter(|attempt| *attempt > 0),
            epoch: operation.epoch,
            failure: failure.map(|failure| name(failure.reason)),
            ..Self::default()
        };
        match event.kind {
            EventKind::Created => {
                about.source = Some(request.source.as_str());
                about.target = request.target.as_ref().map(|target| target.as_str());
                about.requester = Some(&request.caller.identity);
                about.reason = Some(request.caller.reason.as_str()).filter(|reason| !reason.is_empty());
            }
            EventKind::StateChanged => about.previous_state = Some(event.previous.as_str()),
            EventKind::Progress
            | EventKind::Timeout
            | EventKind::DeadlineExtended
            | EventKind::ExtensionDenied
            | EventKind::AttemptFailed
            | EventKind::InstanceStopped
            | EventKind::InstanceStarting
            | EventKind::InstanceReady
            | EventKind::Override => {}
        }
        if let Some(member) = &event.member {
            about.instance = Some(member.instance.as_str());
            about.epoch = member.epoch;
            if let Some(shutdown) = &member.shutdown {
                about.attempt = Some(shutdown.fence);
                about.phase = shutdown.report.as_ref().map(|report| report.phase.to_string());
                let result = shutdown.report.as_ref().and_then(|report| report.result.as_ref());
                about.outcome = result.map(|result| name(result.outcome));
                about.evidence = result.map(|result| result.evidence.to_string());
                about.exit_code = result.and_then(|result| result.exit_code);
                about.exit_signal = result.and_then(|result| result.exit_signal);
            }
        }
        if let Some(start) = &event.start {
            about.instance = Some(start.instance.as_str());
            about.attempt = None;
            about.epoch = start.epoch;
        }
        about
    }
}
