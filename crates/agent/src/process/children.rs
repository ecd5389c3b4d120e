//! The children of this process: started here, reaped here.
//!
//! The kernel's table of children belongs to the whole process, so this register does too. Whoever starts a child
//! through it reaps that child himself; [`reap_orphans`] takes only those nobody here started: orphans that came to us
//! because we are their subreaper or PID 1. Children of other libraries of this process are recognized by our own
//! process group, which they stay in and orphans never come from, and are left alone.

use std::{
    collections::BTreeSet,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Pid, WaitId, WaitIdOptions, getpid, set_child_subreaper, waitid},
};
use serde::{Deserialize, Serialize};

use super::{OpenError, Process, table};

static REGISTER: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

/// From now on, orphans among our descendants become our children. True when they do: also as PID 1.
pub(crate) fn become_subreaper() -> bool {
    getpid().as_raw_nonzero().get() == 1 || set_child_subreaper(Some(getpid())).is_ok()
}

/// Starts a child in a process group of its own. It has to be [`reap`]ed.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Process, Child)> {
    let mut register = register(); // held over the spawn, lest a child that ends at once be taken for an orphan
    let child = command.process_group(0).spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    register.insert(pid);
    match Process::pin(pid) {
        Ok(Some(process)) => Ok((process, child)),
        Ok(None) => Err(io::Error::other("a child vanished before it was reaped")),
        Err(OpenError::Os { source, .. }) => Err(source),
        Err(error @ OpenError::Forbidden(_)) => Err(io::Error::other(error)),
    }
}

/// How an ended child ended, leaving it unreaped: its pid is not handed out again. `None`: it has not ended.
pub(crate) fn peek(child: &Process) -> io::Result<Option<Exit>> {
    wait(child, WaitIdOptions::NOWAIT)
}

/// Reaps an ended child. `None`: it has not ended.
pub(crate) fn reap(child: &Process) -> io::Result<Option<Exit>> {
    let mut register = register();
    let exit = wait(child, WaitIdOptions::empty())?;
    if exit.is_some() {
        register.remove(&child.pid());
    }
    Ok(exit)
}

/// Leaves a child to [`reap_orphans`].
pub(crate) fn abandon(child: &Process) {
    register().remove(&child.pid());
}

/// Whether this pid is a child that was started here and not reaped yet.
pub(crate) fn is_registered(pid: i32) -> bool {
    register().contains(&pid)
}

/// Reaps every ended orphan that came to us. Returns how many.
pub(crate) fn reap_orphans() -> io::Result<usize> {
    let register = register();
    match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT) {
        Ok(Some(_)) => {}
        Ok(None) | Err(Errno::CHILD) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let (me, group) = (own_pid(), own_group()?);
    let mut reaped = 0;
    for entry in table::all()? {
        let orphan = entry.is_zombie() && entry.parent == me && entry.group != group && !register.contains(&entry.pid);
        if orphan && let Some(pid) = Pid::from_raw(entry.pid) {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
                Ok(Some(_)) => reaped += 1,
                Ok(None) | Err(Errno::CHILD) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(reaped)
}

pub(crate) fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Our own process group. 0 when its leader is outside of our pid namespace; so are the entries of all who are in it.
fn own_group() -> io::Result<i32> {
    let entry = table::entry(own_pid())?;
    entry.map(|entry| entry.group).ok_or_else(|| io::Error::other("/proc does not show this process"))
}

fn wait(child: &Process, options: WaitIdOptions) -> io::Result<Option<Exit>> {
    use std::os::fd::AsFd;
    let status = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | options)?;
    Ok(status.map(|status| Exit { code: status.exit_status(), signal: status.terminating_signal() }))
}

fn register() -> MutexGuard<'static, BTreeSet<i32>> {
    // A set of numbers is whole at any moment; a panic elsewhere does not make it wrong.
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_can_be_looked_at_before_it_is_reaped() {
        let (process, _child) = spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        process.ended().unwrap().await;
        let exit = Exit { code: Some(7), signal: None };
        assert_eq!(peek(&process).unwrap(), Some(exit));
        reap_orphans().unwrap();
        assert_eq!(reap(&process).unwrap(), Some(exit), "a registered child is no orphan");
        assert!(!is_registered(process.pid()));
    }
}
