//! The story of a run: what happened where and when, in one order, to be read by people and compared by tests.
//!
//! Hosts tell it by the log lines they write anyway; the world adds what it does to them. It also keeps what must never
//! happen, should it have happened.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Whose log lines are part of the story.
const TOLD_BY: &str = "quiesce_";
/// Lines that say of themselves that something is broken.
const NEVER: &[&str] = &["task panicked", "a call failed on an internal error", "operation is driven already"];

/// A story while it happens. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Story {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    next_span: AtomicU64,
}

#[derive(Default)]
struct State {
    now: Duration,
    lines: Vec<String>,
    violations: Vec<String>,
    /// Which host is running, innermost last: the spans that simulated hosts run in.
    hosts: Vec<(u64, String)>,
    /// The spans of hosts that were made and not entered yet.
    made: Vec<(u64, String)>,
}

impl Story {
    /// What time it is outside of the hosts.
    pub(super) fn set_now(&self, now: Duration) {
        self.state().now = now;
    }

    /// The time: that of the host that is running, or that of the world.
    pub(super) fn now(&self) -> Duration {
        turmoil::sim_elapsed().unwrap_or_else(|| self.state().now)
    }

    /// Something happened to `who`.
    pub(super) fn tell(&self, who: &str, what: impl fmt::Display) {
        let line = format!("{} {who:<12} {what}", Clock(self.now()));
        self.state().lines.push(line);
    }

    /// Something happened that must never happen.
    pub(super) fn violated(&self, invariant: &str, what: impl fmt::Display) {
        self.tell("!!", format_args!("{invariant}: {what}"));
        let violation = format!("{} {invariant}: {what}", Clock(self.now()));
        self.state().violations.push(violation);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Minutes, seconds, milliseconds.
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        write!(f, "{:02}:{:02}.{:03}", seconds / 60, seconds % 60, self.0.subsec_millis())
    }
}

impl Subscriber for Story {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let host = metadata.is_span() && metadata.name() == "node";
        host || metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with(TOLD_BY)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.inner.next_span.fetch_add(1, Ordering::Relaxed) + 1;
        let mut text = Text::default();
        span.record(&mut text);
        self.state().made.push((number, text.name));
        Id::from_u64(number)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let host = self.state().hosts.last().map_or_else(|| "world".to_owned(), |(_, host)| host.clone());
        let mark = match *event.metadata().level() {
            Level::ERROR => "ERROR ",
            Level::WARN => "warning: ",
            _ => "",
        };
        self.tell(&host, format_args!("{mark}{}{}", text.message, text.fields));
        if NEVER.contains(&text.message.as_str()) {
            self.violated("never", format_args!("{host}: {}{}", text.message, text.fields));
        }
    }

    fn enter(&self, span: &Id) {
        let mut state = self.state();
        if let Some(place) = state.made.iter().position(|(number, _)| *number == span.into_u64()) {
            let host = state.made.swap_remove(place);
            state.hosts.push(host);
        }
    }

    fn exit(&self, span: &Id) {
        self.state().hosts.retain(|(number, _)| *number != span.into_u64());
    }
}

/// The fields of a line as text.
#[derive(Default)]
struct Text {
    message: String,
    name: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // Where the code happens to be says nothing of what happened.
            name if name.starts_with("log.") => {}
            name => write!(self.fields, " {name}={value:?}").expect("writing to a string does not fail"),
        }
    }
}
