//! Every process of one demonstration: starting them, finding them, leaving none behind.
//!
//! Each child, and by inheritance everything it starts, carries a mark in its environment. So the applications below
//! the agents are found as well, whoever their parent is by now.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};
use uuid::Uuid;

/// The variable that marks them. Not one of Quiesce's own, which agents replace for their applications.
const MARK: &str = "LEDGER_DEMO";

/// Variables of the person's own set-up that children must not take for theirs begin so.
const FOREIGN: &[&str] = &["QUIESCE_", "LEDGER_", "AWS_"];

/// Rounds of killing: a process that forks while we look is found in the next one.
const ROUNDS: usize = 100;

/// The processes of one demonstration. Dropping it kills what is left of them.
#[derive(Debug)]
pub(super) struct Family {
    mark: String,
}

/// A process of the family that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: u32,
    pub(super) command: String,
}

/// A direct child.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pid: u32,
}

impl Family {
    pub(super) fn new() -> Self {
        Self { mark: Uuid::new_v4().simple().to_string() }
    }

    /// Starts a child whose output is appended to the file `log`. A Ctrl-C at the terminal does not reach it: it is
    /// ours to end it.
    pub(super) fn start(&self, mut command: Command, log: &Path) -> io::Result<Process> {
        let log = File::options().create(true).append(true).open(log)?;
        let foreign = std::env::vars_os().map(|(name, _)| name).filter(|name| is_foreign(&name.to_string_lossy()));
        let given: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
        for name in foreign.filter(|name| !given.contains(name)) {
            command.env_remove(name);
        }
        let child = command
            .env(MARK, &self.mark)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it was gone at once"))?;
        Ok(Process { child, pid })
    }

    /// Everyone of the family who runs.
    pub(super) fn members(&self) -> Vec<Member> {
        let mark = format!("{MARK}={}", self.mark);
        // Without /proc there is no agent either, so there is nobody to find.
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| is_alive(*pid) && has_variable(*pid, &mark))
            .map(|pid| Member { pid, command: command_line(pid) })
            .collect()
    }

    /// Kills everyone.
    pub(super) fn kill(&self) {
        for _ in 0..ROUNDS {
            let mut found = false;
            for member in self.members() {
                let Some(pid) = i32::try_from(member.pid).ok().and_then(Pid::from_raw) else { continue };
                // The descriptor first, then the look whether it still is who we mean.
                let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                if has_variable(member.pid, &format!("{MARK}={}", self.mark)) {
                    // One that is gone by itself is as good.
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

impl Drop for Family {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs.
    pub(super) fn is_alive(&self) -> bool {
        is_alive(self.pid)
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) -> io::Result<()> {
        // The pid is not reused before the child was waited for, which takes this value away.
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::process::kill_process(pid, Signal::TERM)?)
    }

    /// `kill -9`, of this process alone.
    pub(super) async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Waits for its end.
    pub(super) async fn wait(mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

fn is_foreign(name: &str) -> bool {
    FOREIGN.iter().any(|prefix| name.starts_with(prefix))
}

/// A zombie is not alive. What cannot be read has ended.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may contain anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X' | 'x'))
}

/// Processes of other users cannot be read, and are not ours.
fn has_variable(pid: u32, assignment: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == assignment.as_bytes())
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_are_found_below_their_parents_and_none_is_left() {
        let logs = tempfile::tempdir().unwrap();
        let family = Family::new();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & sleep 600"]);
        let process = family.start(shell, &logs.path().join("log")).unwrap();
        let all_three = async {
            while family.members().len() < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all_three).await.unwrap();
        family.kill();
        process.wait().await.unwrap();
        let nobody = async {
            while !family.members().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), nobody).await.unwrap();
    }
}
