//! One instance that is to be started: a target of a migration, or a source on the way back.

use minicbor::{Decode, Encode};

use crate::failure::Failure;
use crate::id::{ClusterId, InstanceId};
use crate::member::{Again, Probing};
use crate::moment::Moment;
use crate::pace::Pace;
use crate::report::{Capabilities, StartReport};

/// Where the start of one instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum StartRun {
    /// Not ordered.
    #[n(0)]
    Waiting,
    /// Ordered, not over.
    #[n(1)]
    Ordered {
        /// When it has to be ready.
        #[n(0)]
        until: Moment,
        /// When the next report has to be there; then the start is joined anew.
        #[n(1)]
        heard_until: Moment,
        /// When to join again, if the call broke.
        #[n(2)]
        again: Option<Again>,
    },
    /// It runs and is ready.
    #[n(2)]
    Ready,
    /// It did not come up, or nobody can tell.
    #[n(3)]
    Failed,
}

/// One instance that is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StartMember {
    /// Which.
    #[n(0)]
    pub instance: InstanceId,
    /// Where.
    #[n(1)]
    pub cluster: ClusterId,
    /// Higher ones start first: the reverse of stopping.
    #[n(2)]
    pub stop_order: i32,
    /// A source that is started again.
    #[n(3)]
    pub rollback: bool,
    /// Permission to run, and fence; 0 before it was ordered.
    #[n(4)]
    pub epoch: u64,
    /// What its hook can do, as far as known.
    #[n(5)]
    pub capabilities: Capabilities,
    /// The probe before anything is stopped.
    #[n(6)]
    pub probing: Probing,
    /// Where it stands.
    #[n(7)]
    pub run: StartRun,
    /// When it was ordered.
    #[n(8)]
    pub ordered: Option<Moment>,
    /// Latest report.
    #[n(9)]
    pub report: Option<StartReport>,
    /// What went wrong.
    #[n(10)]
    pub failure: Option<Failure>,
    /// What was shown of its progress; forgotten over a restart.
    #[cbor(skip)]
    pub(crate) pace: Pace,
}

impl StartMember {
    /// An instance that nobody has asked anything yet.
    #[must_use]
    pub fn new(instance: InstanceId, cluster: ClusterId, stop_order: i32, rollback: bool) -> Self {
        Self {
            instance,
            cluster,
            stop_order,
            rollback,
            epoch: 0,
            capabilities: Capabilities::default(),
            probing: Probing::Idle,
            run: StartRun::Waiting,
            ordered: None,
            report: None,
            failure: None,
            pace: Pace::default(),
        }
    }

    /// Whether the order is out and not answered for good.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        match self.run {
            StartRun::Ordered { .. } => true,
            StartRun::Waiting | StartRun::Ready | StartRun::Failed => false,
        }
    }

    /// Whether it runs and is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.run == StartRun::Ready
    }

    /// When it has to be ready, while it is being started.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match self.run {
            StartRun::Ordered { until, .. } => Some(until),
            StartRun::Waiting | StartRun::Ready | StartRun::Failed => None,
        }
    }

    /// Every moment at which it wants to be looked at.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Moment> + '_ {
        let probe = match &self.probing {
            Probing::Asked { until, again, .. } => [Some(*until), again.map(|again| again.at)],
            Probing::Idle | Probing::Good | Probing::Bad { .. } => [None, None],
        };
        let run = match &self.run {
            StartRun::Ordered { until, heard_until, again } => {
                [Some(*until), Some(*heard_until), again.map(|again| again.at)]
            }
            StartRun::Waiting | StartRun::Ready | StartRun::Failed => [None; 3],
        };
        probe.into_iter().chain(run).flatten()
    }
}
