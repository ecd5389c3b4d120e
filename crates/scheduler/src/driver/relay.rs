//! From a stream of reports to inputs of the machine: what a hook says fast is merged, what it says wrong ends the call.
//!
//! A hook may flood or a commit may take long; either way at most one report of a stream is with the operation's task,
//! and at most one waits here. Merging loses no news: a report is a snapshot, and one is only replaced by a later one
//! of the same phase. A hook that goes back is passed on as it is, for the machine to judge.

use std::time::Duration;

use quiesce_operation::Input;
use quiesce_operation::report::{CallError, StartReport, StopReport};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::Streaming;

use super::actor::Message;
use crate::hooks::Hook;
use crate::hooks::call::{protocol_error, read_status};

/// How long a hook may take to end the call after its result. Nothing depends on it; it is only polite to listen.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Resolves when the operation's task is through with an input.
pub(super) type Handled = oneshot::Receiver<()>;

/// The way into an operation's mailbox. Waits while the mailbox is full.
#[derive(Clone)]
pub(super) struct Outlet(pub(super) mpsc::Sender<Message>);

/// The operation's task has ended.
pub(super) struct Closed;

impl Outlet {
    /// Hands in `input`; the answer resolves when it has been handled.
    pub(super) async fn offer(&self, input: Input) -> Result<Handled, Closed> {
        let (handled, wait) = oneshot::channel();
        self.0.send(Message::Input { input: Box::new(input), _handled: handled }).await.map_err(|_closed| Closed)?;
        Ok(wait)
    }

    /// Hands in the answer to a call. An operation that has ended does not wait for it.
    pub(super) async fn answer(&self, input: Input) {
        if let Ok(handled) = self.offer(input).await {
            drop(handled);
        }
    }
}

/// What can be relayed.
pub(super) trait Report {
    /// Whether it is the last one.
    fn is_last(&self) -> bool;
    /// Whether nothing is lost when it takes the place of `earlier`.
    fn replaces(&self, earlier: &Self) -> bool;
}

impl Report for StopReport {
    fn is_last(&self) -> bool {
        self.result.is_some()
    }

    fn replaces(&self, earlier: &Self) -> bool {
        self.phase == earlier.phase && self.sequence > earlier.sequence && !earlier.is_last()
    }
}

impl Report for StartReport {
    fn is_last(&self) -> bool {
        self.result.is_some()
    }

    fn replaces(&self, earlier: &Self) -> bool {
        self.phase == earlier.phase && self.sequence > earlier.sequence && !earlier.is_last()
    }
}

/// How a relay ended without a result.
pub(super) enum Ended {
    /// The call is over.
    Call(CallError),
    /// The operation is.
    Operation,
}

impl From<Closed> for Ended {
    fn from(_: Closed) -> Self {
        Self::Operation
    }
}

/// Passes reports on until the last one has been handled. `read` takes a message apart and checks it.
pub(super) async fn relay<M, R: Report>(
    hook: &Hook,
    mut stream: Streaming<M>,
    outlet: &Outlet,
    read: impl Fn(M) -> Result<R, CallError>,
    input: impl Fn(R) -> Input,
) -> Result<(), Ended> {
    let mut line = Line { outlet, input, waiting: None, in_flight: None };
    let mut reading = hook.reading();
    loop {
        let message = tokio::select! {
            biased;
            () = line.handled(), if line.in_flight.is_some() => {
                line.pass_on().await?;
                continue;
            }
            message = stream.message() => message,
        };
        let report = match message {
            Ok(Some(message)) => read(message),
            Ok(None) => Err(protocol_error("the call ended without a result")),
            Err(status) => Err(read_status(&status)),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                line.flush().await?;
                return Err(Ended::Call(error));
            }
        };
        hook.heard(None);
        let last = report.is_last();
        Box::pin(line.push(report)).await?;
        if last {
            hook.look();
            line.flush().await?;
            // The result counts, however the call ends.
            let _goodbye = timeout(GOODBYE_TIMEOUT, stream.message()).await;
            return Ok(());
        }
        reading.spend().await;
    }
}

/// One report with the operation, one waiting.
struct Line<'a, R, F> {
    outlet: &'a Outlet,
    input: F,
    waiting: Option<R>,
    in_flight: Option<Handled>,
}

impl<R: Report, F: Fn(R) -> Input> Line<'_, R, F> {
    async fn push(&mut self, report: R) -> Result<(), Closed> {
        if self.waiting.as_ref().is_some_and(|earlier| !report.replaces(earlier)) {
            self.handled().await;
            self.pass_on().await?;
        }
        self.waiting = Some(report);
        if self.in_flight.is_none() {
            self.pass_on().await?;
        }
        Ok(())
    }

    /// Waits until the report that is with the operation has been handled. Cancel-safe.
    async fn handled(&mut self) {
        if let Some(in_flight) = self.in_flight.as_mut() {
            // Dropped rather than sent: both mean that it is through with it.
            let _through = in_flight.await;
            self.in_flight = None;
        }
    }

    async fn pass_on(&mut self) -> Result<(), Closed> {
        if let Some(report) = self.waiting.take() {
            self.in_flight = Some(self.outlet.offer((self.input)(report)).await?);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        self.handled().await;
        self.pass_on().await?;
        self.handled().await;
        Ok(())
    }
}
