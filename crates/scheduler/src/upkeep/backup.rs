//! A backup of a store: all of one moment in one file, whole or not there, never over another file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quiesce_runtime::clock::{Kernel, Source as _};
use quiesce_store::archive::{Header, Writer};
use quiesce_store::embedded::{EmbeddedStore, OpenError};
use quiesce_store::{ReadError, Revision, Store as _};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Checked, UpkeepError, check_backup, open};

/// The scheduler's secret key is in it.
const MODE: u32 = 0o600;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The last revision in it.
    pub revision: Revision,
    /// How many entries it has.
    pub entries: u64,
    /// Its size.
    pub bytes: u64,
    /// What a check of the file found, which is done in the end.
    pub checked: Checked,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something under that name.
    #[error("{} is there already, and a backup overwrites nothing; choose another name", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error("cannot read the store")]
    Read(#[source] ReadError),
    /// The store has an entry that belongs nowhere.
    #[error("the store has a key that no program wrote; see what quiesce store check says")]
    Damaged,
    /// The file cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was written cannot be read back.
    #[error("the backup cannot be read back")]
    Verify(#[source] Box<UpkeepError>),
}

impl BackupError {
    /// What a person can do about it, where the error does not say so itself.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Open(error) => super::advice_on_opening(error),
            Self::Exists { .. } | Self::Read(_) | Self::Damaged | Self::Write { .. } | Self::Verify(_) => None,
        }
    }
}

/// Saves the store in `directory`, which nobody has open, to `file`. Blocks.
///
/// # Errors
/// There is no `file` then, or the one that was there before.
pub fn backup(directory: &Path, file: &Path) -> Result<Saved, BackupError> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(BackupError::Exists { path: file.to_owned() });
    }
    let store = open(directory)?;
    let draft = Draft::beside(file);
    let out = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft.0).map_err(writing(file))?;
    let (revision, entries) = save(&store, out, file)?;
    let checked = check_backup(&draft.0).map_err(|error| BackupError::Verify(Box::new(error)))?;
    let bytes = fs::metadata(&draft.0).map_err(writing(file))?.len();
    draft.become_file(file)?;
    Ok(Saved { revision, entries, bytes, checked })
}

fn writing(file: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = file.to_owned();
    move |source| BackupError::Write { path, source }
}

/// Writes everything and makes it durable.
fn save(store: &EmbeddedStore, out: File, file: &Path) -> Result<(Revision, u64), BackupError> {
    let begin = |revision| {
        let header = Header::new(store.life(), revision, Kernel.wall_ms(), env!("CARGO_PKG_VERSION"));
        Ok((Writer::begin(BufWriter::new(out), &header).map_err(writing(file))?, revision))
    };
    let shown = store.export(begin, |(writer, _), stored| {
        let entry = stored.entry().ok_or(BackupError::Damaged)?;
        writer.entry(&entry).map_err(writing(file))
    });
    let (writer, revision) = shown.map_err(BackupError::Read)??;
    let (out, entries) = writer.finish().map_err(writing(file))?;
    let out = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(writing(file))?;
    out.sync_all().map_err(writing(file))?;
    Ok((revision, entries))
}

/// A backup in the making, beside the file it will be. Dropped before it has become that, it is removed.
struct Draft(PathBuf);

impl Draft {
    /// A name of its own for each process, so that two backups do not write into one file.
    fn beside(file: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        Self(file.with_file_name(name))
    }

    /// Gives it its name, unless somebody else has taken that meanwhile. Durable when it returns.
    fn become_file(self, file: &Path) -> Result<(), BackupError> {
        match renameat_with(CWD, &self.0, CWD, file, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(BackupError::Exists { path: file.to_owned() }),
            Err(errno) => return Err(writing(file)(errno.into())),
        }
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(writing(file))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone if it has become the file. Else a rest that cannot be removed is in nobody's way.
        let _gone = fs::remove_file(&self.0);
    }
}
