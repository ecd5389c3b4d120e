//! What an agent proves itself with: a join token or its certificate at first, then the instance token it is given.
//!
//! Owns which of the two is sent, and where the instance token is kept over restarts. No type here shows a token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quiesce_runtime::secret_file;
use quiesce_runtime::telemetry::chain;
use tonic::metadata::{Ascii, MetadataValue};
use tracing::{error, info};

use crate::host::Files;

/// Name of the file in the state directory.
const FILE: &str = "instance.token";
/// A token has some hundred bytes.
const SIZE_MAX: u64 = 4096;

/// What an agent proves itself with. Clones share it.
#[derive(Clone, Default)]
pub struct Credential(Arc<Inner>);

#[derive(Default)]
struct Inner {
    join: Option<PathBuf>,
    kept: Option<(Arc<dyn Files>, PathBuf)>,
    held: Mutex<Option<String>>,
    /// The scheduler did not take what is held: it is worth trying to join again.
    rejected: AtomicBool,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("join", &self.0.join).finish_non_exhaustive()
    }
}

impl Credential {
    /// Nothing: for a scheduler that lets everybody in.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Joins with the token in the file `join`; keeps what it is given in `directory`, and takes up what an earlier life
    /// kept there.
    pub(crate) fn open(join: Option<PathBuf>, files: Arc<dyn Files>, directory: &Path) -> Self {
        let path = directory.join(FILE);
        let held = match files.read(&path, SIZE_MAX) {
            Ok(bytes) => String::from_utf8(bytes).ok().map(|text| text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                // Without it the agent can still join.
                error!(%error, path = %path.display(), "cannot read the credential of this instance");
                None
            }
        };
        let held = Mutex::new(held.filter(|token| !token.is_empty()));
        Self(Arc::new(Inner { join, kept: Some((files, path)), held, rejected: AtomicBool::new(false) }))
    }

    /// What to send with a call; `None`: nothing. Only with a registration does it help to join.
    ///
    /// # Errors
    /// There is no token, and why.
    pub(crate) fn authorization(&self, registering: bool) -> Result<Option<MetadataValue<Ascii>>, String> {
        let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let joins = registering && (held.is_none() || self.0.rejected.load(Ordering::Relaxed));
        let token = match &self.0.join {
            // Read every time: whoever makes another token puts it there.
            Some(path) if joins => match (secret_file::read(path), held) {
                (Ok(token), _) => Some(token),
                (Err(_), Some(held)) => Some(held),
                (Err(error), None) => return Err(chain(&error).to_string()),
            },
            // The certificate of the connection, if there is one, may do.
            None if joins => None,
            Some(_) | None => held,
        };
        let Some(token) = token else { return Ok(None) };
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_not_a_header| "the token holds characters that no token has".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The scheduler did not take what was sent. Next time it is the other one.
    pub(crate) fn was_rejected(&self) {
        self.0.rejected.fetch_xor(true, Ordering::Relaxed);
    }

    /// Keeps what the scheduler has given.
    pub(crate) async fn keep(&self, token: &str) {
        self.0.rejected.store(false, Ordering::Relaxed);
        let known = self.0.held.lock().unwrap_or_else(PoisonError::into_inner).replace(token.to_owned());
        if known.as_deref() == Some(token) {
            return;
        }
        let Some((files, path)) = &self.0.kept else { return };
        match files.replace(path, format!("{token}\n").into_bytes()).await {
            Ok(()) => info!("the scheduler knows this instance by a credential of its own now"),
            Err(error) => {
                error!(%error, path = %path.display(), "cannot keep the credential of this instance: after a restart it has to join anew");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    fn sent(credential: &Credential, registering: bool) -> Option<String> {
        let value = credential.authorization(registering).unwrap()?;
        Some(value.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn it_joins_once_and_is_itself_from_then_on_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let join = directory.path().join("join.token");
        secret_file::create(&join, "qjt1.t.x").unwrap();
        let files = Host::linux().files;
        let open = || Credential::open(Some(join.clone()), Arc::clone(&files), directory.path());
        let first = open();
        assert_eq!(sent(&first, true).as_deref(), Some("Bearer qjt1.t.x"));
        assert_eq!(sent(&first, false), None, "the join token is for joining");
        first.keep("qit1.1.a.b").await;
        assert_eq!(sent(&first, true).as_deref(), Some("Bearer qit1.1.a.b"));
        std::fs::remove_file(&join).unwrap();
        let again = open();
        assert_eq!(sent(&again, true).as_deref(), Some("Bearer qit1.1.a.b"));
        assert!(!format!("{again:?}").contains("qit1"));
    }

    #[tokio::test]
    async fn what_is_rejected_makes_room_for_the_other_and_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let join = directory.path().join("join.token");
        secret_file::create(&join, "join").unwrap();
        let credential = Credential::open(Some(join), Host::linux().files, directory.path());
        credential.keep("own").await;
        credential.was_rejected();
        assert_eq!(sent(&credential, true).as_deref(), Some("Bearer join"));
        credential.was_rejected();
        assert_eq!(sent(&credential, true).as_deref(), Some("Bearer own"));
    }

    #[tokio::test]
    async fn without_a_join_token_what_is_rejected_makes_room_for_the_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let credential = Credential::open(None, Host::linux().files, directory.path());
        credential.keep("own").await;
        credential.was_rejected();
        assert_eq!(sent(&credential, true), None);
        assert_eq!(sent(&credential, false).as_deref(), Some("Bearer own"));
        credential.was_rejected();
        assert_eq!(sent(&credential, true).as_deref(), Some("Bearer own"));
    }

    #[test]
    fn without_any_nothing_is_sent() {
        assert_eq!(sent(&Credential::none(), true), None);
    }
}
