//! Would a stop work? Found out beforehand, without touching anything.
//!
//! Owns the wording of the findings. What is said with `ok = true` is a remark.

use super::{StopMethod, run::LiveRun};
use crate::{
    application::Findings,
    host::{Host, Processes},
    process::{
        Identity, Reaction,
        signal::{self, Ladder, Signal},
    },
};

/// Looks at how `run` would take a stop.
pub(super) fn check(host: &Host, run: Option<&LiveRun>, method: &StopMethod, path: &str) -> Findings {
    let mut findings = Findings::default();
    let Some(run) = run else {
        findings.findings.push("the application is not running".to_owned());
        return findings;
    };
    if !run.leader_lives() {
        findings
            .findings
            .push(format!("the first process has ended; of the application live {}", run.members.describe()));
    }
    let whom: Vec<Identity> = if run.leader_lives() { vec![run.record.leader] } else { run.members.iter().collect() };
    match method {
        StopMethod::Command(line) => {
            if let Err(why) = host.commands.find(line.program(), path) {
                refuse(&mut findings, format!("the stop command would not work: {why}"));
            }
        }
        StopMethod::Signals(ladder) => {
            for identity in &whom {
                check_signals(&mut findings, &*host.processes, *identity, ladder);
            }
        }
        StopMethod::Script(_) => {
            for identity in &whom {
                check_last_signal(&mut findings, &*host.processes, *identity);
            }
        }
    }
    for identity in whom {
        check_process(&mut findings, &*host.processes, identity);
    }
    findings
}

/// What a process does with the signal that comes after the work is no reason not to begin; many are ended by the script.
fn check_last_signal(findings: &mut Findings, processes: &dyn Processes, identity: Identity) {
    // Who cannot be looked at is found out about elsewhere.
    if let Ok(Some(reactions)) = processes.reactions(identity.pid)
        && reactions.to(Signal::TERM) == Reaction::Ignores
    {
        findings.findings.push(format!(
            "{identity} ignores SIGTERM, which is what comes after the report of its script: it has to end by itself"
        ));
    }
}

/// Looks at an application's script: `reached` is whether anybody listens at the stop URL, `deaf` why its report could
/// not be heard.
pub(super) fn check_script(findings: &mut Findings, reached: Result<(), String>, deaf: Option<&str>) {
    if let Err(why) = reached {
        refuse(findings, format!("{why}: the application's script could not be asked, a stop would not work"));
    }
    if let Some(why) = deaf {
        findings.findings.push(format!(
            "{why}: the report of the application's script could not be heard, so nothing would be told to end after it; \
             a new start of the application mends that"
        ));
    }
}

fn refuse(findings: &mut Findings, why: String) {
    findings.ok = false;
    findings.findings.push(why);
}

fn check_signals(findings: &mut Findings, processes: &dyn Processes, identity: Identity, ladder: &Ladder) {
    let reactions = match processes.reactions(identity.pid) {
        Ok(Some(reactions)) => reactions,
        Ok(None) => return, // it ends as we look
        Err(error) => {
            return findings.findings.push(format!("{identity}: cannot see what it does with signals: {error}"));
        }
    };
    let signals: Vec<_> = ladder.rungs().iter().map(|rung| rung.signal).collect();
    let ignored: Vec<String> = signals
        .iter()
        .filter(|signal| reactions.to(**signal) == Reaction::Ignores)
        .map(|signal| signal::name(*signal))
        .collect();
    let why =
        if reactions.is_init { " (it is the first process of its pid namespace and does not handle it)" } else { "" };
    if ignored.len() == signals.len() {
        refuse(
            findings,
            format!(
                "{identity} ignores {}{why}, a stop would not work; use another --stop-signal or a --stop-command, or \
                 force the operation",
                ignored.join(" and ")
            ),
        );
    } else if !ignored.is_empty() {
        findings.findings.push(format!("{identity} ignores {}{why}; the next signal has to do", ignored.join(" and ")));
    } else if let Some(signal) = signals.first()
        && reactions.to(*signal) == Reaction::Default
    {
        let name = signal::name(*signal);
        findings
            .findings
            .push(format!("{identity} does not handle {name}: it will end at once, without saving anything"));
    }
}

fn check_process(findings: &mut Findings, processes: &dyn Processes, identity: Identity) {
    if matches!(processes.entry(identity.pid), Ok(Some(entry)) if entry.is_suspended()) {
        refuse(
            findings,
            format!("{identity} is suspended (SIGSTOP or a debugger): it reacts to nothing; send it SIGCONT"),
        );
    }
    if !processes.may_signal(identity.pid) {
        refuse(findings, format!("the agent may not signal {identity}: it runs under another user"));
    }
}
