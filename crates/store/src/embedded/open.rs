//! From a directory to an open database: permissions, lock, creation, and every reason why not.
//!
//! Owns the names in the data directory. It must not look into the tables; see `format`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageError};
use uuid::Uuid;

use super::Options;
use super::format::{self, FORMAT_VERSION, Facts};
use crate::{EngineError, Revision};

/// The file that holds everything, inside the data directory.
pub const DATABASE_FILE: &str = "store.redb";

/// A store in the making. It becomes [`DATABASE_FILE`] by a rename when it is whole, so a crash during creation leaves
/// no half store behind; one found here is such a rest and is thrown away.
pub(super) const DRAFT_FILE: &str = "store.redb.new";

/// Locked for as long as the store is open; holds the process id of who opened it last, for the error message.
pub(super) const LOCK_FILE: &str = "lock";

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another place in this one, has it open.
    #[error(
        "the data directory {} is in use{}; stop that one first, or use another directory",
        .directory.display(), Holder(*.pid)
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
        /// The process that has it open, if it could be told.
        pid: Option<u32>,
    },
    /// There is no store, and none was to be made.
    #[error("there is no store in {}", .directory.display())]
    Missing {
        /// The data directory.
        directory: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a quiesce store; move it away, or use another data directory", .path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer program.
    #[error(
        "{} has format {found}, this program knows formats up to {supported}; \
         start the version that wrote it, or restore a backup taken before the upgrade",
        .path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },
    /// The engine's own file format is of another generation.
    #[error(
        "{} has the engine's file format {found}, which this program cannot read; start the version that wrote it",
        .path.display()
    )]
    EngineFormat {
        /// The file.
        path: PathBuf,
        /// The engine's format found.
        found: u8,
    },
    /// The file is damaged beyond the engine's own repair.
    #[error("{} is damaged; keep it for examination and restore a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: EngineError,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The engine failed.
    #[error("the storage engine cannot open {}", .path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        #[source]
        source: EngineError,
    },
}

/// What is wrong inside the file; becomes an [`OpenError`] once the path is known.
#[derive(Debug)]
pub(super) enum FormatError {
    NotAStore,
    Newer { found: u32 },
    Damaged { fact: &'static str },
    Engine(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for FormatError {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

impl FormatError {
    pub(super) fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::NotAStore => OpenError::NotAStore { path },
            Self::Newer { found } => OpenError::NewerFormat { path, found, supported: FORMAT_VERSION },
            Self::Damaged { fact } => {
                OpenError::Damaged { path, source: EngineError::new(format!("no valid {fact} of the store")) }
            }
            Self::Engine(error) => OpenError::Engine { path, source: EngineError::new(error) },
        }
    }
}

/// The exclusive lock on a data directory, held until dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// An open database and what it says about itself.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) lock: DirectoryLock,
    pub(super) life: Uuid,
    pub(super) revision: Revision,
    pub(super) reopen: Reopen,
}

/// Opens the same database again after the engine has failed, when the old one is closed. Needs the lock to be held.
pub(super) type Reopen = Box<dyn Fn() -> Result<(Database, Facts), OpenError> + Send>;

pub(super) fn open(directory: &Path, options: &Options) -> Result<Opened, OpenError> {
    let path = directory.join(DATABASE_FILE);
    if !options.create && !path.try_exists().map_err(io_error("look for", &path))? {
        return Err(OpenError::Missing { directory: directory.to_owned() });
    }
    create_directory(directory)?;
    let lock = lock(directory)?;
    let exists = path.try_exists().map_err(io_error("look for", &path))?;
    if !exists {
        create(directory, &path, options)?;
    }
    let database = open_database(directory, &path, options)?;
    let facts = format::load(&database, options.new_life).map_err(|error| error.at(&path))?;
    Ok(Opened { database, lock, life: facts.life, revision: facts.revision, reopen: reopen(directory, path, options) })
}

fn reopen(directory: &Path, path: PathBuf, options: &Options) -> Reopen {
    let (directory, options) = (directory.to_owned(), options.clone());
    Box::new(move || {
        forget_cache(&path).map_err(io_error("read", &path))?;
        let database = open_database(&directory, &path, &options)?;
        let facts = format::load(&database, options.new_life).map_err(|error| error.at(&path))?;
        Ok((database, facts))
    })
}

/// Has the kernel forget what it holds of the file: after a write that failed the page cache may show what never reached
/// the disk. What is opened next is what a power loss would leave.
fn forget_cache(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Makes the directory and what is missing above it, for its owner only. One that exists is left as it is.
pub(super) fn create_directory(directory: &Path) -> Result<(), OpenError> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error("create", directory)(error)),
        Ok(()) | Err(_) => sync_directory(parent),
    }
}

pub(super) fn lock(directory: &Path) -> Result<DirectoryLock, OpenError> {
    let path = directory.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder is a courtesy: without it the error is as true.
            let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(OpenError::InUse { directory: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("write", &path))?;
    Ok(DirectoryLock { _file: file })
}

fn create(directory: &Path, path: &Path, options: &Options) -> Result<(), OpenError> {
    let draft = directory.join(DRAFT_FILE);
    new_file(&draft)?;
    let engine_error = |error: redb::Error| OpenError::Engine { path: draft.clone(), source: EngineError::new(error) };
    let database = Database::create(&draft).map_err(|error| engine_error(error.into()))?;
    format::initialise(&database, options.new_life).map_err(engine_error)?;
    database.close().map_err(|error| engine_error(error.into()))?;
    std::fs::rename(&draft, path).map_err(io_error("create", path))?;
    sync_directory(directory)
}

/// Makes an empty file for the owner alone, in place of the rest of an earlier draft.
pub(super) fn new_file(draft: &Path) -> Result<(), OpenError> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", draft)(error)),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft).map_err(io_error("create", draft))?;
    Ok(())
}

pub(super) fn open_database(directory: &Path, path: &Path, options: &Options) -> Result<Database, OpenError> {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    builder.set_check_integrity_on_open(true);
    let at = path.display().to_string();
    builder.set_repair_callback(move |session| {
        tracing::debug!(path = %at, progress = session.progress(), "checking the store");
    });
    // A damaged file can make the engine panic instead of returning an error (cberner/redb#620); a server that cannot
    // open its store must say which file it is, so both become the same error.
    let opened = catch_unwind(AssertUnwindSafe(|| builder.open(path)))
        .map_err(|_| OpenError::Damaged { path: path.to_owned(), source: EngineError::new("the engine panicked") })?;
    opened.map_err(|error| {
        let path = path.to_owned();
        if let DatabaseError::DatabaseAlreadyOpen = error {
            return OpenError::InUse { directory: directory.to_owned(), pid: None };
        }
        if let DatabaseError::UpgradeRequired(found) = error {
            return OpenError::EngineFormat { path, found };
        }
        if let DatabaseError::Storage(StorageError::Io(source)) = error {
            // So the engine says that the file does not begin as its files do.
            if source.kind() == io::ErrorKind::InvalidData {
                return OpenError::NotAStore { path };
            }
            return OpenError::Io { doing: "open", path, source };
        }
        if let DatabaseError::Storage(StorageError::Corrupted(what)) = error {
            return OpenError::Damaged { path, source: EngineError::new(what) };
        }
        OpenError::Engine { path, source: EngineError::new(error) }
    })
}

/// A new name in a directory survives a power loss only once the directory is synced.
pub(super) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("sync", directory))
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, path: path.to_owned(), source }
}

struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, " by process {pid}"),
            None => Ok(()),
        }
    }
}
