//! The command `hook-conformance` against the reference agent, with real processes: listening and dialling in.
//!
//! The agent is the example `reference-agent`, which `cargo test` builds along with this.

#![expect(clippy::unwrap_used, reason = "tests panic where they fail")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::{self, Process};
use serde_json::Value;
use tempfile::TempDir;
use tls::Files;
use tokio::process::Command;

/// Far more than a run takes, on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(1_200);

/// Waits that are long enough for what is looked at here; the contract's own are those of the tests in memory.
const WAITS: &str = r#"
[waits]
kept = "2s"
cycles = 3
"#;

mod tls;

struct Stage {
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(WAITS)
    }

    /// With the waits of the contract, if that is what [`WHOLE`] says.
    fn whole() -> Self {
        let contract = std::env::var(WHOLE).is_ok_and(|value| value == "contract");
        if contract { Self::with("") } else { Self::new() }
    }

    fn with(waits: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process");
        std::fs::copy(here.join("fixture.sh"), directory.path().join("fixture.sh")).unwrap();
        let config = std::fs::read_to_string(here.join("conformance.toml")).unwrap();
        std::fs::write(directory.path().join("conformance.toml"), config + waits).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the command, with an agent that has these flags.
    fn run(&self, flags: &[&str], agent_flags: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hook-conformance"));
        command.arg("--config").arg(self.path("conformance.toml")).arg("--junit").arg(self.path("junit.xml"));
        command.args(flags).env("AGENT", reference_agent()).env("AGENT_FLAGS", agent_flags);
        process::spawn("hook-conformance", command)
    }

    /// A run that has to pass; what was skipped.
    async fn passes(&self, flags: &[&str], agent_flags: &str) -> Vec<String> {
        let results = self.path("results.json");
        let flags = [flags, &["--strict", "--json", results.to_str().unwrap()]].concat();
        let mut run = self.run(&flags, agent_flags);
        let status = run.wait(LIMIT).await;
        let log = std::fs::read_to_string(self.path("agent.log")).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(40).collect();
        assert!(status.success(), "{}{}{tail:#?}", run.stdout(), run.stderr());
        let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
        assert_eq!(results["passed"], true);
        let checks = results["checks"].as_array().unwrap();
        assert!(std::fs::read_to_string(self.path("junit.xml")).unwrap().contains("failures=\"0\""));
        // Whether the agent is asked before it leaves together with its application (I04) is a matter of moments.
        let skipped = checks.iter().filter(|check| check["outcome"] == "skipped" && check["id"] != "I04");
        skipped.map(|check| check["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Over a unix socket, which is its own credential; no scheduler is asked.
    fn by_socket(&self) -> (String, String) {
        let address = format!("unix:{}", self.path("hook.sock").display());
        (address.clone(), format!("--listen {address} --start always --scheduler http://127.0.0.1:1"))
    }
}

fn reference_agent() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.parent().and_then(Path::parent).unwrap();
    let agent = directory.join("examples/reference-agent");
    assert!(agent.exists(), "build it first: cargo build -p quiesce-conformance --example reference-agent");
    agent
}

/// Set to anything, every check is run with real processes; takes some minutes. Set to `contract`, with the waits of the
/// contract, which virtual time has otherwise: ten minutes.
const WHOLE: &str = "QUIESCE_CONFORMANCE_WHOLE";

#[tokio::test]
async fn the_agent_passes_on_a_unix_socket() {
    let stage = Stage::new();
    let (address, agent) = stage.by_socket();
    let flags = ["--endpoint", address.as_str(), "--case", "I01|S01|S03|S14|S18|B01|R02|R06|R09|R13|R14|K03|K07|C01"];
    assert_eq!(stage.passes(&flags, &agent).await, [""; 0]);
}

#[tokio::test]
async fn the_agent_passes_on_a_port_it_registers() {
    let (stage, port) = (Stage::new(), FreePort::claim());
    let accept = format!("127.0.0.1:{}", port.number());
    let agent = format!("--listen 127.0.0.1:0 --scheduler http://{accept}");
    let flags = ["--accept", accept.as_str(), "--case", "I0[67]|R11|L01|T02|E01|E05|E1[134567]"];
    assert_eq!(stage.passes(&flags, &agent).await, [""; 0]);
}

#[tokio::test]
async fn the_agent_passes_when_it_dials_in() {
    let (stage, port) = (Stage::new(), FreePort::claim());
    let accept = format!("127.0.0.1:{}", port.number());
    let agent = format!("--scheduler http://{accept}");
    // Those that take as long as a dead connection takes to be noticed are looked at in virtual time.
    let flags = ["--accept", accept.as_str(), "--case", "A0[1-47]|S01|R06|R13|E13"];
    assert_eq!(stage.passes(&flags, &agent).await, [""; 0]);
}

#[tokio::test]
async fn the_agent_passes_everything_if_there_is_time() {
    if std::env::var_os(WHOLE).is_none() {
        return;
    }
    let (listens, dials, port) = (Stage::whole(), Stage::whole(), FreePort::claim());
    let (address, agent) = listens.by_socket();
    let flags = ["--endpoint", address.as_str()];
    let listening = listens.passes(&flags, &agent);
    let accept = format!("127.0.0.1:{}", port.number());
    let agent = format!("--scheduler http://{accept}");
    let flags = ["--accept", accept.as_str()];
    let (listening, dialling) = tokio::join!(listening, dials.passes(&flags, &agent));
    // As root nothing is untouchable, and nothing but the agent starts its application behind its back.
    let mut skipped = vec!["I06", "I07", "I10", "B05", "T01"];
    assert_eq!(dialling, skipped);
    skipped.extend(["A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08"]);
    assert_eq!(listening, skipped);
}

#[tokio::test]
async fn a_hook_behind_tls_is_reached_with_the_right_certificates() {
    let stage = Stage::new();
    let (hook, people) = (tls::files(&stage.path(""), "hook"), tls::files(&stage.path(""), "people"));
    let (_, agent) = stage.by_socket();
    let (address, _serving) = tls::door(&hook, &people, stage.path("hook.sock")).await;
    let endpoint = format!("https://{address}");
    let flags = ["--endpoint", endpoint.as_str(), "--case", "I01|S01|R06"];
    let config = std::fs::read_to_string(stage.path("conformance.toml")).unwrap();
    let trusting = |authority: &Path| {
        let Files { pair, .. } = &people;
        let paths = [authority, &pair.certificate, &pair.key].map(|path| path.display().to_string());
        let [ca, cert, key] = paths;
        format!("{config}\n[hook]\ntls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}\n")
    };
    std::fs::write(stage.path("conformance.toml"), trusting(&hook.authority)).unwrap();
    assert_eq!(stage.passes(&flags, &agent).await, [""; 0]);

    std::fs::write(stage.path("conformance.toml"), trusting(&people.authority)).unwrap();
    let mut run = stage.run(&flags, &agent);
    assert_eq!(run.wait(LIMIT).await.code(), Some(1));
    run.wait_for_output_end(LIMIT).await;
    assert!(run.stderr().contains("hook.tls.ca"), "{}", run.stderr());

    std::fs::write(stage.path("conformance.toml"), &config).unwrap();
    let mut run = stage.run(&flags, &agent);
    assert_eq!(run.wait(LIMIT).await.code(), Some(2));
    run.wait_for_output_end(LIMIT).await;
    assert!(run.stderr().contains("hook.tls"), "{}", run.stderr());
}

/// A run that is over, whatever came of it.
async fn outcome(stage: &Stage, flags: &[&str]) -> (Option<i32>, String) {
    let (address, agent) = stage.by_socket();
    let mut run = stage.run(&[&["--endpoint", address.as_str()], flags].concat(), &agent);
    let status = run.wait(LIMIT).await;
    run.wait_for_output_end(LIMIT).await;
    (status.code(), run.stdout() + &run.stderr())
}

#[tokio::test]
async fn a_failure_that_was_expected_is_accounted_for() {
    let stage = Stage::new();
    // An oracle that takes the dead for the living.
    let config = std::fs::read_to_string(stage.path("conformance.toml")).unwrap();
    std::fs::write(stage.path("conformance.toml"), config.replace("./fixture.sh alive", "true")).unwrap();
    let (code, output) = outcome(&stage, &["--case", "S01|S12"]).await;
    assert_eq!(code, Some(1), "{output}");
    for part in [
        "FAILED     S01",
        "expected: that no process is left",
        "seen:     the oracle",
        "rule:     H7",
        "1 passed, 1 failed",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    std::fs::write(stage.path("known"), "S01 our oracle is blind\n").unwrap();
    let known = stage.path("known");
    let known = ["--case", "S01|S12", "--expected-failures", known.to_str().unwrap()];
    let (code, output) = outcome(&stage, &known).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("our oracle is blind") && output.contains("1 failed as expected"), "{output}");
    std::fs::write(stage.path("known"), "S12\n").unwrap();
    let (code, output) = outcome(&stage, &["--case", "S12", known[2], known[3]]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("UNEXPECTED S12"), "{output}");
}

#[tokio::test]
async fn a_fixture_that_does_not_work_is_no_verdict_on_the_hook() {
    let stage = Stage::new();
    let config = std::fs::read_to_string(stage.path("conformance.toml")).unwrap();
    std::fs::write(stage.path("conformance.toml"), config.replace("./fixture.sh alive", "exit 7")).unwrap();
    let (code, output) = outcome(&stage, &["--case", "S01"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("the fixture does not work: app.alive"), "{output}");
    std::fs::write(stage.path("fixture.sh"), "exit 3").unwrap();
    let (code, output) = outcome(&stage, &["--case", "S01"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("app.start") && output.contains("status 3"), "{output}");
}

#[tokio::test]
async fn what_is_wrong_with_the_command_line_is_said_at_once() {
    let stage = Stage::new();
    std::fs::write(stage.path("conformance.toml"), "[app]\nstart = \"x\"\n").unwrap();
    let flags = ["--endpoint", "nowhere", "--expected-failures", "missing", "--case", "Z99"];
    let mut run = stage.run(&flags, "");
    assert_eq!(run.wait(LIMIT).await.code(), Some(2));
    run.wait_for_output_end(LIMIT).await;
    for part in
        ["app.alive", "app.kill", "app.signals", "app.modes", "--endpoint", "--expected-failures missing", "--case"]
    {
        assert!(run.stderr().contains(part), "{part}: {}", run.stderr());
    }
}

#[tokio::test]
async fn the_list_is_that_of_the_docs() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hook-conformance"));
    command.arg("--list");
    let output = command.output().await.unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let text = std::fs::read_to_string(&docs).unwrap();
    assert!(text.contains(&list), "put the output of `hook-conformance --list` into docs/conformance.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hook-conformance"));
    let output = command.args(["--list", "--json"]).output().await.unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list[0]["id"], "I01");
}
