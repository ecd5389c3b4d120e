//! Watches: a snapshot, then every event, with tokens to go on from; rules W1 to W8 of the contract.
//!
//! A watch is a stream that reads the history from its own cursor when it is polled. Nothing is queued for it: a reader
//! that is slow is behind, and one that is behind by more than a page gets repeated progress merged.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use quiesce_operation::{OperationId, StateName};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_store::{Revision, SCAN_MAX, Scan, Space, Store};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use v1::operation_event::Type;

use quiesce_mutation::{Mutant, active};

use crate::convert;
use crate::convert::operation::{operation_to_wire, summary_to_wire};
use crate::filter::Filter;
use crate::history::{History, READ_MAX, Seen};
use crate::metrics::{Ended, Followed, Metrics, OpenWatch};
use crate::records::{LoadError, OperationRecord, Stored, Summary, from_entry, load, operation_key};
use crate::status::Problem;
use crate::token::{Purpose, ResumeToken, resume_token};

/// How long a watch is silent at most, unless the caller says otherwise.
pub(crate) const BOOKMARK_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest interval a caller may ask for.
pub(crate) const BOOKMARK_MIN: Duration = Duration::from_secs(1);

/// What a caller wants to follow.
#[derive(Debug)]
pub(crate) enum Scope {
    /// One operation, to its end.
    One { operation: OperationId, end_on_degraded: bool },
    /// All that match, without end.
    All { filter: Filter, skip_snapshot: bool, include_done: bool },
}

/// What a watch needs of the scheduler. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) history: History,
    pub(crate) drain: drain::Watch,
    pub(crate) metrics: Metrics,
}

/// One watch.
struct Watch {
    watches: Watches,
    scope: Scope,
    purpose: Purpose,
    life: Uuid,
    interval: Duration,
    cursor: Revision,
    stage: Stage,
    ready: VecDeque<v1::OperationEvent>,
    /// Operations whose snapshot is newer than the cursor, with its revision: their events up to there are in it.
    ahead: HashMap<String, Revision>,
    /// The bookmark is due then.
    quiet_until: Instant,
    /// When resuming a watch of one operation that is over: nothing follows behind this revision.
    end_at: Option<Revision>,
    open: OpenWatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The snapshot of one operation is to be taken.
    SnapshotOne,
    /// A page of the snapshot of all is to be taken; `after` is the last operation of the page before.
    SnapshotAll,
    Live,
    /// What is ready is the last; the stream ends with OK.
    Ending,
    /// The scheduler stops: what is ready is the last, the reader resumes with its token.
    Leaving,
    Ended,
}

/// What a token of a watch of all operations that match `filter` is good for.
pub(crate) fn purpose_of_all(filter: &str) -> Purpose {
    Purpose::of(&["WatchOperations", filter])
}

impl Watches {
    /// Where to go on from, in a watch of all operations, to hear what has happened lately: at most so many revisions ago,
    /// and only what is still known.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) async fn token_of_past(&self, revisions: u64) -> Result<String, Problem> {
        let from = self.history.head().as_u64().saturating_sub(revisions);
        let from = Revision::new(from).max(self.history.floor().await?);
        Ok(resume_token(purpose_of_all(""), self.store.life(), from))
    }

    /// Begins a watch. What can be refused is refused here; the stream comes at once.
    pub(crate) async fn begin(
        &self,
        scope: Scope,
        purpose: Purpose,
        token: Option<ResumeToken>,
        interval: Duration,
    ) -> Result<impl Stream<Item = Result<v1::OperationEvent, Problem>> + Send + use<>, Problem> {
        if self.drain.is_draining() || self.history.is_closed() {
            return Err(Problem::NotServing("the scheduler is stopping"));
        }
        let life = self.store.life();
        let fresh = token.is_none();
        let (cursor, stage) = match token {
            None => {
                let stage = match &scope {
                    Scope::One { .. } => Stage::SnapshotOne,
                    Scope::All { skip_snapshot: true, .. } => Stage::Live,
                    Scope::All { .. } => Stage::SnapshotAll,
                };
                (self.history.head(), stage)
            }
            Some(token) => {
                let cursor = token.revision_in(life)?;
                if cursor > *self.store.durable().borrow() {
                    return Err(Problem::ResumeTokenExpired);
                }
                self.history.check_reaches(cursor).await?;
                let late = u64::from(active(Mutant::ResumesOneTooLate));
                (Revision::new(cursor.as_u64() + late), Stage::Live)
            }
        };
        let open = self.metrics.watch(match &scope {
            Scope::One { .. } => Followed::One,
            Scope::All { .. } => Followed::All,
        });
        let mut watch = Watch {
            watches: self.clone(),
            scope,
            purpose,
            life,
            interval,
            cursor,
            stage,
            ready: VecDeque::new(),
            ahead: HashMap::new(),
            quiet_until: Instant::now() + interval,
            end_at: None,
            open,
        };
        watch.check_begin(fresh).await?;
        Ok(stream::unfold(watch, |mut watch| async move { watch.next().await.map(|item| (item, watch)) }))
    }
}

impl Watch {
    /// One operation has to exist; what is over already ends the watch with what there is.
    async fn check_begin(&mut self, fresh: bool) -> Result<(), Problem> {
        match &self.scope {
            Scope::One { operation, .. } => {
                let stored = self.operation(operation).await?;
                self.end_at = self.is_end(stored.record.0.state()).then_some(stored.revision);
            }
            Scope::All { skip_snapshot, .. } => {
                if fresh && *skip_snapshot {
                    self.push_bookmark();
                }
            }
        }
        Ok(())
    }

    async fn operation(&self, id: &OperationId) -> Result<Stored<OperationRecord>, Problem> {
        let found = load::<OperationRecord>(&*self.watches.store, operation_key(id)).await?;
        found.ok_or_else(|| Problem::OperationNotFound(convert::operation_name(id)))
    }

    /// The next item; `None` ends the stream with OK.
    async fn next(&mut self) -> Option<Result<v1::OperationEvent, Problem>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.quiet_until = Instant::now() + self.interval;
                return Some(Ok(event));
            }
            let done = match self.stage {
                Stage::Ended => return None,
                Stage::Ending => {
                    self.open.ends(Ended::Finished);
                    return None;
                }
                Stage::Leaving => Err(Problem::NotServing("the scheduler is stopping; resume with the last token")),
                Stage::SnapshotOne => self.snapshot_one().await,
                Stage::SnapshotAll => self.snapshot_all().await,
                Stage::Live => self.live().await,
            };
            if let Err(problem) = done {
                self.open.ends(match &problem {
                    _ if self.stage == Stage::Leaving => Ended::Stopping,
                    Problem::WatchTooSlow => Ended::TooSlow,
                    _ => Ended::Failed,
                });
                self.stage = Stage::Ended;
                return Some(Err(problem));
            }
        }
    }

    async fn snapshot_one(&mut self) -> Result<(), Problem> {
        let Scope::One { operation, .. } = &self.scope else { return Ok(()) };
        let Stored { revision, record: OperationRecord(operation) } = self.operation(operation).await?;
        let wire = operation_to_wire(&*self.watches.clock, &operation, revision);
        // The record comes last in its batch, so its revision is above those of all events it reflects.
        self.cursor = revision;
        self.ready.push_back(self.snapshot(wire, revision));
        if self.is_end(operation.state()) {
            self.stage = Stage::Ending;
        } else {
            self.push_bookmark();
            self.stage = Stage::Live;
        }
        Ok(())
    }

    /// All pages of the snapshot are made before the first is sent, so that they are close together in time; a page is
    /// held as wire messages without instances, some KiB each, and only open operations unless asked otherwise.
    async fn snapshot_all(&mut self) -> Result<(), Problem> {
        let Scope::All { filter, include_done, .. } = &self.scope else { return Ok(()) };
        let mut scan = Scan { limit: SCAN_MAX, ..Scan::all(Space::Operations) };
        let mut found = Vec::new();
        loop {
            let entries =
                self.watches.store.scan(scan.clone()).await.map_err(|error| Problem::from(LoadError::Read(error)))?;
            for entry in &entries {
                let Stored { revision, record: OperationRecord(operation) } = from_entry(entry)?;
                let wire = summary_to_wire(&*self.watches.clock, &Summary::of(&operation), revision);
                if (*include_done || !wire.done) && filter.matches(&wire) {
                    found.push((wire, revision));
                }
            }
            match entries.last() {
                Some(last) if entries.len() == SCAN_MAX => scan.after = Some(last.key.clone()),
                Some(_) | None => break,
            }
        }
        for (wire, revision) in found {
            if revision > self.cursor {
                self.ahead.insert(wire.name.clone(), revision);
            }
            let event = self.snapshot(wire, revision);
            self.ready.push_back(event);
        }
        self.push_bookmark();
        self.stage = Stage::Live;
        Ok(())
    }

    fn snapshot(&self, operation: v1::Operation, revision: Revision) -> v1::OperationEvent {
        v1::OperationEvent {
            revision: convert::long(revision.as_u64()),
            r#type: Type::Snapshot.into(),
            event_time: Some(convert::timestamp(&*self.watches.clock, convert::now(&*self.watches.clock))),
            message: operation.message.clone(),
            operation: Some(operation),
            ..v1::OperationEvent::default()
        }
    }

    /// Waits for something to send: events, the time of a bookmark, or the end of the scheduler.
    async fn live(&mut self) -> Result<(), Problem> {
        let mut head = self.watches.history.follow();
        loop {
            if self.advance(head.look()).await? {
                return Ok(());
            }
            if self.end_at.is_some_and(|end| self.cursor >= end) {
                self.stage = Stage::Ending;
                return Ok(());
            }
            if self.watches.history.is_closed() {
                return Err(Problem::NotServing("the store has failed"));
            }
            if self.watches.drain.is_draining() {
                self.push_bookmark();
                self.stage = Stage::Leaving;
                return Ok(());
            }
            let drain = self.watches.drain.clone();
            tokio::select! {
                biased;
                changed = timeout_at(self.quiet_until, head.moved()) => match changed {
                    Ok(Some(())) => {}
                    // Whoever follows the log is gone, which happens when the scheduler stops.
                    Ok(None) => {
                        self.push_bookmark();
                        self.stage = Stage::Leaving;
                        return Ok(());
                    }
                    Err(_) => {
                        self.push_bookmark();
                        return Ok(());
                    }
                },
                () = drain.signaled() => {}
            }
        }
    }

    /// Reads on towards `target`. Whether there is something to send.
    async fn advance(&mut self, target: Revision) -> Result<bool, Problem> {
        while self.cursor < target {
            let page = match self.watches.history.read(self.cursor).await {
                Err(Problem::ResumeTokenExpired) => return Err(Problem::WatchTooSlow),
                page => page?,
            };
            let full = page.len() == READ_MAX;
            let last = page.last().map(|seen| seen.revision);
            let count = page.len();
            let events = if full { merge_progress(page) } else { page };
            self.watches.metrics.merged(count - events.len());
            for seen in events {
                self.take(&seen);
                if self.stage == Stage::Ending {
                    return Ok(true);
                }
            }
            self.cursor = match last {
                Some(last) if full => last,
                // Nothing more up to the head: later bookmarks may say so.
                Some(last) => last.max(target),
                None => target,
            };
            if !self.ready.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes one event ready, if it belongs to this watch.
    fn take(&mut self, seen: &Seen) {
        let Some(operation) = &seen.event.operation else { return };
        let state = operation.state();
        let belongs = match &self.scope {
            Scope::One { operation: wanted, .. } => operation.name == convert::operation_name(wanted),
            Scope::All { filter, .. } => filter.matches(operation),
        };
        if !belongs {
            return;
        }
        match self.ahead.get(&operation.name) {
            Some(snapshot) if seen.revision <= *snapshot => return,
            Some(_) => {
                self.ahead.remove(&operation.name);
            }
            None => {}
        }
        let mut event = v1::OperationEvent::clone(&seen.event);
        event.resume_token = resume_token(self.purpose, self.life, seen.revision);
        let changed = event.r#type() == Type::StateChanged;
        self.ready.push_back(event);
        if let Scope::One { end_on_degraded, .. } = self.scope {
            let ends = wire_is_final(state) || (end_on_degraded && state == v1::operation::State::Degraded);
            if changed && ends {
                self.stage = Stage::Ending;
            }
        }
    }

    fn is_end(&self, state: StateName) -> bool {
        match &self.scope {
            Scope::One { end_on_degraded, .. } => {
                state.is_final() || (*end_on_degraded && state == StateName::Degraded)
            }
            Scope::All { .. } => false,
        }
    }

    fn push_bookmark(&mut self) {
        let clock = &*self.watches.clock;
        self.ready.push_back(v1::OperationEvent {
            revision: convert::long(self.cursor.as_u64()),
            r#type: Type::Bookmark.into(),
            event_time: Some(convert::timestamp(clock, convert::now(clock))),
            resume_token: resume_token(self.purpose, self.life, self.cursor),
            ..v1::OperationEvent::default()
        });
    }
}

fn wire_is_final(state: v1::operation::State) -> bool {
    use v1::operation::State as W;
    matches!(state, W::Succeeded | W::Cancelled | W::RolledBack | W::Abandoned)
}

/// Of several reports of one instance in a page the last is kept (W4); all else stays, in order.
fn merge_progress(page: Vec<Seen>) -> Vec<Seen> {
    let mut last: HashMap<String, Revision> = HashMap::new();
    let subject = |seen: &Seen| -> Option<String> {
        if seen.event.r#type() != Type::Progress {
            return None;
        }
        let operation = seen.event.operation.as_ref()?.name.clone();
        let instance = seen.event.instance.as_ref().map(|one| one.instance.clone());
        let start = seen.event.start.as_ref().map(|one| format!("start {}", one.instance));
        Some(format!("{operation} {}", instance.or(start).unwrap_or_default()))
    };
    for seen in &page {
        if let Some(subject) = subject(seen) {
            last.insert(subject, seen.revision);
        }
    }
    page.into_iter()
        .filter(|seen| subject(seen).is_none_or(|subject| last.get(&subject) == Some(&seen.revision)))
        .collect()
}
