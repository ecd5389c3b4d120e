//! The laws about what is stored: verified first, time that runs on, final states, events.

use std::time::Duration;

use quiesce_operation::member::{Member, Run};
use quiesce_operation::{EventKind, Kind, Moment, Operation, OverrideKind, StateName};
use quiesce_scheduler::stored as read;

use super::{Law, State};
use crate::story::Story;

/// What a recovery may add to a deadline at most, whatever the policy says: the longest pause after which an agent dials
/// in again (rule A5: 30 s and a fifth).
const RECONNECT_MAX: Duration = Duration::from_secs(36);

pub(super) fn stored(state: &mut State, story: &Story, now: Moment, value: &[u8]) {
    let after = match read::operation(value) {
        Ok(operation) => operation,
        Err(error) => {
            state.broken(Law::NothingLost, format!("a stored operation cannot be read: {error}"));
            return;
        }
    };
    if let Err(error) = after.validate() {
        state.broken(Law::NothingLost, format!("a stored operation is none: {error}"));
    }
    for one in after.overrides() {
        if let (OverrideKind::AllowUnverified, Some(instance)) = (one.kind, &one.instance) {
            // Who is given up may not have used its permission yet: a target on the way back the epoch it was ordered to
            // start under, a source the one it was granted last.
            let given_up = members(&after).filter(|one| one.instance == *instance && one.run == Run::Unverified);
            state.processes.excuse(instance.as_str(), given_up.map(|one| one.epoch).max().unwrap_or_default());
        }
    }
    for member in members(&after).filter(|member| member.is_verified()) {
        state.processes.verified(member.instance.as_str(), member.epoch);
    }
    let before = state.operations.remove(after.id());
    if before.as_ref().is_none_or(|before| before.state() != after.state()) {
        story.tell("ledger", || {
            let failure = after.failure().map(|failure| format!(": {:?} {}", failure.reason, failure.message));
            format!("{} is {} ({}){}", after.id(), after.state().as_str(), after.message(), failure.unwrap_or_default())
        });
        entered(state, &after);
    }
    if let Some(before) = &before {
        if before.is_done() && before != &after {
            state.broken(Law::FinalStays, format!("{} changed behind its end", after.id()));
        }
        budgets(state, now, before, &after);
    }
    state.operations.insert(after.id().clone(), after);
}

/// What has to be true of the world when an operation enters a state.
fn entered(state: &mut State, operation: &Operation) {
    let live = |state: &State| -> Vec<String> {
        let live = state.processes.live_instances();
        let sources = operation.members().iter().map(|member| member.instance.as_str());
        sources.filter(|source| live.contains(source)).map(str::to_owned).collect()
    };
    let gone = match operation.state() {
        StateName::Stopped | StateName::Starting | StateName::Finalizing => true,
        StateName::Succeeded => operation.request().kind == Kind::Delete || !operation.members().is_empty(),
        StateName::Pending
        | StateName::Preparing
        | StateName::Stopping
        | StateName::BackingOff
        | StateName::Forcing
        | StateName::Cancelling
        | StateName::RollingBack
        | StateName::Degraded
        | StateName::Cancelled
        | StateName::RolledBack
        | StateName::Abandoned => false,
    };
    if gone {
        let left = live(state);
        if !left.is_empty() {
            let (id, name) = (operation.id(), operation.state().as_str());
            state.broken(Law::VerifiedFirst, format!("{id} is {name} while {} lives", left.join(", ")));
        }
    }
    if operation.state() == StateName::Cancelled && state.processes.was_told_by(operation.id().as_str()) {
        state.broken(Law::EndsOrRests, format!("{} is CANCELLED, and an application was told to stop", operation.id()));
    }
    let moves = operation.state() == StateName::Succeeded && operation.request().kind == Kind::Migrate;
    let unready = operation.starts().iter().find(|start| !start.rollback && !start.is_ready());
    if let Some(start) = unready.filter(|_| moves) {
        state.broken(
            Law::VerifiedFirst,
            format!("{} is SUCCEEDED, and {} is not ready", operation.id(), start.instance),
        );
    }
    if operation.state() == StateName::Degraded && operation.failure().is_none() {
        state.broken(Law::EndsOrRests, format!("{} is DEGRADED without a reason", operation.id()));
    }
}

/// Whoever has to stop, or on the way back to stop again.
fn members(operation: &Operation) -> impl Iterator<Item = &Member> {
    operation.members().iter().chain(operation.undo())
}

/// Nobody's time begins anew.
fn budgets(state: &mut State, now: Moment, before: &Operation, after: &Operation) {
    let floor = now + after.policy().accept_timeout.max(RECONNECT_MAX);
    for member in members(after) {
        let same = |other: &&Member| other.instance == member.instance && other.fence() == member.fence();
        let Some(was) = members(before).find(same) else { continue };
        let grace = |member: &Member| member.shutdown.as_ref().map(|shutdown| shutdown.grace);
        if let (Some(had), Some(has)) = (was.deadline(), member.deadline())
            && has > had.max(floor)
            && grace(member) == grace(was)
        {
            state.broken(
                Law::TimeRunsOn,
                format!("{} of {} had time until {had} and has it until {has}", member.instance, after.id()),
            );
        }
        if let (Run::Running { kill: Some(had), .. }, Run::Running { kill: Some(has), .. }) = (&was.run, &member.run)
            && has.until > had.until.max(floor)
        {
            state.broken(Law::TimeRunsOn, format!("the kill of {} of {} begins anew", member.instance, after.id()));
        }
        if let Some(shutdown) = &member.shutdown {
            let most = after.policy().grace_period + after.policy().max_extension;
            let granted = after.policy().grace_period.max(shutdown.grace);
            if shutdown.extension > after.policy().max_extension && granted > most {
                state.broken(Law::TimeRunsOn, format!("{} was granted more than the policy allows", member.instance));
            }
        }
    }
}

pub(super) fn appended(state: &mut State, story: &Story, revision: u64, value: &[u8]) {
    match read::event(value) {
        Ok(event) if event.kind == EventKind::Progress => {}
        Ok(event) => {
            let last = state.events.iter().rfind(|(_, operation, _)| *operation == event.operation);
            if let Some((_, _, before)) = last.filter(|(_, _, before)| *before != event.previous) {
                let (id, before, previous) = (&event.operation, before.as_str(), event.previous.as_str());
                state
                    .broken(Law::WatchersSeeAll, format!("{id} was {before}, and its next event begins at {previous}"));
            }
            state.events.push((revision, event.operation, event.state));
        }
        Err(error) => {
            story.tell("ledger", || format!("event {revision} cannot be read: {error}"));
            state.broken(Law::WatchersSeeAll, format!("event {revision} cannot be read: {error}"));
        }
    }
}
