//! The command line of the agent, for `quiesce-agent` and `quiesce agent` alike.
//!
//! Owns the flags, their environment variables and their checks; everything wrong is found at once. What comes out is
//! [`Settings`]: complete and valid, so that nothing else reads flags or environment.

mod reach;

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser};
use quiesce_protocol::v1;
use quiesce_runtime::duration;
use quiesce_runtime::telemetry::{Format, Telemetry};
use rustix::system::uname;

use crate::delegate::StopUrl;
use crate::gate::StartMode;
use crate::identity::{Identity, sanitise_instance};
use crate::life::Reach;
use crate::process::helper_command::CommandLine;
use crate::process::signal::Ladder;
use crate::readiness::Probe;
use crate::supervise::{Config, StopMethod};
pub use reach::ReachArgs;

/// Most labels, and their sizes in bytes (`types.proto`, "Limits"): what is more is better said at the start than refused
/// by the scheduler again and again.
const LABELS_MAX: usize = 64;
const LABEL_KEY_MAX: usize = 63;
const LABEL_VALUE_MAX: usize = 1024;

/// Longest duration of a policy (`types.proto`, "Limits"); the scheduler would refuse the registration.
const POLICY_MAX: Duration = Duration::from_hours(24);

/// Runs an application under an agent that stops it safely, proves that it stopped, and keeps it stopped.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Name of the application
    #[arg(long, env = "QUIESCE_APPLICATION", value_name = "NAME")]
    pub application: String,

    /// Cluster this instance runs on: a site, a host, any place with a name
    #[arg(long, env = "QUIESCE_CLUSTER", value_name = "NAME")]
    pub cluster: String,

    /// Name of this instance [default: $POD_NAME, else <cluster>-<hostname>]
    #[arg(long, env = "QUIESCE_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,

    #[command(flatten)]
    #[allow(missing_docs, reason = "its own docs would become the description of the command")]
    pub reach: ReachArgs,

    /// Where the agent remembers permission, run and hold over restarts; one directory per instance [default:
    /// $XDG_STATE_HOME/quiesce/agent/APPLICATION/INSTANCE, for root below /var/lib/quiesce/agent]
    #[arg(long, env = "QUIESCE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Begin held: the scheduler starts the application when it moves here
    #[arg(long, env = "QUIESCE_STANDBY")]
    pub standby: bool,

    /// Whether the first start waits for permission from the scheduler
    #[arg(long, env = "QUIESCE_START", value_enum, default_value_t)]
    pub start: StartMode,

    /// How to tell the application to stop: a signal, or a ladder such as SIGINT:10s,SIGTERM (never SIGKILL)
    #[arg(long, env = "QUIESCE_STOP_SIGNAL", value_name = "SIGNAL", default_value = "SIGTERM")]
    pub stop_signal: Ladder,

    /// Tell it to stop by a command instead; its exit is no proof, the end of the processes is
    #[arg(long, env = "QUIESCE_STOP_COMMAND", value_name = "CMD", conflicts_with = "stop_signal")]
    pub stop_command: Option<CommandLine>,

    /// Ask it to stop at this URL instead, as Krake did: its own script answers, and reports at $KRAKE_SHUTDOWN_URL. The
    /// report is no proof, the end of the processes is
    #[arg(long, env = "QUIESCE_STOP_URL", value_name = "URL", conflicts_with_all = ["stop_signal", "stop_command"])]
    pub stop_url: Option<StopUrl>,

    /// Run this before telling it to stop; until it ends a shutdown can be cancelled. A failure keeps it running
    #[arg(long, env = "QUIESCE_DRAIN_COMMAND", value_name = "CMD")]
    pub drain_command: Option<CommandLine>,

    /// Ready after a start when this command exits with 0 (READY=1 of sd_notify always counts)
    #[arg(long, env = "QUIESCE_READY_COMMAND", value_name = "CMD", conflicts_with = "ready_tcp")]
    pub ready_command: Option<CommandLine>,

    /// Ready after a start when this accepts a connection
    #[arg(long, env = "QUIESCE_READY_TCP", value_name = "HOST:PORT")]
    pub ready_tcp: Option<String>,

    /// Time the application has to stop; the scheduler's policy decides when this is not given
    #[arg(long, env = "QUIESCE_GRACE_PERIOD", value_name = "TIME", value_parser = duration::parse)]
    pub grace_period: Option<Duration>,

    /// By how much the application may prolong that itself (EXTEND_TIMEOUT_USEC of sd_notify)
    #[arg(long, env = "QUIESCE_MAX_EXTENSION", value_name = "TIME", value_parser = duration::parse)]
    pub max_extension: Option<Duration>,

    /// Exit code that means that all went well; may be repeated
    #[arg(long, env = "QUIESCE_SUCCESS_EXIT_CODE", value_name = "CODE", value_delimiter = ',', default_value = "0")]
    pub success_exit_code: Vec<i32>,

    /// Instances with a lower number are stopped first
    #[arg(long, env = "QUIESCE_STOP_ORDER", value_name = "N", default_value_t = 0)]
    pub stop_order: i32,

    /// Label of this instance; may be repeated
    #[arg(long, env = "QUIESCE_LABEL", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub label: Vec<String>,

    /// What to log, such as info,quiesce_agent=debug
    #[arg(long, env = "QUIESCE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How log lines look on standard error: auto, text or json
    #[arg(long, env = "QUIESCE_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub log_format: Format,

    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

const EXAMPLES: &str = "Examples:
  quiesce-agent --application db --cluster a -- redis-server --port 7001
  quiesce-agent --application db --cluster b --standby -- redis-server --port 7002
  quiesce-agent --application db --cluster a --stop-signal SIGINT:10s,SIGTERM -- ./server

The command `quiesce agent` is the same.";

/// The command line of the program `quiesce-agent`.
#[derive(Debug, Parser)]
#[command(name = "quiesce-agent", version, about, long_about = None, after_help = EXAMPLES)]
pub struct Program {
    #[command(flatten)]
    #[allow(missing_docs, reason = "its own docs would become the description of the command")]
    pub agent: AgentArgs,
}

/// Everything an agent has to know, valid; but not how it and its scheduler reach each other.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which instance it stands beside.
    pub identity: Identity,
    /// Where it remembers.
    pub state_dir: PathBuf,
    /// The token it joins with.
    pub join_token_file: Option<PathBuf>,
    /// Begin held.
    pub standby: bool,
    /// Whether the first start waits for permission.
    pub start: StartMode,
    /// Runs before the application is told to stop.
    pub drain_command: Option<CommandLine>,
    /// What the application is given when the agent is asked to end.
    pub grace: Option<Duration>,
    /// Policy of the application, should the scheduler not know it yet.
    pub policy: v1::ShutdownPolicy,
    /// Place of the instance among those that are stopped one after the other.
    pub stop_order: i32,
    /// Labels of the instance.
    pub labels: HashMap<String, String>,
    /// What is supervised, and how.
    pub supervise: Config,
}

impl Settings {
    /// What the flags are by default.
    pub fn new(identity: Identity, state_dir: PathBuf, supervise: Config) -> Self {
        Self {
            identity,
            state_dir,
            join_token_file: None,
            standby: false,
            start: StartMode::default(),
            drain_command: None,
            grace: None,
            policy: v1::ShutdownPolicy::default(),
            stop_order: 0,
            labels: HashMap::new(),
            supervise,
        }
    }
}

/// What of the surroundings matters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    pub(crate) pod_name: Option<String>,
    pub(crate) hostname: String,
    pub(crate) state_home: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) is_root: bool,
    pub(crate) path: String,
}

impl Surroundings {
    pub(crate) fn read() -> Self {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            pod_name: variable("POD_NAME"),
            hostname: uname().nodename().to_string_lossy().into_owned(),
            state_home: variable("XDG_STATE_HOME").map(PathBuf::from),
            home: variable("HOME").map(PathBuf::from),
            is_root: rustix::process::geteuid().is_root(),
            path: variable("PATH").unwrap_or_default(),
        }
    }
}

impl AgentArgs {
    /// What to log, and how.
    pub fn telemetry(&self) -> Telemetry {
        Telemetry { format: self.log_format, filter: self.log.clone() }
    }

    /// Checks everything; the error lists all that is wrong.
    pub(crate) fn resolve(self, surroundings: Surroundings) -> Result<(Settings, Reach), Vec<String>> {
        let mut problems = Vec::new();
        let derived = || sanitise_instance(&format!("{}-{}", self.cluster, surroundings.hostname));
        let instance = self.instance.clone().or(surroundings.pod_name).unwrap_or_else(derived);
        let identity =
            Identity::new(&self.application, &instance, &self.cluster).map_err(|error| problems.extend(error.0)).ok();
        if let Err(error) = self.telemetry().validate() {
            problems.push(error.to_string());
        }
        let labels = self.labels(&mut problems);
        let join_token_file = self.reach.join_token_file.clone();
        let reach = self.reach.resolve(&mut problems);
        for (flag, time) in [("--grace-period", self.grace_period), ("--max-extension", self.max_extension)] {
            if time.is_some_and(|time| time > POLICY_MAX) {
                problems.push(format!("{flag} is longer than {}", duration::format(POLICY_MAX)));
            }
        }
        if let Some(address) = self.ready_tcp.as_ref().filter(|address| !address.contains(':')) {
            problems.push(format!("--ready-tcp {address:?} is not HOST:PORT"));
        }
        let base = match (surroundings.state_home, surroundings.is_root, surroundings.home) {
            (Some(state), _, _) => Some(state.join("quiesce")),
            (None, true, _) => Some(PathBuf::from("/var/lib/quiesce")),
            (None, false, Some(home)) => Some(home.join(".local/state/quiesce")),
            (None, false, None) => None,
        };
        let state_dir = self.state_dir.or_else(|| Some(base?.join("agent").join(&self.application).join(&instance)));
        if state_dir.is_none() {
            problems.push("there is no home directory, so --state-dir is needed".to_owned());
        }
        let (Some(identity), Some(state_dir), true) = (identity, state_dir, problems.is_empty()) else {
            return Err(problems);
        };
        let wire = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        let mut supervise = Config::new(self.command);
        supervise.stop = match (self.stop_command, self.stop_url) {
            (Some(command), _) => StopMethod::Command(command),
            (None, Some(url)) => StopMethod::Script(url),
            (None, None) => StopMethod::Signals(self.stop_signal),
        };
        supervise.ready = match (self.ready_command, self.ready_tcp) {
            (Some(command), _) => Probe::Command(command),
            (None, Some(address)) => Probe::Tcp(address),
            (None, None) => Probe::Auto,
        };
        supervise.success = self.success_exit_code;
        supervise.path = surroundings.path;
        let settings = Settings {
            join_token_file,
            standby: self.standby,
            start: self.start,
            drain_command: self.drain_command,
            grace: self.grace_period,
            policy: v1::ShutdownPolicy {
                grace_period: self.grace_period.and_then(wire),
                max_extension: self.max_extension.and_then(wire),
                ..Default::default()
            },
            stop_order: self.stop_order,
            labels,
            ..Settings::new(identity, state_dir, supervise)
        };
        Ok((settings, reach))
    }

    fn labels(&self, problems: &mut Vec<String>) -> HashMap<String, String> {
        let mut labels = HashMap::new();
        for label in &self.label {
            match label.split_once('=') {
                Some((key, value)) if is_label(key, value) => {
                    labels.insert(key.to_owned(), value.to_owned());
                }
                Some(_) | None => problems.push(format!(
                    "--label {label:?} is not KEY=VALUE with a key of 1 to {LABEL_KEY_MAX} bytes, a value of at most \
                     {LABEL_VALUE_MAX}, and no control characters"
                )),
            }
        }
        if labels.len() > LABELS_MAX {
            problems.push(format!("--label is given {} times, at most {LABELS_MAX} are possible", labels.len()));
        }
        labels
    }
}

fn is_label(key: &str, value: &str) -> bool {
    (1..=LABEL_KEY_MAX).contains(&key.len())
        && value.len() <= LABEL_VALUE_MAX
        && !key.chars().chain(value.chars()).any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        agent: AgentArgs,
    }

    fn args(flags: &str) -> AgentArgs {
        let words = ["agent"].into_iter().chain(flags.split_whitespace()).chain(["--", "sleep", "1"]);
        Cli::parse_from(words).agent
    }

    fn surroundings() -> Surroundings {
        Surroundings { hostname: "Host_7.lan".to_owned(), home: Some("/h/ann".into()), ..Surroundings::default() }
    }

    #[test]
    fn the_instance_comes_from_flag_pod_or_host() {
        let plain = args("--application shop --cluster edge-1");
        let name = |(settings, _): (Settings, Reach)| settings.identity.instance().to_owned();
        assert_eq!(name(plain.clone().resolve(surroundings()).unwrap()), "edge-1-host-7.lan");
        let pod = Surroundings { pod_name: Some("shop-0".to_owned()), ..surroundings() };
        assert_eq!(name(plain.resolve(pod.clone()).unwrap()), "shop-0");
        let named = args("--application shop --cluster edge-1 --instance me");
        assert_eq!(name(named.resolve(pod).unwrap()), "me");
    }

    #[test]
    fn every_instance_has_a_state_directory_of_its_own() {
        let (settings, _) = args("--application shop --cluster a --instance i").resolve(surroundings()).unwrap();
        assert_eq!(settings.state_dir, PathBuf::from("/h/ann/.local/state/quiesce/agent/shop/i"));
        let root = Surroundings { is_root: true, ..surroundings() };
        let (settings, _) = args("--application shop --cluster a --instance i").resolve(root).unwrap();
        assert_eq!(settings.state_dir, PathBuf::from("/var/lib/quiesce/agent/shop/i"));
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let wrong = args(
            "--application Shop --cluster a! --instance=-x --listen 0.0.0.0:7000 --label x --ready-tcp 80 \
                  --grace-period 25h --max-extension 2d",
        );
        let problems = wrong.resolve(surroundings()).err().unwrap();
        assert_eq!(problems.len(), 9, "{problems:?}");
    }
}
