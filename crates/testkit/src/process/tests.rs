//! Processes that talk, crash, fork away and are cleaned up.

use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::eventually;

const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    spawn("shell", command)
}

async fn number(process: &Process, prefix: &str) -> u32 {
    process.wait_for_line(prefix, LIMIT).await[prefix.len()..].parse().unwrap()
}

#[tokio::test]
async fn output_of_both_streams_is_collected() {
    let mut process = shell("echo to out; echo to err >&2; printf 'no end'; exit 7");
    assert_eq!(process.wait(LIMIT).await.code(), Some(7));
    process.wait_for_output_end(LIMIT).await;
    assert_eq!(process.stdout(), "to out\nno end\n");
    assert_eq!(process.stderr(), "to err\n");
    assert_eq!(process.wait_for_line("err", LIMIT).await, "to err");
}

#[tokio::test]
async fn a_missing_line_fails_with_all_that_was_written() {
    let process = shell("echo one; echo two >&2");
    let failure = tokio::spawn(async move { process.wait_for_line("three", LIMIT).await });
    let message = *failure.await.unwrap_err().into_panic().downcast::<String>().unwrap();
    assert!(message.starts_with("its output ended without a line of shell that contains \"three\""), "{message}");
    assert!(message.contains("  out| one\n") && message.contains("  err| two\n"), "{message}");
}

#[tokio::test]
async fn kill_9_hits_the_process_alone() {
    let mut process = shell("sleep 1000 & echo child $!; wait");
    let child = number(&process, "child ").await;
    assert_eq!(process.kill_9().await.signal(), Some(9));
    assert!(!alive(process.pid()) && alive(child));
    assert_eq!(process.family(), [child]);
}

#[tokio::test]
async fn dropping_kills_descendants_that_went_away() {
    let process = shell("setsid sh -c 'echo orphan $$; exec sleep 1000' & exec sleep 1000");
    let orphan = number(&process, "orphan ").await;
    let pid = process.pid();
    drop(process);
    eventually("both processes to end", LIMIT, async || !alive(pid) && !alive(orphan)).await;
}

#[tokio::test]
async fn a_zombie_is_not_alive() {
    let process = shell("exit 0");
    let pid = process.pid();
    process.wait_for_output_end(LIMIT).await;
    // Nothing waited for it yet, so the entry is still there.
    eventually("the process to be a zombie", LIMIT, async || !alive(pid)).await;
    assert!(alive(std::process::id()));
}

#[tokio::test]
async fn processes_are_counted_by_command_line() {
    let directory = crate::directory::short_temp_dir();
    let text = directory.path().to_str().unwrap();
    assert_eq!(count_by_command_line(text), 0);
    std::fs::write(directory.path().join("followed"), "").unwrap();
    let first = shell(&format!("exec tail -f {text}/followed"));
    eventually("one process", LIMIT, async || count_by_command_line(text) == 1).await;
    assert_eq!(pids_by_command_line(text), [first.pid()]);
    drop(first);
    eventually("no process", LIMIT, async || count_by_command_line(text) == 0).await;
}

#[tokio::test]
async fn a_signal_arrives() {
    let mut process = shell("trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    process.wait_for_line("ready", LIMIT).await;
    process.signal(Signal::TERM);
    process.wait_for_line("got it", LIMIT).await;
    assert_eq!(process.wait(LIMIT).await.code(), Some(3));
}
