//! What the supervisor must not forget: which agent this is, the highest epoch it has seen, the run it started.
//!
//! Owns the state directory: one agent at a time works with it (a lock), and the file `journal.json` in it. What the hook
//! server must not forget stands in a file of its own beside it. A journal that cannot be read is an error and never
//! silently begun anew: beginning anew would forget an epoch, and with it that another copy may run.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    application::{End, Ready},
    delegate::callback::Callback,
    format,
    host::{Claim, ClaimError, Host},
    id,
    process::{Exit, Identity, boot::BootTime},
};

#[cfg(test)]
mod tests;

/// Version of the file format. Raised when an older agent would misread the file.
const FORMAT: u32 = 1;

/// Name of the file in the state directory.
const FILE: &str = "journal.json";

/// A journal holds one run; a file larger than this is something else.
const SIZE_MAX: u64 = 1 << 20;

/// Everything the supervisor must not forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    format: u32,
    /// Name of this agent for life; made once.
    pub agent_id: String,
    /// Highest epoch ever seen; 0 before the first.
    pub epoch: u64,
    /// Epochs up to this one have been revoked by a hold: they are no permission any more.
    pub revoked: u64,
    /// The running or last run.
    pub(crate) run: Option<Run>,
}

/// One life of the application, from a start to the end of its last process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Marks its processes.
    pub(crate) run_id: String,
    pub(crate) epoch: u64,
    /// The first process: written down before it executes the application.
    pub(crate) leader: Identity,
    /// When it was started, and during which boot.
    pub(crate) started: BootTime,
    /// Wall clock, milliseconds since 1970, for people.
    pub(crate) start_time_ms: u64,
    /// The pid namespace in which its pids mean something.
    pub(crate) namespace: String,
    /// The agent that started it was the first process of that namespace: with that agent everything in it has ended.
    pub(crate) agent_was_init: bool,
    /// Where it sends its notifications.
    pub(crate) notify_socket: Option<PathBuf>,
    /// Where its script reports that it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) callback: Option<Callback>,
    pub(crate) ready: Option<Ready>,
    /// How the first process ended, if it has and was ours.
    pub(crate) exit: Option<Exit>,
    pub(crate) told: Option<Told>,
    pub(crate) killed: bool,
    pub(crate) end: Option<End>,
}

/// That the application was told to stop, and how far. Written before it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) shutdown_id: String,
    /// Which step of the ladder.
    pub(crate) rung: usize,
    /// With the first process gone, the others were told at this step.
    pub(crate) rest: bool,
    /// How far it is with the application's script, if that is who was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) script: Option<Script>,
}

/// How far it is with an application's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Script {
    /// It was asked. No signal is sent.
    Asked,
    /// It reports that it is done. What is left of the application is about to be told by a signal.
    Reported,
    /// What was left has been told, up to the step of the ladder that is written beside this.
    Signalled,
}

impl Told {
    /// The step of the ladder that comes next, if signals are sent at all.
    pub(crate) fn next_rung(&self) -> Option<usize> {
        match self.script {
            Some(Script::Asked) => None,
            Some(Script::Reported) => Some(0),
            Some(Script::Signalled) | None => Some(self.rung + 1),
        }
    }

    /// Whether those who outlive the first process are still to be told what it was told.
    pub(crate) fn owes_the_rest(&self) -> bool {
        !self.rest && !matches!(self.script, Some(Script::Asked | Script::Reported))
    }
}

/// The state directory of one agent, locked. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: Host,
    /// Held as long as anybody has this journal.
    claim: Claim,
    /// One write at a time, and its change in memory after it: the order in memory is the order on disk.
    writing: tokio::sync::Mutex<()>,
    contents: Mutex<Contents>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent works with it.
    #[error("the state directory {} is in use by another agent: every instance needs a directory of its own (--state-dir)", .0.display())]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// What could not be opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was written by a newer agent.
    #[error("{} has format {found}, this agent knows formats up to {FORMAT}: start the newer agent again", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is damaged.
    #[error(
        "{} is damaged: make sure that no process of the application runs, here or elsewhere, then remove the file; \
         the agent will ask the scheduler for a new epoch",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The journal could not be written; nothing has changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Journal {
    /// Opens the state directory on `host`, and makes it if it is not there. Blocks shortly.
    pub async fn open(host: &Host, directory: &Path) -> Result<Self, OpenError> {
        let claim = host.files.claim(directory)?;
        let path = claim.directory.join(FILE);
        let contents = match host.files.read(&path, SIZE_MAX) {
            Ok(bytes) => decode(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = Contents::new(id::fresh(&host.machine).to_string());
                let written = host.files.replace(&path, encode(&fresh)).await;
                written.map_err(|source| OpenError::Io { path, source })?;
                fresh
            }
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let (writing, contents) = (tokio::sync::Mutex::new(()), Mutex::new(contents));
        Ok(Self { inner: Arc::new(Inner { host: host.clone(), claim, writing, contents }) })
    }

    /// The state directory, absolute.
    pub fn directory(&self) -> &Path {
        &self.inner.claim.directory
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// What is written there now.
    pub fn contents(&self) -> Contents {
        self.lock().clone()
    }

    /// Changes the contents. Durable when it returns `Ok`; on an error nothing has changed.
    pub async fn update(&self, change: impl FnOnce(&mut Contents) + Send + 'static) -> Result<(), WriteError> {
        let _turn = self.inner.writing.lock().await;
        let mut changed = self.contents();
        change(&mut changed);
        let path = self.directory().join(FILE);
        let written = self.inner.host.files.replace(&path, encode(&changed)).await;
        written.map_err(|source| WriteError { path, source })?;
        *self.lock() = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Contents are replaced as a whole, so a panic elsewhere leaves them whole.
        self.inner.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn new(agent_id: String) -> Self {
        Self { format: FORMAT, agent_id, epoch: 0, revoked: 0, run: None }
    }

    /// Whether the highest epoch seen is still permission to run: for a restart without asking anybody.
    pub fn has_standing_permission(&self) -> bool {
        self.epoch > self.revoked
    }
}

impl From<ClaimError> for OpenError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Taken(directory) => Self::Locked(directory),
            ClaimError::Io { path, source } => Self::Io { path, source },
        }
    }
}

pub(crate) fn encode(contents: &Contents) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(contents).expect("plain data with string keys is always JSON");
    bytes.push(b'\n');
    bytes
}

pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Contents, OpenError> {
    let damaged = |source| OpenError::Damaged { path: path.to_owned(), source };
    let found = format::of(bytes).map_err(damaged)?;
    if found > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}
