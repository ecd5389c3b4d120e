//! The last words about an operation: how it came out in one line, then what to type next.

use quiesce_protocol::v1::{Operation, OperationKind, operation, placement};

use crate::live::view::describe_failure;
use crate::name;
use crate::output::text::{self, Line, Style};
use crate::output::words;

/// Whether the operation came out as asked.
pub(crate) fn is_success(operation: &Operation) -> bool {
    operation.state() == operation::State::Succeeded
}

/// Whether there is nothing more to wait for: it is over, or it waits for a person.
pub(crate) fn is_settled(operation: &Operation) -> bool {
    operation.done || operation.state() == operation::State::Degraded
}

/// The one-line verdict, remarks, and on failure the next command.
pub(crate) fn verdict(operation: &Operation) -> Vec<Line> {
    let (summary, style) = summary(operation);
    let mut lines = vec![Line::new(summary, style)];
    for instance in &operation.instances {
        let result = instance.status.as_ref().and_then(|status| status.result.as_ref());
        if result.is_some_and(|result| result.clean == Some(false)) {
            let text =
                format!("  {} did not end cleanly: its state may not have been saved", name::leaf(&instance.instance));
            lines.push(Line::new(text, Style::Warning));
        }
    }
    for given in &operation.overrides {
        lines.push(Line::new(format!("  {}", describe_override(given)), Style::Warning));
    }
    lines.extend(next(operation).into_iter().map(|text| Line::new(format!("  next: {text}"), Style::Plain)));
    lines
}

/// "override FORCE by alice: reason".
pub(crate) fn describe_override(given: &quiesce_protocol::v1::Override) -> String {
    let mut line = format!("override {}", words::override_kind(given.kind));
    if !given.instance.is_empty() {
        line.push_str(&format!(" used for {}", name::leaf(&given.instance)));
    }
    if !given.requester.is_empty() {
        line.push_str(&format!(" by {}", given.requester));
    }
    if !given.reason.is_empty() {
        line.push_str(&format!(": {}", given.reason));
    }
    line
}

fn summary(operation: &Operation) -> (String, Style) {
    use operation::State;
    let app = name::short(&operation.application);
    let why = operation.failure.as_ref().map(describe_failure).unwrap_or_else(|| text::clean(&operation.message));
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    let style = words::operation_style(operation.state);
    let text = match operation.state() {
        State::Succeeded => format!("done: {}{}", achievement(operation, &app), took(operation)),
        State::Degraded => format!("DEGRADED{because}"),
        State::RolledBack => format!("ROLLED_BACK: {app} runs on {} again{because}", operation.source_cluster),
        State::Cancelled => format!("CANCELLED: {app} was not told to stop"),
        State::Abandoned if !operation.superseded_by.is_empty() => {
            format!("ABANDONED: {} took over", name::short(&operation.superseded_by))
        }
        State::Abandoned => format!("ABANDONED{because}"),
        State::Unspecified
        | State::Pending
        | State::Preparing
        | State::Stopping
        | State::BackingOff
        | State::Forcing
        | State::Stopped
        | State::Starting
        | State::Finalizing
        | State::Cancelling
        | State::RollingBack => format!("{}: goes on", words::operation_state(operation.state)),
    };
    (text, style)
}

fn achievement(operation: &Operation, app: &str) -> String {
    let target = &operation.target_cluster;
    match (operation.kind(), operation.placement.as_ref().and_then(|placement| placement.driver.as_ref())) {
        (OperationKind::Migrate, Some(placement::Driver::Agents(_))) => {
            format!("{app} runs on {target}, epoch {}", operation.epoch)
        }
        (OperationKind::Migrate, Some(placement::Driver::External(external))) if external.require_confirmation => {
            format!("{app} has moved to {target}")
        }
        (OperationKind::Migrate, Some(placement::Driver::External(_)) | None) => {
            format!("every instance of {app} has stopped, it is safe to start it on {target}")
        }
        (OperationKind::Delete | OperationKind::Unspecified, _) => format!("{app} has stopped and is forgotten"),
    }
}

fn took(operation: &Operation) -> String {
    let begin = text::time(operation.create_time.as_ref());
    let end = text::time(operation.end_time.as_ref());
    match (begin, end) {
        (Some(begin), Some(end)) => format!(" ({})", text::took(end.duration_since(begin).unwrap_or_default())),
        _ => String::new(),
    }
}

/// What can be done next, one thing each: "To kill it: quiesce retry op-7f3k --force".
pub(crate) fn choices(operation: &Operation) -> Vec<String> {
    let lines = next(operation);
    let sentences = lines.iter().flat_map(|line| line.split(". "));
    sentences.map(|sentence| sentence.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What to type next. The scheduler's own advice comes first: it knows more.
fn next(operation: &Operation) -> Vec<String> {
    use operation::State;
    let id = name::short(&operation.name);
    let app = name::short(&operation.application);
    if !operation.advice.is_empty() && !is_success(operation) {
        return operation.advice.lines().map(text::clean).filter(|line| !line.is_empty()).collect();
    }
    match operation.state() {
        State::Degraded => vec![
            format!("quiesce retry {id}            (try again)"),
            format!("quiesce retry {id} --force    (kill it; may lose data)"),
            format!("quiesce cancel {id}           (take it back)"),
        ],
        State::RolledBack => vec![format!(
            "find out why {0} did not come up, then: quiesce migrate {app} --to {0}",
            operation.target_cluster
        )],
        State::Abandoned if !operation.superseded_by.is_empty() => {
            vec![format!("quiesce watch {}", name::short(&operation.superseded_by))]
        }
        State::Abandoned => vec![format!("see what is left: quiesce describe operation {id}")],
        State::Cancelled
        | State::Succeeded
        | State::Unspecified
        | State::Pending
        | State::Preparing
        | State::Stopping
        | State::BackingOff
        | State::Forcing
        | State::Stopped
        | State::Starting
        | State::Finalizing
        | State::Cancelling
        | State::RollingBack => Vec::new(),
    }
}
