//! Names of signals, and the ladder of signals by which an application is told to stop.
//!
//! Owns the syntax of `--stop-signal`. Sends nothing.

use std::{fmt, str::FromStr, time::Duration};

use quiesce_runtime::duration;
pub use rustix::process::Signal;

/// The signals a person may name. SIGKILL and SIGSTOP are left out on purpose: see [`Ladder`].
const NAMED: [(&str, Signal); 13] = [
    ("SIGTERM", Signal::TERM),
    ("SIGINT", Signal::INT),
    ("SIGQUIT", Signal::QUIT),
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGWINCH", Signal::WINCH),
    ("SIGCONT", Signal::CONT),
    ("SIGABRT", Signal::ABORT),
    ("SIGALRM", Signal::ALARM),
    ("SIGPIPE", Signal::PIPE),
    ("SIGPWR", Signal::POWER),
    ("SIGIO", Signal::IO),
];

/// More steps than this are a mistake: every step is a signal the application gets on its way down.
const RUNGS_MAX: usize = 8;

/// Longest wait between two signals; what takes longer is the business of the grace period.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of a signal, `signal 42` for one without.
pub fn name(signal: Signal) -> String {
    describe(number(signal))
}

/// The name of a signal by its number.
pub fn describe(number: i32) -> String {
    if number == self::number(Signal::KILL) {
        return "SIGKILL".to_owned();
    }
    let named = NAMED.iter().find(|(_, signal)| self::number(*signal) == number);
    named.map_or_else(|| format!("signal {number}"), |(name, _)| (*name).to_owned())
}

pub(crate) fn number(signal: Signal) -> i32 {
    signal.as_raw()
}

/// Whether a program may be told something by this signal. SIGABRT is left out: it is how a program gives up.
pub(crate) fn can_tell(number: i32) -> bool {
    NAMED.iter().any(|(_, signal)| *signal != Signal::ABORT && self::number(*signal) == number)
}

/// One step of a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// What is sent.
    pub signal: Signal,
    /// How long to wait before the next step. `None` on the last one.
    pub wait: Option<Duration>,
}

/// The signals that tell an application to stop, in order, with the waits between them: `SIGTERM`, or
/// `SIGINT:10s,SIGTERM`. Never empty. SIGKILL is not among them: to kill is the decision of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    rungs: Vec<Rung>,
}

impl Ladder {
    /// The steps, at least one.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }
}

impl Default for Ladder {
    fn default() -> Self {
        Self { rungs: vec![Rung { signal: Signal::TERM, wait: None }] }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rung) in self.rungs.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}", name(rung.signal))?;
            if let Some(wait) = rung.wait {
                write!(f, ":{}", duration::format(wait))?;
            }
        }
        Ok(())
    }
}

/// Why a text is no ladder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLadderError {
    /// SIGKILL or SIGSTOP.
    #[error(
        "{0} cannot be handled by any application: it is no way to ask it to stop (killing is the scheduler's KillApplication)"
    )]
    NotAsking(String),
    /// No such signal.
    #[error(
        "unknown signal {0:?}; known are SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH and a few more"
    )]
    Unknown(String),
    /// The wait is no duration such as `10s`, or longer than a day.
    #[error("{0:?} is not a wait between two signals, such as 10s (at most a day)")]
    Wait(String),
    /// All but the last signal need a wait, the last one has none.
    #[error("every signal but the last one needs a wait, as in SIGINT:10s,SIGTERM, and the last one has none")]
    Waits,
    /// Too long.
    #[error("more than {RUNGS_MAX} signals")]
    TooMany,
}

impl FromStr for Ladder {
    type Err = ParseLadderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rungs = Vec::new();
        for step in text.split(',') {
            let (signal, wait) = match step.split_once(':') {
                Some((signal, wait)) => (signal, Some(parse_wait(wait)?)),
                None => (step, None),
            };
            rungs.push(Rung { signal: parse_signal(signal)?, wait });
        }
        if rungs.len() > RUNGS_MAX {
            return Err(ParseLadderError::TooMany);
        }
        let last = rungs.len() - 1;
        if rungs.iter().enumerate().any(|(index, rung)| rung.wait.is_none() != (index == last)) {
            return Err(ParseLadderError::Waits);
        }
        Ok(Self { rungs })
    }
}

fn parse_wait(text: &str) -> Result<Duration, ParseLadderError> {
    let wait = duration::parse(text.trim()).ok().filter(|wait| *wait <= WAIT_MAX);
    wait.ok_or_else(|| ParseLadderError::Wait(text.to_owned()))
}

fn parse_signal(text: &str) -> Result<Signal, ParseLadderError> {
    let upper = text.trim().to_ascii_uppercase();
    let long = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if matches!(long.as_str(), "SIGKILL" | "SIGSTOP" | "SIG9" | "SIG19") {
        return Err(ParseLadderError::NotAsking(text.trim().to_owned()));
    }
    let by_number = long[3..].parse::<i32>().ok();
    NAMED
        .iter()
        .find(|(name, signal)| *name == long || by_number == Some(number(*signal)))
        .map(|(_, signal)| *signal)
        .ok_or_else(|| ParseLadderError::Unknown(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladders_are_read_and_written() {
        for (text, written) in [
            ("SIGTERM", "SIGTERM"),
            ("term", "SIGTERM"),
            ("15", "SIGTERM"),
            ("SIGINT:10s,SIGTERM", "SIGINT:10s,SIGTERM"),
            (" int : 1m 30s , quit ", "SIGINT:1m30s,SIGQUIT"),
        ] {
            assert_eq!(text.parse::<Ladder>().unwrap().to_string(), written);
        }
        assert_eq!(Ladder::default().to_string(), "SIGTERM");
    }

    #[test]
    fn killing_is_not_asking() {
        for text in ["SIGKILL", "kill", "9", "SIGTERM:5s,SIGKILL", "STOP"] {
            assert!(matches!(text.parse::<Ladder>(), Err(ParseLadderError::NotAsking(_))), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!("".parse::<Ladder>(), Err(ParseLadderError::Unknown(_))));
        assert!(matches!("SIGFOO".parse::<Ladder>(), Err(ParseLadderError::Unknown(_))));
        assert!(matches!("é".parse::<Ladder>(), Err(ParseLadderError::Unknown(_))));
        assert!(matches!("INT:soon,TERM".parse::<Ladder>(), Err(ParseLadderError::Wait(_))));
        assert!(matches!("INT:10years,TERM".parse::<Ladder>(), Err(ParseLadderError::Wait(_))));
        assert_eq!("INT,TERM".parse::<Ladder>(), Err(ParseLadderError::Waits));
        assert_eq!("TERM:5s".parse::<Ladder>(), Err(ParseLadderError::Waits));
        let long = ["INT:1s"; 8].join(",") + ",TERM";
        assert_eq!(long.parse::<Ladder>(), Err(ParseLadderError::TooMany));
    }
}
