//! Tokens that people, services and joining agents bring. Only a digest of the secret is stored.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use quiesce_operation::{ApplicationId, Moment};
use quiesce_store::{Key, Space};

/// What a token lets its bearer be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) enum TokenRole {
    #[n(0)]
    Viewer,
    #[n(1)]
    Operator,
    #[n(2)]
    Admin,
    /// An agent that joins, so many times.
    #[n(3)]
    Agent {
        #[n(0)]
        uses_max: u32,
    },
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TokenRecord {
    /// Its name.
    #[n(0)]
    pub(crate) id: String,
    /// SHA-256 of the whole token as it is sent. Its secret has 256 bits, so that no slower digest is needed.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(crate) digest: [u8; 32],
    /// Whose it is.
    #[n(2)]
    pub(crate) display_name: String,
    /// What for.
    #[n(3)]
    pub(crate) role: TokenRole,
    /// The only applications it is good for; empty: all.
    #[n(4)]
    pub(crate) applications: BTreeSet<ApplicationId>,
    /// How many instances have joined with it.
    #[n(5)]
    pub(crate) uses: u32,
    /// Who made it.
    #[n(6)]
    pub(crate) creator: String,
    /// When it was made.
    #[n(7)]
    pub(crate) created: Moment,
    /// From when on it is worthless.
    #[n(8)]
    pub(crate) expires: Moment,
}

impl TokenRecord {
    /// Whether it is still good for anything.
    pub(crate) fn is_good(&self, now: Moment) -> bool {
        let used_up = matches!(self.role, TokenRole::Agent { uses_max } if self.uses >= uses_max);
        now < self.expires && !used_up
    }
}

/// Key of a token.
pub(crate) fn token_key(id: &str) -> Key {
    Space::Tokens.key(id)
}
