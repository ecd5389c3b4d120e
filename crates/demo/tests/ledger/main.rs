//! The ledger from outside: real processes, real sockets, a real bucket.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod child;

use quiesce_demo::ledger::book::Epoch;
use quiesce_demo::ledger::fence::newest;
use quiesce_demo::ledger::protocol::{Answer, Request};
use quiesce_demo::ledger::{TOLD_TO_STOP, vars};
use quiesce_demo::load::{AskError, Connection, Fault, VerifyError, verify};
use rustix::process::Signal;
use rusty_s3::Credentials;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use child::{Ledger, Place, Storage, load, soon, until};

const FENCED: Option<i32> = Some(77);

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_ledger_moves_there_and_back() {
    let storage = Storage::start().await;
    let (a, b) = (Place::reserve(), Place::reserve());
    let load = load("w", &[&a, &b]);

    let mut ledger = Ledger::serving(&a, &storage.options, 1).await;
    for (epoch, place) in [(2, &b), (3, &a), (4, &b)] {
        let before = until(&load, |stats| stats.last.is_some_and(|(_, last)| last == Epoch::new(epoch - 1))).await;
        until(&load, |stats| stats.acknowledged > before.acknowledged + 50).await;
        ledger.stop().await;
        ledger = Ledger::serving(place, &storage.options, epoch).await;
    }
    until(&load, |stats| stats.last == Some((b.address, Epoch::new(4)))).await;
    let verdict = verify(b.address, &load.record()).await.unwrap();
    assert!(verdict.acknowledged > 150, "{verdict:?}");

    let record = load.stop().await;
    let verdict = verify(b.address, &record).await.unwrap();
    let epochs: Vec<Epoch> = verdict.writers.iter().map(|(id, _)| id.epoch).collect();
    assert_eq!(epochs, [1, 2, 3, 4].map(Epoch::new));

    ledger.stop().await;
    let (saved, book) = newest(&storage.bucket()).await.unwrap().unwrap();
    assert_eq!((saved.epoch, saved.entries), (Epoch::new(4), book.count()));
    record.check(&book.into_entries()).unwrap();
}

#[tokio::test]
async fn a_late_save_of_an_older_epoch_is_refused() {
    let storage = Storage::start().await;
    let (a, b) = (Place::reserve(), Place::reserve());
    let old = Ledger::serving(&a, &storage.options, 1).await;
    put(&a, "old", "1").await;
    let new = Ledger::serving(&b, &storage.options, 2).await;
    put(&b, "new", "1").await;

    old.signal(Signal::TERM);
    let (status, log) = old.ended().await;
    assert_eq!(status.code(), FENCED);
    assert!(log.contains("fenced: epoch 1 may not write, epoch 2 has taken over"), "{log}");
    new.stop().await;
    let (saved, book) = newest(&storage.bucket()).await.unwrap().unwrap();
    assert_eq!(saved.epoch, Epoch::new(2));
    assert_eq!(book.into_entries().into_keys().collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_late_save_after_the_newer_one_is_refused_too() {
    let storage = Storage::start().await;
    let (a, b) = (Place::reserve(), Place::reserve());
    let old = Ledger::serving(&a, &storage.options, 1).await;
    Ledger::serving(&b, &storage.options, 2).await.stop().await;
    old.signal(Signal::TERM);
    let (status, log) = old.ended().await;
    assert_eq!(status.code(), FENCED);
    assert!(log.contains("the bucket holds the final state of epoch 2"), "{log}");
}

#[tokio::test]
async fn a_used_or_older_epoch_does_not_start_but_a_crash_may_restart() {
    let storage = Storage::start().await;
    let place = Place::reserve();
    Ledger::serving(&place, &storage.options, 5).await.stop().await;
    for epoch in [5, 4] {
        let (status, log) = Ledger::spawn(&place, &storage.options, epoch, &[]).ended().await;
        assert_eq!(status.code(), FENCED, "{log}");
        assert!(log.contains("fenced: "), "{log}");
    }

    let crashed = Ledger::serving(&place, &storage.options, 6).await;
    crashed.signal(Signal::KILL);
    crashed.ended().await;
    Ledger::serving(&place, &storage.options, 6).await.stop().await;
    assert_eq!(newest(&storage.bucket()).await.unwrap().unwrap().0.epoch, Epoch::new(6));
}

#[tokio::test]
async fn two_living_writers_do_not_escape_the_client() {
    let storage = Storage::start().await;
    let (a, b) = (Place::reserve(), Place::reserve());
    let load = load("w", &[&a, &b]);
    let _old = Ledger::serving(&a, &storage.options, 1).await;
    until(&load, |stats| stats.acknowledged > 10).await;
    let _new = Ledger::serving(&b, &storage.options, 2).await;
    until(&load, |stats| stats.last.is_some_and(|(_, epoch)| epoch == Epoch::new(2))).await;
    until(&load, |stats| stats.last.is_some_and(|(_, epoch)| epoch == Epoch::new(1))).await;
    let Err(VerifyError::Faults(faults)) = verify(b.address, &load.stop().await).await else { panic!("no faults") };
    assert!(faults.iter().any(|fault| matches!(fault, Fault::TwoWriters { .. })), "{faults:?}");
}

#[tokio::test]
async fn a_ledger_without_the_writes_does_not_pass() {
    let (storage, empty) = (Storage::start().await, Storage::start().await);
    let (a, b) = (Place::reserve(), Place::reserve());
    let load = load("w", &[&a]);
    let ledger = Ledger::serving(&a, &storage.options, 1).await;
    until(&load, |stats| stats.acknowledged > 10).await;
    let record = load.stop().await;
    ledger.stop().await;
    let _other = Ledger::serving(&b, &empty.options, 2).await;
    let Err(VerifyError::Faults(faults)) = verify(b.address, &record).await else { panic!("no faults") };
    assert!(faults.iter().all(|fault| matches!(fault, Fault::Missing { .. })), "{faults:?}");
    assert_eq!(faults.len(), record.acknowledged.len());
}

#[tokio::test]
async fn a_slow_save_asks_for_time_answers_reads_and_refuses_writes() {
    let storage = Storage::start().await;
    let place = Place::reserve();
    let mut ledger = Ledger::spawn(&place, &storage.options, 1, &[(vars::SAVE_SECONDS, "2")]);
    ledger.says("loading 0 entries").await;
    let ready = ledger.says("READY=1").await;
    assert!(ready.contains(&format!("STATUS=serving 0 entries on {}, epoch 1", place.address)), "{ready}");
    put(&place, "k", "1").await;
    let mut connection = Connection::open(place.address).await.unwrap();

    ledger.signal(Signal::TERM);
    assert_eq!(ledger.says("STOPPING=1").await, "STOPPING=1\nSTATUS=saving 1 entries to the bucket 0 %");
    let refused = connection.ask(Request::Put { key: "l", value: "1" }).await.unwrap();
    assert_eq!(refused, Answer::Error("stopping".to_owned()));
    assert!(matches!(connection.ask(Request::Get { key: "k" }).await.unwrap(), Answer::Value(_)));
    assert!(matches!(connection.ask(Request::Who).await.unwrap(), Answer::Who { stopping: true, .. }));
    ledger.says("EXTEND_TIMEOUT_USEC=5000000\nSTATUS=saving 1 entries to the bucket ").await;
    ledger.signal(Signal::TERM);
    ledger.says("100 %").await;
    let (status, log) = ledger.ended().await;
    assert!(status.success(), "a second signal changes nothing: {log}");
    assert_eq!(log.lines().filter(|line| line.contains(TOLD_TO_STOP)).count(), 2, "each is in the log: {log}");
    assert_eq!(newest(&storage.bucket()).await.unwrap().unwrap().0.entries, 1);
}

#[tokio::test]
async fn a_ledger_that_cannot_save_stays_alive_and_says_so() {
    let storage = Storage::start().await;
    let place = Place::reserve();
    let mut ledger = Ledger::serving(&place, &storage.options, 1).await;
    put(&place, "k", "1").await;
    storage.server.stop().await;
    ledger.signal(Signal::TERM);
    for _ in 0..2 {
        ledger.says("STATUS=cannot save 1 entries, trying again: cannot use the bucket: ").await;
    }
    assert!(ledger.is_running());
    assert!(!ledger.heard.iter().any(|said| said.contains("EXTEND")), "{:?}", ledger.heard);
    let mut connection = Connection::open(place.address).await.unwrap();
    assert!(matches!(connection.ask(Request::Get { key: "k" }).await.unwrap(), Answer::Value(_)));
}

#[tokio::test]
async fn a_ledger_that_must_not_start_ends_with_its_own_codes() {
    let storage = Storage::start().await;
    let place = Place::reserve();
    let flag = tempfile::NamedTempFile::new().unwrap();
    let path = flag.path().to_str().unwrap();

    let refused = Ledger::spawn(&place, &storage.options, 1, &[(vars::REFUSE_START_WHILE, path)]);
    let (status, log) = refused.ended().await;
    assert_eq!(status.code(), Some(69), "{log}");

    let (status, log) = Ledger::spawn(&place, &storage.options, 1, &[(vars::EPOCH, "one")]).ended().await;
    assert_eq!(status.code(), Some(64), "{log}");
    assert!(log.contains("QUIESCE_EPOCH is not a number"), "{log}");

    let mut options = storage.options.clone();
    options.credentials = Credentials::new(options.credentials.key(), "not the secret");
    let (status, log) = Ledger::spawn(&place, &options, 1, &[]).ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("403") && !log.contains("not the secret"), "{log}");

    let _first = Ledger::serving(&place, &storage.options, 1).await;
    let (status, log) = Ledger::spawn(&place, &storage.options, 2, &[]).ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot listen on"), "{log}");
}

#[tokio::test]
async fn bad_input_gets_an_answer_and_harms_nobody() {
    let storage = Storage::start().await;
    let place = Place::reserve();
    let _ledger = Ledger::serving(&place, &storage.options, 1).await;
    put(&place, "k", "1").await;

    let mut stream = TcpStream::connect(place.address).await.unwrap();
    stream.write_all(b"\nPUT\nPUT k 2\nGET nothing\nDROP k\nWHO\r\n\xff\n").await.unwrap();
    let mut answers = String::new();
    soon(stream.read_to_string(&mut answers)).await.unwrap();
    let words: Vec<&str> = answers.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["ERR", "ERR", "ERR", "NONE", "ERR", "WHO", "ERR"], "{answers}");

    let mut stream = TcpStream::connect(place.address).await.unwrap();
    stream.write_all("x".repeat(600).as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // What the ledger left unread may turn its close into a reset, after the answer or in its place.
    let _ = soon(stream.read_to_end(&mut answers)).await;
    assert!(answers.is_empty() || answers.starts_with(b"ERR a line has at most "), "{answers:?}");

    let mut crowd = Vec::new();
    let turned_away = loop {
        let mut connection = Connection::open(place.address).await.unwrap();
        match connection.ask(Request::Count).await {
            Ok(Answer::Count(1)) => crowd.push(connection),
            other => break other,
        }
        assert!(crowd.len() < 1000, "no limit");
    };
    // The close may overtake the word, as above.
    let busy = matches!(&turned_away, Ok(Answer::Error(reason)) if reason == "busy");
    assert!(busy || matches!(&turned_away, Err(AskError::Connection(_) | AskError::Line(_))), "{turned_away:?}");
    assert_eq!(crowd[0].ask(Request::Count).await.unwrap(), Answer::Count(1));
}

async fn put(place: &Place, key: &str, value: &str) {
    let mut connection = Connection::open(place.address).await.unwrap();
    let answer = connection.ask(Request::Put { key, value }).await.unwrap();
    assert!(matches!(answer, Answer::Written { .. }), "{answer:?}");
}
