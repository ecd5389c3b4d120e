//! What happens to the processes of a simulated machine: how they begin, what signals do to them, how they end.
//!
//! Owns the consequences of a [`Temper`](super::super::temper::Temper), and who inherits whom.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use quiesce_agent::host::Launch;
use quiesce_agent::notify::Notice;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Entry, Exit, Identity, State};

use super::super::temper::{Executable, Kinship, Offspring, OnTerm, Speech};
use super::super::{What, lock};
use super::{Application, INIT, Kernel};

/// Who waits for leave notices so much later that it will not come: the next agent may see it.
const NOTICES_AFTER: Duration = Duration::from_millis(1);

/// What a process does later.
enum Act {
    Say(Notice),
    Bear(Offspring),
    End(Exit),
}

impl Kernel {
    /// A child of the agent that waits for leave to become the application.
    pub(in crate::machine) fn spawn(&mut self, launch: &Launch) -> io::Result<Identity> {
        let environment = if self.temper.is_nameless { Vec::new() } else { environment(&launch.variables) };
        let waiting = self.adopt(None, environment)?;
        self.waiting.insert(waiting);
        Ok(waiting)
    }

    /// Lets one that waits become the application.
    pub(in crate::machine) fn go(&mut self, waiting: Identity, launch: &Launch) -> io::Result<()> {
        if !self.waiting.remove(&waiting) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let temper = self.temper.clone();
        let refused = match temper.executable {
            Executable::Yes => None,
            Executable::Missing => Some(io::ErrorKind::NotFound.into()),
            Executable::Broken => Some(io::Error::other("exec format error")),
        };
        if let Some(error) = refused {
            self.turn_away(waiting);
            return Err(error);
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
        // A launcher that was killed stays one.
        let process = self.processes.get_mut(&waiting.pid).filter(|process| process.exit.is_none());
        let Some(process) = process.filter(|process| process.entry.identity() == waiting) else { return Ok(()) };
        process.application = Some(application);
        self.tell(waiting, What::Started);
        match temper.speech {
            Speech::Silent => {}
            Speech::NeverReady => self.later(Duration::ZERO, waiting, Act::Say(says("starting"))),
            Speech::ReadyAfter(after) => {
                self.later(Duration::ZERO, waiting, Act::Say(says("starting")));
                self.later(after, waiting, Act::Say(Notice { ready: true, ..says("ready") }));
            }
        }
        for offspring in temper.offspring {
            self.later(offspring.born, waiting, Act::Bear(offspring));
        }
        if let Some((after, exit)) = temper.crashes {
            self.later(after, waiting, Act::End(exit));
        }
        Ok(())
    }

    /// One that waits gets no leave any more: it ends, and is nobody's business.
    pub(in crate::machine) fn turn_away(&mut self, waiting: Identity) {
        self.waiting.remove(&waiting);
        if let Some(agent) = &mut self.agent {
            agent.own.remove(&waiting.pid);
        }
        self.later(NOTICES_AFTER, waiting, Act::End(Exit { code: Some(127), signal: None }));
    }

    /// A helper of the agent: a child with the mark of helpers.
    pub(in crate::machine) fn spawn_helper(&mut self) -> io::Result<Identity> {
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
    pub(in crate::machine) fn signal(&mut self, identity: Identity, signal: Signal) -> bool {
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

    pub(in crate::machine) fn signal_run(&mut self, instance: &str, epoch: u64, signal: Signal) {
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
        let group = process.entry.group;
        let marked = process.environment.clone();
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
    pub(in crate::machine) fn end(&mut self, identity: Identity, exit: Exit) {
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
    pub(super) fn bereave(&mut self, pid: i32, heir: i32) {
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

    pub(super) fn end_everything(&mut self) {
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

    fn later(&self, after: Duration, identity: Identity, act: Act) {
        let kernel = self.me.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(kernel) = kernel.upgrade() {
                lock(&kernel).act(identity, act);
            }
        });
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
