//! What the ledger remembers: immutable, numbered entries. Pure: no sockets, no bucket, no clock.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All entries live in memory and travel as one object, so there is an end to them.
const ENTRIES_MAX: usize = 200_000;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64;

/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 256;

/// Version of the saved form; another one is refused, not guessed at.
const FORMAT: u32 = 1;

/// The permission to run, as `QUIESCE_EPOCH` hands it over: a later permission is a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One entry, never changed once it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the order of writes, from 1, without gaps.
    pub number: u64,
    /// What was written.
    pub value: String,
}

/// Why an entry was not written; `Display` is the answer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefusal {
    /// The book is closed for the save.
    #[error("stopping")]
    Stopping,
    /// There is another value under this key.
    #[error("conflict: the key has another value")]
    Conflict,
    /// The book has no room left.
    #[error("full")]
    Full,
    /// The key is not made of the allowed characters.
    #[error("a key has 1 to 64 characters of A-Z a-z 0-9 . _ / -")]
    Key,
    /// The value is not printable text of the allowed length.
    #[error("a value has 1 to 256 bytes of printable text")]
    Value,
}

/// Saved bytes that are not a book.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not the JSON it should be; a truncated object ends here.
    #[error("the saved state is not readable")]
    Json(#[from] serde_json::Error),
    /// Written by a version this one does not know.
    #[error("the saved state has format {0}, this program knows {FORMAT}")]
    Format(u32),
    /// The numbers are not 1 to n.
    #[error("the saved state has a gap or a double in its numbers")]
    Numbers,
}

/// All entries, and whether more may come.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<String, Entry>,
    closed: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved<E> {
    format: u32,
    entries: E,
}

impl Book {
    /// Writes an entry and returns its number. The same write again is the same entry: a client that never saw the
    /// answer may simply repeat it.
    pub fn write(&mut self, key: &str, value: &str) -> Result<u64, WriteRefusal> {
        if self.closed {
            return Err(WriteRefusal::Stopping);
        }
        if !is_key(key) {
            return Err(WriteRefusal::Key);
        }
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(WriteRefusal::Value);
        }
        match self.entries.get(key) {
            Some(entry) if entry.value == value => Ok(entry.number),
            Some(_) => Err(WriteRefusal::Conflict),
            None if self.entries.len() >= ENTRIES_MAX => Err(WriteRefusal::Full),
            None => {
                let number = self.count() + 1;
                self.entries.insert(key.to_owned(), Entry { number, value: value.to_owned() });
                Ok(number)
            }
        }
    }

    /// The entry under this key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Takes no more writes, for ever: what is saved after this is everything that was acknowledged.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether [`Book::close`] was called.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The entries by key.
    #[must_use]
    pub fn into_entries(self) -> BTreeMap<String, Entry> {
        self.entries
    }

    /// The saved form.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Saved { format: FORMAT, entries: &self.entries })
    }

    /// An open book from its saved form.
    pub fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        let saved: Saved<BTreeMap<String, Entry>> = serde_json::from_slice(json)?;
        if saved.format != FORMAT {
            return Err(ReadError::Format(saved.format));
        }
        let mut numbers: Vec<u64> = saved.entries.values().map(|entry| entry.number).collect();
        numbers.sort_unstable();
        if numbers.into_iter().ne(1..=saved.entries.len() as u64) {
            return Err(ReadError::Numbers);
        }
        Ok(Self { entries: saved.entries, closed: false })
    }
}

fn is_key(key: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_write_is_the_same_entry_and_another_value_is_refused() {
        let mut book = Book::default();
        assert_eq!(book.write("a", "1"), Ok(1));
        assert_eq!(book.write("b", "2"), Ok(2));
        assert_eq!(book.write("a", "1"), Ok(1));
        assert_eq!(book.write("a", "2"), Err(WriteRefusal::Conflict));
        assert_eq!(book.count(), 2);
    }

    #[test]
    fn a_closed_book_takes_nothing_not_even_a_repetition() {
        let mut book = Book::default();
        book.write("a", "1").unwrap();
        book.close();
        assert_eq!(book.write("a", "1"), Err(WriteRefusal::Stopping));
        assert_eq!(book.write("b", "1"), Err(WriteRefusal::Stopping));
        assert_eq!(book.entry("a").unwrap().value, "1");
    }

    #[test]
    fn odd_keys_and_values_are_refused() {
        let mut book = Book::default();
        for key in ["", "a b", "\u{e9}", &"k".repeat(KEY_BYTES_MAX + 1)] {
            assert_eq!(book.write(key, "1"), Err(WriteRefusal::Key), "{key:?}");
        }
        for value in ["", "a\u{7}b", &"v".repeat(VALUE_BYTES_MAX + 1)] {
            assert_eq!(book.write("a", value), Err(WriteRefusal::Value), "{value:?}");
        }
    }

    #[test]
    fn the_saved_form_comes_back_whole_or_not_at_all() {
        let mut book = Book::default();
        book.write("a", "one \"quoted\"").unwrap();
        book.write("b", "zwei").unwrap();
        let json = book.to_json().unwrap();
        let back = Book::from_json(&json).unwrap();
        assert_eq!(back.into_entries(), book.into_entries());

        assert!(matches!(Book::from_json(&json[..json.len() - 1]), Err(ReadError::Json(_))));
        assert!(matches!(Book::from_json(br#"{"format":2,"entries":{}}"#), Err(ReadError::Format(2))));
        let gap = br#"{"format":1,"entries":{"a":{"number":2,"value":"x"}}}"#;
        assert!(matches!(Book::from_json(gap), Err(ReadError::Numbers)));
    }
}
