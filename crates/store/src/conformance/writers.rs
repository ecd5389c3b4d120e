//! Many callers at once: who wins, in which order, and what everybody sees of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;

use super::{Subject, commit, entry, read, scan, scan_pages, span};
use crate::{Batch, CommitError, Expect, Key, Revision, SCAN_MAX, Scan, Space, Store, VALUE_BYTES_MAX};

/// Concurrent writers in the checks about order; as many as share a group in the published measurements.
const WRITERS: u64 = 64;

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

/// Whatever bounds a backend puts on what waits, a commit beyond them waits too, and is not refused.
pub async fn more_commits_than_can_wait_all_happen(subject: &dyn Subject) {
    const SMALL: u64 = 2500;
    const LARGE: u64 = 20;
    let store = subject.open();
    let large = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    let commits = (0..SMALL + LARGE).map(|n| {
        let value = if n % (SMALL / LARGE) == 0 { large.clone() } else { Bytes::new() };
        commit(&*store, Batch::new().append(Space::Events, value))
    });
    let mut revisions: Vec<_> = join_all(commits).await.iter().map(|committed| committed.last.as_u64()).collect();
    revisions.sort_unstable();
    assert!(revisions.into_iter().eq(1..=SMALL + LARGE));
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

fn number(value: &[u8]) -> u64 {
    text(value).parse().expect("the counter is a number")
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("the checks write text")
}
