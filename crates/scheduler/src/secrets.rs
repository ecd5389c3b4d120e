//! Secrets: the keys in the store, and the tokens derived from them or made beside them.
//!
//! There is a set of keys. A new one is made only while nobody is served, and what was begun before it keeps to the key it
//! began with: a shutdown to the one of the time its operation was accepted, a hook to that of its first registration. So
//! the same tokens are made again whenever they are needed, without a note of who has which.
//!
//! Completion tokens and hook tokens are derived (HMAC-SHA256), never stored: a restarted scheduler makes the same ones
//! again. Attach tokens are random, live for a minute in memory and are known here by their digest only. No type of
//! this module shows its secret in `Debug` or `Display`; whoever sends one calls `reveal`. What must not happen here:
//! logging, and comparing secrets in other than constant time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Encode};
use quiesce_operation::{ApplicationId, InstanceId, Moment, OperationId};
use quiesce_runtime::machine::Machine;
use quiesce_store::record::{self, Record, Upgrade};
use quiesce_store::{Batch, CommitError, Expect, ReadError, Scan, Space, Store};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Longest token the contract allows, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Where the first key lies in [`Space::Meta`]; later ones have their name behind it.
const KEY_ID: &str = "secret-key";
/// The name of the first key.
const FIRST_KID: u32 = 1;
/// Most keys at the same time. The oldest goes when there would be more, and with it whatever still keeps to it: by then
/// it is older than a year, unless somebody has made new ones on purpose.
const KEYS_MAX: usize = 8;
/// A key that is older gets a successor at the next start.
const KEY_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

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

/// The keys and what is derived from them.
pub struct Secrets {
    /// Never empty; the newest is the last.
    keys: Vec<Key>,
}

/// One of the keys.
#[derive(Clone)]
struct Key {
    kid: String,
    created: Moment,
    mac: Hmac<Sha256>,
}

/// Whether the newest key gets a successor whatever its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// When it is old.
    WhenDue,
    /// Now.
    Now,
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
    /// Loads the keys, and makes and stores one the first time and whenever one is due. Nobody may be served meanwhile.
    pub async fn load(
        store: &dyn Store,
        entropy: &mut Entropy,
        now: Moment,
        rotation: Rotation,
    ) -> Result<Self, LoadError> {
        let scan = Scan { prefix: KEY_ID.to_owned(), ..Scan::all(Space::Meta) };
        let entries = store.scan(scan).await.map_err(LoadError::Read)?;
        let mut keys = Vec::new();
        for entry in &entries {
            keys.push(record::decode::<KeyRecord>(&entry.value).map_err(LoadError::Decode)?);
        }
        keys.sort_by_key(|key| key.number());
        let due = match keys.last() {
            None => true,
            Some(newest) => rotation == Rotation::Now || now.since(newest.created()) >= KEY_LIFETIME,
        };
        if due {
            let mut bytes = [0; 32];
            entropy(&mut bytes).map_err(LoadError::Entropy)?;
            let number = keys.last().map_or(FIRST_KID, |newest| newest.number().saturating_add(1));
            let made = KeyRecord { kid: number.to_string(), key: bytes, created: Some(now) };
            let place = key_of(&made.kid);
            let mut batch = Batch::new().expect(place.clone(), Expect::Absent).put(place, record::encode(&made));
            if keys.len() >= KEYS_MAX {
                batch = batch.delete(key_of(&keys.remove(0).kid));
            }
            store.commit(batch).await.map_err(LoadError::Commit)?;
            keys.push(made);
        }
        Ok(Self { keys: keys.into_iter().map(Key::new).collect() })
    }

    fn newest(&self) -> &Key {
        self.keys.last().expect("there is always one")
    }

    /// The key of what began at `time`: the newest that was there before, or else the oldest there is. What began in the
    /// very millisecond in which one was made may have begun in the life before, and has the older one.
    fn of(&self, time: Moment) -> &Key {
        self.keys.iter().rev().find(|key| key.created < time).unwrap_or(&self.keys[0])
    }

    /// The token of one shutdown of an operation that was accepted at `accepted`. Binds operation, instance and attempt,
    /// which the id is made of.
    #[must_use]
    pub fn completion_token(&self, id: &ShutdownId, accepted: Moment) -> CompletionToken {
        self.of(accepted).completion_token(id)
    }

    /// Whether `token` is that of the shutdown `id`.
    #[must_use]
    pub fn is_completion_token(&self, id: &ShutdownId, token: &CompletionToken) -> bool {
        // Each is compared, so that the time does not tell which.
        self.keys.iter().fold(false, |found, key| key.completion_token(id).matches(token) | found)
    }

    /// The token of one listening hook that was registered first at `created`; the same over registrations.
    #[must_use]
    pub fn hook_token(&self, application: &ApplicationId, instance: &InstanceId, created: Moment) -> HookToken {
        let key = self.of(created);
        let tag = key.tag("hook", &[application.as_str(), instance.as_str()]);
        HookToken(format!("qht1.{}.{tag}", key.kid))
    }

    /// The token of one instance that has joined.
    pub(crate) fn instance_token(&self, held: &HeldCredential) -> InstanceToken {
        self.newest().instance_token(held)
    }

    /// What `sent` says, if it is the token of an instance. Whether it is still in force is for the registry to know.
    pub(crate) fn open_instance_token(&self, sent: &str) -> Option<HeldCredential> {
        if sent.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = sent.strip_prefix("qit1.")?.split('.');
        let (kid, who) = (parts.next()?, parts.next()?);
        let key = self.keys.iter().find(|key| key.kid == kid)?;
        let who = String::from_utf8(URL_SAFE_NO_PAD.decode(who).ok()?).ok()?;
        let held = HeldCredential::parse(&who)?;
        key.instance_token(&held).matches(&InstanceToken(sent.to_owned())).then_some(held)
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
        self.newest().digest("attach", &[token.reveal()])
    }
}

impl Key {
    fn new(record: KeyRecord) -> Self {
        let created = record.created();
        let mac = Hmac::new_from_slice(&record.key).expect("HMAC takes keys of every length");
        Self { kid: record.kid, created, mac }
    }

    fn completion_token(&self, id: &ShutdownId) -> CompletionToken {
        let id = id.to_string();
        CompletionToken(format!("qct1.{}.{}", self.kid, self.tag("completion", &[&id])))
    }

    fn instance_token(&self, held: &HeldCredential) -> InstanceToken {
        let who = held.to_text();
        let tag = self.tag("instance", &[&who]);
        InstanceToken(format!("qit1.{}.{}.{tag}", self.kid, URL_SAFE_NO_PAD.encode(who)))
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
        f.debug_struct("Secrets").field("kid", &self.newest().kid).finish_non_exhaustive()
    }
}

/// Where the key of that name lies.
fn key_of(kid: &str) -> quiesce_store::Key {
    if kid == FIRST_KID.to_string() {
        return Space::Meta.key(KEY_ID);
    }
    Space::Meta.key(&format!("{KEY_ID}-{kid}"))
}

/// Whether a key lies there.
pub(crate) fn is_stored_key(key: &quiesce_store::Key) -> bool {
    key.space() == Space::Meta && key.id().is_some_and(|id| id.starts_with(KEY_ID))
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
    /// When it was made; none: by a scheduler that did not write that down.
    #[n(2)]
    created: Option<Moment>,
}

impl KeyRecord {
    fn created(&self) -> Moment {
        self.created.unwrap_or(Moment::from_millis(0))
    }

    fn number(&self) -> u32 {
        self.kid.parse().unwrap_or(0)
    }
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

    async fn load(store: &MemoryStore, now: u64, rotation: Rotation) -> Secrets {
        // Other bytes in every life.
        let mut entropy = counting();
        entropy(&mut vec![0; usize::try_from(now % 97).unwrap()]).unwrap();
        Secrets::load(store, &mut entropy, Moment::from_millis(now), rotation).await.unwrap()
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[tokio::test]
    async fn a_restart_makes_the_same_tokens_and_every_part_of_the_id_counts() {
        let store = MemoryStore::new(Uuid::nil());
        let first = load(&store, 5, Rotation::WhenDue).await;
        let token = first.completion_token(&id("op-1.1.a"), at(7));
        let again = load(&store, 20, Rotation::WhenDue).await;
        assert!(again.completion_token(&id("op-1.1.a"), at(7)).matches(&token));
        for different in ["op-1.2.a", "op-2.1.a", "op-1.1.b"] {
            assert!(!again.is_completion_token(&id(different), &token), "{different}");
        }
        assert!(token.reveal().len() <= TOKEN_BYTES_MAX);
    }

    #[tokio::test]
    async fn what_was_begun_keeps_its_key_over_a_rotation_and_what_comes_later_has_the_new_one() {
        let store = MemoryStore::new(Uuid::nil());
        let (application, instance) = (ApplicationId::parse("shop").unwrap(), InstanceId::parse("a").unwrap());
        let held = HeldCredential { application: application.clone(), instance: instance.clone(), credential: 7 };
        let before = load(&store, 5, Rotation::WhenDue).await;
        let old = before.completion_token(&id("op-1.1.a"), at(7));
        let old_hook = before.hook_token(&application, &instance, at(7));
        let old_instance = before.instance_token(&held);
        let after = load(&store, 20, Rotation::Now).await;
        let again = load(&store, 30, Rotation::WhenDue).await;
        for secrets in [&after, &again] {
            assert!(secrets.completion_token(&id("op-1.1.a"), at(7)).matches(&old));
            assert!(secrets.is_completion_token(&id("op-1.1.a"), &old));
            assert!(secrets.hook_token(&application, &instance, at(7)).matches(&old_hook));
            assert_eq!(secrets.open_instance_token(old_instance.reveal()), Some(held.clone()));
            let new = secrets.completion_token(&id("op-1.1.a"), at(21));
            assert!(new.reveal().starts_with("qct1.2.") && !new.matches(&old));
            assert!(secrets.is_completion_token(&id("op-1.1.a"), &new));
            assert!(secrets.instance_token(&held).reveal().starts_with("qit1.2."));
            assert!(!secrets.hook_token(&application, &instance, at(21)).matches(&old_hook));
        }
        assert!(!before.is_completion_token(&id("op-1.1.a"), &again.completion_token(&id("op-1.1.a"), at(21))));
        // A token that claims another key than that it was made with.
        let claimed = old_instance.reveal().replacen("qit1.1.", "qit1.2.", 1);
        assert_eq!(again.open_instance_token(&claimed), None);
    }

    #[tokio::test]
    async fn a_key_is_followed_by_another_when_it_is_old_and_the_oldest_goes_in_the_end() {
        let store = MemoryStore::new(Uuid::nil());
        let lifetime = u64::try_from(KEY_LIFETIME.as_millis()).unwrap();
        let first = load(&store, 0, Rotation::WhenDue).await;
        let token = first.completion_token(&id("op-1.1.a"), at(7));
        assert_eq!(load(&store, lifetime - 1, Rotation::WhenDue).await.keys.len(), 1);
        assert_eq!(load(&store, lifetime, Rotation::WhenDue).await.keys.len(), 2);
        assert_eq!(load(&store, 2 * lifetime - 1, Rotation::WhenDue).await.keys.len(), 2);
        for number in 3..=KEYS_MAX {
            let secrets = load(&store, 2 * lifetime + u64::try_from(number).unwrap(), Rotation::Now).await;
            assert_eq!(secrets.keys.len(), number);
            assert!(secrets.is_completion_token(&id("op-1.1.a"), &token));
        }
        let last = load(&store, 3 * lifetime, Rotation::Now).await;
        assert_eq!(last.keys.len(), KEYS_MAX);
        assert!(!last.is_completion_token(&id("op-1.1.a"), &token), "its key is gone");
    }

    #[tokio::test]
    async fn secrets_are_not_printed() {
        let store = MemoryStore::new(Uuid::nil());
        let secrets = load(&store, 5, Rotation::WhenDue).await;
        let (application, instance) = (ApplicationId::parse("shop").unwrap(), InstanceId::parse("a").unwrap());
        let held = HeldCredential { application: application.clone(), instance: instance.clone(), credential: 7 };
        let shown = format!(
            "{secrets:?} {:?} {:?} {:?} {:?} {:?}",
            secrets.completion_token(&id("op-1.1.a"), at(7)),
            secrets.hook_token(&application, &instance, at(7)),
            secrets.instance_token(&held),
            Secrets::attach_token(&mut counting()).unwrap(),
            BearerToken::made("qbt1.t01.secret".to_owned()),
        );
        let expected = "CompletionToken(..) HookToken(..) InstanceToken(..) AttachToken(..) BearerToken(..)";
        assert_eq!(shown, format!(r#"Secrets {{ kid: "1", .. }} {expected}"#));
    }

    #[tokio::test]
    async fn the_stored_key_is_printed_neither_on_its_way_to_the_store_nor_back() {
        let store = MemoryStore::new(Uuid::nil());
        load(&store, 5, Rotation::WhenDue).await;
        let entries = store.scan(Scan::all(Space::Meta)).await.unwrap();
        let batch = Batch::new().put(entries[0].key.clone(), entries[0].value.clone());
        let shown = format!("{entries:?} {batch:?}");
        assert!(shown.contains("bytes") && shown.contains(KEY_ID), "{shown}");
        // The key counts up, see `counting`, and `Bytes` would show that as text with escapes.
        let stored = format!("{:?}", entries[0].value);
        let middle = &stored[stored.len() / 2..stored.len() / 2 + 8];
        assert!(!shown.contains(middle) && stored.contains(middle), "{shown}");
    }
}
