//! Records of the registry: applications, instances, clusters, and what remains of deleted applications.
//!
//! Counts and states that follow from other records are not stored; see [`crate::registry`].

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use quiesce_operation::{
    ApplicationId, ClusterId, InstanceId, Moment, OperationId, Placement, PolicyOverrides, Registered,
};

/// A stateful application. Its etag is the revision of this record.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(crate) struct ApplicationRecord {
    /// Its name.
    #[n(0)]
    pub(crate) name: ApplicationId,
    /// For people.
    #[n(1)]
    pub(crate) display_name: String,
    /// Where it runs.
    #[n(2)]
    pub(crate) cluster: ClusterId,
    /// Its own part of the policy.
    #[n(3)]
    pub(crate) policy: PolicyOverrides,
    /// Who moves it.
    #[n(4)]
    pub(crate) placement: Placement,
    /// How many instances there ought to be.
    #[n(5)]
    pub(crate) expected_instances: Option<u32>,
    /// Free labels.
    #[n(6)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The operation that holds it. Written in the operation's own batches.
    #[n(7)]
    pub(crate) active_operation: Option<OperationId>,
    /// The highest epoch handed out so far.
    #[n(8)]
    pub(crate) epoch: u64,
    /// When it was made known.
    #[n(9)]
    pub(crate) created: Moment,
    /// Last change.
    #[n(10)]
    pub(crate) updated: Moment,
    /// The migration that brought it to `cluster`; set by the operation's last batch. Until an instance registers
    /// there the application counts as stopped.
    #[n(11)]
    pub(crate) moved_by: Option<OperationId>,
    /// When the store was put back from a backup, if nobody has confirmed since where the application runs. Until then
    /// nothing of it is started or stopped: see [`crate::upkeep`].
    #[n(12)]
    pub(crate) restored: Option<Moment>,
}

/// Who opens the connection to a hook.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Connect {
    /// The hook listens here; the scheduler dials.
    #[n(0)]
    Listen {
        /// `host:port`, `[v6]:port` or `unix:/path`.
        #[n(0)]
        endpoint: String,
    },
    /// The agent dials in.
    #[n(1)]
    DialIn,
}

/// The last permission to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Admission {
    /// The agent that asked.
    #[n(0)]
    pub(crate) agent_id: String,
    /// Its name for that start; for a start by an operation, the operation's name.
    #[n(1)]
    pub(crate) start_id: String,
    /// The permission.
    #[n(2)]
    pub(crate) epoch: u64,
    /// Whether the end of that run is known: reported, or verified by an operation (whose last batch says so).
    #[n(3)]
    pub(crate) ended: bool,
}

/// One replica and how to reach its hook.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct InstanceRecord {
    /// Of which application.
    #[n(0)]
    pub(crate) application: ApplicationId,
    /// Its name within the application.
    #[n(1)]
    pub(crate) instance: InstanceId,
    /// Who opens the connection.
    #[n(2)]
    pub(crate) connect: Connect,
    /// Where it runs or stands by.
    #[n(3)]
    pub(crate) cluster: ClusterId,
    /// Lower ones stop first.
    #[n(4)]
    pub(crate) stop_order: i32,
    /// Free labels.
    #[n(5)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Identity of the agent; empty if it has none.
    #[n(6)]
    pub(crate) agent_id: String,
    /// The epoch it was last permitted to run under; 0: none.
    #[n(7)]
    pub(crate) epoch: u64,
    /// The last permission to start, by AdmitStart or by an operation.
    #[n(8)]
    pub(crate) admission: Option<Admission>,
    /// When it was made known.
    #[n(9)]
    pub(crate) created: Moment,
    /// Last change.
    #[n(10)]
    pub(crate) updated: Moment,
    /// Names the credential that was given to the agent that joined last; none if no agent has.
    #[n(11)]
    pub(crate) credential: Option<u64>,
}

impl InstanceRecord {
    /// What an operation needs to know of it.
    #[must_use]
    pub(crate) fn registered(&self) -> Registered {
        Registered {
            instance: self.instance.clone(),
            cluster: self.cluster.clone(),
            stop_order: self.stop_order,
            epoch: self.epoch,
        }
    }
}

/// A place where instances run. Its etag is the revision of this record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ClusterRecord {
    /// Its name.
    #[n(0)]
    pub(crate) name: ClusterId,
    /// For people.
    #[n(1)]
    pub(crate) display_name: String,
    /// Free labels.
    #[n(2)]
    pub(crate) labels: BTreeMap<String, String>,
    /// When it was made known.
    #[n(3)]
    pub(crate) created: Moment,
    /// Last change.
    #[n(4)]
    pub(crate) updated: Moment,
}

/// Says that an application was deleted, so that a held agent of it does not bring it back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TombstoneRecord {
    /// By which operation.
    #[n(0)]
    pub(crate) operation: OperationId,
    /// When.
    #[n(1)]
    pub(crate) time: Moment,
    /// The highest epoch of its life; a new life begins above it.
    #[n(2)]
    pub(crate) epoch: u64,
}
