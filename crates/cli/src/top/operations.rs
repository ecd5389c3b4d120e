//! The operations of a board, in the order in which they are shown: those that wait for a person first.
//!
//! Every event costs a few steps in an ordered set, and so does every move of the selection, however many operations
//! there are; only a new filter looks at each of them.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use quiesce_protocol::v1::{Operation, OperationEvent, operation, operation_event};

use crate::live::{Model, view};
use crate::name;
use crate::output::words;

/// Operations that are over stay in sight for a while; `quiesce get operations` has them all.
const DONE_MAX: usize = 100;

/// Where an operation stands on the board.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    group: Group,
    /// Seconds: the longest waiting of the open ones, and the latest of those that are over, come first.
    age: i64,
    name: String,
}

/// What belongs together, in the order on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Group {
    Degraded,
    Awaiting,
    Open,
    Done,
}

#[derive(Debug)]
struct Entry {
    model: Model,
    place: Place,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    known: HashMap<String, Entry>,
    /// Those that match the filter.
    shown: BTreeSet<Place>,
    counts: HashMap<Group, usize>,
    /// Those that are over, the latest last.
    done: VecDeque<String>,
    /// Open ones from before the stream began anew, which have not been heard of since.
    unheard: HashSet<String>,
    filter: String,
    selected: Option<Place>,
    /// Somebody has moved the selection away from the top. Until then it is with whatever comes first.
    moved: bool,
    /// The topmost in sight.
    first: Option<Place>,
}

impl Operations {
    /// Takes in an event that arrived at `at`.
    pub(super) fn apply(&mut self, event: &OperationEvent, at: Instant) {
        if event.r#type() == operation_event::Type::Bookmark {
            // All snapshots are there.
            for name in std::mem::take(&mut self.unheard) {
                self.remove(&name);
            }
            return;
        }
        let Some(operation) = &event.operation else { return };
        let name = operation.name.clone();
        self.unheard.remove(&name);
        let (mut model, before) = match self.known.remove(&name) {
            Some(Entry { model, place }) => (model, Some(place)),
            None => (Model::default(), None),
        };
        model.apply(event, at);
        self.put(name, model, before);
    }

    /// An operation as it was asked for, with its instances; older or newer than the last event.
    pub(super) fn fill(&mut self, operation: Operation) {
        let name = operation.name.clone();
        if let Some(Entry { mut model, place }) = self.known.remove(&name) {
            model.fill(operation);
            self.put(name, model, Some(place));
        }
    }

    fn put(&mut self, name: String, model: Model, before: Option<Place>) {
        let place = place(&model.operation);
        let was_done = before.as_ref().is_some_and(|place| place.group == Group::Done);
        if before.as_ref() != Some(&place) {
            if let Some(before) = &before {
                self.uncount(before.group);
                self.shown.remove(before);
            }
            *self.counts.entry(place.group).or_default() += 1;
        }
        if matches(&model.operation, &self.filter) {
            self.shown.insert(place.clone());
        } else {
            self.shown.remove(&place);
        }
        // Whoever looks at it goes on looking at it, wherever it is now.
        if self.selected.is_some() && self.selected == before {
            self.selected = Some(place.clone());
        }
        if place.group == Group::Done && !was_done {
            self.done.push_back(name.clone());
        }
        self.known.insert(name, Entry { model, place });
        if self.done.len() > DONE_MAX
            && let Some(oldest) = self.done.pop_front()
        {
            self.remove(&oldest);
        }
        self.settle();
    }

    fn remove(&mut self, name: &str) {
        if let Some(entry) = self.known.remove(name) {
            self.uncount(entry.place.group);
            self.shown.remove(&entry.place);
            self.settle();
        }
    }

    fn uncount(&mut self, group: Group) {
        if let Some(count) = self.counts.get_mut(&group) {
            *count = count.saturating_sub(1);
        }
    }

    /// Something is selected if there is something: what was, else what has taken its place.
    fn settle(&mut self) {
        let near = match self.selected.take().filter(|_| self.moved) {
            Some(selected) => self.shown.range(selected..).next().or_else(|| self.shown.last()),
            None => self.shown.first(),
        };
        self.selected = near.cloned();
        self.moved &= self.selected.is_some();
    }

    /// The stream begins anew: what is not heard of until the first bookmark is not there any more.
    pub(super) fn anew(&mut self) {
        let open = self.known.iter().filter(|(_, entry)| entry.place.group != Group::Done);
        self.unheard = open.map(|(name, _)| name.clone()).collect();
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn set_filter(&mut self, filter: String) {
        if filter == self.filter {
            return;
        }
        self.filter = filter;
        let shown = self.known.values().filter(|entry| matches(&entry.model.operation, &self.filter));
        self.shown = shown.map(|entry| entry.place.clone()).collect();
        (self.first, self.moved) = (None, false);
        self.settle();
    }

    pub(super) fn selected(&self) -> Option<String> {
        self.selected.as_ref().map(|place| place.name.clone())
    }

    pub(super) fn model(&self, name: &str) -> Option<&Model> {
        self.known.get(name).map(|entry| &entry.model)
    }

    pub(super) fn count(&self, group: Group) -> usize {
        self.counts.get(&group).copied().unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Moves the selection.
    pub(super) fn go(&mut self, rows: usize, down: bool) {
        let Some(from) = self.selected.clone() else { return };
        let target = if down {
            self.shown.range((Bound::Excluded(&from), Bound::Unbounded)).take(rows).last()
        } else {
            self.shown.range(..&from).rev().take(rows).last()
        };
        self.selected = target.cloned().or(Some(from));
        self.moved = self.selected.as_ref() != self.shown.first();
    }

    /// Selects the first or the last.
    pub(super) fn jump(&mut self, end: bool) {
        self.selected = if end { self.shown.last().cloned() } else { self.shown.first().cloned() };
        self.moved = end;
    }

    /// What is in sight of `height` rows, the selected one among it. `rows` says how many one of them takes.
    pub(super) fn in_sight(&mut self, height: usize, rows: impl Fn(&Operation) -> usize) -> Vec<(&Model, bool)> {
        let Some(selected) = self.selected.clone() else { return Vec::new() };
        let rows = |place: &Place| self.known.get(&place.name).map_or(1, |entry| rows(&entry.model.operation));
        // As far above the selection as there is room for.
        let mut room = height.saturating_sub(rows(&selected));
        let mut highest = selected.clone();
        for place in self.shown.range(..&selected).rev() {
            match room.checked_sub(rows(place)) {
                Some(left) => (room, highest) = (left, place.clone()),
                None => break,
            }
        }
        let first = match &self.first {
            Some(first) if *first >= highest && *first <= selected => first.clone(),
            Some(first) if *first > selected => selected.clone(),
            Some(_) | None => highest,
        };
        let mut room = height;
        let mut sight = Vec::new();
        for place in self.shown.range(&first..) {
            let Some(entry) = self.known.get(&place.name) else { continue };
            match room.checked_sub(rows(place)) {
                Some(left) => room = left,
                None if sight.is_empty() => room = 0,
                None => break,
            }
            sight.push((&entry.model, *place == selected));
        }
        self.first = Some(first);
        sight
    }
}

fn place(operation: &Operation) -> Place {
    let group = match operation.state() {
        operation::State::Degraded => Group::Degraded,
        _ if operation.done => Group::Done,
        _ if operation.awaiting_confirmation => Group::Awaiting,
        _ => Group::Open,
    };
    let seconds = |time: Option<&prost_types::Timestamp>| time.map_or(0, |time| time.seconds);
    let age = match group {
        Group::Done => -seconds(operation.end_time.as_ref()),
        Group::Degraded | Group::Awaiting | Group::Open => seconds(operation.create_time.as_ref()),
    };
    Place { group, age, name: operation.name.clone() }
}

/// Whether every word of the filter is in what is shown of it.
fn matches(operation: &Operation, filter: &str) -> bool {
    if filter.trim().is_empty() {
        return true;
    }
    let shown = format!(
        "{} {} {}",
        name::short(&operation.name),
        view::subject(operation),
        words::operation_state(operation.state)
    )
    .to_lowercase();
    filter.split_whitespace().all(|word| shown.contains(&word.to_lowercase()))
}
