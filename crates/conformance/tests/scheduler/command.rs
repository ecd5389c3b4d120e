//! The command `scheduler-conformance` against our scheduler as a process of its own.
//!
//! The scheduler is the example `reference-scheduler`, which `cargo test` builds along with this.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quiesce_testkit::certificates::Authority;
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::{self, Process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Far more than a run takes, on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(1_200);

/// Set to anything, every check is run against a process that is really killed; takes minutes.
const WHOLE: &str = "QUIESCE_CONFORMANCE_WHOLE";

/// A scheduler; it is ended with this.
struct Stage {
    directory: TempDir,
    port: FreePort,
    flags: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // There is nobody left to be told.
        let _stopped = self.bare("stop").status();
    }
}

impl Stage {
    fn new(flags: &str) -> Self {
        let (directory, port) = (tempfile::tempdir().unwrap(), FreePort::claim());
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scheduler");
        std::fs::copy(here.join("scheduler.sh"), directory.path().join("scheduler.sh")).unwrap();
        let config = "[scheduler]\nrestart = \"./scheduler.sh restart\"\n";
        std::fs::write(directory.path().join("conformance.toml"), config).unwrap();
        let flags = format!("--listen 127.0.0.1:{} {flags}", port.number());
        Self { directory, port, flags }
    }

    fn start(self) -> Self {
        assert!(self.script("start").status().unwrap().success());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bare(&self, what: &str) -> std::process::Command {
        let mut command = std::process::Command::new("/bin/sh");
        command.arg(self.path("scheduler.sh")).arg(what);
        command
    }

    fn script(&self, what: &str) -> std::process::Command {
        let mut command = self.bare(what);
        command.env("SCHEDULER", reference_scheduler()).env("SCHEDULER_FLAGS", &self.flags);
        command
    }

    fn run(&self, scheme: &str, flags: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-conformance"));
        command.arg("--endpoint").arg(format!("{scheme}://127.0.0.1:{}", self.port.number()));
        command.arg("--config").arg(self.path("conformance.toml")).args(flags);
        command.env("SCHEDULER", reference_scheduler()).env("SCHEDULER_FLAGS", &self.flags);
        process::spawn("scheduler-conformance", command)
    }

    /// A run that is over: its exit code and what it has said.
    async fn outcome(&self, scheme: &str, flags: &[&str]) -> (Option<i32>, String) {
        let mut run = self.run(scheme, flags);
        let status = run.wait(LIMIT).await;
        run.wait_for_output_end(LIMIT).await;
        (status.code(), run.stdout() + &run.stderr())
    }

    async fn file(&self, name: &str) -> String {
        let path = self.path(name);
        eventually(format!("{name} to be there"), Duration::from_secs(30), || {
            let path = path.clone();
            async move { if path.exists() { Ok(path.display().to_string()) } else { Err("it is not") } }
        })
        .await
    }
}

fn reference_scheduler() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.parent().and_then(Path::parent).unwrap();
    let scheduler = directory.join("examples/reference-scheduler");
    assert!(scheduler.exists(), "build it first: cargo build -p quiesce-conformance --example reference-scheduler");
    scheduler
}

#[tokio::test]
async fn the_scheduler_passes_as_a_process_that_is_killed() {
    let stage = Stage::new("--access enforced").start();
    let token = stage.file("state/admin.token").await;
    let results = stage.path("results.json");
    let case = if std::env::var_os(WHOLE).is_some() { "." } else { "N01|O0[17]|F14|E02|A01|W05|D0[1-4]" };
    let flags = ["--token-file", &token, "--strict", "--case", case, "--json", results.to_str().unwrap()];
    let (code, output) = stage.outcome("http", &flags).await;
    let log = std::fs::read_to_string(stage.path("scheduler.log")).unwrap();
    let log: Vec<_> = log.lines().rev().take(40).collect();
    assert_eq!(code, Some(0), "{output}{log:#?}");
    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    assert_eq!(results["passed"], true);
    assert!(!output.contains("skipped"), "{output}");
}

#[tokio::test]
async fn a_scheduler_behind_tls_is_reached_with_the_right_certificates() {
    let stage = Stage::new("");
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]).write(&stage.path(""), "scheduler");
    let (ca, other) = (authority.write(&stage.path(""), "ca"), Authority::new().write(&stage.path(""), "other"));
    let tls = format!(" --tls-cert {} --tls-key {}", pair.certificate.display(), pair.key.display());
    let mut stage = stage;
    stage.flags.push_str(&tls);
    let stage = stage.start();
    let ca = ca.display().to_string();
    let (code, output) = stage.outcome("https", &["--ca", &ca, "--case", "N01|A01"]).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("2 passed"), "{output}");
    let other = other.display().to_string();
    let (code, output) = stage.outcome("https", &["--ca", &other, "--case", "N01"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("secure"), "{output}");
}

#[tokio::test]
async fn a_restart_that_does_not_work_is_no_verdict_on_the_scheduler() {
    let stage = Stage::new("").start();
    std::fs::write(stage.path("conformance.toml"), "[scheduler]\nrestart = \"exit 3\"\n").unwrap();
    let (code, output) = stage.outcome("http", &["--case", "D03"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("scheduler.restart") && output.contains("status 3"), "{output}");
    std::fs::write(stage.path("conformance.toml"), "").unwrap();
    let (code, output) = stage.outcome("http", &["--case", "D03"]).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("skipped    D03") && output.contains("scheduler.restart is not set"), "{output}");
}

#[tokio::test]
async fn nothing_is_left_of_a_run_but_its_history() {
    let stage = Stage::new("").start();
    let (code, output) = stage.outcome("http", &["--case", "N10|P01|O04|F13|C07"]).await;
    assert_eq!(code, Some(0), "{output}");
    let url = format!("http://127.0.0.1:{}", stage.port.number());
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut client = quiesce_protocol::v1::scheduler_client::SchedulerClient::new(channel);
    let applications = client.list_applications(quiesce_protocol::v1::ListApplicationsRequest::default()).await;
    assert_eq!(applications.unwrap().into_inner().applications, []);
    let clusters = client.list_clusters(quiesce_protocol::v1::ListClustersRequest::default()).await;
    assert_eq!(clusters.unwrap().into_inner().clusters, []);
}

#[tokio::test]
async fn what_is_wrong_with_the_command_line_is_said_at_once() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-conformance"));
    command.args(["--endpoint", "nowhere", "--token-file", "missing", "--config", "absent", "--case", "Z99"]);
    command.args(["--expected-failures", "unwritten"]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["--endpoint", "--token-file missing", "absent", "--case", "--expected-failures unwritten"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn the_list_is_that_of_the_docs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-conformance"));
    let output = command.arg("--list").output().await.unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = std::fs::read_to_string(&docs).unwrap();
    assert!(text.contains(&list), "put the output of `scheduler-conformance --list` into docs/conformance.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-conformance"));
    let output = command.args(["--list", "--json"]).output().await.unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list[0]["id"], "N01");
}
