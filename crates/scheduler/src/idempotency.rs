//! Request ids: whether a request was accepted before, and remembering one together with what it leads to.
//!
//! The id is written in the very batch that accepts the request, so there is no moment in which one is durable without
//! the other, and of twenty parallel calls nineteen find what the first one led to.

use std::time::Duration;

use minicbor::Encode;
use quiesce_operation::Moment;
use quiesce_store::{Batch, Expect, Key, Store};
use sha2::{Digest as _, Sha256};

use crate::driver::RequestIdWrite;
use crate::records::{OperationRecord, RequestIdRecord, RequestResult, Stored, load, operation_key, put, request_key};
use crate::status::Problem;

/// How long an id is remembered at least; longer while the operation it led to exists.
pub(crate) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The id of one request, and what the request says.
#[derive(Debug, Clone)]
pub(crate) struct RequestId {
    key: Key,
    id: String,
    content: [u8; 32],
}

/// Whether an id was used.
#[derive(Debug)]
pub(crate) enum Use {
    /// Not yet, or so long ago that it may be used again; what to expect of its key.
    Free(Expect),
    /// By the same request.
    Taken(RequestResult),
}

impl RequestId {
    /// The id of a request; `None` if it has none. `content` is everything else the request says, in an encoding that
    /// is the same for the same content.
    pub(crate) fn of<T: Encode<()>>(method: &str, caller: &str, id: &str, content: &T) -> Option<Self> {
        if id.is_empty() {
            return None;
        }
        let content = Sha256::digest(quiesce_store::record::to_cbor(content)).into();
        Some(Self { key: request_key(method, caller, id), id: id.to_owned(), content })
    }

    /// Looks it up.
    ///
    /// # Errors
    /// [`Problem::RequestIdConflict`] if it was used for something else.
    pub(crate) async fn look_up(&self, store: &dyn Store, now: Moment) -> Result<Use, Problem> {
        let Some(found) = load::<RequestIdRecord>(store, self.key.clone()).await? else {
            return Ok(Use::Free(Expect::Absent));
        };
        if is_expired(store, &found, now).await? {
            return Ok(Use::Free(found.unchanged()));
        }
        if found.record.content != self.content {
            return Err(Problem::RequestIdConflict(self.id.clone()));
        }
        Ok(Use::Taken(found.record.result))
    }

    /// Adds to `batch` that the id is used from now on, given that it still is as `expect` says.
    pub(crate) fn remember(&self, batch: Batch, expect: Expect, result: RequestResult, now: Moment) -> Batch {
        let record = RequestIdRecord { content: self.content, result, time: now };
        put(batch.expect(self.key.clone(), expect), self.key.clone(), &record)
    }

    /// The same for a batch that the driver makes; the driver expects the key to be absent.
    pub(crate) fn write(&self, result: RequestResult, now: Moment) -> RequestIdWrite {
        let record = RequestIdRecord { content: self.content, result, time: now };
        RequestIdWrite { key: self.key.clone(), record: quiesce_store::record::encode(&record) }
    }
}

/// Whether an id may be forgotten.
pub(crate) async fn is_expired(
    store: &dyn Store,
    found: &Stored<RequestIdRecord>,
    now: Moment,
) -> Result<bool, Problem> {
    if now.since(found.record.time) < RETENTION {
        return Ok(false);
    }
    match &found.record.result {
        RequestResult::Operation(id) => Ok(load::<OperationRecord>(store, operation_key(id)).await?.is_none()),
        RequestResult::Application(_) | RequestResult::Cluster(_) => Ok(true),
    }
}
