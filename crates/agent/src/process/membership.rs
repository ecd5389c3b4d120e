//! Which processes belong to a run of an application.
//!
//! A process belongs to it when one of these holds, because no single rule survives all that programs do:
//!
//! * it is the first process (the leader), or a descendant of a member;
//! * it is in the leader's process group (survives a double fork);
//! * its environment carries the run's marker (survives `setsid`, double forks and a crash of the agent);
//! * it is an orphan that came to us as subreaper and carries no other run's marker (survives `setsid` with an
//!   emptied or overwritten environment). Who cannot be told apart counts: a process too many delays a proof, one too
//!   few makes it a lie.
//!
//! A zombie has ended. Helpers of the agent (stop and ready commands) carry a marker of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::Arc,
};

use super::{Entry, Identity};
use crate::host::Processes;

/// Name of the environment variable that marks every process of a run.
pub(crate) const MARKER: &str = "QUIESCE_RUN_ID";

/// Finds the members of one run.
pub(crate) struct Scanner {
    processes: Arc<dyn Processes>,
    run_id: String,
    leader: Identity,
    adopts_orphans: bool,
    /// Processes known to carry no marker of ours; nobody gets one later. Spares reading their environment again.
    strangers: BTreeSet<Identity>,
}

impl fmt::Debug for Scanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanner").field("run_id", &self.run_id).field("leader", &self.leader).finish_non_exhaustive()
    }
}

/// A live process of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) entry: Entry,
    /// More than just an orphan that nobody can tell apart: it belongs to the run for good.
    pub(crate) is_certain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ours,
    Other,
    None,
    Unreadable,
}

impl Scanner {
    /// `adopts_orphans`: the run was started by this very process, and it is a subreaper.
    pub(crate) fn new(processes: Arc<dyn Processes>, run_id: &str, leader: Identity, adopts_orphans: bool) -> Self {
        Self { processes, run_id: run_id.to_owned(), leader, adopts_orphans, strangers: BTreeSet::new() }
    }

    /// Everything that belongs to the run and lives.
    ///
    /// An empty answer is to be asked for twice: a member that forks and ends while `/proc` is read can hide its child
    /// once.
    pub(crate) fn scan(&mut self) -> io::Result<Vec<Member>> {
        let entries = self.processes.all()?;
        let marks: Vec<Mark> = entries.iter().map(|entry| self.mark(entry)).collect();
        let group = self.group(&entries, &marks);
        let me = self.processes.own_pid();
        let own_group = own_group(&*self.processes)?;

        let mut by_parent: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            by_parent.entry(entry.parent).or_default().push(index);
        }
        let certain = |index: &usize| {
            let entry = &entries[*index];
            marks[*index] == Mark::Ours || Some(entry.group) == group || entry.identity() == self.leader
        };
        let orphan = |index: &usize| {
            let entry = &entries[*index];
            self.adopts_orphans
                && entry.parent == me
                && entry.group != own_group
                && marks[*index] != Mark::Other
                && entry.start >= self.leader.start
                && !self.processes.is_own_child(entry.pid)
        };
        let descendants = |mut queue: Vec<usize>| {
            let mut found: BTreeSet<usize> = queue.iter().copied().collect();
            while let Some(index) = queue.pop() {
                let children = by_parent.get(&entries[index].pid).into_iter().flatten();
                queue.extend(children.filter(|child| found.insert(**child)));
            }
            found
        };
        let everybody = 0..entries.len();
        let certain = descendants(everybody.clone().filter(certain).collect());
        let members = descendants(everybody.filter(|index| certain.contains(index) || orphan(index)).collect());
        self.strangers.retain({
            let seen: BTreeSet<Identity> = entries.iter().map(Entry::identity).collect();
            move |stranger| seen.contains(stranger)
        });
        let live = members.into_iter().filter(|index| entries[*index].lives() && entries[*index].pid != me);
        Ok(live.map(|index| Member { entry: entries[index], is_certain: certain.contains(&index) }).collect())
    }

    /// Whether a process, ended or not, belongs to the run as far as its own entry tells: for the sender of a message,
    /// which may be gone before anybody looks.
    pub(crate) fn recognizes(&mut self, entry: &Entry) -> bool {
        self.mark(entry) == Mark::Ours || entry.group == self.leader.pid && entry.start >= self.leader.start
    }

    /// The leader's process group, if that number still means the same group: while the leader is there, ended or not,
    /// or while a marked process is in it, nobody else can have it.
    fn group(&self, entries: &[Entry], marks: &[Mark]) -> Option<i32> {
        let leader = self.leader;
        let mut both = entries.iter().zip(marks);
        both.any(|(entry, mark)| entry.identity() == leader || (entry.group == leader.pid && *mark == Mark::Ours))
            .then_some(leader.pid)
    }

    fn mark(&mut self, entry: &Entry) -> Mark {
        if !entry.lives() || self.strangers.contains(&entry.identity()) {
            return Mark::None;
        }
        let Some(environment) = self.processes.environment(entry.pid) else { return Mark::Unreadable };
        let mut mark = Mark::None;
        for variable in environment.split(|byte| *byte == 0) {
            match variable.strip_prefix(MARKER.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
                Some(value) if value == self.run_id.as_bytes() => return Mark::Ours,
                Some(_) => mark = Mark::Other,
                None => {}
            }
        }
        // An empty environment may be one that is just being replaced (exec): look again next time. A marker of another
        // run is told apart from none at every look, so it is not remembered either.
        if mark == Mark::None && !environment.is_empty() {
            self.strangers.insert(entry.identity());
        }
        mark
    }
}

/// Our own process group. 0 when its leader is outside of our pid namespace; so are the entries of all who are in it.
fn own_group(processes: &dyn Processes) -> io::Result<i32> {
    let entry = processes.entry(processes.own_pid())?;
    entry.map(|entry| entry.group).ok_or_else(|| io::Error::other("the table of processes does not show this one"))
}
