//! The store as files: checked, copied to a backup, put back from one.
//!
//! [`audit`] knows what must be true of all records together, [`revival`] what a store has to forget before it begins a
//! new life. Here is the order of things and every reason why not. What is printed is the business of the command line;
//! nothing here calls a hook.

mod audit;
mod backup;
mod online;
mod revival;

use std::convert::Infallible;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use quiesce_store::archive::{ArchiveError, Header, Reader};
use quiesce_store::embedded::{self, EmbeddedStore, OpenError, PutBackError, Stored};
use quiesce_store::{Entry, ReadError, Revision, Store as _};
use uuid::Uuid;

pub use audit::{Counts, Finding};
pub use backup::{BackupError, SaveError, Saved, backup};
pub(crate) use online::Handout;
pub use revival::{Restored, ReviveError};

use audit::Audit;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The life of the store; none if the file cannot be read that far.
    pub life: Option<Uuid>,
    /// The last revision in it.
    pub revision: Revision,
    /// How many records there are.
    pub counts: Counts,
    /// What is wrong, at most [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// How much more is wrong.
    pub further: usize,
}

/// Most findings that are kept: whoever has a thousand has another problem than the thousandth.
pub const FINDINGS_MAX: usize = 1000;

/// Why nothing can be said of a store or a backup.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error("cannot read the store")]
    Read(#[source] ReadError),
    /// The backup cannot be opened.
    #[error("cannot open {}", .path.display())]
    BackupFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be read as a backup.
    #[error("cannot use {} as a backup", .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
    /// Its records contradict each other.
    #[error("the backup {} is not sound: {first}", .path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        first: Finding,
    },
    /// It cannot begin a new life.
    #[error("the backup cannot be made into a store")]
    Revive(#[source] ReviveError),
    /// The store was not put in place.
    #[error(transparent)]
    PutBack(#[from] PutBackError),
}

/// Opens the store in `directory`, which must be there and in nobody's use.
fn open(directory: &Path) -> Result<EmbeddedStore, OpenError> {
    let options = embedded::Options { create: false, ..embedded::Options::new(Uuid::new_v4()) };
    EmbeddedStore::open(directory, &options)
}

/// Checks the store in `directory`: every page against its checksum, every record by itself and against the others.
///
/// # Errors
/// When the store is in use, is not there, or cannot be looked at; damage is a finding, not an error.
pub fn check(directory: &Path) -> Result<Checked, UpkeepError> {
    let store = match open(directory) {
        Ok(store) => store,
        Err(error) => return damage(&error).map(Checked::damaged).ok_or(UpkeepError::Open(error)),
    };
    let begin = |revision| Ok::<_, Infallible>((Audit::default(), revision));
    let shown = store.export(begin, |(audit, _), stored| {
        audit.take(stored);
        Ok(())
    });
    let Ok((audit, revision)) = shown.map_err(UpkeepError::Read)?;
    Ok(audit.finish(Some(store.life()), revision))
}

/// Checks a backup in the same way.
///
/// # Errors
/// When the file cannot be opened; damage is a finding.
pub fn check_backup(file: &Path) -> Result<Checked, UpkeepError> {
    match read(file) {
        Ok((header, entries)) => Ok(audit_of(&header, &entries)),
        Err(UpkeepError::Archive { path, source }) if !matches!(source, ArchiveError::Io(_)) => {
            Ok(Checked::damaged(Finding { at: path.display().to_string(), problem: source.to_string() }))
        }
        Err(error) => Err(error),
    }
}

/// Makes a store of the backup `file` in `directory`, as a new life. With `replace` a store that is there already makes
/// way and is kept beside the new one. Whoever calls this answers for it: `by` is named in what was open.
///
/// # Errors
/// Nothing is in place then.
pub fn restore(file: &Path, directory: &Path, replace: bool, by: &str) -> Result<Restored, UpkeepError> {
    let (header, entries) = read(file)?;
    if let Some(first) = audit_of(&header, &entries).findings.into_iter().next() {
        return Err(UpkeepError::Unsound { path: file.to_owned(), first });
    }
    let options = embedded::Options::new(Uuid::new_v4());
    let mut revived = revival::revive(&header, entries, by).map_err(UpkeepError::Revive)?;
    let entries = std::mem::take(&mut revived.entries);
    revived.restored.life = options.new_life;
    revived.restored.kept = embedded::put_back(directory, &options, revived.revision, entries, replace)?;
    Ok(revived.restored)
}

/// Everything in a backup, once all of it is known to be as it was written. A store is some tens of megabytes.
fn read(file: &Path) -> Result<(Header, Vec<Entry>), UpkeepError> {
    let opened = File::open(file).map_err(|source| UpkeepError::BackupFile { path: file.to_owned(), source })?;
    let unusable = |source| UpkeepError::Archive { path: file.to_owned(), source };
    let mut reader = Reader::begin(BufReader::new(opened)).map_err(unusable)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().map_err(unusable)? {
        entries.push(entry);
    }
    Ok((reader.header().clone(), entries))
}

fn audit_of(header: &Header, entries: &[Entry]) -> Checked {
    let mut audit = Audit::default();
    for Entry { key, value, revision } in entries {
        let key = bytes::Bytes::copy_from_slice(key.as_bytes());
        audit.take(Stored { key, value: value.clone(), revision: *revision });
    }
    audit.finish(Some(header.life()), header.revision())
}

/// Whether a store that cannot be opened is a damaged one, rather than one in use or out of reach.
fn damage(error: &OpenError) -> Option<Finding> {
    let path = match error {
        OpenError::NotAStore { path }
        | OpenError::NewerFormat { path, .. }
        | OpenError::EngineFormat { path, .. }
        | OpenError::Damaged { path, .. } => path,
        OpenError::InUse { .. } | OpenError::Missing { .. } | OpenError::Io { .. } | OpenError::Engine { .. } => {
            return None;
        }
    };
    let problem = quiesce_runtime::telemetry::chain(error).to_string();
    Some(Finding { at: path.display().to_string(), problem })
}

impl UpkeepError {
    /// What a person can do about it, where the error does not say so itself.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Open(error) | Self::PutBack(PutBackError::Open(error)) => advice_on_opening(error),
            Self::PutBack(PutBackError::NotEmpty { .. }) => {
                Some("name an empty directory, or say --replace: a store that is there is then kept beside the new one")
            }
            Self::Unsound { .. } => Some("see all that is wrong: quiesce store check --backup FILE"),
            Self::Read(_) | Self::BackupFile { .. } | Self::Archive { .. } | Self::Revive(_) => None,
        }
    }
}

fn advice_on_opening(error: &OpenError) -> Option<&'static str> {
    match error {
        OpenError::InUse { .. } => {
            Some("stop that scheduler (SIGTERM): its operations rest where they are, and go on when it starts again")
        }
        OpenError::Missing { .. } => Some("name the scheduler's directory: --data-dir DIR"),
        OpenError::NotAStore { .. }
        | OpenError::NewerFormat { .. }
        | OpenError::EngineFormat { .. }
        | OpenError::Damaged { .. }
        | OpenError::Io { .. }
        | OpenError::Engine { .. } => None,
    }
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn damaged(finding: Finding) -> Self {
        Self { life: None, revision: Revision::ZERO, counts: Counts::default(), findings: vec![finding], further: 0 }
    }
}
