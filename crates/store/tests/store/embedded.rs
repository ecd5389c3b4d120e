//! What only the embedded engine can do wrong: files, locks, formats, space, and its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use quiesce_store::embedded::{
    CommitOutcome, DATABASE_FILE, EmbeddedStore, FORMAT_VERSION, Observer, OpenError, Options,
};
use quiesce_store::{Batch, CommitError, Condition, Expect, Revision, Scan, Space, Store};
use redb::{Database, TableDefinition};
use uuid::Uuid;

const STORE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("store");
const RECORDS: TableDefinition<'static, &[u8], (u64, &[u8])> = TableDefinition::new("records");

fn open(directory: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(directory, &Options::new(Uuid::new_v4()))
}

#[tokio::test]
async fn what_it_creates_belongs_to_the_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("not/there/yet");
    let store = open(&directory).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    store.close().unwrap();
}

#[tokio::test]
async fn a_directory_that_is_open_is_refused_and_free_again_after_close() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    match open(directory.path()) {
        Err(OpenError::InUse { directory: named, pid }) => {
            assert_eq!(named, directory.path());
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    store.close().unwrap();
    open(directory.path()).unwrap().close().unwrap();
}

#[test]
fn the_engine_locks_its_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let other = Database::open(directory.path().join(DATABASE_FILE));
    assert!(matches!(other, Err(redb::DatabaseError::DatabaseAlreadyOpen)));
    store.close().unwrap();
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    for content in [&b""[..], b"short", &[0; 10_000], &b"something else entirely ".repeat(1000)] {
        fs::write(&path, content).unwrap();
        match open(directory.path()) {
            Err(OpenError::NotAStore { path: named }) => assert_eq!(named, path),
            other => panic!("{} bytes: {other:?}", content.len()),
        }
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn a_database_of_someone_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    Database::create(&path).unwrap().close().unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::NotAStore { path: named }) if named == path));
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    open(directory.path()).unwrap().close().unwrap();
    let sound = fs::read(&path).unwrap();
    for keep in [400, 4096, sound.len() / 2] {
        fs::write(&path, &sound[..keep]).unwrap();
        let message = open(directory.path()).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[tokio::test]
async fn a_single_changed_byte_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let value = b"what must not change unnoticed";
    store.commit(Batch::new().put(Space::Meta.key("a"), &value[..])).await.unwrap();
    store.close().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let mut content = fs::read(&path).unwrap();
    let copies: Vec<_> = (0..content.len()).filter(|at| content[*at..].starts_with(value)).collect();
    for at in copies {
        content[at] ^= 1;
    }
    fs::write(&path, content).unwrap();
    assert!(matches!(open(directory.path()), Err(OpenError::Damaged { path: named, .. }) if named == path));
}

#[test]
fn a_newer_format_is_refused_with_both_versions_and_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().close().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    edit(&path, |store| drop(store.insert("format", &(FORMAT_VERSION + 1).to_be_bytes()[..]).unwrap()));
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found, supported, .. }
        if found == FORMAT_VERSION + 1 && supported == FORMAT_VERSION));
    let message = error.to_string();
    for part in [path.to_str().unwrap(), "format 2", "up to 1", "start the version that wrote it"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_store_of_format_0_is_upgraded_and_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE_FILE);
    let key = Space::Applications.key("db");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut store = transaction.open_table(STORE).unwrap();
        store.insert("format", &0_u32.to_be_bytes()[..]).unwrap();
        store.insert("revision", &41_u64.to_be_bytes()[..]).unwrap();
        transaction.open_table(RECORDS).unwrap().insert(key.as_bytes(), (40, &b"old"[..])).unwrap();
    }
    transaction.commit().unwrap();
    database.close().unwrap();

    let life = Uuid::from_u128(7);
    let store = EmbeddedStore::open(directory.path(), &Options::new(life)).unwrap();
    assert_eq!(store.life(), life);
    assert_eq!(*store.durable().borrow(), Revision::new(41));
    let entry = store.get(key).await.unwrap().unwrap();
    assert_eq!((&entry.value[..], entry.revision), (&b"old"[..], Revision::new(40)));
    store.close().unwrap();

    // Upgraded once: the life stays.
    assert_eq!(open(directory.path()).unwrap().life(), life);
}

#[test]
fn a_store_that_lost_a_fact_about_itself_is_damaged() {
    for fact in ["format", "life", "revision"] {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path()).unwrap().close().unwrap();
        edit(&directory.path().join(DATABASE_FILE), |store| drop(store.insert(fact, &b"odd"[..]).unwrap()));
        assert!(matches!(open(directory.path()), Err(OpenError::Damaged { .. })), "{fact}");
    }
}

#[test]
fn whoever_only_looks_makes_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { create: false, ..Options::new(Uuid::new_v4()) };
    for there in [directory.path().to_owned(), directory.path().join("not/there")] {
        let error = EmbeddedStore::open(&there, &options).unwrap_err();
        assert!(matches!(&error, OpenError::Missing { directory } if *directory == there), "{error:?}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was left behind");
}

#[test]
fn a_half_made_store_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(format!("{DATABASE_FILE}.new")), [0; 4096]).unwrap();
    open(directory.path()).unwrap().close().unwrap();
}

/// Writes down what it hears.
#[derive(Debug, Default)]
struct Listener {
    commits: Mutex<Vec<CommitOutcome>>,
    syncs: Mutex<Vec<usize>>,
}

impl Observer for Listener {
    fn committed(&self, outcome: CommitOutcome, _took: Duration) {
        self.commits.lock().unwrap().push(outcome);
    }

    fn synced(&self, batches: usize, took: Duration) {
        assert!(took > Duration::ZERO);
        self.syncs.lock().unwrap().push(batches);
    }
}

#[tokio::test]
async fn an_observer_hears_of_every_commit_and_what_shared_a_sync() {
    const COMMITS: usize = 64;
    let directory = tempfile::tempdir().unwrap();
    let listener = Arc::new(Listener::default());
    let options = Options { observer: Arc::clone(&listener) as Arc<dyn Observer>, ..Options::new(Uuid::new_v4()) };
    let store = EmbeddedStore::open(directory.path(), &options).unwrap();
    let key = |number: usize| Space::Meta.key(&format!("k{number}"));
    let commits = (0..COMMITS).map(|number| store.commit(Batch::new().put(key(number), "v")));
    futures::future::try_join_all(commits).await.unwrap();
    let conflict = store.commit(Batch::new().expect(key(0), Expect::Absent).put(key(0), "w")).await;
    assert!(matches!(conflict, Err(CommitError::Conflict { .. })), "{conflict:?}");

    let commits = listener.commits.lock().unwrap().clone();
    let durable = commits.iter().filter(|outcome| **outcome == CommitOutcome::Durable).count();
    assert_eq!((durable, commits.last()), (COMMITS, Some(&CommitOutcome::Conflict)));
    let syncs = listener.syncs.lock().unwrap().clone();
    assert_eq!(syncs.iter().sum::<usize>(), COMMITS, "a conflict alone needs no sync");
    assert!(syncs.len() < COMMITS, "those that waited shared one: {syncs:?}");
}

#[tokio::test]
async fn without_room_commits_are_refused_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let key = Space::Meta.key("a");
    store.commit(Batch::new().put(key.clone(), "a")).await.unwrap();
    store.close().unwrap();

    let options = Options { reserve_bytes: u64::MAX, ..Options::new(Uuid::new_v4()) };
    let store = EmbeddedStore::open(directory.path(), &options).unwrap();
    let refusal = store.commit(Batch::new().delete(key.clone())).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Full) && refusal.is_retryable());
    assert_eq!(store.condition().await, Condition::Full);
    assert!(store.get(key).await.unwrap().is_some());
    assert_eq!(*store.durable().borrow(), Revision::new(1));
}

#[tokio::test]
async fn closing_commits_what_was_accepted_and_ends_the_watch() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let mut durable = store.durable();
    // Polled once each: accepted, and nobody waits for the outcome.
    for n in 0..100 {
        let commit = store.commit(Batch::new().put(Space::Meta.key(&format!("{n:03}")), ""));
        // Unconstrained: tokio makes a task that does so much without a pause wait for its turn.
        let _unheard = tokio::task::unconstrained(commit).now_or_never();
    }
    store.close().unwrap();
    assert_eq!(*durable.borrow_and_update(), Revision::new(100));
    assert!(durable.changed().await.is_err());
    let store = open(directory.path()).unwrap();
    assert_eq!(store.scan(Scan::all(Space::Meta)).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_reader_that_went_away_does_not_keep_the_directory_locked() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let store = Arc::new(open(directory.path()).unwrap());
        let _unheard = store.scan(Scan::all(Space::Meta)).now_or_never();
    }
}

/// Changes what a store says about itself, as a newer program or a fault would.
fn edit(path: &Path, change: impl FnOnce(&mut redb::Table<'_, &'static str, &'static [u8]>)) {
    let database = Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(STORE).unwrap());
    transaction.commit().unwrap();
    database.close().unwrap();
}
