//! A backup of a store: all of one moment in one file, whole or not there, never over another file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use quiesce_runtime::clock::{Kernel, Source as _};
use quiesce_store::archive::{Header, Writer};
use quiesce_store::embedded::{EmbeddedStore, OpenError};
use quiesce_store::{ReadError, Store as _};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Checked, UpkeepError, check_backup, online, open};

/// The scheduler's secret key is in it.
const MODE: u32 = 0o600;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its size.
    pub bytes: u64,
    /// Whether a scheduler that has the store open handed it out.
    pub online: bool,
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
    /// The store cannot be opened, and no scheduler hands it out.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read, or what is read not be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The scheduler that has the store open does not hand it out.
    #[error("the scheduler that runs does not hand out a backup")]
    Online(#[source] io::Error),
    /// It did not hand out all of it.
    #[error("the scheduler that runs broke off the backup; its log says why")]
    BrokenOff,
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
            Self::Online(_) => Some("ask as the user it runs as, or as root"),
            Self::Exists { .. } | Self::Save(_) | Self::BrokenOff | Self::Write { .. } | Self::Verify(_) => None,
        }
    }
}

/// Why a store was not written out.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It cannot be read.
    #[error("cannot read the store")]
    Read(#[source] ReadError),
    /// It has an entry that belongs nowhere.
    #[error("the store has a key that no program wrote; see what quiesce store check says")]
    Damaged,
    /// The backup cannot be written.
    #[error("cannot write the backup")]
    Write(#[source] io::Error),
}

/// Saves the store in `directory` to `file`: opened here, or handed out by the scheduler that has it open. Blocks.
///
/// # Errors
/// There is no `file` then, or the one that was there before.
pub fn backup(directory: &Path, file: &Path) -> Result<Saved, BackupError> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(BackupError::Exists { path: file.to_owned() });
    }
    let draft = Draft::beside(file);
    let mut out = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft.0).map_err(writing(file))?;
    let online = match open(directory) {
        Ok(store) => {
            write(&store, BufWriter::new(&out))?;
            false
        }
        Err(in_use @ OpenError::InUse { .. }) => match online::fetch(directory, &mut out) {
            Ok(true) => true,
            Ok(false) => return Err(in_use.into()),
            Err(error) => return Err(BackupError::Online(error)),
        },
        Err(error) => return Err(error.into()),
    };
    out.sync_all().map_err(writing(file))?;
    let checked = check_backup(&draft.0).map_err(|error| BackupError::Verify(Box::new(error)))?;
    if online && checked.life.is_none() {
        return Err(BackupError::BrokenOff);
    }
    let bytes = out.metadata().map_err(writing(file))?.len();
    draft.become_file(file)?;
    Ok(Saved { bytes, online, checked })
}

fn writing(file: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = file.to_owned();
    move |source| BackupError::Write { path, source }
}

/// Writes all of `store`, of one moment, as a backup.
pub(super) fn write<W: io::Write>(store: &EmbeddedStore, out: W) -> Result<W, SaveError> {
    let begin = |revision| {
        let header = Header::new(store.life(), revision, Kernel.wall_ms(), env!("CARGO_PKG_VERSION"));
        Writer::begin(out, &header).map_err(SaveError::Write)
    };
    let shown = store.export(begin, |writer, stored| {
        let entry = stored.entry().ok_or(SaveError::Damaged)?;
        writer.entry(&entry).map_err(SaveError::Write)
    });
    let (out, _entries) = shown.map_err(SaveError::Read)??.finish().map_err(SaveError::Write)?;
    Ok(out)
}

/// A backup in the making, beside the file it will be. Dropped before it has become that, it is removed.
struct Draft(PathBuf);

impl Draft {
    /// A name of its own for each file and process, so that two backups do not write into one.
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
