//! The hold file: why nothing may start the application.
//!
//! Owns `hold.json` in the state directory. It is made to be read by the person who wonders why the application does
//! not come up. It has no opinion on who may lift it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use quiesce_runtime::clock::Source;

use serde::{Deserialize, Serialize};

use crate::{
    application::{Hold, HoldKind, HoldOrder},
    format,
    host::Files,
    process::boot,
};

/// Version of the file format.
const FORMAT: u32 = 1;

/// A hold is a few lines; a file larger than this is something else.
const SIZE_MAX: u64 = 1 << 20;

/// The hold file of one state directory.
#[derive(Clone)]
pub(crate) struct HoldFile {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl fmt::Debug for HoldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HoldFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    hold: Hold,
    /// For the person who opens the file; nobody else reads it.
    note: String,
}

/// Why a hold file cannot be read. Whoever gets this must not start the application.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The operating system refused.
    #[error("cannot read the hold file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is damaged.
    #[error(
        "the hold file {} cannot be understood: something keeps this application stopped; find out what (quiesce \
         describe instance), and remove the file only if the application runs nowhere else",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by a newer agent.
    #[error("the hold file {} has format {found}, this agent knows {FORMAT}: start the newer agent again", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl HoldFile {
    pub(crate) fn new(files: Arc<dyn Files>, directory: &Path) -> Self {
        Self { files, path: directory.join("hold.json") }
    }

    pub(crate) fn load(&self) -> Result<Option<Hold>, LoadError> {
        let bytes = match self.files.read(&self.path, SIZE_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LoadError::Io { path: self.path.clone(), source }),
        };
        self.decode(&bytes).map(Some)
    }

    /// What the file says.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Hold, LoadError> {
        let damaged = |source| LoadError::Damaged { path: self.path.clone(), source };
        let found = format::of(bytes).map_err(damaged)?;
        if found > FORMAT {
            return Err(LoadError::Newer { path: self.path.clone(), found });
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(damaged)?;
        Ok(stored.hold)
    }

    /// Durable when it returns.
    pub(crate) async fn put(&self, hold: Hold) -> io::Result<()> {
        let content = self.encode(&hold).map_err(io::Error::other)?;
        self.files.replace(&self.path, content).await
    }

    pub(crate) fn encode(&self, hold: &Hold) -> serde_json::Result<Vec<u8>> {
        let stored = Stored { format: FORMAT, hold: hold.clone(), note: self.note(hold) };
        let mut content = serde_json::to_vec_pretty(&stored)?;
        content.push(b'\n');
        Ok(content)
    }

    /// Durable when it returns.
    pub(crate) async fn clear(&self) -> io::Result<()> {
        self.files.remove(&self.path).await
    }

    /// What a person should know: why it does not start, and how to begin a new life on purpose.
    pub(crate) fn note(&self, hold: &Hold) -> String {
        let directory = self.path.parent().unwrap_or(&self.path).display();
        let Hold { operation, since, deleted, .. } = hold;
        match (deleted, hold.kind) {
            (true, _) => format!(
                "This instance was deleted for good by {operation} (held since {since}), so nothing starts it. To begin a \
                 new life on purpose, remove the directory {directory} and start the agent again."
            ),
            (false, HoldKind::Standby) => format!(
                "This instance stands by since {since}. The scheduler starts it with a new epoch (quiesce migrate)."
            ),
            (false, HoldKind::Migrate | HoldKind::Delete) => format!(
                "This instance is kept stopped since {since} by {operation}, and a copy may run elsewhere. Only the \
                 scheduler starts it again, with a new epoch (quiesce migrate, quiesce cancel)."
            ),
        }
    }
}

/// The hold that an order asks for, from now on.
pub(crate) fn ordered(order: HoldOrder, clocks: &dyn Source) -> Hold {
    let HoldOrder { operation, kind, epoch } = order;
    Hold { operation, kind, epoch, since: boot::timestamp(clocks), deleted: false }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use quiesce_runtime::clock::Kernel;

    use super::*;
    use crate::host::Host;

    fn hold() -> Hold {
        ordered(HoldOrder { operation: "operations/o".into(), kind: HoldKind::Migrate, epoch: 3 }, &Kernel)
    }

    fn hold_file(directory: &Path) -> HoldFile {
        HoldFile::new(Host::linux().files, directory)
    }

    #[tokio::test]
    async fn a_hold_stays_until_it_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let file = hold_file(directory.path());
        assert_eq!(file.load().unwrap(), None);
        file.put(hold()).await.unwrap();
        let again = hold_file(directory.path()).load().unwrap().unwrap();
        assert_eq!((again.operation.as_str(), again.kind, again.epoch), ("operations/o", HoldKind::Migrate, 3));
        file.clear().await.unwrap();
        file.clear().await.unwrap();
        assert_eq!(file.load().unwrap(), None);
    }

    #[tokio::test]
    async fn a_person_finds_out_how_to_begin_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = hold_file(directory.path());
        file.put(Hold { deleted: true, ..hold() }).await.unwrap();
        let text = fs::read_to_string(directory.path().join("hold.json")).unwrap();
        assert!(text.contains("deleted for good by operations/o"), "{text}");
        assert!(text.contains("start the agent again"), "{text}");
    }

    #[test]
    fn a_hold_of_a_newer_agent_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("hold.json"), r#"{"format": 2, "other": true}"#).unwrap();
        let error = hold_file(directory.path()).load().unwrap_err();
        assert!(matches!(error, LoadError::Newer { found: 2, .. }), "{error}");
    }

    #[test]
    fn what_cannot_be_read_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hold.json");
        for content in ["", "{", "{\"format\": 1}", "null"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(hold_file(directory.path()).load(), Err(LoadError::Damaged { .. })), "{content}");
        }
    }
}
