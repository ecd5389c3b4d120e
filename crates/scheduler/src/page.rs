//! Pages of listings: sizes, tokens, and walking a space of the store until a page of matching resources is full.

use futures::future::BoxFuture;
use prost::Message;
use quiesce_store::{Entry, Key, SCAN_MAX, Scan, Store};

use crate::records::LoadError;
use crate::rpc::MESSAGE_BYTES_MAX;
use crate::status::Problem;
use crate::token::{Purpose, page_token};

/// Size of a page when the caller does not say.
pub(crate) const PAGE_DEFAULT: usize = 50;
/// Largest page: more than a person reads, and with usual resources (a few hundred bytes) far below a message's limit.
pub(crate) const PAGE_MAX: usize = 500;
/// Most bytes of a page of large resources, which can have 140 KB each: what the contract allows a message, less some room
/// for the token.
const PAGE_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 4096;
/// What a resource takes in a page beside its own bytes: tag and length.
const ITEM_OVERHEAD: usize = 8;
/// Most records one call looks at. A filter that matches little gets short pages with a token, instead of one call that
/// reads everything.
const LOOKED_AT_MAX: usize = 10 * SCAN_MAX;

/// What a caller wants of a listing.
#[derive(Debug)]
pub(crate) struct PageRequest {
    size: usize,
    purpose: Purpose,
    last: Option<String>,
}

impl PageRequest {
    /// The page of at most `size` resources (0: as many as usual) behind the record `last`.
    pub(crate) fn new(size: usize, last: Option<String>, purpose: Purpose) -> Self {
        let size = if size == 0 { PAGE_DEFAULT } else { size.min(PAGE_MAX) };
        Self { size, purpose, last }
    }
}

/// A page and the token of the next, empty on the last.
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_page_token: String,
}

/// Walks `scan` from where `request` says and keeps what `look` makes of the entries.
pub(crate) async fn collect<'a, T, F>(
    store: &dyn Store,
    request: PageRequest,
    mut scan: Scan,
    mut look: F,
) -> Result<Page<T>, Problem>
where
    T: Message,
    F: FnMut(Entry) -> BoxFuture<'a, Result<Option<T>, Problem>>,
{
    let PageRequest { size, purpose, last } = request;
    scan.limit = SCAN_MAX.min(size.saturating_mul(2).max(64));
    let mut position = last.map(|id| scan.space.key(&id));
    let mut items: Vec<T> = Vec::new();
    let (mut looked_at, mut bytes) = (0, 0);
    loop {
        go_on_behind(&mut scan, position.clone());
        let entries = store.scan(scan.clone()).await.map_err(|error| Problem::from(LoadError::Read(error)))?;
        let full = entries.len() == scan.page_max();
        looked_at += entries.len();
        for entry in entries {
            let key = entry.key.clone();
            let item = look(entry).await?;
            bytes += item.as_ref().map_or(0, |item| item.encoded_len() + ITEM_OVERHEAD);
            let page_is_full = items.len() == size || bytes > PAGE_BYTES_MAX && !items.is_empty();
            if item.is_some() && page_is_full {
                // There is one more: the page ends before it.
                return Ok(Page { items, next_page_token: token(purpose, position.as_ref()) });
            }
            items.extend(item);
            position = Some(key);
        }
        if !full {
            return Ok(Page { items, next_page_token: String::new() });
        }
        if looked_at >= LOOKED_AT_MAX {
            return Ok(Page { items, next_page_token: token(purpose, position.as_ref()) });
        }
    }
}

fn go_on_behind(scan: &mut Scan, position: Option<Key>) {
    if scan.reverse {
        scan.before = position;
    } else {
        scan.after = position;
    }
}

fn token(purpose: Purpose, position: Option<&Key>) -> String {
    position.and_then(Key::id).map(|id| page_token(purpose, id)).unwrap_or_default()
}
