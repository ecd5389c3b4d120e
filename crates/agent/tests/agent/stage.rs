//! A directory, an application that leaves traces in it, and agents that run it.

use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quiesce_protocol::v1::{self, ShutdownPhase, ShutdownRequest, ShutdownStatus};
use quiesce_testkit::eventually;
use quiesce_testkit::process::{self, Process};
use tempfile::TempDir;
use tokio::process::Command;

use crate::scheduler::{Client, Scheduler};

/// Far more than anything here takes, on a machine that is busy with something else.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

pub(crate) const INSTANCE: &str = "applications/shop/instances/shop-0";

/// Says under which epoch it runs; told to stop it notes that, waits for the file `go`, and exits with 3.
const APPLICATION: &str = r#"
    trap 'echo term >> "$DIR/terms"; while [ ! -e "$DIR/go" ]; do sleep 0.02; done; exit 3' TERM
    echo "$QUIESCE_EPOCH" >> "$DIR/starts"
    while :; do sleep 0.02; done
"#;

pub(crate) struct Stage {
    directory: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// From now on the application ends when it is told to.
    pub(crate) fn let_go(&self) {
        std::fs::write(self.path().join("go"), "").unwrap();
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn until_lines(&self, file: &str, count: usize) {
        eventually(format!("{count} lines in {file}"), LIMIT, || ready(self.lines(file).len() >= count)).await;
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// An agent that runs the application.
    pub(crate) fn agent(&self, scheduler: &str, flags: &[&str]) -> Process {
        self.agent_of(scheduler, flags, APPLICATION)
    }

    /// An agent that runs a script.
    pub(crate) fn agent_of(&self, scheduler: &str, flags: &[&str], script: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quiesce-agent"));
        command.args(["--application", "shop", "--cluster", "edge-1", "--instance", "shop-0", "--log-format", "text"]);
        command.arg("--scheduler").arg(format!("http://{scheduler}"));
        command.arg("--state-dir").arg(self.state()).args(flags);
        command.args(["--", "/bin/sh", "-c", script]).env("DIR", self.path());
        process::spawn("agent", command)
    }

    pub(crate) fn agent_at(&self, scheduler: &Scheduler, flags: &[&str]) -> Process {
        self.agent(&scheduler.address.to_string(), flags)
    }
}

pub(crate) fn request(shutdown_id: &str) -> ShutdownRequest {
    ShutdownRequest {
        shutdown_id: shutdown_id.to_owned(),
        operation: "operations/op-1".to_owned(),
        instance: INSTANCE.to_owned(),
        attempt: 1,
        kind: v1::OperationKind::Migrate.into(),
        completion_token: "qct1.x".to_owned(),
        ..Default::default()
    }
}

/// Follows a shutdown until it is in `phase`.
pub(crate) async fn until_phase(hook: &mut Client, shutdown_id: &str, phase: ShutdownPhase) -> ShutdownStatus {
    let followed = async {
        let mut stream = hook.shutdown(request(shutdown_id)).await.unwrap().into_inner();
        loop {
            let status = stream.message().await.unwrap().expect("a report before the end").status.unwrap();
            if status.phase() == phase {
                return status;
            }
        }
    };
    tokio::time::timeout(LIMIT, followed).await.expect("the phase in time")
}

pub(crate) async fn info(hook: &mut Client) -> v1::HookInfo {
    hook.get_hook_info(v1::GetHookInfoRequest {}).await.unwrap().into_inner().info.unwrap()
}
