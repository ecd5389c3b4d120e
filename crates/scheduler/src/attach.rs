//! Dialling in, the scheduler's side: one line each way, then the roles are reversed.
//!
//! Owns attach tokens (a minute, one connection) and the preface; rules A1, A2 and the limits of
//! `proto/quiesce/v1/agent_gateway.proto`. What becomes of the connection afterwards is the business of
//! [`crate::hooks`]. Everything up to a valid token comes from strangers.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use quiesce_operation::{ApplicationId, InstanceId};
use quiesce_runtime::machine::Socket;

use crate::hooks::{Hooks, Name};
use crate::secrets::{AttachToken, Entropy, EntropyError, Secrets};

/// Longest preface line, its end included; of the contract.
const LINE_BYTES_MAX: usize = 512;
/// Longest wait for the preface line: it is sent with the first packet.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a token is good; rule A2.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// Most tokens one instance has outstanding, the newest ones: one for each of a few hasty registrations. Bounds them
/// all, since instances are bounded by the registry.
const TOKENS_PER_INSTANCE_MAX: usize = 4;
/// Beginning of the line an agent sends.
const PREFACE: &str = "QUIESCE/1 ATTACH ";
/// The line that says yes.
const OK_LINE: &str = "QUIESCE/1 OK\r\n";

/// Takes agents that dial in. Cheap to clone.
#[derive(Clone)]
pub struct Attachments {
    hooks: Hooks,
    secrets: Arc<Secrets>,
    outstanding: Arc<Mutex<Outstanding>>,
}

struct Outstanding {
    entropy: Entropy,
    /// By digest: looking one up compares no secrets.
    tokens: HashMap<[u8; 32], Issued>,
    by_instance: HashMap<Name, Vec<[u8; 32]>>,
}

struct Issued {
    name: Name,
    until: Instant,
}

/// Why an agent was sent away.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It did not say in time what it wants.
    #[error("no preface line in time")]
    Slow,
    /// It says something else than agents do.
    #[error("not a preface line")]
    Malformed,
    /// It is not expected.
    #[error("attach token is wrong, used or expired")]
    Token,
    /// It is gone.
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
}

impl Refusal {
    /// Code and reason of the line that says no; none where nobody would read it.
    pub(crate) fn line(&self) -> Option<&'static str> {
        match self {
            Self::Slow | Self::Malformed => Some("QUIESCE/1 ERROR INVALID_ARGUMENT INVALID_FIELD\r\n"),
            Self::Token => Some("QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n"),
            Self::Broken(_) => None,
        }
    }
}

impl Attachments {
    /// Nobody is expected yet.
    #[must_use]
    pub fn new(hooks: Hooks, secrets: Arc<Secrets>, entropy: Entropy) -> Self {
        let outstanding = Outstanding { entropy, tokens: HashMap::new(), by_instance: HashMap::new() };
        Self { hooks, secrets, outstanding: Arc::new(Mutex::new(outstanding)) }
    }

    /// A token for an instance that has just registered to dial in.
    pub fn issue(&self, application: &ApplicationId, instance: &InstanceId) -> Result<AttachToken, EntropyError> {
        let mut outstanding = self.outstanding();
        let token = Secrets::attach_token(&mut outstanding.entropy)?;
        let digest = self.secrets.attach_digest(&token);
        outstanding.add((application.clone(), instance.clone()), digest, Instant::now());
        Ok(token)
    }

    /// Serves one connection whose first byte is `Q`, which has not been read yet. Returns when the hook behind it is
    /// attached or has been sent away.
    ///
    /// # Errors
    /// Why it was sent away.
    pub async fn attach(&self, mut socket: impl Socket, peer: impl Display) -> Result<(), Refusal> {
        let name = match self.admit(&mut socket).await {
            Ok(name) => name,
            Err(refusal) => {
                debug!(%peer, reason = %refusal, "agent was sent away");
                if let Some(line) = refusal.line() {
                    let goodbye = async {
                        say(&mut socket, line).await?;
                        // In TLS an end that is not announced looks like one that was forged.
                        socket.shutdown().await
                    };
                    // A stranger who does not read it has nothing to complain of.
                    let _told = timeout(LINE_TIMEOUT, goodbye).await;
                }
                return Err(refusal);
            }
        };
        let (application, instance) = (name.0.as_str(), name.1.as_str());
        match self.hooks.attach(&name, socket).await {
            Ok(()) => info!(%peer, application, instance, "agent is attached"),
            Err(error) => info!(%peer, application, instance, %error, "agent could not be attached"),
        }
        Ok(())
    }

    /// Reads the preface, spends the token, says yes.
    pub(crate) async fn admit(&self, socket: &mut impl Socket) -> Result<Name, Refusal> {
        let line = timeout(LINE_TIMEOUT, read_line(socket)).await.map_err(|_elapsed| Refusal::Slow)??;
        let token = line.strip_prefix(PREFACE).and_then(AttachToken::parse).ok_or(Refusal::Malformed)?;
        let digest = self.secrets.attach_digest(&token);
        let name = self.outstanding().spend(&digest, Instant::now()).ok_or(Refusal::Token)?;
        match timeout(LINE_TIMEOUT, say(socket, OK_LINE)).await {
            Ok(told) => told.map_err(Refusal::Broken)?,
            Err(_elapsed) => return Err(Refusal::Slow),
        }
        Ok(name)
    }

    fn outstanding(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outstanding {
    fn add(&mut self, name: Name, digest: [u8; 32], now: Instant) {
        self.tokens.retain(|_, issued| issued.until > now);
        let tokens = &self.tokens;
        self.by_instance.retain(|_, digests| {
            digests.retain(|digest| tokens.contains_key(digest));
            !digests.is_empty()
        });
        let digests = self.by_instance.entry(name.clone()).or_default();
        if digests.len() >= TOKENS_PER_INSTANCE_MAX {
            self.tokens.remove(&digests.remove(0));
        }
        digests.push(digest);
        self.tokens.insert(digest, Issued { name, until: now + TOKEN_LIFETIME });
    }

    /// Good for one connection: whatever comes of it, the token is gone.
    fn spend(&mut self, digest: &[u8; 32], now: Instant) -> Option<Name> {
        self.tokens.remove(digest).filter(|issued| issued.until > now).map(|issued| issued.name)
    }
}

/// Reads up to the end of the line and not a byte further: what follows belongs to HTTP/2.
async fn read_line(socket: &mut impl Socket) -> Result<String, Refusal> {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    while line.len() < LINE_BYTES_MAX {
        line.push(socket.read_u8().await.map_err(Refusal::Broken)?);
        if let Some(line) = line.strip_suffix(b"\r\n") {
            return String::from_utf8(line.to_vec()).map_err(|_not_text| Refusal::Malformed);
        }
    }
    Err(Refusal::Malformed)
}

async fn say(socket: &mut impl Socket, line: &str) -> std::io::Result<()> {
    socket.write_all(line.as_bytes()).await?;
    socket.flush().await
}

#[cfg(test)]
mod tests {
    use quiesce_runtime::machine::Machine;

    use super::*;

    fn name() -> Name {
        (ApplicationId::parse("shop").unwrap(), InstanceId::parse("a").unwrap())
    }

    fn none() -> Outstanding {
        let entropy = crate::secrets::entropy_of(&Machine::local());
        Outstanding { entropy, tokens: HashMap::new(), by_instance: HashMap::new() }
    }

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (mut outstanding, now) = (none(), Instant::now());
        outstanding.add(name(), [1; 32], now);
        assert_eq!(outstanding.spend(&[2; 32], now), None);
        assert_eq!(outstanding.spend(&[1; 32], now), Some(name()));
        assert_eq!(outstanding.spend(&[1; 32], now), None);
        outstanding.add(name(), [3; 32], now);
        assert_eq!(outstanding.spend(&[3; 32], now + TOKEN_LIFETIME), None);
    }

    #[test]
    fn hasty_registrations_keep_the_newest_tokens_only() {
        let (mut outstanding, now) = (none(), Instant::now());
        for number in 0..10 {
            outstanding.add(name(), [number; 32], now);
        }
        assert_eq!(outstanding.tokens.len(), TOKENS_PER_INSTANCE_MAX);
        assert_eq!(outstanding.spend(&[0; 32], now), None);
        assert_eq!(outstanding.spend(&[9; 32], now), Some(name()));
        outstanding.add(name(), [10; 32], now + TOKEN_LIFETIME);
        assert_eq!(outstanding.tokens.len(), 1, "expired ones are swept out");
    }

    #[tokio::test]
    async fn the_line_is_read_to_its_end_and_no_further() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"QUIESCE/1 ATTACH t\r\nPRI").await.unwrap();
        assert_eq!(read_line(&mut near).await.unwrap(), "QUIESCE/1 ATTACH t");
        assert_eq!(near.read_u8().await.unwrap(), b'P');
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(&[b'Q'; 600]).await.unwrap();
        assert!(matches!(read_line(&mut near).await, Err(Refusal::Malformed)));
    }
}
