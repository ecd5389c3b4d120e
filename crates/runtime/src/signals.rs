//! The operating system's request that this process end: SIGTERM and SIGINT.
//!
//! Owns the registration. What a signal means is the caller's business; a caller that wants a second signal to mean
//! "now" asks again.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

/// Which signal asked the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: a service manager or an orchestrator.
    Terminate,
    /// SIGINT: a person at a terminal.
    Interrupt,
}

impl Signal {
    /// The signal's number on Linux, for an exit status of `128 + number`.
    pub fn number(self) -> i32 {
        self.kind().as_raw_value()
    }

    fn kind(self) -> SignalKind {
        match self {
            Self::Terminate => SignalKind::terminate(),
            Self::Interrupt => SignalKind::interrupt(),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

/// Why signals cannot be received.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for {signal}")]
pub struct InstallError {
    signal: Signal,
    #[source]
    source: io::Error,
}

/// Receives SIGTERM and SIGINT. From [`Signals::install`] on they no longer end the process by themselves, not even
/// after this value is dropped.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Registers for both signals at once, so that none is missed between here and the first [`Signals::next`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO enabled.
    pub fn install() -> Result<Self, InstallError> {
        let listen = |signal: Signal| unix::signal(signal.kind()).map_err(|source| InstallError { signal, source });
        Ok(Self { terminate: listen(Signal::Terminate)?, interrupt: listen(Signal::Interrupt)? })
    }

    /// Waits for the next of the two. Cancel-safe: a signal that was not returned is returned by the next call.
    /// Several of one kind that arrive before they are asked for count as one.
    pub async fn next(&mut self) -> Signal {
        // `recv` ends with `None` only when the runtime's signal driver is gone, and then nothing polls this either.
        tokio::select! {
            biased; // both mean the same
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    // One test, since signals belong to the whole process.
    #[tokio::test]
    async fn each_signal_is_told_apart_and_both_can_be_awaited_again() {
        let mut signals = Signals::install().unwrap();
        kill_process(getpid(), Raw::TERM).unwrap();
        assert_eq!(signals.next().await, Signal::Terminate);
        kill_process(getpid(), Raw::INT).unwrap();
        assert_eq!(signals.next().await, Signal::Interrupt);
        kill_process(getpid(), Raw::TERM).unwrap();
        assert_eq!(signals.next().await, Signal::Terminate);
    }

    #[test]
    fn names_and_numbers_are_the_usual_ones() {
        assert_eq!((Signal::Terminate.to_string(), Signal::Terminate.number()), ("SIGTERM".to_owned(), 15));
        assert_eq!((Signal::Interrupt.to_string(), Signal::Interrupt.number()), ("SIGINT".to_owned(), 2));
    }
}
