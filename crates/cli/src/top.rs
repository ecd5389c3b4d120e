//! Everything that is going on, as one screen shows it: what is known, what is looked at, and what a key does.
//!
//! Owns the order of operations and what the keys mean. Drawing ([`view`]) is pure: board, moment, size in; cells out. It
//! reads no clock, knows no terminal and talks to nobody.
//!
//! A frame costs what is visible: operations are kept in their order, and only those in sight are walked through.

mod operations;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::collections::VecDeque;
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use quiesce_protocol::v1::{Instance, Operation, OperationEvent, instance, operation_event};

use crate::live::log;
use crate::output::text::Line;
pub(crate) use operations::Operations;

/// Events that can be looked back at; `quiesce watch --since` has the rest.
const EVENTS_MAX: usize = 500;
/// Longest filter: more does not fit a line.
const FILTER_MAX: usize = 60;
/// What one press of Page Up or Page Down passes by.
const PAGE: usize = 10;

/// How it stands with the stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    Watching,
    /// And what was said about it.
    Interrupted(String),
}

/// What is in the middle of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tab {
    Operations,
    Instances,
    Events,
}

/// What a key led to, beyond a change of the board.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Go,
    Quit,
    /// The instances of this operation are wanted.
    Open(String),
}

/// All that is shown.
#[derive(Debug)]
pub(crate) struct Board {
    url: String,
    link: Link,
    pub(crate) operations: Operations,
    instances: Vec<Instance>,
    /// There are more than were asked for.
    instances_cut: bool,
    events: VecDeque<Line>,
    tab: Tab,
    /// The operation that is open, by its name.
    open: Option<String>,
    /// Rows above the first one of a tab without selection, or of the open operation.
    scroll: usize,
    help: bool,
    /// A filter is being typed.
    typing: bool,
}

impl Board {
    /// With nothing on it, for the scheduler at `url`.
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            link: Link::Watching,
            operations: Operations::default(),
            instances: Vec::new(),
            instances_cut: false,
            events: VecDeque::new(),
            tab: Tab::Operations,
            open: None,
            scroll: 0,
            help: false,
            typing: false,
        }
    }

    /// Takes in an event that arrived at `at`.
    pub(crate) fn event(&mut self, event: &OperationEvent, at: Instant) {
        self.link = Link::Watching;
        self.operations.apply(event, at);
        // How things stood is no news.
        if event.r#type() != operation_event::Type::Snapshot
            && let Some(line) = log::line(event)
        {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_back();
            }
            self.events.push_front(line);
            // What is read stays in its place.
            if self.tab == Tab::Events && self.scroll > 0 {
                self.scroll = (self.scroll + 1).min(EVENTS_MAX);
            }
        }
    }

    /// The stream begins anew, with how things stand.
    pub(crate) fn anew(&mut self) {
        self.operations.anew();
    }

    /// The stream has something to say about itself.
    pub(crate) fn notice(&mut self, text: String) {
        self.link = Link::Interrupted(text);
    }

    /// The stream is there.
    pub(crate) fn watching(&mut self) {
        self.link = Link::Watching;
    }

    /// An operation as it was asked for, with its instances.
    pub(crate) fn fill(&mut self, operation: Operation) {
        self.operations.fill(operation);
    }

    /// The instances as they were asked for; those to look after first.
    pub(crate) fn instances(&mut self, mut instances: Vec<Instance>, cut: bool) {
        instances.sort_by(|one, other| (rank(one), &one.name).cmp(&(rank(other), &other.name)));
        (self.instances, self.instances_cut) = (instances, cut);
        self.scroll = if self.tab == Tab::Instances { self.scroll.min(self.instances.len()) } else { self.scroll };
    }

    pub(crate) fn tab(&self) -> Tab {
        self.tab
    }

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Flow {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Flow::Quit } else { Flow::Go };
        }
        if self.typing {
            self.type_filter(key.code);
            return Flow::Go;
        }
        if self.help {
            self.help = false;
            return Flow::Go;
        }
        match key.code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Esc => self.back(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => {
                (self.typing, self.open, self.tab) = (true, None, Tab::Operations);
            }
            KeyCode::Tab => self.turn_to(match self.tab {
                Tab::Operations => Tab::Instances,
                Tab::Instances => Tab::Events,
                Tab::Events => Tab::Operations,
            }),
            KeyCode::BackTab => self.turn_to(match self.tab {
                Tab::Operations => Tab::Events,
                Tab::Instances => Tab::Operations,
                Tab::Events => Tab::Instances,
            }),
            KeyCode::Enter if self.tab == Tab::Operations && self.open.is_none() => {
                if let Some(name) = self.operations.selected() {
                    (self.open, self.scroll) = (Some(name.clone()), 0);
                    return Flow::Open(name);
                }
            }
            KeyCode::Down | KeyCode::Char('j') => self.go(1, true),
            KeyCode::Up | KeyCode::Char('k') => self.go(1, false),
            KeyCode::PageDown | KeyCode::Char(' ') => self.go(PAGE, true),
            KeyCode::PageUp => self.go(PAGE, false),
            KeyCode::Home | KeyCode::Char('g') => self.jump(false),
            KeyCode::End | KeyCode::Char('G') => self.jump(true),
            _ => {}
        }
        Flow::Go
    }

    fn type_filter(&mut self, key: KeyCode) {
        let mut filter = self.operations.filter().to_owned();
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                filter.clear();
            }
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Char(c) if !c.is_control() && filter.chars().count() < FILTER_MAX => filter.push(c),
            _ => {}
        }
        self.operations.set_filter(filter);
    }

    fn back(&mut self) {
        if self.open.take().is_none() {
            self.operations.set_filter(String::new());
        }
        self.scroll = 0;
    }

    fn turn_to(&mut self, tab: Tab) {
        (self.tab, self.open, self.scroll) = (tab, None, 0);
    }

    fn go(&mut self, rows: usize, down: bool) {
        if self.tab == Tab::Operations && self.open.is_none() {
            self.operations.go(rows, down);
        } else if down {
            self.scroll = (self.scroll + rows).min(self.rows().saturating_sub(1));
        } else {
            self.scroll = self.scroll.saturating_sub(rows);
        }
    }

    fn jump(&mut self, end: bool) {
        if self.tab == Tab::Operations && self.open.is_none() {
            self.operations.jump(end);
        } else {
            self.scroll = if end { self.rows().saturating_sub(1) } else { 0 };
        }
    }

    /// How many rows there are to scroll through.
    fn rows(&self) -> usize {
        match (self.tab, &self.open) {
            (Tab::Operations, Some(name)) => self
                .operations
                .model(name)
                .map_or(0, |model| model.operation.instances.len() + model.operation.starts.len() + PAGE),
            (Tab::Operations, None) => 0,
            (Tab::Instances, _) => self.instances.len(),
            (Tab::Events, _) => self.events.len(),
        }
    }
}

/// Those that somebody has to look after come first.
fn rank(one: &Instance) -> u8 {
    use instance::State;
    match one.state() {
        State::Unreachable | State::NotReady | State::Unspecified => 0,
        State::Stopping | State::Starting => 1,
        State::Ready => 2,
        State::Held | State::Stopped => 3,
    }
}
