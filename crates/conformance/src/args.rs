//! The command line of `hook-conformance`.
//!
//! Owns the flags and what they mean together; what comes out is a [`Plan`], valid, or a list of all that is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Connector, ConnectorFiles, ConnectorSettings};

use crate::choice::Choice;
use crate::config::{Config, ConfigError, Tls};
use crate::hook;
use crate::reach::Endpoint;
use crate::run::Selection;

/// What the files of TLS are called in the configuration.
const TLS_SETTINGS: ConnectorSettings = ConnectorSettings {
    authorities: "hook.tls.ca",
    certificate: "hook.tls.cert",
    key: "hook.tls.key",
    without: "leave out https://",
};

const EXAMPLES: &str = "Examples:
  hook-conformance --endpoint 127.0.0.1:7700              # with conformance.toml of this directory
  hook-conformance --accept 127.0.0.1:7600 --strict       # for a hook that registers with a gateway
  hook-conformance --endpoint 127.0.0.1:7700 --case '^S' --junit results.xml";

/// Checks whether a hook keeps the rules of quiesce.v1.ShutdownHook
#[derive(Debug, Clone, Parser)]
#[command(name = "hook-conformance", version, after_help = EXAMPLES)]
pub struct Args {
    /// Where the hook listens: HOST:PORT, unix:/PATH or https://HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub endpoint: Option<String>,

    /// Play the gateway here, HOST:PORT, for a hook that registers: it dials in, or says there where it listens
    #[arg(long, value_name = "ADDRESS", conflicts_with = "endpoint")]
    pub accept: Option<String>,

    /// How the application is started and asked after
    #[arg(long, value_name = "FILE", default_value = "conformance.toml")]
    pub config: PathBuf,

    /// Ask for the final report after ten minutes instead of one (R11)
    #[arg(long)]
    pub slow: bool,

    /// Look for the completion token in this log of the hook, too (S20)
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Which checks, and where the results go.
    #[command(flatten)]
    pub choice: Choice,
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// Where the hook is.
    pub place: Place,
    /// Which checks are run.
    pub selection: Selection,
}

/// Where the hook is.
#[derive(Debug)]
pub enum Place {
    /// It listens there.
    Listening(Endpoint),
    /// It registers with us, here.
    Registering(String),
}

impl Args {
    /// Reads the files, and checks everything.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn plan(&self) -> Result<Plan, Vec<String>> {
        let mut problems = Vec::new();
        let config = match Config::read(&self.config) {
            Ok(mut config) => {
                if self.slow {
                    config.waits = config.waits.slow();
                }
                if let Some(log) = &self.log {
                    match std::path::absolute(log) {
                        Ok(log) => config.agent.log = Some(log),
                        Err(error) => problems.push(format!("--log {}: {error}", log.display())),
                    }
                }
                Some(config)
            }
            Err(ConfigError(found)) => {
                problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", self.config.display())));
                None
            }
        };
        let tls = match config.as_ref().and_then(|config| Some((config, config.hook.tls.as_ref()?))) {
            Some((config, tls)) => match connector(&config.directory, tls) {
                Ok(tls) => Some(tls),
                Err(problem) => {
                    problems.push(format!("{}: {problem}", self.config.display()));
                    None
                }
            },
            None => None,
        };
        let place = match (&self.endpoint, &self.accept) {
            (Some(address), _) => match Endpoint::parse(address, tls) {
                Ok(endpoint) => Some(Place::Listening(endpoint)),
                Err(error) => {
                    problems.push(format!("--endpoint: {error}"));
                    None
                }
            },
            (None, Some(address)) => Some(Place::Registering(address.clone())),
            (None, None) => {
                problems.push(
                    "say where the hook is: --endpoint, or --accept for one that registers with a gateway".to_owned(),
                );
                None
            }
        };
        let selection = self.choice.selection(hook::GROUPS, &mut problems);
        match (config, place) {
            (Some(config), Some(place)) if problems.is_empty() => Ok(Plan { config, place, selection }),
            _ => Err(problems),
        }
    }
}

fn connector(directory: &Path, tls: &Tls) -> Result<Connector, String> {
    let at = |path: &PathBuf| directory.join(path);
    let own = tls.cert.as_ref().zip(tls.key.as_ref()).map(|(cert, key)| (at(cert), at(key)));
    let files = ConnectorFiles { authorities: tls.ca.as_ref().map(at), own, settings: TLS_SETTINGS };
    Connector::load(files, Arc::clone(&Machine::local().clocks)).map_err(|error| chain(&error).to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_examples_in_the_help_can_be_typed() {
        quiesce_testkit::examples::check(&super::Args::command());
    }
}
