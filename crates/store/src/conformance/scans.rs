//! Reading in order, and trimming what is read in order.

use super::{Subject, commit, read, scan, scan_pages};
use crate::{Batch, Entry, Revision, SCAN_MAX, Scan, Space, WRITES_MAX};

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
