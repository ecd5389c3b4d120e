//! Real processes under test: spawned, read, signalled, counted, and never left behind.

use std::fs::{self, File};
use std::io::Read;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Marks a spawned process and, by inheritance, everything it starts. See [`Process`].
///
/// Not one of the product's own variables (`QUIESCE_...`): a program may keep those from its children, and this one too.
const MARK: &str = "TESTKIT_PROCESS";

/// Lines kept of one process. A test that says more than this is not read by anybody; the oldest lines go.
const LINES_MAX: usize = 10_000;

/// How often an empty environment or command line is looked at again before it is believed, and how long in between:
/// an exec on a loaded machine can wait for its turn several times.
const EXEC_LOOKS: usize = 100;
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// Bytes read of an environment or a command line; those of tests are far smaller.
const STRINGS_MAX: usize = 256 * 1024;

/// A spawned process whose standard output and standard error are collected line by line.
///
/// Dropping it kills, with SIGKILL, the process and all its descendants, those too that were orphaned or left the
/// process group: they are known by an environment variable they inherited. To test a crash, call
/// [`Process::kill_9`] and keep the value until the end of the test.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: u32,
    mark: String,
    child: Child,
    lines: watch::Receiver<Lines>,
}

/// What a process has written so far.
#[derive(Debug, Default)]
struct Lines {
    kept: Vec<Line>,
    /// Streams that are still open.
    open: usize,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// The line without its end; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Starts `command`, whose standard streams are replaced: no input, output collected. `name` is what failure messages
/// call it.
///
/// # Panics
/// When it cannot be started, or outside of a tokio runtime.
#[track_caller]
pub fn spawn(name: impl Into<String>, mut command: Command) -> Process {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = name.into();
    let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env(MARK, &mark).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
    let pid = child.id().expect("a process that was not waited for has a pid");
    let (sender, lines) = watch::channel(Lines { kept: Vec::new(), open: 2 });
    let stdout = child.stdout.take().expect("standard output is piped");
    let stderr = child.stderr.take().expect("standard error is piped");
    // They end with the last process that holds the other end of the pipe.
    tokio::spawn(collect(Stream::Stdout, stdout, sender.clone()));
    tokio::spawn(collect(Stream::Stderr, stderr, sender));
    Process { name, pid, mark, child, lines }
}

async fn collect(stream: Stream, pipe: impl AsyncRead + Unpin, lines: watch::Sender<Lines>) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    // A pipe that fails ends like one that is closed.
    while matches!(reader.read_until(b'\n', &mut bytes).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        bytes.clear();
        lines.send_modify(|lines| {
            if lines.kept.len() == LINES_MAX {
                lines.kept.remove(0);
            }
            lines.kept.push(Line { stream, text });
        });
    }
    lines.send_modify(|lines| lines.open -= 1);
}

impl Process {
    /// The process id; not reused while this value has not seen the process end.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Everything written so far, in the order in which it was read.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.borrow().kept.clone()
    }

    /// What was written to standard output so far.
    pub fn stdout(&self) -> String {
        self.text_of(Stream::Stdout)
    }

    /// What was written to standard error so far.
    pub fn stderr(&self) -> String {
        self.text_of(Stream::Stderr)
    }

    fn text_of(&self, stream: Stream) -> String {
        let lines = self.lines.borrow();
        lines.kept.iter().filter(|line| line.stream == stream).flat_map(|line| [line.text.as_str(), "\n"]).collect()
    }

    /// Waits for a line, on either stream, that contains `text`; one that is there already counts.
    ///
    /// # Panics
    /// When there is none within `limit`, or the output ends without one; with all of the output.
    pub async fn wait_for_line(&self, text: &str, limit: Duration) -> String {
        let mut lines = self.lines.clone();
        let find = |lines: &Lines| lines.kept.iter().find(|line| line.text.contains(text)).cloned();
        let found = timeout(limit, lines.wait_for(|lines| find(lines).is_some() || lines.open == 0)).await;
        let why = match found {
            // The sender is gone only after both streams ended, and then the last state has no line either.
            Ok(Ok(lines)) => match find(&lines) {
                Some(line) => return line.text,
                None => "its output ended".to_owned(),
            },
            Ok(Err(_)) => "its output ended".to_owned(),
            Err(_elapsed) => format!("{limit:?} passed"),
        };
        panic!("{why} without a line of {} that contains {text:?}; it wrote:\n{}", self.name, self.transcript());
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process was seen to end before.
    pub fn signal(&self, signal: Signal) {
        assert!(self.child.id().is_some(), "{} has ended and was waited for", self.name);
        rustix::process::kill_process(to_pid(self.pid), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Kills the process alone, as a crash would, and waits until it is gone. Its children live on.
    pub async fn kill_9(&mut self) -> ExitStatus {
        self.child.start_kill().unwrap_or_else(|error| panic!("cannot kill {}: {error}", self.name));
        // Nothing but a stuck kernel outlives SIGKILL for so long.
        self.wait(Duration::from_secs(30)).await
    }

    /// The end, whenever it comes: for a `select!` in which something else bounds the wait. Dropping it loses nothing.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not come within `limit`; with all of the output.
    pub async fn wait(&mut self, limit: Duration) -> ExitStatus {
        let ended = timeout(limit, self.ended()).await;
        match ended {
            Ok(status) => status,
            Err(_elapsed) => {
                panic!("{} did not end within {limit:?}; it wrote:\n{}", self.name, self.transcript())
            }
        }
    }

    /// Waits until all output was read: the process and all who inherited its streams have closed them.
    ///
    /// # Panics
    /// When that is not so within `limit`.
    pub async fn wait_for_output_end(&self, limit: Duration) {
        let mut lines = self.lines.clone();
        // An error says that the collectors are gone, which is the end as well.
        if timeout(limit, lines.wait_for(|lines| lines.open == 0)).await.is_err() {
            panic!("output of {} did not end within {limit:?}; it wrote:\n{}", self.name, self.transcript());
        }
    }

    /// All processes alive that descend from this one, itself included.
    pub fn family(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.mark);
        pids().filter(|&pid| alive(pid) && has_environment(pid, &mark)).collect()
    }

    fn transcript(&self) -> String {
        let lines = self.lines.borrow();
        let line = |line: &Line| match line.stream {
            Stream::Stdout => format!("  out| {}\n", line.text),
            Stream::Stderr => format!("  err| {}\n", line.text),
        };
        lines.kept.iter().map(line).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mark = format!("{MARK}={}", self.mark);
        // A process that forks while we look is found in the next round; a whole round without one is the end.
        for _round in 0..100 {
            let mut found = false;
            for pid in pids() {
                // The descriptor is taken before the identity is checked, so that no other process is hit.
                let Ok(descriptor) = pidfd_open(to_pid(pid), PidfdFlags::empty()) else { continue };
                if alive(pid) && has_environment(pid, &mark) {
                    // Gone by itself is as good.
                    found |= pidfd_send_signal(&descriptor, Signal::KILL).is_ok();
                }
            }
            if !found {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Whether the process runs. One that has ended but was not waited for, a zombie, does not.
pub fn alive(pid: u32) -> bool {
    // The state follows the name, which is in parentheses and may contain anything.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()))
        .is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// The processes alive whose command line, its arguments joined by spaces, contains `text`; the test itself is not
/// among them. Take a text that only this test uses, such as a directory of its own, and mind that a process that forks
/// counts twice until its child has executed something else.
pub fn pids_by_command_line(text: &str) -> Vec<u32> {
    pids()
        .filter(|&pid| pid != std::process::id() && alive(pid))
        .filter(|&pid| String::from_utf8_lossy(&read_settled(pid, "cmdline")).replace('\0', " ").contains(text))
        .collect()
}

/// How many processes [`pids_by_command_line`] finds.
pub fn count_by_command_line(text: &str) -> usize {
    pids_by_command_line(text).len()
}

fn pids() -> impl Iterator<Item = u32> {
    // Entries that cannot be read or are no numbers are no processes.
    fs::read_dir("/proc").expect("/proc is mounted").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn has_environment(pid: u32, entry: &str) -> bool {
    read_settled(pid, "environ").split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}

/// Reads `environ` or `cmdline` of a process; empty if it ended or belongs to another user.
#[expect(clippy::disallowed_methods, reason = "callers are synchronous, Drop among them, and the pause is tiny")]
fn read_settled(pid: u32, file: &str) -> Vec<u8> {
    let mut buffer = vec![0; STRINGS_MAX];
    for _look in 0..EXEC_LOOKS {
        // In one call: what an exec replaces between two of them would seem to end after the first.
        let Ok(length) = File::open(format!("/proc/{pid}/{file}")).and_then(|mut file| file.read(&mut buffer)) else {
            break;
        };
        // In the middle of an exec both are empty for a moment; kernel threads, which have no executable, never have
        // any.
        if length > 0 || fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            buffer.truncate(length);
            return buffer;
        }
        std::thread::sleep(EXEC_PAUSE);
    }
    Vec::new()
}

fn to_pid(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the kernel's process ids are positive")
}

#[cfg(test)]
mod tests;
