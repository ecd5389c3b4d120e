//! Applications: whether each could be stopped and moved now, and what waits for a person.
//!
//! Judging is pure: resources in, findings out. What a dry run finds out is judged here too; asking is done elsewhere.

use std::collections::BTreeSet;

use quiesce_protocol::v1::{
    Application, Instance, Operation, ShutdownPlan, application, hook_info, instance, operation, placement,
    shutdown_plan,
};

use super::{Report, Verdict};
use crate::live::{verdict, view};
use crate::name;
use crate::output::text;

/// The major version of the contract that hooks have to speak.
const CONTRACT: &str = "1.";

/// Operations that wait for a person.
pub(crate) fn operations(operations: &[Operation], report: &mut Report) {
    for operation in operations {
        let id = name::short(&operation.name);
        let subject = view::subject(operation).replace("  ", " ");
        if operation.state() == operation::State::Degraded {
            let why = operation.failure.as_ref().map(view::describe_failure).unwrap_or_default();
            let next = verdict::choices(operation).join("; ");
            let next = if next.is_empty() { format!("quiesce describe operation {id}") } else { next };
            report.problem(id, format!("{subject} rests in DEGRADED: {why}"), next);
        } else if operation.awaiting_confirmation {
            report.warning(
                id.as_str(),
                format!("{subject}: every instance has ended, and you have not said that your part is done"),
                format!("do it, then: quiesce confirm {id}"),
            );
        }
    }
}

/// One application with its instances.
pub(crate) fn standing(application: &Application, instances: &[&Instance], report: &mut Report) {
    let app = name::short(&application.name);
    let busy = !application.active_operation.is_empty();
    if application.restore_time.is_some() {
        let what = "the scheduler was restored from a backup and does not know where it runs: it is neither started nor \
                    stopped";
        let next = format!(
            "see where it runs (quiesce get instances), and that no other copy does; then: quiesce readmit {app}"
        );
        report.problem(app.as_str(), what, next);
    }
    let agent = format!("quiesce agent --application {app} --cluster {} -- COMMAND", application.cluster);
    if instances.is_empty() && application.state() == application::State::Stopped {
        let what = format!("it has moved, and no instance has registered from {} yet", application.cluster);
        report.warning(app.as_str(), what, format!("start it there: {agent}"));
    } else if instances.is_empty() {
        let next = format!("start an agent: {agent}; or forget it: quiesce delete {app} --force");
        report.problem(app.as_str(), "it has no instance, so there is nobody to stop it", next);
    }
    let there = i32::try_from(instances.len()).unwrap_or(i32::MAX);
    if let Some(expected) = application.expected_instances.filter(|expected| *expected > there) {
        let next = "start the missing agents, or correct expectedInstances with quiesce apply";
        report.problem(
            app.as_str(),
            format!("{there} of {expected} instances are there: operations are refused"),
            next,
        );
    }
    let is = |state: instance::State| move |instance: &&&Instance| instance.state() == state;
    let home = |instance: &&&Instance| instance.cluster == application.cluster;
    let held_at_home = instances.iter().filter(is(instance::State::Held)).filter(home).count();
    if !busy && held_at_home > 0 && instances.iter().filter(home).count() == held_at_home {
        let what = format!("it does not run: every instance on {} is held", application.cluster);
        report.warning(app.as_str(), what, format!("see why: quiesce describe application {app}"));
    }
    for instance in instances {
        self::instance(application, instance, busy, report);
    }
}

fn instance(application: &Application, instance: &Instance, busy: bool, report: &mut Report) {
    use instance::State;
    let own = name::short(&instance.name);
    let hook = instance.hook.clone().unwrap_or_default();
    let describe = format!("quiesce describe instance {own}");
    match instance.state() {
        State::Unreachable | State::Unspecified => {
            let why = text::clean(&instance.unreachable_reason);
            let why = if why.is_empty() { "nobody answers".to_owned() } else { why };
            let next = format!("start its agent again; if it is gone for good: quiesce forget {own}");
            report.problem(own.as_str(), format!("its hook is not reached: {why}"), next);
        }
        State::NotReady => {
            let why = text::clean(&hook.not_ready_reason);
            report.problem(
                own.as_str(),
                format!("its hook could not stop it now: {why}"),
                format!("mend that; see: {describe}"),
            );
        }
        State::Ready | State::Stopping | State::Stopped | State::Starting | State::Held => {}
    }
    let runs = instance.state() == State::Ready
        && matches!(hook.app_state(), hook_info::AppState::Running | hook_info::AppState::Unspecified);
    if runs && !busy && instance.cluster != application.cluster {
        let app = name::short(&application.name);
        let what = format!("it runs on {}, and {app} belongs on {}", instance.cluster, application.cluster);
        let next =
            format!("is it a second copy? quiesce describe application {app}; then end the one that should not be");
        report.problem(own.as_str(), what, next);
    }
    if instance.state() == State::Ready && hook.app_state() == hook_info::AppState::Stopped {
        report.warning(own.as_str(), "its hook answers, and no process of it is there", describe.as_str());
    }
    if !hook.cannot_start_reason.is_empty() {
        let what = format!("it could not be started: {}", hook.cannot_start_reason);
        report.warning(own.as_str(), what, "mend that there, before something is moved to it");
    }
    if !hook.protocol_version.is_empty() && !hook.protocol_version.starts_with(CONTRACT) {
        let what = format!("its hook speaks version {} of the contract, and not {CONTRACT}x", hook.protocol_version);
        report.problem(own.as_str(), what, "install an agent that fits the scheduler");
    }
}

/// Which dry runs show most: a migration to every cluster that stands by, else a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DryRun {
    Migrate { to: String },
    Delete,
}

/// The dry runs worth asking of an application; none where the answer is known.
pub(crate) fn dry_runs(application: &Application, instances: &[&Instance]) -> Vec<DryRun> {
    if instances.is_empty() || application.restore_time.is_some() || !application.active_operation.is_empty() {
        return Vec::new();
    }
    let moves = application.placement.as_ref().and_then(|placement| placement.driver.as_ref());
    let by_agents = matches!(moves, Some(placement::Driver::Agents(_)));
    let elsewhere =
        instances.iter().filter(|one| one.state() == instance::State::Held && one.cluster != application.cluster);
    let clusters: BTreeSet<&String> = elsewhere.map(|one| &one.cluster).filter(|_| by_agents).collect();
    if clusters.is_empty() {
        return vec![DryRun::Delete];
    }
    clusters.into_iter().map(|cluster| DryRun::Migrate { to: cluster.clone() }).collect()
}

/// What the hooks have answered to a dry run.
pub(crate) fn plan(application: &Application, run: &DryRun, plan: &ShutdownPlan, report: &mut Report) {
    let app = name::short(&application.name);
    let from = report.findings.len();
    let again = match run {
        DryRun::Migrate { to } => format!("mend that, then ask again: quiesce migrate {app} --to {to} --dry-run"),
        DryRun::Delete => format!("mend that, then ask again: quiesce delete {app} --dry-run"),
    };
    for (steps, what) in [(&plan.steps, "a stop"), (&plan.starts, "a start")] {
        for step in steps {
            self::step(step, what, &again, report);
        }
    }
    for warning in &plan.warnings {
        report.warning(app.as_str(), warning, again.as_str());
    }
    let all_answered = plan.steps.iter().chain(&plan.starts).all(|step| step.reachable);
    if all_answered && report.is_at_most(Verdict::Ok, from) {
        let what = match run {
            DryRun::Migrate { to } => format!("every hook says that it could be moved to {to} now"),
            DryRun::Delete => "every hook says that it could be stopped now".to_owned(),
        };
        report.ok(app, what);
    }
}

fn step(step: &shutdown_plan::Step, what: &str, again: &str, report: &mut Report) {
    let own = name::short(&step.instance);
    let findings = step.findings.join("; ");
    match step.ok {
        // Why not has been said of the instance, in more words.
        _ if !step.reachable
            && report.findings.iter().any(|known| known.subject == own && known.verdict == Verdict::Problem) => {}
        _ if !step.reachable => {
            report.problem(own, format!("its hook did not answer when {what} was rehearsed"), again)
        }
        Some(false) => report.problem(own, format!("{what} would not work: {findings}"), again),
        Some(true) | None if !findings.is_empty() => {
            report.warning(own, format!("{what} would work, but: {findings}"), again)
        }
        Some(true) | None => {}
    }
}
