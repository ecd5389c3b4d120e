//! What must hold: I1 to I4, as the world sees them, who knows which copies live. Nobody in these worlds ever permits to
//! go on without proof, so there are no exceptions.

use std::collections::BTreeMap;

use quiesce_operation::member::RECONNECT_MAX;
use quiesce_operation::{Effect, InstanceId, Moment, Operation, OverrideKind, StateName};

use crate::hook::Hook;

/// I2 and I3 in every world.
pub(crate) fn check_truth(hooks: &[Hook]) -> Result<(), String> {
    let living: Vec<&str> = hooks.iter().filter(|hook| hook.alive).map(|hook| hook.instance.as_str()).collect();
    if living.len() > 1 {
        return Err(format!("I2: two copies live: {}", living.join(", ")));
    }
    for hook in hooks {
        if let Some((attempt, count)) = hook.signals.iter().find(|(_, count)| **count > 1) {
            return Err(format!("I3: {} was told to stop {count} times in attempt {attempt}", hook.instance));
        }
    }
    Ok(())
}

/// I1, I2 and I4 for what an operation has become in a step.
pub(crate) fn check_operation(operation: &Operation, hooks: &[Hook], was_cancelled: bool) -> Result<(), String> {
    if operation.overrides().iter().any(|one| one.kind == OverrideKind::AllowUnverified) {
        return Err("I1: it goes on without proof, and nobody has permitted that".to_owned());
    }
    match operation.state() {
        StateName::Succeeded => check_down(operation, hooks, "I1: SUCCEEDED"),
        StateName::Cancelled if hooks.iter().any(|hook| !hook.signals.is_empty()) => {
            Err("I4: CANCELLED, but an instance was told to stop".to_owned())
        }
        StateName::Cancelled | StateName::Abandoned if !was_cancelled => Err("I4: it has ended by itself".to_owned()),
        StateName::RolledBack if hooks.iter().any(|hook| hook.target && hook.alive) => {
            Err("I2: ROLLED_BACK, but the target lives".to_owned())
        }
        StateName::Degraded if operation.failure().is_none() => Err("I4: DEGRADED without a reason".to_owned()),
        StateName::Degraded if !operation.advice().contains("quiesce ") => {
            Err("I4: DEGRADED without advice".to_owned())
        }
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
        | StateName::Degraded
        | StateName::Cancelled
        | StateName::RolledBack
        | StateName::Abandoned => Ok(()),
    }
}

/// I1 and I2 for one effect, at the moment it is sent. `epochs` are those handed out so far.
pub(crate) fn check_effect(
    effect: &Effect,
    operation: &Operation,
    hooks: &[Hook],
    epochs: &mut BTreeMap<u64, InstanceId>,
) -> Result<(), String> {
    match effect {
        Effect::Start { instance, epoch, rollback } => {
            if let Some(other) = hooks.iter().find(|hook| hook.alive && hook.instance != *instance) {
                return Err(format!("I2: {instance} is started while {} lives", other.instance));
            }
            let highest = epochs.last_key_value().map_or(0, |(epoch, _)| *epoch);
            match epochs.get(epoch) {
                Some(known) if known == instance => {}
                Some(known) => return Err(format!("I2: epoch {epoch} for {known} and for {instance}")),
                None if *epoch <= highest => return Err(format!("I2: epoch {epoch} after {highest}")),
                None => drop(epochs.insert(*epoch, instance.clone())),
            }
            if *rollback { Ok(()) } else { check_down(operation, hooks, "I1: the target is started") }
        }
        Effect::Kill { instance, .. } => {
            let recorded = operation.overrides().iter().any(|one| one.kind == OverrideKind::Force);
            if recorded { Ok(()) } else { Err(format!("I1: {instance} is killed and nobody answers for it")) }
        }
        Effect::Probe { .. }
        | Effect::Shutdown { .. }
        | Effect::UpdateDeadline { .. }
        | Effect::CancelShutdown { .. }
        | Effect::Conclude { .. } => Ok(()),
    }
}

fn check_down(operation: &Operation, hooks: &[Hook], what: &str) -> Result<(), String> {
    let is_member = |hook: &&Hook| operation.members().iter().any(|member| member.instance == hook.instance);
    match hooks.iter().filter(is_member).find(|hook| hook.alive) {
        Some(hook) => Err(format!("{what} while {} lives", hook.instance)),
        None => Ok(()),
    }
}

/// I3: a crash gives nobody more time than they had. Only a start gets what it takes to hear each other again.
pub(crate) fn check_recovery(
    (before, then): (&Operation, Moment),
    (after, now): (&Operation, Moment),
) -> Result<(), String> {
    let reunion = after.policy().accept_timeout.max(RECONNECT_MAX);
    for member in after.members().iter().chain(after.undo()) {
        let Some(left) = member.deadline().map(|until| until.since(now)) else { continue };
        let known = before.member(&member.instance).filter(|known| known.fence() == member.fence());
        let had = known.and_then(|known| known.deadline()).map_or(left, |until| until.since(then));
        if left > had {
            return Err(format!("I3: {} had {had:?} left before the crash and has {left:?} after it", member.instance));
        }
    }
    for start in after.starts() {
        let Some(left) = start.deadline().map(|until| until.since(now)) else { continue };
        let known = before.start(&start.instance, start.epoch).and_then(|known| known.deadline());
        let had = known.map_or(left, |until| until.since(then));
        if left > had.max(reunion) {
            return Err(format!("I3: {} had {had:?} left to start and has {left:?} after a crash", start.instance));
        }
    }
    Ok(())
}

/// I4: what nothing moves on any more is over, or waits for a person and says so.
pub(crate) fn check_rest(operation: &Operation) -> Result<(), String> {
    let state = operation.state();
    if operation.is_done() || state == StateName::Degraded || operation.awaits_confirmation() {
        return Ok(());
    }
    Err(format!("I4: {} is stuck", state.as_str()))
}
