//! Agents that listen, with TLS and a certificate on every edge and access enforced, all of it made by our own commands:
//! from the first token over restarts and renewals to a migration and a deletion.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use quiesce_protocol::v1;
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tls::{Connector, ConnectorFiles, ConnectorSettings};
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::{Process, spawn};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::run::{Ran, command, quiesce, ran};

/// For what takes a moment, on a machine that is busy with something else.
const SOON: Duration = Duration::from_secs(60);

/// Notes that it was told to stop, and ends when the file `go` is there.
const APPLICATION: &str = r#"
    trap 'echo term >> "$DIR/terms"; while [ ! -e "$DIR/go" ]; do sleep 0.02; done; exit 0' TERM
    while :; do sleep 0.02; done
"#;

/// What is logged when files were exchanged: once for each side of a program.
const RENEWED: &str = "certificates changed";

struct Ground {
    directory: TempDir,
    port: FreePort,
}

impl Ground {
    /// A CA, a certificate for everybody, and the settings of the scheduler.
    async fn new() -> Self {
        let ground = Self { directory: tempfile::tempdir().expect("there is room"), port: FreePort::claim() };
        ground.pki(&["init"], &[]).await;
        for whom in ["scheduler", "a", "b", "ann"] {
            ground.issue(whom).await;
        }
        let config = "[access]\nmode = \"enforced\"\n[[access.principals]]\nname = \"spiffe://quiesce/people/ann\"\n\
                      roles = [\"admin\"]\n";
        std::fs::write(ground.path("scheduler.toml"), config).expect("there is room");
        ground
    }

    /// Issues or renews the certificate of `whom`.
    async fn issue(&self, whom: &str) {
        let agent = format!("shop/{whom}");
        match whom {
            "scheduler" => self.pki(&["issue"], &["scheduler", "127.0.0.1"]).await,
            "ann" => self.pki(&["issue"], &["spiffe://quiesce/people/ann"]).await,
            _ => self.pki(&["issue"], &["--agent", &agent, "127.0.0.1"]).await,
        }
    }

    async fn pki(&self, what: &[&str], more: &[&str]) {
        let directory = self.text("pki");
        quiesce("", &[&["pki"], what, &[&directory], more].concat()).await.expect(0);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `--ca`, `--cert` and `--key` of `whom`.
    fn flags(&self, [ca, certificate, key]: [&str; 3], whom: &str) -> [String; 6] {
        [
            ca.to_owned(),
            self.text("pki/ca.pem"),
            certificate.to_owned(),
            self.text(&format!("pki/{whom}.pem")),
            key.to_owned(),
            self.text(&format!("pki/{whom}.key")),
        ]
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number())
    }

    async fn scheduler(&self) -> Process {
        let listen = format!("127.0.0.1:{}", self.port.number());
        let mut command = command("", &["scheduler", "--listen", &listen, "--admin-listen", "off"]);
        command.arg("--config").arg(self.path("scheduler.toml")).arg("--data-dir").arg(self.path("data"));
        command.args(self.flags(["--tls-client-ca", "--tls-cert", "--tls-key"], "scheduler"));
        let process = spawn("scheduler", command);
        process.wait_for_line("scheduler listens on https://", SOON).await;
        process
    }

    async fn stop(&self, mut scheduler: Process) -> Process {
        scheduler.signal(Signal::TERM);
        assert!(scheduler.wait(SOON).await.success());
        scheduler
    }

    fn agent(&self, name: &str, more: &[&str]) -> Process {
        let mut command: Command = command(&self.url(), &["agent", "--application=shop", "--listen=127.0.0.1:0"]);
        command.args(["--cluster", name, "--instance", name]).args(more);
        command.args(self.flags(["--ca", "--cert", "--key"], name));
        command.arg("--hook-client-ca").arg(self.path("pki/ca.pem"));
        command.arg("--join-token-file").arg(self.path("join.token"));
        command.arg("--state-dir").arg(self.path(&format!("state-{name}")));
        command.args(["--", "/bin/sh", "-c", APPLICATION]).env("DIR", self.directory.path());
        command.env("PATH", std::env::var_os("PATH").expect("there is one"));
        spawn(format!("agent {name}"), command)
    }

    /// A command of the administrator, who is known by a certificate.
    async fn ann(&self, args: &[&str]) -> Ran {
        let mut command = command(&self.url(), args);
        command.args(self.flags(["--ca", "--cert", "--key"], "ann"));
        ran(command).await
    }

    async fn join_token(&self) {
        let file = self.text("join.token");
        let words = ["token", "create", "--role", "agent", "--application", "shop", "--uses", "2", "--out", &file];
        self.ann(&words).await.expect(0);
    }

    async fn ready_to_move(&self) {
        eventually("both agents to be ready for a migration", SOON, async || {
            let plan = self.ann(&["migrate", "shop", "--to", "b", "--dry-run"]).await;
            if plan.code == Some(0) { Ok(()) } else { Err(plan.stderr) }
        })
        .await;
    }

    /// What the hook of `name` says to the scheduler's certificate with this token.
    async fn hook_answers(&self, name: &str, token: Option<&str>) -> Code {
        let instance = self.ann(&["get", "instance", &format!("shop/{name}"), "-o", "json"]).await.expect(0).json();
        let endpoint = instance["endpoint"].as_str().expect("it listens");
        let address = endpoint.strip_prefix("https://").expect("it speaks TLS").to_owned();
        let [_, ca, _, certificate, _, key] = self.flags(["", "", ""], "scheduler");
        let files = ConnectorFiles {
            authorities: Some(ca.into()),
            own: Some((certificate.into(), key.into())),
            settings: ConnectorSettings::FLAGS,
        };
        let tls = Connector::load(files, Machine::local().clocks).expect("the files are good");
        let connector = tower::service_fn(move |_| {
            let (tls, address) = (tls.clone(), address.clone());
            async move {
                let socket = Machine::local().network.connect(&address, None).await?;
                let secured = Box::pin(tls.connect(socket, "127.0.0.1", b"h2")).await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(TokioIo::new(secured))
            }
        });
        let channel = Endpoint::from_static("https://hook").connect_with_connector(connector).await;
        let mut client = ShutdownHookClient::new(channel.expect("the certificate of the hook is for 127.0.0.1"));
        let mut request = Request::new(v1::GetHookInfoRequest {});
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("it is text"));
        }
        client.get_hook_info(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

/// Nothing that proves anything stands in a log.
fn tell_no_secrets(processes: &[&Process]) {
    for process in processes {
        let said = format!("{}{}", process.stdout(), process.stderr());
        for secret in ["qjt1.", "qit1.", "qbt1.", "qht1.", "qct1.", "PRIVATE KEY"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}

#[tokio::test]
async fn listening_agents_join_and_move_an_application_over_restarts_of_everybody() {
    let ground = Ground::new().await;
    let scheduler = ground.scheduler().await;
    ground.join_token().await;
    let (mut a, b) = (ground.agent("a", &[]), ground.agent("b", &["--standby"]));
    ground.ready_to_move().await;
    for wrong in [None, Some("wrong")] {
        assert_eq!(ground.hook_answers("a", wrong).await, Code::Unauthenticated, "{wrong:?}");
    }

    let before = ground.stop(scheduler).await;
    let scheduler = ground.scheduler().await;
    ground.ready_to_move().await;
    a.kill_9().await;
    let again = ground.agent("a", &[]);
    again.wait_for_line("registered", SOON).await;
    ground.ready_to_move().await;

    std::fs::write(ground.path("go"), "").expect("there is room");
    for args in [&["migrate", "shop", "--to", "b"][..], &["delete", "shop"]] {
        let ran = ground.ann(args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.stdout, ran.stderr);
    }
    tell_no_secrets(&[&before, &scheduler, &a, &b, &again]);
}

#[tokio::test]
async fn certificates_are_renewed_under_a_running_shutdown() {
    let ground = Ground::new().await;
    let scheduler = ground.scheduler().await;
    ground.join_token().await;
    let (a, b) = (ground.agent("a", &[]), ground.agent("b", &["--standby"]));
    ground.ready_to_move().await;
    ground.ann(&["migrate", "shop", "--to", "b", "--detach"]).await.expect(0);
    let told = || std::fs::read_to_string(ground.path("terms")).unwrap_or_default();
    eventually(
        "the application to be told to stop",
        SOON,
        async || {
            if told().is_empty() { Err("not yet") } else { Ok(()) }
        },
    )
    .await;

    for whom in ["scheduler", "a", "b"] {
        ground.issue(whom).await;
    }
    for process in [&scheduler, &a, &b] {
        eventually("both sides to use the new certificates", SOON, async || {
            let said = process.stderr();
            if said.matches(RENEWED).count() >= 2 { Ok(()) } else { Err(said) }
        })
        .await;
    }
    // Whoever comes back dials anew, and joins the shutdown that runs.
    let _before = ground.stop(scheduler).await;
    let scheduler = ground.scheduler().await;
    std::fs::write(ground.path("go"), "").expect("there is room");
    eventually("the application to run at b", SOON, async || {
        let operations = ground.ann(&["get", "operations", "-o", "json"]).await.expect(0).json();
        let state = operations[0]["state"].as_str().unwrap_or_default().to_owned();
        if state == "STATE_SUCCEEDED" { Ok(()) } else { Err(state) }
    })
    .await;
    assert_eq!(told().lines().count(), 1, "it is told once");
    tell_no_secrets(&[&scheduler, &a, &b]);
}

#[tokio::test]
async fn a_hook_whose_certificate_is_for_somebody_else_is_named_with_the_remedy() {
    let ground = Ground::new().await;
    let scheduler = ground.scheduler().await;
    ground.join_token().await;
    // As issued for dialling in: it says who the agent is, and not where.
    ground.pki(&["issue"], &["--agent", "shop/c"]).await;
    let _agent = ground.agent("c", &["--start", "always"]);
    let says = "the certificate of 127.0.0.1 is for";
    eventually("the reason to be shown", SOON, async || {
        let told = ground.ann(&["describe", "instance", "shop/c"]).await;
        if told.stdout.contains(says) { Ok(()) } else { Err(format!("{}{}", told.stdout, told.stderr)) }
    })
    .await;
    assert!(scheduler.wait_for_line("a hook does not answer", SOON).await.contains(says));
    // Issued again with the address, it is noticed without any restart.
    ground.issue("c").await;
    eventually("the hook to be reached", SOON, async || {
        let told = ground.ann(&["describe", "instance", "shop/c"]).await;
        if told.stdout.contains("READY") { Ok(()) } else { Err(told.stdout) }
    })
    .await;
}
