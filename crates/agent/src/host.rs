//! What an agent needs of the host it runs on: processes, files, messages, signals.
//!
//! Owns the seam. Everything the agent observes or does outside of itself goes through a [`Host`], which production makes
//! of the Linux it runs on ([`Host::linux`]) and a simulation makes of a kernel of its own; the rules of the agent stand
//! on this side and cannot tell. No trait here decides anything, and none knows applications, epochs or operations.
//! Network, clocks and chance are what every process needs: they are those of [`quiesce_runtime::machine`].

mod linux;

use std::any::Any;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::signals::{self, InstallError};

use crate::notify::{BindError, NotifySocket};
use crate::process::helper_command::CommandLine;
use crate::process::launcher::Launcher;
use crate::process::signal::Signal;
use crate::process::{Entry, Exit, Identity, OpenError, Reactions};

/// Where an agent lives. Clones are the same host.
#[derive(Clone)]
pub struct Host {
    /// Its network, clocks and chance.
    pub machine: Machine,
    /// The processes on it.
    pub processes: Arc<dyn Processes>,
    /// The commands that can be run there.
    pub commands: Arc<dyn Commands>,
    /// Where applications speak to their agents.
    pub notifications: Arc<dyn Notifications>,
    /// What the agent itself is told.
    pub signals: Arc<dyn Signals>,
    /// Its files.
    pub files: Arc<dyn Files>,
}

impl Host {
    /// The Linux this process runs on. Applications are executed by way of this very program, so its `main` begins with
    /// [`take_part`](crate::take_part).
    pub fn linux() -> Self {
        Self::of(Launcher::ThisProgram)
    }

    /// The same for a program whose `main` is not its own, as that of a test: `launcher` is one that begins so.
    pub fn linux_with(launcher: PathBuf) -> Self {
        Self::of(Launcher::At(launcher))
    }

    fn of(launcher: Launcher) -> Self {
        let linux = Arc::new(linux::Linux { launcher });
        Self {
            machine: Machine::local(),
            processes: linux.clone(),
            commands: linux.clone(),
            notifications: linux.clone(),
            signals: linux.clone(),
            files: linux,
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

/// The table of processes, and the children of this one.
pub trait Processes: Send + Sync {
    /// The pid of the agent.
    fn own_pid(&self) -> i32;

    /// The pid namespace the agent lives in. Pids mean nothing outside of theirs.
    fn namespace(&self) -> io::Result<String>;

    /// From now on, orphans among our descendants become our children. True when they do: also as PID 1.
    fn become_subreaper(&self) -> bool;

    /// All processes. Not a snapshot: who forks and ends while it is read may be missing together with the child.
    fn all(&self) -> io::Result<Vec<Entry>>;

    /// The entry of one process; `None` when there is no such process.
    fn entry(&self, pid: i32) -> io::Result<Option<Entry>>;

    /// The environment a process was started with, as `NAME=value` strings with a zero byte after each; `None` when it
    /// is gone or not ours to read.
    fn environment(&self, pid: i32) -> Option<Vec<u8>>;

    /// What a process does with signals; `None` when there is no such process.
    fn reactions(&self, pid: i32) -> io::Result<Option<Reactions>>;

    /// Whether the agent would be allowed to signal it. Of one that is gone there is nothing to forbid.
    fn may_signal(&self, pid: i32) -> bool;

    /// Pins exactly this process; `None` when it has ended and was reaped, even if its pid belongs to somebody else by
    /// now.
    fn open(&self, identity: Identity) -> Result<Option<Box<dyn Pinned>>, OpenError>;

    /// Starts a child in a process group of its own that executes nothing yet. It ends when it is dropped, or when the
    /// agent dies.
    fn spawn(&self, launch: &Launch) -> io::Result<Box<dyn Waiting>>;

    /// Whether this pid is a child that was started by the agent and not reaped yet.
    fn is_own_child(&self, pid: i32) -> bool;

    /// Reaps every ended orphan that came to us. Returns how many.
    fn reap_orphans(&self) -> io::Result<usize>;
}

/// A process that is pinned: as long as this value lives its signals reach this very process or nobody.
pub trait Pinned: fmt::Debug + Send + Sync {
    /// Which.
    fn identity(&self) -> Identity;

    /// Completes when the process has ended (all its threads), reaped or not.
    fn ended(&self) -> io::Result<BoxFuture<'static, ()>>;

    /// Sends a signal. `false` when the process has already ended.
    fn signal(&self, signal: Signal) -> io::Result<bool>;
}

/// A child of the agent that becomes what it was started for when it is given leave.
pub trait Waiting: Send {
    /// Which: also who it will be.
    fn identity(&self) -> Identity;

    /// Gives leave. Completes when the program was executed in its place; it has to be reaped then. With an error nothing
    /// was executed.
    fn go(self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Child>>>;
}

/// A child of the agent.
pub trait Child: Pinned {
    /// How it ended, leaving it unreaped: its pid is not handed out again. `None`: it has not ended.
    fn peek(&self) -> io::Result<Option<Exit>>;

    /// Reaps it. `None`: it has not ended.
    fn reap(&self) -> io::Result<Option<Exit>>;
}

/// What is to be executed.
#[derive(Clone, Default)]
pub struct Launch {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables of the agent's environment that it does not get.
    pub withheld: Vec<OsString>,
    /// Variables it gets in addition.
    pub variables: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Secrets are among the values of variables, and may be among the arguments.
        f.debug_struct("Launch").field("program", &self.program).finish_non_exhaustive()
    }
}

/// How a helper command ended; `None` when it was killed because its time was over. Dropping it ends the helper.
pub type HelperEnd = BoxFuture<'static, io::Result<Option<Exit>>>;

/// Commands that help the agent: the stop command, the drain command, the ready command.
pub trait Commands: Send + Sync {
    /// The program that executing `name` would run, or why there is none. `path` is the search path.
    fn find(&self, name: &OsStr, path: &str) -> Result<PathBuf, String>;

    /// Runs a helper with `variables` in its environment, at most for `limit`.
    fn run(
        &self,
        line: &CommandLine,
        variables: &[(String, String)],
        limit: Option<std::time::Duration>,
    ) -> io::Result<HelperEnd>;
}

/// Where the messages of applications arrive (sd_notify).
pub trait Notifications: Send + Sync {
    /// Binds in `directory`, or where else a socket of this agent has room. The same directory and agent id give the same
    /// path again.
    fn bind(&self, directory: &Path, agent_id: &str) -> Result<NotifySocket, BindError>;

    /// Binds exactly here: where a running application was told to send its messages.
    fn bind_at(&self, path: &Path) -> Result<NotifySocket, BindError>;
}

/// What the operating system tells the agent. A stream tells of every signal after it was made; several of one kind that
/// come before they are asked for may count as one. Streams do not end.
pub trait Signals: Send + Sync {
    /// The agent is asked to end: SIGTERM and SIGINT.
    fn to_end(&self) -> Result<BoxStream<'static, signals::Signal>, InstallError>;

    /// What is meant for the application: SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH.
    fn to_pass_on(&self) -> io::Result<BoxStream<'static, Signal>>;

    /// A child has ended: SIGCHLD.
    fn of_children(&self) -> io::Result<BoxStream<'static, ()>>;
}

/// Small files that are either the old one or the new one, whatever happens in between.
pub trait Files: Send + Sync {
    /// Makes a directory if it is not there, and takes it for this agent alone.
    fn claim(&self, directory: &Path) -> Result<Claim, ClaimError>;

    /// What is in a file, the first `limit` bytes of it.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Puts `content` at `path`. Durable when it completes with `Ok`. Begun, it goes on without being asked again.
    fn replace(&self, path: &Path, content: Vec<u8>) -> BoxFuture<'static, io::Result<()>>;

    /// Removes `path`, which may be gone already. Durable when it completes with `Ok`.
    fn remove(&self, path: &Path) -> BoxFuture<'static, io::Result<()>>;
}

/// A directory that belongs to one agent as long as this value lives, however that agent ends.
pub struct Claim {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// What keeps others away.
    pub lock: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// Why a directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another agent works with it.
    #[error("{} is in use by another agent", .0.display())]
    Taken(PathBuf),
    /// The operating system refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// What could not be opened.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
