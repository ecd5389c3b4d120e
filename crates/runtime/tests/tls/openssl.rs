//! Certificates that were not made by us: those of the command `openssl`, if it is there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use quiesce_runtime::tls::PeerIdentity;
use quiesce_testkit::certificates::Pair;

use super::{Ground, shake, talk};

fn openssl(directory: &Path, arguments: &str) {
    let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// As docs/operations.md tells it.
fn issue(directory: &Path, name: &str, names: &str, key: &str) -> Pair {
    openssl(directory, &format!("req -new -newkey {key} -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
    let extensions = format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n");
    fs::write(directory.join("ext"), extensions).unwrap();
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial -days 30 -extfile ext -out {name}.pem"
        ),
    );
    let pair = Pair { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) };
    fs::set_permissions(&pair.key, Permissions::from_mode(0o600)).unwrap();
    pair
}

#[tokio::test]
async fn certificates_of_openssl_are_as_good_as_any() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: there is no command openssl");
        return;
    }
    let mut ground = Ground::new();
    let directory = ground.directory.path().to_owned();
    openssl(&directory, "req -x509 -newkey rsa:2048 -nodes -subj /CN=root -days 365 -keyout root.key -out root.pem");
    ground.ca = directory.join("root.pem");
    for key in ["rsa:2048", "ed25519", "ec -pkeyopt ec_paramgen_curve:prime256v1"] {
        ground.server = issue(&directory, "server", "DNS:localhost,IP:127.0.0.1", key);
        let client = issue(&directory, "client", "URI:spiffe://quiesce/operators/ann", key);
        let acceptor = ground.acceptor(ground.required());
        let (near, far) = shake(&ground.connector(Some(&client)), &acceptor, "127.0.0.1").await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!(far.identity, Some(PeerIdentity::Uri("spiffe://quiesce/operators/ann".to_owned())), "{key}");
        talk(&mut near, &mut far.stream).await;
    }
}
