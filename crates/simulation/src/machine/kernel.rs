//! The kernel of a simulated machine: who lives, who is whose child, what a signal does.
//!
//! Owns the table of processes; the life of each entry in it is in `lives`. It does what Linux does where agents can tell: a zombie
//! keeps its pid until it is reaped, orphans go to the subreaper among their ancestors or else to init, a pid is handed
//! out again as soon as neither a process nor a group has that number. What is due later is a task that looks whether
//! its process is still that process.

mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use quiesce_agent::notify::Notice;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Entry, Exit, Identity, Reactions, State};
use quiesce_runtime::signals;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::disk::Disk;
use super::temper::{Helper, OnTerm, Speech, Temper};
use super::{Happening, Home, Observer, What};

/// Few, so that pids come back soon. Far more than a run of an application has processes.
const PID_MAX: i32 = 64;

/// The first process of the machine, or of the container.
const INIT: i32 = 1;

/// Clock ticks of `/proc`: 100 a second.
const TICK_MS: u64 = 10;

/// When a machine is first switched on, by its wall clock.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// How long booting takes.
const BOOT_MS: u64 = 4_000;

/// How often the clock is read in one moment before somebody must be waiting for the next one in a loop. Agents read it a
/// few times for everything they do.
const READS_MAX: u32 = 10_000;

/// Requests to end that wait for an agent. Nobody repeats himself more often before he is heard.
const ASKS_MAX: usize = 8;

/// Messages of applications that wait for an agent; what is said beyond them is lost, and no [`Temper`] says so much.
pub(super) const MESSAGES_MAX: usize = 64;

pub(super) type Message = (i32, Notice);

pub(super) struct Kernel {
    me: Weak<Mutex<Kernel>>,
    name: Arc<str>,
    home: Home,
    observer: Observer,
    pub(super) random: StdRng,
    made: Instant,
    booted: Instant,
    boots: u64,
    namespaces: u64,
    wall_offset_ms: i64,
    /// When the clock was read last, and how often since.
    reads: (Instant, u32),
    last_pid: i32,
    last_start: u64,
    processes: BTreeMap<i32, Process>,
    /// Children of the agent that have not been given leave to become the application.
    waiting: BTreeSet<Identity>,
    agent: Option<Resident>,
    agents: u64,
    living: watch::Sender<Option<u64>>,
    pub(super) ears: BTreeMap<PathBuf, mpsc::Sender<Message>>,
    pub(super) temper: Temper,
    pub(super) helpers: BTreeMap<String, Helper>,
    pub(super) disk: Disk,
}

/// The agent that lives here.
struct Resident {
    number: u64,
    pid: i32,
    is_subreaper: bool,
    /// Children it has started and not reaped.
    own: BTreeSet<i32>,
    child_ends: watch::Sender<u64>,
    asks: (mpsc::Sender<signals::Signal>, Option<mpsc::Receiver<signals::Signal>>),
}

struct Process {
    entry: Entry,
    /// Whether it ended, for whoever has pinned it.
    ended: watch::Sender<bool>,
    exit: Option<Exit>,
    /// `None`: the agent itself, init, or a helper of the agent.
    application: Option<Application>,
    environment: Vec<u8>,
}

struct Application {
    instance: String,
    epoch: u64,
    notify: Option<PathBuf>,
    speech: Speech,
    asks_for: Option<Duration>,
    on_term: OnTerm,
    stuck: Duration,
    is_told: bool,
    /// Of one that was forked: by whom, and how long it outlives that.
    forked: Option<(Identity, Option<Duration>)>,
}

impl Kernel {
    pub(super) fn new(me: Weak<Mutex<Kernel>>, name: &str, home: Home, seed: u64, observer: Observer) -> Self {
        let now = Instant::now();
        Self {
            me,
            name: name.into(),
            home,
            observer,
            random: StdRng::seed_from_u64(seed),
            made: now,
            booted: now,
            boots: 1,
            namespaces: 1,
            wall_offset_ms: 0,
            reads: (now, 0),
            last_pid: INIT,
            last_start: 0,
            processes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            agent: None,
            agents: 0,
            living: watch::Sender::new(None),
            ears: BTreeMap::new(),
            temper: Temper::default(),
            helpers: BTreeMap::new(),
            disk: Disk::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn boot_id(&self) -> String {
        format!("boot-{}-of-{}", self.boots, self.name)
    }

    pub(super) fn boottime_ms(&self) -> u64 {
        BOOT_MS + millis(self.booted.elapsed())
    }

    /// The same, for an agent.
    ///
    /// # Panics
    /// Paused time goes on when nobody has anything to do. When it does not go on, an agent is busy with nothing; one that
    /// does so on a real machine takes a whole processor.
    pub(super) fn read_boottime_ms(&mut self) -> u64 {
        let now = Instant::now();
        self.reads = if self.reads.0 == now { (now, self.reads.1 + 1) } else { (now, 0) };
        assert!(self.reads.1 < READS_MAX, "somebody on {} is busy with waiting", self.name);
        self.boottime_ms()
    }

    pub(super) fn wall_ms(&self) -> u64 {
        (WALL_START_MS + millis(self.made.elapsed())).saturating_add_signed(self.wall_offset_ms)
    }

    pub(super) fn step_wall_clock(&mut self, millis: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(millis);
    }

    pub(super) fn namespace(&self) -> String {
        format!("pid:[{}]", 4_026_531_835 + self.namespaces)
    }

    // The agent.

    pub(super) fn begin_agent(&mut self) -> u64 {
        self.end_agent();
        self.agents += 1;
        let pid = match self.home {
            Home::Host => self.free_pid().expect("an agent that begins finds room among 64 processes"),
            Home::Container => INIT,
        };
        let (child_ends, (asks, asked)) = (watch::Sender::new(0), mpsc::channel(ASKS_MAX));
        let entry = Entry { pid, parent: 0, group: pid, start: self.next_start(), state: State::Alive };
        self.insert(entry, None, Vec::new());
        self.agent = Some(Resident {
            number: self.agents,
            pid,
            is_subreaper: self.home == Home::Container,
            own: BTreeSet::new(),
            child_ends,
            asks: (asks, Some(asked)),
        });
        self.living.send_replace(Some(self.agents));
        self.agents
    }

    pub(super) fn end_agent(&mut self) {
        let Some(agent) = self.agent.take() else { return };
        self.ears.clear();
        self.disk.release_all();
        self.living.send_replace(None);
        for waiting in std::mem::take(&mut self.waiting) {
            self.turn_away(waiting);
        }
        match self.home {
            Home::Host => {
                self.processes.remove(&agent.pid);
                self.bereave(agent.pid, INIT);
            }
            Home::Container => {
                self.end_everything();
                self.namespaces += 1;
            }
        }
    }

    pub(super) fn reboot(&mut self) {
        self.end_agent();
        self.end_everything();
        self.boots += 1;
        self.booted = Instant::now();
        (self.last_pid, self.last_start) = (INIT, 0);
    }

    pub(super) fn living_agent(&self) -> watch::Receiver<Option<u64>> {
        self.living.subscribe()
    }

    pub(super) fn is_agent(&self, number: u64) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.number == number)
    }

    /// Of the agent that lives, if it is this one.
    pub(super) fn agent_pid(&self, number: u64) -> Option<i32> {
        self.agent.as_ref().filter(|agent| agent.number == number).map(|agent| agent.pid)
    }

    pub(super) fn become_subreaper(&mut self) -> bool {
        if let Some(agent) = &mut self.agent {
            agent.is_subreaper = true;
        }
        true
    }

    pub(super) fn is_own_child(&self, pid: i32) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.own.contains(&pid))
    }

    pub(super) fn child_ends(&self) -> Option<watch::Receiver<u64>> {
        self.agent.as_ref().map(|agent| agent.child_ends.subscribe())
    }

    /// Who asks for them gets all there are.
    pub(super) fn take_asks(&mut self) -> Option<mpsc::Receiver<signals::Signal>> {
        self.agent.as_mut()?.asks.1.take()
    }

    pub(super) fn ask_to_end(&mut self, signal: signals::Signal) {
        if let Some(agent) = &self.agent {
            // More than fit say nothing new.
            let _full = agent.asks.0.try_send(signal);
        }
    }

    // The table of processes.

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.processes.values().map(|process| process.entry).collect()
    }

    pub(super) fn entry(&self, pid: i32) -> Option<Entry> {
        self.processes.get(&pid).map(|process| process.entry)
    }

    pub(super) fn environment(&self, pid: i32) -> Option<Vec<u8>> {
        self.processes.get(&pid).map(|process| process.environment.clone())
    }

    pub(super) fn reactions(&self, pid: i32) -> Option<Reactions> {
        let application = self.processes.get(&pid)?.application.as_ref();
        let asking = [Signal::TERM, Signal::INT, Signal::QUIT];
        let mask = asking.iter().fold(0, |mask, signal| mask | 1u64 << (signal.as_raw() - 1));
        let (ignored, caught) = match application.map(|application| application.on_term) {
            Some(OnTerm::Ignores) => (mask, 0),
            Some(OnTerm::Ends { .. } | OnTerm::Hangs) => (0, mask),
            Some(OnTerm::Dies) | None => (0, 0),
        };
        Some(Reactions { ignored, caught, blocked: 0, is_init: false })
    }

    pub(super) fn pin(&self, identity: Identity) -> Option<watch::Receiver<bool>> {
        self.process(identity).map(|process| process.ended.subscribe())
    }

    pub(super) fn exit(&self, identity: Identity) -> Option<Exit> {
        self.process(identity)?.exit
    }

    pub(super) fn reap(&mut self, identity: Identity) -> Option<Exit> {
        let exit = self.exit(identity)?;
        self.forget(identity.pid);
        Some(exit)
    }

    pub(super) fn reap_orphans(&mut self) -> usize {
        let Some(agent) = &self.agent else { return 0 };
        let ended = |process: &&Process| {
            let entry = process.entry;
            entry.state == State::Zombie && entry.parent == agent.pid && !agent.own.contains(&entry.pid)
        };
        let orphans: Vec<i32> = self.processes.values().filter(ended).map(|process| process.entry.pid).collect();
        orphans.iter().for_each(|pid| self.forget(*pid));
        orphans.len()
    }

    pub(super) fn census(&self) -> BTreeMap<(String, u64), Vec<Identity>> {
        let mut census: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for process in self.processes.values().filter(|process| process.exit.is_none()) {
            if let Some(application) = &process.application {
                let run = (application.instance.clone(), application.epoch);
                census.entry(run).or_default().push(process.entry.identity());
            }
        }
        census
    }

    // Bookkeeping.

    fn insert(&mut self, entry: Entry, application: Option<Application>, environment: Vec<u8>) {
        let ended = watch::Sender::new(false);
        self.processes.insert(entry.pid, Process { entry, ended, exit: None, application, environment });
    }

    fn forget(&mut self, pid: i32) {
        self.processes.remove(&pid);
        if let Some(agent) = &mut self.agent {
            agent.own.remove(&pid);
        }
    }

    fn process(&self, identity: Identity) -> Option<&Process> {
        self.processes.get(&identity.pid).filter(|process| process.entry.identity() == identity)
    }

    fn application_mut(&mut self, identity: Identity) -> Option<&mut Application> {
        let process = self.processes.get_mut(&identity.pid)?;
        process.application.as_mut().filter(|_| process.entry.identity() == identity)
    }

    /// The next pid that neither a process nor a group has.
    fn free_pid(&mut self) -> io::Result<i32> {
        // One process of the machine forks now and then, too.
        let first = self.last_pid + self.random.random_range(1..=2);
        let taken: BTreeSet<i32> =
            self.processes.values().flat_map(|process| [process.entry.pid, process.entry.group]).collect();
        let candidates = (first..PID_MAX).chain(INIT + 1..first.min(PID_MAX));
        let pid = candidates.into_iter().find(|pid| !taken.contains(pid)).ok_or(io::ErrorKind::WouldBlock)?;
        self.last_pid = pid;
        Ok(pid)
    }

    /// Start times tell processes with one pid apart, as they do where a pid comes back after minutes only.
    fn next_start(&mut self) -> u64 {
        self.last_start = (self.boottime_ms() / TICK_MS).max(self.last_start + 1);
        self.last_start
    }

    fn tell(&self, identity: Identity, what: What) {
        if let Some(process) = self.process(identity) {
            self.tell_of(process, what);
        }
    }

    fn tell_of(&self, process: &Process, what: What) {
        let Some(application) = &process.application else { return };
        (self.observer)(&Happening {
            at: self.made.elapsed(),
            machine: Arc::clone(&self.name),
            instance: application.instance.clone(),
            epoch: application.epoch,
            process: process.entry.identity(),
            what,
        });
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) {
        self.random.fill_bytes(buffer);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
