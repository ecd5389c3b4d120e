//! The laws no run may break, checked at the very moment something happens.
//!
//! Nothing here believes what the project says of itself: processes are what the simulated kernels say, durable is what
//! the ledger says, and what a run contained is what was done to it. The letters are those of the invariants in
//! `docs/ARCHITECTURE.md`.

mod processes;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quiesce_operation::{Moment, Operation, OperationId, StateName};
use quiesce_store::{Batch, Committed, Space, Write};
use tokio::sync::watch;

use crate::machine::Happening;
use crate::story::Story;

/// Which law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Law {
    /// I1: nothing is removed, nothing started elsewhere, before every end is verified.
    VerifiedFirst,
    /// I2: at most one live copy.
    OneCopy,
    /// I2: an epoch is never used again, and never an old one.
    EpochsRise,
    /// I3: what was accepted is there.
    NothingLost,
    /// I3: an application is told once for one attempt.
    ToldOnce,
    /// I3: time goes on over a crash.
    TimeRunsOn,
    /// I4: an operation ends, or rests for a reason that the run contained.
    EndsOrRests,
    /// I4: what is final stays so.
    FinalStays,
    /// I5: a watcher sees every change once and in order.
    WatchersSeeAll,
    /// I6: a result counts only from whoever holds the token of this attempt.
    TokensCount,
    /// No part gives up, no task panics.
    NobodyFails,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VerifiedFirst => "I1 verified first",
            Self::OneCopy => "I2 one copy",
            Self::EpochsRise => "I2 epochs rise",
            Self::NothingLost => "I3 nothing lost",
            Self::ToldOnce => "I3 told once",
            Self::TimeRunsOn => "I3 time runs on",
            Self::EndsOrRests => "I4 ends or rests",
            Self::FinalStays => "I4 final stays",
            Self::WatchersSeeAll => "I5 watchers see all",
            Self::TokensCount => "I6 tokens count",
            Self::NobodyFails => "nobody fails",
        })
    }
}

/// A law was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// How, for people.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// Something the run contained, that can be the reason of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// Messages were lost, late, or the way was cut.
    Network,
    /// An agent, its machine or its disk failed.
    Agent,
    /// The scheduler or its disk failed.
    Scheduler,
    /// An application took its time to end, or did not.
    SlowStop,
    /// An application ended badly, or by itself.
    BadEnd,
    /// An application did not come up.
    BadStart,
    /// An application said beforehand that it would not stop.
    Unwilling,
    /// Processes outlived the first one.
    Offspring,
    /// Somebody's request changed the course: cancel, extend, retry, confirm.
    Person,
    /// A limit of the policy that is shorter than what the application needs.
    TightPolicy,
}

/// Most violations kept of one run: after the first one everything else may be a consequence.
const VIOLATIONS_MAX: usize = 8;

/// Watches one run. Clones watch the same one.
#[derive(Clone)]
pub struct Laws {
    inner: Arc<Inner>,
}

struct Inner {
    story: Story,
    /// The timeline of the scheduler, as far as anybody can know it from outside.
    now: Box<dyn Fn() -> Moment + Send + Sync>,
    state: Mutex<State>,
    /// Changes with every operation that is stored.
    stored: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) violations: Vec<Violation>,
    pub(crate) facts: BTreeSet<Fact>,
    pub(crate) processes: processes::Processes,
    pub(crate) operations: BTreeMap<OperationId, Operation>,
    /// Revision of every event that is no progress, in order: what watchers have to see.
    pub(crate) events: Vec<(u64, OperationId, StateName)>,
    /// What callers were told is accepted.
    pub(crate) accepted: BTreeSet<String>,
}

impl Laws {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(story: Story, now: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        let now = Box::new(now);
        Self { inner: Arc::new(Inner { story, now, state: Mutex::default(), stored: watch::Sender::new(0) }) }
    }

    /// A process of an application was started, told, or has ended.
    pub fn happened(&self, happening: &Happening) {
        self.inner.story.tell(&happening.machine, || happening.to_string());
        let mut state = self.state();
        processes::happened(&mut state, happening);
    }

    /// An agent has written down which shutdown it is about to tell its application of.
    pub fn about_to_tell(&self, machine: &str, shutdown_id: &str) {
        self.state().processes.about_to_tell(machine, shutdown_id);
    }

    /// A batch has become durable.
    pub fn committed(&self, batch: &Batch, committed: &Committed) {
        let mut state = self.state();
        let first = committed.first.as_u64();
        for (place, write) in (0..).zip(batch.writes()) {
            match write {
                Write::Put { key, value } if key.space() == Space::Operations => {
                    records::stored(&mut state, &self.inner.story, (self.inner.now)(), value);
                }
                Write::Append { space: Space::Events, value } => {
                    records::appended(&mut state, &self.inner.story, first + place, value);
                }
                Write::Put { .. } | Write::Append { .. } | Write::Delete { .. } | Write::Trim { .. } => {}
            }
        }
        drop(state);
        self.inner.stored.send_modify(|version| *version += 1);
    }

    /// The run contains this from now on.
    pub fn fact(&self, fact: Fact) {
        self.state().facts.insert(fact);
    }

    /// Whether the run contained one of these.
    #[must_use]
    pub fn contained(&self, facts: &[Fact]) -> bool {
        let state = self.state();
        facts.iter().any(|fact| state.facts.contains(fact))
    }

    /// A caller was told that this operation is accepted.
    pub fn accepted(&self, name: &str) {
        let mut state = self.state();
        state.accepted.insert(name.to_owned());
        let known = state.operations.keys().any(|id| name.ends_with(id.as_str()));
        if !known {
            state.broken(Law::NothingLost, format!("{name} was accepted and is not stored"));
        }
    }

    /// Somebody broke a law.
    pub fn broken(&self, law: Law, what: String) {
        self.state().broken(law, what);
    }

    /// The operation as it is durable.
    #[must_use]
    pub fn operation(&self, id: &str) -> Option<Operation> {
        self.state().operation(id).cloned()
    }

    /// Where the operation stands, as it is durable.
    #[must_use]
    pub fn standing(&self, id: &str) -> Option<StateName> {
        self.state().operation(id).map(Operation::state)
    }

    /// Where every operation stands.
    #[must_use]
    pub fn ends(&self) -> Vec<StateName> {
        self.state().operations.values().map(Operation::state).collect()
    }

    /// Changes with every operation that is stored.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.inner.stored.subscribe()
    }

    /// What watchers have to see: the revisions of all changes behind `after`.
    #[must_use]
    pub fn changes_after(&self, after: u64) -> Vec<u64> {
        self.state().events.iter().map(|(revision, ..)| *revision).filter(|revision| *revision > after).collect()
    }

    /// On which clusters a process of the application lives that nobody is excused for.
    #[must_use]
    pub fn live_clusters(&self) -> BTreeSet<String> {
        self.state().processes.live_clusters()
    }

    /// What was broken.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.state().violations.clone()
    }

    /// The same, told in the story.
    pub fn tell_violations(&self) {
        for violation in self.violations() {
            self.inner.story.tell("LAW", || violation.to_string());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn operation(&self, id: &str) -> Option<&Operation> {
        self.operations.iter().find(|(known, _)| id.ends_with(known.as_str())).map(|(_, found)| found)
    }

    pub(crate) fn broken(&mut self, law: Law, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { law, what });
        }
    }
}
