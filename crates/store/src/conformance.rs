//! The suite every backend passes: the contract of [`Store`], as tests.
//!
//! A backend's tests say `quiesce_store::conformance_tests!(subject)` with an expression that makes a fresh [`Subject`];
//! that gives one test per behaviour. They panic when the contract is broken, as tests do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;

use crate::{
    BATCH_BYTES_MAX, Batch, CommitError, Committed, Entry, Expect, KEY_BYTES_MAX, Key, Limit, Revision, SCAN_MAX, Scan,
    Space, Store, VALUE_BYTES_MAX, WRITES_MAX,
};

/// Long enough for the slowest disk; only a store that hangs gets there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Concurrent writers in the checks about order; as many as share a group in the published measurements.
const WRITERS: u64 = 64;

/// A place where a store can be opened, closed and opened again.
pub trait Subject: Send + Sync {
    /// Opens the store. Called again only after everything of the previous one was dropped; shows the same data then.
    fn open(&self) -> Arc<dyn Store>;
}

/// Makes one test of each behaviour. Takes an expression that makes a new, empty [`Subject`](conformance::Subject).
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::conformance_tests!(
            @each $subject;
            what_was_put_is_read_back,
            deleting_removes_and_costs_a_revision_even_if_nothing_was_there,
            every_write_takes_one_revision_in_order,
            each_expectation_holds_when_it_should_and_names_what_it_found_when_not,
            expectations_look_at_the_state_before_the_batch,
            a_refused_batch_leaves_nothing_and_costs_no_revision,
            the_later_write_of_a_key_wins,
            bounds_are_enforced_and_what_is_within_them_is_stored,
            one_of_many_rivals_wins,
            concurrent_compare_and_swap_loses_no_update,
            append_order_is_commit_order_under_many_writers,
            a_commit_nobody_waits_for_is_whole_or_absent,
            scans_keep_to_their_space_prefix_and_bounds,
            scans_are_capped_and_pages_join_up,
            trimming_removes_the_log_up_to_a_revision_and_nothing_else,
            durable_never_goes_back_and_reads_see_what_it_shows,
            reopening_keeps_entries_revisions_and_life,
        );
    };
    (@each $subject:expr; $($check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::bounded($crate::conformance::$check(&$subject)).await;
            }
        )+
    };
}

/// Runs a check, and panics if it does not end.
pub async fn bounded(check: impl Future<Output = ()>) {
    tokio::time::timeout(CHECK_TIMEOUT, check).await.expect("the check ends: a store that hangs breaks the contract");
}

/// A put entry has its key, its value and the revision of the put; other keys have nothing.
pub async fn what_was_put_is_read_back(subject: &dyn Subject) {
    let store = subject.open();
    let key = Space::Meta.key("name");
    assert_eq!(read(&*store, &key).await, None);
    for value in ["first", "", "third, longer than the others"] {
        let committed = commit(&*store, Batch::new().put(key.clone(), value)).await;
        assert_eq!(read(&*store, &key).await, Some(entry(&key, value, committed.first)));
    }
    assert_eq!(read(&*store, &Space::Applications.key("name")).await, None);
    assert_eq!(read(&*store, &Space::Meta.key("nam")).await, None);
}

/// Delete means gone afterwards, whatever was there before.
pub async fn deleting_removes_and_costs_a_revision_even_if_nothing_was_there(subject: &dyn Subject) {
    let store = subject.open();
    let key = Space::Meta.key("name");
    commit(&*store, Batch::new().put(key.clone(), "value")).await;
    for revision in [2, 3] {
        let committed = commit(&*store, Batch::new().delete(key.clone())).await;
        assert_eq!(committed, span(revision, revision));
        assert_eq!(read(&*store, &key).await, None);
    }
}

/// Write `i` of a batch has revision `first + i`; a batch without writes takes none.
pub async fn every_write_takes_one_revision_in_order(subject: &dyn Subject) {
    let store = subject.open();
    assert_eq!(*store.durable().borrow(), Revision::ZERO);
    assert_eq!(commit(&*store, Batch::new()).await, span(0, 0));
    let (a, b) = (Space::Meta.key("a"), Space::Meta.key("b"));
    let batch = Batch::new()
        .put(a.clone(), "a")
        .append(Space::Events, "event")
        .delete(Space::Meta.key("none"))
        .trim(Space::Tombstones, Revision::MAX)
        .put(b.clone(), "b");
    assert_eq!(commit(&*store, batch).await, span(1, 5));
    assert_eq!(commit(&*store, Batch::new().expect(a.clone(), Expect::Present)).await, span(5, 5));
    assert_eq!(commit(&*store, Batch::new().put(a.clone(), "again")).await, span(6, 6));
    let revisions = |entries: Vec<Entry>| entries.iter().map(|entry| entry.revision.as_u64()).collect::<Vec<_>>();
    assert_eq!(revisions(scan(&*store, Scan::all(Space::Meta)).await), [6, 5]);
    assert_eq!(revisions(scan(&*store, Scan::all(Space::Events)).await), [2]);
    assert_eq!(*store.durable().borrow(), Revision::new(6));
}

/// The table of [`Expect`] against what is stored.
pub async fn each_expectation_holds_when_it_should_and_names_what_it_found_when_not(subject: &dyn Subject) {
    let store = subject.open();
    let (there, missing) = (Space::Instances.key("there"), Space::Instances.key("missing"));
    commit(&*store, Batch::new().put(there.clone(), "old")).await;
    let stored = commit(&*store, Batch::new().put(there.clone(), "new")).await.first;
    let older = Revision::new(stored.as_u64() - 1);
    let table = [
        (&missing, Expect::Absent, true),
        (&missing, Expect::Present, false),
        (&missing, Expect::Revision(stored), false),
        (&missing, Expect::Revision(Revision::ZERO), false),
        (&there, Expect::Absent, false),
        (&there, Expect::Present, true),
        (&there, Expect::Revision(stored), true),
        (&there, Expect::Revision(older), false),
    ];
    for (key, expect, holds) in table {
        // The first failure is the one that is named, so a failing one behind it changes nothing.
        let batch = Batch::new().expect(there.clone(), Expect::Present).expect(key.clone(), expect);
        let outcome = store.commit(batch.expect(there.clone(), Expect::Revision(stored))).await;
        match outcome {
            Ok(_) => assert!(holds, "{expect:?} of {key} was accepted"),
            Err(CommitError::Conflict { key: named, expected, found }) => {
                assert!(!holds, "{expect:?} of {key} was refused");
                assert_eq!((&named, expected), (key, expect));
                assert_eq!(found, (*key == there).then_some(stored));
            }
            Err(other) => panic!("{expect:?} of {key}: {other}"),
        }
    }
}

/// A batch can replace what it expects, and cannot satisfy its own expectation.
pub async fn expectations_look_at_the_state_before_the_batch(subject: &dyn Subject) {
    let store = subject.open();
    let key = Space::Meta.key("name");
    let create = Batch::new().put(key.clone(), "value").expect(key.clone(), Expect::Absent);
    let revision = commit(&*store, create.clone()).await.first;
    assert!(matches!(store.commit(create).await, Err(CommitError::Conflict { .. })));
    let replace = Batch::new().delete(key.clone()).put(key.clone(), "next").expect(key, Expect::Revision(revision));
    commit(&*store, replace).await;
}

/// All or nothing, seen from the outside.
pub async fn a_refused_batch_leaves_nothing_and_costs_no_revision(subject: &dyn Subject) {
    let store = subject.open();
    let (kept, fresh) = (Space::Meta.key("kept"), Space::Meta.key("fresh"));
    commit(&*store, Batch::new().put(kept.clone(), "kept").append(Space::Events, "event")).await;
    let refused = Batch::new()
        .put(fresh.clone(), "fresh")
        .delete(kept.clone())
        .append(Space::Events, "lie")
        .trim(Space::Events, Revision::MAX)
        .expect(fresh.clone(), Expect::Present);
    assert!(matches!(store.commit(refused).await, Err(CommitError::Conflict { .. })));
    assert_eq!(read(&*store, &fresh).await, None);
    assert!(read(&*store, &kept).await.is_some());
    assert_eq!(scan(&*store, Scan::all(Space::Events)).await.len(), 1);
    assert_eq!(commit(&*store, Batch::new().put(fresh, "fresh")).await, span(3, 3));
}

/// Writes of one batch are applied in order.
pub async fn the_later_write_of_a_key_wins(subject: &dyn Subject) {
    let store = subject.open();
    let (a, b) = (Space::Meta.key("a"), Space::Meta.key("b"));
    let batch = Batch::new().put(a.clone(), "1").put(b.clone(), "1").delete(a.clone()).put(b.clone(), "2");
    commit(&*store, batch).await;
    assert_eq!(read(&*store, &a).await, None);
    assert_eq!(read(&*store, &b).await, Some(entry(&b, "2", Revision::new(4))));
}

/// One more than each bound is refused by name; the bound itself is stored.
pub async fn bounds_are_enforced_and_what_is_within_them_is_stored(subject: &dyn Subject) {
    let store = subject.open();
    let value = |len: usize| Bytes::from(vec![7; len]);
    let key = |len: usize| Space::Meta.key(&"k".repeat(len - 2));
    let puts = |count: usize, len: usize| {
        (0..count).fold(Batch::new(), |batch, n| batch.put(Space::Meta.key(&format!("{n:06}")), value(len)))
    };
    let full = BATCH_BYTES_MAX / VALUE_BYTES_MAX;
    let table = [
        (Limit::Key, Batch::new().put(key(KEY_BYTES_MAX + 1), "")),
        (Limit::Key, Batch::new().expect(key(KEY_BYTES_MAX + 1), Expect::Absent)),
        (Limit::Value, Batch::new().put(key(3), value(VALUE_BYTES_MAX + 1))),
        (Limit::Value, Batch::new().append(Space::Events, value(VALUE_BYTES_MAX + 1))),
        (Limit::Writes, puts(WRITES_MAX + 1, 0)),
        (Limit::Batch, puts(full, VALUE_BYTES_MAX)),
    ];
    for (expected, batch) in table {
        match store.commit(batch).await {
            Err(CommitError::TooLarge { limit, size, max }) => {
                assert_eq!(limit, expected);
                assert!(size > max);
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(*store.durable().borrow(), Revision::ZERO);
    let largest = Batch::new().put(key(KEY_BYTES_MAX), value(VALUE_BYTES_MAX));
    commit(&*store, largest).await;
    assert_eq!(read(&*store, &key(KEY_BYTES_MAX)).await.map(|entry| entry.value.len()), Some(VALUE_BYTES_MAX));
    commit(&*store, puts(WRITES_MAX, 100)).await;
}

/// Batches that share a group see each other.
pub async fn one_of_many_rivals_wins(subject: &dyn Subject) {
    let store = subject.open();
    let key = Space::Requests.key("the same request");
    let rivals = (0..WRITERS).map(|rival| {
        let (store, key) = (Arc::clone(&store), key.clone());
        tokio::spawn(async move {
            let batch = Batch::new().expect(key.clone(), Expect::Absent).put(key, rival.to_string());
            store.commit(batch.append(Space::Events, rival.to_string())).await
        })
    });
    let outcomes = join_all(rivals).await;
    let mut winners = Vec::new();
    for (rival, outcome) in outcomes.into_iter().enumerate() {
        match outcome.expect("no rival panics") {
            Ok(committed) => winners.push((rival, committed)),
            Err(CommitError::Conflict { found, .. }) => assert_eq!(found, Some(Revision::new(1))),
            Err(other) => panic!("rival {rival}: {other}"),
        }
    }
    let [(winner, committed)] = winners[..] else { panic!("one rival wins: {winners:?}") };
    assert_eq!(committed, span(1, 2));
    assert_eq!(read(&*store, &key).await, Some(entry(&key, &winner.to_string(), Revision::new(1))));
    assert_eq!(scan(&*store, Scan::all(Space::Events)).await.len(), 1);
}

/// A counter incremented by compare-and-swap counts every acknowledged increment.
pub async fn concurrent_compare_and_swap_loses_no_update(subject: &dyn Subject) {
    const INCREMENTS: u64 = 8;
    let store = subject.open();
    let key = Space::Meta.key("counter");
    commit(&*store, Batch::new().put(key.clone(), "0")).await;
    let increment = |store: Arc<dyn Store>, key: Key| async move {
        let mut done = 0;
        while done < INCREMENTS {
            let current = read(&*store, &key).await.expect("the counter is there");
            let next = number(&current.value) + 1;
            let batch = Batch::new().expect(key.clone(), Expect::Revision(current.revision));
            match store.commit(batch.put(key.clone(), next.to_string())).await {
                Ok(_) => done += 1,
                Err(CommitError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let tasks = (0..8).map(|_| tokio::spawn(increment(Arc::clone(&store), key.clone())));
    for task in join_all(tasks).await {
        task.expect("no task panics");
    }
    let counter = read(&*store, &key).await.expect("the counter is there");
    assert_eq!(number(&counter.value), 8 * INCREMENTS);
}

/// The log holds every acknowledged append, at the revision its author was told, in the order of the revisions.
pub async fn append_order_is_commit_order_under_many_writers(subject: &dyn Subject) {
    const APPENDS: u64 = 10;
    let store = subject.open();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut told = Vec::new();
            for n in 0..APPENDS {
                let value = format!("{writer}:{n}");
                let batch = Batch::new().put(Space::Operations.key(&writer.to_string()), value.clone());
                let committed = commit(&*store, batch.append(Space::Events, value.clone())).await;
                assert_eq!(committed.last, committed.first.plus(1));
                told.push((committed.last, value));
            }
            told
        })
    });
    let mut told = BTreeMap::new();
    for writer in join_all(writers).await {
        let writer = writer.expect("no writer panics");
        assert!(writer.is_sorted(), "a writer's own commits are in order");
        told.extend(writer);
    }
    let log = scan_pages(&*store, Scan::all(Space::Events)).await;
    assert!(log.is_sorted_by_key(|entry| entry.key.clone()));
    let logged = log.into_iter().map(|entry| {
        assert_eq!(entry.key.revision(), Some(entry.revision));
        (entry.revision, text(&entry.value))
    });
    assert!(logged.eq(told), "the log is what the writers were told");
    assert_eq!(*store.durable().borrow(), Revision::new(2 * WRITERS * APPENDS));
}

/// A caller that goes away cannot tear a batch.
pub async fn a_commit_nobody_waits_for_is_whole_or_absent(subject: &dyn Subject) {
    let store = subject.open();
    let keys = |n: u64| (Space::Meta.key(&n.to_string()), Space::Operations.key(&n.to_string()));
    for n in 0..WRITERS {
        let (one, other) = keys(n);
        // Polled once, then dropped: nobody hears the outcome.
        let _unheard = store.commit(Batch::new().put(one, "").put(other, "")).now_or_never();
    }
    // A commit waits for what was accepted before it, so the outcome of those above is settled by now.
    let last = commit(&*store, Batch::new().put(Space::Meta.key("last"), "")).await.first;
    let mut present = 0;
    for n in 0..WRITERS {
        let (one, other) = keys(n);
        let (one, other) = (read(&*store, &one).await, read(&*store, &other).await);
        assert_eq!(one.is_some(), other.is_some(), "batch {n}");
        present += u64::from(one.is_some());
    }
    assert_eq!(last, Revision::new(2 * present + 1));
}

/// What a scan shows, and what not.
pub async fn scans_keep_to_their_space_prefix_and_bounds(subject: &dyn Subject) {
    let store = subject.open();
    let ids = ["", "a", "a/1", "a/2", "a/\u{10ffff}", "b", "b/1", "\u{10ffff}"];
    let mut batch = Batch::new();
    for id in ids.iter().rev() {
        batch = batch.put(Space::Instances.key(id), *id).put(Space::Clusters.key(id), "other space");
    }
    commit(&*store, batch.append(Space::Applications, "other space")).await;
    let key = |id: &str| Some(Space::Instances.key(id));
    let all = Scan::all(Space::Instances);
    let with_prefix = |prefix: &str| Scan { prefix: prefix.into(), ..Scan::all(Space::Instances) };
    let table: [(Scan, &[&str]); 14] = [
        (all.clone(), &ids),
        (Scan { limit: 2, ..all.clone() }, &["", "a"]),
        (Scan { limit: 0, ..all.clone() }, &[]),
        (Scan { limit: 2, reverse: true, ..all.clone() }, &["\u{10ffff}", "b/1"]),
        (with_prefix("a/"), &["a/1", "a/2", "a/\u{10ffff}"]),
        (with_prefix("a"), &["a", "a/1", "a/2", "a/\u{10ffff}"]),
        (Scan { reverse: true, ..with_prefix("b") }, &["b/1", "b"]),
        (with_prefix("c"), &[]),
        (Scan { after: key("a/2"), ..with_prefix("a") }, &["a/\u{10ffff}"]),
        (Scan { after: key("a/15"), before: key("b/1"), ..all.clone() }, &["a/2", "a/\u{10ffff}", "b"]),
        (Scan { before: key("a/2"), limit: 1, reverse: true, ..with_prefix("a") }, &["a/1"]),
        (Scan { after: key("b"), before: key("a"), ..all.clone() }, &[]),
        (Scan { after: key("b"), before: key("b"), ..all.clone() }, &[]),
        // Bounds of another space narrow nothing, or everything; they never lead out of the space.
        (Scan { after: Some(Space::Meta.key("z")), before: Some(Space::Clusters.key("z")), ..all }, &ids),
    ];
    for (question, expected) in table {
        let found = scan(&*store, question.clone()).await;
        let found: Vec<_> = found.iter().map(|entry| entry.key.id().expect("a record")).collect();
        assert_eq!(found, expected, "{question:?}");
    }
}

/// No page is longer than the cap, and walking the pages shows every entry once, both ways.
pub async fn scans_are_capped_and_pages_join_up(subject: &dyn Subject) {
    let store = subject.open();
    let count = SCAN_MAX + 5;
    for start in (0..count).step_by(WRITES_MAX / 2) {
        let ids = start..count.min(start + WRITES_MAX / 2);
        commit(&*store, ids.fold(Batch::new(), |batch, n| batch.put(Space::Operations.key(&format!("{n:06}")), "")))
            .await;
    }
    let greedy = Scan { limit: usize::MAX, ..Scan::all(Space::Operations) };
    assert_eq!(scan(&*store, greedy.clone()).await.len(), SCAN_MAX);
    for reverse in [false, true] {
        for limit in [SCAN_MAX, 7] {
            let mut found: Vec<_> = scan_pages(&*store, Scan { limit, reverse, ..greedy.clone() }).await;
            if reverse {
                found.reverse();
            }
            let found: Vec<_> = found.iter().map(|entry| entry.key.id().expect("a record").to_owned()).collect();
            assert_eq!(found, (0..count).map(|n| format!("{n:06}")).collect::<Vec<_>>());
        }
    }
}

/// Trim removes log entries with revisions up to and including its bound.
pub async fn trimming_removes_the_log_up_to_a_revision_and_nothing_else(subject: &dyn Subject) {
    let store = subject.open();
    // Eight bytes long, as a revision is: a record in a log's space must not be taken for an entry of the log.
    let record = Space::Events.key("\0\0\0\0\0\0\0\u{1}");
    commit(&*store, Batch::new().put(record.clone(), "a record")).await;
    for _ in 0..5 {
        commit(&*store, Batch::new().append(Space::Events, "event").append(Space::Tombstones, "another log")).await;
    }
    let log = |entries: Vec<Entry>| entries.iter().filter_map(|entry| entry.key.revision()).collect::<Vec<_>>();
    let revisions = |numbers: &[u64]| numbers.iter().copied().map(Revision::new).collect::<Vec<_>>();
    let table: [(u64, &[u64]); 4] = [(0, &[2, 4, 6, 8, 10]), (4, &[6, 8, 10]), (5, &[6, 8, 10]), (u64::MAX, &[])];
    for (through, left) in table {
        commit(&*store, Batch::new().trim(Space::Events, Revision::new(through))).await;
        assert_eq!(log(scan(&*store, Scan::all(Space::Events)).await), revisions(left), "through {through}");
    }
    assert!(read(&*store, &record).await.is_some());
    assert_eq!(log(scan(&*store, Scan::all(Space::Tombstones)).await), revisions(&[3, 5, 7, 9, 11]));
}

/// While others write: whoever sees revision `r` durable finds everything up to `r`.
pub async fn durable_never_goes_back_and_reads_see_what_it_shows(subject: &dyn Subject) {
    let store = subject.open();
    let writers = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..25 {
                let committed = commit(&*store, Batch::new().append(Space::Events, "event")).await;
                assert!(*store.durable().borrow() >= committed.last, "acknowledged means durable");
            }
        })
    });
    let writers = join_all(writers);
    let mut durable = store.durable();
    let watcher = async {
        let mut seen = Revision::ZERO;
        while seen < Revision::new(8 * 25) {
            let now = *durable.wait_for(|now| *now != seen).await.expect("the store is open");
            assert!(now > seen, "{now} after {seen}");
            let newest = Scan { reverse: true, limit: SCAN_MAX, ..Scan::all(Space::Events) };
            let visible = scan(&*store, newest).await;
            // Every write here appends, so the log up to `now` has an entry for each revision.
            let visible = visible.iter().filter(|entry| entry.revision <= now).count();
            assert_eq!(visible as u64, now.as_u64());
            seen = now;
        }
    };
    let (writers, ()) = futures::join!(writers, watcher);
    for writer in writers {
        writer.expect("no writer panics");
    }
}

/// Closing and opening changes nothing, and the revisions go on where they were.
pub async fn reopening_keeps_entries_revisions_and_life(subject: &dyn Subject) {
    let store = subject.open();
    let batch =
        Batch::new().put(Space::Meta.key("a"), "a").append(Space::Events, "event").put(Space::Meta.key("b"), "b");
    commit(&*store, batch).await;
    commit(&*store, Batch::new().delete(Space::Meta.key("b"))).await;
    let life = store.life();
    let before = everything(&*store).await;
    drop(store);

    for round in 0..3 {
        let store = subject.open();
        assert_eq!(store.life(), life);
        assert_eq!(*store.durable().borrow(), Revision::new(4 + round));
        let found = everything(&*store).await;
        assert_eq!(found[..before.len()], before);
        assert_eq!(commit(&*store, Batch::new().append(Space::Tombstones, "")).await, span(5 + round, 5 + round));
    }
}

async fn everything(store: &dyn Store) -> Vec<Entry> {
    let mut entries = Vec::new();
    for space in Space::ALL {
        entries.extend(scan_pages(store, Scan::all(space)).await);
    }
    entries
}

async fn commit(store: &dyn Store, batch: Batch) -> Committed {
    store.commit(batch).await.expect("the batch is committed")
}

async fn read(store: &dyn Store, key: &Key) -> Option<Entry> {
    store.get(key.clone()).await.expect("the key can be read")
}

async fn scan(store: &dyn Store, question: Scan) -> Vec<Entry> {
    store.scan(question).await.expect("the space can be read")
}

/// Everything a scan finds, page by page.
pub async fn scan_pages(store: &dyn Store, mut question: Scan) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let page = scan(store, question.clone()).await;
        let Some(last) = page.last().map(|entry| entry.key.clone()) else { return entries };
        assert!(page.len() <= question.page_max());
        entries.extend(page);
        if question.reverse {
            question.before = Some(last);
        } else {
            question.after = Some(last);
        }
    }
}

fn entry(key: &Key, value: &str, revision: Revision) -> Entry {
    Entry { key: key.clone(), value: Bytes::copy_from_slice(value.as_bytes()), revision }
}

fn span(first: u64, last: u64) -> Committed {
    Committed { first: Revision::new(first), last: Revision::new(last) }
}

fn number(value: &[u8]) -> u64 {
    text(value).parse().expect("the counter is a number")
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("the checks write text")
}
