//! Files that cannot be used: every error names the file, its setting, and the way out.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::ClientCertificates;
use quiesce_testkit::certificates::Authority;

use super::Ground;

/// The error of loading the server's files after `change`.
fn wrong(change: impl FnOnce(&mut Ground)) -> String {
    let mut ground = Ground::new();
    change(&mut ground);
    let error = ground.try_acceptor(ground.optional()).unwrap_err();
    let text = chain(&error).to_string();
    text.replace(&format!("{}/", ground.directory.path().display()), "")
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    for mode in [0o640, 0o604, 0o620, 0o700] {
        let error = wrong(|ground| fs::set_permissions(&ground.server.key, Permissions::from_mode(mode)).unwrap());
        assert_eq!(
            error,
            format!(
                "private key server.key (--tls-key) is open to others than its owner (mode {mode:04o}): chmod 600 \
                 server.key"
            )
        );
    }
}

#[test]
fn a_key_that_its_owner_alone_can_read_is_taken() {
    let ground = Ground::new();
    fs::set_permissions(&ground.server.key, Permissions::from_mode(0o400)).unwrap();
    ground.try_acceptor(ClientCertificates::Ignored).unwrap();
}

#[test]
fn a_missing_file_is_named_with_its_setting() {
    let error = wrong(|ground| fs::remove_file(&ground.server.certificate).unwrap());
    assert_eq!(error, "cannot read server.pem (--tls-cert): No such file or directory (os error 2)");
    let error = wrong(|ground| fs::remove_file(&ground.ca).unwrap());
    assert_eq!(error, "cannot read ca.pem (--tls-client-ca): No such file or directory (os error 2)");
}

#[test]
fn files_in_each_others_place_are_told_apart() {
    let error = wrong(|ground| ground.server.certificate = ground.server.key.clone());
    assert_eq!(error, "server.key (--tls-cert) has no `-----BEGIN CERTIFICATE-----` in it; is it another file?");
    let error = wrong(|ground| {
        let certificate = fs::read(&ground.server.certificate).unwrap();
        fs::write(&ground.server.key, certificate).unwrap();
    });
    assert_eq!(error, "server.key (--tls-key) has no `-----BEGIN PRIVATE KEY-----` in it; is it another file?");
}

#[test]
fn a_key_of_another_certificate_is_a_mismatch() {
    let error = wrong(|ground| Authority::new().issue(&["x"]).write_key(&ground.server));
    assert!(
        error.starts_with("private key server.key (--tls-key) does not belong to certificate server.pem"),
        "{error}"
    );
}

#[test]
fn garbage_in_a_certificate_is_found_at_the_start() {
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = wrong(|ground| fs::write(&ground.server.certificate, garbage).unwrap());
    assert!(error.starts_with("server.pem (--tls-cert) holds a certificate that cannot be used"), "{error}");
    let error = wrong(|ground| fs::write(&ground.ca, garbage).unwrap());
    assert!(error.starts_with("ca.pem (--tls-client-ca) holds a certificate that cannot be used"), "{error}");
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let error = wrong(|ground| ground.server.certificate = "/dev/zero".into());
    assert!(error.contains("is longer than"), "{error}");
}

#[test]
fn nothing_of_a_key_is_shown_by_debug() {
    let ground = Ground::new();
    let key = fs::read_to_string(&ground.server.key).unwrap();
    let acceptor = ground.acceptor(ground.required());
    let connector = ground.connector(Some(&ground.server));
    for shown in [format!("{acceptor:?}"), format!("{connector:?}")] {
        for line in key.lines() {
            assert!(!shown.contains(line), "{shown}");
        }
    }
}
