//! A backup of a store that a scheduler has open: the scheduler hands it out itself, over a socket in its data directory.
//!
//! Who may have it is decided by the operating system: the peer has to run as the scheduler's own user, or as root, who
//! could read the file as well. One backup at a time, made in memory first, so that no reader, however slow, keeps the
//! engine from anything.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quiesce_runtime::drain;
use quiesce_runtime::telemetry::chain;
use quiesce_store::embedded::EmbeddedStore;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::backup::write;

/// The socket, inside the data directory.
const SOCKET: &str = "backup.sock";
/// How long a reader may take for all of it. Some tens of megabytes to a file take a second.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long the command waits for the next bytes; the scheduler may have to finish the backup of somebody else first.
const WAIT_LIMIT: Duration = Duration::from_secs(120);
/// Pause after a failed accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Hands out backups; to be run as one task.
pub(crate) struct Handout {
    listener: UnixListener,
    path: PathBuf,
    store: Arc<EmbeddedStore>,
}

impl Handout {
    /// Listens in `directory`, which the caller's store has locked: what lies under that name is the rest of a scheduler
    /// that was killed.
    pub(crate) fn open(directory: &Path, store: Arc<EmbeddedStore>) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Besides the check of each peer, for everybody who looks at the directory.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path, store })
    }

    /// Until drained.
    pub(crate) async fn run(self, drain: drain::Watch) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.signaled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((peer, _)) => tokio::select! {
                    biased;
                    () = drain.signaled() => break,
                    () = self.serve(peer) => {}
                },
                Err(error) => {
                    warn!(%error, "a request for a backup could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // A socket that stays is in nobody's way: the next scheduler removes it.
        let _stays = fs::remove_file(&self.path);
    }

    async fn serve(&self, mut peer: UnixStream) {
        let user = peer.peer_cred().map(|peer| peer.uid());
        if !user.as_ref().is_ok_and(|user| *user == 0 || *user == rustix::process::geteuid().as_raw()) {
            warn!(?user, "a backup was refused to another user");
            return;
        }
        let store = Arc::clone(&self.store);
        let made = tokio::task::spawn_blocking(move || write(&store, Vec::new())).await;
        let backup = match made {
            Ok(Ok(backup)) => backup,
            Ok(Err(error)) => return warn!(error = %chain(&error), "a backup could not be made"),
            Err(error) => return warn!(%error, "a backup could not be made"),
        };
        let sent = timeout(READ_LIMIT, async {
            peer.write_all(&backup).await?;
            peer.shutdown().await
        });
        match sent.await {
            Ok(Ok(())) => info!(bytes = backup.len(), "a backup was handed out"),
            Ok(Err(error)) => warn!(%error, "a backup was not taken"),
            Err(_elapsed) => warn!(limit = ?READ_LIMIT, "a backup was not taken in time"),
        }
    }
}

/// Copies the backup that the scheduler in `directory` hands out. Whether it is whole shows when it is read; `false` when
/// nobody hands any out.
pub(super) fn fetch(directory: &Path, out: &mut impl io::Write) -> io::Result<bool> {
    let mut stream = match BlockingStream::connect(directory.join(SOCKET)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    io::copy(&mut stream, out)?;
    Ok(true)
}
