//! The host of production: the Linux this process runs on.
//!
//! Owns which call of the operating system answers which question, and that files are written beside the runtime, since
//! that blocks. How each of these calls is made stands in [`crate::process`], [`crate::notify`] and [`durable`].

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use quiesce_runtime::durable;
use quiesce_runtime::signals::{self, InstallError};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use super::{
    Child, Claim, ClaimError, Commands, Files, HelperEnd, Launch, Notifications, Pinned, Processes, Signals, Waiting,
};
use crate::notify::{BindError, NotifySocket};
use crate::process::helper_command::{self, CommandLine, Helper};
use crate::process::launcher::{self, Launcher};
use crate::process::signal::Signal;
use crate::process::{Entry, Exit, Identity, OpenError, Process, Reactions, boot, children, table};

/// Owner: everything. Others: pass through, so that an application under another user reaches its notify socket; they
/// can list nothing, and every file is for the owner alone.
const DIRECTORY_MODE: u32 = 0o711;

#[derive(Debug)]
pub(super) struct Linux {
    pub(super) launcher: Launcher,
}

impl Processes for Linux {
    fn own_pid(&self) -> i32 {
        children::own_pid()
    }

    fn namespace(&self) -> io::Result<String> {
        boot::pid_namespace()
    }

    fn become_subreaper(&self) -> bool {
        children::become_subreaper()
    }

    fn all(&self) -> io::Result<Vec<Entry>> {
        table::all()
    }

    fn entry(&self, pid: i32) -> io::Result<Option<Entry>> {
        table::entry(pid)
    }

    fn environment(&self, pid: i32) -> Option<Vec<u8>> {
        table::environment(pid)
    }

    fn reactions(&self, pid: i32) -> io::Result<Option<Reactions>> {
        table::reactions(pid)
    }

    fn may_signal(&self, pid: i32) -> bool {
        // Signal 0: asks for permission, sends nothing.
        Pid::from_raw(pid).is_none_or(|pid| test_kill_process(pid) != Err(rustix::io::Errno::PERM))
    }

    fn open(&self, identity: Identity) -> Result<Option<Box<dyn Pinned>>, OpenError> {
        Ok(Process::open(identity)?.map(|process| Box::new(process) as Box<dyn Pinned>))
    }

    fn spawn(&self, launch: &Launch) -> io::Result<Box<dyn Waiting>> {
        Ok(Box::new(self.launcher.start(launch)?))
    }

    fn is_own_child(&self, pid: i32) -> bool {
        children::is_registered(pid)
    }

    fn reap_orphans(&self) -> io::Result<usize> {
        children::reap_orphans()
    }
}

impl Pinned for Process {
    fn identity(&self) -> Identity {
        self.identity()
    }

    fn ended(&self) -> io::Result<BoxFuture<'static, ()>> {
        Ok(Box::pin(self.ended()?))
    }

    fn signal(&self, signal: Signal) -> io::Result<bool> {
        self.signal(signal)
    }
}

impl Waiting for launcher::Waiting {
    fn identity(&self) -> Identity {
        self.identity()
    }

    fn go(self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Child>>> {
        Box::pin(async { Ok(Box::new((*self).go().await?) as Box<dyn Child>) })
    }
}

impl Child for Process {
    fn peek(&self) -> io::Result<Option<Exit>> {
        children::peek(self)
    }

    fn reap(&self) -> io::Result<Option<Exit>> {
        children::reap(self)
    }
}

impl Commands for Linux {
    fn find(&self, name: &OsStr, path: &str) -> Result<PathBuf, String> {
        helper_command::find_program(name, path)
    }

    fn run(
        &self,
        line: &CommandLine,
        variables: &[(String, String)],
        limit: Option<Duration>,
    ) -> io::Result<HelperEnd> {
        Ok(Box::pin(Helper::spawn(line, variables)?.wait(limit)))
    }
}

impl Notifications for Linux {
    fn bind(&self, directory: &Path, agent_id: &str) -> Result<NotifySocket, BindError> {
        NotifySocket::bind(directory, agent_id)
    }

    fn bind_at(&self, path: &Path) -> Result<NotifySocket, BindError> {
        NotifySocket::bind_at(path)
    }
}

impl Signals for Linux {
    fn to_end(&self) -> Result<BoxStream<'static, signals::Signal>, InstallError> {
        let signals = signals::Signals::install()?;
        Ok(stream::unfold(signals, |mut signals| async { Some((signals.next().await, signals)) }).boxed())
    }

    fn to_pass_on(&self) -> io::Result<BoxStream<'static, Signal>> {
        let each = [
            told(SignalKind::hangup(), Signal::HUP)?,
            told(SignalKind::user_defined1(), Signal::USR1)?,
            told(SignalKind::user_defined2(), Signal::USR2)?,
            told(SignalKind::window_change(), Signal::WINCH)?,
        ];
        Ok(stream::select_all(each).boxed())
    }

    fn of_children(&self) -> io::Result<BoxStream<'static, ()>> {
        told(SignalKind::child(), ())
    }
}

/// Says `what` whenever a signal of this kind has come.
fn told<T: Copy + Send + 'static>(kind: SignalKind, what: T) -> io::Result<BoxStream<'static, T>> {
    let received = signal(kind)?;
    Ok(stream::unfold(received, move |mut received| async move {
        received.recv().await?;
        Some((what, received))
    })
    .boxed())
}

impl Files for Linux {
    fn claim(&self, directory: &Path) -> Result<Claim, ClaimError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ClaimError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory).map_err(io(directory))?;
        let directory = directory.canonicalize().map_err(io(directory))?;
        let lock = Box::new(lock(&directory)?);
        Ok(Claim { directory, lock })
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn replace(&self, path: &Path, content: Vec<u8>) -> BoxFuture<'static, io::Result<()>> {
        let path = path.to_owned();
        aside(move || durable::replace(&path, &content))
    }

    fn remove(&self, path: &Path) -> BoxFuture<'static, io::Result<()>> {
        let path = path.to_owned();
        aside(move || durable::remove(&path))
    }
}

/// Does what blocks on a thread of its own. It goes on when nobody waits for it any more: a write is never half done.
fn aside(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> BoxFuture<'static, io::Result<()>> {
    let working = spawn_blocking(work);
    Box::pin(async { working.await.map_err(io::Error::other)? })
}

fn lock(directory: &Path) -> Result<File, ClaimError> {
    let path = directory.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(|source| ClaimError::Io { path: path.clone(), source })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            warn_if_open(directory);
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ClaimError::Taken(directory.to_owned())),
        Err(errno) => Err(ClaimError::Io { path, source: errno.into() }),
    }
}

/// A directory that was there before is its owner's business, and the volumes of Kubernetes are open to everybody in the
/// pod; but who can write here can lift a hold.
fn warn_if_open(directory: &Path) {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.permissions().mode() & 0o022 == 0 => {}
        Ok(metadata) => {
            let mode = format!("{:o}", metadata.permissions().mode() & 0o7777);
            tracing::warn!(directory = %directory.display(), mode, "other users can write to the state directory");
        }
        Err(error) => tracing::warn!(directory = %directory.display(), %error, "cannot look at the state directory"),
    }
}
