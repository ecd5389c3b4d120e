//! What the hook remembers over a restart of the program.
//!
//! One small document, replaced as a whole: the shutdown in progress or the last one, the epoch it used up, and the
//! permission that was given back. It is written *before* what it announces is done. The processes have a journal of
//! their own below the seam; neither reads the other's.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_runtime::clock::Anchor;
use serde::{Deserialize, Deserializer, Serialize, de};
use tokio::sync::Mutex;

use super::order::DURATION_MAX;
use super::report::{Phase, Report};
use crate::application::HoldKind;
use crate::format;
use crate::host::{Files, Host};
use crate::token::Digest;

/// Format of the document. A reader that finds a higher one refuses to run rather than to guess.
const FORMAT: u32 = 1;

/// The document is small; a file larger than this is something else.
const SIZE_MAX: u64 = 1 << 20;

/// Name of the document in the state directory.
const FILE: &str = "hook.json";

/// The whole document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) format: u32,
    /// Ties the clock of the next process to this one's.
    pub(crate) anchor: StoredAnchor,
    /// Highest epoch used up by a shutdown: nothing is started under it any more.
    #[serde(default)]
    pub(crate) epoch: u64,
    /// The permission to run of this epoch was given back to the scheduler.
    #[serde(default)]
    pub(crate) released: u64,
    #[serde(default)]
    pub(crate) shutdown: Option<ShutdownRecord>,
}

/// [`Anchor`] as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredAnchor {
    boot_id: String,
    boottime_ms: u64,
    timeline_ms: u64,
    wall_ms: u64,
}

impl From<Anchor> for StoredAnchor {
    fn from(anchor: Anchor) -> Self {
        let Anchor { boot_id, boottime_ms, timeline_ms, wall_ms } = anchor;
        Self { boot_id, boottime_ms, timeline_ms, wall_ms }
    }
}

impl From<StoredAnchor> for Anchor {
    fn from(stored: StoredAnchor) -> Self {
        let StoredAnchor { boot_id, boottime_ms, timeline_ms, wall_ms } = stored;
        Self { boot_id, boottime_ms, timeline_ms, wall_ms }
    }
}

impl Record {
    pub(crate) fn new(anchor: Anchor) -> Self {
        Self { format: FORMAT, anchor: anchor.into(), epoch: 0, released: 0, shutdown: None }
    }
}

/// One shutdown, as far as it has to survive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShutdownRecord {
    pub(crate) shutdown_id: String,
    pub(crate) operation: String,
    pub(crate) attempt: i32,
    pub(crate) kind: HoldKind,
    pub(crate) epoch: u64,
    /// Recognises the completion token; the token itself is never written.
    pub(crate) token: Option<Digest>,
    /// On the timeline of the anchor.
    pub(crate) accepted_ms: u64,
    #[serde(default, deserialize_with = "wait")]
    pub(crate) grace: Option<Duration>,
    #[serde(deserialize_with = "wait")]
    pub(crate) heartbeat: Duration,
    #[serde(default, deserialize_with = "wait")]
    pub(crate) settle: Option<Duration>,
    /// [`Phase::Stopping`] is written before the application is told to stop.
    pub(crate) phase: Phase,
    /// Whether the application ran when the shutdown was accepted.
    pub(crate) ran: bool,
    /// How many programs have worked on it; keeps the sequence of reports rising.
    pub(crate) incarnation: i32,
    /// Set when it is over.
    pub(crate) last: Option<Report>,
}

/// Reads a time to wait. None was ever longer than an order may ask for, and no clock measures what is longer by far.
fn wait<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Copy + Into<Option<Duration>>,
{
    let wait = T::deserialize(deserializer)?;
    match wait.into() {
        Some(time) if time > DURATION_MAX => {
            Err(de::Error::custom(format!("a wait of {time:?}, longer than any order asks for ({DURATION_MAX:?})")))
        }
        Some(_) | None => Ok(wait),
    }
}

/// Why the record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("cannot read the hook's record {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The file is not ours, or broken.
    #[error("cannot understand the hook's record {path}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file was written by a later version.
    #[error("the hook's record {path} has format {format}, this program knows {FORMAT}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The file cannot be written; what it was to announce must not be done.
    #[error("cannot write the hook's record {path}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// A place for the record.
pub trait Shelf: Send + Sync {
    /// What was last saved.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;

    /// Replaces it; durable when it resolves. Saves may overtake one another: a `revision` lower than the last one of this
    /// program is dropped, since the later one contains it.
    fn save(&self, revision: u64, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;
}

/// Where the record is kept.
pub struct Records {
    shelf: Option<Arc<dyn Shelf>>,
    /// What is named in errors.
    path: PathBuf,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("path", &self.path).field("durable", &self.is_durable()).finish()
    }
}

impl Records {
    /// Keeps nothing over a restart: for programs that are themselves the application, and end with it.
    pub fn volatile() -> Self {
        Self { shelf: None, path: PathBuf::from(FILE) }
    }

    /// Keeps the record in `directory` of this machine, which must exist.
    pub fn in_directory(directory: &Path) -> Self {
        Self::among(Host::linux().files, directory)
    }

    /// Keeps the record among `files`, in `directory`, which must exist.
    pub fn among(files: Arc<dyn Files>, directory: &Path) -> Self {
        let path = directory.join(FILE);
        let written = Mutex::new(0);
        Self { shelf: Some(Arc::new(RecordFile { files, path: path.clone(), written })), path }
    }

    /// Keeps the record on `shelf`.
    pub fn on(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf: Some(shelf), path: PathBuf::from(FILE) }
    }

    /// Whether a restart finds it again.
    pub(crate) fn is_durable(&self) -> bool {
        self.shelf.is_some()
    }

    pub(crate) fn load(&self) -> Result<Option<Record>, RecordError> {
        let path = &self.path;
        let Some(shelf) = &self.shelf else { return Ok(None) };
        let read = shelf.load().map_err(|source| RecordError::Read { path: path.clone(), source })?;
        read.map(|text| decode(path, &text)).transpose()
    }

    /// Replaces the record. Durable when it resolves.
    pub(crate) fn save(&self, revision: u64, record: &Record) -> BoxFuture<'static, Result<(), RecordError>> {
        let Some(shelf) = &self.shelf else { return Box::pin(async { Ok(()) }) };
        let (shelf, path) = (Arc::clone(shelf), self.path.clone());
        let content = encode(record).map_err(io::Error::from);
        Box::pin(async move {
            let saved = match content {
                Ok(content) => shelf.save(revision, content).await,
                Err(error) => Err(error),
            };
            saved.map_err(|source| RecordError::Write { path, source })
        })
    }
}

/// The record as a file.
struct RecordFile {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// The newest revision written. Writes run beside the owner and may overtake one another; a snapshot that is older
    /// than the one on disk is dropped, since the newer one contains it.
    written: Mutex<u64>,
}

impl Shelf for RecordFile {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        match self.files.read(&self.path, SIZE_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn save(&self, revision: u64, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let mut written = self.written.lock().await;
            if revision < *written {
                return Ok(());
            }
            self.files.replace(&self.path, content).await?;
            *written = revision;
            Ok(())
        })
    }
}

pub(crate) fn encode(record: &Record) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec_pretty(record)
}

/// What the file at `path` says.
pub(crate) fn decode(path: &Path, text: &[u8]) -> Result<Record, RecordError> {
    let parse = |source| RecordError::Parse { path: path.to_owned(), source };
    let format = format::of(text).map_err(parse)?;
    if format > FORMAT {
        return Err(RecordError::Format { path: path.to_owned(), format });
    }
    serde_json::from_slice(text).map_err(parse)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(epoch: u64) -> Record {
        let anchor = Anchor { boot_id: "b".to_owned(), boottime_ms: 1, timeline_ms: 2, wall_ms: 3 };
        Record { epoch, ..Record::new(anchor) }
    }

    #[tokio::test]
    async fn the_newest_revision_wins_whatever_the_order_of_writing() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::in_directory(directory.path());
        assert!(records.load().unwrap().is_none());
        records.save(2, &record(7)).await.unwrap();
        records.save(1, &record(6)).await.unwrap();
        assert_eq!(records.load().unwrap().unwrap().epoch, 7);
    }

    #[test]
    fn a_later_format_and_garbage_are_refused_not_guessed() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::in_directory(directory.path());
        fs::write(directory.path().join(FILE), r#"{"format": 2, "other": true}"#).unwrap();
        assert!(matches!(records.load(), Err(RecordError::Format { format: 2, .. })));
        fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(matches!(records.load(), Err(RecordError::Parse { .. })));
    }

    #[test]
    fn a_wait_that_no_clock_can_measure_is_damage() {
        let text = include_str!("record/format-1.json");
        let seconds = DURATION_MAX.as_secs();
        for (field, from) in [("heartbeat", 5), ("grace", 60)] {
            let with = |secs: u64| {
                text.replace(&format!(r#""{field}": {{ "secs": {from},"#), &format!(r#""{field}": {{ "secs": {secs},"#))
            };
            assert!(decode(Path::new(FILE), with(seconds).as_bytes()).is_ok(), "{field}");
            for secs in [seconds + 1, u64::MAX] {
                let error = decode(Path::new(FILE), with(secs).as_bytes()).unwrap_err();
                assert!(matches!(error, RecordError::Parse { .. }), "{field}: {error}");
            }
        }
    }

    #[test]
    fn a_record_of_format_1_is_understood_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::in_directory(directory.path());
        let text = include_str!("record/format-1.json");
        fs::write(directory.path().join(FILE), text).unwrap();
        let record = records.load().unwrap().unwrap();
        let shutdown = record.shutdown.unwrap();
        assert_eq!((record.epoch, record.released, shutdown.phase), (4, 3, Phase::Stopping));
        assert_eq!(shutdown.last, None);
    }
}
