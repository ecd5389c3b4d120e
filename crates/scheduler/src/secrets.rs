//! Secrets: the key in the store, and the tokens derived from it or made beside it.
//!
//! Completion tokens and hook tokens are derived (HMAC-SHA256), never stored: a restarted scheduler makes the same ones
//! again. Attach tokens are random, live for a minute in memory and are known here by their digest only. No type of
//! this module shows its secret in `Debug` or `Display`; whoever sends one calls `reveal`. What must not happen here:
//! logging, and comparing secrets in other than constant time.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Encode};
use quiesce_operation::{ApplicationId, InstanceId, OperationId};
use quiesce_runtime::machine::Machine;
use quiesce_store::record::{self, Record, Upgrade};
use quiesce_store::{Batch, CommitError, Expect, ReadError, Space, Store};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Longest token the contract allows, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Where the key lies in [`Space::Meta`].
const KEY_ID: &str = "secret-key";
/// The name of the first key; a rotation would make a second one beside it.
const FIRST_KID: &str = "1";

/// Fills a buffer with bytes nobody can guess. Comes in from outside, so that tests are repeatable.
pub type Entropy = Box<dyn FnMut(&mut [u8]) -> Result<(), EntropyError> + Send>;

/// The machine gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the machine gives no random bytes")]
pub struct EntropyError(#[source] std::io::Error);

/// Random bytes of `machine`.
#[must_use]
pub fn entropy_of(machine: &Machine) -> Entropy {
    let entropy = Arc::clone(&machine.entropy);
    Box::new(move |buffer| entropy.fill(buffer).map_err(EntropyError))
}

/// Names one shutdown on the wire: `{operation}.{attempt}.{instance}`. At most 40 + 1 + 10 + 1 + 63 characters, all of
/// the alphabet the contract allows; an operation id holds no dot, so the parts are found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShutdownId {
    /// The operation it belongs to.
    pub operation: OperationId,
    /// The fence of the attempt, as the machine counts it.
    pub attempt: u32,
    /// The instance to stop.
    pub instance: InstanceId,
}

impl ShutdownId {
    /// Reads what `Display` wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let id = Self {
            operation: OperationId::parse(parts.next()?).ok()?,
            attempt: parts.next()?.parse().ok()?,
            instance: InstanceId::parse(parts.next()?).ok()?,
        };
        // One id, one spelling: "+1" and "01" are numbers too.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for ShutdownId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.operation, self.attempt, self.instance)
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(String);

        impl $type {
            /// Takes a token somebody sent; `None` if it cannot be one by its length.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                (!text.is_empty() && text.len() <= TOKEN_BYTES_MAX).then(|| Self(text.to_owned()))
            }

            /// The secret itself, to be sent and to be put nowhere else.
            #[must_use]
            pub fn reveal(&self) -> &str {
                &self.0
            }

            /// Compares in a time that depends on the lengths only.
            #[must_use]
            pub fn matches(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    };
}

token!(
    /// Proves that a result belongs to one very shutdown: `qct1.<kid>.<mac>`.
    CompletionToken
);
token!(
    /// What the scheduler sends to a listening hook as `authorization: Bearer`: `qht1.<kid>.<mac>`.
    HookToken
);
token!(
    /// Opens one attached connection, within a minute: `qat1.<random>`.
    AttachToken
);

token!(
    /// What people, services and joining agents prove themselves with: `qbt1.<id>.<secret>`, `qjt1.<id>.<secret>`.
    BearerToken
);
token!(
    /// What an instance that has joined proves itself with: `qit1.<kid>.<who>.<mac>`.
    InstanceToken
);

impl BearerToken {
    /// One that was made just now.
    pub(crate) fn made(text: String) -> Self {
        Self(text)
    }
}

/// What a valid [`InstanceToken`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldCredential {
    pub(crate) application: ApplicationId,
    pub(crate) instance: InstanceId,
    /// Which of the credentials that the instance had in its life.
    pub(crate) credential: u64,
}

impl HeldCredential {
    fn to_text(&self) -> String {
        format!("{}/{}/{:016x}", self.application, self.instance, self.credential)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let held = Self {
            application: ApplicationId::parse(parts.next()?).ok()?,
            instance: InstanceId::parse(parts.next()?).ok()?,
            credential: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        (held.to_text() == text).then_some(held)
    }
}

/// The key and what is derived from it.
pub struct Secrets {
    kid: String,
    mac: Hmac<Sha256>,
}

/// Why the key is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store cannot be read.
    #[error("cannot read the secret key")]
    Read(#[source] ReadError),
    /// The stored key is damaged.
    #[error("cannot decode the secret key")]
    Decode(#[source] record::DecodeError),
    /// A new key could not be stored.
    #[error("cannot store a new secret key")]
    Commit(#[source] CommitError),
    /// A new key could not be made.
    #[error("cannot make a new secret key")]
    Entropy(#[source] EntropyError),
}

impl Secrets {
    /// Loads the key, or makes and stores one the first time.
    pub async fn load(store: &dyn Store, entropy: &mut Entropy) -> Result<Self, LoadError> {
        let key = stored_key();
        if let Some(entry) = store.get(key.clone()).await.map_err(LoadError::Read)? {
            return record::decode(&entry.value).map(Self::new).map_err(LoadError::Decode);
        }
        let mut bytes = [0; 32];
        entropy(&mut bytes).map_err(LoadError::Entropy)?;
        let made = KeyRecord { kid: FIRST_KID.to_owned(), key: bytes };
        let batch = Batch::new().expect(key.clone(), Expect::Absent).put(key, record::encode(&made));
        store.commit(batch).await.map_err(LoadError::Commit)?;
        Ok(Self::new(made))
    }

    fn new(record: KeyRecord) -> Self {
        let mac = Hmac::new_from_slice(&record.key).expect("HMAC takes keys of every length");
        Self { kid: record.kid, mac }
    }

    /// The token of one shutdown. Binds operation, instance and attempt, which the id is made of.
    #[must_use]
    pub fn completion_token(&self, id: &ShutdownId) -> CompletionToken {
        let id = id.to_string();
        CompletionToken(format!("qct1.{}.{}", self.kid, self.tag("completion", &[&id])))
    }

    /// The token of one listening hook; the same over registrations.
    #[must_use]
    pub fn hook_token(&self, application: &ApplicationId, instance: &InstanceId) -> HookToken {
        let tag = self.tag("hook", &[application.as_str(), instance.as_str()]);
        HookToken(format!("qht1.{}.{tag}", self.kid))
    }

    /// The token of one instance that has joined.
    pub(crate) fn instance_token(&self, held: &HeldCredential) -> InstanceToken {
        let who = held.to_text();
        let tag = self.tag("instance", &[&who]);
        InstanceToken(format!("qit1.{}.{}.{tag}", self.kid, URL_SAFE_NO_PAD.encode(who)))
    }

    /// What `sent` says, if it is the token of an instance. Whether it is still in force is for the registry to know.
    pub(crate) fn open_instance_token(&self, sent: &str) -> Option<HeldCredential> {
        if sent.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = sent.strip_prefix("qit1.")?.split('.');
        let (_kid, who) = (parts.next()?, parts.next()?);
        let who = String::from_utf8(URL_SAFE_NO_PAD.decode(who).ok()?).ok()?;
        let held = HeldCredential::parse(&who)?;
        self.instance_token(&held).matches(&InstanceToken(sent.to_owned())).then_some(held)
    }

    /// A new attach token.
    pub(crate) fn attach_token(entropy: &mut Entropy) -> Result<AttachToken, EntropyError> {
        let mut bytes = [0; 32];
        entropy(&mut bytes)?;
        Ok(AttachToken(format!("qat1.{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// What an attach token is known by: keyed, so that looking it up tells nothing about the secret, however the
    /// lookup compares.
    pub(crate) fn attach_digest(&self, token: &AttachToken) -> [u8; 32] {
        self.digest("attach", &[token.reveal()])
    }

    fn tag(&self, purpose: &str, parts: &[&str]) -> String {
        URL_SAFE_NO_PAD.encode(self.digest(purpose, parts))
    }

    /// Every part is followed by a byte that no name holds, so that no two lists of parts give the same message.
    fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        for part in std::iter::once(&purpose).chain(parts) {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Where the key lies.
pub(crate) fn stored_key() -> quiesce_store::Key {
    Space::Meta.key(KEY_ID)
}

/// Whether that is a key as it is stored.
pub(crate) fn check_stored(bytes: &[u8]) -> Result<(), record::DecodeError> {
    record::decode::<KeyRecord>(bytes).map(drop)
}

/// The key as stored.
#[derive(Encode, Decode)]
struct KeyRecord {
    #[n(0)]
    kid: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    key: [u8; 32],
}

impl Record for KeyRecord {
    const KIND: &'static str = "secret-key";
    const VERSION: u16 = 1;
    const UPGRADES: &'static [Upgrade] = &[];
}

#[cfg(test)]
mod tests {
    use quiesce_store::memory::MemoryStore;
    use uuid::Uuid;

    use super::*;

    fn counting() -> Entropy {
        let mut next = 0_u8;
        Box::new(move |buffer| {
            for byte in buffer {
                next = next.wrapping_add(1);
                *byte = next;
            }
            Ok(())
        })
    }

    fn id(text: &str) -> ShutdownId {
        ShutdownId::parse(text).unwrap()
    }

    #[test]
    fn shutdown_ids_come_back_from_their_text_and_nothing_else_does() {
        assert_eq!(id("op-1.12.db-0.zone").instance.as_str(), "db-0.zone");
        for bad in
            ["", "op-1", "op-1.1", "op-1.1.", "op-1.01.db", "op-1.+1.db", "op-1.-1.db", "op-1.4294967296.db", "1.1.db"]
        {
            assert_eq!(ShutdownId::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_restart_makes_the_same_tokens_and_every_part_of_the_id_counts() {
        let store = MemoryStore::new(Uuid::nil());
        let first = Secrets::load(&store, &mut counting()).await.unwrap();
        let token = first.completion_token(&id("op-1.1.a"));
        let mut other = counting();
        other(&mut [0; 7]).unwrap();
        let again = Secrets::load(&store, &mut other).await.unwrap();
        assert!(again.completion_token(&id("op-1.1.a")).matches(&token));
        for different in ["op-1.2.a", "op-2.1.a", "op-1.1.b"] {
            assert!(!again.completion_token(&id(different)).matches(&token), "{different}");
        }
        assert!(token.reveal().len() <= TOKEN_BYTES_MAX);
    }

    #[tokio::test]
    async fn secrets_are_not_printed() {
        let store = MemoryStore::new(Uuid::nil());
        let secrets = Secrets::load(&store, &mut counting()).await.unwrap();
        let token = secrets.completion_token(&id("op-1.1.a"));
        let shown = format!("{secrets:?} {token:?}");
        assert_eq!(shown, r#"Secrets { kid: "1", .. } CompletionToken(..)"#);
    }
}
