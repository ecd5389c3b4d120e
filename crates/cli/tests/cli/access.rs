//! The way in, from the first token to an agent that has joined, with real processes.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use quiesce_testkit::eventually;
use quiesce_testkit::process::{Process, spawn};
use tempfile::TempDir;

use crate::run::{Ran, command, quiesce};

/// For what takes a moment, on a machine that is busy with something else.
const SOON: Duration = Duration::from_secs(30);

struct Scheduler {
    process: Process,
    url: String,
    directory: TempDir,
}

impl Scheduler {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        let args =
            ["scheduler", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--access", "enforced", "--data-dir"];
        let mut command = command("", &args);
        command.arg(&data);
        let process = spawn("scheduler", command);
        let line = process.wait_for_line("scheduler listens on", SOON).await;
        let (_, rest) = line.split_once("listens on ").expect("a URL");
        let url = rest.split(['"', ',']).next().expect("a URL").to_owned();
        process.wait_for_line("admin.token, for --token-file", SOON).await;
        Self { process, url, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn admin_token(&self) -> PathBuf {
        self.path("data/admin.token")
    }

    /// A command of the administrator.
    async fn admin(&self, args: &[&str]) -> Ran {
        let file = self.admin_token().display().to_string();
        quiesce(&self.url, &[&["--token-file", &file], args].concat()).await
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("the file is there").mode() & 0o777
}

#[tokio::test]
async fn an_agent_joins_with_a_token_that_an_admin_made_and_is_itself_afterwards() {
    let scheduler = Scheduler::start().await;
    let refused = quiesce(&scheduler.url, &["get", "applications"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--token-file") && refused.stderr.contains("admin.token"), "{}", refused.stderr);

    assert_eq!(mode(&scheduler.path("data")), 0o700);
    assert_eq!(mode(&scheduler.path("data/audit.jsonl")), 0o600);

    let join = scheduler.path("join.token");
    let join = join.display().to_string();
    let made = scheduler.admin(&["token", "create", "--role", "agent", "--application", "shop", "--out", &join]).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(made.stdout.is_empty() && made.stderr.contains("--join-token-file"), "{}", made.stderr);
    assert_eq!(mode(Path::new(&join)), 0o600);

    let state = scheduler.path("agent");
    let start = |name: &str| {
        let state = state.display().to_string();
        let args = [
            "agent",
            "--application=shop",
            "--cluster=a",
            "--instance=one",
            "--join-token-file",
            &join,
            "--state-dir",
            &state,
            "--",
            "sleep",
            "1000",
        ];
        let mut command = command(&scheduler.url, &args);
        command.env("PATH", std::env::var_os("PATH").unwrap());
        spawn(name, command)
    };
    let ready = async || {
        eventually("the instance to be ready", SOON, async || {
            let got = scheduler.admin(&["get", "instance", "shop/one", "-o", "json"]).await;
            if got.stdout.contains("STATE_READY") { Ok(()) } else { Err(format!("{} {}", got.stdout, got.stderr)) }
        })
        .await;
    };
    let mut first = start("the first agent");
    ready().await;
    // Once used up and gone, it is not missed.
    std::fs::remove_file(&join).unwrap();
    assert_eq!(mode(&state.join("instance.token")), 0o600);
    first.kill_9().await;
    let second = start("the second agent");
    second.wait_for_line("attached to the scheduler", SOON).await;
    ready().await;
    for process in [&first, &second, &scheduler.process] {
        let said = format!("{}{}", process.stdout(), process.stderr());
        assert!(!said.contains("qjt1.") && !said.contains("qit1.") && !said.contains("qbt1."), "{said}");
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_worthless_when_it_is_revoked() {
    let scheduler = Scheduler::start().await;
    let made = scheduler.admin(&["token", "create", "--role", "viewer", "--name", "ann", "-o", "json"]).await;
    let token = made.json()["bearerToken"].as_str().unwrap().to_owned();
    let name = made.json()["token"]["name"].as_str().unwrap().to_owned();
    let with = async |token: &str, args: &[&str]| {
        let mut command = command(&scheduler.url, args);
        command.env("QUIESCE_TOKEN", token);
        crate::run::ran(command).await
    };
    assert_eq!(with(&token, &["get", "applications"]).await.code, Some(0));
    let refused = with(&token, &["token", "list"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("does not allow"), "{}", refused.stderr);

    let listed = scheduler.admin(&["token", "list"]).await;
    assert!(listed.stdout.contains("ann") && listed.stdout.contains("viewer"), "{}", listed.stdout);
    let secret = token.rsplit('.').next().unwrap();
    let json = scheduler.admin(&["token", "list", "-o", "json"]).await;
    assert!(!listed.stdout.contains(secret) && !json.stdout.contains(secret));

    let mistaken = scheduler.admin(&["token", "revoke", &token]).await;
    assert!(mistaken.code == Some(1) && !mistaken.stderr.contains(secret), "{}", mistaken.stderr);
    assert_eq!(scheduler.admin(&["token", "revoke", &name]).await.code, Some(0));
    assert_eq!(with(&token, &["get", "applications"]).await.code, Some(1));
    let again = scheduler.admin(&["token", "revoke", &name]).await;
    assert!(again.code == Some(1) && again.stderr.contains("quiesce token list"), "{}", again.stderr);
}

#[tokio::test]
async fn a_token_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let scheduler = Scheduler::start().await;
    let file = scheduler.admin_token();
    assert_eq!(mode(&file), 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = scheduler.admin(&["get", "applications"]).await;
    let advice = format!("chmod 600 {}", file.display());
    assert!(refused.code == Some(1) && refused.stderr.contains(&advice), "{}", refused.stderr);
    let joining = ["agent", "--application=shop", "--cluster=a", "--join-token-file"];
    let file = file.display().to_string();
    let refused =
        quiesce(&scheduler.url, &[&joining[..], &[&file, "--state-dir", "/nowhere", "--", "true"]].concat()).await;
    assert!(refused.code == Some(2) && refused.stderr.contains(&advice), "{}", refused.stderr);
}
