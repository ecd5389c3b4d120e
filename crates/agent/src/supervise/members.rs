//! The live processes of a run that are known right now, and their ends.
//!
//! Owns one pidfd per watched process. Finding members is the scanner's business; a process once found for certain stays
//! a member until it ends, even if by then no rule would find it any more.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustix::process::Signal;

use crate::{
    host::{Pinned, Processes},
    process::{Entry, Identity, OpenError, membership::Member},
};

/// Most processes watched by pidfd; each costs a descriptor, and 1024 of them is a common limit for everything the agent
/// does. The others are counted, and looked at again at every rescan.
const WATCHED_MAX: usize = 256;

/// Pids named to a person at once; whoever has more processes needs other tools to look at them.
const SHOWN_MAX: usize = 5;

#[derive(Debug)]
struct Known {
    /// `None`: only counted.
    process: Option<Box<dyn Pinned>>,
    is_certain: bool,
}

pub(super) struct Members {
    processes: Arc<dyn Processes>,
    known: BTreeMap<Identity, Known>,
    watched: usize,
    ends: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Members {
    pub(super) fn new(processes: Arc<dyn Processes>) -> Self {
        Self { processes, known: BTreeMap::new(), watched: 0, ends: FuturesUnordered::new() }
    }

    /// Takes note of what a scan has found, and of who has ended meanwhile. True when that changed anything.
    pub(super) fn absorb(&mut self, found: &[Member]) -> io::Result<bool> {
        let found: BTreeMap<Identity, bool> =
            found.iter().map(|member| (member.entry.identity(), member.is_certain)).collect();
        let mut gone = Vec::new();
        for (identity, known) in &self.known {
            let lives = |entry: Entry| entry.identity() == *identity && entry.lives();
            let stays = found.contains_key(identity)
                || known.is_certain && self.processes.entry(identity.pid)?.is_some_and(lives);
            if !stays {
                gone.push(*identity);
            }
        }
        for identity in &gone {
            if self.known.remove(identity).is_some_and(|known| known.process.is_some()) {
                self.watched -= 1;
            }
        }
        let before = self.known.len();
        for (identity, is_certain) in found {
            match self.known.get_mut(&identity) {
                Some(known) => known.is_certain |= is_certain,
                None => self.add(identity, is_certain),
            }
        }
        Ok(!gone.is_empty() || self.known.len() > before)
    }

    fn add(&mut self, identity: Identity, is_certain: bool) {
        let process = match self.watch(identity) {
            Ok(Some(process)) => Some(process),
            Ok(None) if self.watched < WATCHED_MAX => return, // it has ended since it was found
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(process.pid = identity.pid, %error, "counting a process that cannot be watched");
                None
            }
        };
        self.watched += usize::from(process.is_some());
        self.known.insert(identity, Known { process, is_certain });
    }

    fn watch(&mut self, identity: Identity) -> io::Result<Option<Box<dyn Pinned>>> {
        if self.watched >= WATCHED_MAX {
            return Ok(None);
        }
        let Some(process) = self.processes.open(identity).map_err(io::Error::other)? else { return Ok(None) };
        self.ends.push(process.ended()?);
        Ok(Some(process))
    }

    /// Completes when a watched process has ended; never while none is watched. Cancel-safe.
    pub(super) async fn next_end(&mut self) {
        if self.ends.next().await.is_none() {
            std::future::pending().await
        }
    }

    pub(super) fn contains(&self, identity: Identity) -> bool {
        self.known.contains_key(&identity)
    }

    pub(super) fn contains_pid(&self, pid: i32) -> Option<Identity> {
        self.iter().find(|identity| identity.pid == pid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Identity> {
        self.known.keys().copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.known.len()).unwrap_or(u32::MAX)
    }

    /// Whether some are only counted, so that nobody tells when they end.
    pub(super) fn are_some_unwatched(&self) -> bool {
        self.watched < self.known.len()
    }

    /// For people: `pid 12, pid 13 and 4 more`.
    pub(super) fn describe(&self) -> String {
        let shown: Vec<String> = self.iter().take(SHOWN_MAX).map(|identity| identity.to_string()).collect();
        let more = self.known.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", shown.join(", "))
    }

    /// Sends a signal to one member. `false` when it has ended.
    pub(super) fn signal(&self, identity: Identity, signal: Signal) -> io::Result<bool> {
        match self.known.get(&identity).map(|known| &known.process) {
            Some(Some(process)) => process.signal(signal),
            Some(None) => match self.processes.open(identity) {
                Ok(Some(process)) => process.signal(signal),
                Ok(None) => Ok(false),
                Err(OpenError::Os { source, .. }) => Err(source),
                Err(error @ OpenError::Forbidden(_)) => Err(io::Error::other(error)),
            },
            None => Ok(false),
        }
    }
}
