//! `quiesce store`: check, backup, restore, on the files of a scheduler that is stopped.
//!
//! What is done and why not is the business of `quiesce_scheduler::upkeep`; here it is said, and what to do next.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use quiesce_runtime::telemetry::chain;
use quiesce_scheduler::config::default_data_dir;
use quiesce_scheduler::upkeep::{self, BackupError, Checked, Counts, Finding, Restored, Saved, UpkeepError};
use serde_json::json;

use super::{Common, Ending, Session, Surroundings, tell};
use crate::args::{BackupArgs, CheckArgs, RestoreArgs, StoreCommand};
use crate::error::Error;
use crate::output::text::{Line, Style};

/// Who is named where a restore closes what was open.
const BY: &str = "quiesce store restore";

pub(super) fn run(command: StoreCommand, outer: Common, surroundings: &Surroundings) -> Result<Ending, Error> {
    let session = |common: Common| Session::new(common.over(outer.clone()), surroundings);
    match command {
        StoreCommand::Check(args) => check(&session(args.common.clone()), args),
        StoreCommand::Backup(args) => backup(&session(args.common.clone()), args),
        StoreCommand::Restore(args) => restore(&session(args.common.clone()), args),
    }
}

fn check(session: &Session, args: CheckArgs) -> Result<Ending, Error> {
    let (at, checked) = match args.backup {
        Some(file) => (file.clone(), upkeep::check_backup(&file).map_err(|error| explain("check", &error))?),
        None => {
            let directory = data_dir(args.store.data_dir)?;
            (directory.clone(), upkeep::check(&directory).map_err(|error| explain("check", &error))?)
        }
    };
    tell::document(session, &checked_json(&at, &checked), || {
        if checked.is_sound() {
            let mut lines = vec![Line::new(format!("{} is sound", at.display()), Style::Bold)];
            lines.extend(tell::facts(session, &[said(checked.counts)]));
            lines
        } else {
            Vec::new()
        }
    })?;
    if checked.is_sound() {
        return Ok(Ending::Done);
    }
    Err(unsound(&at, &checked))
}

fn backup(session: &Session, args: BackupArgs) -> Result<Ending, Error> {
    let directory = data_dir(args.store.data_dir)?;
    let Saved { bytes, online, checked } =
        upkeep::backup(&directory, &args.file).map_err(|error| explain_backup(&error))?;
    let document = json!({
        "file": args.file,
        "dataDir": directory,
        "revision": checked.revision.to_string(),
        "bytes": bytes,
        "online": online,
        "findings": findings_json(&checked),
    });
    tell::document(session, &document, || {
        let mut lines = vec![Line::new(format!("{} is written and read back", args.file.display()), Style::Bold)];
        let from = if online { ", from the scheduler that runs" } else { "" };
        let holds = format!("{}; {bytes} bytes{from}", said(checked.counts));
        let secret = "the scheduler's secret key is in it: keep it as safe as the data directory";
        lines.extend(tell::facts(session, &[holds, secret.to_owned()]));
        lines
    })?;
    if checked.is_sound() {
        return Ok(Ending::Done);
    }
    Err(unsound(&args.file, &checked))
}

fn restore(session: &Session, args: RestoreArgs) -> Result<Ending, Error> {
    let directory = data_dir(args.store.data_dir)?;
    let restored =
        upkeep::restore(&args.file, &directory, args.replace, BY).map_err(|error| explain("restore", &error))?;
    let Restored { life, taken_ms, epoch_floor, unconfirmed, closed, kept } = &restored;
    let taken = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(*taken_ms)).to_string();
    let document = json!({
        "dataDir": directory,
        "life": life.to_string(),
        "takenTime": taken,
        "epochsAbove": epoch_floor.to_string(),
        "unconfirmedApplications": unconfirmed.iter().map(|name| format!("applications/{name}")).collect::<Vec<_>>(),
        "closedOperations": closed.iter().map(|name| format!("operations/{name}")).collect::<Vec<_>>(),
        "keptStore": kept,
    });
    tell::document(session, &document, || {
        let mut lines = vec![Line::new(format!("{} is restored", directory.display()), Style::Bold)];
        let mut facts = vec![format!("from {}, taken {taken}; what happened since is lost", args.file.display())];
        facts.extend(kept.as_ref().map(|kept| format!("the store that was there is kept as {}", kept.display())));
        if !closed.is_empty() {
            facts.push(format!("open when it was taken, and abandoned now: {}", closed.join(", ")));
        }
        if !unconfirmed.is_empty() {
            facts.push(format!("neither started nor stopped until you say where they run: {}", unconfirmed.join(", ")));
            facts.push(
                "next: start the scheduler; when the agents are back, see where each application runs (quiesce get \
                 instances) and that no other copy does; then: quiesce readmit APP"
                    .to_owned(),
            );
        }
        lines.extend(tell::facts(session, &facts));
        lines
    })?;
    Ok(Ending::Done)
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Error> {
    given.or_else(default_data_dir).ok_or_else(|| Error::Input {
        problem: "neither XDG_STATE_HOME nor HOME says where the scheduler keeps its state".to_owned(),
        advice: vec!["name it: --data-dir DIR".to_owned()],
    })
}

/// What there is, in words.
fn said(counts: Counts) -> String {
    let Counts { applications, instances, clusters, operations, open_operations, events, requests, tombstones } =
        counts;
    let count = |number: usize, what: &str| match number {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{number} {what}s")),
    };
    let operations = count(operations, "operation").map(|said| format!("{said} ({open_operations} open)"));
    let said: Vec<String> = [
        count(applications, "application"),
        count(instances, "instance"),
        count(clusters, "cluster"),
        operations,
        count(events, "event"),
        count(requests, "request id"),
        count(tombstones, "deleted application"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() { "nothing is in it yet".to_owned() } else { said.join(", ") }
}

fn findings_json(checked: &Checked) -> serde_json::Value {
    checked.findings.iter().map(|Finding { at, problem }| json!({"at": at, "problem": problem})).collect()
}

fn checked_json(at: &Path, checked: &Checked) -> serde_json::Value {
    let Counts { applications, instances, clusters, operations, open_operations, events, requests, tombstones } =
        checked.counts;
    json!({
        "checked": at,
        "sound": checked.is_sound(),
        "life": checked.life.map(|life| life.to_string()),
        "revision": checked.revision.to_string(),
        "applications": applications,
        "instances": instances,
        "clusters": clusters,
        "operations": operations,
        "openOperations": open_operations,
        "events": events,
        "requestIds": requests,
        "deletedApplications": tombstones,
        "findings": findings_json(checked),
        "furtherFindings": checked.further,
    })
}

fn unsound(at: &Path, checked: &Checked) -> Error {
    let count = checked.findings.len() + checked.further;
    let mut advice: Vec<String> = checked.findings.iter().map(ToString::to_string).collect();
    if checked.further > 0 {
        advice.push(format!("and {} more", checked.further));
    }
    advice.push("nothing was changed; keep a copy of it, then restore a backup: quiesce store restore FILE".to_owned());
    let things = if count == 1 { "thing is" } else { "things are" };
    let problem = format!("{count} {things} wrong in {}", at.display());
    Error::Input { problem, advice }
}

fn explain(what: &str, error: &UpkeepError) -> Error {
    let advice = error.advice().map(str::to_owned).into_iter().collect();
    Error::Input { problem: format!("cannot {what}: {}", chain(error)), advice }
}

fn explain_backup(error: &BackupError) -> Error {
    let advice = error.advice().map(str::to_owned).into_iter().collect();
    Error::Input { problem: format!("cannot back up: {}", chain(error)), advice }
}
