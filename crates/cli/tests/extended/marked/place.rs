//! Where secrets could show, and what was found there.

use std::fs;
use std::path::{Path, PathBuf};

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// What a process says of itself.
    Log,
    /// What a command prints.
    Output,
    /// What a watch prints.
    Events,
    Metrics,
    Audit,
    /// A file of the store.
    Store,
    Backup,
    /// A file in the state directory of an agent.
    AgentState,
    /// Command line or environment of a process.
    Process,
}

/// All kinds there are.
pub(crate) const KINDS: [Kind; 9] = [
    Kind::Log,
    Kind::Output,
    Kind::Events,
    Kind::Metrics,
    Kind::Audit,
    Kind::Store,
    Kind::Backup,
    Kind::AgentState,
    Kind::Process,
];

/// One place.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// Which file, or which command.
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    /// The secret it is there to show.
    pub(crate) shows: Option<String>,
}

impl Place {
    pub(crate) fn new(kind: Kind, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Self { kind, name: name.into(), content: content.into(), shows: None }
    }

    pub(crate) fn file(kind: Kind, path: &Path) -> Self {
        let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::new(kind, path.display().to_string(), content)
    }

    /// Whether this secret may stand here.
    pub(crate) fn may_show(&self, secret: &str) -> bool {
        // The keys of the tokens are kept in the store, which is why a backup has to be guarded like it.
        let kept = matches!(self.kind, Kind::Store | Kind::Backup) && secret.starts_with("the key of the tokens");
        kept || self.shows.as_deref() == Some(secret)
    }

    /// What it says around that place.
    pub(crate) fn around(&self, at: usize) -> String {
        let from = at.saturating_sub(200);
        String::from_utf8_lossy(&self.content[from..self.content.len().min(at + 200)]).into_owned()
    }
}

/// The files in a directory and below it.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let entry = entry.expect("it can be listed");
            let kind = entry.file_type().expect("it has a type");
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}
