//! `quiesce pki`: what was made, and what to do with it.

use std::path::Path;
use std::time::SystemTime;

use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Certificate, NamedFile};
use serde_json::json;

use super::{Common, Ending, Session, Surroundings, tell};
use crate::args::{PkiCommand, PkiInitArgs, PkiIssueArgs, PkiShowArgs};
use crate::error::Error;
use crate::output::text::{Line, Style};
use crate::pki::{self, Files, PkiError};

pub(super) fn run(command: PkiCommand, outer: Common, surroundings: &Surroundings) -> Result<Ending, Error> {
    let session = |common: Common| Session::new(common.over(outer.clone()), surroundings);
    match command {
        PkiCommand::Init(args) => init(&session(args.common.clone()), &args),
        PkiCommand::Issue(args) => issue(&session(args.common.clone()), &args),
        PkiCommand::Show(args) => show(&session(args.common.clone()), &args),
    }
}

fn init(session: &Session, args: &PkiInitArgs) -> Result<Ending, Error> {
    let files = pki::init(&args.directory, &args.name, args.lifetime).map_err(|error| explain(&error))?;
    let (Files { certificate, key }, directory) = (&files, args.directory.display());
    tell::document(session, &json!({ "certificate": certificate, "key": key }), || {
        let mut lines = vec![Line::new(format!("{directory} is a CA now"), Style::Bold)];
        let facts = [
            format!("{}: whoever is to trust it gets this", certificate.display()),
            format!("{}: signs certificates; keep it where neither scheduler nor agents run", key.display()),
            format!("next: quiesce pki issue {directory} HOST, with the names and addresses of the scheduler"),
        ];
        lines.extend(tell::facts(session, &facts));
        lines
    })?;
    Ok(Ending::Done)
}

fn issue(session: &Session, args: &PkiIssueArgs) -> Result<Ending, Error> {
    let agent = args.agent.as_deref().map(pki::agent_name).transpose().map_err(|error| explain(&error))?;
    let names: Vec<String> = agent.iter().chain(&args.names).cloned().collect();
    let files = pki::issue(&args.directory, &names, args.lifetime).map_err(|error| explain(&error))?;
    let (Files { certificate, key }, ca) = (&files, Files::of_authority(&args.directory).certificate);
    let until = read(certificate)?.first().map(|certificate| time(certificate.until)).unwrap_or_default();
    let document = json!({ "certificate": certificate, "key": key, "names": names, "notAfter": until });
    tell::document(session, &document, || {
        let (certificate, key, ca) = (certificate.display(), key.display(), ca.display());
        let mut lines = vec![Line::new(format!("{certificate} and {key} are made"), Style::Bold)];
        let renew = "the same command renews it; whoever uses it notices by itself";
        lines.extend(tell::facts(
            session,
            &[format!("for {}", names.join(", ")), format!("good until {until}; {renew}")],
        ));
        // Only who listens is called by a name that is none of an identity.
        let host = names.iter().find(|name| !name.contains("://"));
        let (whom, command) = match host {
            Some(host) if agent.is_some() => (
                format!("for quiesce agent, and its hook, which is at {host} then:"),
                format!(
                    "--ca {ca} --cert {certificate} --key {key} --listen 0.0.0.0:7700 --advertise {host}:7700 \
                     --hook-client-ca {ca}"
                ),
            ),
            Some(host) => (
                format!("for a scheduler, which is at https://{host}:7600 then for whoever says --ca {ca}:"),
                format!(
                    "quiesce scheduler --listen 0.0.0.0:7600 --tls-cert {certificate} --tls-key {key} --tls-client-ca {ca}"
                ),
            ),
            None => (
                "for quiesce, and for quiesce agent:".to_owned(),
                format!("--ca {ca} --cert {certificate} --key {key}"),
            ),
        };
        lines.extend(tell::facts(session, &[whom]));
        lines.push(tell::command(&command));
        lines
    })?;
    Ok(Ending::Done)
}

fn show(session: &Session, args: &PkiShowArgs) -> Result<Ending, Error> {
    let found = read(&args.file)?;
    let now = quiesce_runtime::clock::wall_now();
    let document: Vec<_> = found
        .iter()
        .map(|one| {
            json!({
                "subject": one.subject,
                "issuer": one.issuer,
                "names": one.names,
                "identity": one.identity.as_ref().map(ToString::to_string),
                "notBefore": time(one.from),
                "notAfter": time(one.until),
                "authority": one.is_authority,
            })
        })
        .collect();
    tell::document(session, &document, || {
        let mut lines = Vec::new();
        for one in &found {
            let what = if one.is_authority { "CA" } else { "certificate" };
            lines.push(Line::new(format!("{what} {}", one.subject), Style::Bold));
            let state = match (now < one.from, now > one.until) {
                (true, _) => " (not yet)",
                (_, true) => " (expired)",
                (false, false) => "",
            };
            let mut facts = vec![
                format!("signed by {}", one.issuer),
                format!("good from {} until {}{state}", time(one.from), time(one.until)),
            ];
            if !one.names.is_empty() {
                facts.push(format!("names: {}", one.names.join(", ")));
            }
            if let (Some(identity), false) = (&one.identity, one.is_authority) {
                facts.push(format!("a scheduler takes its holder for {identity}"));
            }
            lines.extend(tell::facts(session, &facts));
        }
        lines
    })?;
    Ok(Ending::Done)
}

fn read(path: &Path) -> Result<Vec<Certificate>, Error> {
    Certificate::all_in(&NamedFile { setting: "FILE", path: path.to_owned() })
        .map_err(|error| Error::Input { problem: chain(&error).to_string(), advice: Vec::new() })
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn explain(error: &PkiError) -> Error {
    let advice = match error {
        PkiError::NoAuthority(directory) => vec![format!("make one: quiesce pki init {}", directory.display())],
        PkiError::Exists(directory) => {
            vec![format!("certificates of it: quiesce pki issue {} NAME", directory.display())]
        }
        PkiError::Half(_) => vec!["put the other one back, or begin anew in another directory".to_owned()],
        _ => Vec::new(),
    };
    Error::Input { problem: chain(error).to_string(), advice }
}
