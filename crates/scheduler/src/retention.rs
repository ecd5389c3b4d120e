//! Forgetting: old events, old operations, used-up request ids, and the clock anchor that must not grow old.
//!
//! Everything in bounded steps, each one batch, so that no change of anybody else waits for it.

use std::sync::Arc;
use std::time::Duration;

use quiesce_operation::Moment;
use quiesce_runtime::clock::{Clock, Timeline};
use quiesce_runtime::drain;
use quiesce_runtime::telemetry::chain;
use quiesce_store::{Batch, Expect, Key, Revision, SCAN_MAX, Scan, Space, Store};
use tracing::{debug, warn};

use crate::convert;
use crate::idempotency::is_expired;
use crate::records::{
    AnchorRecord, EventRecord, HistoryRecord, LoadError, OperationRecord, RequestIdRecord, Stored, anchor_key,
    from_entry, history_key, load_page, put,
};
use crate::status::Problem;

/// How long events are kept at least.
pub(crate) const EVENTS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How many events are kept at least.
const EVENTS_MIN: usize = 10_000;
/// How long done operations are kept.
pub(crate) const OPERATIONS_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often is looked for what may be forgotten.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How often the clock anchor is renewed: so much time is lost at most when the wall clock was set back over a reboot.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(60);

/// Forgets; to be run as one task.
pub(crate) struct Retention {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Set when the clock is a timeline of this machine.
    pub(crate) timeline: Option<Arc<Timeline>>,
}

impl Retention {
    /// Until drained.
    pub(crate) async fn run(self, drain: drain::Watch) {
        let mut anchors = tokio::time::interval(ANCHOR_INTERVAL);
        let mut sweeps = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = drain.signaled() => return self.drop_anchor().await,
                _ = anchors.tick() => self.drop_anchor().await,
                _ = sweeps.tick() => {
                    if let Err(problem) = self.sweep().await {
                        warn!(error = %chain(&problem), "what is old could not be forgotten; tried again later");
                    }
                }
            }
        }
    }

    async fn drop_anchor(&self) {
        let Some(timeline) = &self.timeline else { return };
        let batch = put(Batch::new(), anchor_key(), &AnchorRecord::from(timeline.anchor()));
        if let Err(error) = self.store.commit(batch).await {
            warn!(error = %chain(&error), "the clock could not be recorded; tried again later");
        }
    }

    /// Forgets what is old.
    pub(crate) async fn sweep(&self) -> Result<(), Problem> {
        self.trim_events().await?;
        self.drop_operations().await?;
        self.drop_requests().await
    }

    fn now(&self) -> Moment {
        convert::now(&*self.clock)
    }

    async fn trim_events(&self) -> Result<(), Problem> {
        let now = self.now();
        let is_old = |event: &Stored<EventRecord>| now.since(event.record.time) > EVENTS_FOR;
        let oldest = Scan { limit: 1, ..Scan::all(Space::Events) };
        if !load_page::<EventRecord>(&*self.store, oldest).await?.iter().any(|(_, event)| is_old(event)) {
            return Ok(());
        }
        let Some(newest_kept) = self.newest(EVENTS_MIN).await? else { return Ok(()) };
        let mut after = None;
        loop {
            let scan = Scan { after: after.clone(), before: Some(newest_kept.clone()), ..Scan::all(Space::Events) };
            let page = load_page::<EventRecord>(&*self.store, scan).await?;
            let old: Vec<_> = page.iter().take_while(|(_, event)| is_old(event)).collect();
            let Some((key, last)) = old.last() else { return Ok(()) };
            self.trim(last.revision).await?;
            if old.len() < SCAN_MAX {
                return Ok(());
            }
            after = Some(key.clone());
        }
    }

    /// The key of the `count`th event from the end, if there are more than that.
    async fn newest(&self, count: usize) -> Result<Option<Key>, Problem> {
        let mut scan = Scan { reverse: true, ..Scan::all(Space::Events) };
        let mut seen = 0;
        loop {
            scan.limit = SCAN_MAX.min(count - seen);
            let page = self.store.scan(scan.clone()).await.map_err(|error| Problem::from(LoadError::Read(error)))?;
            let Some(last) = page.last() else { return Ok(None) };
            seen += page.len();
            if seen >= count {
                return Ok(Some(last.key.clone()));
            }
            scan.before = Some(last.key.clone());
        }
    }

    async fn trim(&self, through: Revision) -> Result<(), Problem> {
        let record = HistoryRecord { trimmed_through: through.as_u64(), time: self.now() };
        let batch = put(Batch::new(), history_key(), &record).trim(Space::Events, through);
        self.store.commit(batch).await?;
        debug!(%through, "old events trimmed");
        Ok(())
    }

    async fn drop_operations(&self) -> Result<(), Problem> {
        let now = self.now();
        let mut scan = Scan::all(Space::Operations);
        loop {
            let page = load_page::<OperationRecord>(&*self.store, scan.clone()).await?;
            let Some((last, newest)) = page.last() else { return Ok(()) };
            let mut batch = Batch::new();
            for (key, stored) in &page {
                if stored.record.0.ended().is_some_and(|ended| now.since(ended) > OPERATIONS_FOR) {
                    batch = batch.delete(key.clone());
                }
            }
            // Operations lie in the order of their acceptance: behind a young one there are only younger ones.
            let young = now.since(newest.record.0.request().time) < OPERATIONS_FOR;
            if !batch.is_empty() {
                self.store.commit(batch).await?;
            }
            if young || page.len() < SCAN_MAX {
                return Ok(());
            }
            scan.after = Some(last.clone());
        }
    }

    async fn drop_requests(&self) -> Result<(), Problem> {
        let now = self.now();
        let mut scan = Scan::all(Space::Requests);
        loop {
            let page = self.store.scan(scan.clone()).await.map_err(|error| Problem::from(LoadError::Read(error)))?;
            let Some(last) = page.last() else { return Ok(()) };
            let mut batch = Batch::new();
            for entry in &page {
                let found = from_entry::<RequestIdRecord>(entry)?;
                if is_expired(&*self.store, &found, now).await? {
                    batch = batch.expect(entry.key.clone(), Expect::Revision(entry.revision)).delete(entry.key.clone());
                }
            }
            if !batch.is_empty() {
                self.store.commit(batch).await?;
            }
            if page.len() < SCAN_MAX {
                return Ok(());
            }
            scan.after = Some(last.key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use quiesce_operation::{
        ApplicationId, Caller, ClusterId, Kind, Operation, OperationId, Placement, Policy, Request,
    };
    use quiesce_runtime::clock::ManualClock;
    use quiesce_store::memory::MemoryStore;
    use quiesce_store::record::encode;
    use uuid::Uuid;

    use super::*;
    use crate::history;
    use crate::metrics::Metrics;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    async fn append(store: &MemoryStore, clock: &ManualClock, count: usize) {
        let request = Request {
            application: ApplicationId::parse("shop").unwrap(),
            kind: Kind::Delete,
            source: ClusterId::parse("a").unwrap(),
            target: None,
            placement: Placement::Agents,
            force: false,
            caller: Caller { identity: "test".to_owned(), reason: String::new() },
            request_id: String::new(),
            labels: std::collections::BTreeMap::new(),
            time: convert::now(clock),
            trace: None,
        };
        let id = OperationId::parse("op-1").unwrap();
        let (operation, events) = Operation::accept(id, request, Policy::built_in(), Vec::new(), Vec::new(), 0);
        let event = encode(&EventRecord::new(&operation, &events[0]));
        for _ in 0..count.div_ceil(500) {
            let batch = (0..500).fold(Batch::new(), |batch, _| batch.append(Space::Events, event.clone()));
            store.commit(batch).await.unwrap();
        }
    }

    #[tokio::test]
    async fn events_are_kept_a_day_and_ten_thousand() {
        let store = MemoryStore::new(Uuid::nil());
        let clock = Arc::new(ManualClock::new(1_000));
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let retention =
            Retention { store: Arc::clone(&shared), clock: Arc::clone(&clock) as Arc<dyn Clock>, timeline: None };
        append(&store, &clock, 3_000).await;
        clock.advance(2 * DAY);
        retention.sweep().await.unwrap();
        let all = Scan { limit: 1, ..Scan::all(Space::Events) };
        let oldest = store.scan(all.clone()).await.unwrap();
        assert_eq!(oldest[0].revision, Revision::new(1), "old, but not yet ten thousand");

        append(&store, &clock, 9_000).await;
        retention.sweep().await.unwrap();
        let oldest = store.scan(all).await.unwrap();
        assert_eq!(oldest[0].revision, Revision::new(2_001), "ten thousand are left");

        let (history, _follower) = history::open(shared, clock, Metrics::new(), None);
        assert!(matches!(history.read(Revision::new(1_999)).await, Err(Problem::ResumeTokenExpired)));
        let rest = history.read(Revision::new(2_000)).await.unwrap();
        assert_eq!(rest[0].revision, Revision::new(2_001));
    }

    #[tokio::test]
    async fn a_request_id_goes_after_a_day_when_its_operation_is_gone() {
        use crate::idempotency::{RequestId, Use};
        use crate::records::RequestResult;

        let store = MemoryStore::new(Uuid::nil());
        let clock = Arc::new(ManualClock::new(1_000));
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let retention = Retention { store: shared, clock: Arc::clone(&clock) as Arc<dyn Clock>, timeline: None };
        let request = RequestId::of("Method", "caller", "id", &"content").unwrap();
        let other = RequestId::of("Method", "caller", "id", &"other content").unwrap();
        let result = RequestResult::Operation(OperationId::parse("op-1").unwrap());
        let batch = request.remember(Batch::new(), Expect::Absent, result, convert::now(&*clock));
        store.commit(batch).await.unwrap();
        retention.sweep().await.unwrap();
        assert!(matches!(request.look_up(&store, convert::now(&*clock)).await, Ok(Use::Taken(_))));
        let conflict = other.look_up(&store, convert::now(&*clock)).await;
        assert!(matches!(conflict, Err(Problem::RequestIdConflict(_))));
        clock.advance(2 * DAY);
        assert!(matches!(other.look_up(&store, convert::now(&*clock)).await, Ok(Use::Free(Expect::Revision(_)))));
        retention.sweep().await.unwrap();
        assert!(matches!(other.look_up(&store, convert::now(&*clock)).await, Ok(Use::Free(Expect::Absent))));
    }
}
