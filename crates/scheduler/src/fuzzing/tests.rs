//! Every input that was kept, through the functions it was found with, on any toolchain; and the seeds: what the project
//! itself writes, from which fuzzing begins. `UPDATE_GOLDEN=1` writes them anew.

use quiesce_operation::Operation;
use quiesce_store::Revision;
use quiesce_store::record::{Record, encode, from_cbor, to_cbor};
use quiesce_testkit::corpus::{check_seeds, replay};

use super::record::{Minutes, Upgraded};
use super::*;

/// Hexadecimal text as bytes.
fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn named(name: &str, bytes: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes.as_ref().to_vec())
}

#[test]
fn operations_go_on_whatever_they_were_stored_as() {
    let golden = include_bytes!("../../../operation/tests/golden/operation-1.cbor");
    let operations: Vec<Operation> = from_cbor(golden).unwrap();
    // Every state once as it is, and with decisions that take it some way: answers, waits, a restart.
    let moves: Vec<u8> = (0..48_u8).map(|byte| byte.wrapping_mul(37)).collect();
    let seeds = operations.iter().enumerate().flat_map(|(index, operation)| {
        let stored = to_cbor(operation);
        let lives = [stored.as_slice(), &moves].concat();
        [named(&format!("{index:02}-stored"), stored), named(&format!("{index:02}-lives"), lives)]
    });
    check_seeds("operation", &seeds.collect::<Vec<_>>(), operation);
    replay("operation", operation);
}

#[test]
fn records_stay_what_they_are() {
    /// The first version of [`Upgraded`], which the record is read from.
    #[derive(minicbor::Encode, minicbor::Decode)]
    #[cbor(transparent)]
    struct First(#[n(0)] Minutes);

    impl Record for First {
        const KIND: &'static str = Upgraded::KIND;
        const VERSION: u16 = 1;
        const UPGRADES: &'static [quiesce_store::record::Upgrade] = &[];
    }

    let golden = include_str!("../records/golden/records-1.txt");
    let mut seeds: Vec<_> = golden
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(what, hex)| named(&what.replace(' ', "-"), unhex(hex)))
        .collect();
    seeds.push(named("old-version", encode(&First(Minutes { minutes: 2 }))));
    seeds.push(named("new-version", encode(&Upgraded { seconds: 120 })));
    check_seeds("record", &seeds, record);
    replay("record", record);
}

#[test]
fn filters_mean_what_they_say() {
    let texts = [
        ("empty", ""),
        ("name", "name = shop"),
        ("full-name", "name=applications/shop"),
        ("prefix", "name != \"sh\\\"op*\" AND name >= a"),
        ("enums", "state = STATE_DEGRADED AND kind != migrate"),
        ("bool", "done = false AND requester = \"ann b\""),
        ("times", "create_time >= 2026-01-31T12:00:00Z AND end_time < 2026-01-31T12:00:00.5+01:00"),
        ("labels", "labels.team = \"data base\" AND labels:tier AND labels.tier > 0"),
    ];
    let seeds = texts.map(|(name, text)| named(name, text));
    check_seeds("filter", &seeds, filter);
    replay("filter", filter);
}

#[test]
fn tokens_mean_what_their_bytes_say() {
    let resume = crate::token::resume_token(token::purpose(), token::LIFE, Revision::new(258));
    check_seeds("resume_token", &[named("text", resume)], resume_token);
    replay("resume_token", resume_token);

    let pages = ["db/db-1", "", "zz/zz", "a"].map(|last| {
        let name = if last.is_empty() { "first".to_owned() } else { last.replace('/', "-") };
        named(&name, crate::token::page_token(token::purpose(), last))
    });
    check_seeds("page_token", &pages, page_token);
    replay("page_token", page_token);
}

#[test]
fn nobody_gets_in_without_the_token() {
    let token = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let line = format!("QUIESCE/1 ATTACH qat1.{token}\r\n");
    let seeds = [named("agent", format!("{line}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")), named("line", line)];
    check_seeds("preface", &seeds, preface);
    replay("preface", preface);
}

#[test]
fn accepted_settings_can_be_printed_and_read_back() {
    let whole = crate::config::from_text("store = \"memory\"\ndata_dir = \"state\"").unwrap().to_toml();
    let some = "listen = \"localhost:7600\"\nadmin_listen = \"off\"\nstore = \"memory\"\ninsecure = true\n\
                log = { filter = \"info,quiesce_scheduler=debug\", format = \"json\" }\n\
                [policy]\ngrace_period = \"1m 30s\"\nfailure_strategy = \"force\"\nmin_evidence = \"group-empty\"\n\
                [policy.retry]\nmax_attempts = 5\nbackoff_multiplier = 1.5\n[policy.parameters]\nmode = \"fast\"\n";
    check_seeds("config", &[named("whole", whole), named("some", some)], config);
    replay("config", config);
}
