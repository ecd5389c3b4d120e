//! Temporary directories in which a unix socket fits.

use tempfile::TempDir;

/// A new directory that is removed when dropped, with a path of less than 20 bytes.
///
/// The path of a unix socket is limited to 108 bytes (`unix(7)`), and `TMPDIR` may use up most of them, so it is not
/// asked.
pub fn short_temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("q-").tempdir_in("/tmp").expect("cannot create a directory in /tmp")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_unix_socket_fits_and_the_directory_goes_away() {
        let directory = short_temp_dir();
        let path = directory.path().to_owned();
        assert!(path.as_os_str().len() < 20, "{}", path.display());
        UnixListener::bind(path.join("socket")).unwrap();
        drop(directory);
        assert!(!path.exists());
    }
}
