//! What somebody asked for: the part of an operation that never changes.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::id::{ApplicationId, ClusterId, InstanceId};
use crate::moment::Moment;

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// Stop the application in order to run it on another cluster.
    #[n(0)]
    Migrate,
    /// Stop the application for good and forget it.
    #[n(1)]
    Delete,
}

/// Who brings the application to life at the target and takes its remains away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Placement {
    /// The caller; Quiesce is the gate.
    #[n(0)]
    External {
        /// Rest in STOPPED until somebody confirms.
        #[n(0)]
        require_confirmation: bool,
    },
    /// The agents that stand by on the target cluster.
    #[n(1)]
    Agents,
}

/// A person or service that asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Caller {
    /// Authenticated identity.
    #[n(0)]
    pub identity: String,
    /// Why, in their words.
    #[n(1)]
    pub reason: String,
}

/// One request to migrate or delete, as accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Whom it concerns.
    #[n(0)]
    pub application: ApplicationId,
    /// What for.
    #[n(1)]
    pub kind: Kind,
    /// Where it runs.
    #[n(2)]
    pub source: ClusterId,
    /// Where to; migrations only.
    #[n(3)]
    pub target: Option<ClusterId>,
    /// Who moves it.
    #[n(4)]
    pub placement: Placement,
    /// Kill instead of stopping, give up what cannot be reached; deletions only.
    #[n(5)]
    pub force: bool,
    /// Who asked, and why.
    #[n(6)]
    pub caller: Caller,
    /// The caller's idempotency key; empty if none.
    #[n(7)]
    pub request_id: String,
    /// Labels of the operation.
    #[n(8)]
    pub labels: BTreeMap<String, String>,
    /// When it was accepted.
    #[n(9)]
    pub time: Moment,
    /// Where it stands in a distributed trace, if its caller has said so or the scheduler records one.
    #[n(10)]
    pub trace: Option<Trace>,
}

/// A place in a distributed trace. Kept with the operation, so that it outlives the process; never read here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trace {
    /// The trace, and the span the operation is a child of, as in the header `traceparent`.
    #[n(0)]
    pub parent: String,
    /// Of the tracing systems, as in the header `tracestate`; empty if none.
    #[n(1)]
    pub state: String,
}

/// An instance as the registry knew it when the request was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Which.
    pub instance: InstanceId,
    /// Where it runs or stands by.
    pub cluster: ClusterId,
    /// Lower ones stop first and start last.
    pub stop_order: i32,
    /// The epoch it was last permitted to run under; 0: none.
    pub epoch: u64,
}
