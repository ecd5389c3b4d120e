//! What an agent gets of a simulated machine: the traits of `quiesce_agent::host`, for one life of an agent.
//!
//! Owns what it means to be dead: an agent whose life is over sees nothing, does nothing, and what it waits for never
//! comes, however long its futures are kept.

use std::ffi::OsStr;
use std::fmt;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use quiesce_agent::host::{
    Child, Claim, ClaimError, Commands, Files, HelperEnd, Launch, Notifications, Pinned, Processes, Signals, Waiting,
};
use quiesce_agent::notify::{BindError, NotifySocket};
use quiesce_agent::process::helper_command::CommandLine;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Entry, Exit, Identity, OpenError, Reactions};
use quiesce_runtime::clock::Source;
use quiesce_runtime::machine::{Entropy, Listener, Network, Socket};
use quiesce_runtime::signals::{self, InstallError};
use tokio::sync::{mpsc, watch};

use super::disk::{Fate, Write};
use super::kernel::{Kernel, MESSAGES_MAX};
use super::lock;
use super::temper::Executable;

/// One life of an agent.
pub(super) struct Incarnation {
    kernel: Arc<Mutex<Kernel>>,
    number: u64,
}

impl Incarnation {
    pub(super) fn new(kernel: Arc<Mutex<Kernel>>, number: u64) -> Self {
        Self { kernel, number }
    }

    /// The kernel, as long as this life lasts.
    fn alive(&self) -> io::Result<MutexGuard<'_, Kernel>> {
        let kernel = lock(&self.kernel);
        if kernel.is_agent(self.number) { Ok(kernel) } else { Err(dead()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("this agent was killed")
}

impl Processes for Incarnation {
    fn own_pid(&self) -> i32 {
        // Nobody has pid 0, so a dead agent is related to nobody.
        lock(&self.kernel).agent_pid(self.number).unwrap_or(0)
    }

    fn namespace(&self) -> io::Result<String> {
        Ok(self.alive()?.namespace())
    }

    fn become_subreaper(&self) -> bool {
        self.alive().is_ok_and(|mut kernel| kernel.become_subreaper())
    }

    fn all(&self) -> io::Result<Vec<Entry>> {
        Ok(self.alive()?.entries())
    }

    fn entry(&self, pid: i32) -> io::Result<Option<Entry>> {
        Ok(self.alive()?.entry(pid))
    }

    fn environment(&self, pid: i32) -> Option<Vec<u8>> {
        // Nothing can be read by who is dead.
        self.alive().ok()?.environment(pid)
    }

    fn reactions(&self, pid: i32) -> io::Result<Option<Reactions>> {
        Ok(self.alive()?.reactions(pid))
    }

    fn may_signal(&self, _pid: i32) -> bool {
        true
    }

    fn open(&self, identity: Identity) -> Result<Option<Box<dyn Pinned>>, OpenError> {
        let pid = identity.pid;
        let kernel = self.alive().map_err(|source| OpenError::Os { pid, source })?;
        Ok(kernel.pin(identity).map(|ended| Box::new(self.process(identity, ended)) as Box<dyn Pinned>))
    }

    fn spawn(&self, launch: &Launch) -> io::Result<Box<dyn Waiting>> {
        let mut kernel = self.alive()?;
        let identity = kernel.spawn(launch)?;
        let ended = kernel.pin(identity).ok_or_else(|| io::Error::other("a child that is not there"))?;
        Ok(Box::new(Launcher { process: Some(self.process(identity, ended)), identity, launch: launch.clone() }))
    }

    fn is_own_child(&self, pid: i32) -> bool {
        self.alive().is_ok_and(|kernel| kernel.is_own_child(pid))
    }

    fn reap_orphans(&self) -> io::Result<usize> {
        Ok(self.alive()?.reap_orphans())
    }
}

impl Incarnation {
    fn process(&self, identity: Identity, ended: watch::Receiver<bool>) -> Process {
        Process { life: Self::new(Arc::clone(&self.kernel), self.number), identity, ended }
    }
}

/// A child that waits for leave.
struct Launcher {
    /// There until leave is given.
    process: Option<Process>,
    identity: Identity,
    launch: Launch,
}

impl Waiting for Launcher {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn go(mut self: Box<Self>) -> BoxFuture<'static, io::Result<Box<dyn Child>>> {
        Box::pin(async move {
            let process = self.process.take().ok_or(io::ErrorKind::NotConnected)?;
            process.life.alive()?.go(self.identity, &self.launch)?;
            Ok(Box::new(process) as Box<dyn Child>)
        })
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // Those of an agent that is dead were turned away with it.
        if let Some(mut kernel) = self.process.as_ref().and_then(|process| process.life.alive().ok()) {
            kernel.turn_away(self.identity);
        }
    }
}

/// A process an agent has pinned.
struct Process {
    life: Incarnation,
    identity: Identity,
    ended: watch::Receiver<bool>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.identity)
    }
}

impl Pinned for Process {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn ended(&self) -> io::Result<BoxFuture<'static, ()>> {
        let mut ended = self.ended.clone();
        Ok(Box::pin(async move {
            // The sender ends with the entry of the process, which says so first.
            let _gone = ended.wait_for(|ended| *ended).await;
        }))
    }

    fn signal(&self, signal: Signal) -> io::Result<bool> {
        Ok(self.life.alive()?.signal(self.identity, signal))
    }
}

impl Child for Process {
    fn peek(&self) -> io::Result<Option<Exit>> {
        Ok(self.life.alive()?.exit(self.identity))
    }

    fn reap(&self) -> io::Result<Option<Exit>> {
        Ok(self.life.alive()?.reap(self.identity))
    }
}

impl Commands for Incarnation {
    fn find(&self, name: &OsStr, _path: &str) -> Result<PathBuf, String> {
        let missing = || format!("there is no executable {}", name.display());
        let kernel = self.alive().map_err(|error| error.to_string())?;
        match kernel.temper.executable {
            Executable::Missing => Err(missing()),
            Executable::Yes | Executable::Broken => Ok(PathBuf::from(name)),
        }
    }

    fn run(
        &self,
        line: &CommandLine,
        variables: &[(String, String)],
        limit: Option<Duration>,
    ) -> io::Result<HelperEnd> {
        let mut kernel = self.alive()?;
        let helper = kernel.helpers.get(&line.to_string()).copied().unwrap_or_default();
        let identity = kernel.spawn_helper()?;
        let pid = variables.iter().find(|(name, _)| name == "QUIESCE_PID").and_then(|(_, pid)| pid.parse().ok());
        if let Some(whom) = pid.filter(|_| helper.tells).and_then(|pid| kernel.entry(pid)) {
            kernel.signal(whom.identity(), Signal::TERM);
        }
        drop(kernel);
        let running = Running { life: Self::new(Arc::clone(&self.kernel), self.number), identity };
        Ok(Box::pin(async move {
            let is_over = limit.is_none_or(|limit| helper.takes <= limit);
            tokio::time::sleep(if is_over { helper.takes } else { limit.unwrap_or_default() }).await;
            if !is_over {
                return Ok(None); // dropping `running` kills it
            }
            let exit = Exit { code: Some(helper.code), signal: None };
            running.life.alive()?.end(identity, exit);
            Ok(running.life.alive()?.reap(identity))
        }))
    }
}

/// A helper that runs. It is killed when its agent drops it; one whose agent was killed is nobody's any more.
struct Running {
    life: Incarnation,
    identity: Identity,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(mut kernel) = self.life.alive() {
            kernel.signal(self.identity, Signal::KILL);
            kernel.reap(self.identity);
        }
    }
}

impl Notifications for Incarnation {
    fn bind(&self, directory: &Path, _agent_id: &str) -> Result<NotifySocket, BindError> {
        self.bind_at(&directory.join("notify.sock"))
    }

    fn bind_at(&self, path: &Path) -> Result<NotifySocket, BindError> {
        let (says, heard) = mpsc::channel(MESSAGES_MAX);
        if let Ok(mut kernel) = self.alive() {
            kernel.ears.insert(path.to_owned(), says);
        }
        let messages = stream::unfold(heard, |mut heard| async {
            match heard.recv().await {
                Some(message) => Some((Ok(message), heard)),
                None => pending().await,
            }
        });
        Ok(NotifySocket { path: path.to_owned(), messages: messages.boxed() })
    }
}

impl Signals for Incarnation {
    fn to_end(&self) -> Result<BoxStream<'static, signals::Signal>, InstallError> {
        // One who is dead is asked nothing.
        let asked = self.alive().ok().and_then(|mut kernel| kernel.take_asks());
        let asked = stream::iter(asked).flat_map(|asked| {
            stream::unfold(asked, |mut asked| async { asked.recv().await.map(|signal| (signal, asked)) })
        });
        Ok(asked.chain(stream::pending()).boxed())
    }

    fn to_pass_on(&self) -> io::Result<BoxStream<'static, Signal>> {
        Ok(stream::pending().boxed())
    }

    fn of_children(&self) -> io::Result<BoxStream<'static, ()>> {
        let ends = self.alive()?.child_ends().ok_or_else(dead)?;
        let ends = stream::unfold(ends, |mut ends| async { ends.changed().await.ok().map(|()| ((), ends)) });
        Ok(ends.chain(stream::pending()).boxed())
    }
}

impl Files for Incarnation {
    fn claim(&self, directory: &Path) -> Result<Claim, ClaimError> {
        let io = |source| ClaimError::Io { path: directory.to_owned(), source };
        if !self.alive().map_err(io)?.disk.claim(directory, self.number) {
            return Err(ClaimError::Taken(directory.to_owned()));
        }
        let life = Self::new(Arc::clone(&self.kernel), self.number);
        Ok(Claim { directory: directory.to_owned(), lock: Box::new(Claimed { life, directory: directory.to_owned() }) })
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let kernel = self.alive()?;
        let content = kernel.disk.read(path).ok_or(io::ErrorKind::NotFound)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(content[..content.len().min(limit)].to_vec())
    }

    fn replace(&self, path: &Path, content: Vec<u8>) -> BoxFuture<'static, io::Result<()>> {
        self.write(path, Some(content))
    }

    fn remove(&self, path: &Path) -> BoxFuture<'static, io::Result<()>> {
        self.write(path, None)
    }
}

impl Incarnation {
    fn write(&self, path: &Path, content: Option<Vec<u8>>) -> BoxFuture<'static, io::Result<()>> {
        let (life, path) = (Self::new(Arc::clone(&self.kernel), self.number), path.to_owned());
        Box::pin(async move {
            // What a dead agent waits for never comes.
            let Some(fate) = life.fate(&path, content.as_deref()) else { return pending().await };
            if let Fate::Slow(takes) = fate {
                tokio::time::sleep(takes).await;
            }
            match life.settle(fate, &path, content) {
                Some(result) => result,
                None => pending().await,
            }
        })
    }

    fn fate(&self, path: &Path, content: Option<&[u8]>) -> Option<Fate> {
        Some(self.alive().ok()?.disk.fate(&Write { path, content }))
    }

    /// Does what the fate of a write is; `None` when its agent does not live to see it.
    fn settle(&self, fate: Fate, path: &Path, content: Option<Vec<u8>>) -> Option<io::Result<()>> {
        let mut kernel = self.alive().ok()?;
        match fate {
            Fate::Durable | Fate::Slow(_) => {
                kernel.disk.apply(path, content);
                Some(Ok(()))
            }
            Fate::Refused(kind) => Some(Err(kind.into())),
            Fate::CrashBefore => {
                kernel.end_agent();
                None
            }
            Fate::CrashAfter => {
                kernel.disk.apply(path, content);
                kernel.end_agent();
                None
            }
        }
    }
}

/// A directory that is claimed.
struct Claimed {
    life: Incarnation,
    directory: PathBuf,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        lock(&self.life.kernel).disk.release(&self.directory, self.life.number);
    }
}

/// The clocks of the machine.
pub(super) struct Clocks(Arc<Mutex<Kernel>>);

impl Clocks {
    pub(super) fn new(kernel: Arc<Mutex<Kernel>>) -> Self {
        Self(kernel)
    }
}

impl Source for Clocks {
    fn boot_id(&self) -> io::Result<String> {
        Ok(lock(&self.0).boot_id())
    }

    fn boottime_ms(&self) -> u64 {
        lock(&self.0).read_boottime_ms()
    }

    fn wall_ms(&self) -> u64 {
        lock(&self.0).wall_ms()
    }
}

/// The chance of the machine: a sequence that begins with its seed.
pub(super) struct Seeded(Arc<Mutex<Kernel>>);

impl Seeded {
    pub(super) fn new(kernel: Arc<Mutex<Kernel>>) -> Self {
        Self(kernel)
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        lock(&self.0).fill(buffer);
        Ok(())
    }
}

/// A network that leads nowhere.
pub(super) struct Unplugged;

impl Network for Unplugged {
    fn listen<'a>(
        &'a self,
        _address: &'a str,
        _silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::AddrNotAvailable.into()) })
    }

    fn connect<'a>(
        &'a self,
        _address: &'a str,
        _silence: Option<Duration>,
    ) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async { Err(io::ErrorKind::NetworkUnreachable.into()) })
    }
}
