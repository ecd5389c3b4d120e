//! Files that change while they are in use.

use std::fs;
use std::os::unix::fs::symlink;

use quiesce_runtime::drain;
use quiesce_runtime::tls::{Acceptor, AcceptorFiles, ClientCertificates, KeyPair};
use quiesce_testkit::certificates::Authority;
use quiesce_testkit::eventually;

use super::{Ground, PLENTY, PROTOCOLS, clocks, named, shake, talk};

#[tokio::test]
async fn new_files_are_for_new_connections_and_running_ones_go_on() {
    let ground = Ground::new();
    let (acceptor, connector) = (ground.acceptor(ClientCertificates::Ignored), ground.connector(None));
    let (signal, drain) = drain::channel();
    let keeping = tokio::spawn(acceptor.clone().keep_fresh(drain));
    let (near, far) = shake(&connector, &acceptor, "127.0.0.1").await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    ground.authority.issue(&["new.example.net"]).write(ground.directory.path(), "server");
    eventually("the new certificate is shown", PLENTY, || async {
        shake(&connector, &acceptor, "new.example.net").await.0.is_ok()
    })
    .await;
    talk(&mut near, &mut far.stream).await;
    talk(&mut far.stream, &mut near).await;
    shake(&connector, &acceptor, "127.0.0.1").await.0.err().expect("the old certificate is gone");
    signal.announce();
    keeping.await.unwrap();
}

#[tokio::test]
async fn half_of_a_new_pair_leaves_the_old_one_in_use_until_the_other_half_is_there() {
    let ground = Ground::new();
    let (acceptor, connector) = (ground.acceptor(ClientCertificates::Ignored), ground.connector(None));
    let new = ground.authority.issue(&["new.example.net"]);
    new.write_certificate(&ground.server);
    assert!(acceptor.refresh().unwrap_err().to_string().contains("does not belong to certificate"));
    let (near, _far) = shake(&connector, &acceptor, "127.0.0.1").await;
    near.unwrap();
    fs::write(&ground.server.certificate, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    acceptor.refresh().unwrap_err();
    new.write(ground.directory.path(), "server");
    assert!(acceptor.refresh().unwrap());
    assert!(!acceptor.refresh().unwrap(), "nothing has changed since");
    let (near, _far) = shake(&connector, &acceptor, "new.example.net").await;
    near.unwrap();
}

#[tokio::test]
async fn a_directory_behind_a_link_is_followed_when_the_link_turns() {
    // As Kubernetes does it: certificate and key are links through `..data`, which is turned to a new directory.
    let ground = Ground::new();
    let root = ground.directory.path();
    for (version, name) in [("..1", "old.example.net"), ("..2", "new.example.net")] {
        fs::create_dir(root.join(version)).unwrap();
        ground.authority.issue(&[name]).write(&root.join(version), "tls");
    }
    symlink("..1", root.join("..data")).unwrap();
    for file in ["tls.pem", "tls.key"] {
        symlink(format!("..data/{file}"), root.join(file)).unwrap();
    }
    let own = KeyPair {
        certificate: named("--tls-cert", root.join("tls.pem")),
        key: named("--tls-key", root.join("tls.key")),
    };
    let files = AcceptorFiles { own, clients: ClientCertificates::Ignored };
    let acceptor = Acceptor::load(files, &PROTOCOLS, clocks()).unwrap();
    symlink("..2", root.join("..data_tmp")).unwrap();
    fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    assert!(acceptor.refresh().unwrap());
    let (near, _far) = shake(&ground.connector(None), &acceptor, "new.example.net").await;
    near.unwrap();
}

#[tokio::test]
async fn a_new_client_ca_takes_over_and_a_bundle_of_both_lets_either_in() {
    let ground = Ground::new();
    let acceptor = ground.acceptor(ground.required());
    let successor = Authority::new();
    let old = ground.client(&["old"]);
    let new = successor.issue(&["new"]).write(ground.directory.path(), "new");
    let connectors = [ground.connector(Some(&old)), ground.connector(Some(&new))];
    let mut seen = Vec::new();
    for bundle in [
        ground.authority.pem().to_owned(),
        format!("{}{}", ground.authority.pem(), successor.pem()),
        successor.pem().to_owned(),
    ] {
        fs::write(&ground.ca, bundle).unwrap();
        acceptor.refresh().unwrap();
        for connector in &connectors {
            seen.push(shake(connector, &acceptor, "127.0.0.1").await.1.is_ok());
        }
    }
    assert_eq!(seen, [true, false, true, true, false, true]);
}

#[tokio::test]
async fn the_expiry_follows_the_files() {
    let ground = Ground::new();
    let acceptor = ground.acceptor(ClientCertificates::Ignored);
    let expiry = acceptor.expiry();
    assert!(expiry.seconds_left().unwrap() > 0);
    ground.authority.issue_until(&["127.0.0.1"], 2001).write(ground.directory.path(), "server");
    acceptor.refresh().unwrap();
    assert!(expiry.seconds_left().unwrap() < 0);
    assert_eq!(ground.connector(None).expiry().seconds_left(), None);
}
