//! Disks that fail: everybody is told, nothing is lost, and nothing has to be restarted when the cause is gone.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::program::Program;
use crate::stack::{SOON, Stack, touch};

/// Mounts a small file system on the directory and executes the rest: `sh -c THIS sh DIRECTORY COMMAND`. Larger than the
/// reserve the store keeps, by what a few operations need.
const ON_A_SMALL_DISK: &str =
    "mkdir -p \"$1\" && mount -t tmpfs -o size=80m,mode=700 quiesce \"$1\" && shift && exec \"$@\"";
/// Makes the directory read-only, for this command alone.
const READ_ONLY: &str = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";

/// Whether this test may mount file systems in a namespace of its own; says so if not.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "quiesce", "/mnt"]).output();
    let permitted = tried.as_ref().is_ok_and(|output| output.status.success());
    if !permitted {
        eprintln!("skipped: it may not mount anything here: {tried:?}");
    }
    permitted
}

/// A directory as the process with that pid sees it, in its own namespace.
fn as_seen_by(pid: u32, directory: &Path) -> PathBuf {
    let inner = directory.strip_prefix("/").expect("an absolute path");
    Path::new(&format!("/proc/{pid}/root")).join(inner)
}

/// Writes until nothing more fits.
fn fill(file: &Path) {
    let mut file = fs::File::create(file).unwrap();
    let block = vec![7; 64 << 10];
    while file.write_all(&block).is_ok() {}
    while file.write_all(&[7]).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_is_told_and_when_there_is_room_again_everything_goes_on() {
    if !may_mount() {
        return;
    }
    let mut stack = Stack::unstarted();
    let data = stack.data_dir();
    let wrapper = ["unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", data.to_str().unwrap()];
    stack.start_scheduler_within(&wrapper).await;
    let program = Program::new(&stack);
    let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
    let _source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    program.reaches("start", 1).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let operation = stack.begin(&["migrate", "db", "--to", "b"]).await;
    program.reaches("term", 1).await;

    let pid = stack.scheduler().pid();
    let filler = as_seen_by(pid, &data).join("filler");
    fill(&filler);
    stack.admin_says("/readyz", "not ready: the store has no room left").await;
    stack.admin_says("/metrics", "quiesce_store_condition{condition=\"full\"} 1").await;
    let doctor = stack.quiesce(&["doctor"]).await.expect(1);
    assert!(doctor.stdout.contains("it takes no changes: its store is full"), "{}", doctor.stdout);
    let document = stack.path("other.yaml");
    fs::write(&document, "kind: Application\nname: other\ncluster: a\n").unwrap();
    let apply = ["apply", "-f", document.to_str().unwrap()];
    let refused = stack.quiesce(&apply).await.expect(1);
    for part in ["the store has no room left", "nothing was changed", "NOT_SERVING"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    // The application ends, and that cannot be stored: nothing is built on it.
    touch(&stack.path("release"));
    program.reaches("end", 1).await;
    stack.admin_says("/metrics", "quiesce_operations_stalled 1").await;
    assert_eq!(stack.operation(&operation).await.state(), State::Stopping, "it can be read");
    assert_eq!(program.of("start").len(), 1);
    stack.quiesce(&["get", "application", "other"]).await.expect(1);

    fs::remove_file(&filler).unwrap();
    stack.reaches(&operation, State::Succeeded, SOON).await;
    stack.quiesce(&apply).await.expect(0);
    stack.admin_says("/readyz", "HTTP/1.1 200").await;
    program.told(1);
    program.never_twice();
    assert_eq!(stack.scheduler().pid(), pid, "nobody restarted it");
}

/// By how much a store may still grow: by some of the records that are written, not by all.
const ROOM: u64 = 1 << 20;

#[tokio::test]
async fn a_write_that_fails_in_the_middle_loses_nothing_that_was_acknowledged() {
    // Ignored, the signal of a file that may not grow becomes an error of the write.
    let mut stack = Stack::start_within(&["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).await;
    let pid = Pid::from_raw(i32::try_from(stack.scheduler().pid()).unwrap()).unwrap();
    let file = stack.data_dir().join("store.redb");
    let limit = |current| {
        prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some(fs::metadata(&file).unwrap().len() + ROOM));
    let document = |n: usize| {
        let labels: Vec<_> = (0..60).map(|label| format!("  l{label}: {}", "x".repeat(1000))).collect();
        format!("kind: Application\nname: app-{n}\ncluster: a\nlabels:\n{}\n", labels.join("\n"))
    };
    let path = stack.path("document.yaml");
    let apply = ["apply", "-f", path.to_str().unwrap()];
    let mut acknowledged = Vec::new();
    let refused = loop {
        let n = acknowledged.len();
        assert!(n < 500, "the file has grown all the same");
        fs::write(&path, document(n)).unwrap();
        let ran = stack.quiesce(&apply).await;
        if ran.code != Some(0) {
            break ran;
        }
        acknowledged.push(format!("applications/app-{n}"));
    };
    assert!(refused.stderr.contains("the store has failed"), "{}", refused.stderr);
    assert!(!acknowledged.is_empty());

    limit(None);
    stack.quiesce(&apply).await.expect(0);
    acknowledged.push(format!("applications/app-{}", acknowledged.len()));
    stack.admin_says("/readyz", "HTTP/1.1 200").await;
    let listed = stack.quiesce(&["get", "applications", "-o", "json"]).await.expect(0).json();
    let mut names: Vec<_> =
        listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    acknowledged.sort();
    assert_eq!(names, acknowledged);
    stack.stop_scheduler().await;
    stack.quiesce(&["store", "check", "--data-dir", stack.data_dir().to_str().unwrap()]).await.expect(0);
}

#[tokio::test]
async fn a_read_only_disk_is_named_when_the_scheduler_starts_and_nothing_else_is_needed_than_to_write_it_again() {
    if !may_mount() {
        return;
    }
    let mut stack = Stack::start().await;
    stack.apply("kind: Application\nname: db\ncluster: a\n").await;
    stack.stop_scheduler().await;
    let data = stack.data_dir();
    let wrapper = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", data.to_str().unwrap()];
    let mut refused = stack.try_scheduler(&wrapper, &data);
    assert_eq!(refused.ends().await, Some(1));
    let said = refused.wait_for_line("Read-only file system", SOON).await;
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    stack.start_scheduler().await;
    stack.quiesce(&["get", "application", "db"]).await.expect(0);
}

#[tokio::test]
async fn a_second_scheduler_is_told_who_has_the_directory_and_the_first_goes_on() {
    let mut stack = Stack::start().await;
    let elsewhere = Stack::unstarted();
    let mut second = elsewhere.try_scheduler(&[], &stack.data_dir());
    assert_eq!(second.ends().await, Some(1));
    let pid = stack.scheduler().pid();
    second.wait_for_line(&format!("in use by process {pid}"), SOON).await;
    stack.apply("kind: Application\nname: db\ncluster: a\n").await;

    let data = stack.data_dir();
    let data = data.to_str().unwrap();
    let refused = stack.quiesce(&["store", "check", "--data-dir", data]).await.expect(1);
    assert!(refused.stderr.contains("in use by process"), "{}", refused.stderr);
    assert!(refused.stderr.contains("stop that scheduler"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_torn_file_is_named_and_left_alone_and_a_backup_brings_it_back() {
    let mut stack = Stack::start().await;
    stack.apply("kind: Application\nname: db\ncluster: a\n").await;
    stack.stop_scheduler().await;
    let data = stack.data_dir();
    let (data, file) = (data.to_str().unwrap(), stack.path("backup"));
    let file = file.to_str().unwrap();
    stack.quiesce(&["store", "backup", file, "--data-dir", data]).await.expect(0);
    let store = stack.data_dir().join("store.redb");
    let sound = fs::read(&store).unwrap();
    let flipped = {
        let mut bytes = sound.clone();
        // The name of the application, in whatever page it lies.
        let places: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\x62db")).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|at| bytes[*at + 1] ^= 0x20);
        bytes
    };
    for torn in [&sound[..sound.len() / 2], &flipped[..], b"something else"] {
        fs::write(&store, torn).unwrap();
        let mut refused = stack.try_scheduler(&[], &stack.data_dir());
        assert_eq!(refused.ends().await, Some(1));
        refused.wait_for_line(store.to_str().unwrap(), SOON).await;
        let checked = stack.quiesce(&["store", "check", "--data-dir", data, "-o", "json"]).await.expect(1);
        assert_eq!(checked.json()["sound"], false);
        assert!(checked.json()["findings"][0]["at"].as_str().unwrap().ends_with("store.redb"), "{}", checked.stdout);
        assert_eq!(fs::read(&store).unwrap(), torn, "kept for examination");
    }
    let refused = stack.quiesce(&["store", "restore", file, "--data-dir", data]).await.expect(1);
    assert!(refused.stderr.contains("--replace"), "{}", refused.stderr);
    let restored = stack.quiesce(&["store", "restore", file, "--data-dir", data, "--replace"]).await.expect(0);
    assert!(restored.stdout.contains("kept as"), "{}", restored.stdout);
    stack.start_scheduler().await;
    let found = stack.quiesce(&["get", "application", "db", "-o", "json"]).await.expect(0);
    assert!(found.json()["restoreTime"].is_string(), "{}", found.stdout);
}
