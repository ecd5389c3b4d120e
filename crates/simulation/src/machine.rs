//! A simulated host: what a production agent runs on, without a kernel, a disk or a second of real time.
//!
//! Owns a table of processes with pids that are reused soon, files that survive crashes, clocks that jump, and the
//! applications that run there, each with a [`Temper`]. [`Machine::begin_agent`] gives an agent a [`Host`] instead of
//! [`Host::linux`]; [`agent::Agent`] runs one. Everything happens in tokio's time, which is to be paused, in one thread,
//! and by no chance but that of the seed: the same seed is the same story. Whatever happens to a process is told to an
//! observer at the moment it happens, so that what agents claim can be held against what was.
//!
//! A machine knows nothing of schedulers and operations, and shares no rule with the agent: it is the other side of
//! every promise about processes.

pub mod agent;
mod disk;
mod host;
mod kernel;
pub mod temper;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quiesce_agent::host::Host;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Exit, Identity};
use quiesce_runtime::machine::{Machine as Surroundings, Network};
use quiesce_runtime::signals;
use tokio::sync::watch;

pub use disk::{Fate, Write};
use host::{Clocks, Incarnation, Seeded, Unplugged};
use kernel::Kernel;
use temper::{Helper, Temper};

/// Something that happened to a process of an application.
#[derive(Debug, Clone)]
pub struct Happening {
    /// When, since the machine was made.
    pub at: Duration,
    /// On which machine.
    pub machine: Arc<str>,
    /// `QUIESCE_INSTANCE` of its environment.
    pub instance: String,
    /// `QUIESCE_EPOCH` of its environment.
    pub epoch: u64,
    /// Which process.
    pub process: Identity,
    /// What.
    pub what: What,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was started by the agent: the first process of a run.
    Started,
    /// It was forked by another process of its run.
    Forked,
    /// A signal reached it.
    Signalled(Signal),
    /// It has ended, whether or not anybody has taken notice.
    Ended(Exit),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, machine, instance, epoch, process, what } = self;
        write!(f, "{at:>12.3?} {machine}: {instance} epoch {epoch} {process} ")?;
        match what {
            What::Started => f.write_str("was started"),
            What::Forked => f.write_str("was forked"),
            What::Signalled(signal) => write!(f, "got {}", quiesce_agent::process::signal::name(*signal)),
            What::Ended(Exit { code: Some(code), .. }) => write!(f, "exited with {code}"),
            What::Ended(Exit { signal, .. }) => write!(f, "was ended by signal {}", signal.unwrap_or_default()),
        }
    }
}

/// Is told whatever happens. It is called with the machine locked: it must not call the machine.
pub type Observer = Arc<dyn Fn(&Happening) + Send + Sync>;

/// What agents find around them on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A host: processes outlive their agent.
    Host,
    /// A container whose first process is the agent: everything in it ends with the agent.
    Container,
}

/// A simulated machine. Clones are the same one.
#[derive(Clone)]
pub struct Machine {
    kernel: Arc<Mutex<Kernel>>,
    network: Arc<dyn Network>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.kernel().name()).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine that has just been switched on. Its network leads nowhere, see [`Machine::on`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(name: &str, home: Home, seed: u64, observer: Observer) -> Self {
        let kernel = Arc::new_cyclic(|kernel| Mutex::new(Kernel::new(kernel.clone(), name, home, seed, observer)));
        Self { kernel, network: Arc::new(Unplugged) }
    }

    /// The same machine on `network`. An agent asks it whether its scheduler can be reached.
    #[must_use]
    pub fn on(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// What the next agent on this machine gets, and its number: from now on any agent before it is dead.
    pub fn begin_agent(&self) -> (Host, u64) {
        let number = self.kernel().begin_agent();
        let incarnation = Arc::new(Incarnation::new(Arc::clone(&self.kernel), number));
        let host = Host {
            machine: self.surroundings(),
            processes: incarnation.clone(),
            commands: incarnation.clone(),
            notifications: incarnation.clone(),
            signals: incarnation.clone(),
            files: incarnation,
        };
        (host, number)
    }

    /// Network, clocks and chance of this machine.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            network: Arc::clone(&self.network),
            clocks: Arc::new(Clocks::new(Arc::clone(&self.kernel))),
            entropy: Arc::new(Seeded::new(Arc::clone(&self.kernel))),
        }
    }

    /// Ends the agent of this number, if it lives: it does nothing any more. What it started lives on, except in a
    /// container.
    pub fn end_agent(&self, number: u64) {
        let mut kernel = self.kernel();
        if kernel.is_agent(number) {
            kernel.end_agent();
        }
    }

    /// Changes when an agent begins or dies: the number of the one that lives, `None` while there is none.
    pub fn living_agent(&self) -> watch::Receiver<Option<u64>> {
        self.kernel().living_agent()
    }

    /// Power off and on again: every process is gone, another boot begins, and files are what they were.
    pub fn reboot(&self) {
        self.kernel().reboot();
    }

    /// Asks the agent to end.
    pub fn ask_to_end(&self, signal: signals::Signal) {
        self.kernel().ask_to_end(signal);
    }

    /// Sets the wall clock forward or, when `millis` is negative, back.
    pub fn step_wall_clock(&self, millis: i64) {
        self.kernel().step_wall_clock(millis);
    }

    /// How applications that are started from now on behave.
    pub fn set_temper(&self, temper: Temper) {
        self.kernel().temper = temper;
    }

    /// What the helper command `line` does when an agent runs it. One that is not set exits with 0 at once.
    pub fn set_helper(&self, line: &str, helper: Helper) {
        self.kernel().helpers.insert(line.to_owned(), helper);
    }

    /// Decides what becomes of every write of the agent from now on; without it all succeed at once. It is called with the
    /// machine locked: it must not call the machine.
    pub fn set_fate(&self, fate: impl FnMut(&Write<'_>) -> Fate + Send + 'static) {
        self.kernel().disk.set_fate(Box::new(fate));
    }

    /// A file as it would be read now.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.kernel().disk.read(path.as_ref()).map(<[u8]>::to_vec)
    }

    /// Puts a file there, behind everybody's back.
    pub fn put_file(&self, path: &str, content: &[u8]) {
        self.kernel().disk.put(path.as_ref(), content.to_vec());
    }

    /// The live processes of every run, by instance and epoch: what a census would find.
    pub fn census(&self) -> BTreeMap<(String, u64), Vec<Identity>> {
        self.kernel().census()
    }

    /// Sends a signal to every live process of a run, as a person or a kernel out of memory would.
    pub fn signal_run(&self, instance: &str, epoch: u64, signal: Signal) {
        self.kernel().signal_run(instance, epoch, signal);
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }
}

/// A panic while it was locked has failed the simulation already; who looks on sees what was.
fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}
