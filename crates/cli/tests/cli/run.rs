//! Running the binary, and building what the fake answers with.

use std::process::Stdio;
use std::time::Duration;

use prost_types::Timestamp;
use quiesce_protocol::v1::{
    AgentsPlacement, Operation, OperationEvent, OperationKind, Placement, operation, operation_event, placement,
};
use tokio::process::Command;

/// Far more than any command takes; a test that hangs fails instead.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The same, if it exited with `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}{}", self.stdout, self.stderr))
    }
}

/// The binary with a clean environment.
pub(crate) fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quiesce"));
    command
        .args(args)
        .env_clear()
        .env("QUIESCE_SCHEDULER", url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn quiesce(url: &str, args: &[&str]) -> Ran {
    ran(command(url, args)).await
}

/// Runs what [`command`] made to its end.
pub(crate) async fn ran(mut command: Command) -> Ran {
    let output =
        tokio::time::timeout(LIMIT, command.output()).await.expect("the command ends").expect("the binary runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

/// A migration of db from a to b.
pub(crate) fn operation(state: operation::State) -> Operation {
    use operation::State;
    let done = matches!(state, State::Succeeded | State::Cancelled | State::RolledBack | State::Abandoned);
    Operation {
        name: "operations/op-1".to_owned(),
        application: "applications/db".to_owned(),
        kind: OperationKind::Migrate.into(),
        state: state.into(),
        done,
        source_cluster: "a".to_owned(),
        target_cluster: "b".to_owned(),
        placement: Some(Placement { driver: Some(placement::Driver::Agents(AgentsPlacement {})) }),
        create_time: at(0),
        end_time: if done { at(12) } else { None },
        epoch: 2,
        ..Operation::default()
    }
}

/// An event with a resume token of its revision.
pub(crate) fn event(kind: operation_event::Type, revision: i64, state: operation::State) -> Box<OperationEvent> {
    let snapshot = kind == operation_event::Type::Snapshot;
    Box::new(OperationEvent {
        revision,
        r#type: kind.into(),
        event_time: at(revision),
        resume_token: if snapshot { String::new() } else { format!("token-{revision}") },
        operation: Some(operation(state)),
        ..OperationEvent::default()
    })
}
