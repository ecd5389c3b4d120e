//! Tokens: made, listed, revoked, recognised.
//!
//! A token is `qbt1.<id>.<secret>` (people and services) or `qjt1.<id>.<secret>` (agents that join), the secret 256 random
//! bits. The store has a digest of the whole text. The prefixes let scanners for leaked secrets find them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quiesce_operation::{ApplicationId, Moment};
use quiesce_runtime::clock::Clock;
use quiesce_runtime::durable;
use quiesce_store::{Batch, CommitError, Expect, Scan, Space, Store};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Access, Config, Mode, Principal};
use crate::convert;
use crate::records::{LoadError, Stored, TokenRecord, TokenRole, load, load_all, put, token_key};
use crate::secrets::{BearerToken, Entropy, EntropyError, TOKEN_BYTES_MAX};
use crate::status::Problem;

/// Most tokens: far more than there are people and services, and few enough to be read at every creation.
const TOKENS_MAX: usize = 10_000;
/// How long the first token of an administrator is good. Whoever replaces it by one of his own revokes it.
const FIRST_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// Bytes of a token's name: enough never to meet by chance.
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// What somebody wants a token for; checked.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) display_name: String,
    pub(crate) role: TokenRole,
    pub(crate) applications: BTreeSet<ApplicationId>,
    pub(crate) lifetime: Duration,
}

/// Why the first token of an administrator could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstTokenError {
    /// The machine gives no random bytes.
    #[error("cannot make a token")]
    Entropy(#[source] EntropyError),
    /// Nobody could read it.
    #[error("cannot write the first admin token to {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The tokens that are there cannot be read.
    #[error("cannot read the tokens")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It could not be stored.
    #[error("cannot store the first admin token")]
    Commit(#[source] CommitError),
}

impl Access {
    /// Makes a token and says it, once.
    pub(crate) async fn create_token(
        &self,
        draft: Draft,
        creator: &Principal,
    ) -> Result<(TokenRecord, BearerToken), Problem> {
        // Two at the same time may exceed the bound by one, which is no harm.
        let known = load_all::<TokenRecord>(&*self.store, Scan::all(Space::Tokens)).await?;
        if known.len() >= TOKENS_MAX {
            return Err(Problem::LimitExceeded { limit: "tokens" });
        }
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        self.fill(&mut bytes)?;
        let (record, token) = make(draft, &bytes, creator.name.clone(), convert::now(&*self.clock));
        self.store.commit(creation(&record)).await?;
        Ok((record, token))
    }

    /// Makes a token worthless.
    pub(crate) async fn revoke_token(&self, id: &str) -> Result<(), Problem> {
        let key = token_key(id);
        let found: Option<Stored<TokenRecord>> = load(&*self.store, key.clone()).await?;
        if found.is_none() {
            return Err(Problem::TokenNotFound(format!("tokens/{id}")));
        }
        // Whatever has changed in it meanwhile goes with it.
        self.store.commit(Batch::new().delete(key)).await?;
        Ok(())
    }
}

/// In a store that is enforced and knows no administrator: makes a token for one and writes it to the file for it. Says
/// whether it did.
pub(crate) async fn first_admin(
    config: &Config,
    store: &dyn Store,
    clock: &dyn Clock,
    entropy: &mut Entropy,
) -> Result<bool, FirstTokenError> {
    let Some(path) = config.admin_token_file.as_deref().filter(|_| config.mode == Mode::Enforced) else {
        return Ok(false);
    };
    let now = convert::now(clock);
    let read = |error: LoadError| FirstTokenError::Read(Box::new(error));
    let known = load_all::<TokenRecord>(store, Scan::all(Space::Tokens)).await.map_err(read)?;
    let is_admin = |one: &Stored<TokenRecord>| {
        one.record.role == TokenRole::Admin && one.record.applications.is_empty() && one.record.is_good(now)
    };
    if config.has_admin() || known.iter().any(is_admin) {
        return Ok(false);
    }
    let mut bytes = [0; ID_BYTES + SECRET_BYTES];
    (*entropy)(&mut bytes).map_err(FirstTokenError::Entropy)?;
    let draft = Draft {
        display_name: "first admin".to_owned(),
        role: TokenRole::Admin,
        applications: BTreeSet::new(),
        lifetime: FIRST_LIFETIME,
    };
    let (record, token) = make(draft, &bytes, "the scheduler".to_owned(), now);
    // The file first: a token that is stored and that nobody could read would be the last one ever.
    write(path, token.reveal()).map_err(|source| FirstTokenError::Write { path: path.to_owned(), source })?;
    store.commit(creation(&record)).await.map_err(FirstTokenError::Commit)?;
    Ok(true)
}

fn make(draft: Draft, bytes: &[u8], creator: String, now: Moment) -> (TokenRecord, BearerToken) {
    let (id, secret) = bytes.split_at(ID_BYTES);
    // Names of resources begin with a letter.
    let id = id.iter().fold("t".to_owned(), |id, byte| format!("{id}{byte:02x}"));
    let prefix = match draft.role {
        TokenRole::Agent { .. } => "qjt1",
        TokenRole::Viewer | TokenRole::Operator | TokenRole::Admin => "qbt1",
    };
    let token = BearerToken::made(format!("{prefix}.{id}.{}", URL_SAFE_NO_PAD.encode(secret)));
    let record = TokenRecord {
        digest: digest(token.reveal()),
        id,
        display_name: draft.display_name,
        role: draft.role,
        applications: draft.applications,
        uses: 0,
        creator,
        created: now,
        expires: now + draft.lifetime,
    };
    (record, token)
}

fn creation(record: &TokenRecord) -> Batch {
    let key = token_key(&record.id);
    put(Batch::new().expect(key.clone(), Expect::Absent), key, record)
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn write(path: &Path, secret: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    durable::replace(path, format!("{secret}\n").as_bytes())
}

/// The name of the token that `sent` claims to be.
pub(super) fn id_of(sent: &str) -> Option<&str> {
    let rest = sent.strip_prefix("qbt1.").or_else(|| sent.strip_prefix("qjt1."))?;
    let (id, _) = rest.split_once('.')?;
    (sent.len() <= TOKEN_BYTES_MAX && id.chars().all(|c| c.is_ascii_alphanumeric())).then_some(id)
}

/// Whether `sent` is that token, in a time that tells nothing.
pub(super) fn matches(token: &TokenRecord, sent: &str) -> bool {
    token.digest.ct_eq(&digest(sent)).into()
}
