//! Who becomes the application: a process that waits until somebody else remembers it.
//!
//! An application that runs and stands in no journal would be started a second time by the next life of its agent. So
//! the process is there first, with the application's pid, group and environment, and executes nothing: a copy of this
//! program that waits on a socket, the launcher. The agent writes down who it is, then gives leave, and the launcher
//! executes the application in its own place. When the agent dies before it has given leave, the socket ends, and the
//! launcher with it: nothing ever ran. When it dies after, the journal names the process.
//!
//! The socket is the launcher's standard input, because a descriptor that is inherited in any other way would stay open
//! in the application. The real standard input follows over the socket; it is the leave.

use std::env;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{fcntl_dupfd_cloexec, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::stdio::{dup2_stdin, stdin};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::warn;

use super::{Identity, Process, children};
use crate::host::Launch;

/// What a launcher is called, in place of the name of its program: nobody starts one by hand.
const NAME: &str = "quiesce-launcher";

/// The program that is running now, also when its file was replaced or removed since.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Its exit status when it executed nothing, as shells have it; nobody but a person who debugs it sees that.
const NOTHING_EXECUTED: u8 = 127;

/// The first descriptor after standard input, output and error.
const FIRST_FREE: i32 = 3;

/// To execute a program takes as long as to load its first pages, which can be slow over a network. Whoever has not
/// said by then that it failed is taken for the application: how that ends is seen like any end.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Whether `main` of this program calls [`take_part`].
static TAKES_PART: AtomicBool = AtomicBool::new(false);

/// Begins `main` of a program that runs agents: if this process was started to become an application it does so, and
/// never returns. `Some` is the exit code of one that could not, or was not given leave.
pub fn take_part() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    if arguments.next().is_none_or(|name| name != NAME) {
        TAKES_PART.store(true, Ordering::Relaxed);
        return None;
    }
    let Some(program) = arguments.next() else { return Some(ExitCode::from(NOTHING_EXECUTED)) };
    let mut command = Command::new(program);
    command.args(arguments);
    // Nobody is left to hear of an error here: the agent that would has died, or sees the end of this process.
    let _unheard = wait_and_become(command);
    Some(ExitCode::from(NOTHING_EXECUTED))
}

/// Waits for leave and executes `command`. Returns when there is no leave, or when it cannot be executed.
fn wait_and_become(mut command: Command) -> io::Result<()> {
    let line = fcntl_dupfd_cloexec(stdin(), FIRST_FREE)?;
    let Some(input) = leave(&line)? else { return Ok(()) };
    dup2_stdin(&input)?;
    drop(input);
    let error = command.exec();
    File::from(line).write_all(&error.raw_os_error().unwrap_or_default().to_ne_bytes())
}

/// The standard input of the application; `None` when the agent is gone.
fn leave(line: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    retry_on_intr(|| recvmsg(line, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(rights.flatten().next())
}

/// Which program is the launcher.
#[derive(Debug, Clone)]
pub(crate) enum Launcher {
    /// This one, whose `main` calls [`take_part`].
    ThisProgram,
    /// Another one, whose `main` does.
    At(PathBuf),
}

impl Launcher {
    /// Starts a launcher for `launch`, as a child in a process group of its own.
    pub(crate) fn start(&self, launch: &Launch) -> io::Result<Waiting> {
        let program = match self {
            Self::ThisProgram if TAKES_PART.load(Ordering::Relaxed) => THIS_PROGRAM.into(),
            Self::ThisProgram => {
                return Err(io::Error::other("main of this program does not call quiesce_agent::take_part()"));
            }
            Self::At(path) => path.clone(),
        };
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut command = Command::new(program);
        command.arg0(NAME).arg(&launch.program).args(&launch.arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        for name in &launch.withheld {
            command.env_remove(name);
        }
        command.envs(launch.variables.iter().map(|(name, value)| (name, value)));
        let (process, _child) = children::spawn(&mut command)?;
        Ok(Waiting { identity: process.identity(), held: Some((process, ours)) })
    }
}

/// A launcher that waits. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// There until leave is given.
    held: Option<(Process, UnixStream)>,
    identity: Identity,
}

impl Waiting {
    /// Who will be the application.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Gives leave, and waits until the application was executed in place of the launcher.
    ///
    /// # Errors
    /// What kept it from being executed. Nothing ran then.
    pub(crate) async fn go(mut self) -> io::Result<Process> {
        let Some((_, line)) = &self.held else { return Err(io::ErrorKind::NotConnected.into()) };
        give_leave(line)?;
        // From here on the application is executed, whatever becomes of the agent.
        let Some((process, mut line)) = self.held.take() else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut errno = [0; size_of::<i32>()];
        match timeout(ANSWER_MAX, line.read_exact(&mut errno)).await {
            Ok(Ok(_)) => {
                children::abandon(&process);
                return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)));
            }
            // An end without a word is what success looks like.
            Ok(Err(_end)) => {}
            Err(_elapsed) => warn!(process.pid = process.pid(), "the application takes long to be executed"),
        }
        Ok(process)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some((process, _line)) = &self.held {
            children::abandon(process);
        }
    }
}

/// Sends our standard input: the one byte that goes with it fits in any empty socket.
fn give_leave(line: &UnixStream) -> io::Result<()> {
    let input = [stdin()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&input));
    retry_on_intr(|| sendmsg(line, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}
