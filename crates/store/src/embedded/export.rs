//! Everything in the store, of one moment: for backups and checks.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::EmbeddedStore;
use super::format::Moment;
use super::open::FormatError;
use crate::{EngineError, Entry, Key, ReadError, Revision};

/// An entry as it lies in the file. Its key may be one that no space makes, which a check wants to tell.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes of the key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision of the write that put it.
    pub revision: Revision,
}

impl Stored {
    /// The entry, if its key is one.
    pub fn entry(self) -> Option<Entry> {
        Some(Entry { key: Key::from_bytes(self.key)?, value: self.value, revision: self.revision })
    }
}

impl EmbeddedStore {
    /// Shows everything of one moment: the revision the store has come to, then each entry in the order of keys, until
    /// `each` fails. Returns what `begin` made of it, or that failure. What is committed meanwhile is not seen.
    ///
    /// Blocks; keeps the engine from being opened again after a failure, and old pages from being used anew, for as long
    /// as it takes.
    pub fn export<T, E>(
        &self,
        begin: impl FnOnce(Revision) -> Result<T, E>,
        mut each: impl FnMut(&mut T, Stored) -> Result<(), E>,
    ) -> Result<Result<T, E>, ReadError> {
        let engine = self.engine.as_ref().ok_or(ReadError::Closed)?;
        let shown = engine.with(|database| {
            let moment = Moment::now(database)?;
            let mut state = match begin(moment.revision()?) {
                Ok(state) => state,
                Err(failure) => return Ok(Err(failure)),
            };
            let mut failure = None;
            moment.entries(|stored| match each(&mut state, stored) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            })?;
            Ok(failure.map_or(Ok(state), Err))
        });
        shown.ok_or(ReadError::Unavailable)?.map_err(|error| match error {
            FormatError::Damaged { fact } => ReadError::Damaged { what: fact },
            FormatError::Engine(error) => ReadError::Engine { source: EngineError::new(error) },
            // Found out when it was opened.
            FormatError::NotAStore | FormatError::Newer { .. } => ReadError::Damaged { what: "format" },
        })
    }
}
