//! Whether the file system has room for another group of commits.

use std::path::PathBuf;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::{CommitError, EngineError};

/// Where the store lives, and how much has to stay free there.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) directory: PathBuf,
    pub(super) reserve_bytes: u64,
}

impl Room {
    /// Asked before every group, because the engine does not survive a write that finds no room. Blocks for as long as
    /// the file system does.
    pub(super) fn check(&self) -> Result<(), CommitError> {
        let stat = statvfs(&self.directory)
            .map_err(|errno| CommitError::Unavailable { source: EngineError::new(std::io::Error::from(errno)) })?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(CommitError::ReadOnly);
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.reserve_bytes { Err(CommitError::Full) } else { Ok(()) }
    }
}
