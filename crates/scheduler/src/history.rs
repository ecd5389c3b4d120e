//! The event log as watchers read it: a ring of recent events in memory, and the store behind it.
//!
//! One task follows the log by `Store::durable` and keeps the ring, counts ([`crate::metrics`]) and tells
//! ([`crate::chronicle`]) what became durable; every watcher reads from its own cursor, so there is
//! no queue per watcher and a slow one delays nobody. The ring is a cache: whatever it does not hold is read from the
//! store, and is the same.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quiesce_operation::{Moment, Operation};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_store::{Revision, Scan, Space, Store};
use tokio::sync::watch;
use tracing::{error, warn};

use crate::chronicle;
use crate::convert::operation::event_to_wire;
use crate::metrics::Metrics;
use crate::records::{EventRecord, HistoryRecord, LoadError, Stored, from_entry, history_key, load};
use crate::status::Problem;
use crate::traces::Listener;

/// Events kept in memory: some minutes of a busy scheduler, a few MiB.
const RING_MAX: usize = 4096;
/// Most events a watcher gets in one go; between two of them others have their turn.
pub(crate) const READ_MAX: usize = 256;
/// Pause before the log is read again when the store could not be read: about as long as it takes to open it again.
const READ_AGAIN: Duration = Duration::from_millis(250);

/// One event, decoded once for all watchers.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its place in the log.
    pub(crate) revision: Revision,
    /// As it is sent, without resume token.
    pub(crate) event: Arc<v1::OperationEvent>,
}

/// The log, for readers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ring: Arc<RwLock<Ring>>,
    head: watch::Receiver<Head>,
}

/// How far the log has been followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    /// Everything up to here can be read.
    revision: Revision,
    /// The store is gone, nothing follows.
    closed: bool,
}

#[derive(Debug, Default)]
struct Ring {
    /// Events above this revision are in the ring.
    floor: Revision,
    events: VecDeque<Seen>,
}

/// The head as it moves. It hands out copies only: a look that is held locks out whoever moves the head, and to look once
/// more meanwhile would be to wait for ever for that one.
pub(crate) struct Heads {
    head: watch::Receiver<Head>,
}

impl Heads {
    /// The revision up to which everything can be read now; [`Heads::moved`] waits for more than this.
    pub(crate) fn look(&mut self) -> Revision {
        self.head.borrow_and_update().revision
    }

    /// Resolves when the head is not where it was at the last look, or the log has ended. `None`: nobody follows it any
    /// more. Cancel-safe.
    pub(crate) async fn moved(&mut self) -> Option<()> {
        self.head.changed().await.ok()
    }
}

/// Follows the log; to be run as one task.
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ring: Arc<RwLock<Ring>>,
    head: watch::Sender<Head>,
    /// Events up to here were counted and are in the log.
    told: Revision,
    metrics: Metrics,
    /// Of those who trace.
    traces: Option<Listener>,
}

/// The readers' side and the task that feeds it. The ring begins empty, with what happens from now on.
pub(crate) fn open(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    traces: Option<Listener>,
) -> (History, Follower) {
    let revision = *store.durable().borrow();
    let ring = Arc::new(RwLock::new(Ring { floor: revision, events: VecDeque::new() }));
    let (sender, head) = watch::channel(Head { revision, closed: false });
    let history = History { store: Arc::clone(&store), clock: Arc::clone(&clock), ring: Arc::clone(&ring), head };
    (history, Follower { store, clock, ring, head: sender, told: revision, metrics, traces })
}

impl Follower {
    /// Until drained, or the store is gone.
    pub(crate) async fn run(mut self, drain: drain::Watch) {
        let mut durable = self.store.durable();
        let mut cursor = self.head.borrow().revision;
        if let Err(error) = self.recall(cursor).await {
            let error = quiesce_runtime::telemetry::chain(&error);
            warn!(%error, "traces of operations that are open will begin in the middle");
        }
        loop {
            let target = *durable.borrow_and_update();
            let mut again = false;
            if target > cursor {
                match self.follow(cursor, target).await {
                    Ok(()) => cursor = target,
                    // The store comes back by itself; nothing is lost, watchers only see it later.
                    Err(LoadError::Read(error)) if error.is_retryable() => again = true,
                    Err(error) => {
                        error!(error = %quiesce_runtime::telemetry::chain(&error), "the event log cannot be read");
                        break;
                    }
                }
            }
            tokio::select! {
                biased;
                changed = durable.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(READ_AGAIN), if again => {}
                () = drain.signaled() => return,
            }
        }
        warn!("the event log has ended; watches end with it");
        self.head.send_modify(|head| head.closed = true);
    }

    /// Operations are open that an earlier process has begun. To be said before it runs.
    pub(crate) fn resumed<'a>(&mut self, operations: impl Iterator<Item = &'a Operation>) {
        if let Some(traces) = &mut self.traces {
            traces.resumed(operations);
        }
    }

    /// What the log already tells of operations that are open, for their traces.
    async fn recall(&mut self, to: Revision) -> Result<(), LoadError> {
        let Some(traces) = &mut self.traces else { return Ok(()) };
        let mut cursor = since(&*self.store, traces.begin(), to).await?;
        while cursor < to {
            let page = read_log(&*self.store, cursor, READ_MAX).await?;
            let Some(last) = page.last() else { break };
            cursor = last.revision;
            page.iter().filter(|stored| stored.revision <= to).for_each(|stored| traces.recall(&stored.record));
        }
        Ok(())
    }

    async fn follow(&mut self, from: Revision, to: Revision) -> Result<(), LoadError> {
        let mut cursor = from;
        loop {
            let page = read_log(&*self.store, cursor, READ_MAX).await?;
            let full = page.len() == READ_MAX;
            if let Some(last) = page.last() {
                cursor = last.revision;
            }
            // A page read after `durable` moved may hold events beyond it, which the next page holds again.
            let fresh = page.iter().filter(|stored| stored.revision > self.told);
            let events = fresh.clone().map(|stored| seen(&*self.clock, stored)).collect();
            self.ring.write().unwrap_or_else(PoisonError::into_inner).extend(events);
            self.head.send_modify(|head| head.revision = if full { cursor } else { to.max(cursor) });
            // Watchers first: whoever reads the log may be slow.
            for stored in fresh {
                self.metrics.event(&stored.record);
                chronicle::tell(&stored.record);
                if let Some(traces) = &mut self.traces {
                    traces.hear(&stored.record);
                }
            }
            self.told = self.told.max(cursor);
            if !full {
                return Ok(());
            }
        }
    }
}

impl Ring {
    fn extend(&mut self, fresh: Vec<Seen>) {
        self.events.extend(fresh);
        while self.events.len() > RING_MAX {
            if let Some(gone) = self.events.pop_front() {
                self.floor = gone.revision;
            }
        }
    }

    fn read(&self, after: Revision) -> Option<Vec<Seen>> {
        if after < self.floor {
            return None;
        }
        let start = self.events.partition_point(|seen| seen.revision <= after);
        Some(self.events.range(start..).take(READ_MAX).cloned().collect())
    }
}

async fn read_log(store: &dyn Store, after: Revision, limit: usize) -> Result<Vec<Stored<EventRecord>>, LoadError> {
    let scan = Scan { after: Some(Space::Events.log_key(after)), limit, ..Scan::all(Space::Events) };
    let entries = store.scan(scan).await.map_err(LoadError::Read)?;
    entries.iter().map(from_entry::<EventRecord>).collect()
}

/// A place in the log, not above `to`, before everything that has happened since `begin`: found by halves, for the log can be
/// long and its end is what matters.
async fn since(store: &dyn Store, begin: Moment, to: Revision) -> Result<Revision, LoadError> {
    let (mut low, mut high) = (Revision::ZERO.as_u64(), to.as_u64());
    while low < high {
        let middle = low + (high - low) / 2;
        match read_log(store, Revision::new(middle), 1).await?.first() {
            Some(stored) if stored.record.time < begin => low = stored.revision.as_u64(),
            Some(_) | None => high = middle,
        }
    }
    Ok(Revision::new(low.min(to.as_u64())))
}

fn seen(clock: &dyn Clock, stored: &Stored<EventRecord>) -> Seen {
    let event = Arc::new(event_to_wire(clock, &stored.record, stored.revision));
    Seen { revision: stored.revision, event }
}

impl History {
    /// The revision up to which everything can be read now.
    pub(crate) fn head(&self) -> Revision {
        self.head.borrow().revision
    }

    /// To wait for more.
    pub(crate) fn follow(&self) -> Heads {
        Heads { head: self.head.clone() }
    }

    /// Whether the log has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.head.borrow().closed
    }

    /// The next events behind `after`, at most [`READ_MAX`].
    ///
    /// # Errors
    /// [`Problem::ResumeTokenExpired`] when events behind `after` are gone.
    pub(crate) async fn read(&self, after: Revision) -> Result<Vec<Seen>, Problem> {
        let recent = self.ring.read().unwrap_or_else(PoisonError::into_inner).read(after);
        if let Some(recent) = recent {
            return Ok(recent);
        }
        let page = read_log(&*self.store, after, READ_MAX).await?;
        // Checked after reading: what was trimmed meanwhile is noticed, not skipped.
        self.check_reaches(after).await?;
        Ok(page.iter().map(|stored| seen(&*self.clock, stored)).collect())
    }

    /// Whether everything behind `after` is still there.
    pub(crate) async fn check_reaches(&self, after: Revision) -> Result<(), Problem> {
        if after < self.floor().await? { Err(Problem::ResumeTokenExpired) } else { Ok(()) }
    }

    /// Behind which everything is still there.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub(crate) async fn floor(&self) -> Result<Revision, Problem> {
        let trimmed = load::<HistoryRecord>(&*self.store, history_key()).await?;
        Ok(trimmed.map_or(Revision::ZERO, |stored| Revision::new(stored.record.trimmed_through)))
    }
}

#[cfg(test)]
mod tests {
    use quiesce_store::Batch;
    use quiesce_store::memory::MemoryStore;
    use quiesce_store::record::encode;
    use uuid::Uuid;

    use super::*;
    use crate::traces::tests::story;

    #[tokio::test]
    async fn the_beginning_of_what_matters_is_found_in_a_long_log() {
        let store = MemoryStore::new(Uuid::nil());
        let event = story("").remove(0);
        for second in 0..50 {
            let event = EventRecord { time: Moment::from_millis(second * 1_000), ..event.clone() };
            store.commit(Batch::new().append(Space::Events, encode(&event))).await.unwrap();
        }
        let to = *store.durable().borrow();
        for (begin, first) in [(0, 0), (500, 1), (1_000, 1), (30_000, 30), (49_000, 49)] {
            let place = since(&store, Moment::from_millis(begin), to).await.unwrap();
            let next = read_log(&store, place, 1).await.unwrap();
            assert_eq!(next[0].record.time, Moment::from_millis(first * 1_000), "since {begin}");
        }
        assert_eq!(since(&store, Moment::from_millis(60_000), to).await.unwrap(), to, "nothing since then");
        assert_eq!(since(&store, Moment::from_millis(0), Revision::ZERO).await.unwrap(), Revision::ZERO);
    }
}
