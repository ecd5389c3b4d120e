//! A shell in a machine of its own, and somebody who types.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for a command; the longest ones are migrations.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// How long somebody repeats a command until it shows what he waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long he looks at a command that does not end by itself, before he presses Ctrl-C.
const LOOK_SECONDS: u32 = 5;
/// Lines that wait to be read here. A command that prints more waits in its pipe, as it would for a slow terminal.
const LINES_HELD: usize = 1024;
/// Follows what a command printed; with its exit code behind it.
const MARK: &str = "<end of the command>";

/// Makes the machine: loopback, empty places where root's state goes, a name for the scheduler.
const MACHINE: &str = "ip link set lo up
mkdir -p /var/lib/quiesce /tmp/tour
mount -t tmpfs none /var/lib/quiesce
mount -t tmpfs none /tmp/tour
printf '127.0.0.1 localhost scheduler.example.net\\n' >hosts
mount --bind hosts /etc/hosts";

/// The shell; everything in it ends with it.
pub(super) struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    _home: TempDir,
}

impl Shell {
    /// With these programs on its path.
    pub(super) fn open(programs: &[PathBuf]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let places = programs.iter().map(|program| program.parent().unwrap().display().to_string());
        let own = places.collect::<Vec<_>>().join(":");
        let mut child = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "--norc"])
            .current_dir(home.path())
            .env_clear()
            .envs([
                ("HOME", home.path().display().to_string()),
                ("PATH", format!("{own}:/usr/sbin:/usr/bin:/sbin:/bin")),
            ])
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare, as root");
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(LINES_HELD);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self { child, stdin, lines, _home: home };
        shell.does(MACHINE);
        shell
    }

    /// Types `command`; what it prints, and its exit code.
    fn run(&mut self, command: &str) -> (String, i32) {
        writeln!(self.stdin, "{{ {command}\n}} 2>&1 </dev/null; printf '\\n%s %s\\n' '{MARK}' $?").unwrap();
        let (mut printed, until) = (String::new(), Instant::now() + COMMAND_LIMIT);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(MARK) {
                    Some(code) => return (printed, code.trim().parse().unwrap()),
                    None => printed.extend([line.as_str(), "\n"]),
                },
                Err(RecvTimeoutError::Timeout) => panic!("$ {command}\nhas not ended; so far:\n{printed}"),
                Err(RecvTimeoutError::Disconnected) => panic!("$ {command}\nended the shell:\n{printed}"),
            }
        }
    }

    /// What a command prints that ends well.
    #[track_caller]
    pub(super) fn does(&mut self, command: &str) -> String {
        let (printed, code) = self.run(command);
        assert_eq!(code, 0, "$ {command}\n{printed}");
        printed
    }

    /// What a command prints that ends badly.
    #[track_caller]
    pub(super) fn fails(&mut self, command: &str) -> String {
        let (printed, code) = self.run(command);
        assert_ne!(code, 0, "$ {command}\n{printed}");
        printed
    }

    /// Repeats a command until it shows `what`.
    #[track_caller]
    pub(super) fn does_at_last(&mut self, command: &str, what: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (printed, code) = self.run(command);
            if code == 0 && printed.contains(what) {
                return printed;
            }
            assert!(Instant::now() < until, "$ {command}\nhas not shown {what:?}:\n{printed}");
        }
    }

    /// Starts a program in the background; returns when `question` is answered.
    #[track_caller]
    pub(super) fn starts(&mut self, command: &str, question: &str) {
        self.does(&format!("{command} >background.log 2>&1 &"));
        let until = Instant::now() + PATIENCE;
        while self.run(question).1 != 0 {
            let log = self.run("cat background.log").0;
            assert!(Instant::now() < until, "$ {command}\ndoes not come up:\n{log}");
        }
    }

    /// What a command prints that goes on until Ctrl-C, which ends it.
    #[track_caller]
    pub(super) fn interrupted(&mut self, command: &str) -> String {
        // 124 is what `timeout` says when it was needed.
        let (printed, code) = self.run(&format!("timeout --signal INT --kill-after 10 {LOOK_SECONDS} {command}"));
        assert_eq!(code, 124, "$ {command}\n{printed}");
        printed
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The last process of the machine's first one; the kernel ends all others with it.
        if let Err(error) = self.child.kill() {
            eprintln!("the shell has ended before: {error}");
        }
        if let Err(error) = self.child.wait() {
            eprintln!("the shell cannot be waited for: {error}");
        }
    }
}
