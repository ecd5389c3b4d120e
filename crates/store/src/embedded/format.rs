//! What is inside the file: two tables, a format version, and the way from older versions.
//!
//! Owns the layout. It must not open files; see `open`.

use std::ops::ControlFlow;

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, TableError, WriteTransaction};
use uuid::Uuid;

use super::export::Stored;
use super::open::FormatError;
use crate::{Entry, Revision};

/// The layout this program writes. An older one is upgraded when the store is opened, a newer one is refused.
///
/// * 0: no life; revisions and records as today.
/// * 1: the store carries its life.
pub const FORMAT_VERSION: u32 = 1;

/// Key bytes to (revision of the put, value).
pub(super) const RECORDS: TableDefinition<'static, &[u8], (u64, &[u8])> = TableDefinition::new("records");

/// Facts about the store itself: see the names below.
const STORE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("store");
const FORMAT: &str = "format";
const LIFE: &str = "life";
const REVISION: &str = "revision";

/// What the store says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) life: Uuid,
    pub(super) revision: Revision,
}

/// Turns layout `n` into `n + 1`. Given the life to use for a store that has none.
type Upgrade = fn(&WriteTransaction, Uuid) -> Result<(), redb::Error>;

/// `UPGRADES[n]` starts from layout `n`.
const UPGRADES: [Upgrade; FORMAT_VERSION as usize] = [add_life];

fn add_life(transaction: &WriteTransaction, life: Uuid) -> Result<(), redb::Error> {
    set(transaction, LIFE, life.as_bytes())
}

/// Makes an empty store of the current format in a new file.
pub(super) fn initialise(database: &Database, life: Uuid) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    set(&transaction, FORMAT, &FORMAT_VERSION.to_be_bytes())?;
    set(&transaction, LIFE, life.as_bytes())?;
    set_revision(&transaction, Revision::ZERO)?;
    transaction.commit()?;
    Ok(())
}

/// Checks the format, upgrades it, and reads the facts.
pub(super) fn load(database: &Database, new_life: Uuid) -> Result<Facts, FormatError> {
    let found = version(database)?;
    if found > FORMAT_VERSION {
        return Err(FormatError::Newer { found });
    }
    if found < FORMAT_VERSION {
        let transaction = database.begin_write()?;
        for upgrade in UPGRADES.iter().skip(found as usize) {
            upgrade(&transaction, new_life)?;
        }
        set(&transaction, FORMAT, &FORMAT_VERSION.to_be_bytes())?;
        transaction.commit()?;
    }
    let transaction = database.begin_read()?;
    let life = fact(&transaction, LIFE, Uuid::from_bytes)?;
    let revision = fact(&transaction, REVISION, Revision::from_be_bytes)?;
    Ok(Facts { life, revision })
}

/// Writes something that changes nothing: proof that the store takes changes.
pub(super) fn touch(database: &Database, revision: Revision) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    set_revision(&transaction, revision)?;
    transaction.commit()?;
    Ok(())
}

/// Notes the last revision; part of every transaction that takes one.
pub(super) fn set_revision(transaction: &WriteTransaction, revision: Revision) -> Result<(), redb::Error> {
    set(transaction, REVISION, &revision.to_be_bytes())
}

/// Makes a store of the current format in a new file, with these entries in it.
pub(super) fn fill(database: &Database, facts: Facts, entries: impl Iterator<Item = Entry>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for entry in entries {
            records.insert(entry.key.as_bytes(), (entry.revision.as_u64(), &entry.value[..]))?;
        }
    }
    set(&transaction, FORMAT, &FORMAT_VERSION.to_be_bytes())?;
    set(&transaction, LIFE, facts.life.as_bytes())?;
    set_revision(&transaction, facts.revision)?;
    transaction.commit()?;
    Ok(())
}

/// One moment of the store: every entry is of this moment, whatever is committed meanwhile.
pub(super) struct Moment(ReadTransaction);

impl Moment {
    pub(super) fn now(database: &Database) -> Result<Self, FormatError> {
        Ok(Self(database.begin_read()?))
    }

    /// The last revision in it.
    pub(super) fn revision(&self) -> Result<Revision, FormatError> {
        fact(&self.0, REVISION, Revision::from_be_bytes)
    }

    /// Shows every entry in the order of keys, until `each` says stop.
    pub(super) fn entries(&self, mut each: impl FnMut(Stored) -> ControlFlow<()>) -> Result<(), FormatError> {
        for entry in self.0.open_table(RECORDS)?.range::<&[u8]>(..)? {
            let (key, stored) = entry?;
            let (revision, value) = stored.value();
            let key = Bytes::copy_from_slice(key.value());
            let value = Bytes::copy_from_slice(value);
            if each(Stored { key, value, revision: Revision::new(revision) }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn version(database: &Database) -> Result<u32, FormatError> {
    let transaction = database.begin_read()?;
    match transaction.open_table(STORE) {
        Ok(_) => fact(&transaction, FORMAT, u32::from_be_bytes),
        Err(TableError::TableDoesNotExist(_)) => Err(FormatError::NotAStore),
        Err(error) => Err(error.into()),
    }
}

fn fact<T, const N: usize>(
    transaction: &ReadTransaction,
    name: &'static str,
    parse: fn([u8; N]) -> T,
) -> Result<T, FormatError> {
    let table = transaction.open_table(STORE)?;
    let stored = table.get(name)?.ok_or(FormatError::Damaged { fact: name })?;
    let bytes = stored.value().try_into().map_err(|_| FormatError::Damaged { fact: name })?;
    Ok(parse(bytes))
}

fn set(transaction: &WriteTransaction, name: &str, value: &[u8]) -> Result<(), redb::Error> {
    transaction.open_table(STORE)?.insert(name, value)?;
    Ok(())
}
