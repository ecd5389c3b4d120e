//! One instance that is to be stopped: its facts, its timers, and how reports move them.
//!
//! A member knows nothing of its siblings or of the operation's state; [`crate::operation`] decides when it is asked.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::failure::Failure;
use crate::id::{ClusterId, InstanceId};
use crate::moment::Moment;
use crate::pace::Pace;
use crate::policy::Policy;
use crate::report::{Capabilities, StopReport};
use crate::request::Registered;

/// First pause before joining a shutdown or start again after its call broke.
pub const REJOIN_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between joins: an agent that restarts is found again within this time.
pub const REJOIN_MAX: Duration = Duration::from_secs(2);
/// How long an agent that dials in may take to come back: the longest pause of rule A5 of the contract, 30 s + 20 %. To
/// judge earlier would be to fail an attempt, and signal an application once more, for our own absence.
pub const RECONNECT_MAX: Duration = Duration::from_secs(36);
/// How long a hook that is heard again after a recovery has for the report behind the first, before an old deadline is
/// judged: the first one may just repeat how things stood.
pub(crate) const FINISH_SPEAKING: Duration = Duration::from_secs(1);

/// A call that broke and will be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Again {
    /// When to call.
    #[n(0)]
    pub at: Moment,
    /// The pause that led to `at`; the next one is twice as long, up to [`REJOIN_MAX`].
    #[n(1)]
    pub pause: Duration,
}

impl Again {
    /// The pause after `previous`, or the first one.
    #[must_use]
    pub fn after(previous: Option<Self>, now: Moment) -> Self {
        let pause = previous.map_or(REJOIN_FIRST, |again| again.pause.saturating_mul(2).min(REJOIN_MAX));
        Self { at: now + pause, pause }
    }
}

/// A kill that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Kill {
    /// When the application has to be gone, or, before the hook has answered, when the hook has to have answered.
    #[n(0)]
    pub until: Moment,
    /// Whether the hook has said that the signals are out.
    #[n(1)]
    pub answered: bool,
    /// When to ask again, if the call broke.
    #[n(2)]
    pub again: Option<Again>,
}

/// A probe of the hook.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Probing {
    /// Not asked.
    #[n(0)]
    Idle,
    /// Asked, not answered.
    #[n(1)]
    Asked {
        /// When the answer has to be there.
        #[n(0)]
        until: Moment,
        /// When to ask again, if the call broke.
        #[n(1)]
        again: Option<Again>,
        /// What broke it, in words for people.
        #[n(2)]
        trouble: Option<String>,
    },
    /// Answered to our satisfaction.
    #[n(2)]
    Good,
    /// Answered otherwise, or not at all.
    #[n(3)]
    Bad {
        /// What is wrong.
        #[n(0)]
        failure: Failure,
    },
}

/// Where the stop of one instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Run {
    /// Not asked to stop in this attempt.
    #[n(0)]
    Waiting,
    /// Shutdown has been called, no report yet.
    #[n(1)]
    Calling {
        /// When the first report has to be there.
        #[n(0)]
        until: Moment,
        /// When to call again, if the call broke.
        #[n(1)]
        again: Option<Again>,
        /// Kill it as soon as the hook has accepted.
        #[n(2)]
        then_kill: bool,
    },
    /// The hook has accepted; the application has not ended.
    #[n(2)]
    Running {
        /// When the next report has to be there.
        #[n(0)]
        heard_until: Moment,
        /// The stream was silent too long once and is being joined anew.
        #[n(1)]
        silent: bool,
        /// When to join again, if the call broke.
        #[n(2)]
        again: Option<Again>,
        /// A kill under way.
        #[n(3)]
        kill: Option<Kill>,
    },
    /// Ended; the end is verified.
    #[n(3)]
    Stopped,
    /// Given up as unverified by a caller's override.
    #[n(4)]
    Unverified,
    /// This attempt is over and has not stopped it.
    #[n(5)]
    Failed,
}

/// The present or last shutdown of one instance: one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Shutdown {
    /// Fence of its effects and answers, and the attempt number the hook sees: rises over all rounds of the operation.
    #[n(0)]
    pub fence: u32,
    /// Total grace period in force, extensions included.
    #[n(1)]
    pub grace: Duration,
    /// How much of `grace` was granted on top.
    #[n(2)]
    pub extension: Duration,
    /// When the hook accepted, on the scheduler's timeline; the grace period counts from here.
    #[n(3)]
    pub accepted: Option<Moment>,
    /// Latest report.
    #[n(4)]
    pub report: Option<StopReport>,
    /// When it came.
    #[n(5)]
    pub heard: Option<Moment>,
    /// The largest wish that was not granted in full, so that a repeated wish is refused once.
    #[n(6)]
    pub denied: Option<Duration>,
}

impl Shutdown {
    /// When the grace period in force ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.accepted.map(|accepted| accepted + self.grace)
    }
}

/// One instance that is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Which.
    #[n(0)]
    pub instance: InstanceId,
    /// Where it runs.
    #[n(1)]
    pub cluster: ClusterId,
    /// Lower ones stop first.
    #[n(2)]
    pub stop_order: i32,
    /// The epoch it runs under.
    #[n(3)]
    pub epoch: u64,
    /// What its hook can do, as far as known.
    #[n(4)]
    pub capabilities: Capabilities,
    /// The probe before a stop, or the look back after it.
    #[n(5)]
    pub probing: Probing,
    /// Where its stop stands.
    #[n(6)]
    pub run: Run,
    /// Attempt within the round in which it was last asked; 0: never.
    #[n(7)]
    pub attempt: u32,
    /// The present or last shutdown.
    #[n(8)]
    pub shutdown: Option<Shutdown>,
    /// Whether the application has been told to stop, in any attempt.
    #[n(9)]
    pub told: bool,
    /// What went wrong last.
    #[n(10)]
    pub failure: Option<Failure>,
    /// Whether the hook has been told what becomes of it.
    #[n(11)]
    pub concluded: bool,
    /// What was shown of its progress; forgotten over a restart.
    #[cbor(skip)]
    pub(crate) pace: Pace,
    /// When withheld progress is due.
    #[cbor(skip)]
    pub(crate) progress_due: Option<Moment>,
    /// Time given after a recovery to hear what happened meanwhile, before an old deadline is judged.
    #[cbor(skip)]
    pub(crate) judge_not_before: Option<Moment>,
}

impl Member {
    /// A member that nobody has asked anything yet.
    #[must_use]
    pub fn new(registered: Registered) -> Self {
        let Registered { instance, cluster, stop_order, epoch } = registered;
        Self {
            instance,
            cluster,
            stop_order,
            epoch,
            capabilities: Capabilities::default(),
            probing: Probing::Idle,
            run: Run::Waiting,
            attempt: 0,
            shutdown: None,
            told: false,
            failure: None,
            concluded: false,
            pace: Pace::default(),
            progress_due: None,
            judge_not_before: None,
        }
    }

    /// Whether a shutdown is under way.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        match self.run {
            Run::Calling { .. } | Run::Running { .. } => true,
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => false,
        }
    }

    /// Whether it has ended, verified or by override.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self.run {
            Run::Stopped | Run::Unverified => true,
            Run::Waiting | Run::Calling { .. } | Run::Running { .. } | Run::Failed => false,
        }
    }

    /// Whether the attempt on it has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.run == Run::Failed
    }

    /// Whether it has ended in a way that the policy wants a person to look at.
    pub(crate) fn failure_holds(&self) -> bool {
        self.is_verified() && self.failure.is_some()
    }

    /// Whether its end is proven.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.run == Run::Stopped
    }

    /// The fence of the present or last shutdown; 0: none.
    #[must_use]
    pub fn fence(&self) -> u32 {
        self.shutdown.as_ref().map_or(0, |shutdown| shutdown.fence)
    }

    /// When its grace period ends, while one runs.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match self.run {
            Run::Running { .. } => self.shutdown.as_ref().and_then(Shutdown::deadline),
            Run::Waiting | Run::Calling { .. } | Run::Stopped | Run::Unverified | Run::Failed => None,
        }
    }

    /// How long its hook watches on after the end, and says nothing of the end before: no time of the application.
    pub(crate) fn settling(&self, settle_period: Duration) -> Duration {
        if self.capabilities.settle { settle_period } else { Duration::ZERO }
    }

    /// The deadline that counts: with the time to settle, and after a recovery not before the hook had a chance to speak.
    pub(crate) fn grace_deadline(&self, settle_period: Duration) -> Option<Moment> {
        // With a kill under way the kill's own timer decides.
        if let Run::Running { kill: Some(_), .. } = self.run {
            return None;
        }
        let deadline = self.deadline()? + self.settling(settle_period);
        Some(self.judge_not_before.map_or(deadline, |floor| deadline.max(floor)))
    }

    /// Whether the shutdown was accepted and has no result: it can be joined, and a late result still counts.
    #[must_use]
    pub fn has_open_shutdown(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| {
            shutdown.accepted.is_some() && shutdown.report.as_ref().is_some_and(|report| report.result.is_none())
        })
    }

    /// Every moment at which this member wants to be looked at.
    pub(crate) fn deadlines(&self, settle_period: Duration) -> impl Iterator<Item = Moment> + '_ {
        let probe = match &self.probing {
            Probing::Asked { until, again, .. } => [Some(*until), again.map(|again| again.at)],
            Probing::Idle | Probing::Good | Probing::Bad { .. } => [None, None],
        };
        let run = match &self.run {
            Run::Calling { until, again, .. } => [Some(*until), again.map(|again| again.at), None, None],
            Run::Running { heard_until, again, kill, .. } => [
                Some(*heard_until),
                again.map(|again| again.at),
                kill.map(|kill| kill.until),
                kill.and_then(|kill| kill.again).map(|again| again.at),
            ],
            Run::Waiting | Run::Stopped | Run::Unverified | Run::Failed => [None; 4],
        };
        probe.into_iter().chain(run).chain([self.grace_deadline(settle_period), self.progress_due]).flatten()
    }

    /// What a wish for `wanted` in total leads to under `policy`: the new total, and whether it is all that was wanted.
    /// `None`: the total in force does not change, and nothing new was refused.
    pub(crate) fn consider_wish(&mut self, wanted: Duration, policy: &Policy) -> Option<(Duration, bool)> {
        let shutdown = self.shutdown.as_mut()?;
        if wanted <= shutdown.grace {
            return None;
        }
        let limit = policy.grace_period + policy.max_extension;
        let total = wanted.min(limit).max(shutdown.grace);
        let granted = total == wanted;
        let grows = total > shutdown.grace;
        let refused_anew = !granted && shutdown.denied.is_none_or(|denied| wanted > denied);
        if grows {
            shutdown.extension = shutdown.extension.saturating_add(total - shutdown.grace);
            shutdown.grace = total;
        }
        if !granted {
            shutdown.denied = Some(shutdown.denied.map_or(wanted, |denied| denied.max(wanted)));
        }
        (grows || refused_anew).then_some((total, granted))
    }
}
