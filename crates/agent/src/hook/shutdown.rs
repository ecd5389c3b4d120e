//! One shutdown: what it is about, where it stands, what was said of it, and how it is remembered.
//!
//! Holds state and answers questions about it; what follows what is decided in [`super::stopping`].

use std::time::Duration;

use futures::future::AbortHandle;
use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::{Reply, ended};
use super::order::ShutdownOrder;
use super::record::ShutdownRecord;
use super::refusal::Refusal;
use super::report::{Outcome, Phase, Progress, Report, Snapshot, Verdict};
use crate::application::{AppStatus, End, Evidence};
use crate::token::{Digest, Token};

/// Sequence numbers a program leaves to itself: after a restart reports go on above everything an earlier program can
/// have said. Room for 2,047 restarts with a million reports each.
const SEQUENCE_STEP: i32 = 1 << 20;

/// A shutdown and all that is known of it.
pub(super) struct Shutdown {
    pub(super) order: ShutdownOrder,
    /// Recognises the token when the token itself was lost with the program before.
    pub(super) digest: Option<Digest>,
    pub(super) accepted_ms: u64,
    pub(super) incarnation: i32,
    pub(super) sequence: i32,
    pub(super) phase: Phase,
    pub(super) stage: Stage,
    pub(super) ran: bool,
    /// The acceptance is recorded.
    pub(super) durable: bool,
    pub(super) grace: Option<Duration>,
    pub(super) overdue: bool,
    pub(super) wanted: Option<Duration>,
    pub(super) kill: Kill,
    pub(super) kill_waiters: Vec<Reply<Result<Snapshot, Refusal>>>,
    pub(super) cancel_waiters: Vec<Reply<Result<Snapshot, Refusal>>>,
    /// The highest epoch used up before this, for when it cannot be accepted.
    pub(super) epoch_before: u64,
    /// What the application said last before this; it says nothing of the shutdown.
    pub(super) before: Option<String>,
    /// Of the latest report, to see whether there is news.
    pub(super) said: Option<(Phase, String, Option<Duration>)>,
    pub(super) next_report: Instant,
    pub(super) reports: watch::Sender<Progress>,
}

/// What is being waited for.
pub(super) enum Stage {
    /// The record of the acceptance.
    Recording,
    /// The drain command, or a cancellation.
    Draining(AbortHandle),
    /// The record of the point of no return.
    Committing,
    Holding,
    Telling,
    /// The end of the application.
    Waiting,
    /// That nothing starts it again.
    Settling {
        until: Instant,
        verdict: Box<Verdict>,
    },
    /// The record of the result.
    Concluding(Box<Report>),
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    No,
    Wanted,
    UnderWay,
    Sent,
}

/// Which record was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Recorded {
    Acceptance,
    Commitment,
    Kill,
    Result,
}

impl Shutdown {
    pub(super) fn id(&self) -> &str {
        &self.order.shutdown_id
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        match &self.stage {
            // Before the acceptance and after the verdict nothing is said until the record is written, however long that
            // takes: a report that is due would stay due.
            Stage::Recording | Stage::Concluding(_) | Stage::Over => None,
            Stage::Settling { until, .. } => Some(self.next_report.min(*until)),
            Stage::Draining(_) | Stage::Committing | Stage::Holding | Stage::Telling | Stage::Waiting => {
                Some(self.next_report)
            }
        }
    }

    /// H10: a later attempt of the same operation, or a later operation.
    pub(super) fn yields_to(&self, order: &ShutdownOrder) -> bool {
        if self.order.operation == order.operation {
            !self.order.operation.is_empty() && order.attempt > self.order.attempt
        } else {
            self.order.epoch != 0 && order.epoch > self.order.epoch
        }
    }

    pub(super) fn is_token(&self, token: &str) -> bool {
        match &self.digest {
            Some(digest) => digest.matches(token),
            None => token.is_empty(),
        }
    }

    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        match &*self.reports.borrow() {
            Progress::Live(report) => Some((report.clone(), None)),
            Progress::Final(report, token) => Some((report.clone(), token.clone())),
            Progress::Unsaid | Progress::Refused(_) => None,
        }
    }

    pub(super) fn next_sequence(&mut self) -> i32 {
        self.sequence = self.sequence.saturating_add(1);
        self.sequence
    }

    /// The phase that begins when its record is written. Said before, a crash in between would take it back (H5).
    fn phase_to_come(&self) -> Phase {
        match (&self.stage, self.kill) {
            (_, Kill::UnderWay) => Phase::Killing,
            (Stage::Committing, _) => Phase::Stopping,
            _ => Phase::Accepted,
        }
    }

    pub(super) fn to_record(&self, last: Option<Report>) -> ShutdownRecord {
        ShutdownRecord {
            shutdown_id: self.order.shutdown_id.clone(),
            operation: self.order.operation.clone(),
            attempt: self.order.attempt,
            kind: self.order.kind,
            epoch: self.order.epoch,
            token: self.digest,
            accepted_ms: self.accepted_ms,
            grace: self.grace,
            heartbeat: self.order.heartbeat,
            settle: self.order.settle,
            phase: self.phase.max(self.phase_to_come()),
            ran: self.ran,
            incarnation: self.incarnation,
            last,
        }
    }

    pub(super) fn new(order: ShutdownOrder, accepted_ms: u64, ran: bool) -> Self {
        let now = Instant::now();
        Self {
            digest: order.token.as_ref().map(Token::digest),
            accepted_ms,
            incarnation: 0,
            sequence: 0,
            phase: Phase::Accepted,
            stage: Stage::Recording,
            ran,
            durable: false,
            grace: order.grace,
            overdue: false,
            wanted: None,
            kill: Kill::No,
            kill_waiters: Vec::new(),
            cancel_waiters: Vec::new(),
            epoch_before: 0,
            before: None,
            said: None,
            next_report: now + order.heartbeat,
            reports: watch::Sender::new(Progress::Unsaid),
            order,
        }
    }

    /// The same shutdown in the program that comes after: it goes on where it was.
    pub(super) fn from_record(record: ShutdownRecord) -> Self {
        let order = ShutdownOrder {
            shutdown_id: record.shutdown_id,
            operation: record.operation,
            attempt: record.attempt,
            kind: record.kind,
            grace: record.grace,
            heartbeat: record.heartbeat,
            settle: record.settle,
            token: None,
            parameters: Default::default(),
            trace: None,
            reason: String::new(),
            epoch: record.epoch,
        };
        let mut shutdown = Self::new(order, record.accepted_ms, record.ran);
        shutdown.digest = record.token;
        shutdown.incarnation = record.incarnation.saturating_add(1);
        shutdown.sequence = shutdown.incarnation.saturating_mul(SEQUENCE_STEP);
        shutdown.phase = record.phase;
        if record.phase == Phase::Killing {
            // The order to kill was given to the program before; it still stands.
            shutdown.kill = Kill::Wanted;
        }
        if let Some(last) = record.last {
            shutdown.stage = Stage::Over;
            shutdown.reports.send_replace(Progress::Final(last, None));
        }
        shutdown
    }

    /// After a restart only the digest is known; the first caller who brings the token gives it back to us.
    pub(super) fn learn(&mut self, token: Option<&Token>) {
        let Some(token) = token else { return };
        if self.order.token.is_some() || !self.is_token(token.expose()) {
            return;
        }
        self.order.token = Some(token.clone());
        self.reports.send_if_modified(|progress| match progress {
            Progress::Final(_, slot) => {
                *slot = Some(token.clone());
                true
            }
            Progress::Unsaid | Progress::Live(_) | Progress::Refused(_) => false,
        });
    }
}

/// What is said while it goes on: the words of the application first, then what the watcher of its processes knows.
pub(super) fn message(shutdown: &Shutdown, status: &AppStatus) -> String {
    let own = match (&shutdown.stage, shutdown.phase) {
        (Stage::Settling { .. }, _) => "ended; watching that nothing starts it again".to_owned(),
        (_, Phase::Accepted) => "accepted".to_owned(),
        (_, Phase::Draining) => "draining".to_owned(),
        (_, Phase::Killing) => format!("killed, waiting for {} process(es) to vanish", status.processes),
        (_, Phase::Stopping) if ended(status) => "no process is left".to_owned(),
        (_, Phase::Stopping | Phase::Stopped | Phase::Failed | Phase::Cancelled) => {
            format!("told to stop, waiting for {} process(es)", status.processes)
        }
    };
    let said = status.said.as_ref().filter(|said| Some(*said) != shutdown.before.as_ref());
    match (said, status.message.is_empty()) {
        (Some(said), true) => said.clone(),
        (Some(said), false) => format!("{said} ({})", status.message),
        (None, false) => status.message.clone(),
        (None, true) => own,
    }
}

pub(super) fn verdict(outcome: Outcome, end: Option<&End>) -> Verdict {
    let message = match (outcome, end) {
        (Outcome::NotRunning, _) => "it was not running".to_owned(),
        (_, Some(end)) => end.message.clone(),
        (_, None) => String::new(),
    };
    // What an earlier run left behind says nothing about this shutdown.
    let seen = end.filter(|_| outcome != Outcome::NotRunning);
    Verdict {
        outcome,
        // Stopped by the word of the implementation, which has looked.
        evidence: Some(end.map_or(Evidence::ProcessGone, |end| end.evidence)),
        exit_code: seen.and_then(|end| end.exit_code),
        exit_signal: seen.and_then(|end| end.exit_signal),
        clean: seen.and_then(|end| end.clean),
        duration: Duration::ZERO,
        message,
        held: false,
    }
}
