//! The table of transitions: for every state, reached by a scripted path, what each input, deadline and command leads to.
//! `UPDATE_GOLDEN=1` writes it anew; a difference is reviewed like a change of the contract.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use quiesce_operation::report::{AppState, CallErrorClass, Evidence, Probe, StopOutcome, StopPhase, StopReport};
use quiesce_operation::{
    Effect, Event, EventKind, FailureStrategy, Input, Kind, OperationId, Placement, Policy, PolicyOverrides, Refusal,
    StateName, Step,
};

use crate::contract;
use crate::scene::{Scene, caller, policy, probe, start_report, stop_report};

/// Every scene: a state, and what is special about it.
pub(crate) fn scenes() -> Vec<(&'static str, Scene)> {
    let give_up = |attempts| Scene::migration(policy(FailureStrategy::GiveUp, attempts));
    let force = |attempts| Scene::migration(policy(FailureStrategy::Force, attempts));
    let external = |require_confirmation| {
        let placement = Placement::External { require_confirmation };
        Scene::new(Kind::Migrate, placement, false, policy(FailureStrategy::GiveUp, 1))
    };
    let deletion = |force| Scene::new(Kind::Delete, Placement::Agents, force, policy(FailureStrategy::GiveUp, 1));
    let overall = |strategy| {
        let overall_timeout = Duration::from_secs(5);
        let long = Policy { initial_backoff: Duration::from_secs(30), overall_timeout, ..policy(strategy, 9) };
        Scene::migration(long).still_runs()
    };
    let unclean = || {
        let mut report = stop_report(1, StopPhase::Stopped, Some(StopOutcome::Stopped));
        if let Some(result) = &mut report.result {
            result.clean = Some(false);
        }
        let policy = Policy { hold_on_unclean_exit: true, ..policy(FailureStrategy::GiveUp, 1) };
        Scene::migration(policy).called().then(|scene| scene.reported(report))
    };
    let unready = Probe { ready: false, ..probe(AppState::Running) };
    vec![
        ("PENDING", give_up(2)),
        ("PENDING, a forced deletion", deletion(true)),
        ("PREPARING", give_up(2).preparing()),
        ("PREPARING, last attempt", give_up(1).preparing()),
        ("PREPARING, last attempt, FORCE", force(1).preparing()),
        ("STOPPING, called", give_up(2).called()),
        ("STOPPING, draining", give_up(2).running(StopPhase::Draining)),
        ("STOPPING, told to stop", give_up(2).running(StopPhase::Stopping)),
        ("STOPPING, told to stop, last attempt", give_up(1).running(StopPhase::Stopping)),
        ("STOPPING, told to stop, last attempt, FORCE", force(1).running(StopPhase::Stopping)),
        ("STOPPING, looking back", give_up(2).looking_back()),
        ("STOPPING, a deletion, looking back", deletion(false).looking_back()),
        ("BACKING_OFF, nothing told", give_up(2).preparing().then(|scene| scene.probed("a-0", Ok(unready.clone())))),
        ("BACKING_OFF, told", give_up(2).still_runs()),
        ("BACKING_OFF, overall timeout next", overall(FailureStrategy::GiveUp)),
        ("BACKING_OFF, overall timeout next, FORCE", overall(FailureStrategy::Force)),
        ("FORCING, called", deletion(true).feed(Input::Begin)),
        ("FORCING, kill asked for", deletion(true).feed(Input::Begin).says(1, StopPhase::Accepted, None)),
        ("FORCING, kill out", force(1).running(StopPhase::Stopping).pass(25).then(|scene| scene.kill_answered(Ok(())))),
        ("STOPPED, waiting for a confirmation", external(true).past_the_gate()),
        ("STARTING", give_up(2).past_the_gate()),
        ("FINALIZING", give_up(2).past_the_gate().then(|scene| scene.start_reported(start_report(1, Some(true))))),
        ("CANCELLING", give_up(2).running(StopPhase::Draining).cancel()),
        ("CANCELLING, not accepted", give_up(2).called().cancel()),
        ("ROLLING_BACK, target called", give_up(2).going_back()),
        ("ROLLING_BACK, source starting", give_up(2).source_starting()),
        ("DEGRADED, nothing told", give_up(1).preparing().then(|scene| scene.probed("a-0", Ok(unready)))),
        ("DEGRADED, told", give_up(1).running(StopPhase::Stopping).pass(60)),
        ("DEGRADED, stopped", unclean()),
        ("DEGRADED on the way back", give_up(1).going_back().pass(10)),
        ("SUCCEEDED", external(false).past_the_gate().then(|scene| scene.concluded(Ok(())))),
        ("CANCELLED", give_up(2).cancel()),
        ("ROLLED_BACK", give_up(2).source_starting().then(|scene| scene.start_reported(start_report(1, Some(true))))),
        ("ABANDONED", give_up(1).running(StopPhase::Stopping).pass(60).cancel()),
    ]
}

/// Every input, for the calls that are out in this scene.
fn inputs(scene: &Scene) -> Vec<(&'static str, Input)> {
    let says = |phase, outcome| scene.reported(stop_report(50, phase, outcome));
    let claim = || {
        let mut report = stop_report(50, StopPhase::Stopped, Some(StopOutcome::Stopped));
        if let Some(result) = &mut report.result {
            result.evidence = Evidence::Claimed;
        }
        report
    };
    let wish =
        StopReport { wanted_grace_period: Some(Duration::from_secs(90)), ..stop_report(50, StopPhase::Stopping, None) };
    let unready = Probe { ready: false, ..probe(AppState::Running) };
    let old_fence = Input::StopReported {
        instance: scene.stopped(),
        attempt: 99,
        report: stop_report(50, StopPhase::Stopped, Some(StopOutcome::Stopped)),
    };
    vec![
        ("begin", Input::Begin),
        ("source probed, fine", scene.probed("a-0", Ok(probe(AppState::Running)))),
        ("source probed, held", scene.probed("a-0", Ok(probe(AppState::Held)))),
        ("source probed, not ready", scene.probed("a-0", Ok(unready))),
        ("source probed, lost", scene.probed("a-0", Err(CallErrorClass::Lost))),
        ("source probed, refused", scene.probed("a-0", Err(CallErrorClass::Rejected))),
        ("target probed, held", scene.probed("b-0", Ok(probe(AppState::Held)))),
        ("target probed, running", scene.probed("b-0", Ok(probe(AppState::Running)))),
        ("reports ACCEPTED", says(StopPhase::Accepted, None)),
        ("reports DRAINING", says(StopPhase::Draining, None)),
        ("reports STOPPING", says(StopPhase::Stopping, None)),
        ("reports a wish", scene.reported(wish)),
        ("result STOPPED", says(StopPhase::Stopped, Some(StopOutcome::Stopped))),
        ("result STOPPED, claimed", scene.reported(claim())),
        ("result NOT_RUNNING", says(StopPhase::Stopped, Some(StopOutcome::NotRunning))),
        ("result KILLED", says(StopPhase::Stopped, Some(StopOutcome::Killed))),
        ("result STILL_RUNNING", says(StopPhase::Failed, Some(StopOutcome::StillRunning))),
        ("result RESTARTED", says(StopPhase::Failed, Some(StopOutcome::Restarted))),
        ("result UNKNOWN", says(StopPhase::Failed, Some(StopOutcome::Unknown))),
        ("result CANCELLED", says(StopPhase::Cancelled, Some(StopOutcome::Cancelled))),
        ("result STOPPED, old fence", old_fence),
        ("stop call lost", scene.stop_call_ended(CallErrorClass::Lost)),
        ("stop call busy", scene.stop_call_ended(CallErrorClass::Busy)),
        ("stop call refused", scene.stop_call_ended(CallErrorClass::Rejected)),
        ("stop call broke the rules", scene.stop_call_ended(CallErrorClass::Protocol)),
        ("more time wanted", scene.more_time(90)),
        ("kill is out", scene.kill_answered(Ok(()))),
        ("kill lost", scene.kill_answered(Err(CallErrorClass::Lost))),
        ("kill unknown shutdown", scene.kill_answered(Err(CallErrorClass::NotFound))),
        ("kill not implemented", scene.kill_answered(Err(CallErrorClass::Unimplemented))),
        ("kill refused", scene.kill_answered(Err(CallErrorClass::Rejected))),
        ("cancel done", scene.cancel_answered(Ok(()))),
        ("cancel too late", scene.cancel_answered(Err(CallErrorClass::PointOfNoReturn))),
        ("cancel unknown shutdown", scene.cancel_answered(Err(CallErrorClass::NotFound))),
        ("cancel lost", scene.cancel_answered(Err(CallErrorClass::Lost))),
        ("start reports STARTING", scene.start_reported(start_report(50, None))),
        ("start READY", scene.start_reported(start_report(50, Some(true)))),
        ("start FAILED", scene.start_reported(start_report(50, Some(false)))),
        ("start call lost", scene.start_call_ended(CallErrorClass::Lost)),
        ("start call refused", scene.start_call_ended(CallErrorClass::Rejected)),
        ("concluded", scene.concluded(Ok(()))),
        ("conclude lost", scene.concluded(Err(CallErrorClass::Lost))),
    ]
}

fn commands(scene: &mut Scene) -> Vec<(&'static str, Scene, Result<Step, Refusal>)> {
    type Command = fn(&mut Scene) -> Result<Step, Refusal>;
    let all: [(&'static str, Command); 7] = [
        ("CANCEL", |scene| scene.operation.cancel(scene.now, &caller())),
        ("RETRY", |scene| scene.operation.retry(scene.now, &caller(), false, &PolicyOverrides::default())),
        ("RETRY force", |scene| scene.operation.retry(scene.now, &caller(), true, &PolicyOverrides::default())),
        ("EXTEND to 90s", |scene| scene.operation.extend(scene.now, Duration::from_secs(90))),
        ("CONFIRM", |scene| scene.operation.confirm(scene.now, &caller())),
        ("SUPERSEDE", |scene| scene.operation.supersede(scene.now, OperationId::parse("op-2").unwrap())),
        ("RECOVER", |scene| Ok(scene.operation.recover(scene.now))),
    ];
    all.into_iter()
        .map(|(name, command)| {
            let mut after = scene.clone();
            let outcome = command(&mut after);
            (name, after, outcome)
        })
        .collect()
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Probe { instance, check: true, .. } => format!("Check({instance})"),
        Effect::Probe { instance, check: false, .. } => format!("Probe({instance})"),
        Effect::Shutdown { instance, attempt, anew } => {
            format!("Shutdown({instance}#{attempt}{})", if *anew { "" } else { ", join" })
        }
        Effect::UpdateDeadline { instance, attempt, grace, granted } => {
            format!("UpdateDeadline({instance}#{attempt} {grace:?}{})", if *granted { "" } else { ", cut" })
        }
        Effect::Kill { instance, attempt } => format!("Kill({instance}#{attempt})"),
        Effect::CancelShutdown { instance, attempt } => format!("Cancel({instance}#{attempt})"),
        Effect::Start { instance, epoch, .. } => format!("Start({instance}@{epoch})"),
        Effect::Conclude { instance, disposition, .. } => format!("Conclude({instance} {disposition:?})"),
    }
}

fn event(event: &Event) -> String {
    match (event.kind, &event.failure) {
        (EventKind::StateChanged, _) => format!("->{}", event.state.as_str()),
        (kind, Some(failure)) => format!("{kind:?}:{:?}", failure.reason),
        (kind, None) => format!("{kind:?}"),
    }
}

fn line(name: &str, before: &Scene, after: &Scene, step: &Step) -> Option<String> {
    let same = after.operation == before.operation;
    if same && *step == Step::default() {
        return None;
    }
    let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(" ") };
    let effects = list(step.effects.iter().map(effect).collect());
    let events = list(step.events.iter().map(event).collect());
    let stored = if step.changed { "" } else { " (not stored)" };
    Some(format!("  {name:<26} {:<12} | {effects} | {events}{stored}\n", after.operation.state().as_str()))
}

/// The table, and every transition that occurs in it or on the way to its scenes.
fn render() -> (String, BTreeSet<(StateName, StateName)>) {
    let mut text = String::from(
        "State, and how it was reached.\n  what happens               state after  | effects | events; what changes nothing \
         is left out, refusals stand at the end\n",
    );
    let mut seen = BTreeSet::new();
    let mut note = |events: &[Event]| {
        let moves = events.iter().filter(|event| event.kind == EventKind::StateChanged);
        seen.extend(moves.map(|event| (event.previous, event.state)));
    };
    for (title, mut scene) in scenes() {
        note(&scene.events);
        assert_eq!(title.split([',', ' ']).next(), Some(scene.operation.state().as_str()), "the path to {title}");
        let _ = writeln!(text, "\n{title}");
        for (name, input) in inputs(&scene) {
            let mut after = scene.clone();
            let step = after.operation.handle(after.now, input);
            note(&step.events);
            text.extend(line(name, &scene, &after, &step));
        }
        if scene.operation.next_deadline().is_some() {
            let mut after = scene.clone();
            let step = after.due();
            note(&step.events);
            text.extend(line("DEADLINE", &scene, &after, &step));
        }
        let mut refused = Vec::new();
        for (name, after, outcome) in commands(&mut scene) {
            match outcome {
                Ok(step) => {
                    note(&step.events);
                    text.extend(line(name, &scene, &after, &step));
                }
                Err(_) => refused.push(name),
            }
        }
        if !refused.is_empty() {
            let _ = writeln!(text, "  refused: {}", refused.join(", "));
        }
    }
    (text, seen)
}

#[test]
fn the_table_of_transitions_is_the_reviewed_one() {
    let (text, _) = render();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transitions.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).expect("UPDATE_GOLDEN=1 writes it");
    for (number, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "line {} of transitions.txt; UPDATE_GOLDEN=1 writes it anew", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "UPDATE_GOLDEN=1 writes transitions.txt anew");
}

#[test]
fn the_contract_promises_exactly_the_transitions_that_occur() {
    let (_, seen) = render();
    let promised = contract::transitions();
    let never: Vec<_> = promised.difference(&seen).collect();
    let unknown: Vec<_> = seen.difference(&promised).collect();
    assert!(never.is_empty() && unknown.is_empty(), "never seen: {never:?}, not in the contract: {unknown:?}");
    let left: BTreeSet<_> = promised.iter().map(|(from, _)| *from).collect();
    for state in contract::STATES {
        assert_ne!(state.is_final(), left.contains(&state), "{state:?}");
    }
}
