//! Every input that was kept, through the functions it was found with, on any toolchain; and the seeds: what the project
//! and real programs write, from which fuzzing begins. `UPDATE_GOLDEN=1` writes them anew.

use std::path::Path;

use quiesce_testkit::corpus::{check_seeds, replay};

use super::*;
use crate::application::{Hold, HoldKind};
use crate::hold::HoldFile;
use crate::host::Host;

fn named(name: &str, bytes: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.as_ref().to_vec())
}

#[test]
fn the_scheduler_is_told_from_whatever_else_answers() {
    let seeds = [
        named("yes", "QUIESCE/1 OK\r\nPRI * HTTP/2.0\r\n\r\n"),
        named("no", "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n"),
    ];
    check_seeds("answer", &seeds, answer);
    replay("answer", answer);
}

#[test]
fn a_hold_stays_what_it_is() {
    let file = HoldFile::new(Host::linux().files, Path::new("/somewhere"));
    let seeds = [HoldKind::Migrate, HoldKind::Delete, HoldKind::Standby].map(|kind| {
        let since = "2026-01-31T12:00:00.000Z".to_owned();
        let deleted = kind == HoldKind::Delete;
        let hold = Hold { operation: "operations/op-1".to_owned(), kind, epoch: 7, since, deleted };
        named(&kind.to_string(), file.encode(&hold).unwrap())
    });
    check_seeds("hold", &seeds, hold);
    replay("hold", hold);
}

#[test]
fn a_journal_stays_what_it_is() {
    let fresh = r#"{"format":1,"agent_id":"0c4e","epoch":0,"revoked":0,"run":null}"#;
    let over = include_str!("tests/journal-1.json");
    let script = include_str!("tests/journal-script.json");
    check_seeds("journal", &[named("fresh", fresh), named("over", over), named("script", script)], journal);
    replay("journal", journal);
}

#[test]
fn a_hooks_record_stays_what_it_is() {
    let under_way = include_str!("../hook/record/format-1.json");
    let over = include_str!("tests/hook-1.json");
    check_seeds("hook_record", &[named("under-way", under_way), named("over", over)], hook_record);
    replay("hook_record", hook_record);
}

#[test]
fn no_datagram_gets_out_of_bounds() {
    let seeds = [
        named("mariadb", "STOPPING=1\nSTATUS=Waiting to flush the buffer pool\nEXTEND_TIMEOUT_USEC=30000000"),
        named("redis", "STATUS=Ready to accept connections\nREADY=1\n"),
        named("systemd", "MAINPID=42\nERRNO=2\nWATCHDOG=1\nRELOADING=1\nMONOTONIC_USEC=1\nX_FOO=1\nREADY=0"),
    ];
    check_seeds("notify", &seeds, notify);
    replay("notify", notify);
}
