//! One caller: what a batch does, what it may expect, what it costs, and that it is there after reopening.

use bytes::Bytes;

use super::{Subject, commit, entry, read, scan, scan_pages, span};
use crate::{
    BATCH_BYTES_MAX, Batch, CommitError, Entry, Expect, KEY_BYTES_MAX, Limit, Revision, Scan, Space, Store,
    VALUE_BYTES_MAX, WRITES_MAX,
};

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
