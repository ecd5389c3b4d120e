//! How a board looks: a header, the tab in the middle, what was heard last, the keys.

use std::time::{Duration, Instant};

use quiesce_protocol::v1::{Instance, InstanceShutdown, Operation, OperationKind, operation};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Look};
use ratatui::text::{Line as Row, Span as Piece};
use ratatui::widgets::{Block, Clear, Paragraph};
use unicode_width::UnicodeWidthStr as _;

use super::operations::Group;
use super::{Board, Link, Tab};
use crate::live::{Model, verdict, view};
use crate::name;
use crate::output::table::{Cell, Table};
use crate::output::text::{self, Line, Style};
use crate::output::words;

/// Below this the screen has room for operations alone.
const ROWS_FOR_EVENTS: u16 = 18;
/// Events below the operations.
const RECENT: u16 = 6;
/// From here on the name of an operation fits on its line.
const COLUMNS_FOR_NAMES: usize = 110;
/// And its steps and bar.
const COLUMNS_FOR_BARS: usize = 72;
/// And its time; what it is and how it stands is always there.
const COLUMNS_FOR_TIMES: usize = 50;
/// Columns of the parts of a line; what is left belongs to the subject.
const STATE: usize = 12;
const STEPS: usize = 4;
const BAR: usize = 10;
const TIME: usize = 17;
const TRY: usize = 4;
const NAME: usize = 14;

/// What commands in advice begin with.
const COMMAND: &str = "quiesce ";

const KEYS: &[(&str, &str)] = &[
    ("up down j k", "one operation up or down"),
    ("PgUp PgDn g G", "further, to the first, to the last"),
    ("Enter", "open the operation: instances, evidence, what to do"),
    ("Esc", "close it; take the filter away"),
    ("Tab", "operations, instances, events"),
    ("/", "show only what holds these words: db, degraded, delete"),
    ("q, Ctrl-C", "end; what runs goes on"),
];

/// Draws the board as it is at the moment `at`.
pub(crate) fn draw(board: &mut Board, at: Instant, color: bool, frame: &mut Frame<'_>) {
    let paint = Paint { color };
    let area = frame.area();
    let [head, middle, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    header(board, paint, head, frame);
    if let (Tab::Operations, Some(name)) = (board.tab, board.open.clone()) {
        open(board, &name, at, paint, middle, frame);
    } else {
        match board.tab {
            Tab::Operations => {
                let recent = if area.height >= ROWS_FOR_EVENTS { RECENT } else { 0 };
                let [list, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(recent)]).areas(middle);
                operations(board, at, paint, list, frame);
                events(board, "heard last", 0, paint, below, frame);
            }
            Tab::Instances => instances(board, paint, middle, frame),
            Tab::Events => events(board, "events, the latest first", board.scroll, paint, middle, frame),
        }
    }
    footer(board, paint, foot, frame);
    if board.help {
        help(paint, middle, frame);
    }
}

/// Turns what things mean into how they look.
#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn look(self, style: Style) -> Look {
        let colored = |color: Color, otherwise: Modifier| match self.color {
            true => Look::new().fg(color),
            false => Look::new().add_modifier(otherwise),
        };
        match style {
            Style::Plain => Look::new(),
            Style::Bold => Look::new().add_modifier(Modifier::BOLD),
            Style::Dim => Look::new().add_modifier(Modifier::DIM),
            Style::Good => colored(Color::Green, Modifier::empty()),
            Style::Warning => colored(Color::Yellow, Modifier::BOLD),
            Style::Bad => colored(Color::Red, Modifier::BOLD),
        }
    }

    fn piece(self, text: impl AsRef<str>, style: Style) -> Piece<'static> {
        Piece::styled(text::clean(text.as_ref()), self.look(style))
    }

    fn row(self, line: Line) -> Row<'static> {
        Row::from(line.0.into_iter().map(|span| Piece::styled(span.text, self.look(span.style))).collect::<Vec<_>>())
    }
}

fn header(board: &Board, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let count = |group, what: &str, style| {
        let count = board.operations.count(group);
        (count > 0).then(|| paint.piece(format!("  {count} {what}"), style))
    };
    let mut first = vec![paint.piece("quiesce top", Style::Bold), paint.piece(format!("  {}", board.url), Style::Dim)];
    match &board.link {
        Link::Watching => first.push(paint.piece("  watching", Style::Good)),
        Link::Interrupted(why) => first.push(paint.piece(format!("  {why}"), Style::Bad)),
    }
    let filter = board.operations.filter();
    if !filter.is_empty() && !board.typing {
        first.push(paint.piece(format!("  only: {filter}"), Style::Warning));
    }
    let counts = [
        count(Group::Degraded, "DEGRADED", Style::Bad),
        count(Group::Awaiting, "to confirm", Style::Warning),
        count(Group::Open, "going on", Style::Plain),
        count(Group::Done, "over", Style::Dim),
    ];
    let mut second = Vec::new();
    for (tab, title) in [(Tab::Operations, "operations"), (Tab::Instances, "instances"), (Tab::Events, "events")] {
        second.push(match tab == board.tab {
            true => Piece::styled(format!("[{title}]"), paint.look(Style::Bold)),
            false => paint.piece(format!(" {title} "), Style::Dim),
        });
    }
    second.extend(counts.into_iter().flatten());
    frame.render_widget(Paragraph::new(vec![Row::from(first), Row::from(second)]), area);
}

fn footer(board: &Board, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let row = if board.typing {
        let filter = board.operations.filter();
        frame.set_cursor_position((
            area.x + u16::try_from(filter.width() + 1).unwrap_or(u16::MAX).min(area.width),
            area.y,
        ));
        Row::from(vec![paint.piece(format!("/{filter}"), Style::Bold)])
    } else if board.open.is_some() {
        Row::from(paint.piece("Esc back  j k scroll  ? keys  q quit", Style::Dim))
    } else {
        Row::from(paint.piece("j k move  Enter open  Tab view  / filter  ? keys  q quit", Style::Dim))
    };
    frame.render_widget(Paragraph::new(row), area);
}

/// A titled line, and the rest of the area below it.
fn titled(title: &str, paint: Paint, area: Rect, frame: &mut Frame<'_>) -> Rect {
    let [above, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let rule = "\u{2500}".repeat(usize::from(area.width).saturating_sub(title.width() + 4));
    frame.render_widget(Paragraph::new(Row::from(paint.piece(format!("\u{2500} {title} {rule}"), Style::Dim))), above);
    below
}

fn operations(board: &mut Board, at: Instant, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let inner = titled("operations", paint, area, frame);
    let columns = usize::from(inner.width);
    if board.operations.is_empty() {
        let text = if board.operations.filter().is_empty() {
            "nothing is going on. Begin something: quiesce migrate APP --to CLUSTER"
        } else {
            "nothing matches the filter; Esc takes it away"
        };
        return frame.render_widget(Paragraph::new(Row::from(paint.piece(text, Style::Dim))), inner);
    }
    let mut rows = Vec::new();
    let advised = |operation: &Operation| 1 + usize::from(advice(operation).is_some());
    for (model, is_selected) in board.operations.in_sight(usize::from(inner.height), advised) {
        let mut row = paint.row(line(model, at, columns).fit(columns));
        if is_selected {
            row = row.patch_style(Look::new().add_modifier(Modifier::REVERSED));
        }
        rows.push(row);
        if let Some(advice) = advice(&model.operation) {
            rows.push(paint.row(Line::new(format!("    -> {advice}"), Style::Warning).fit(columns)));
        }
    }
    frame.render_widget(Paragraph::new(rows), inner);
}

/// The first command that helps, for those that wait for a person; the others stand in the open operation.
fn advice(operation: &Operation) -> Option<String> {
    let waits = operation.state() == operation::State::Degraded || operation.awaiting_confirmation;
    let choices = if waits { verdict::choices(operation) } else { Vec::new() };
    let command = choices.iter().find_map(|choice| choice.find(COMMAND).map(|begin| choice[begin..].to_owned()));
    match command {
        None if operation.awaiting_confirmation => Some(format!("quiesce confirm {}", name::short(&operation.name))),
        command => command.or_else(|| choices.into_iter().next()),
    }
}

/// What can be done about it: words, and each command on a row of its own if it has to be.
fn choices(operation: &Operation, columns: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for choice in verdict::choices(operation) {
        match choice.find(COMMAND).filter(|_| choice.width() > columns) {
            Some(begin) => {
                lines.extend(text::wrap(&choice[..begin], columns).iter().map(|part| Line::new(part, Style::Plain)));
                lines.push(Line::new(format!("    {}", &choice[begin..]), Style::Bold));
            }
            None => lines.extend(text::wrap(&choice, columns).iter().map(|part| Line::new(part, Style::Bold))),
        }
    }
    lines
}

/// One operation on one line: what, state, steps, time, attempt, instances.
fn line(model: &Model, at: Instant, columns: usize) -> Line {
    let operation = &model.operation;
    let (names, bars, times) =
        (columns >= COLUMNS_FOR_NAMES, columns >= COLUMNS_FOR_BARS, columns >= COLUMNS_FOR_TIMES);
    let counts = counts(operation);
    let optional = [(names, NAME), (bars, STEPS), (bars, BAR), (times, TIME)];
    let optional: usize = optional.iter().filter(|(shown, _)| *shown).map(|(_, width)| width + 1).sum();
    let subject = columns.saturating_sub(STATE + 1 + optional + TRY + counts.width() + 1).max(8);
    let what = view::subject(operation).replace("  ", " ");
    let mut line = Line::default();
    if names {
        line = line.then(padded(&name::short(&operation.name), NAME), Style::Dim);
    }
    let style = words::operation_style(operation.state);
    line = line.then(padded(&what, subject), Style::Bold);
    line = line.then(padded(&words::operation_state(operation.state), STATE), style);
    if bars {
        line = line.then(padded(&steps(operation), STEPS), style);
    }
    if operation.state() == operation::State::Degraded {
        let why = operation.failure.as_ref().map(view::describe_failure).unwrap_or_default();
        return line.then(why, Style::Bad);
    }
    let (bar, time) = match clock(model, at) {
        Some(Clock { used, total, extension }) => {
            let more = if extension.is_zero() { String::new() } else { format!(" +{}", text::span(extension)) };
            (bar(used, total), format!("{}/{}{more}", text::span(used), text::span(total)))
        }
        None => (String::new(), model.elapsed(at).map(text::took).unwrap_or_default()),
    };
    if bars {
        line = line.then(padded(&bar, BAR), style);
    }
    if times {
        line = line.then(padded(&time, TIME), Style::Plain);
    }
    let attempts = match operation.attempt {
        0 | 1 => String::new(),
        n => format!("#{n}"),
    };
    line.then(format!("{attempts:TRY$}"), Style::Warning).then(counts, Style::Plain)
}

/// Cut or filled to `width`, and a space behind it.
fn padded(text: &str, width: usize) -> String {
    let text = text::ellipsis(&text::clean(text), width);
    let fill = width.saturating_sub(text.width()) + 1;
    format!("{text}{:fill$}", "")
}

/// "1/3": instances that have ended, of all.
fn counts(operation: &Operation) -> String {
    let Some(counts) = &operation.counts else { return String::new() };
    let all = counts.waiting + counts.stopping + counts.stopped + counts.unverified + counts.failed;
    format!("{}/{all}", counts.stopped + counts.unverified)
}

/// How far it has come: asked, stopped, started (a migration by agents), finished.
fn steps(operation: &Operation) -> String {
    use operation::State;
    let starts = operation.kind() == OperationKind::Migrate;
    let all = if starts { 4 } else { 3 };
    let done = match operation.state() {
        State::Unspecified | State::Pending => 0,
        State::Preparing | State::BackingOff | State::Cancelling | State::Cancelled => 1,
        State::Stopping | State::Forcing | State::Degraded | State::Abandoned => 2,
        State::Stopped | State::Starting | State::RollingBack | State::RolledBack => all.min(3),
        State::Finalizing | State::Succeeded => all,
    };
    "\u{25a0}".repeat(done) + &"\u{b7}".repeat(all - done)
}

/// The time limit that runs now.
struct Clock {
    used: Duration,
    total: Duration,
    /// How much of the total was granted later.
    extension: Duration,
}

fn clock(model: &Model, at: Instant) -> Option<Clock> {
    use operation::State;
    let operation = &model.operation;
    let policy = operation.policy.as_ref();
    let (deadline, total) = match operation.state() {
        State::Stopping | State::Forcing => {
            let running = operation.instances.iter().filter(|instance| !view::is_over(instance)).filter_map(granted);
            let planned = text::duration(policy.and_then(|policy| policy.grace_period.as_ref()));
            (operation.deadline_time.as_ref(), running.chain(planned).max()?)
        }
        State::Starting => {
            let last =
                operation.starts.iter().filter(|start| !start.ready).filter_map(|start| start.deadline_time.as_ref());
            let last = last.max_by_key(|time| (time.seconds, time.nanos));
            (last, text::duration(policy.and_then(|policy| policy.start_timeout.as_ref()))?)
        }
        State::Unspecified
        | State::Pending
        | State::Preparing
        | State::BackingOff
        | State::Stopped
        | State::Finalizing
        | State::Cancelling
        | State::RollingBack
        | State::Degraded
        | State::Succeeded
        | State::Cancelled
        | State::RolledBack
        | State::Abandoned => return None,
    };
    let left = model.left(deadline, at)?;
    let extensions = operation.instances.iter().filter_map(|instance| text::duration(instance.extension.as_ref()));
    let extension = extensions.max().unwrap_or_default();
    let total = total.max(left);
    Some(Clock { used: total - left, total, extension })
}

/// The whole grace of an instance: from when its hook accepted to its deadline.
fn granted(instance: &InstanceShutdown) -> Option<Duration> {
    let begin = text::time(instance.accept_time.as_ref())?;
    text::time(instance.deadline_time.as_ref())?.duration_since(begin).ok()
}

fn bar(used: Duration, total: Duration) -> String {
    let share = if total.is_zero() { 1.0 } else { used.as_secs_f64() / total.as_secs_f64() };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width of the bar")]
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    "\u{2588}".repeat(full) + &"\u{2591}".repeat(BAR - full)
}

/// The open operation: as `quiesce watch` shows it, and what to do.
fn open(board: &Board, name: &str, at: Instant, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let inner = titled(&name::short(name), paint, area, frame);
    let columns = usize::from(inner.width);
    let Some(model) = board.operations.model(name) else {
        let text = "it is over, and not remembered here any more; Esc goes back";
        return frame.render_widget(Paragraph::new(Row::from(paint.piece(text, Style::Dim))), inner);
    };
    let mut lines = view::render(model, at, (columns, usize::MAX));
    lines.push(Line::default());
    if verdict::is_settled(&model.operation) {
        let said = verdict::verdict(&model.operation);
        let style = words::operation_style(model.operation.state);
        for line in said.iter().filter(|line| !line.plain().starts_with("  next: ")) {
            lines.extend(text::wrap(&line.plain(), columns).iter().map(|part| Line::new(part, style)));
        }
    }
    if verdict::is_settled(&model.operation) || model.operation.awaiting_confirmation {
        lines.extend(choices(&model.operation, columns));
    } else {
        let id = name::short(name);
        lines.push(Line::new(format!("more time:    quiesce extend {id} --by 30s"), Style::Dim));
        lines.push(Line::new(format!("take it back: quiesce cancel {id}"), Style::Dim));
    }
    let above = board.scroll.min(lines.len().saturating_sub(1));
    let sight = lines.into_iter().skip(above).take(usize::from(inner.height));
    frame.render_widget(Paragraph::new(sight.map(|line| paint.row(line.fit(columns))).collect::<Vec<_>>()), inner);
}

fn events(board: &Board, title: &str, above: usize, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    if area.height == 0 {
        return;
    }
    let inner = titled(title, paint, area, frame);
    let columns = usize::from(inner.width);
    let sight = board.events.iter().skip(above).take(usize::from(inner.height));
    let rows: Vec<_> = sight.map(|line| paint.row(line.clone().fit(columns))).collect();
    frame.render_widget(Paragraph::new(rows), inner);
}

fn instances(board: &Board, paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let more = if board.instances_cut { ", the first of them" } else { "" };
    let inner = titled(&format!("{} instances{more}", board.instances.len()), paint, area, frame);
    let height = usize::from(inner.height).saturating_sub(1);
    let mut table = Table::new(["INSTANCE", "CLUSTER", "STATE", "APPLICATION", "EPOCH", "SAYS"]);
    for instance in board.instances.iter().skip(board.scroll).take(height) {
        let hook = instance.hook.as_ref();
        table.row([
            Cell::styled(name::short(&instance.name), Style::Bold),
            (&instance.cluster).into(),
            Cell::styled(words::instance_state(instance.state), words::instance_style(instance.state)),
            hook.filter(|hook| hook.app_state != 0)
                .map(|hook| words::app_state(hook.app_state))
                .unwrap_or_default()
                .into(),
            instance.epoch.to_string().into(),
            says(instance).into(),
        ]);
    }
    let rows: Vec<_> = table.lines(Some(usize::from(inner.width))).into_iter().map(|line| paint.row(line)).collect();
    frame.render_widget(Paragraph::new(rows), inner);
}

/// What is wrong with it, else what its application says.
fn says(instance: &Instance) -> String {
    let hook = instance.hook.clone().unwrap_or_default();
    let said = [&instance.unreachable_reason, &hook.not_ready_reason, &hook.cannot_start_reason, &hook.app_message];
    said.into_iter().find(|text| !text.is_empty()).cloned().unwrap_or_default()
}

fn help(paint: Paint, area: Rect, frame: &mut Frame<'_>) {
    let widest = KEYS.iter().map(|(keys, _)| keys.len()).max().unwrap_or_default() + 2;
    let mut rows: Vec<_> = KEYS
        .iter()
        .map(|(keys, what)| {
            Row::from(vec![paint.piece(format!(" {keys:widest$}"), Style::Bold), paint.piece(*what, Style::Plain)])
        })
        .collect();
    rows.push(Row::default());
    rows.push(Row::from(paint.piece(" A line: what, state, steps (asked, stopped, started, finished),", Style::Dim)));
    rows.push(Row::from(
        paint.piece(" time used of the grace, + what was granted later, #attempt, ended/all", Style::Dim),
    ));
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let width = 76.min(area.width);
    let at = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, at);
    frame.render_widget(Paragraph::new(rows).block(Block::bordered().title(" keys ")), at);
}
