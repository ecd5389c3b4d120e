//! One line for each event, stable and easy to grep: time, operation, type, then what it is about.

use quiesce_protocol::v1::{InstanceShutdown, InstanceStart, OperationEvent, ShutdownStatus, operation_event};

use crate::live::view::{describe_end, describe_failure, describe_progress, phase, start_phase, subject};
use crate::name;
use crate::output::text::{self, Line, Style};
use crate::output::words;

/// The line for an event; `None` for a bookmark, which is no news.
pub(crate) fn line(event: &OperationEvent) -> Option<Line> {
    use operation_event::Type;
    let operation = event.operation.as_ref();
    let kind = event.r#type();
    if kind == Type::Bookmark {
        return None;
    }
    let state = operation.map(|operation| words::operation_state(operation.state)).unwrap_or_default();
    let mut details: Vec<String> = Vec::new();
    match kind {
        Type::Snapshot | Type::Created => {
            details.push(state);
            details.extend(operation.map(|operation| subject(operation).replace("  ", " ")));
        }
        Type::StateChanged => details.push(format!("{} -> {state}", words::operation_state(event.previous_state))),
        Type::Override => details
            .extend(operation.and_then(|operation| operation.overrides.last()).map(super::verdict::describe_override)),
        Type::Unspecified
        | Type::Progress
        | Type::Timeout
        | Type::DeadlineExtended
        | Type::ExtensionDenied
        | Type::AttemptFailed
        | Type::InstanceStopped
        | Type::InstanceStarting
        | Type::InstanceReady
        | Type::Bookmark => {}
    }
    details.extend(event.instance.as_ref().map(|instance| shutdown(event, instance)));
    details.extend(event.start.as_ref().map(start));
    details.extend(event.failure.as_ref().map(describe_failure));
    // The scheduler's line often says in words what the fields of an instance or start have said already.
    let is_said = matches!(kind, Type::Progress | Type::InstanceStopped | Type::InstanceStarting | Type::InstanceReady)
        && (event.instance.is_some() || event.start.is_some());
    let message = text::clean(&event.message);
    if !message.is_empty() && !is_said && !details.iter().any(|detail| detail.contains(&message)) {
        details.push(message);
    }

    let style = match kind {
        Type::Timeout | Type::AttemptFailed | Type::ExtensionDenied | Type::Override => Style::Warning,
        Type::StateChanged => operation.map_or(Style::Plain, |operation| words::operation_style(operation.state)),
        Type::Unspecified
        | Type::Snapshot
        | Type::Created
        | Type::Progress
        | Type::DeadlineExtended
        | Type::InstanceStopped
        | Type::Bookmark
        | Type::InstanceStarting
        | Type::InstanceReady => Style::Plain,
    };
    Some(
        Line::new(text::stamp(event.event_time.as_ref()), Style::Dim)
            .then(
                operation.map(|operation| format!(" {}", name::short(&operation.name))).unwrap_or_default(),
                Style::Dim,
            )
            .then(format!(" {}", words::event_type(event.r#type)), Style::Bold)
            .then(format!(" {}", details.join(" ")), style),
    )
}

fn shutdown(event: &OperationEvent, instance: &InstanceShutdown) -> String {
    let mut parts =
        vec![name::leaf(&instance.instance).to_owned(), phase(instance), format!("attempt={}", instance.attempt)];
    if let Some(result) = instance.status.as_ref().and_then(|status| status.result.as_ref()) {
        parts.push(format!("evidence={}", words::evidence(result.evidence)));
    } else if let (Some(deadline), Some(now)) =
        (text::time(instance.deadline_time.as_ref()), text::time(event.event_time.as_ref()))
    {
        parts.push(format!("left={}", text::span(deadline.duration_since(now).unwrap_or_default())));
    }
    let says = |status: &ShutdownStatus| describe_end(status).unwrap_or_else(|| describe_progress(status));
    parts.extend(instance.status.as_ref().map(says).filter(|text| !text.is_empty()));
    parts.join(" ")
}

fn start(start: &InstanceStart) -> String {
    let mut parts = vec![name::leaf(&start.instance).to_owned(), start_phase(start), format!("epoch={}", start.epoch)];
    if let Some(status) = &start.status {
        let readiness = status.result.as_ref().map(|result| result.readiness).filter(|raw| *raw != 0);
        parts.extend(readiness.map(|raw| format!("readiness={}", words::readiness(raw))));
        let message = text::clean(&status.message);
        let is_phase = message.eq_ignore_ascii_case(&start_phase(start));
        parts.extend(Some(message).filter(|message| !message.is_empty() && !is_phase));
    }
    if start.rollback {
        parts.push("(rollback)".to_owned());
    }
    parts.join(" ")
}
