//! The application behind the hook, as the operating system sees it: started, asked after, killed.
//!
//! Owns the commands of the configuration. It never asks the hook anything.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_runtime::duration;
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::Config;

/// How an application behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Ends at once when it is told to.
    Fast,
    /// Ends 1.5 seconds after it was told to.
    Slow,
    /// Is told and takes no notice.
    Deaf,
    /// As fast, with exit status 7.
    Exit7,
    /// As fast, and something starts it again within a second.
    Respawn,
    /// As deaf, with child processes that are no less so. The oracle says alive while one of them is left.
    Children,
    /// As fast, and the hook spends at least three seconds draining before it tells it.
    Drains,
    /// The hook is not able to tell it.
    Untouchable,
    /// As fast; and when it is started again it ends before it is of use.
    Broken,
}

impl Mode {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Fast,
        Self::Slow,
        Self::Deaf,
        Self::Exit7,
        Self::Respawn,
        Self::Children,
        Self::Drains,
        Self::Untouchable,
        Self::Broken,
    ];

    /// As it stands in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Deaf => "deaf",
            Self::Exit7 => "exit7",
            Self::Respawn => "respawn",
            Self::Children => "children",
            Self::Drains => "drains",
            Self::Untouchable => "untouchable",
            Self::Broken => "broken",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fixture did not do what it is there for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct FixtureError {
    /// The setting it stands in, such as `app.start`.
    pub setting: &'static str,
    /// What went wrong.
    pub problem: String,
}

/// An application, and what can be done about it behind the back of its hook.
pub trait Fixture: Send + Sync {
    /// What it can do; fast at least.
    fn modes(&self) -> Vec<Mode>;

    /// When this returns, the application runs in this mode under a hook that knows of no shutdown in progress.
    fn start(&self, mode: Mode) -> BoxFuture<'_, Result<(), FixtureError>>;

    /// The oracle: whether any process of the application is alive.
    fn is_alive(&self) -> BoxFuture<'_, Result<bool, FixtureError>>;

    /// Ends all of it at once, without the hook. With nothing to end it does nothing.
    fn kill(&self) -> BoxFuture<'_, Result<(), FixtureError>>;

    /// How often the application was told to stop, in all.
    fn signals(&self) -> BoxFuture<'_, Result<u32, FixtureError>>;

    /// Whether [`Fixture::restart`] does anything.
    fn can_restart(&self) -> bool;

    /// Ends the hook without warning and starts it again. The application, if it runs, notices nothing.
    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>>;

    /// Open files of the hook, if that is known.
    fn open_files(&self) -> BoxFuture<'_, Result<Option<usize>, FixtureError>> {
        Box::pin(async { Ok(None) })
    }

    /// Everything the hook has written to its log, if that is known.
    fn log(&self) -> BoxFuture<'_, Result<Option<String>, FixtureError>> {
        Box::pin(async { Ok(None) })
    }
}

/// The commands of a configuration. Each is run by `/bin/sh -c`, in the directory of the configuration.
#[derive(Debug, Clone)]
pub struct Commands {
    config: Config,
}

impl Commands {
    /// As `config` has them.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone() }
    }

    /// Exit status and standard output.
    async fn run(&self, setting: &'static str, line: &str) -> Result<(i32, String), FixtureError> {
        shell(setting, line, &self.config.directory, self.config.app.timeout).await
    }

    async fn done(&self, setting: &'static str, line: &str) -> Result<String, FixtureError> {
        let (code, output) = self.run(setting, line).await?;
        if code == 0 {
            return Ok(output);
        }
        Err(FixtureError { setting, problem: format!("{line:?} ended with status {code}") })
    }

    async fn number<N: std::str::FromStr>(&self, setting: &'static str, line: &str) -> Result<N, FixtureError> {
        let output = self.done(setting, line).await?;
        output
            .parse()
            .map_err(|_| FixtureError { setting, problem: format!("{line:?} printed {output:?} instead of a number") })
    }
}

/// Exit status and standard output of a line for `/bin/sh`.
pub(crate) async fn shell(
    setting: &'static str,
    line: &str,
    directory: &Path,
    limit: Duration,
) -> Result<(i32, String), FixtureError> {
    let failed = |problem| FixtureError { setting, problem };
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).current_dir(directory);
    // Output goes to files of its own making: a daemon it leaves behind would hold a pipe open.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let child = command.spawn().map_err(|error| failed(format!("cannot run {line:?}: {error}")))?;
    let output = timeout(limit, child.wait_with_output())
        .await
        .map_err(|_elapsed| {
            let limit = duration::format(limit);
            failed(format!(
                "{line:?} did not end within {limit}, or left a process behind that holds its standard output"
            ))
        })?
        .map_err(|error| failed(format!("cannot wait for {line:?}: {error}")))?;
    let code = output.status.code().ok_or_else(|| failed(format!("{line:?} was ended by a signal")))?;
    Ok((code, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

impl Fixture for Commands {
    fn modes(&self) -> Vec<Mode> {
        self.config.app.modes.clone()
    }

    fn start(&self, mode: Mode) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async move {
            let line = self.config.app.start.replace("{mode}", mode.as_str());
            self.done("app.start", &line).await.map(drop)
        })
    }

    fn is_alive(&self) -> BoxFuture<'_, Result<bool, FixtureError>> {
        Box::pin(async move {
            let line = &self.config.app.alive;
            match self.run("app.alive", line).await?.0 {
                0 => Ok(true),
                1 => Ok(false),
                code => {
                    let problem = format!(
                        "{line:?} ended with status {code}; 0 says alive, 1 not alive, and nothing else is an answer"
                    );
                    Err(FixtureError { setting: "app.alive", problem })
                }
            }
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async move { self.done("app.kill", &self.config.app.kill).await.map(drop) })
    }

    fn signals(&self) -> BoxFuture<'_, Result<u32, FixtureError>> {
        Box::pin(async move { self.number("app.signals", &self.config.app.signals).await })
    }

    fn can_restart(&self) -> bool {
        self.config.agent.restart.is_some()
    }

    fn restart(&self) -> BoxFuture<'_, Result<(), FixtureError>> {
        Box::pin(async move {
            match &self.config.agent.restart {
                Some(line) => self.done("agent.restart", line).await.map(drop),
                None => Err(FixtureError { setting: "agent.restart", problem: "is not set".to_owned() }),
            }
        })
    }

    fn open_files(&self) -> BoxFuture<'_, Result<Option<usize>, FixtureError>> {
        Box::pin(async move {
            let Some(line) = &self.config.agent.pid else { return Ok(None) };
            let pid: u32 = self.number("agent.pid", line).await?;
            let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|error| FixtureError {
                setting: "agent.pid",
                problem: format!("cannot count the open files of process {pid}: {error}"),
            })?;
            Ok(Some(entries.count()))
        })
    }

    fn log(&self) -> BoxFuture<'_, Result<Option<String>, FixtureError>> {
        Box::pin(async move {
            let Some(path) = &self.config.agent.log else { return Ok(None) };
            let path = self.config.directory.join(path);
            let bytes = std::fs::read(&path).map_err(|error| FixtureError {
                setting: "agent.log",
                problem: format!("cannot read {}: {error}", path.display()),
            })?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        })
    }
}

/// Longest time a command of the fixture may take, unless the configuration says otherwise: starting an application and
/// its hook is the longest, and people wait for it.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(30);
