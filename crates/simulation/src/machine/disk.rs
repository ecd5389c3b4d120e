//! The files of a machine. They survive everything; what becomes of a write is decided by whoever runs the simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A write that an agent is about to make.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is to be in it; `None`: it is to be removed.
    pub content: Option<&'a [u8]>,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is durable at once.
    Durable,
    /// It is durable after a while; with a crash in between it never happens.
    Slow(Duration),
    /// The disk refuses: full, read-only, broken.
    Refused(io::ErrorKind),
    /// The agent is killed before anything of it is durable.
    CrashBefore,
    /// It is durable, and the agent is killed before it learns of that.
    CrashAfter,
}

/// Decides about writes.
pub(super) type Decide = Box<dyn FnMut(&Write<'_>) -> Fate + Send>;

#[derive(Default)]
pub(super) struct Disk {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Who has claimed a directory: the number of an agent.
    claims: BTreeMap<PathBuf, u64>,
    decide: Option<Decide>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("files", &self.files.keys()).finish_non_exhaustive()
    }
}

impl Disk {
    pub(super) fn set_fate(&mut self, decide: Decide) {
        self.decide = Some(decide);
    }

    pub(super) fn fate(&mut self, write: &Write<'_>) -> Fate {
        self.decide.as_mut().map_or(Fate::Durable, |decide| decide(write))
    }

    pub(super) fn read(&self, path: &Path) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    pub(super) fn put(&mut self, path: &Path, content: Vec<u8>) {
        self.files.insert(path.to_owned(), content);
    }

    pub(super) fn apply(&mut self, path: &Path, content: Option<Vec<u8>>) {
        match content {
            Some(content) => self.put(path, content),
            None => drop(self.files.remove(path)),
        }
    }

    /// False when another agent has it.
    pub(super) fn claim(&mut self, directory: &Path, agent: u64) -> bool {
        *self.claims.entry(directory.to_owned()).or_insert(agent) == agent
    }

    /// Locks end with the process that has them.
    pub(super) fn release(&mut self, directory: &Path, agent: u64) {
        if self.claims.get(directory) == Some(&agent) {
            self.claims.remove(directory);
        }
    }

    pub(super) fn release_all(&mut self) {
        self.claims.clear();
    }
}
