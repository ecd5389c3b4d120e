//! Opaque tokens that callers hand back: where a listing goes on, where a watch goes on.
//!
//! They are no secrets and prove nothing: whoever makes one up gets what he could have asked for anyway. They say what
//! they were made for, so that one used elsewhere is noticed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::{Decode, Encode};
use quiesce_store::Revision;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::status::Problem;

/// Longest token that is looked at; ours are far shorter.
const TOKEN_MAX: usize = 2048;
/// The first field of every token; another number is another layout.
const VERSION: u8 = 1;

/// Says what a token was made for: a hash of method, parent and filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Purpose(#[n(0)] u64);

impl Purpose {
    /// The purpose that consists of these words.
    pub(crate) fn of(words: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for word in words {
            hash.update((word.len() as u64).to_be_bytes());
            hash.update(word.as_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

#[derive(Encode, Decode)]
struct PageToken {
    #[n(0)]
    version: u8,
    #[n(1)]
    purpose: Purpose,
    /// Id of the last record of the page before.
    #[n(2)]
    last: String,
}

/// The token of the page behind the record `last`.
pub(crate) fn page_token(purpose: Purpose, last: &str) -> String {
    encode(&PageToken { version: VERSION, purpose, last: last.to_owned() })
}

/// The id of the last record before the page of `token`; none for the first page, which has no token.
///
/// # Errors
/// [`Problem::InvalidPageToken`] for garbage and for tokens of another purpose.
pub(crate) fn parse_page_token(token: &str, purpose: Purpose) -> Result<Option<String>, Problem> {
    if token.is_empty() {
        return Ok(None);
    }
    let found: PageToken = decode(token).ok_or(Problem::InvalidPageToken)?;
    let fits = found.version == VERSION && found.purpose == purpose;
    if fits { Ok(Some(found.last)) } else { Err(Problem::InvalidPageToken) }
}

/// Where a watch goes on, in a history that may be another one.
#[derive(Debug, Encode, Decode)]
pub(crate) struct ResumeToken {
    #[n(0)]
    version: u8,
    #[n(1)]
    purpose: Purpose,
    #[cbor(n(2), with = "minicbor::bytes")]
    life: [u8; 16],
    #[n(3)]
    revision: u64,
}

/// The token that goes on behind `revision` in the history `life`.
pub(crate) fn resume_token(purpose: Purpose, life: Uuid, revision: Revision) -> String {
    encode(&ResumeToken { version: VERSION, purpose, life: life.into_bytes(), revision: revision.as_u64() })
}

impl ResumeToken {
    /// What `token` says; nothing if it is empty.
    ///
    /// # Errors
    /// [`Problem::InvalidResumeToken`] for garbage and for tokens of another purpose.
    pub(crate) fn parse(token: &str, purpose: Purpose) -> Result<Option<Self>, Problem> {
        if token.is_empty() {
            return Ok(None);
        }
        let found: Self = decode(token).ok_or(Problem::InvalidResumeToken)?;
        let fits = found.version == VERSION && found.purpose == purpose;
        if fits { Ok(Some(found)) } else { Err(Problem::InvalidResumeToken) }
    }

    /// The revision behind which it goes on in the history `life`.
    ///
    /// # Errors
    /// [`Problem::ResumeTokenExpired`] for another life.
    pub(crate) fn revision_in(&self, life: Uuid) -> Result<Revision, Problem> {
        if self.life == life.into_bytes() { Ok(Revision::new(self.revision)) } else { Err(Problem::ResumeTokenExpired) }
    }
}

fn encode<T: Encode<()>>(token: &T) -> String {
    URL_SAFE_NO_PAD.encode(quiesce_store::record::to_cbor(token))
}

fn decode<T: Encode<()> + for<'b> Decode<'b, ()>>(token: &str) -> Option<T> {
    // What exactly is wrong with a token that is not ours interests nobody: the answer is always the same.
    let bytes = URL_SAFE_NO_PAD.decode(token.get(..TOKEN_MAX.min(token.len())).filter(|cut| cut.len() == token.len())?);
    let found = quiesce_store::record::from_cbor(&bytes.ok()?).ok()?;
    // A token has one spelling. Another one says something beside our fields, and to pass over that would be to guess.
    (encode(&found) == token).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_goes_on_in_its_own_watch_and_life_only() {
        let (mine, other) = (Purpose::of(&["watch", "a"]), Purpose::of(&["watch", "b"]));
        let life = Uuid::from_u128(1);
        let token = resume_token(mine, life, Revision::new(7));
        let read = ResumeToken::parse(&token, mine).unwrap().unwrap();
        assert_eq!(read.revision_in(life).unwrap(), Revision::new(7));
        assert!(matches!(read.revision_in(Uuid::from_u128(2)), Err(Problem::ResumeTokenExpired)));
        assert!(matches!(ResumeToken::parse(&token, other), Err(Problem::InvalidResumeToken)));
        for garbage in ["x", "!!", &token[1..], &"a".repeat(5000)] {
            assert!(matches!(ResumeToken::parse(garbage, mine), Err(Problem::InvalidResumeToken)), "{garbage}");
        }
    }

    #[test]
    fn a_page_token_is_no_resume_token_and_belongs_to_one_listing() {
        let (mine, other) = (Purpose::of(&["list", "x"]), Purpose::of(&["list", "y"]));
        let token = page_token(mine, "shop");
        assert_eq!(parse_page_token(&token, mine).unwrap().as_deref(), Some("shop"));
        assert!(matches!(parse_page_token(&token, other), Err(Problem::InvalidPageToken)));
        assert!(matches!(ResumeToken::parse(&token, mine), Err(Problem::InvalidResumeToken)));
    }

    #[test]
    fn a_token_that_says_more_than_ours_do_is_not_ours() {
        let mine = Purpose::of(&["list", "x"]);
        let mut bytes = URL_SAFE_NO_PAD.decode(page_token(mine, "shop")).unwrap();
        assert_eq!(bytes[0], 0x83, "an array of three");
        bytes[0] = 0x84;
        bytes.push(7);
        let token = URL_SAFE_NO_PAD.encode(bytes);
        assert!(matches!(parse_page_token(&token, mine), Err(Problem::InvalidPageToken)));
    }

    #[test]
    fn words_of_a_purpose_do_not_run_together() {
        assert_ne!(Purpose::of(&["ab", "c"]), Purpose::of(&["a", "bc"]));
    }
}
