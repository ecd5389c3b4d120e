//! `quiesce pki`: a CA, what it signs, and that others take it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use quiesce_runtime::tls::{KeyPair, NamedFile};
use quiesce_scheduler::access::{self, Mode, Named, NamedRole};
use quiesce_scheduler::{Config, Scheduler, Tls};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::run::{Ran, command, quiesce, ran};

/// Nobody is asked.
const NOWHERE: &str = "http://127.0.0.1:1";

/// A directory with a CA in it.
async fn authority() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("there is room");
    let pki = directory.path().join("pki");
    pki_of(&["init", pki.to_str().expect("text")]).await.expect(0);
    (directory, pki)
}

async fn pki_of(args: &[&str]) -> Ran {
    quiesce(NOWHERE, &[&["pki"], args].concat()).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_ca_is_made_once_and_its_key_is_for_its_owner_alone() {
    let (_directory, pki) = authority().await;
    let before = fs::read(pki.join("ca.key")).unwrap();
    assert_eq!(mode(&pki.join("ca.key")), 0o600);
    let again = pki_of(&["init", pki.to_str().unwrap()]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("already, and it stays"), "{}", again.stderr);
    assert_eq!(fs::read(pki.join("ca.key")).unwrap(), before);

    fs::set_permissions(pki.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = pki_of(&["issue", pki.to_str().unwrap(), "host"]).await;
    assert!(open.stderr.contains("chmod 600"), "{}", open.stderr);
    assert!(!pki.join("host.pem").exists());

    fs::remove_file(pki.join("ca.pem")).unwrap();
    for args in [["init", pki.to_str().unwrap()].to_vec(), ["issue", pki.to_str().unwrap(), "host"].to_vec()] {
        let half = pki_of(&args).await;
        assert!(half.stderr.contains("only one of ca.pem and ca.key"), "{}", half.stderr);
    }
    assert_eq!(fs::read(pki.join("ca.key")).unwrap(), before);
}

#[tokio::test]
async fn what_is_issued_is_shown_and_renewed() {
    let (_directory, pki) = authority().await;
    let dir = pki.to_str().unwrap();
    let issued = pki_of(&["issue", dir, "--agent", "shop/shop-0", "shop-0.example.net", "10.0.0.7"]).await.expect(0);
    let use_it = "--listen 0.0.0.0:7700 --advertise shop-0.example.net:7700 --hook-client-ca";
    assert!(issued.stdout.contains(use_it), "{}", issued.stdout);
    assert_eq!(mode(&pki.join("shop-0.key")), 0o600);
    let file = pki.join("shop-0.pem");
    let shown = pki_of(&["show", file.to_str().unwrap(), "-o", "json"]).await.expect(0).json();
    let one = &shown[0];
    assert_eq!(one["identity"], "spiffe://quiesce/applications/shop/instances/shop-0");
    assert_eq!(one["authority"], false);
    let names = ["URI:spiffe://quiesce/applications/shop/instances/shop-0", "DNS:shop-0.example.net", "IP:10.0.0.7"];
    assert_eq!(one["names"], serde_json::json!(names));
    let told = pki_of(&["show", file.to_str().unwrap()]).await.expect(0).stdout;
    assert!(told.contains("a scheduler takes its holder for"), "{told}");

    let before = fs::read(&file).unwrap();
    pki_of(&["issue", dir, "--agent", "shop/shop-0"]).await.expect(0);
    assert_ne!(fs::read(&file).unwrap(), before);
    let left: Vec<_> = fs::read_dir(&pki).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[tokio::test]
async fn what_cannot_be_issued_says_why_and_leaves_nothing() {
    let (directory, pki) = authority().await;
    let dir = pki.to_str().unwrap();
    let elsewhere = directory.path().to_str().unwrap();
    for (args, says) in [
        (vec!["issue", elsewhere, "host"], "make one: quiesce pki init"),
        (vec!["issue", dir, "no name"], "\"no name\" is no name for a certificate"),
        (vec!["issue", dir, "a..b"], "neither a DNS name, nor an IP address, nor a URI"),
        (vec!["issue", dir, "spiffe://a/b", "spiffe://a/c"], "two URIs names nobody"),
        (vec!["issue", dir, "spiffe://a/ca"], "other than the CA's"),
        (vec!["issue", dir, "--agent", "shop"], "APP/INSTANCE"),
        (vec!["issue", dir, "--agent", "Shop/a"], "\"Shop/a\" is no name"),
        (vec!["init", "/dev/null/x"], "cannot write /dev/null/x"),
        (vec!["show", "does-not-exist"], "cannot read does-not-exist"),
        (vec!["show", "/dev/null"], "has no `-----BEGIN CERTIFICATE-----` in it"),
    ] {
        let ran = pki_of(&args).await;
        assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{args:?}: {}", ran.stderr);
    }
    assert_eq!(fs::read_dir(&pki).unwrap().count(), 2);
}

#[tokio::test]
async fn openssl_verifies_what_was_issued() {
    let (_directory, pki) = authority().await;
    pki_of(&["issue", pki.to_str().unwrap(), "scheduler.example.net"]).await.expect(0);
    let (ca, file) = (pki.join("ca.pem"), pki.join("scheduler.example.net.pem"));
    let mut program = Program::new("openssl");
    program.args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "scheduler.example.net"]);
    let Ok(verified) = program.arg("-CAfile").args([&ca, &file]).output() else {
        // Not part of what a machine has to have for these tests.
        return;
    };
    assert!(verified.status.success(), "{verified:?}");
}

/// From nothing to a scheduler that knows who calls by certificate, with nothing but our own commands.
#[tokio::test]
async fn a_scheduler_and_a_person_with_certificates_of_ours_know_each_other() {
    let (_directory, pki) = authority().await;
    let dir = pki.to_str().unwrap();
    pki_of(&["issue", dir, "127.0.0.1"]).await.expect(0);
    pki_of(&["issue", dir, "spiffe://quiesce/people/ann"]).await.expect(0);
    let named = |setting, name: &str| NamedFile { setting, path: pki.join(name) };
    let own =
        KeyPair { certificate: named("tls.certificate", "127.0.0.1.pem"), key: named("tls.key", "127.0.0.1.key") };
    let tls = Some(Tls { own, client_ca: Some(named("tls.client_ca", "ca.pem")) });
    let ann =
        Named { name: "spiffe://quiesce/people/ann".to_owned(), role: NamedRole::Viewer, applications: [].into() };
    let access = access::Config { mode: Mode::Enforced, principals: vec![ann], ..access::Config::open() };
    let scheduler = Scheduler::bind(Config { tls, access, ..Config::ephemeral() }).await.unwrap();
    let url = format!("https://{}", scheduler.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(scheduler.run(async move { drop(stopped.await) }));

    let mut command = command(&url, &["get", "applications", "--ca"]);
    command.arg(pki.join("ca.pem")).arg("--cert").arg(pki.join("ann.pem")).arg("--key").arg(pki.join("ann.key"));
    ran(command).await.expect(0);
    let nobody = quiesce(&url, &["get", "applications", "--ca", pki.join("ca.pem").to_str().unwrap()]).await;
    assert!(nobody.stderr.contains("no credential"), "{}", nobody.stderr);
    drop(stop);
    task.await.unwrap().unwrap();
}
