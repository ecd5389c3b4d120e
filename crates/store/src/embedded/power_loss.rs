//! Power loss, simulated: the engine on a disk that forgets.
//!
//! `kill -9` tests nothing of this: the page cache survives it. Here only what was synced is certain; of everything
//! written since, any sector may have reached the disk or not, in any order. Then the power also fails while the engine
//! repairs what the last failure left.

use std::collections::BTreeMap;
use std::path::Path;

use futures::future::join_all;
use redb::Database;
use uuid::Uuid;

use super::committer::Committer;
use super::open::{self, OpenError, Opened};
use super::simulated_disk::{Dice, Disk};
use super::{EmbeddedStore, Options, format};
use crate::conformance::scan_pages;
use crate::{Batch, Revision, Scan, Space, Store};

const SEEDS: u64 = 24;
/// Power losses in a row on the same disk.
const LOSSES: usize = 4;
/// The power fails after at most so many reads, writes and syncs: sometimes while opening, sometimes never.
const OPERATIONS_MAX: u64 = 600;
const WRITERS: u64 = 6;

/// Opens the store on `disk`; fails only when the power does.
fn start(disk: &Disk, directory: &Path) -> Option<EmbeddedStore> {
    let opened = Database::builder().set_check_integrity_on_open(true).create_with_backend(disk.clone());
    let database = if disk.has_power() { opened.unwrap() } else { opened.ok()? };
    let facts = format::load(&database, Uuid::nil());
    let facts = if disk.has_power() { facts.unwrap() } else { facts.ok()? };
    let lock = open::lock(directory).unwrap();
    // Without power nothing is opened again.
    let reopen = Box::new(|| Err(OpenError::NotAStore { path: "gone".into() }));
    let opened = Opened { database, lock, life: facts.life, revision: facts.revision, reopen };
    Some(EmbeddedStore::start(directory, &Options::new(Uuid::nil()), opened, Committer::run).unwrap())
}

/// Commits until the power fails or there was enough: each batch a record and the same value in the log.
async fn work(store: &EmbeddedStore, dice: &mut Dice, acknowledged: &mut BTreeMap<Revision, String>) {
    for _ in 0..25 {
        let values: Vec<_> = (0..1 + dice.roll(WRITERS))
            .map(|writer| format!("{writer} {}", "x".repeat(dice.roll(3000) as usize)))
            .collect();
        let commits = values.iter().map(|value| {
            let record = Space::Operations.key(&value[..1]);
            store.commit(Batch::new().put(record, value.clone()).append(Space::Events, value.clone()))
        });
        for (outcome, value) in join_all(commits).await.into_iter().zip(&values) {
            let Ok(committed) = outcome else { return };
            acknowledged.insert(committed.last, value.clone());
        }
    }
}

/// Everything acknowledged is there, and what is there is whole batches, numbered without a gap.
async fn check(store: &EmbeddedStore, acknowledged: &BTreeMap<Revision, String>) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let log = scan_pages(store, Scan::all(Space::Events)).await;
    let log: BTreeMap<_, _> = log.iter().map(|entry| (entry.revision, text(&entry.value))).collect();
    let batches = store.durable().borrow().as_u64() / 2;
    assert!(log.keys().copied().eq((1..=batches).map(|n| Revision::new(2 * n))), "the log has no gap");
    for (revision, value) in acknowledged {
        assert_eq!(log.get(revision), Some(value), "acknowledged at {revision}");
    }
    for record in scan_pages(store, Scan::all(Space::Operations)).await {
        let newest = log.iter().rev().find(|(_, value)| value.starts_with(record.key.id().unwrap())).unwrap();
        assert_eq!((record.revision.plus(1), text(&record.value)), (*newest.0, newest.1.clone()));
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_losses_in_a_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut survived = 0;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let new = Disk::new(Vec::new(), u64::MAX);
        let database = Database::builder().create_with_backend(new.clone()).unwrap();
        format::initialise(&database, Uuid::nil()).unwrap();
        database.close().unwrap();
        let mut content = new.remains(&mut dice);
        let mut acknowledged = BTreeMap::new();
        for _ in 0..LOSSES {
            let disk = Disk::new(content, 1 + dice.roll(OPERATIONS_MAX));
            if let Some(store) = start(&disk, directory.path()) {
                work(&store, &mut dice, &mut acknowledged).await;
            }
            content = disk.remains(&mut dice);
            let store = start(&Disk::new(content.clone(), u64::MAX), directory.path()).unwrap();
            check(&store, &acknowledged).await;
        }
        survived += acknowledged.len();
    }
    assert!(survived > 0, "the power always failed before the first commit");
}
