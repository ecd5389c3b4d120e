//! Tokens that callers hand back, forged ones too: each is refused, or means exactly what its bytes say, and none leads to
//! what its maker could not have asked for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use quiesce_operation::ApplicationId;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, Revision, Scan, Space, Store as _};
use uuid::Uuid;

use crate::page::{PageRequest, collect};
use crate::records::instances_of;
use crate::status::Problem;
use crate::token::{self, Purpose, ResumeToken};

/// The history that the tokens of the seeds belong to.
pub(super) const LIFE: Uuid = Uuid::from_u128(7);

/// What the tokens of the seeds are for.
pub(super) fn purpose() -> Purpose {
    Purpose::of(&["fuzzing"])
}

/// A resume token: its text, or what is under its base64.
#[must_use]
pub fn resume_token(bytes: &[u8]) -> bool {
    both_spellings(bytes, |text| match revision(text) {
        Ok(revision) => {
            assert_eq!(text, token::resume_token(purpose(), LIFE, revision), "something in it has no meaning");
            true
        }
        Err(Problem::InvalidResumeToken | Problem::ResumeTokenExpired) => false,
        Err(other) => panic!("a resume token can only be wrong as one: {other:?}"),
    })
}

/// What a resume token says; an empty text is none.
fn revision(text: &str) -> Result<Revision, Problem> {
    let token = ResumeToken::parse(text, purpose())?;
    token.map_or(Err(Problem::InvalidResumeToken), |token| token.revision_in(LIFE))
}

/// A page token: its text, or what is under its base64.
#[must_use]
pub fn page_token(bytes: &[u8]) -> bool {
    both_spellings(bytes, |text| match token::parse_page_token(text, purpose()) {
        Ok(None) => false,
        Ok(Some(last)) => {
            assert_eq!(text, token::page_token(purpose(), &last), "something in it has no meaning");
            goes_on_behind(&last);
            true
        }
        Err(Problem::InvalidPageToken) => false,
        Err(other) => panic!("a page token can only be wrong as one: {other:?}"),
    })
}

/// Mutations of text seldom meet what is inside of it, so that is tried as well.
fn both_spellings(bytes: &[u8], takes: fn(&str) -> bool) -> bool {
    let as_text = std::str::from_utf8(bytes).is_ok_and(takes);
    takes(&URL_SAFE_NO_PAD.encode(bytes)) || as_text
}

/// A listing of one application's instances goes on behind `last`, wherever that may be, and shows nobody else's.
fn goes_on_behind(last: &str) {
    let store = MemoryStore::new(LIFE);
    let ids = ["aa/db-0", "db/db-0", "db/db-1", "db/db-2", "db-x/db-0", "zz/db-0"];
    let put = |batch: Batch, id: &&str| batch.put(Space::Instances.key(id), "");
    store.commit(ids.iter().fold(Batch::new(), put)).now_or_never().expect("memory does not wait").expect("it fits");
    let all = instances_of(&ApplicationId::parse("db").expect("it is a name"));
    for reverse in [false, true] {
        // A page for everything: what follows is not another page.
        let request = PageRequest::new(0, Some(last.to_owned()), purpose());
        let look = |entry: quiesce_store::Entry| std::future::ready(Ok(entry.key.id().map(str::to_owned))).boxed();
        let page = collect(&store, request, Scan { reverse, ..all.clone() }, look);
        let page = page.now_or_never().expect("memory does not wait").expect("memory does not fail");
        let follows = |id: &&&str| if reverse { **id < last } else { **id > last };
        let mut wanted: Vec<String> = ids[1..4].iter().filter(follows).map(|id| (*id).to_owned()).collect();
        if reverse {
            wanted.reverse();
        }
        assert_eq!(page.items, wanted, "behind {last:?}");
    }
}
