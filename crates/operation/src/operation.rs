//! One operation: its states, how one follows another, and everything about it that is stored.
//!
//! Inputs change facts about members; then the operation *advances*: it looks at the facts and moves on as far as they
//! allow. So the order in which answers come in does not matter, and a transition is written down once.

mod advice;
mod commands;
mod drive;
mod finalizing;
mod forcing;
mod listening;
mod preparing;
mod recovering;
mod restoring;
mod rolling_back;
mod starting;
mod state;
mod stopping;

use std::time::Duration;

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::failure::{Failure, Override, OverrideKind, Reason};
use crate::id::{InstanceId, OperationId};
use crate::member::{Member, Run};
use crate::moment::Moment;
use crate::policy::{FailureStrategy, Policy};
use crate::request::{Caller, Kind, Placement, Registered, Request};
use crate::start::StartMember;
use crate::step::{Event, EventKind, Step};

pub use state::{Closing, Counts, StateName};
use state::{Stage, State};

/// Highest epoch a hook is believed. A registry that counts starts never gets near it; a hook that speaks of a higher one
/// would use up the numbers of its application.
pub(crate) const EPOCH_BELIEVED_MAX: u64 = 1 << 62;

/// Highest epoch that is taken from a store. Registries and hooks lead up to [`EPOCH_BELIEVED_MAX`]; from there on the
/// starts of one operation never get this far, and from here on counting could not overflow in anybody's lifetime.
const EPOCH_STORED_MAX: u64 = 1 << 63;
/// The same for rounds, attempts and fences: one a second for 68 years.
const COUNT_STORED_MAX: u32 = 1 << 31;

/// What is wrong with a number beyond these two. Public for those who count on from the last one that is taken.
pub const COUNTED_TOO_FAR: &str = "a count that nobody can have reached";

/// Stored data that cannot be an operation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("stored operation {operation} is broken: {what}")]
pub struct RestoreError {
    /// Which operation.
    pub operation: OperationId,
    /// What is wrong with it.
    pub what: &'static str,
}

/// One migration or deletion, from acceptance to its end.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Operation {
    #[n(0)]
    id: OperationId,
    #[n(1)]
    request: Request,
    #[n(2)]
    policy: Policy,
    #[n(3)]
    state: State,
    #[n(4)]
    message: String,
    #[n(5)]
    round: u32,
    #[n(6)]
    attempt: u32,
    /// Attempts over all rounds: the source of fences.
    #[n(7)]
    tries: u32,
    /// Fence of probes.
    #[n(8)]
    serial: u32,
    #[n(9)]
    members: Vec<Member>,
    #[n(10)]
    starts: Vec<StartMember>,
    /// Targets that are stopped again on the way back.
    #[n(11)]
    undo: Vec<Member>,
    /// The highest epoch of the application.
    #[n(12)]
    epoch: u64,
    #[n(13)]
    failure: Option<Failure>,
    #[n(14)]
    overrides: Vec<Override>,
    #[n(15)]
    point_of_no_return: Option<Moment>,
    #[n(16)]
    updated: Moment,
    #[n(17)]
    ended: Option<Moment>,
    #[n(18)]
    superseded_by: Option<OperationId>,
    /// Time spent before the last rest in DEGRADED.
    #[n(19)]
    spent: Duration,
    /// Since when time is being spent; none while resting.
    #[n(20)]
    since: Option<Moment>,
    /// This round goes to FORCING straight away.
    #[n(21)]
    forced: bool,
    /// Somebody has asked to take it back.
    #[n(22)]
    cancel_requested: bool,
    /// Time given after a recovery to hear what happened meanwhile, before `overall_timeout` is judged.
    #[cbor(skip)]
    judge_not_before: Option<Moment>,
}

/// Reading.
impl Operation {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// What was asked for.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> StateName {
        match self.state {
            State::Pending => StateName::Pending,
            State::Preparing => StateName::Preparing,
            State::Stopping => StateName::Stopping,
            State::BackingOff { .. } => StateName::BackingOff,
            State::Forcing => StateName::Forcing,
            State::Stopped { .. } => StateName::Stopped,
            State::Starting => StateName::Starting,
            State::Finalizing { .. } => StateName::Finalizing,
            State::Cancelling { .. } => StateName::Cancelling,
            State::RollingBack => StateName::RollingBack,
            State::Degraded { .. } => StateName::Degraded,
            State::Succeeded => StateName::Succeeded,
            State::Cancelled => StateName::Cancelled,
            State::RolledBack => StateName::RolledBack,
            State::Abandoned => StateName::Abandoned,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state().is_final()
    }

    /// One line for people about the state.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// 1, and one more for each retry.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round
    }

    /// The running or last attempt of the round; 0 before the first.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The instances that are to be stopped.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Targets that are being stopped again on the way back.
    #[must_use]
    pub fn undo(&self) -> &[Member] {
        &self.undo
    }

    /// The instances that are started: targets, then sources on the way back.
    #[must_use]
    pub fn starts(&self) -> &[StartMember] {
        &self.starts
    }

    /// The member or undone target of that name.
    #[must_use]
    pub fn member(&self, instance: &InstanceId) -> Option<&Member> {
        self.undo.iter().chain(&self.members).find(|member| member.instance == *instance)
    }

    /// The start of that name and epoch.
    #[must_use]
    pub fn start(&self, instance: &InstanceId, epoch: u64) -> Option<&StartMember> {
        self.starts.iter().find(|start| start.instance == *instance && start.epoch == epoch)
    }

    /// The highest epoch of the application, as far as this operation knows.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Why it is DEGRADED, or what went wrong last.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Every explicit override.
    #[must_use]
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// When the first instance passed the point of no return.
    #[must_use]
    pub fn point_of_no_return(&self) -> Option<Moment> {
        self.point_of_no_return
    }

    /// Last change of anything but progress.
    #[must_use]
    pub fn updated(&self) -> Moment {
        self.updated
    }

    /// When it became done.
    #[must_use]
    pub fn ended(&self) -> Option<Moment> {
        self.ended
    }

    /// The operation that took over.
    #[must_use]
    pub fn superseded_by(&self) -> Option<&OperationId> {
        self.superseded_by.as_ref()
    }

    /// Latest deadline among the instances being stopped.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.members.iter().chain(&self.undo).filter_map(Member::deadline).max()
    }

    /// When the next attempt begins, while backing off.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Moment> {
        if let State::BackingOff { until } = self.state { Some(until) } else { None }
    }

    /// Whether it rests in STOPPED for a confirmation.
    #[must_use]
    pub fn awaits_confirmation(&self) -> bool {
        matches!(self.state, State::Stopped { confirmed: false }) && self.requires_confirmation()
    }

    /// Instances by how far they are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for member in &self.members {
            let slot = match member.run {
                Run::Waiting => &mut counts.waiting,
                Run::Calling { .. } | Run::Running { .. } => &mut counts.stopping,
                Run::Stopped => &mut counts.stopped,
                Run::Unverified => &mut counts.unverified,
                Run::Failed => &mut counts.failed,
            };
            *slot += 1;
        }
        counts
    }

    /// What the registry has to be told; none while it is not done.
    #[must_use]
    pub fn closing(&self) -> Option<Closing> {
        match self.state() {
            StateName::Succeeded => Some(match (self.request.kind, &self.request.target) {
                (Kind::Migrate, Some(cluster)) => Closing::Moved {
                    cluster: cluster.clone(),
                    forget_source: matches!(self.request.placement, Placement::External { .. }),
                },
                (Kind::Migrate, None) | (Kind::Delete, _) => Closing::Removed,
            }),
            StateName::Cancelled | StateName::RolledBack | StateName::Abandoned => Some(Closing::Kept),
            StateName::Pending
            | StateName::Preparing
            | StateName::Stopping
            | StateName::BackingOff
            | StateName::Forcing
            | StateName::Stopped
            | StateName::Starting
            | StateName::Finalizing
            | StateName::Cancelling
            | StateName::RollingBack
            | StateName::Degraded => None,
        }
    }
}

/// Beginning.
impl Operation {
    /// A newly accepted operation. `members` are stopped; `targets` are started afterwards (migrations with placement
    /// `agents` only). `epoch` is the highest epoch of the application. Nothing happens before [`crate::Input::Begin`].
    #[must_use]
    pub fn accept(
        id: OperationId,
        request: Request,
        policy: Policy,
        members: Vec<Registered>,
        targets: Vec<Registered>,
        epoch: u64,
    ) -> (Self, Vec<Event>) {
        let now = request.time;
        let mut overrides = Vec::new();
        if request.force {
            overrides.push(overriding(OverrideKind::Force, &request.caller, now, None));
        }
        // An epoch of its own: by it hooks tell a command of this operation from one of an operation before.
        let epoch = members.iter().chain(&targets).map(|one| one.epoch).fold(epoch, u64::max) + 1;
        let operation = Self {
            id,
            policy,
            state: State::Pending,
            message: "accepted".to_owned(),
            round: 1,
            attempt: 0,
            tries: 0,
            serial: 0,
            members: members.into_iter().map(|member| Member::new(Registered { epoch, ..member })).collect(),
            starts: targets
                .into_iter()
                .map(|target| StartMember::new(target.instance, target.cluster, target.stop_order, false))
                .collect(),
            undo: Vec::new(),
            epoch,
            failure: None,
            overrides,
            point_of_no_return: None,
            updated: now,
            ended: None,
            superseded_by: None,
            spent: Duration::ZERO,
            since: Some(now),
            forced: request.force,
            cancel_requested: false,
            judge_not_before: None,
            request,
        };
        let mut step = Step::default();
        operation.emit(now, EventKind::Created, None, None, "accepted", &mut step);
        (operation, step.events)
    }

    /// Whether this data can be an operation: what was read from a store is input like any other.
    pub fn validate(&self) -> Result<(), RestoreError> {
        let broken = |what| Err(RestoreError { operation: self.id.clone(), what });
        if self.round == 0 {
            return broken("round 0");
        }
        let counts = [self.round, self.attempt, self.tries, self.serial];
        if self.epoch > EPOCH_STORED_MAX || counts.into_iter().any(|count| count > COUNT_STORED_MAX) {
            return broken(COUNTED_TOO_FAR);
        }
        let all_have_ended = self.members.iter().all(Member::has_ended);
        if self.is_behind_the_gate() && !all_have_ended {
            return broken("an instance behind the gate that has not ended");
        }
        if self.request.kind == Kind::Migrate && self.request.target.is_none() {
            return broken("a migration without a target");
        }
        if self.ended.is_some() != self.is_done() {
            return broken("an end without a final state, or the other way round");
        }
        if self.members.iter().chain(&self.undo).any(|member| member.fence() > self.tries) {
            return broken("a fence from the future");
        }
        if self.starts.iter().any(|start| start.epoch > self.epoch) {
            return broken("an epoch from the future");
        }
        if !self.policy.violations().is_empty() {
            return broken("a policy out of bounds");
        }
        if self.members.iter().chain(&self.undo).any(|member| member.is_in_flight() && member.shutdown.is_none()) {
            return broken("a shutdown under way that nothing is known of");
        }
        if self.starts.iter().any(|start| start.is_in_flight() && start.epoch == 0) {
            return broken("a start without permission");
        }
        let targets = self.starts.iter().filter(|start| !start.rollback).map(|start| &start.instance);
        let mut names: Vec<_> = self.members.iter().map(|member| &member.instance).chain(targets).collect();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return broken("an instance twice");
        }
        Ok(())
    }
}

impl Operation {
    /// Whether its state says that everything has ended.
    fn is_behind_the_gate(&self) -> bool {
        match self.state {
            State::Stopped { .. } | State::Starting | State::Finalizing { .. } | State::Succeeded => true,
            State::Pending
            | State::Preparing
            | State::Stopping
            | State::BackingOff { .. }
            | State::Forcing
            | State::Cancelling { .. }
            | State::RollingBack
            | State::Degraded { .. }
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => false,
        }
    }
}

fn overriding(kind: OverrideKind, by: &Caller, time: Moment, instance: Option<InstanceId>) -> Override {
    Override { kind, requester: by.identity.clone(), reason: by.reason.clone(), time, instance }
}

/// Which list a member stands in, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Source(usize),
    Undo(usize),
}

/// Shared moves.
impl Operation {
    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.members.len()).map(Slot::Source).chain((0..self.undo.len()).map(Slot::Undo))
    }

    fn at(&self, slot: Slot) -> &Member {
        match slot {
            Slot::Source(index) => &self.members[index],
            Slot::Undo(index) => &self.undo[index],
        }
    }

    fn at_mut(&mut self, slot: Slot) -> &mut Member {
        match slot {
            Slot::Source(index) => &mut self.members[index],
            Slot::Undo(index) => &mut self.undo[index],
        }
    }

    fn locate(&self, instance: &InstanceId) -> Option<Slot> {
        self.slots().find(|&slot| self.at(slot).instance == *instance)
    }

    fn requires_confirmation(&self) -> bool {
        matches!(self.request.placement, Placement::External { require_confirmation: true })
    }

    /// Whether agents start the target.
    fn starts_target(&self) -> bool {
        self.request.kind == Kind::Migrate && self.request.placement == Placement::Agents
    }

    /// Whether a missing proof may be overridden.
    fn may_skip_proof(&self) -> bool {
        let kills = self.forced || self.policy.failure_strategy == FailureStrategy::Force;
        self.request.force || (self.policy.allow_unverified && kills)
    }

    fn was_told(&self) -> bool {
        self.members.iter().any(|member| member.told)
    }

    fn emit(
        &self,
        now: Moment,
        kind: EventKind,
        instance: Option<InstanceId>,
        failure: Option<Failure>,
        message: &str,
        step: &mut Step,
    ) {
        step.changed = true;
        step.events.push(Event {
            kind,
            state: self.state(),
            previous: self.state(),
            instance,
            start: matches!(kind, EventKind::InstanceStarting | EventKind::InstanceReady),
            failure,
            message: message.to_owned(),
            time: now,
        });
    }

    /// Moves to another state, and says so.
    fn enter(&mut self, now: Moment, state: State, message: impl Into<String>, step: &mut Step) {
        let previous = self.state();
        self.state = state;
        self.message = message.into();
        self.updated = now;
        if self.is_done() {
            self.ended = Some(now);
        } else if matches!(self.state, State::Degraded { .. }) {
            let spent = self.since.take().map_or(Duration::ZERO, |since| now.since(since));
            self.spent = self.spent.saturating_add(spent);
        } else {
            self.since = self.since.or(Some(now));
        }
        step.changed = true;
        step.events.push(Event {
            kind: EventKind::StateChanged,
            state: self.state(),
            previous,
            instance: None,
            start: false,
            failure: self.failure.clone().filter(|_| matches!(self.state, State::Degraded { .. })),
            message: self.message.clone(),
            time: now,
        });
    }

    /// Rests until a person decides.
    fn degrade(&mut self, now: Moment, stage: Stage, step: &mut Step) {
        let message = match &self.failure {
            Some(failure) => failure.message.clone(),
            None => "gave up".to_owned(),
        };
        self.enter(now, State::Degraded { stage }, message, step);
    }

    /// When `overall_timeout` ends, while it counts.
    fn overall_deadline(&self) -> Option<Moment> {
        let counts = match self.state {
            State::Preparing | State::Stopping | State::BackingOff { .. } => true,
            State::Pending
            | State::Forcing
            | State::Stopped { .. }
            | State::Starting
            | State::Finalizing { .. }
            | State::Cancelling { .. }
            | State::RollingBack
            | State::Degraded { .. }
            | State::Succeeded
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => false,
        };
        let overall = self.policy.overall_timeout;
        if !counts || overall.is_zero() {
            return None;
        }
        let deadline = self.since? + overall.saturating_sub(self.spent);
        Some(self.judge_not_before.map_or(deadline, |floor| deadline.max(floor)))
    }

    fn is_overdue(&self, now: Moment) -> bool {
        self.overall_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Uses a caller's permission to go on without proof of the end of `slot`, and records that.
    fn skip_proof(&mut self, now: Moment, slot: Slot, step: &mut Step) {
        let instance = self.at(slot).instance.clone();
        self.at_mut(slot).run = Run::Unverified;
        // Who gave the permission later on answers for it; else whoever asked for the operation and chose its policy.
        let is_permission = |one: &&Override| one.kind == OverrideKind::AllowUnverified && one.instance.is_none();
        let by = match self.overrides.iter().rev().find(is_permission) {
            Some(given) => Caller { identity: given.requester.clone(), reason: given.reason.clone() },
            None => self.request.caller.clone(),
        };
        self.overrides.push(overriding(OverrideKind::AllowUnverified, &by, now, Some(instance.clone())));
        let message = format!("{instance}: its end is not verified; going on because {} allowed it", by.identity);
        self.emit(now, EventKind::Override, Some(instance), None, &message, step);
    }

    /// Whether the failure of `slot` is one that a permission to skip proof covers.
    fn lacks_only_proof(&self, slot: Slot) -> bool {
        self.at(slot).failure.as_ref().is_some_and(|failure| failure.reason.is_missing_proof())
    }

    /// A new failure of one instance.
    fn failure_of(&self, instance: &InstanceId, reason: Reason, message: String, now: Moment) -> Failure {
        Failure {
            reason,
            message: format!("{instance}: {message}"),
            instance: Some(instance.clone()),
            attempt: self.attempt,
            grpc_code: String::new(),
            time: now,
        }
    }
}

#[cfg(test)]
mod tests;
