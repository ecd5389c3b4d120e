//! How an application behaves: what it does by itself, with signals, and what it says.

use std::time::Duration;

use quiesce_agent::process::Exit;

/// The behaviour of one run of an application. The default is a decent one: it has no notify socket to speak to, ends
/// 20 ms after SIGTERM, with 0, and has no children.
#[derive(Debug, Clone)]
pub struct Temper {
    /// Whether it can be started at all.
    pub executable: Executable,
    /// What it says of itself over its notify socket.
    pub speech: Speech,
    /// What its first process does when it is told to stop.
    pub on_term: OnTerm,
    /// It asks for so much more time when it is told to stop, if it speaks.
    pub asks_for: Option<Duration>,
    /// It ends by itself so long after its start, in this way.
    pub crashes: Option<(Duration, Exit)>,
    /// Processes it forks.
    pub offspring: Vec<Offspring>,
    /// It writes over its environment as soon as it starts, as servers do that show a title in `ps`: no mark is left on it.
    pub is_nameless: bool,
    /// Uninterruptible: so long after SIGKILL it is still there.
    pub stuck: Duration,
}

impl Default for Temper {
    fn default() -> Self {
        Self {
            executable: Executable::Yes,
            speech: Speech::Silent,
            on_term: OnTerm::Ends { after: Duration::from_millis(20), code: 0 },
            asks_for: None,
            crashes: None,
            offspring: Vec::new(),
            is_nameless: false,
            stuck: Duration::ZERO,
        }
    }
}

/// Whether a program can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// It can.
    Yes,
    /// There is none, and whoever looks sees that.
    Missing,
    /// It is there, and executing it fails.
    Broken,
}

/// What an application says over its notify socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Nothing: it does not know the protocol.
    Silent,
    /// That it begins, at once, and never that it is ready.
    NeverReady,
    /// That it begins, and so long afterwards that it is ready; that it stops, when it is told to.
    ReadyAfter(Duration),
}

/// What a process does with SIGTERM and the other signals that ask for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerm {
    /// It saves what it has, and ends.
    Ends {
        /// How long that takes.
        after: Duration,
        /// Its exit status.
        code: i32,
    },
    /// It has no handler: the signal ends it.
    Dies,
    /// It ignores them, and that can be seen beforehand.
    Ignores,
    /// It handles them and never ends.
    Hangs,
}

/// A process that is forked by the first one.
#[derive(Debug, Clone, Copy)]
pub struct Offspring {
    /// So long after the start.
    pub born: Duration,
    /// How it is tied to its parent.
    pub kinship: Kinship,
    /// It ends so long after the first process; `None`: only when it is told to.
    pub outlives: Option<Duration>,
    /// What it does when it is told to stop.
    pub on_term: OnTerm,
}

/// How a forked process is tied to the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// A child in the same process group.
    Child,
    /// Forked twice and in a group of its own: nobody's child.
    Daemon,
    /// The same with an emptied environment: no mark is left on it.
    Unmarked,
}

/// What a helper command does.
#[derive(Debug, Clone, Copy)]
pub struct Helper {
    /// How long it runs.
    pub takes: Duration,
    /// Its exit status.
    pub code: i32,
    /// It sends SIGTERM to `$QUIESCE_PID` when it begins: a stop command.
    pub tells: bool,
}

impl Default for Helper {
    fn default() -> Self {
        Self { takes: Duration::ZERO, code: 0, tells: false }
    }
}
