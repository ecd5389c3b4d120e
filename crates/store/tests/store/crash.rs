//! Real processes: what was acknowledged is there after `kill -9`, and a directory belongs to one process at a time.
//!
//! The children are this test binary again, told by an environment variable which directory to work on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use quiesce_store::conformance::scan_pages;
use quiesce_store::embedded::{EmbeddedStore, OpenError, Options};
use quiesce_store::{Batch, Condition, Revision, Scan, Space, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use uuid::Uuid;

/// Names the directory to a child; without it, the tests that are children do nothing.
const DIRECTORY: &str = "QUIESCE_STORE_TEST_DIRECTORY";

/// Begins the part of a line that is meant for the parent; the test harness writes on the same stream.
const MARK: &str = ">> ";

/// Enough for a few hundred groups of all writers.
const ACKS_BEFORE_KILL: usize = 3000;
const WRITERS: u64 = 16;

fn open(directory: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(directory, &Options::new(Uuid::new_v4()))
}

fn spawn(test: &str, directory: &Path) -> (Child, BufReader<ChildStdout>) {
    start(Command::new(std::env::current_exe().unwrap()), test, directory)
}

fn start(mut command: Command, test: &str, directory: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = command
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The next whole line for the parent; `None` at the end of the stream, also in the middle of a line.
fn next_line(output: &mut impl BufRead) -> Option<String> {
    loop {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let line = line.strip_suffix('\n')?;
        if let Some((_, told)) = line.split_once(MARK) {
            return Some(told.to_owned());
        }
    }
}

/// Each writer counts in a record of its own and logs each step, in one batch, and tells the parent once it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_commits_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let store = Arc::new(open(Path::new(&directory)).unwrap());
    let start = store.durable().borrow().as_u64();
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in start.. {
                let value = format!("{writer} {n}");
                let batch = Batch::new().put(Space::Operations.key(&writer.to_string()), value.clone());
                let committed = store.commit(batch.append(Space::Events, value.clone())).await.unwrap();
                println!("{MARK}{} {value}", committed.last);
            }
        })
    });
    futures::future::join_all(writers).await;
}

#[tokio::test]
async fn every_acknowledged_commit_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for _round in 0..3 {
        let (mut child, mut output) = spawn("crash::child_that_commits_until_it_is_killed", directory.path());
        let mut acks = 0;
        while let Some(line) = next_line(&mut output) {
            let (revision, value) = line.split_once(' ').unwrap();
            acknowledged.insert(Revision::new(revision.parse().unwrap()), value.to_owned());
            acks += 1;
            if acks == ACKS_BEFORE_KILL {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acks >= ACKS_BEFORE_KILL, "the child died early, after {acks} commits");
        check(directory.path(), &acknowledged).await;
    }
}

/// Everything acknowledged is there; and what is there is whole batches, numbered without a gap.
async fn check(directory: &Path, acknowledged: &BTreeMap<Revision, String>) {
    let store = open(directory).unwrap();
    let durable = *store.durable().borrow();
    let mut logged = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for entry in scan_pages(&store, Scan::all(Space::Events)).await {
        let value = String::from_utf8(entry.value.to_vec()).unwrap();
        let writer = value.split_once(' ').unwrap().0.to_owned();
        newest.insert(writer, (value.clone(), entry.revision));
        logged.insert(entry.revision, value);
    }
    for (revision, value) in acknowledged {
        assert_eq!(logged.get(revision), Some(value), "acknowledged at {revision}");
    }
    let expected: Vec<_> = (1..=durable.as_u64() / 2).map(|n| Revision::new(2 * n)).collect();
    assert!(logged.keys().copied().eq(expected), "each batch took two revisions, the second for the log");
    for record in scan_pages(&store, Scan::all(Space::Operations)).await {
        let (value, logged_at) = &newest[record.key.id().unwrap()];
        assert_eq!(record.value, value.as_bytes());
        assert_eq!(record.revision.plus(1), *logged_at);
    }
}

#[test]
fn child_that_keeps_the_store_open() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let _store = open(Path::new(&directory)).unwrap();
    println!("{MARK}open");
    // Until the parent is gone or kills us.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_second_process_is_told_who_has_the_directory_until_that_one_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, mut output) = spawn("crash::child_that_keeps_the_store_open", directory.path());
    assert_eq!(next_line(&mut output).as_deref(), Some("open"));
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == child.id()), "{error:?}");
    assert!(error.to_string().contains(&format!("in use by process {}", child.id())));
    child.kill().unwrap();
    child.wait().unwrap();
    open(directory.path()).unwrap().close().unwrap();
}

/// Commits until the engine fails, is given room, and commits again; tells what became of each commit.
#[tokio::test]
async fn child_whose_file_may_not_grow() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = Options { reserve_bytes: 0, ..Options::new(Uuid::new_v4()) };
    let store = EmbeddedStore::open(Path::new(&directory), &options).unwrap();
    let commit = || store.commit(Batch::new().append(Space::Events, vec![7; 100_000]));
    let refusal = loop {
        match commit().await {
            Ok(committed) => println!("{MARK}{}", committed.last),
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.is_retryable(), "nothing was changed: {refusal:?}");
    assert!(store.get(Space::Meta.key("a")).await.unwrap().is_none(), "it can be read");
    println!("{MARK}refused");
    let limit = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // At once or after a moment: the engine is opened again by itself.
    let committed = loop {
        match commit().await {
            Ok(committed) => break committed,
            Err(refusal) => assert!(refusal.is_retryable(), "{refusal:?}"),
        }
        tokio::task::yield_now().await;
    };
    println!("{MARK}{}", committed.last);
    assert_eq!(store.condition().await, Condition::Good);
    store.close().unwrap();
    println!("{MARK}closed");
}

#[tokio::test]
async fn an_engine_that_fails_loses_nothing_and_goes_on_when_the_cause_is_gone() {
    /// In blocks of 512 bytes: 8 MiB, some ten times a new store.
    const FILE_BLOCKS_MAX: usize = 16_384;
    let directory = tempfile::tempdir().unwrap();
    // A file that may not grow is the one failure of a disk that needs no privileges. The signal that comes with it
    // would kill the child; ignored, the write fails. A soft limit, so that the child can make room for itself.
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("trap '' XFSZ; ulimit -S -f {FILE_BLOCKS_MAX}; exec \"$0\" \"$@\"")]);
    limited.arg(std::env::current_exe().unwrap());
    let (mut child, mut output) = start(limited, "crash::child_whose_file_may_not_grow", directory.path());
    let told: Vec<_> = std::iter::from_fn(|| next_line(&mut output)).collect();
    assert!(child.wait().unwrap().success());
    let [before @ .., refused, after, closed] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((refused.as_str(), closed.as_str()), ("refused", "closed"));
    assert!(!before.is_empty());

    let store = open(directory.path()).unwrap();
    let stored = scan_pages(&store, Scan::all(Space::Events)).await;
    let stored: Vec<_> = stored.iter().map(|entry| entry.revision.to_string()).collect();
    let acknowledged: Vec<_> = before.iter().chain([after]).cloned().collect();
    assert_eq!(stored, acknowledged, "what was refused is not there");
}
