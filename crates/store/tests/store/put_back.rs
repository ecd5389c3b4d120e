//! A store made from entries of another: as told, whole or not at all, and never over another by mistake.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use quiesce_store::embedded::{DATABASE_FILE, EmbeddedStore, OpenError, Options, PutBackError, put_back};
use quiesce_store::{Batch, Entry, Revision, Scan, Space, Store};
use uuid::Uuid;

fn options(life: u128) -> Options {
    Options::new(Uuid::from_u128(life))
}

async fn store_with(directory: &Path, life: u128, value: &'static str) -> EmbeddedStore {
    let store = EmbeddedStore::open(directory, &options(life)).unwrap();
    store.commit(Batch::new().put(Space::Meta.key("a"), value).append(Space::Events, "event")).await.unwrap();
    store
}

fn exported(store: &EmbeddedStore) -> (Revision, Vec<Entry>) {
    let begin = |revision| Ok::<_, Infallible>((revision, Vec::new()));
    let shown = store.export(begin, |(_, entries), stored| {
        entries.push(stored.entry().unwrap());
        Ok(())
    });
    let Ok(found) = shown.unwrap();
    found
}

#[tokio::test]
async fn what_was_exported_is_put_back_as_another_life() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store_with(from.path(), 1, "one").await;
    let (revision, entries) = exported(&store);
    assert_eq!(revision, Revision::new(2));
    let later = Revision::new(1_000);
    let kept = put_back(&to.path().join("made"), &options(2), later, entries.clone(), false).unwrap();
    assert_eq!(kept, None);
    let restored = EmbeddedStore::open(&to.path().join("made"), &options(3)).unwrap();
    assert_eq!(restored.life(), Uuid::from_u128(2));
    assert_eq!(*restored.durable().borrow(), later);
    assert_eq!(exported(&restored), (later, entries));
    let next = restored.commit(Batch::new().append(Space::Events, "next")).await.unwrap();
    assert_eq!(next.last, later.plus(1), "it goes on behind what it was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_shows_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(directory.path(), 1, "one").await;
    let begin = |revision| Ok::<_, Infallible>((revision, 0));
    let shown = store.export(begin, |(_, seen), _| {
        // Committed in the middle: not to be seen.
        let batch = Batch::new().append(Space::Tombstones, "later");
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(store.commit(batch))).unwrap();
        *seen += 1;
        Ok(())
    });
    assert_eq!(shown.unwrap(), Ok((Revision::new(2), 2)));
}

#[tokio::test]
async fn what_is_there_stays_unless_it_is_to_be_replaced_and_then_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with(directory.path(), 1, "old").await;
    let (revision, entries) = exported(&store);
    let again = || put_back(directory.path(), &options(2), revision, entries.clone(), true);
    assert!(matches!(again(), Err(PutBackError::Open(OpenError::InUse { .. }))));
    store.close().unwrap();
    let old = fs::read(directory.path().join(DATABASE_FILE)).unwrap();
    match put_back(directory.path(), &options(2), revision, Vec::new(), false) {
        Err(PutBackError::NotEmpty { found, .. }) => assert_eq!(found, DATABASE_FILE),
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read(directory.path().join(DATABASE_FILE)).unwrap(), old, "nothing has changed");
    let kept = again().unwrap().expect("the old store is kept");
    assert_eq!(fs::read(kept).unwrap(), old);
    let restored = EmbeddedStore::open(directory.path(), &options(3)).unwrap();
    assert_eq!(restored.life(), Uuid::from_u128(2));
    assert_eq!(restored.scan(Scan::all(Space::Meta)).await.unwrap().len(), 1);
}

#[test]
fn a_directory_with_anything_in_it_is_not_taken_for_free() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("notes.txt"), "precious").unwrap();
    match put_back(directory.path(), &options(1), Revision::ZERO, Vec::new(), false) {
        Err(PutBackError::NotEmpty { found, .. }) => assert_eq!(found, "notes.txt"),
        other => panic!("{other:?}"),
    }
    put_back(directory.path(), &options(1), Revision::ZERO, Vec::new(), true).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("notes.txt")).unwrap(), "precious");
}
