//! A disk that fails and comes back, under a store that nobody restarts.
//!
//! What came back is what had reached the disk, as after a power loss: the store must not believe its own cache.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use redb::Database;
use tokio::time::timeout;
use uuid::Uuid;

use super::committer::Committer;
use super::open::{self, OpenError, Opened, Reopen};
use super::simulated_disk::{Dice, Disk};
use super::{EmbeddedStore, Options, format};
use crate::{Batch, CommitError, Condition, EngineError, Entry, Revision, Scan, Space, Store};

const SEEDS: u64 = 16;
/// The disk fails after at most so many operations, again and again.
const OPERATIONS_MAX: u64 = 120;
/// Failures of one disk; then it lasts.
const FAILURES: u64 = 8;
const WRITERS: u64 = 5;
const ROUNDS: u64 = 24;
/// Far more than it takes to come back; a store that does not hangs otherwise.
const READ_LIMIT: Duration = Duration::from_secs(60);

fn open_on(disk: &Disk) -> Result<(Database, format::Facts), OpenError> {
    let failed = |error: redb::Error| OpenError::Engine { path: "disk".into(), source: EngineError::new(error) };
    let opened = Database::builder().set_check_integrity_on_open(true).create_with_backend(disk.clone());
    let database = opened.map_err(|error| failed(error.into()))?;
    let facts = format::load(&database, Uuid::nil()).map_err(|error| match error {
        open::FormatError::Engine(error) => failed(error),
        other
        @ (open::FormatError::NotAStore | open::FormatError::Newer { .. } | open::FormatError::Damaged { .. }) => {
            panic!("{other:?}")
        }
    })?;
    Ok((database, facts))
}

fn new_disk() -> Disk {
    let disk = Disk::new(Vec::new(), u64::MAX);
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    format::initialise(&database, Uuid::nil()).unwrap();
    database.close().unwrap();
    disk
}

fn start(disk: &Disk, directory: &std::path::Path, reopen: Reopen) -> EmbeddedStore {
    let (database, facts) = open_on(disk).unwrap();
    let lock = open::lock(directory).unwrap();
    let opened = Opened { database, lock, life: facts.life, revision: facts.revision, reopen };
    EmbeddedStore::start(directory, &Options::new(Uuid::nil()), opened, Committer::run).unwrap()
}

/// Commits one value to the log until the store takes it. A commit whose outcome is open finds out by its own record.
async fn insist(store: &EmbeddedStore, value: &str) {
    let batch = || {
        let record = Space::Operations.key(value);
        Batch::new()
            .expect(record.clone(), crate::Expect::Absent)
            .put(record, "")
            .append(Space::Events, value.to_owned())
    };
    let mut open = false;
    loop {
        match store.commit(batch()).await {
            Ok(_) => return,
            Err(CommitError::Conflict { .. }) if open => return,
            Err(error) if error.is_retryable() => {}
            Err(error) if error.leaves_open() => open = true,
            Err(error) => panic!("{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

/// The whole log, however often the disk fails meanwhile: it may do so behind the last commit as well.
/// A commit that is refused, since the record `known` is there, lets the store notice and come back.
async fn read_back(store: &EmbeddedStore, known: &str) -> Vec<Entry> {
    'again: loop {
        let (mut entries, mut question) = (Vec::new(), Scan::all(Space::Events));
        loop {
            let Ok(page) = store.scan(question.clone()).await else {
                let record = Space::Operations.key(known);
                let batch = Batch::new().expect(record.clone(), crate::Expect::Absent).put(record, "");
                store.commit(batch).await.expect_err("it is there");
                tokio::task::yield_now().await;
                continue 'again;
            };
            let Some(last) = page.last().map(|entry| entry.key.clone()) else { return entries };
            entries.extend(page);
            question.after = Some(last);
        }
    }
}

#[tokio::test]
async fn commits_that_are_insisted_on_are_there_once_whatever_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut failed = 0;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let disk = new_disk();
        let dice = Arc::new(Mutex::new(Dice::new(seed)));
        let failures = Arc::new(AtomicU64::new(0));
        let reopen: Reopen = {
            let (disk, dice, failures) = (disk.clone(), Arc::clone(&dice), Arc::clone(&failures));
            Box::new(move || {
                let mut dice = dice.lock().unwrap();
                let last = failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES;
                let operations = if last { u64::MAX } else { 1 + dice.roll(OPERATIONS_MAX) };
                disk.revive(operations, &mut dice);
                open_on(&disk)
            })
        };
        let store = start(&disk, directory.path(), reopen);
        disk.revive(1 + dice.lock().unwrap().roll(OPERATIONS_MAX), &mut Dice::new(seed));
        let mut wanted = BTreeSet::new();
        for round in 0..ROUNDS {
            let values: Vec<_> = (0..WRITERS).map(|writer| format!("{round} {writer}")).collect();
            join_all(values.iter().map(|value| insist(&store, value))).await;
            wanted.extend(values);
        }
        let log = timeout(READ_LIMIT, read_back(&store, "0 0")).await.expect("the store comes back");
        let log: Vec<_> = log.iter().map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()).collect();
        assert_eq!(log.len(), wanted.len(), "each once: {log:?}");
        assert_eq!(log.iter().cloned().collect::<BTreeSet<_>>(), wanted);
        assert_eq!(*store.durable().borrow(), Revision::new(2 * wanted.len() as u64));
        assert_eq!(store.condition().await, Condition::Good);
        failed += failures.load(Ordering::Relaxed);
        store.close().unwrap();
    }
    assert!(failed >= SEEDS, "the disks hardly ever failed");
}

#[tokio::test]
async fn a_disk_that_comes_back_without_what_was_acknowledged_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let disk = new_disk();
    let reopen: Reopen = Box::new(|| open_on(&new_disk()));
    let store = start(&disk, directory.path(), reopen);
    let mut durable = store.durable();
    store.commit(Batch::new().append(Space::Events, "acknowledged")).await.unwrap();
    disk.fail();
    store.commit(Batch::new().append(Space::Events, "lost")).await.unwrap_err();
    assert!(durable.wait_for(|_| false).await.is_err(), "the watch ends");
    assert!(matches!(store.commit(Batch::new()).await, Err(CommitError::Closed)));
    assert_eq!(store.condition().await, Condition::Closed);
    store.close().unwrap_err();
}

#[tokio::test]
async fn while_the_disk_is_away_everybody_is_told_and_closing_does_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let disk = new_disk();
    let away = disk.clone();
    let store = start(&disk, directory.path(), Box::new(move || open_on(&away)));
    disk.fail();
    let first = store.commit(Batch::new().append(Space::Events, "first")).await.unwrap_err();
    assert!(first.leaves_open(), "{first:?}");
    let second = store.commit(Batch::new().append(Space::Events, "second")).await.unwrap_err();
    assert!(second.is_retryable(), "{second:?}");
    let read = store.get(Space::Meta.key("a")).await.unwrap_err();
    assert!(read.is_retryable(), "{read:?}");
    assert_eq!(store.condition().await, Condition::Failed);
    store.close().unwrap_err();
}
