//! A data directory made from entries of a backup: whole or not at all, and never over another store by mistake.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use redb::Database;

use super::Options;
use super::format::{self, Facts};
use super::open::{
    DATABASE_FILE, DRAFT_FILE, LOCK_FILE, OpenError, create_directory, io_error, lock, new_file, open_database,
    sync_directory,
};
use crate::{EngineError, Entry, Revision};

/// Why a store was not put back. Nothing has changed then, but for a directory that may have been made.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
    /// There is something in the directory already.
    #[error("the data directory {} is not empty: it holds {found}", .directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// It is in use, or the operating system or the engine refused.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Makes a store of `entries` in `directory`, which calls itself [`Options::new_life`] and goes on behind `revision`.
///
/// With `replace` a store that is there already makes way: it is kept beside the new one, under the name that is
/// returned. Blocks.
pub fn put_back(
    directory: &Path,
    options: &Options,
    revision: Revision,
    entries: impl IntoIterator<Item = Entry>,
    replace: bool,
) -> Result<Option<PathBuf>, PutBackError> {
    create_directory(directory)?;
    let _lock = lock(directory)?;
    let found = others(directory).map_err(io_error("read", directory))?;
    if let Some(found) = found.filter(|_| !replace) {
        return Err(PutBackError::NotEmpty { directory: directory.to_owned(), found });
    }
    let draft = directory.join(DRAFT_FILE);
    let made = make(directory, &draft, options, revision, entries);
    if made.is_err() {
        // The rest of a draft is in nobody's way: the next one throws it away. The error that counts is the first.
        let _left = fs::remove_file(&draft);
    }
    made?;
    let path = directory.join(DATABASE_FILE);
    let aside = directory.join(format!("{DATABASE_FILE}.before-{}", options.new_life));
    // A second name for the old file first, so that there is no moment without a store: whoever opened the directory
    // then would begin an empty one.
    let kept = match fs::hard_link(&path, &aside) {
        Ok(()) => Some(aside),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error("keep the old store as", &aside)(error).into()),
    };
    fs::rename(&draft, &path).map_err(io_error("create", &path))?;
    sync_directory(directory)?;
    Ok(kept)
}

/// Something in the directory that is neither a lock nor the rest of a draft.
fn others(directory: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name != LOCK_FILE && name != DRAFT_FILE {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Makes the draft, and reads it back page by page.
fn make(
    directory: &Path,
    draft: &Path,
    options: &Options,
    revision: Revision,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<(), OpenError> {
    new_file(draft)?;
    let engine_error =
        |error: redb::Error| OpenError::Engine { path: draft.to_owned(), source: EngineError::new(error) };
    let database = Database::create(draft).map_err(|error| engine_error(error.into()))?;
    let facts = Facts { life: options.new_life, revision };
    format::fill(&database, facts, entries.into_iter()).map_err(engine_error)?;
    database.close().map_err(|error| engine_error(error.into()))?;
    let database = open_database(directory, draft, options)?;
    let found = format::load(&database, options.new_life).map_err(|error| error.at(draft))?;
    database.close().map_err(|error| engine_error(error.into()))?;
    if found == facts {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: draft.to_owned(),
        source: EngineError::new("it is not read back as it was written"),
    })
}
