//! Power loss, simulated: the engine on a disk that forgets.
//!
//! `kill -9` tests nothing of this: the page cache survives it. Here only what was synced is certain; of everything
//! written since, any sector may have reached the disk or not, in any order. Then the power also fails while the engine
//! repairs what the last failure left.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use redb::{Database, StorageBackend};
use uuid::Uuid;

use super::committer::Committer;
use super::open::{self, Opened};
use super::{EmbeddedStore, Options, format};
use crate::conformance::scan_pages;
use crate::{Batch, Revision, Scan, Space, Store};

const SEEDS: u64 = 24;
/// Power losses in a row on the same disk.
const LOSSES: usize = 4;
/// The power fails after at most so many reads, writes and syncs: sometimes while opening, sometimes never.
const OPERATIONS_MAX: u64 = 600;
/// What a disk writes whole.
const SECTOR: usize = 512;
const WRITERS: u64 = 6;

#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// What is certain to be there after a power loss.
    durable: Vec<u8>,
    /// What the running system sees.
    current: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Change>,
    operations_left: u64,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Disk {
    fn new(content: Vec<u8>, operations_left: u64) -> Self {
        let platter = Platter { durable: content.clone(), current: content, pending: Vec::new(), operations_left };
        Self(Arc::new(Mutex::new(platter)))
    }

    /// Does something, unless the power has failed.
    fn operate<T>(&self, operation: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        let mut platter = self.0.lock().unwrap();
        platter.operations_left = platter.operations_left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        operation(&mut platter)
    }

    /// What is there when the power comes back.
    fn remains(&self, dice: &mut Dice) -> Vec<u8> {
        let platter = self.0.lock().unwrap();
        let mut content = platter.durable.clone();
        for change in &platter.pending {
            match change {
                Change::Length(length) => {
                    if dice.roll(2) == 0 {
                        content.resize(*length, 0);
                    }
                }
                Change::Bytes(offset, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.roll(2) == 0 {
                            write(&mut content, offset + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        content
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.operate(|platter| Ok(platter.current.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.operate(|platter| {
            let start = offset as usize;
            let bytes = platter.current.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate(|platter| {
            platter.current.resize(length as usize, 0);
            platter.pending.push(Change::Length(length as usize));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|platter| {
            for change in std::mem::take(&mut platter.pending) {
                match change {
                    Change::Length(length) => platter.durable.resize(length, 0),
                    Change::Bytes(offset, bytes) => write(&mut platter.durable, offset, &bytes),
                }
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.operate(|platter| {
            write(&mut platter.current, offset as usize, bytes);
            platter.pending.push(Change::Bytes(offset as usize, bytes.to_vec()));
            Ok(())
        })
    }
}

/// A generator of its own (xorshift), so that a seed means the same for ever.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % sides
    }
}

/// Opens the store on `disk`; fails only when the power does.
fn start(disk: &Disk, directory: &Path) -> Option<EmbeddedStore> {
    let opened = Database::builder().set_check_integrity_on_open(true).create_with_backend(disk.clone());
    let power = disk.0.lock().unwrap().operations_left > 0;
    let database = if power { opened.unwrap() } else { opened.ok()? };
    let facts = format::load(&database, Uuid::nil(), false);
    let power = disk.0.lock().unwrap().operations_left > 0;
    let facts = if power { facts.unwrap() } else { facts.ok()? };
    let lock = open::lock(directory).unwrap();
    let opened = Opened { database, lock, life: facts.life, revision: facts.revision };
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
