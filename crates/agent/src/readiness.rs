//! How it is known that a started application is of use.
//!
//! Owns the proofs and their pace. `READY=1` is heard elsewhere and always counts; what is here runs beside it. Nothing
//! here gives up: how long a start may take is for the caller to say.

use std::{fmt, future, str::FromStr, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{application::Ready, host::Host, process::helper_command::CommandLine};

/// Alive for so long counts as ready when nothing better is known. Programs that fail at once (wrong flag, port in use,
/// no data directory) have failed by then.
pub const SETTLING_TIME: Duration = Duration::from_secs(1);

/// A ready command that takes longer hangs; it is killed and tried again.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// A connection to the same machine or network takes milliseconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Between two tries: soon enough for people, seldom enough for a program that is busy with starting.
const PAUSE: Duration = Duration::from_millis(200);

/// What is looked at besides `READY=1`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Probe {
    /// Nothing else if the application uses its notify socket within [`SETTLING_TIME`]; otherwise that it lives for
    /// that time.
    #[default]
    Auto,
    /// Nothing else.
    Notify,
    /// A command that exits with 0.
    Command(CommandLine),
    /// `HOST:PORT` accepts a connection. Says nothing about who accepted it.
    Tcp(String),
    /// That it lives for [`SETTLING_TIME`].
    Settle,
}

/// Why a text is no probe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown probe {0:?}: auto, notify, settle, tcp:HOST:PORT or command:COMMAND")]
pub struct ParseProbeError(String);

impl FromStr for Probe {
    type Err = ParseProbeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseProbeError(text.to_owned());
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "notify" => Ok(Self::Notify),
            None if text == "settle" => Ok(Self::Settle),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            Some(("command", line)) => line.parse().map(Self::Command).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Notify => f.write_str("notify"),
            Self::Settle => f.write_str("settle"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Command(line) => write!(f, "command:{line}"),
        }
    }
}

impl Probe {
    /// Completes with the proof. Dropping it ends whatever it is doing.
    pub(crate) async fn prove(self, host: Host, variables: Vec<(String, String)>) -> Ready {
        match self {
            Self::Notify => future::pending().await,
            Self::Auto | Self::Settle => {
                sleep(SETTLING_TIME).await;
                Ready::Settled
            }
            Self::Command(line) => {
                while !succeeds(&host, &line, &variables).await {
                    sleep(PAUSE).await;
                }
                Ready::Command
            }
            Self::Tcp(address) => {
                let network = host.machine.network;
                while !matches!(timeout(CONNECT_LIMIT, network.connect(&address, None)).await, Ok(Ok(_))) {
                    sleep(PAUSE).await;
                }
                Ready::Tcp
            }
        }
    }
}

async fn succeeds(host: &Host, line: &CommandLine, variables: &[(String, String)]) -> bool {
    let exit = match host.commands.run(line, variables, Some(COMMAND_LIMIT)) {
        Ok(helper) => helper.await,
        Err(error) => Err(error),
    };
    match exit {
        Ok(exit) => exit.is_some_and(|exit| exit.code == Some(0)),
        Err(error) => {
            tracing::debug!(command = %line, %error, "cannot run the ready command");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_and_written() {
        for text in ["auto", "notify", "settle", "tcp:127.0.0.1:80", "tcp:[::1]:80", "command:redis-cli ping"] {
            assert_eq!(text.parse::<Probe>().unwrap().to_string(), text);
        }
        for text in ["", "tcp", "tcp:80", "command:", "often"] {
            assert!(text.parse::<Probe>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_is_ready_when_it_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(Probe::Tcp(address).prove(Host::linux(), Vec::new()).await, Ready::Tcp);
    }

    #[tokio::test]
    async fn a_command_is_tried_until_it_succeeds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tried");
        let line = format!("test -e {0} || {{ touch {0}; exit 1; }}", file.display()).parse().unwrap();
        assert_eq!(Probe::Command(line).prove(Host::linux(), Vec::new()).await, Ready::Command);
    }
}
