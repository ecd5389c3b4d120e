//! The configuration: how the application behind the hook is started and asked after.
//!
//! Owns the keys of `conformance.toml` and their checks; everything wrong is told at once, by the name of the key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quiesce_runtime::duration;
use serde::Deserialize;

use crate::fixture::{COMMAND_LIMIT, Mode};
use crate::subject::{Settings, Waits};

/// A configuration, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where its commands run, and relative paths begin.
    pub directory: PathBuf,
    /// The application.
    pub app: App,
    /// The program of the hook.
    pub agent: Agent,
    /// How the hook is spoken to.
    pub hook: Hook,
    /// How long is waited for what takes its time.
    pub waits: Waits,
}

/// The application.
#[derive(Debug, Clone)]
pub struct App {
    /// Starts it in the mode that stands for `{mode}`.
    pub start: String,
    /// Ends with 0 while a process of it is alive, else with 1.
    pub alive: String,
    /// Ends all of it.
    pub kill: String,
    /// Prints how often it was told to stop.
    pub signals: String,
    /// What it can do.
    pub modes: Vec<Mode>,
    /// Longest time a command may take.
    pub timeout: Duration,
}

/// The program of the hook.
#[derive(Debug, Clone, Default)]
pub struct Agent {
    /// Kills it and starts it again.
    pub restart: Option<String>,
    /// Prints its process id.
    pub pid: Option<String>,
    /// Where it logs.
    pub log: Option<PathBuf>,
}

/// How the hook is spoken to.
#[derive(Clone, Default)]
pub struct Hook {
    /// Sent as `authorization: Bearer`.
    pub bearer: Option<String>,
    /// Files for TLS.
    pub tls: Option<Tls>,
    /// The instance it serves, when it does not say so itself.
    pub instance: Option<String>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Files for TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// CAs that are trusted; without, those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What is wrong with a configuration, all of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    app: AppFile,
    agent: AgentFile,
    hook: HookFile,
    waits: WaitsFile,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AppFile {
    start: Option<String>,
    alive: Option<String>,
    kill: Option<String>,
    signals: Option<String>,
    modes: Option<Vec<String>>,
    timeout: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AgentFile {
    restart: Option<String>,
    pid: Option<String>,
    log: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct HookFile {
    bearer: Option<String>,
    tls: Option<Tls>,
    instance: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct WaitsFile {
    kept: Option<String>,
    silent: Option<String>,
    unread: Option<String>,
    overdue: Option<String>,
    ping: Option<String>,
    away: Option<String>,
    cycles: Option<u32>,
}

impl Config {
    /// Reads a file; commands run in its directory.
    ///
    /// # Errors
    /// That it cannot be read, or what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(vec![format!("cannot read {}: {error}", path.display())]))?;
        let mut config = Self::parse(&text)?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            directory.clone_into(&mut config.directory);
        }
        Ok(config)
    }

    /// Reads a text; commands run in the present directory.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File =
            toml::from_str(text).map_err(|error| ConfigError(vec![error.to_string().trim().to_owned()]))?;
        let mut problems = Vec::new();
        let mut command = |key: &str, line: Option<String>| {
            let line = line.unwrap_or_default();
            if line.trim().is_empty() {
                problems.push(format!("{key} is missing: a command, such as {}", example(key)));
            }
            line
        };
        let start = command("app.start", file.app.start);
        let alive = command("app.alive", file.app.alive);
        let kill = command("app.kill", file.app.kill);
        let signals = command("app.signals", file.app.signals);
        let known = || Mode::ALL.map(Mode::as_str).join(", ");
        let mut modes = Vec::new();
        for name in file.app.modes.iter().flatten() {
            match Mode::parse(name) {
                Some(mode) => modes.push(mode),
                None => problems.push(format!("app.modes: {name:?} is none of {}", known())),
            }
        }
        match &file.app.modes {
            None => problems.push(format!("app.modes is missing: what the application can do, of {}", known())),
            Some(names) if !names.iter().any(|name| name == "fast") => {
                problems.push("app.modes must have \"fast\": nearly every check starts it so".to_owned());
            }
            Some(_) => {}
        }
        let mut time = |key: &str, text: Option<String>, default: Duration| match text {
            None => default,
            Some(text) => duration::parse(&text).unwrap_or_else(|error| {
                problems.push(format!("{key}: {error}"));
                default
            }),
        };
        let timeout = time("app.timeout", file.app.timeout, COMMAND_LIMIT);
        let usual = Waits::default();
        let waits = Waits {
            kept: time("waits.kept", file.waits.kept, usual.kept),
            silent: time("waits.silent", file.waits.silent, usual.silent),
            unread: time("waits.unread", file.waits.unread, usual.unread),
            overdue: time("waits.overdue", file.waits.overdue, usual.overdue),
            ping: time("waits.ping", file.waits.ping, usual.ping),
            away: time("waits.away", file.waits.away, usual.away),
            cycles: file.waits.cycles.unwrap_or(usual.cycles),
        };
        if !start.is_empty() && !start.contains("{mode}") && modes.len() > 1 {
            problems.push("app.start does not contain {mode}, so it cannot start other modes than one".to_owned());
        }
        if let Some(tls) = &file.hook.tls
            && tls.cert.is_some() != tls.key.is_some()
        {
            problems.push("hook.tls: cert and key are given together or not at all".to_owned());
        }
        let sendable = |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        if file.hook.bearer.as_ref().is_some_and(|token| !sendable(token)) {
            problems.push("hook.bearer must be visible ASCII characters, and not empty".to_owned());
        }
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let HookFile { bearer, tls, instance } = file.hook;
        let AgentFile { restart, pid, log } = file.agent;
        Ok(Self {
            directory: PathBuf::from("."),
            app: App { start, alive, kill, signals, modes, timeout },
            agent: Agent { restart, pid, log },
            hook: Hook { bearer, tls, instance },
            waits,
        })
    }

    /// What of it the checks have to know.
    #[must_use]
    pub fn subject_settings(&self) -> Settings {
        Settings { bearer: self.hook.bearer.clone(), instance: self.hook.instance.clone(), waits: self.waits }
    }
}

fn example(key: &str) -> &'static str {
    match key {
        "app.start" => "\"./fixture.sh start {mode}\"",
        "app.alive" => "\"./fixture.sh alive\", which asks the operating system",
        "app.kill" => "\"./fixture.sh kill\"",
        _ => "\"./fixture.sh signals\", which prints how often the application was told to stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_named() {
        let text = r#"
            [app]
            start = "x"
            modes = ["slow", "quick"]
            timeout = "soon"
            [hook]
            tls = { cert = "c" }
            bearer = "with space"
            [waits]
            kept = "1 fortnight"
        "#;
        let ConfigError(problems) = Config::parse(text).unwrap_err();
        for key in [
            "app.alive",
            "app.kill",
            "app.signals",
            "\"quick\"",
            "\"fast\"",
            "app.timeout",
            "hook.tls",
            "hook.bearer",
            "waits.kept",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:#?}");
        }
    }

    #[test]
    fn a_key_nobody_knows_is_not_overlooked() {
        let ConfigError(problems) = Config::parse("[app]\nstrat = \"x\"").unwrap_err();
        assert!(problems[0].contains("strat"), "{problems:?}");
    }

    #[test]
    fn the_token_is_in_no_debug_output() {
        let hook = Hook { bearer: Some("hush".to_owned()), tls: None, instance: None };
        assert!(!format!("{hook:?}").contains("hush"));
    }
}
