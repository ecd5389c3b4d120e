//! `quiesce demo` as a person runs it: a real process that starts real processes.

#![cfg(feature = "demo")]

use std::path::Path;
use std::time::Duration;

use quiesce_testkit::process::{Process, pids_by_command_line, spawn};
use quiesce_testkit::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

/// The demonstration ends by itself well before that, in whatever way.
const LIMIT: Duration = Duration::from_secs(150);

/// A demonstration whose directories lie below `temporary`.
fn demo(temporary: &Path, args: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quiesce"));
    command.arg("demo").args(args).env("TMPDIR", temporary);
    // What a person has set up for the own scheduler must not reach this one, nor must wrong settings of the ledger.
    command
        .env("QUIESCE_SCHEDULER", "http://127.0.0.1:1")
        .env("QUIESCE_STANDBY", "true")
        .env("LEDGER_LISTEN", "nowhere");
    spawn("quiesce demo", command)
}

#[tokio::test]
async fn the_demo_passes_explains_itself_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path(), &[]);
    let status = demo.wait(LIMIT).await;
    demo.wait_for_output_end(LIMIT).await;
    let (stdout, stderr) = (demo.stdout(), demo.stderr());
    assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
    assert_eq!(demo.family(), [0_u32; 0], "processes are left");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "files are left");

    assert!(stdout.lines().last().is_some_and(|line| line.starts_with("PASSED in ")), "{stdout}");
    for line in
        ["lost                  0", "two writers at once   never", "migrations            3 done, 1 rolled back"]
    {
        assert!(stdout.lines().any(|found| found == line), "{line:?} is missing in\n{stdout}");
    }
    for event in ["STOPPING", "DEADLINE_EXTENDED", "ROLLED_BACK", "kill -9", "GROUP_EMPTY"] {
        assert!(stdout.contains(event), "{event:?} is missing in\n{stdout}");
    }
    assert!(!stdout.contains('\x1b'), "a pipe gets plain lines");
    let wide = stdout.lines().find(|line| line.chars().count() > 80 && !line.starts_with("State and logs: "));
    assert_eq!(wide, None, "a line is wider than 80 columns");
}

#[tokio::test]
async fn an_interrupted_demo_takes_everybody_along() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path(), &[]);
    demo.wait_for_line("ok  writes flow", LIMIT).await;
    assert!(demo.family().len() >= 5, "demo, scheduler, two agents, a ledger: {:?}", demo.family());
    demo.signal(Signal::INT);
    assert_eq!(demo.wait(LIMIT).await.code(), Some(130));
    demo.wait_for_output_end(LIMIT).await;
    assert_eq!(demo.family(), [0_u32; 0], "processes are left");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "files are left");
}

#[tokio::test]
async fn a_demo_whose_ledger_is_killed_fails_and_says_so() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(temporary.path(), &[]);
    demo.wait_for_line("ok  writes flow", LIMIT).await;
    // Whichever runs in this moment: what it has acknowledged is lost with it.
    let ledger = eventually("a ledger", LIMIT, async || {
        let family = demo.family();
        pids_by_command_line("demo-ledger").into_iter().find(|pid| is_ledger(*pid) && family.contains(pid))
    });
    let ledger = Pid::from_raw(i32::try_from(ledger.await).unwrap()).unwrap();
    kill_process(ledger, Signal::KILL).unwrap();

    assert_eq!(demo.wait(LIMIT).await.code(), Some(1));
    demo.wait_for_output_end(LIMIT).await;
    let stdout = demo.stdout();
    assert!(stdout.contains("FAILED scene "), "{stdout}");
    assert_eq!(demo.family(), [0_u32; 0], "processes are left");
    let logs =
        stdout.lines().last().and_then(|line| line.strip_prefix("The logs are in ")).expect("the logs are named");
    assert!(Path::new(logs).join("scheduler.log").is_file(), "{logs}");
}

/// The ledger itself, not the agent that has it in its own command line.
fn is_ledger(pid: u32) -> bool {
    // One that has just ended is none.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"demo-ledger")
}

#[tokio::test]
async fn a_demo_that_cannot_be_played_says_why() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = demo(&temporary.path().join("missing"), &[]);
    assert_eq!(demo.wait(LIMIT).await.code(), Some(1));
    demo.wait_for_output_end(LIMIT).await;
    let stdout = demo.stdout();
    assert!(stdout.starts_with("FAILED: cannot make a temporary directory: "), "{stdout}");
}
