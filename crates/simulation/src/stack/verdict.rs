//! What has to be so in the end: everything that was accepted came to its end, and everybody knows the same.

use std::collections::BTreeMap;

use quiesce_protocol::v1;
use quiesce_protocol::v1::failure::Reason;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;

use super::instance::Manner;
use super::plan::Role;
use super::watching::is_final;
use super::world::{Memory, Outcome, World};

/// Whether there is nothing left to wait for.
pub(super) fn is_settled(world: &World) -> bool {
    open_ends(world).is_empty()
}

/// What is still to be waited for.
fn open_ends(world: &World) -> Vec<String> {
    let memory = world.memory();
    let mut open = Vec::new();
    for (number, ask) in world.plan.asks.iter().enumerate() {
        if !memory.outcomes.contains_key(&number) {
            open.push(format!("{} is not answered", ask.request_id));
        }
    }
    for name in accepted(&memory) {
        match memory.listing.iter().find(|operation| operation.name == name) {
            None => open.push(format!("{name} is not listed")),
            Some(operation) if !is_final(operation.state()) => {
                open.push(format!("{name} is {:?}: {}", operation.state(), operation.message));
            }
            Some(_) => {}
        }
        if !memory.followed.contains_key(&name) {
            open.push(format!("whoever follows {name} has not seen its end"));
        }
    }
    if memory.truth.as_ref() != Some(&memory.watched.seen) {
        let told = memory.truth.as_ref().map_or(0, Vec::len);
        open.push(format!("the watcher has seen {} of {told} events", memory.watched.seen.len()));
    }
    let silent = |instance: &&v1::Instance| instance.state() == v1::instance::State::Unreachable;
    for v1::Instance { name, .. } in memory.instances.iter().filter(silent) {
        let of_it = |instance: &&std::sync::Arc<super::instance::Instance>| {
            *name == format!("applications/{}/instances/{}", instance.application, instance.name)
        };
        if world.instances.iter().find(of_it).is_some_and(|instance| !instance.is_deleted()) {
            open.push(format!("{name} does not answer"));
        }
    }
    for (application, home) in &memory.homes {
        let live = world.judge.live(application);
        let expected = expected(world, &memory, application, home);
        if expected.as_ref().is_some_and(|expected| *expected != live) {
            open.push(format!("{application} of {home}: {live:?} run, and not {:?}", expected.unwrap_or_default()));
        }
    }
    open
}

/// Who of an application has to run in the end; none if that is not known.
fn expected(world: &World, memory: &Memory, application: &str, home: &str) -> Option<Vec<(String, String)>> {
    let of_it = |operation: &&v1::Operation| operation.application.ends_with(application);
    let states = || memory.listing.iter().filter(of_it);
    if states().any(|operation| operation.state() == State::Abandoned) {
        return None;
    }
    let deleted = |operation: &v1::Operation| {
        operation.kind() == v1::OperationKind::Delete && operation.state() == State::Succeeded
    };
    let deletion = states().filter(|operation| deleted(operation)).map(|operation| since(operation.create_time)).max();
    // Who stands by and was registered behind the last migration was no part of it, and goes on standing by.
    let migrations = states()
        .filter(|operation| operation.kind() == v1::OperationKind::Migrate && operation.state() == State::Succeeded);
    let last = migrations.map(|operation| since(operation.create_time)).max();
    let was_there = |role: &Role| {
        let name = format!("applications/{application}/instances/{}", role.name);
        let registered = memory.instances.iter().find(|instance| instance.name == name);
        let registered = registered.map(|instance| since(instance.create_time));
        // Who is registered behind a deletion begins the application anew.
        deletion.is_none_or(|deletion| registered.is_some_and(|registered| registered > deletion))
            && (!role.standby || registered.is_none_or(|registered| last.is_none_or(|last| registered <= last)))
    };
    let at_home = |role: &&Role| role.application == application && role.cluster == home && was_there(role);
    let roles = world.plan.cast.iter().filter(at_home);
    let mut names: Vec<_> = roles.map(|role| (role.cluster.to_owned(), role.name.to_owned())).collect();
    names.sort();
    Some(names)
}

/// On the scheduler's timeline.
fn since(time: Option<prost_types::Timestamp>) -> (i64, i32) {
    time.map_or_else(Default::default, |time| (time.seconds, time.nanos))
}

fn accepted(memory: &Memory) -> Vec<String> {
    let name = |outcome: &Outcome| match outcome {
        Outcome::Accepted(name) => Some(name.clone()),
        Outcome::Refused(_) => None,
    };
    memory.outcomes.values().filter_map(name).collect()
}

/// Says what is not as it has to be.
pub(super) fn pronounce(world: &World) {
    for open in open_ends(world) {
        world.story.violated("I4 everything comes to its end", open);
    }
    let memory = world.memory();
    let mut problems = requests(world, &memory);
    problems.extend(changes(&memory));
    problems.extend(telling(world, &memory));
    problems.extend(reasons(world, &memory));
    drop(memory);
    for (invariant, what) in problems {
        world.story.violated(invariant, what);
    }
}

type Problem = (&'static str, String);

/// A request leads to one operation at most, and to none if it was refused.
fn requests(world: &World, memory: &Memory) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, ask) in world.plan.asks.iter().enumerate() {
        let of_it = memory.listing.iter().filter(|operation| operation.request_id == ask.request_id);
        let names: Vec<_> = of_it.map(|operation| operation.name.clone()).collect();
        let right = match memory.outcomes.get(&number) {
            Some(Outcome::Accepted(name)) => names == [name.clone()],
            Some(Outcome::Refused(_)) => names.is_empty(),
            None => names.len() <= 1,
        };
        if !right {
            let outcome = memory.outcomes.get(&number);
            problems.push(("I3 accepted once", format!("{}: {outcome:?}, and there is {names:?}", ask.request_id)));
        }
    }
    problems
}

/// Every operation begins with CREATED, and each change begins where the last one ended.
fn changes(memory: &Memory) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut states: BTreeMap<&str, State> = BTreeMap::new();
    for seen in &memory.watched.seen {
        match (seen.kind, states.get(seen.operation.as_str())) {
            (Type::Created, None) => {
                states.insert(&seen.operation, seen.after);
            }
            (Type::StateChanged, Some(last)) if *last == seen.before && seen.before != seen.after => {
                states.insert(&seen.operation, seen.after);
            }
            (Type::Created | Type::StateChanged, last) => {
                problems.push(("I5 every change once", format!("{seen:?} came after {last:?}")));
            }
            _ => {}
        }
    }
    problems
}

/// Nobody is told to stop more often than there were attempts.
fn telling(world: &World, memory: &Memory) -> Vec<Problem> {
    let mut problems = Vec::new();
    for operation in &memory.listing {
        let id = operation.name.trim_start_matches("operations/");
        let of_it = memory.watched.seen.iter().filter(|seen| seen.operation == operation.name);
        let failed = of_it.filter(|seen| seen.kind == Type::AttemptFailed);
        let attempts = 1 + failed.count() + memory.retries.get(&operation.name).copied().unwrap_or(0);
        for role in &world.plan.cast {
            let told = world.judge.attempts_told(id, role.name);
            if told > attempts {
                let what = format!("{} was told {told} times in {attempts} attempts of {id}", role.name);
                problems.push(("I3 told once", what));
            }
        }
    }
    problems
}

/// What rested in DEGRADED did so for a reason that the run contained.
fn reasons(world: &World, memory: &Memory) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, reasons) in &memory.degraded {
        let application = memory.listing.iter().find(|operation| operation.name == *name);
        let application = application.map_or("", |operation| operation.application.as_str());
        let of_it = || world.plan.cast.iter().filter(|role| application.ends_with(role.application));
        let is_deaf = of_it().any(|role| role.manner == Manner::Deaf);
        let fails = of_it().any(|role| role.failing_starts > 0);
        let is_troubled = !world.plan.troubles.is_empty();
        for reason in reasons {
            let explained = match reason {
                Reason::GraceTimeout | Reason::StillRunning => is_deaf || is_troubled,
                Reason::StartFailed => fails || is_troubled,
                Reason::HookUnreachable
                | Reason::AcceptTimeout
                | Reason::HeartbeatTimeout
                | Reason::KillTimeout
                | Reason::OverallTimeout
                | Reason::CheckFailed
                | Reason::StartTimeout
                | Reason::HookRejected => is_troubled,
                Reason::Unspecified
                | Reason::ProtocolError
                | Reason::Restarted
                | Reason::Unverified
                | Reason::UncleanExit => false,
            };
            if !explained {
                problems.push(("I4 a reason the run contained", format!("{name} rested for {reason:?}")));
            }
        }
    }
    problems
}
