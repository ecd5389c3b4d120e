//! Real binaries with a scheduler that speaks TLS: a migration from end to end, and what usual mistakes are answered with.

use std::path::{Path, PathBuf};

use quiesce_runtime::tls::{KeyPair, NamedFile};
use quiesce_scheduler::{Config, RunError, Scheduler, Tls};
use quiesce_testkit::certificates::{Authority, Pair};
use quiesce_testkit::eventually;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::run::{LIMIT, Ran, command, quiesce, ran};

struct World {
    directory: TempDir,
    authority: Authority,
    ca: PathBuf,
    /// `127.0.0.1:PORT`.
    address: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl World {
    /// A scheduler whose certificate is good until the beginning of `year`.
    async fn start(year: i32) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let authority = Authority::new();
        let ca = authority.write(directory.path(), "ca.pem");
        let Pair { certificate, key } =
            authority.issue_until(&["127.0.0.1"], year).write(directory.path(), "scheduler");
        let named = |setting, path| NamedFile { setting, path };
        let own = KeyPair { certificate: named("tls.certificate", certificate), key: named("tls.key", key) };
        let tls = Some(Tls { own, client_ca: Some(named("tls.client_ca", ca.clone())) });
        let scheduler = Scheduler::bind(Config { tls, ..Config::ephemeral() }).await.expect("loopback has free ports");
        let address = scheduler.local_addr().to_string();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(scheduler.run(async move { drop(stopped.await) }));
        Self { directory, authority, ca, address, stop, task }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command with the CA in its environment.
    async fn quiesce(&self, args: &[&str]) -> Ran {
        let mut command = command(&self.url(), args);
        command.env("QUIESCE_CA", &self.ca);
        ran(command).await
    }

    /// The same, trusting `ca`, against `url`, to its error.
    async fn refused(&self, url: &str, ca: &Path) -> String {
        let ran = quiesce(url, &["get", "applications", "--ca", ca.to_str().expect("text")]).await;
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        ran.stderr
    }

    fn agent(&self, cluster: &str, more: &[&str]) -> Child {
        let names = format!("spiffe://quiesce/applications/shop/instances/{cluster}");
        let Pair { certificate, key } = self.authority.issue(&[&names]).write(self.directory.path(), cluster);
        let mut command = command(&self.url(), &["agent", "--application", "shop", "--cluster", cluster]);
        command.args(["--instance", cluster, "--state-dir"]).arg(self.file(&format!("state-{cluster}")));
        command.arg("--ca").arg(&self.ca).arg("--cert").arg(certificate).arg("--key").arg(key);
        command.args(more).args(["--", "/bin/sleep", "60"]);
        command.spawn().expect("the binary runs")
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("no panic").expect("it has served");
    }
}

#[tokio::test]
async fn an_application_moves_over_tls_from_end_to_end() {
    let world = World::start(4000).await;
    let _agents = [world.agent("a", &[]), world.agent("b", &["--standby"])];
    eventually("both agents to be ready for a migration", LIMIT, || async {
        let plan = world.quiesce(&["migrate", "shop", "--to", "b", "--dry-run"]).await;
        if plan.code == Some(0) { Ok(()) } else { Err(plan.stderr) }
    })
    .await;
    for args in [&["migrate", "shop", "--to", "b"][..], &["delete", "shop"]] {
        let ran = world.quiesce(args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.stdout, ran.stderr);
    }
    world.stop().await;
}

#[tokio::test]
async fn usual_mistakes_are_answered_with_the_flag_that_helps() {
    let world = World::start(4000).await;
    let plain = quiesce(&format!("http://{}", world.address), &["get", "applications"]).await;
    assert_eq!(plain.code, Some(1));
    let advice = format!("Write {}, and name its CA with --ca", world.url());
    assert!(plain.stderr.contains(&advice), "{}", plain.stderr);
    let other = Authority::new().write(world.directory.path(), "other.pem");
    let said = world.refused(&world.url(), &other).await;
    assert!(said.contains("not signed by a CA that is trusted here: name its CA with --ca"), "{said}");
    let pair = Authority::new().issue(&["spiffe://example.org/people/ann"]).write(world.directory.path(), "stranger");
    let mut stranger = command(&world.url(), &["get", "applications", "--ca", world.ca.to_str().expect("text")]);
    stranger.arg("--cert").arg(pair.certificate).arg("--key").arg(pair.key);
    let said = ran(stranger).await.expect(1).stderr;
    assert!(said.starts_with("error: 127.0.0.1 refuses the certificate of --cert"), "{said}");
    assert!(said.contains("its CA is not the one that is trusted there"), "{said}");
    let name = world.url().replace("127.0.0.1", "localhost");
    let said = world.refused(&name, &world.ca).await;
    assert!(said.contains("the certificate of localhost is for 127.0.0.1"), "{said}");
    world.stop().await;

    let expired = World::start(2001).await;
    let said = expired.refused(&expired.url(), &expired.ca).await;
    assert!(said.contains("the certificate of 127.0.0.1 has expired"), "{said}");
    expired.stop().await;
}

#[tokio::test]
async fn a_scheduler_without_tls_is_told_from_one_that_is_away() {
    let scheduler = Scheduler::bind(Config::ephemeral()).await.expect("loopback has free ports");
    let address = scheduler.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(scheduler.run(async move { drop(stopped.await) }));
    let directory = tempfile::tempdir().expect("there is room");
    let ca = Authority::new().write(directory.path(), "ca.pem");
    let ran = quiesce(&format!("https://{address}"), &["get", "apps", "--ca", ca.to_str().expect("text")]).await;
    assert!(ran.stderr.contains("speaks no TLS on this port: connect with http://"), "{}", ran.stderr);
    drop(stop);
    task.await.expect("no panic").expect("it has served");
}
