//! A client that writes to a ledger without pause, wherever it is, and can prove afterwards what it was promised.
//!
//! One task for each candidate address tries to connect, again and again, and writes as long as the ledger there
//! answers. So the client follows the application when it moves, and if two ledgers ever serve at once, it writes to
//! both and has the proof in its [`Record`]. A write whose answer is lost is repeated with the same key; only an answer
//! makes it count.

mod connection;
mod record;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use self::connection::{AskError, Connection};
pub use self::record::{Acknowledged, Fault, Record, Verdict, WriterId};

use crate::ledger::book::Epoch;
use crate::ledger::protocol::{Answer, Request};

/// Pause before a candidate that does not serve is tried again. Short, as it is part of the pause the client sees; a
/// refused connection on loopback costs next to nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The record keeps every write, and a ledger holds 200,000: the client ends its writing before either is full.
const WRITES_MAX: u64 = 150_000;

/// Odd answers kept as evidence; more of the same prove no more.
const ODD_ANSWERS_MAX: usize = 16;

/// What to write, and where.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where the ledger may be found, now or later.
    pub candidates: Vec<SocketAddr>,
    /// Shortest time from one write to the next, at least a millisecond.
    pub interval: Duration,
    /// Prefix of all keys; two loads on one ledger need two names.
    pub name: String,
}

/// What the client has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were sent again because the first answer did not come or said no.
    pub repeated: u64,
    /// Longest time between two acknowledgements; see [`Load::take_longest_pause`].
    pub longest_pause: Duration,
    /// Who acknowledged last, and where.
    pub last: Option<(SocketAddr, Epoch)>,
}

/// A client at work. Dropping it ends it at once.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// The promises that were made to the client were not kept, or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The ledger could not be asked.
    #[error("cannot read the acknowledged writes back")]
    Ask(#[from] AskError),
    /// Broken promises, at least one.
    #[error("{} broken promises, the first: {}", .0.len(), .0[0])]
    Faults(Vec<Fault>),
}

/// Reads every acknowledged write back from a live ledger and checks the whole record.
pub async fn verify(address: SocketAddr, record: &Record) -> Result<Verdict, VerifyError> {
    let keys = record.acknowledged.iter().map(|write| write.key.as_str());
    let found = Connection::open(address).await?.entries(keys).await?;
    record.check(&found).map_err(VerifyError::Faults)
}

impl Load {
    /// Begins to write.
    #[must_use]
    pub fn start(options: LoadOptions) -> Self {
        let shared = Arc::new(Shared {
            name: options.name,
            begin: Instant::now(),
            log: Mutex::default(),
            stats: watch::Sender::default(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for candidate in options.candidates {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            tasks.spawn(async move {
                // Between writes, never within one: an answer under way is waited for.
                while !stop.is_cancelled() {
                    if let Err(error) = shared.write_to(candidate, options.interval, &stop).await {
                        debug!(%candidate, %error, "no ledger here");
                    }
                    tokio::select! {
                        () = sleep(RETRY_PAUSE) => {}
                        () = stop.cancelled() => {}
                    }
                }
            });
        }
        Self { shared, stop, tasks }
    }

    /// The statistics, and a way to wait for them to change.
    #[must_use]
    pub fn stats(&self) -> watch::Receiver<Stats> {
        self.shared.stats.subscribe()
    }

    /// The longest pause since the last call, for a look at one migration alone.
    #[must_use]
    pub fn take_longest_pause(&self) -> Duration {
        let mut longest = Duration::ZERO;
        self.shared.stats.send_modify(|stats| longest = std::mem::take(&mut stats.longest_pause));
        longest
    }

    /// Everything acknowledged up to now; the writing goes on.
    #[must_use]
    pub fn record(&self) -> Record {
        self.shared.log().record.clone()
    }

    /// Ends the writing, waits for answers under way, and returns the whole record.
    pub async fn stop(mut self) -> Record {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a task of the load ended badly");
            }
        }
        std::mem::take(&mut self.shared.log().record)
    }
}

#[derive(Debug)]
struct Shared {
    name: String,
    begin: Instant,
    log: Mutex<Log>,
    stats: watch::Sender<Stats>,
}

#[derive(Debug, Default)]
struct Log {
    record: Record,
    /// Writes that were tried and not acknowledged; they go first.
    open: VecDeque<u64>,
    /// Writes begun so far.
    begun: u64,
    last: Option<Instant>,
}

impl Shared {
    /// Writes to one ledger until it does not answer any more, or the client is stopped.
    async fn write_to(&self, candidate: SocketAddr, pace: Duration, stop: &CancellationToken) -> Result<(), AskError> {
        let mut connection = Connection::open(candidate).await?;
        let mut pace = interval(pace.max(Duration::from_millis(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            pace.tick().await;
            let Some(write) = self.next_write() else { return Ok(()) };
            let key = format!("{}-{write}", self.name);
            let value = format!("write {write} of {}", self.name);
            match connection.ask(Request::Put { key: &key, value: &value }).await {
                Ok(Answer::Written { number, epoch, writer }) => {
                    let at = self.begin.elapsed();
                    self.acknowledge(candidate, Acknowledged { key, value, number, epoch, writer, at });
                }
                // A ledger on its way down, or with no place for us: it is said, so nothing was written.
                Ok(Answer::Error(reason)) if reason == "stopping" || reason == "busy" => {
                    self.reopen(write);
                    sleep(RETRY_PAUSE).await;
                }
                Ok(odd) => self.odd_answer(odd.to_string()),
                Err(error) => {
                    if let AskError::Odd { line } = &error {
                        self.odd_answer(line.clone());
                    }
                    self.reopen(write);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn next_write(&self) -> Option<u64> {
        let mut log = self.log();
        if let Some(write) = log.open.pop_front() {
            drop(log);
            self.stats.send_modify(|stats| stats.repeated += 1);
            return Some(write);
        }
        if log.begun >= WRITES_MAX {
            return None;
        }
        log.begun += 1;
        Some(log.begun)
    }

    fn reopen(&self, write: u64) {
        self.log().open.push_back(write);
    }

    fn acknowledge(&self, candidate: SocketAddr, write: Acknowledged) {
        let now = Instant::now();
        let epoch = write.epoch;
        let mut log = self.log();
        let pause = log.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        log.record.acknowledged.push(write);
        // Under the lock, so that the statistics never run ahead of the record.
        self.stats.send_modify(|stats| {
            stats.acknowledged += 1;
            stats.longest_pause = stats.longest_pause.max(pause);
            stats.last = Some((candidate, epoch));
        });
    }

    fn odd_answer(&self, line: String) {
        let mut log = self.log();
        if log.record.odd_answers.len() < ODD_ANSWERS_MAX {
            log.record.odd_answers.push(line);
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nothing panics while it holds the log")
    }
}
