//! Commands that help: the stop command and the ready command.
//!
//! Owns how a command line of the configuration becomes a process, the bounds on its output, and that nothing of it is
//! left behind. A helper is no part of the application: it has a process group and a marker of its own. What its exit
//! code means is the caller's business.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

use super::{
    Process,
    children::{self, Exit},
    membership::MARKER,
};

/// Output beyond this is read and forgotten: a stop command says a few lines, and a log must survive one that does not.
const OUTPUT_MAX: usize = 16 << 10;

/// A command of the configuration.
///
/// Plain words are executed as they are, so that they work in an image without a shell; a text with anything a shell
/// would interpret goes to `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    text: String,
}

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a command cannot be empty")]
pub struct EmptyCommand;

impl FromStr for CommandLine {
    type Err = EmptyCommand;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.is_empty() { Err(EmptyCommand) } else { Ok(Self { text: text.to_owned() }) }
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl CommandLine {
    fn words(&self) -> Vec<&str> {
        let plain = |character: char| character.is_ascii_alphanumeric() || " \t_./:,@%+-".contains(character);
        if self.text.chars().all(plain) {
            self.text.split_ascii_whitespace().collect()
        } else {
            vec!["/bin/sh", "-c", &self.text]
        }
    }

    fn command(&self) -> Command {
        let words = self.words();
        let mut command = Command::new(words[0]); // never empty: see from_str
        command.args(&words[1..]);
        command
    }

    /// The program that would be executed, as it is named.
    pub(crate) fn program(&self) -> &OsStr {
        OsStr::new(self.words()[0])
    }
}

/// The program that executing `name` would run, or why there is none. `path` is the search path.
pub(crate) fn find_program(name: &OsStr, path: &str) -> Result<PathBuf, String> {
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        path.split(':').map(|directory| Path::new(directory).join(name)).collect()
    };
    let executable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = candidates.into_iter().find(executable);
    found.ok_or_else(|| format!("there is no executable {}", name.display()))
}

/// A running helper. Dropped before its end it is killed, with everything in its process group.
#[derive(Debug)]
pub(crate) struct Helper {
    line: CommandLine,
    process: Process,
    output: Option<pipe::Receiver>,
    reaped: bool,
}

impl Helper {
    /// Starts it with `variables` added to the environment of this process.
    pub(crate) fn spawn(line: &CommandLine, variables: &[(String, String)]) -> io::Result<Self> {
        let (output, input) = io::pipe()?;
        let mut command = line.command();
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command.env(MARKER, "helper").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        let (process, _child) = children::spawn(&mut command)?;
        // Made before the pipe is prepared, so that the helper is not lost if that fails.
        let mut helper = Self { line: line.clone(), process, output: None, reaped: false };
        drop(command); // holds our copies of the pipe's writing end
        helper.output = Some(pipe::Receiver::from_owned_fd(OwnedFd::from(output))?);
        Ok(helper)
    }

    /// Waits for the end, at most for `limit`; `None` when it was killed because of that. The output goes to the log.
    pub(crate) async fn wait(mut self, limit: Option<Duration>) -> io::Result<Option<Exit>> {
        let output = self.output.take();
        let end = async {
            let ended = self.process.ended()?;
            tokio::select! {
                biased; // what it says after its end is of no interest
                () = ended => {}
                never = log(output, &self.line) => match never {},
            }
            io::Result::Ok(())
        };
        match limit {
            Some(limit) => match timeout(limit, end).await {
                Ok(end) => end?,
                Err(_) => return Ok(None), // dropping `self` kills it
            },
            None => end.await?,
        }
        let exit = children::reap(&self.process)?;
        self.reaped = exit.is_some();
        Ok(exit)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // As long as the child is not reaped its pid, and so the number of its group, is nobody else's.
        if let Some(group) = Pid::from_raw(self.process.pid())
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(command = %self.line, %error, "cannot kill a helper command");
        }
        children::abandon(&self.process);
    }
}

/// Logs the output for ever: pieces of background processes may come after the end of the command itself.
async fn log(output: Option<pipe::Receiver>, line: &CommandLine) -> std::convert::Infallible {
    let mut left = OUTPUT_MAX;
    if let Some(mut output) = output {
        let mut buffer = [0; 1024];
        // An error of a pipe to ourselves ends the log of the command, not the command.
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            let shown = length.min(left);
            left -= shown;
            for text in String::from_utf8_lossy(&buffer[..shown]).lines().filter(|text| !text.trim().is_empty()) {
                tracing::info!(command = %line, "{}", crate::notify::printable(text));
            }
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> CommandLine {
        text.parse().unwrap()
    }

    #[test]
    fn plain_words_need_no_shell() {
        assert_eq!(line("redis-cli -p 7001 shutdown").words(), ["redis-cli", "-p", "7001", "shutdown"]);
        assert_eq!(line("kill -INT $QUIESCE_PID").words(), ["/bin/sh", "-c", "kill -INT $QUIESCE_PID"]);
        assert_eq!(" ".parse::<CommandLine>(), Err(EmptyCommand));
    }

    #[test]
    fn a_program_that_is_not_there_is_found_out_beforehand() {
        let find = |text, path| find_program(line(text).program(), path);
        assert_eq!(find("sh -c true", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert!(find(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "").unwrap_err().contains("no executable"));
        assert!(find("no-such-command", "/bin").is_err());
    }

    #[tokio::test]
    async fn its_exit_code_comes_back() {
        let helper = Helper::spawn(&line("echo $WORD; exit 3"), &[("WORD".into(), "hello".into())]).unwrap();
        assert_eq!(helper.wait(None).await.unwrap(), Some(Exit { code: Some(3), signal: None }));
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let text = format!("sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait", file.display());
        let helper = Helper::spawn(&line(&text), &[]).unwrap();
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let child: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let child = Process::pin(child).unwrap().unwrap();
        let ended = child.ended().unwrap();
        assert_eq!(helper.wait(Some(Duration::ZERO)).await.unwrap(), None);
        ended.await;
    }
}
