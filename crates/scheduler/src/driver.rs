//! Drives operations: one task owns each open one, makes every change durable, and only then acts on it.
//!
//! Owns the open operations and their records, the application's `epoch` and `active_operation` while one is open, and
//! what the end of an operation does to the registry. It decides nothing: what happens next is the business of
//! [`quiesce_operation`]; how hooks are reached that of [`crate::hooks`]. It must not act before a commit has resolved.

mod actor;
mod change;
mod completion;
mod effects;
mod health;
mod recovery;
mod relay;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quiesce_operation::report::StopResult;
use quiesce_operation::{Caller, Moment, Operation, OperationId, PolicyOverrides, Refusal};
use quiesce_runtime::backoff::Randomness;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_runtime::tasks::Tasks;
use quiesce_store::{Batch, CommitError, Key, Revision, Store};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::warn;

use quiesce_mutation::{Mutant, active};

use crate::hooks::Hooks;
use crate::hooks::report::blot_out;
use crate::records::{self, LoadError, OperationRecord};
use crate::secrets::{CompletionToken, Secrets, ShutdownId};
use crate::traces::Traces;
use actor::{Actor, Entry, Message};
use completion::Verdict;
pub use health::Gauges;
use health::Health;
pub use recovery::{Plan, RecoverError, Refused};

/// Most messages that wait for one operation. Its own calls hand in one at a time each and wait when it is full, so
/// this is about people: a command that finds it full is refused.
const MAILBOX_MAX: usize = 256;
/// Longest wait for the durable outcome of a command: longer than any healthy commit, shorter than callers' patience.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// An operation as it is stored.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The operation.
    pub operation: Operation,
    /// Revision of its record.
    pub revision: Revision,
}

/// What a person can ask of an operation that exists.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "commands are few, and boxed on their way")]
pub enum Command {
    /// Take it back, or close it out of DEGRADED.
    Cancel(Caller),
    /// Try again from DEGRADED.
    Retry {
        /// Who asks.
        by: Caller,
        /// Kill instead of stopping.
        force: bool,
        /// Changes to the policy from here on.
        policy: PolicyOverrides,
        /// The request id, to be stored together with the outcome.
        remember: Option<RequestIdWrite>,
    },
    /// Prolong the grace period.
    Extend {
        /// The new total.
        grace: Duration,
    },
    /// The caller has done its part.
    Confirm(Caller),
    /// A forced deletion takes over. Its accepting batch is committed together with the last record of this operation,
    /// and says what becomes of the application's record.
    Supersede {
        /// The operation that takes over.
        by: OperationId,
        /// What makes it durable.
        accept: Batch,
    },
}

/// A request id to be written in the same batch as the outcome of its request; must not be there yet.
#[derive(Debug, Clone)]
pub struct RequestIdWrite {
    /// Its key.
    pub key: Key,
    /// The encoded record.
    pub record: Bytes,
}

/// Why a command has no durable outcome.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such operation.
    #[error("operation {0} does not exist")]
    NotFound(OperationId),
    /// The operation's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What had to be written together with it is not as expected: the request id is taken, or the application has
    /// changed. Nothing was done; read again and decide anew.
    #[error("what had to be written together with the command has changed meanwhile")]
    Conflict(#[source] CommitError),
    /// Too many wait for this operation already. Nothing was done.
    #[error("operation {0} has too many requests waiting")]
    Busy(OperationId),
    /// The store does not take the outcome at the moment. It may still become durable.
    #[error("the store does not take the outcome of the command for operation {0}; it may still become durable")]
    Stalled(OperationId),
    /// Nobody drives the operation: the scheduler is shutting down, or has failed to take it up.
    #[error("nobody drives operation {0} at the moment")]
    NotDriven(OperationId),
    /// The store cannot be read.
    #[error("cannot read operation {0}")]
    Load(OperationId, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a result or wish that came beside the stream does not count.
#[derive(Debug, thiserror::Error)]
pub enum CompletionError {
    /// There is no such shutdown.
    #[error("shutdown not found")]
    NotFound,
    /// The token is not that of the shutdown.
    #[error("the completion token is not that of the shutdown")]
    TokenInvalid,
    /// The attempt is over, with another result.
    #[error("the attempt is over")]
    Stale,
    /// Nothing is left to be granted; the total in force stays.
    #[error("no further extension is left")]
    Exhausted {
        /// What is in force.
        granted: Granted,
    },
    /// The driver could not make it durable now; repeat it.
    #[error("the completion could not be recorded")]
    NotRecorded(#[source] CommandError),
}

/// The time an application has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Total grace period in force.
    pub grace: Duration,
    /// When it ends.
    pub deadline: Moment,
    /// What is left of the policy's `max_extension`.
    pub remaining: Duration,
}

/// What the driver works with.
pub struct Parts {
    /// Where operations are.
    pub store: Arc<dyn Store>,
    /// What deadlines are measured on.
    pub clock: Arc<dyn Clock>,
    /// How hooks are reached.
    pub hooks: Hooks,
    /// Where tokens come from.
    pub secrets: Arc<Secrets>,
    /// Who owns the tasks.
    pub tasks: Tasks,
    /// When to rest.
    pub drain: drain::Watch,
    /// What is sent along for those who trace.
    pub(crate) traces: Traces,
    /// Where the jitter of repeated commits comes from.
    pub randomness: Box<dyn Fn() -> Randomness + Send + Sync>,
}

/// What every operation's task works with.
struct Context {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    hooks: Hooks,
    secrets: Arc<Secrets>,
    tasks: Tasks,
    drain: drain::Watch,
    traces: Traces,
    randomness: Box<dyn Fn() -> Randomness + Send + Sync>,
    health: Health,
    /// Places for operations that are being taken up again.
    recoveries: Semaphore,
    /// The mailboxes of the open operations.
    open: watch::Sender<BTreeMap<OperationId, mpsc::Sender<Message>>>,
}

/// The driver, for everybody else. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    context: Arc<Context>,
}

impl Handle {
    /// A driver without operations. Those in the store are taken up by [`Handle::recover`].
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { store, clock, hooks, secrets, tasks, drain, traces, randomness } = parts;
        let open = watch::Sender::new(BTreeMap::new());
        let health = Health::default();
        let recoveries = Semaphore::new(recovery::AT_ONCE);
        let context =
            Context { store, clock, hooks, secrets, tasks, drain, traces, randomness, health, recoveries, open };
        Self { context: Arc::new(context) }
    }

    /// Takes up an operation that the caller has made durable; `revision` is that of its record. Taking it up twice is
    /// harmless.
    pub async fn adopt(&self, operation: Operation, revision: Revision) {
        self.take_up(Snapshot { operation, revision }, Entry::Accepted);
    }

    /// Carries out a command and answers when its outcome is durable. Bounded: after a time a command that could not
    /// be made durable is answered with [`CommandError::Stalled`].
    pub async fn command(&self, id: &OperationId, command: Command) -> Result<Snapshot, CommandError> {
        let Some(place) = self.reserve(id)? else { return self.command_closed(id, &command).await };
        let (answer, outcome) = oneshot::channel();
        place.send(Message::Command { command: Box::new(command), answer });
        wait_for(id, outcome).await?
    }

    /// Takes a result that came beside the stream. The first of stream and call wins; the same result again is `Ok`.
    pub async fn complete(
        &self,
        shutdown_id: &str,
        token: &CompletionToken,
        mut result: StopResult,
    ) -> Result<(), CompletionError> {
        blot_out(&mut result.message, token);
        let ShutdownId { operation, attempt, instance } = self.check_token(shutdown_id, token)?;
        let Some(place) = self.reserve(&operation).map_err(CompletionError::NotRecorded)? else {
            let stored = self.load(&operation).await.map_err(CompletionError::of_closed)?;
            return match completion::verdict(&stored.operation, &instance, attempt, &result) {
                Verdict::Known => Ok(()),
                Verdict::Refused(error) => Err(error),
                Verdict::Counts(_) => Err(CompletionError::NotRecorded(CommandError::NotDriven(operation))),
            };
        };
        let (answer, outcome) = oneshot::channel();
        place.send(Message::Complete { instance, attempt, result: Box::new(result), answer });
        wait_for(&operation, outcome).await.map_err(CompletionError::NotRecorded)?
    }

    /// Asks for more time beside the stream: `wanted` is the total.
    pub async fn want_more_time(
        &self,
        shutdown_id: &str,
        token: &CompletionToken,
        wanted: Duration,
    ) -> Result<Granted, CompletionError> {
        let ShutdownId { operation, attempt, instance } = self.check_token(shutdown_id, token)?;
        let Some(place) = self.reserve(&operation).map_err(CompletionError::NotRecorded)? else {
            let stored = self.load(&operation).await.map_err(CompletionError::of_closed)?;
            let now = Moment::from_millis(self.context.clock.now());
            completion::granted(&stored.operation, &instance, attempt, now)?;
            return Err(CompletionError::NotRecorded(CommandError::NotDriven(operation)));
        };
        let (answer, outcome) = oneshot::channel();
        place.send(Message::MoreTime { instance, attempt, wanted, answer });
        wait_for(&operation, outcome).await.map_err(CompletionError::NotRecorded)?
    }

    /// Whether every open operation is being driven and its changes reach the store: part of readiness.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.context.health.is_good()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.context.health.gauges()
    }

    /// Resolves when no operation is open.
    pub async fn idle(&self) {
        // The sender is borrowed from `self`, so it cannot be gone.
        let Ok(_) = self.context.open.subscribe().wait_for(BTreeMap::is_empty).await else { return };
    }

    /// A place in the mailbox of an operation; none if nobody drives it.
    fn reserve(&self, id: &OperationId) -> Result<Option<mpsc::OwnedPermit<Message>>, CommandError> {
        let Some(mailbox) = self.context.open.borrow().get(id).cloned() else { return Ok(None) };
        match mailbox.try_reserve_owned() {
            Ok(place) => Ok(Some(place)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CommandError::Busy(id.clone())),
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(None),
        }
    }

    fn take_up(&self, stored: Snapshot, entry: Entry) {
        let id = stored.operation.id().clone();
        let (outlet, mailbox) = mpsc::channel(MAILBOX_MAX);
        let taken = self.context.open.send_if_modified(|open| {
            let free = !open.contains_key(&id);
            if free {
                open.insert(id.clone(), outlet.clone());
            }
            free
        });
        if !taken {
            warn!(operation.id = %id, "operation is driven already");
            return;
        }
        let place = Place { context: Arc::clone(&self.context), id: id.clone() };
        let life = Box::pin(Actor::new(Arc::clone(&self.context), stored, outlet, mailbox).run(entry));
        self.context.tasks.spawn(format!("operation {id}"), async move {
            let _place = place;
            life.await;
        });
    }

    /// A command for an operation nobody drives: it is over, and says so; or it should be driven and is not.
    async fn command_closed(&self, id: &OperationId, command: &Command) -> Result<Snapshot, CommandError> {
        let stored = self.load(id).await?;
        let mut copy = stored.operation.clone();
        let step = actor::apply(&mut copy, Moment::from_millis(self.context.clock.now()), command)?;
        if step.changed || !stored.operation.is_done() {
            return Err(CommandError::NotDriven(id.clone()));
        }
        Ok(stored)
    }

    async fn load(&self, id: &OperationId) -> Result<Snapshot, CommandError> {
        let loaded = records::load::<OperationRecord>(&*self.context.store, records::operation_key(id)).await;
        match loaded {
            Ok(Some(stored)) => Ok(Snapshot { operation: stored.record.0, revision: stored.revision }),
            Ok(None) => Err(CommandError::NotFound(id.clone())),
            Err(error) => Err(unreadable(id, error)),
        }
    }

    fn check_token(&self, shutdown_id: &str, token: &CompletionToken) -> Result<ShutdownId, CompletionError> {
        let id = ShutdownId::parse(shutdown_id).ok_or(CompletionError::NotFound)?;
        let right = self.context.secrets.is_completion_token(&id, token);
        if right || active(Mutant::TokenUnchecked) { Ok(id) } else { Err(CompletionError::TokenInvalid) }
    }
}

fn unreadable(id: &OperationId, error: LoadError) -> CommandError {
    CommandError::Load(id.clone(), Box::new(error))
}

/// Waits for an answer of an operation's task, at most [`COMMAND_TIMEOUT`].
async fn wait_for<T>(id: &OperationId, outcome: oneshot::Receiver<T>) -> Result<T, CommandError> {
    match timeout(COMMAND_TIMEOUT, outcome).await {
        Ok(Ok(outcome)) => Ok(outcome),
        // The task ended with the message in its hands or in its mailbox: nobody knows how far it got.
        Ok(Err(_)) | Err(_) => Err(CommandError::Stalled(id.clone())),
    }
}

impl CompletionError {
    fn of_closed(error: CommandError) -> Self {
        match error {
            CommandError::NotFound(_) => Self::NotFound,
            CommandError::Refused(_)
            | CommandError::Conflict(_)
            | CommandError::Busy(_)
            | CommandError::Stalled(_)
            | CommandError::NotDriven(_)
            | CommandError::Load(..) => Self::NotRecorded(error),
        }
    }
}

/// Takes the operation off the list of open ones when its task ends, however it ends.
struct Place {
    context: Arc<Context>,
    id: OperationId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.context.open.send_modify(|open| {
            open.remove(&self.id);
        });
    }
}
