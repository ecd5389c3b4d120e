//! Small files for their owner alone that are whole or not there, whatever happens in between.
//!
//! Owns write, sync, rename, sync. What is in a file is its owner's business. The calls block.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Nobody else has anything to do with them.
const MODE: u32 = 0o600;

/// Puts `content` into a new file at `path`. Durable when it returns.
///
/// # Errors
/// The file is there already, or cannot be made.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content)?;
    sync_directory(path)
}

/// Puts `content` at `path`, where the old file is until then. Durable when it returns.
///
/// # Errors
/// Of the operating system; the old file is still there, or the new one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // What an interrupted call has left may have been made under other rules.
    remove(&new)?;
    // Its name need not last: either name is durable with the directory, behind the renaming.
    write(&new, content)?;
    fs::rename(&new, path)?;
    sync_directory(path)
}

/// A new file whose content is durable, its name not yet.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Removes `path`, which may be gone already. Durable when it returns.
///
/// # Errors
/// Of the operating system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    // A bare name is one in the directory we are in.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}
