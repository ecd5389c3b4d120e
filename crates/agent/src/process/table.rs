//! Reading `/proc`: which processes there are, whose child, in which group, whether they live, what they do with a
//! signal, what is in their environment.
//!
//! Owns the formats. Decides nothing. A process that goes away while it is being read is simply not there. With
//! `/proc` mounted `hidepid` an agent sees only processes of its own user.

use std::{
    fs::{self, File},
    io::{self, Read},
};

use super::{Identity, signal::number};
use rustix::{io::Errno, process::Signal};

/// More than any environment the kernel accepts in its default configuration (a quarter of an 8 MiB stack).
const ENVIRON_MAX: u64 = 4 << 20;

/// Flag of threads of the kernel, half of all entries on a small machine (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// More than any `/proc/PID/stat`: some fifty numbers and a name. The kernel writes it at one go.
const STAT_MAX: usize = 2048;

/// One line of the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Process id.
    pub pid: i32,
    /// Its parent; 0 for one outside of our pid namespace.
    pub parent: i32,
    /// Its process group; 0 for one outside of our pid namespace.
    pub group: i32,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// What it does.
    pub state: State,
}

/// What a process does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or waits for something.
    Alive,
    /// Stopped by a signal or a debugger: it reacts to nothing but SIGCONT and SIGKILL.
    Suspended,
    /// Ended, and waits for its parent to take notice.
    Zombie,
    /// Ended and about to vanish.
    Dead,
    /// A thread of the kernel itself, which is no program and has no environment.
    Kernel,
}

impl Entry {
    /// Which process it is about.
    pub fn identity(&self) -> Identity {
        Identity { pid: self.pid, start: self.start }
    }

    /// Whether anything of it still runs.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspended)
    }

    pub(crate) fn is_zombie(&self) -> bool {
        self.state == State::Zombie
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.state == State::Suspended
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name stands in parentheses and may itself contain anything, parentheses and line ends included.
        let (pid, rest) = stat.split_once(" (")?;
        let (_, rest) = rest.rsplit_once(") ")?;
        // In the order of proc_pid_stat(5): state is field 3, flags are field 9, threads field 20, the start field 22.
        let mut fields = rest.split_ascii_whitespace();
        let letter = *fields.next()?.as_bytes().first()?;
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let flags: u32 = fields.nth(3)?.parse().ok()?;
        let threads = fields.nth(10)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        let state = if flags & PF_KTHREAD == 0 { State::parse(letter, threads) } else { State::Kernel };
        Some(Self { pid: pid.parse().ok()?, parent, group, start, state })
    }
}

impl State {
    /// A zombie has ended, unless only its first thread has.
    fn parse(letter: u8, threads: u64) -> Self {
        match letter {
            b'Z' if threads <= 1 => Self::Zombie,
            b'X' | b'x' => Self::Dead,
            b'T' | b't' => Self::Suspended,
            _ => Self::Alive,
        }
    }
}

/// The entry of one process; `None` when there is no such process.
pub(crate) fn entry(pid: i32) -> io::Result<Option<Entry>> {
    let mut stat = [0; STAT_MAX];
    let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut stat));
    let Some(length) = unless_gone(read)? else { return Ok(None) };
    let stat = String::from_utf8_lossy(&stat[..length]);
    match Entry::parse(&stat) {
        Some(entry) => Ok(Some(entry)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat cannot be read: {stat}"))),
    }
}

/// All processes. Not a snapshot: who forks and ends while it is read may be missing together with the child.
pub(crate) fn all() -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for directory in fs::read_dir("/proc")? {
        let name = directory?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        entries.extend(entry(pid)?);
    }
    Ok(entries)
}

/// The environment a process was started with, as `NAME=value` strings; `None` when it is gone or not ours to read.
/// Programs may overwrite it.
pub(crate) fn environment(pid: i32) -> Option<Vec<u8>> {
    let mut environment = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?; // refused or gone: both are "cannot tell"
    file.take(ENVIRON_MAX).read_to_end(&mut environment).ok()?;
    Some(environment)
}

/// What a process does with signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reactions {
    /// Signals it ignores; signal N is bit N - 1, here and below.
    pub ignored: u64,
    /// Signals it has handlers for.
    pub caught: u64,
    /// Signals it has blocked.
    pub blocked: u64,
    /// It is the first process of a pid namespace: the kernel spares it every signal it does not catch.
    pub is_init: bool,
}

/// What a process does with one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// It has a handler, or waits for it.
    Handles,
    /// The default action: for the signals we send, the end at once.
    Default,
    /// Nothing will happen.
    Ignores,
}

impl Reactions {
    /// What it does with `signal`.
    pub fn to(&self, signal: Signal) -> Reaction {
        let bit = 1u64 << (number(signal) - 1);
        if self.ignored & bit != 0 {
            Reaction::Ignores
        } else if (self.caught | self.blocked) & bit != 0 {
            // Who blocks a signal without a handler takes it with sigwait or signalfd.
            Reaction::Handles
        } else if self.is_init {
            Reaction::Ignores
        } else {
            Reaction::Default
        }
    }

    fn parse(status: &str) -> Option<Self> {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let mask = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
        let is_init = field("NSpid").and_then(|pids| pids.split_ascii_whitespace().last()) == Some("1");
        Some(Self { ignored: mask("SigIgn")?, caught: mask("SigCgt")?, blocked: mask("SigBlk")?, is_init })
    }
}

/// What a process does with signals; `None` when there is no such process.
pub(crate) fn reactions(pid: i32) -> io::Result<Option<Reactions>> {
    let Some(status) = unless_gone(fs::read(format!("/proc/{pid}/status")))? else { return Ok(None) };
    match Reactions::parse(&String::from_utf8_lossy(&status)) {
        Some(reactions) => Ok(Some(reactions)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/status has no signal masks"))),
    }
}

fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_fields() {
        let stat = "42 (a) R 1 (b\n) S 7 8 9 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 3 0 777 1000 10";
        let entry = Entry::parse(stat).unwrap();
        assert_eq!((entry.pid, entry.parent, entry.group, entry.start), (42, 7, 8, 777));
        assert!(entry.lives());
    }

    #[test]
    fn a_zombie_has_ended_unless_threads_of_it_run() {
        let stat = |threads| format!("42 (a) Z 7 8 9 0 -1 0 1 0 0 0 5 6 0 0 20 0 {threads} 0 777 1000 10");
        assert!(!Entry::parse(&stat(1)).unwrap().lives());
        assert!(Entry::parse(&stat(2)).unwrap().lives());
    }

    #[test]
    fn a_thread_of_the_kernel_is_no_program() {
        let entry = Entry::parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 9 0 0 20 0 1 0 8 0 0").unwrap();
        assert_eq!(entry.state, State::Kernel);
        assert!(!entry.lives());
    }

    #[test]
    fn garbage_is_no_entry() {
        for stat in ["", "42", "42 (a", "42 (a) ", "42 (a) S 1", "x (a) S 7 8 9 0 -1 0 1 0 0 0 5 6 0 0 20 0 1 0 7 1"] {
            assert_eq!(Entry::parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(all().unwrap().iter().any(|entry| entry.pid == me && entry.lives()));
    }

    #[test]
    fn masks_say_what_a_signal_would_do() {
        let status =
            "NSpid:\t700\t1\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000000001\n";
        let reactions = Reactions::parse(status).unwrap();
        assert_eq!(reactions.to(Signal::TERM), Reaction::Ignores);
        assert_eq!(reactions.to(Signal::HUP), Reaction::Handles);
        assert_eq!(reactions.to(Signal::INT), Reaction::Handles);
        assert_eq!(reactions.to(Signal::QUIT), Reaction::Ignores, "the first process of a namespace is spared");
        let ordinary = Reactions { is_init: false, ..reactions };
        assert_eq!(ordinary.to(Signal::QUIT), Reaction::Default);
    }
}
