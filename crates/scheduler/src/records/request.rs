//! Request ids that were used, so that a repeated request gets what the first one led to.

use minicbor::{Decode, Encode};
use quiesce_operation::{ApplicationId, ClusterId, Moment, OperationId};
use quiesce_store::{Key, Space};

/// What the first request led to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum RequestResult {
    /// An operation; the id is remembered at least as long as it exists.
    #[n(0)]
    Operation(#[n(0)] OperationId),
    /// An application as stored.
    #[n(1)]
    Application(#[n(0)] ApplicationId),
    /// A cluster as stored.
    #[n(2)]
    Cluster(#[n(0)] ClusterId),
}

/// A request id that was used up by an accepted request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RequestIdRecord {
    /// SHA-256 of the content, so that the same id with other content is noticed.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) content: [u8; 32],
    /// What it led to.
    #[n(1)]
    pub(crate) result: RequestResult,
    /// When it was accepted.
    #[n(2)]
    pub(crate) time: Moment,
}

/// Key of a request id: its scope is the method and the caller. Neither holds a `/` that could shift the parts: methods
/// are ours, request ids have no `/`, and a caller's identity stands between the first and the last.
pub(crate) fn request_key(method: &str, caller: &str, request_id: &str) -> Key {
    Space::Requests.key(&format!("{method}/{caller}/{request_id}"))
}
