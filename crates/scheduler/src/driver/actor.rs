//! The task that owns one open operation: takes what happened, makes it durable, then acts.
//!
//! Everything about the operation goes through its mailbox or its timer, one thing at a time. A step is worked out on a
//! copy; the copy takes the place of the operation when the commit has resolved, and only then effects are performed
//! and callers answered. While the store does not take a commit nothing else happens here; what comes in waits.

use std::sync::Arc;
use std::time::Duration;

use quiesce_operation::report::StopResult;
use quiesce_operation::{Event, Input, InstanceId, Moment, Operation, Refusal, StateName, Step};
use quiesce_runtime::backoff::Backoff;
use quiesce_runtime::clock::sleep_until;
use quiesce_store::{CommitError, ReadError, Revision, record};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use quiesce_mutation::{Mutant, active};

use super::change::{Along, Built, Change};
use super::completion::{self, Verdict};
use super::effects::Effects;
use super::health::Stall;
use super::recovery;
use super::relay::Outlet;
use super::{Command, CommandError, CompletionError, Context, Granted, Snapshot};
use crate::records::{self, LoadError, OperationRecord};

/// First and longest pause before a commit that the store does not take at the moment is tried again: soon enough after the
/// cause has gone, and seldom enough not to matter while it lasts.
const COMMIT_RETRY_FIRST: Duration = Duration::from_millis(100);
const COMMIT_RETRY_MAX: Duration = Duration::from_secs(5);

/// What reaches an operation's task. Small, since a mailbox has room for dozens from the start: what is large is boxed.
pub(super) enum Message {
    /// An answer of a hook. Dropping `_handled` says that it has been dealt with.
    Input { input: Box<Input>, _handled: oneshot::Sender<()> },
    /// A person's command.
    Command { command: Box<Command>, answer: oneshot::Sender<Result<Snapshot, CommandError>> },
    /// A result that came beside the stream; its token has been checked.
    Complete {
        instance: InstanceId,
        attempt: u32,
        result: Box<StopResult>,
        answer: oneshot::Sender<Result<(), CompletionError>>,
    },
    /// A wish for more time beside the stream; its token has been checked.
    MoreTime {
        instance: InstanceId,
        attempt: u32,
        wanted: Duration,
        answer: oneshot::Sender<Result<Granted, CompletionError>>,
    },
}

/// How a task takes its operation up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// Accepted just now.
    Accepted,
    /// Found in the store after a restart.
    Recovered,
}

/// Why a task ends before its operation.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// The scheduler shuts down; the operation rests where it is.
    #[error("the scheduler is shutting down")]
    Draining,
    /// Somebody else has written the operation's record.
    #[error("somebody else drives the operation as well")]
    NotOwner(#[source] CommitError),
    /// The store takes nothing any more, or not this.
    #[error("the operation cannot be stored")]
    Commit(#[source] CommitError),
    /// The registry cannot be read.
    #[error("the registry cannot be read")]
    Load(#[source] LoadError),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] ReadError),
}

/// Why a step was not made durable.
enum Failed {
    /// What was to be written along with it is not as expected; nothing has happened.
    Along(CommitError),
    Stop(Stop),
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        Self::Stop(Stop::Load(error))
    }
}

/// The owner of one operation.
pub(super) struct Actor {
    context: Arc<Context>,
    operation: Operation,
    revision: Revision,
    mailbox: mpsc::Receiver<Message>,
    effects: Effects,
}

impl Actor {
    pub(super) fn new(
        context: Arc<Context>,
        stored: Snapshot,
        outlet: mpsc::Sender<Message>,
        mailbox: mpsc::Receiver<Message>,
    ) -> Self {
        let effects = Effects::new(Arc::clone(&context), Outlet(outlet));
        Self { context, operation: stored.operation, revision: stored.revision, mailbox, effects }
    }

    /// Drives the operation to its end.
    pub(super) async fn run(mut self, entry: Entry) {
        let id = self.operation.id().clone();
        match self.live(entry).await {
            Ok(()) => debug!(operation.id = %id, state = self.operation.state().as_str(), "operation is over"),
            Err(Stop::Draining) => debug!(operation.id = %id, "operation rests, the scheduler is shutting down"),
            Err(stop) => {
                self.context.health.fail();
                let cause = quiesce_runtime::telemetry::chain(&stop);
                error!(operation.id = %id, error = %cause, "operation is not driven any more");
            }
        }
    }

    /// Steps are on the heap while they are taken: most of its life an operation waits, and then only the wait is to be kept.
    async fn live(&mut self, entry: Entry) -> Result<(), Stop> {
        if entry == Entry::Recovered {
            Box::pin(self.recover()).await?;
        }
        let mut message_last = false;
        loop {
            if self.operation.is_done() {
                return Box::pin(self.dismiss()).await;
            }
            if self.operation.state() == StateName::Pending {
                Box::pin(self.handle(Input::Begin)).await?;
                continue;
            }
            let deadline = self.operation.next_deadline();
            // Reports before deadlines: what arrived in time counts. But no flood of reports holds up a deadline.
            if message_last && deadline.is_some_and(|deadline| deadline <= self.now()) {
                message_last = false;
                Box::pin(self.handle_deadline()).await?;
                continue;
            }
            let clock = Arc::clone(&self.context.clock);
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(&*clock, deadline.as_millis()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.context.drain.signaled() => return Err(Stop::Draining),
                Some(message) = self.mailbox.recv() => {
                    message_last = true;
                    Box::pin(self.take(message)).await?;
                }
                () = due => Box::pin(self.handle_deadline()).await?,
            }
        }
    }

    /// Takes up what was found in the store, when it is its turn: its calls are made again, and thousands of operations
    /// may be taken up at the same time.
    async fn recover(&mut self) -> Result<(), Stop> {
        let context = Arc::clone(&self.context);
        let turn = tokio::select! {
            () = context.drain.signaled() => return Err(Stop::Draining),
            // Never closed.
            turn = context.recoveries.acquire() => turn,
        };
        let mut next = self.operation.clone();
        let step = next.recover(self.now());
        self.settle(next, step).await?;
        tokio::time::sleep(recovery::SPACING).await;
        drop(turn);
        Ok(())
    }

    /// Answers those who came while the last step was taken; an operation that is over refuses them in its own words.
    async fn dismiss(&mut self) -> Result<(), Stop> {
        self.mailbox.close();
        while let Some(message) = self.mailbox.recv().await {
            self.take(message).await?;
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment::from_millis(self.context.clock.now())
    }

    async fn handle_deadline(&mut self) -> Result<(), Stop> {
        let mut next = self.operation.clone();
        let step = next.handle_deadline(self.now());
        self.settle(next, step).await
    }

    async fn take(&mut self, message: Message) -> Result<(), Stop> {
        match message {
            Message::Input { input, _handled } => self.handle(*input).await,
            // Nobody waits for the answer any more, and has been told so: better not to do it behind their back.
            Message::Command { answer, .. } if answer.is_closed() => Ok(()),
            Message::Command { command, answer } => {
                let outcome = self.command(*command).await;
                let (outcome, stop) = match outcome {
                    Ok(()) => (Ok(self.snapshot()), Ok(())),
                    Err(Declined::Command(error)) => (Err(error), Ok(())),
                    Err(Declined::Stop(stop)) => (Err(CommandError::Stalled(self.operation.id().clone())), Err(stop)),
                };
                // Whoever has gone meanwhile reads the operation to learn the outcome.
                let _gone = answer.send(outcome);
                stop
            }
            Message::Complete { instance, attempt, result, answer } => {
                let verdict = match completion::verdict(&self.operation, &instance, attempt, &result) {
                    Verdict::Counts(input) => {
                        self.handle(input).await?;
                        completion::verdict(&self.operation, &instance, attempt, &result).after()
                    }
                    Verdict::Known => Ok(()),
                    Verdict::Refused(error) => Err(error),
                };
                let _gone = answer.send(verdict);
                Ok(())
            }
            Message::MoreTime { instance, attempt, wanted, answer } => {
                let before = completion::granted(&self.operation, &instance, attempt, self.now());
                let outcome = match before {
                    Ok(before) => {
                        self.handle(Input::MoreTimeWanted { instance: instance.clone(), attempt, wanted }).await?;
                        let after = completion::granted(&self.operation, &instance, attempt, self.now());
                        completion::judge_wish(before, after, wanted)
                    }
                    Err(error) => Err(error),
                };
                let _gone = answer.send(outcome);
                Ok(())
            }
        }
    }

    async fn handle(&mut self, input: Input) -> Result<(), Stop> {
        let mut next = self.operation.clone();
        let step = next.handle(self.now(), input);
        self.settle(next, step).await
    }

    async fn command(&mut self, command: Command) -> Result<(), Declined> {
        let mut next = self.operation.clone();
        let step = apply(&mut next, self.now(), &command)?;
        let along = match command {
            Command::Retry { remember: Some(request), .. } => Some(Along::remember(request)),
            Command::Supersede { accept, .. } => Some(Along { batch: accept, owns_application: true }),
            Command::Retry { remember: None, .. }
            | Command::Cancel(_)
            | Command::Extend { .. }
            | Command::Confirm(_) => None,
        };
        match self.make_durable(next, step, along).await {
            Ok(()) => Ok(()),
            Err(Failed::Along(error)) => Err(Declined::Command(CommandError::Conflict(error))),
            Err(Failed::Stop(stop)) => Err(Declined::Stop(stop)),
        }
    }

    async fn settle(&mut self, next: Operation, step: Step) -> Result<(), Stop> {
        match self.make_durable(next, step, None).await {
            Ok(()) => Ok(()),
            Err(Failed::Stop(stop)) => Err(stop),
            Err(Failed::Along(error)) => Err(Stop::Commit(error)),
        }
    }

    /// Persist, then act.
    async fn make_durable(&mut self, next: Operation, step: Step, along: Option<Along>) -> Result<(), Failed> {
        let Step { changed, mut events, effects } = step;
        let mut forgotten = Vec::new();
        if active(Mutant::ActsBeforePersisting) {
            effects.iter().for_each(|effect| self.effects.perform(&next, effect.clone()));
        }
        if active(Mutant::EventLost) && events.len() > 1 {
            events.pop();
        }
        if changed || !events.is_empty() || along.is_some() {
            (self.revision, forgotten) = Box::pin(self.commit(&next, &events, along.as_ref())).await?;
        } else if effects.is_empty() {
            self.context.health.without_effect();
        }
        self.operation = next;
        for instance in forgotten {
            self.context.hooks.forgotten(&self.operation.request().application, &instance);
        }
        for effect in effects {
            self.effects.perform(&self.operation, effect);
        }
        Ok(())
    }

    /// Commits one step, for as long as it takes. Returns the revision of the record.
    async fn commit(
        &self,
        next: &Operation,
        events: &[Event],
        along: Option<&Along>,
    ) -> Result<(Revision, Vec<InstanceId>), Failed> {
        let store = &*self.context.store;
        let key = records::operation_key(next.id());
        let change = Change { before: &self.operation, revision: self.revision, after: next, events, along };
        let mut backoff = Backoff::new(COMMIT_RETRY_FIRST, COMMIT_RETRY_MAX, (self.context.randomness)());
        let mut stalled = None;
        loop {
            let Built { batch, place, forgotten } = match change.build(store).await {
                Ok(built) => built,
                // The store comes back by itself; until then it is as if it did not take the change.
                Err(LoadError::Read(error)) if error.is_retryable() => {
                    self.stall(&mut stalled, next, &error);
                    self.pause(&mut backoff).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let error = match store.commit(batch).await {
                Ok(committed) => return Ok((committed.first.plus(place), forgotten)),
                Err(error) => error,
            };
            match &error {
                CommitError::Conflict { key: conflict, .. } if *conflict == key => {
                    // Perhaps it was us, and only the answer got lost.
                    let entry = match store.get(key.clone()).await {
                        Ok(entry) => entry,
                        Err(error) if error.is_retryable() => {
                            self.pause(&mut backoff).await?;
                            continue;
                        }
                        Err(error) => return Err(Failed::Stop(Stop::Read(error))),
                    };
                    let ours = record::encode(&OperationRecord(next.clone()));
                    return match entry.filter(|entry| stalled.is_some() && entry.value == ours) {
                        Some(entry) => Ok((entry.revision, forgotten)),
                        None => Err(Failed::Stop(Stop::NotOwner(error))),
                    };
                }
                CommitError::Conflict { key: conflict, .. } if along.is_some_and(|along| along.expects(conflict)) => {
                    return Err(Failed::Along(error));
                }
                // Somebody has changed the registry: look at it again.
                CommitError::Conflict { .. } => {}
                error if error.is_retryable() || error.leaves_open() => self.stall(&mut stalled, next, error),
                CommitError::Full
                | CommitError::ReadOnly
                | CommitError::Unavailable { .. }
                | CommitError::TooLarge { .. }
                | CommitError::Closed
                | CommitError::Engine { .. } => return Err(Failed::Stop(Stop::Commit(error))),
            }
            self.pause(&mut backoff).await?;
        }
    }

    /// Says once that the store does not take a change, and counts the operation as stalled.
    fn stall(&self, stalled: &mut Option<Stall>, next: &Operation, error: &dyn std::error::Error) {
        if stalled.is_none() {
            warn!(operation.id = %next.id(), %error, "store does not take a change, trying again");
            *stalled = Some(self.context.health.stall());
        }
    }

    /// Waits before the next try, unless the scheduler shuts down.
    async fn pause(&self, backoff: &mut Backoff) -> Result<(), Failed> {
        tokio::select! {
            biased;
            () = self.context.drain.signaled() => Err(Failed::Stop(Stop::Draining)),
            () = tokio::time::sleep(backoff.next_delay()) => Ok(()),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { operation: self.operation.clone(), revision: self.revision }
    }
}

/// Why a command was not carried out.
enum Declined {
    Command(CommandError),
    Stop(Stop),
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self::Command(CommandError::Refused(refusal))
    }
}

/// Applies a command to an operation, open or not.
pub(super) fn apply(operation: &mut Operation, now: Moment, command: &Command) -> Result<Step, Refusal> {
    match command {
        Command::Cancel(by) => operation.cancel(now, by),
        Command::Retry { by, force, policy, remember: _ } => operation.retry(now, by, *force, policy),
        Command::Extend { grace } => operation.extend(now, *grace),
        Command::Confirm(by) => operation.confirm(now, by),
        Command::Supersede { by, accept: _ } => operation.supersede(now, by.clone()),
    }
}
