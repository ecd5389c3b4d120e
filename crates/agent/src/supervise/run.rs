//! One run of the application while anything of it lives.
//!
//! Owns the leader, the members, and when to look at them again. Decides when the run is over and how that is known; what
//! is done about it is decided by the keeper.

use std::{
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::time::Instant;

use quiesce_mutation::{Mutant, active};

use super::{Config, members::Members};
use crate::{
    application::{AppState, End, Evidence, Ready},
    host::{Child, Host, Processes},
    journal,
    process::{Exit, Identity, membership::Scanner, signal},
};

/// The first rescan while processes outlive the leader: their children can be found in no other way than by looking.
const RESCAN_FIRST: Duration = Duration::from_millis(50);

/// Rescans become as rare as this while nothing changes: a second more or less is nothing to whoever waits for a
/// straggler, and reading `/proc` of a large machine takes tens of milliseconds.
const RESCAN_MAX: Duration = Duration::from_secs(1);

/// What we know of the first process.
#[derive(Debug)]
pub(super) enum Leader {
    /// Our child. It is reaped at the end of the run: until then its pid and its process group are nobody else's.
    Child { process: Box<dyn Child>, exit: Option<Exit>, is_subreaper: bool },
    /// Started by an earlier life of this agent; its exit can be observed, its exit status belongs to its parent.
    Adopted,
    /// It was gone when this agent came; others of its run were not.
    Gone,
}

pub(super) struct LiveRun {
    pub(super) record: journal::Run,
    pub(super) members: Members,
    pub(super) leader: Leader,
    processes: Arc<dyn Processes>,
    scanner: Scanner,
    /// The member that the application called its main process.
    pub(super) main: Option<Identity>,
    /// It has used its notify socket.
    pub(super) has_spoken: bool,
    /// Kill whatever appears.
    pub(super) is_killing: bool,
    pub(super) readiness: BoxFuture<'static, Ready>,
    rescan_pause: Duration,
    pub(super) rescan_at: Option<Instant>,
    /// When the next signal of the ladder is due.
    pub(super) rung_at: Option<Instant>,
    /// When the processes that outlive the leader are told too.
    pub(super) rest_at: Option<Instant>,
}

impl LiveRun {
    pub(super) fn new(
        record: journal::Run,
        leader: Leader,
        processes: Arc<dyn Processes>,
        adopts_orphans: bool,
    ) -> Self {
        let is_killing = record.killed;
        let scanner = Scanner::new(Arc::clone(&processes), &record.run_id, record.leader, adopts_orphans);
        Self {
            record,
            members: Members::new(Arc::clone(&processes)),
            leader,
            processes,
            scanner,
            main: None,
            has_spoken: false,
            is_killing,
            readiness: Box::pin(std::future::pending()),
            rescan_pause: RESCAN_FIRST,
            rescan_at: None,
            rung_at: None,
            rest_at: None,
        }
    }

    pub(super) fn state(&self) -> AppState {
        match (&self.record.told, self.record.ready) {
            (Some(_), _) => AppState::Stopping,
            (None, Some(_)) => AppState::Running,
            (None, None) => AppState::Starting,
        }
    }

    pub(super) fn leader_lives(&self) -> bool {
        self.members.contains(self.record.leader)
    }

    pub(super) fn start_time(&self) -> std::time::SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.record.start_time_ms)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.rescan_at, self.rung_at, self.rest_at].into_iter().flatten().min()
    }

    /// Looks at all processes. False when the run is over: nothing was found, twice.
    pub(super) fn look(&mut self) -> io::Result<bool> {
        for _ in 0..2 {
            let found = self.scanner.scan().inspect_err(|_| self.rescan_at = Some(Instant::now() + RESCAN_MAX))?;
            let changed = self.members.absorb(&found)?;
            if let Leader::Child { process, exit, .. } = &mut self.leader
                && exit.is_none()
            {
                *exit = process.peek()?;
            }
            if !self.members.is_empty() && (self.leader_lives() || !active(Mutant::ChildrenIgnored)) {
                self.plan_rescan(changed);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn plan_rescan(&mut self, changed: bool) {
        if self.leader_lives() && !self.is_killing && !self.members.are_some_unwatched() {
            self.rescan_at = None;
            return;
        }
        self.rescan_pause = if changed { RESCAN_FIRST } else { (self.rescan_pause * 2).min(RESCAN_MAX) };
        self.rescan_at = Some(Instant::now() + self.rescan_pause);
    }

    /// Whether a message that came from this pid came from the application. The sender may be a zombie by now.
    pub(super) fn recognizes(&mut self, pid: i32) -> bool {
        if self.members.contains_pid(pid).is_some() {
            return true;
        }
        // A sender that cannot be looked at any more cannot be believed either.
        let Ok(Some(entry)) = self.processes.entry(pid) else { return false };
        self.scanner.recognizes(&entry) || self.members.contains_pid(entry.parent).is_some()
    }

    /// Sends `signal` to whom it concerns: the main process if the application named one, else the leader (it knows its
    /// children), else everybody left. Fails when nobody could be reached.
    pub(super) fn tell(&self, signal: Signal) -> Result<(), String> {
        let leader = self.leader_lives().then_some(self.record.leader);
        let main = self.main.filter(|main| self.members.contains(*main));
        match main.or(leader) {
            Some(one) => self.signal_each([one].into_iter(), signal),
            None => self.signal_each(self.members.iter(), signal),
        }
    }

    /// Sends `signal` to every member.
    pub(super) fn tell_all(&self, signal: Signal) -> Result<(), String> {
        self.signal_each(self.members.iter(), signal)
    }

    fn signal_each(&self, whom: impl Iterator<Item = Identity>, signal: Signal) -> Result<(), String> {
        let mut refused = Vec::new();
        for identity in whom {
            match self.members.signal(identity, signal) {
                Ok(sent) => tracing::debug!(process.pid = identity.pid, signal = %signal::name(signal), sent, "signal"),
                Err(error) => refused.push(format!("{identity}: {error}")),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused.join(", ")) }
    }

    /// How the first process ended, if it has and anybody of ours saw it.
    pub(super) fn exit(&self) -> Option<Exit> {
        match &self.leader {
            Leader::Child { exit, .. } => *exit,
            Leader::Adopted | Leader::Gone => self.record.exit,
        }
    }

    /// The run is over: lets go of its first process and says how it ended.
    pub(super) fn conclude(self, config: &Config) -> (journal::Run, End) {
        let evidence = match &self.leader {
            Leader::Child { process, is_subreaper, .. } => {
                if let Err(error) = process.reap() {
                    tracing::warn!(process.pid = process.identity().pid, %error, "cannot reap the first process");
                }
                // Orphans that did not come to us may have escaped every rule of membership.
                if *is_subreaper { Evidence::GroupEmpty } else { Evidence::ChildReaped }
            }
            Leader::Adopted => Evidence::ExitObserved,
            Leader::Gone => Evidence::ProcessGone,
        };
        let exit = self.exit();
        let mut record = self.record;
        record.exit = exit;
        let end = end(&record, evidence, config, None);
        record.end = Some(end.clone());
        (record, end)
    }
}

/// The end of a run. `circumstances` replaces what would be said of its exit.
pub(super) fn end(record: &journal::Run, evidence: Evidence, config: &Config, circumstances: Option<String>) -> End {
    let exit = record.exit.unwrap_or(Exit { code: None, signal: None });
    let clean = match exit {
        _ if record.killed => Some(false),
        Exit { code: Some(code), .. } => Some(config.success.contains(&code)),
        // The application did not handle what it was told by: nobody knows whether it had anything to save.
        Exit { signal: Some(number), .. } if record.told.is_some() && config.stop.tells_by(number) => None,
        // It crashed, or somebody else killed it, perhaps in the middle of saving.
        Exit { signal: Some(_), .. } => Some(false),
        Exit { code: None, signal: None } => None,
    };
    let message = circumstances.unwrap_or_else(|| describe(record.exit));
    End { exit_code: exit.code, exit_signal: exit.signal, evidence, clean, killed: record.killed, message }
}

/// `exited with 0`, `was ended by SIGTERM`.
pub(super) fn describe(exit: Option<Exit>) -> String {
    match exit {
        Some(Exit { code: Some(code), .. }) => format!("exited with {code}"),
        Some(Exit { signal: Some(number), .. }) => format!("was ended by {}", signal::describe(number)),
        Some(Exit { code: None, signal: None }) | None => "ended, its exit status is not known".to_owned(),
    }
}

/// What became of a run that an earlier life of this agent has started.
pub(super) enum Found {
    Alive(Box<LiveRun>),
    Over(End),
}

/// Finds a run again: its first process by pid, start time, boot and namespace, and whatever else belongs to it.
pub(super) fn find(host: &Host, record: &journal::Run, config: &Config) -> io::Result<Found> {
    let over = |evidence, why: &str| Ok(Found::Over(end(record, evidence, config, Some(why.to_owned()))));
    if record.started.elapsed(&*host.machine.clocks)?.is_none() {
        return over(Evidence::ProcessGone, "ended with the machine, which was restarted");
    }
    if host.processes.namespace()? != record.namespace {
        return if record.agent_was_init {
            over(Evidence::ProcessGone, "ended with its container: the agent was its first process")
        } else {
            over(Evidence::Claimed, "ran in another pid namespace, which cannot be seen from here")
        };
    }
    let mut run = LiveRun::new(record.clone(), Leader::Gone, Arc::clone(&host.processes), false);
    if !run.look()? {
        let why = format!("{} while no agent watched", describe(record.exit));
        return over(Evidence::ProcessGone, &why);
    }
    if run.leader_lives() {
        run.leader = Leader::Adopted;
    }
    Ok(Found::Alive(Box::new(run)))
}
