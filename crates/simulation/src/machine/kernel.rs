//! The kernel of a simulated machine: who lives, who is whose child, what a signal does.
//!
//! Owns the table of processes and the life of each entry in it. It does what Linux does where agents can tell: a zombie
//! keeps its pid until it is reaped, orphans go to the subreaper among their ancestors or else to init, a pid is handed
//! out again as soon as neither a process nor a group has that number. What is due later is a task that looks whether
//! its process is still that process.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use quiesce_agent::host::Launch;
use quiesce_agent::notify::Notice;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Entry, Exit, Identity, Reactions, State};
use quiesce_runtime::signals;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::disk::Disk;
use super::temper::{Executable, Helper, Kinship, Offspring, OnTerm, Speech, Temper};
use super::{Happening, Home, Observer, What, lock};

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

/// What a process does later.
enum Act {
    Say(Notice),
    Bear(Offspring),
    End(Exit),
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

    // What happens to processes.

    pub(super) fn spawn(&mut self, launch: &Launch) -> io::Result<Identity> {
        let temper = self.temper.clone();
        match temper.executable {
            Executable::Yes => {}
            Executable::Missing => return Err(io::ErrorKind::NotFound.into()),
            Executable::Broken => return Err(io::Error::other("exec format error")),
        }
        let variable = |name: &str| {
            let found = launch.variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_string_lossy().into_owned())
        };
        let application = Application {
            instance: variable("QUIESCE_INSTANCE").unwrap_or_default(),
            epoch: variable("QUIESCE_EPOCH").and_then(|epoch| epoch.parse().ok()).unwrap_or_default(),
            notify: variable("NOTIFY_SOCKET").map(PathBuf::from),
            speech: temper.speech,
            asks_for: temper.asks_for,
            on_term: temper.on_term,
            stuck: temper.stuck,
            is_told: false,
            forked: None,
        };
        let leader = self.adopt(Some(application), environment(&launch.variables))?;
        self.tell(leader, What::Started);
        match temper.speech {
            Speech::Silent => {}
            Speech::NeverReady => self.later(Duration::ZERO, leader, Act::Say(says("starting"))),
            Speech::ReadyAfter(after) => {
                self.later(Duration::ZERO, leader, Act::Say(says("starting")));
                self.later(after, leader, Act::Say(Notice { ready: true, ..says("ready") }));
            }
        }
        for offspring in temper.offspring {
            self.later(offspring.born, leader, Act::Bear(offspring));
        }
        if let Some((after, exit)) = temper.crashes {
            self.later(after, leader, Act::End(exit));
        }
        Ok(leader)
    }

    /// A helper of the agent: a child with the mark of helpers.
    pub(super) fn spawn_helper(&mut self) -> io::Result<Identity> {
        self.adopt(None, b"QUIESCE_RUN_ID=helper\0".to_vec())
    }

    /// A new child of the agent, in a group of its own.
    fn adopt(&mut self, application: Option<Application>, environment: Vec<u8>) -> io::Result<Identity> {
        let pid = self.free_pid()?;
        let start = self.next_start();
        let agent = self.agent.as_mut().ok_or(io::ErrorKind::NotFound)?;
        agent.own.insert(pid);
        let entry = Entry { pid, parent: agent.pid, group: pid, start, state: State::Alive };
        self.insert(entry, application, environment);
        Ok(entry.identity())
    }

    /// Sends a signal. False when the process is not there any more.
    pub(super) fn signal(&mut self, identity: Identity, signal: Signal) -> bool {
        let Some(process) = self.process(identity) else { return false };
        if process.exit.is_some() {
            return true; // a zombie takes every signal, and nothing comes of it
        }
        let Some(application) = &process.application else {
            if signal == Signal::KILL {
                self.end(identity, ended_by(signal));
            }
            return true;
        };
        let (on_term, stuck, is_told) = (application.on_term, application.stuck, application.is_told);
        self.tell(identity, What::Signalled(signal));
        if signal == Signal::KILL {
            if stuck.is_zero() {
                self.end(identity, ended_by(signal));
            } else {
                self.later(stuck, identity, Act::End(ended_by(signal)));
            }
        } else if [Signal::TERM, Signal::INT, Signal::QUIT].contains(&signal) {
            match on_term {
                OnTerm::Ignores => {}
                OnTerm::Dies => self.end(identity, ended_by(signal)),
                OnTerm::Hangs | OnTerm::Ends { .. } if is_told => {}
                OnTerm::Hangs => self.begin_to_stop(identity),
                OnTerm::Ends { after, code } => {
                    self.begin_to_stop(identity);
                    self.later(after, identity, Act::End(Exit { code: Some(code), signal: None }));
                }
            }
        }
        true
    }

    pub(super) fn signal_run(&mut self, instance: &str, epoch: u64, signal: Signal) {
        let run = self.census().remove(&(instance.to_owned(), epoch)).unwrap_or_default();
        for process in run {
            self.signal(process, signal);
        }
    }

    fn begin_to_stop(&mut self, identity: Identity) {
        let Some(application) = self.application_mut(identity) else { return };
        application.is_told = true;
        if application.speech != Speech::Silent {
            let extend = application.asks_for;
            self.say(identity, Notice { stopping: true, extend, ..says("stopping") });
        }
    }

    fn act(&mut self, identity: Identity, act: Act) {
        if self.process(identity).is_none_or(|process| process.exit.is_some()) {
            return;
        }
        match act {
            Act::Say(notice) => self.say(identity, notice),
            Act::Bear(offspring) => self.bear(identity, offspring),
            Act::End(exit) => self.end(identity, exit),
        }
    }

    fn say(&mut self, identity: Identity, notice: Notice) {
        let notify = self.process(identity).and_then(|process| process.application.as_ref()?.notify.as_ref());
        if let Some(ear) = notify.and_then(|path| self.ears.get(path)) {
            // Nobody listens, or too much was said: an application does not care.
            let _unheard = ear.try_send((identity.pid, notice));
        }
    }

    fn bear(&mut self, parent: Identity, offspring: Offspring) {
        let Some(process) = self.process(parent) else { return };
        let Some(application) = &process.application else { return };
        let child = Application {
            instance: application.instance.clone(),
            epoch: application.epoch,
            notify: application.notify.clone(),
            speech: Speech::Silent,
            asks_for: None,
            on_term: offspring.on_term,
            stuck: application.stuck,
            is_told: false,
            forked: Some((parent, offspring.outlives)),
        };
        let (marked, group) = (process.environment.clone(), process.entry.group);
        // With a full table fork fails, and this application does not mind.
        let Ok(pid) = self.free_pid() else { return };
        let start = self.next_start();
        let (above, group, environment) = match offspring.kinship {
            Kinship::Child => (parent.pid, group, marked),
            Kinship::Daemon => (self.reaper_of(parent.pid), pid, marked),
            Kinship::Unmarked => (self.reaper_of(parent.pid), pid, Vec::new()),
        };
        let entry = Entry { pid, parent: above, group, start, state: State::Alive };
        self.insert(entry, Some(child), environment);
        self.tell(entry.identity(), What::Forked);
    }

    /// The end of a process.
    pub(super) fn end(&mut self, identity: Identity, exit: Exit) {
        let heir = self.reaper_of(identity.pid);
        let Some(process) = self.processes.get_mut(&identity.pid).filter(|process| process.exit.is_none()) else {
            return;
        };
        process.exit = Some(exit);
        process.entry.state = State::Zombie;
        process.ended.send_replace(true);
        let parent = process.entry.parent;
        self.tell(identity, What::Ended(exit));
        self.bereave(identity.pid, heir);
        let forked = self.processes.values().filter_map(|process| {
            let (by, outlives) = process.application.as_ref()?.forked?;
            Some((process.entry.identity(), outlives.filter(|_| by == identity)?))
        });
        for (orphan, outlives) in forked.collect::<Vec<_>>() {
            self.later(outlives, orphan, Act::End(Exit { code: Some(0), signal: None }));
        }
        self.notice_end(identity.pid, parent);
    }

    /// The agent is told and has to reap; everybody else reaps at once.
    fn notice_end(&mut self, pid: i32, parent: i32) {
        match &self.agent {
            Some(agent) if agent.pid == parent => agent.child_ends.send_modify(|count| *count += 1),
            Some(_) | None => self.forget(pid),
        }
    }

    /// The children of one that has gone go to `heir`.
    fn bereave(&mut self, pid: i32, heir: i32) {
        let children: Vec<i32> =
            self.processes.values().filter(|child| child.entry.parent == pid).map(|child| child.entry.pid).collect();
        for child in children {
            let Some(process) = self.processes.get_mut(&child) else { continue };
            process.entry.parent = heir;
            if process.exit.is_some() {
                self.notice_end(child, heir);
            }
        }
    }

    fn end_everything(&mut self) {
        for (_, process) in std::mem::take(&mut self.processes) {
            if process.exit.is_none() {
                self.tell_of(&process, What::Ended(ended_by(Signal::KILL)));
            }
            process.ended.send_replace(true);
        }
    }

    /// Who gets the children of `pid`: the agent if it is a subreaper and an ancestor, else init.
    fn reaper_of(&self, pid: i32) -> i32 {
        let Some(agent) = self.agent.as_ref().filter(|agent| agent.is_subreaper) else { return INIT };
        let mut ancestor = self.entry(pid).map(|entry| entry.parent);
        while let Some(above) = ancestor.filter(|above| *above != agent.pid) {
            ancestor = self.entry(above).map(|entry| entry.parent);
        }
        ancestor.unwrap_or(INIT)
    }

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

    fn later(&self, after: Duration, identity: Identity, act: Act) {
        let kernel = self.me.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(kernel) = kernel.upgrade() {
                lock(&kernel).act(identity, act);
            }
        });
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

fn says(status: &str) -> Notice {
    Notice { status: Some(status.to_owned()), ..Notice::default() }
}

fn ended_by(signal: Signal) -> Exit {
    Exit { code: None, signal: Some(signal.as_raw()) }
}

fn environment(variables: &[(OsString, OsString)]) -> Vec<u8> {
    let mut environment = Vec::new();
    for (name, value) in variables {
        environment.extend_from_slice(name.as_encoded_bytes());
        environment.push(b'=');
        environment.extend_from_slice(value.as_encoded_bytes());
        environment.push(0);
    }
    environment
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
