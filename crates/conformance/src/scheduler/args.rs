//! The command line of `scheduler-conformance`.
//!
//! Owns the flags, the keys of its configuration and what they mean together; what comes out is a [`Plan`], valid, or a
//! list of all that is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use quiesce_runtime::duration;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Connector, ConnectorFiles, ConnectorSettings};
use serde::Deserialize;

use super::GROUPS;
use super::subject::{QUIET, RESTART, Restart, RestartCommand, Subject};
use crate::choice::Choice;
use crate::fixture::COMMAND_LIMIT;
use crate::reach::Endpoint;
use crate::run::Selection;

/// What the files of TLS are called on the command line.
const TLS_SETTINGS: ConnectorSettings =
    ConnectorSettings { authorities: "--ca", certificate: "--cert", key: "--key", without: "leave out https://" };

const EXAMPLES: &str = "Examples:
  scheduler-conformance --endpoint http://127.0.0.1:7600
  scheduler-conformance --endpoint https://localhost:7600 --ca ca.pem --token-file admin.token
  scheduler-conformance --list";

/// Checks whether a scheduler keeps the promises of quiesce.v1
#[derive(Debug, Clone, Parser)]
#[command(name = "scheduler-conformance", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where the scheduler listens: http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// A file with the token to send; where access is enforced, an admin's
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Trust a scheduler whose certificate these CAs have signed (PEM) [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Show this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Private key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// The address hooks of ours listen on; the scheduler has to reach it
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub hook_bind: String,

    /// How the scheduler is started anew, for the checks that need it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Which checks, and where the results go.
    #[command(flatten)]
    pub choice: Choice,
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// What is judged.
    pub subject: Subject,
    /// Which checks are run.
    pub selection: Selection,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    scheduler: SchedulerFile,
    waits: WaitsFile,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WaitsFile {
    quiet: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SchedulerFile {
    restart: Option<String>,
    timeout: Option<String>,
}

impl Args {
    /// Reads the files, and checks everything.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn plan(&self) -> Result<Plan, Vec<String>> {
        let mut problems = Vec::new();
        let endpoint = match &self.endpoint {
            Some(url) => self.reach(url).map_err(|problem| problems.push(problem)).ok(),
            None => {
                problems.push("say where the scheduler is: --endpoint http://HOST:PORT".to_owned());
                None
            }
        };
        let bearer = self.token_file.as_ref().and_then(|path| match std::fs::read_to_string(path) {
            Ok(text) if is_sendable(text.trim()) => Some(text.trim().to_owned()),
            Ok(_) => {
                problems.push(format!("--token-file {}: there is no token in it", path.display()));
                None
            }
            Err(error) => {
                problems.push(format!("--token-file {}: {error}", path.display()));
                None
            }
        });
        let (restart, quiet) = match self.config.as_deref().map(read) {
            None => (None, QUIET),
            Some(Ok(read)) => read,
            Some(Err(problem)) => {
                problems.push(problem);
                (None, QUIET)
            }
        };
        let selection = self.choice.selection(GROUPS, &mut problems);
        match endpoint {
            Some(endpoint) if problems.is_empty() => {
                let subject = Subject { endpoint, bearer, hook_host: self.hook_bind.clone(), restart, quiet };
                Ok(Plan { subject, selection })
            }
            _ => Err(problems),
        }
    }

    fn reach(&self, url: &str) -> Result<Endpoint, String> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("--endpoint {url:?} is neither http:// nor https://"));
        }
        let tls = if url.starts_with("https://") {
            let own = self.cert.clone().zip(self.key.clone());
            let files = ConnectorFiles { authorities: self.ca.clone(), own, settings: TLS_SETTINGS };
            let loaded = Connector::load(files, Arc::clone(&Machine::local().clocks));
            Some(loaded.map_err(|error| chain(&error).to_string())?)
        } else if self.ca.is_some() || self.cert.is_some() {
            return Err("--ca, --cert and --key are for https://".to_owned());
        } else {
            None
        };
        Endpoint::parse(url, tls).map_err(|error| format!("--endpoint: {error}"))
    }
}

fn is_sendable(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// How the scheduler is started anew, and how long F21 takes.
fn read(path: &Path) -> Result<(Option<Arc<dyn Restart>>, Duration), String> {
    let wrong = |problem: String| format!("{}: {problem}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string().trim().to_owned()))?;
    let time = |key: &str, text: Option<String>, default| match text {
        Some(text) => duration::parse(&text).map_err(|error| wrong(format!("{key}: {error}"))),
        None => Ok(default),
    };
    let limit = time("scheduler.timeout", file.scheduler.timeout, COMMAND_LIMIT)?;
    let quiet = time("waits.quiet", file.waits.quiet, QUIET)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new(".")).to_owned();
    match file.scheduler.restart {
        Some(line) if line.trim().is_empty() => Err(wrong(format!("{RESTART} is empty"))),
        Some(line) => Ok((Some(Arc::new(RestartCommand { line, directory, limit })), quiet)),
        None => Ok((None, quiet)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_examples_in_the_help_can_be_typed() {
        quiesce_testkit::examples::check(&super::Args::command());
    }
}
