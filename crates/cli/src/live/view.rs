//! The live view: a header, one line for each instance that stops, one for each that starts.

use std::time::Instant;

use quiesce_protocol::v1::{
    Failure, InstanceShutdown, InstanceStart, ShutdownPhase, ShutdownStatus, StartPhase, operation, stop_result,
};

use crate::live::Model;
use crate::name;
use crate::output::table::{Cell, Table};
use crate::output::text::{self, Line, Style};
use crate::output::words;

/// The view of `model` at the moment `at`, within `columns` and `rows`.
pub(crate) fn render(model: &Model, at: Instant, (columns, rows): (usize, usize)) -> Vec<Line> {
    let mut lines = vec![header(model, at)];
    lines.extend(waiting(model, at).map(|text| Line::new(text, Style::Plain)));
    if let Some(failure) = model.operation.failure.as_ref().filter(|_| !model.operation.done) {
        lines.push(Line::new(format!("last failure: {}", describe_failure(failure)), Style::Warning));
    }
    if !model.operation.instances.is_empty() {
        lines.push(Line::default());
        lines.extend(shutdowns(model, at).lines(Some(columns)));
    }
    if !model.operation.starts.is_empty() {
        lines.push(Line::default());
        lines.extend(starts(model, at).lines(Some(columns)));
    }
    // Drawing in place ends at the top of the terminal, so what does not fit is counted instead. The cursor rests on
    // a line of its own.
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(Line::new(format!("... and {hidden} more lines"), Style::Dim));
    }
    lines.into_iter().map(|line| line.fit(columns)).collect()
}

/// "GRACE_TIMEOUT db-0: still running after 60s".
pub(crate) fn describe_failure(failure: &Failure) -> String {
    let mut line = words::failure_reason(failure.reason);
    if !failure.instance.is_empty() {
        line.push(' ');
        line.push_str(name::leaf(&failure.instance));
    }
    if !failure.message.is_empty() {
        // A message may begin with the instance that was named just now.
        let about = format!("{}: ", name::leaf(&failure.instance));
        let message = failure.message.strip_prefix(&about).unwrap_or(&failure.message);
        line.push_str(": ");
        line.push_str(&text::clean(message));
    }
    line
}

/// How an instance ended: "exit 0, after 3.4s", "KILLED, signal 9"; that it has stopped is what its phase says.
pub(crate) fn describe_end(status: &ShutdownStatus) -> Option<String> {
    let result = status.result.as_ref()?;
    let mut parts = Vec::new();
    if result.outcome() != stop_result::Outcome::Stopped {
        parts.push(words::stop_outcome(result.outcome));
    }
    parts.extend(result.exit_code.map(|code| format!("exit {code}")));
    parts.extend(result.exit_signal.map(|signal| format!("signal {signal}")));
    if result.clean == Some(false) {
        parts.push("not clean".to_owned());
    }
    parts.extend(text::duration(result.duration.as_ref()).map(|duration| format!("after {}", text::took(duration))));
    let mut line = parts.join(", ");
    // "exited with 0" behind "exit 0" would push what matters out of the line.
    let is_plain = result.outcome() == stop_result::Outcome::Stopped && result.clean != Some(false) && !line.is_empty();
    if !result.message.is_empty() && !is_plain {
        line.push_str(if line.is_empty() { "" } else { ": " });
        line.push_str(&text::clean(&result.message));
    }
    Some(line)
}

/// What the application says of itself: percent, step, message.
pub(crate) fn describe_progress(status: &ShutdownStatus) -> String {
    let percent = status.percent.map(|percent| format!("{percent}%"));
    let step = Some(status.step.as_str()).filter(|step| !step.is_empty()).map(str::to_owned);
    let message = Some(status.message.as_str()).filter(|message| !message.is_empty()).map(str::to_owned);
    text::clean(&[percent, step, message].into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn header(model: &Model, at: Instant) -> Line {
    let operation = &model.operation;
    let elapsed = model.elapsed(at).map(|elapsed| format!("  {}", text::took(elapsed))).unwrap_or_default();
    Line::new(subject(operation), Style::Bold)
        .then("  ", Style::Plain)
        .then(words::operation_state(operation.state), words::operation_style(operation.state))
        .then(elapsed, Style::Plain)
        .then(format!("  {}", name::short(&operation.name)), Style::Dim)
}

/// "migrate db  a -> b", "delete db on a".
pub(crate) fn subject(operation: &quiesce_protocol::v1::Operation) -> String {
    let what = format!("{} {}", words::kind(operation.kind), name::short(&operation.application));
    match (operation.source_cluster.as_str(), operation.target_cluster.as_str()) {
        ("", "") => what,
        (source, "") => format!("{what} on {source}"),
        (source, target) => format!("{what}  {source} -> {target}"),
    }
}

/// What the operation waits for.
fn waiting(model: &Model, at: Instant) -> Option<String> {
    use operation::State;
    let operation = &model.operation;
    let open = operation.instances.iter().filter(|instance| !instance.verified).count();
    let starting = operation.starts.iter().filter(|start| !start.ready).count();
    let left = |deadline| model.left(deadline, at).map(text::span);
    Some(match operation.state() {
        State::Pending => "waiting for its turn".to_owned(),
        State::Preparing => "asking the hooks whether a stop would work; nothing has been told to stop".to_owned(),
        State::Stopping if operation.instances.is_empty() => "waiting for the instances to end".to_owned(),
        State::Stopping => format!("waiting for {open} of {} instances to end", operation.instances.len()),
        State::BackingOff => match left(operation.next_attempt_time.as_ref()) {
            Some(left) => format!("the attempt failed; the next begins in {left}"),
            None => "the attempt failed; waiting for the next".to_owned(),
        },
        State::Forcing => "killing what is left, waiting for it to vanish".to_owned(),
        State::Stopped if operation.awaiting_confirmation => {
            format!("every instance has ended; do your part, then: quiesce confirm {}", name::short(&operation.name))
        }
        State::Stopped => "every instance has ended, nothing can start it again".to_owned(),
        State::Starting => {
            format!(
                "waiting for {starting} of {} instances to become ready on {}",
                operation.starts.len(),
                operation.target_cluster
            )
        }
        State::Finalizing => "cleaning up".to_owned(),
        State::Cancelling => "asking the hooks to take the stop back".to_owned(),
        State::RollingBack => {
            format!("bringing {} back to life on {}", name::short(&operation.application), operation.source_cluster)
        }
        State::Degraded => "waits for a person".to_owned(),
        State::Unspecified | State::Succeeded | State::Cancelled | State::RolledBack | State::Abandoned => return None,
    })
}

fn shutdowns(model: &Model, at: Instant) -> Table {
    let mut table = Table::new(["INSTANCE", "PHASE", "EVIDENCE", "LEFT", "TRY", "SAYS"]);
    for instance in &model.operation.instances {
        let over = is_over(instance);
        let left = model.left(instance.deadline_time.as_ref(), at).filter(|_| !over).map(text::span);
        let evidence =
            instance.status.as_ref().and_then(|status| status.result.as_ref()).map(|r| words::evidence(r.evidence));
        let (says, style) = says(instance);
        table.row([
            name::leaf(&instance.instance).into(),
            Cell::styled(phase(instance), phase_style(instance)),
            evidence.unwrap_or_default().into(),
            left.unwrap_or_default().into(),
            instance.attempt.to_string().into(),
            Cell::styled(says, style),
        ]);
    }
    table
}

/// Whether its attempt is over, whatever came out of it.
pub(crate) fn is_over(instance: &InstanceShutdown) -> bool {
    instance.verified || instance.status.as_ref().is_some_and(|status| status.phase >= ShutdownPhase::Stopped.into())
}

/// The phase the hook reports, or how far the scheduler is before the first report.
pub(crate) fn phase(instance: &InstanceShutdown) -> String {
    match &instance.status {
        Some(status) => words::shutdown_phase(status.phase),
        None if instance.attempt == 0 => "WAITING".to_owned(),
        None => "CALLING".to_owned(),
    }
}

fn phase_style(instance: &InstanceShutdown) -> Style {
    match instance.status.as_ref().map(ShutdownStatus::phase) {
        _ if instance.verified => Style::Good,
        Some(ShutdownPhase::Failed) => Style::Bad,
        Some(ShutdownPhase::Stopping | ShutdownPhase::Killing | ShutdownPhase::Draining) => Style::Warning,
        Some(
            ShutdownPhase::Unspecified | ShutdownPhase::Accepted | ShutdownPhase::Stopped | ShutdownPhase::Cancelled,
        )
        | None => Style::Plain,
    }
}

fn says(instance: &InstanceShutdown) -> (String, Style) {
    let status = instance.status.as_ref();
    if let Some(end) = status.and_then(describe_end) {
        return (end, Style::Plain);
    }
    if let Some(failure) = &instance.failure {
        let message = text::clean(&failure.message);
        return (format!("{} {message}", words::failure_reason(failure.reason)), Style::Bad);
    }
    (status.map(describe_progress).unwrap_or_default(), Style::Plain)
}

fn starts(model: &Model, at: Instant) -> Table {
    let mut table = Table::new(["START", "PHASE", "READINESS", "LEFT", "EPOCH", "SAYS"]);
    for start in &model.operation.starts {
        let result = start.status.as_ref().and_then(|status| status.result.as_ref());
        let over = start.ready || start.failure.is_some() || result.is_some();
        let left = model.left(start.deadline_time.as_ref(), at).filter(|_| !over).map(text::span);
        let readiness = result.filter(|result| result.readiness != 0).map(|result| words::readiness(result.readiness));
        let (says, style) = start_says(start);
        let phase_style = if start.ready { Style::Good } else { style };
        table.row([
            name::leaf(&start.instance).into(),
            Cell::styled(start_phase(start), phase_style),
            readiness.unwrap_or_default().into(),
            left.unwrap_or_default().into(),
            start.epoch.to_string().into(),
            Cell::styled(says, style),
        ]);
    }
    table
}

/// The phase of a start, or that nothing has been heard yet: it was ordered (then it has an epoch), or its turn has not
/// come.
pub(crate) fn start_phase(start: &InstanceStart) -> String {
    match &start.status {
        Some(status) if status.phase() != StartPhase::Unspecified => words::start_phase(status.phase),
        Some(_) | None if start.epoch == 0 => "WAITING".to_owned(),
        Some(_) | None => "ORDERED".to_owned(),
    }
}

fn start_says(start: &InstanceStart) -> (String, Style) {
    if let Some(failure) = &start.failure {
        let message = text::clean(&failure.message);
        return (format!("{} {message}", words::failure_reason(failure.reason)), Style::Bad);
    }
    let Some(status) = &start.status else { return (String::new(), Style::Plain) };
    let message = match &status.result {
        Some(result) if !result.message.is_empty() => &result.message,
        Some(_) | None => &status.message,
    };
    let prefix = if start.rollback { "(back) " } else { "" };
    (format!("{prefix}{}", text::clean(message)), Style::Plain)
}
