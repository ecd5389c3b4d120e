//! Files that hold one secret: a token, a line of text.
//!
//! Owns what such a file may be: readable by its owner alone, small, not empty. What the secret is good for is the
//! business of whoever reads it; it is never part of an error.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::durable;

/// Larger than any token. What is larger is another file, given by mistake.
const BYTES_MAX: u64 = 4096;
/// Permissions of others, which such a file must not have.
const OTHERS: u32 = 0o077;

/// Why a secret cannot be had from a file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read it, or even change it.
    #[error("others have access to {file} (mode {mode:04o}); whoever has read it has the secret: chmod 600 {file}",
        file = path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no token.
    #[error("{} is not a file with one token on one line", .0.display())]
    Malformed(PathBuf),
}

impl ReadError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The file at `path`, if nobody but its owner can read it.
///
/// # Errors
/// There is none, or others may know what is in it.
pub fn open(path: &Path) -> Result<(File, Metadata), ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the file that was opened, whatever the path means by now.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & OTHERS != 0 {
        return Err(ReadError::TooOpen { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    Ok((file, metadata))
}

/// The secret in the file at `path`, without the end of its line.
///
/// # Errors
/// There is none, or others may know it.
pub fn read(path: &Path) -> Result<String, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let (file, metadata) = open(path)?;
    let mut text = String::new();
    let malformed = || ReadError::Malformed(path.to_owned());
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        return Err(malformed());
    }
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => malformed(),
        _ => failed(source),
    })?;
    let secret = text.trim();
    let fits = !secret.is_empty() && secret.chars().all(|c| c.is_ascii_graphic());
    if fits { Ok(secret.to_owned()) } else { Err(malformed()) }
}

/// Puts `secret` into a new file at `path` that its owner alone can read.
///
/// # Errors
/// The file exists already, or cannot be made.
pub fn create(path: &Path, secret: &str) -> io::Result<()> {
    durable::create(path, format!("{secret}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("quiesce-secret-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_can() {
        let scratch = Scratch::new("own");
        let path = scratch.0.join("token");
        create(&path, "qbt1.t.x").unwrap();
        assert_eq!(read(&path).unwrap(), "qbt1.t.x");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        create(&path, "another").unwrap_err();
        assert!(read(&scratch.0.join("none")).unwrap_err().is_missing());
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_command_that_mends_it() {
        let scratch = Scratch::new("open");
        let path = scratch.0.join("token");
        create(&path, "qbt1.t.x").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())) && !error.contains("qbt1"), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        read(&path).unwrap();
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let scratch = Scratch::new("other");
        for (name, content) in [("empty", ""), ("two", "a\nb\n"), ("large", &"x".repeat(5000)), ("blank", " \n")] {
            let path = scratch.0.join(name);
            create(&path, content).unwrap();
            assert!(matches!(read(&path), Err(ReadError::Malformed(_))), "{name}");
        }
        assert!(read(&scratch.0).is_err());
    }
}
