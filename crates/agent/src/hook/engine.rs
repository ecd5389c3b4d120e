//! The owner of the shutdown and the start in progress: one task, no locks.
//!
//! Everything arrives here one after the other: commands of the service, changes of the application, results of work,
//! time. Work that takes time (records, orders to the application) runs beside the owner and comes back as [`Done`];
//! what belongs to a shutdown carries its generation, and what is stale is dropped. Who follows a shutdown reads a
//! `watch` of its latest report: a slow reader misses reports in between and delays nobody.
//!
//! The rules of a shutdown are in [`super::stopping`], those of a start in [`super::starting`].

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use quiesce_runtime::clock::{Clock as _, Timeline};
use quiesce_runtime::telemetry::chain;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info};

use super::chronicle::operation_id;
use super::order::{Disposition, ShutdownOrder, StartCommand};
use super::record::{Record, RecordError, Records};
use super::refusal::Refusal;
use super::report::{Progress, Snapshot, StartProgress};
use super::shutdown::{Recorded, Shutdown};
use super::starting::Start;
use super::{HookOptions, View};
use crate::application::{
    AppState, AppStatus, Application, HoldError, HoldKind, HoldOrder, KillError, StartError, StopError, StopOrder,
};
use crate::id;
use crate::token::Token;

/// Where an answer goes. Nobody waiting for it any more is no error: the caller went away, the work goes on (H9).
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the owner is told.
pub(crate) enum Command {
    /// Follow a shutdown that is known already; of the request nothing but the id counts (H1).
    Join {
        shutdown_id: String,
        token: Option<Token>,
        reply: Reply<Option<watch::Receiver<Progress>>>,
    },
    Shutdown {
        order: Box<ShutdownOrder>,
        reply: Reply<Result<watch::Receiver<Progress>, Refusal>>,
    },
    /// Empty id: the running or last one.
    Get {
        shutdown_id: String,
        reply: Reply<Result<Snapshot, Refusal>>,
    },
    Cancel {
        shutdown_id: String,
        reason: String,
        reply: Reply<Result<Snapshot, Refusal>>,
    },
    UpdateDeadline {
        shutdown_id: String,
        grace: Option<Duration>,
        granted: bool,
        reply: Reply<Result<(), Refusal>>,
    },
    Kill {
        shutdown_id: String,
        token: String,
        reason: String,
        reply: Reply<Result<Snapshot, Refusal>>,
    },
    Start {
        command: StartCommand,
        reply: Reply<Result<watch::Receiver<StartProgress>, Refusal>>,
    },
    Conclude {
        operation: String,
        epoch: u64,
        disposition: Disposition,
        reply: Reply<Result<(), Refusal>>,
    },
    /// The program is asked to end: stop the application, unless a shutdown does so already.
    Terminate {
        grace: Option<Duration>,
        reply: Reply<Result<(), Refusal>>,
    },
    /// The program wants to end, `held`: also while it holds the application. Once granted, nothing new is accepted.
    Leave {
        held: bool,
        reply: Reply<bool>,
    },
    /// The permission to run is about to be given back.
    Release {
        epoch: u64,
        reply: Reply<Result<(), Refusal>>,
    },
}

/// Work that has come to its end.
pub(super) enum Done {
    Recorded {
        generation: u64,
        what: Recorded,
        result: Result<(), RecordError>,
    },
    /// The pause after a record that could not be written is over.
    Paused {
        generation: u64,
    },
    Drained {
        generation: u64,
        result: Result<(), String>,
    },
    Held {
        generation: u64,
        result: Result<(), HoldError>,
    },
    Told {
        generation: u64,
        result: Result<(), StopError>,
    },
    Killed {
        generation: u64,
        result: Result<(), KillError>,
    },
    Started {
        result: Result<(), StartError>,
    },
    HeldAfterStart {
        result: Result<(), HoldError>,
    },
    Concluded {
        operation: String,
        epoch: u64,
        disposition: Disposition,
        result: Result<(), HoldError>,
        reply: Reply<Result<(), Refusal>>,
    },
    ToldLocally {
        result: Result<(), StopError>,
    },
    Released {
        epoch: u64,
        result: Result<(), RecordError>,
        reply: Reply<Result<(), Refusal>>,
    },
    /// Work that was called off.
    Nothing,
}

pub(super) struct Engine {
    pub(super) app: Arc<dyn Application>,
    pub(super) options: Arc<HookOptions>,
    records: Arc<Records>,
    pub(super) record: Record,
    revision: u64,
    pub(super) clock: Timeline,
    pub(super) status: watch::Receiver<AppStatus>,
    pub(super) shutdown: Option<Shutdown>,
    /// Raised for every shutdown that takes the place; results of earlier ones are dropped.
    pub(super) generation: u64,
    pub(super) start: Option<Start>,
    /// The application was told to stop because this program is to end.
    pub(super) told_locally: bool,
    pub(super) leaving: bool,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) view: watch::Sender<View>,
}

impl Engine {
    pub(super) fn new(
        app: Arc<dyn Application>,
        options: Arc<HookOptions>,
        records: Arc<Records>,
        record: Record,
        clock: Timeline,
        view: watch::Sender<View>,
    ) -> Self {
        let status = app.status();
        Self {
            app,
            options,
            records,
            record,
            revision: 0,
            clock,
            status,
            shutdown: None,
            generation: 0,
            start: None,
            told_locally: false,
            leaving: false,
            work: FuturesUnordered::new(),
            view,
        }
    }

    /// Runs until nobody is left who could give a command and nothing is in progress.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.resume();
        let mut orphaned = false;
        loop {
            self.advance();
            if orphaned && !self.is_busy() {
                return;
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                // Commands come last, so that no flood of them holds up the rest; what is due is done by `advance`.
                Some(done) = self.work.next() => self.finish_work(done),
                changed = self.status.changed() => if changed.is_err() {
                    error!("the application object is gone, the hook ends");
                    return;
                },
                command = commands.recv(), if !orphaned => match command {
                    Some(command) => self.handle(command),
                    None => orphaned = true,
                },
                () = sleep_until(due) => {}
            }
        }
    }

    fn handle(&mut self, command: Command) {
        // A caller that went away does not get its answer; what was ordered is done all the same.
        match command {
            Command::Join { shutdown_id, token, reply } => {
                let _gone = reply.send(self.join(&shutdown_id, token.as_ref()));
            }
            Command::Shutdown { order, reply } => {
                let _gone = reply.send(self.accept(*order));
            }
            Command::Get { shutdown_id, reply } => {
                let _gone = reply.send(self.get(&shutdown_id));
            }
            Command::Cancel { shutdown_id, reason, reply } => self.cancel(&shutdown_id, &reason, reply),
            Command::UpdateDeadline { shutdown_id, grace, granted, reply } => {
                let _gone = reply.send(self.update_deadline(&shutdown_id, grace, granted));
            }
            Command::Kill { shutdown_id, token, reason, reply } => self.kill(&shutdown_id, &token, &reason, reply),
            Command::Start { command, reply } => {
                let _gone = reply.send(self.accept_start(command));
            }
            Command::Conclude { operation, epoch, disposition, reply } => {
                self.conclude(operation, epoch, disposition, reply);
            }
            Command::Terminate { grace, reply } => {
                let _gone = reply.send(self.terminate(grace));
            }
            Command::Leave { held, reply } => {
                let holds = self.status.borrow().hold.is_some() && !held;
                self.leaving = self.leaving || !(self.is_busy() || holds);
                let _gone = reply.send(self.leaving);
            }
            Command::Release { epoch, reply } => self.release(epoch, reply),
        }
    }

    fn finish_work(&mut self, done: Done) {
        let current = |generation| generation == self.generation;
        match done {
            Done::Recorded { generation, what, result } if current(generation) => self.on_recorded(what, result),
            Done::Paused { generation } if current(generation) => self.take_up(),
            Done::Drained { generation, result } if current(generation) => self.on_drained(result),
            Done::Held { generation, result } if current(generation) => self.on_held(result),
            Done::Told { generation, result } if current(generation) => self.on_told(result),
            Done::Killed { generation, result } if current(generation) => self.on_killed(result),
            // Of a shutdown that was taken over.
            Done::Recorded { .. }
            | Done::Paused { .. }
            | Done::Drained { .. }
            | Done::Held { .. }
            | Done::Told { .. }
            | Done::Killed { .. }
            | Done::Nothing => {}
            Done::Started { result } => self.on_started(result),
            Done::HeldAfterStart { result } => self.on_held_after_start(result),
            Done::Concluded { operation, epoch, disposition, result, reply } => {
                if result.is_ok() {
                    self.tell_concluded(&operation, epoch, disposition);
                }
                self.on_concluded(disposition, result, reply);
            }
            Done::ToldLocally { result } => {
                if let Err(error) = result {
                    error!(error = %chain(&error), "cannot tell the application to stop");
                    self.told_locally = false;
                }
            }
            Done::Released { epoch, result, reply } => {
                if result.is_ok() {
                    self.view.send_modify(|view| view.released = epoch);
                }
                let _gone = reply.send(result.map_err(|error| not_durable(&error)));
            }
        }
    }

    /// Brings shutdown, start and view up to the present state of the application and the clock. Level-triggered:
    /// calling it once too often changes nothing.
    fn advance(&mut self) {
        let status = self.status.borrow_and_update().clone();
        if ended(&status) {
            self.told_locally = false;
        }
        self.advance_shutdown(&status);
        self.advance_start(&status);
        let stopping = self.shutdown.as_ref().is_some_and(|shutdown| !shutdown.is_over());
        let starting = self.start.as_ref().is_some_and(|start| !start.is_over());
        let epoch = self.highest_epoch();
        self.view.send_if_modified(|view| {
            let changed = (view.stopping, view.starting, view.epoch) != (stopping, starting, epoch);
            (view.stopping, view.starting, view.epoch) = (stopping, starting, epoch);
            changed
        });
    }

    fn next_due(&self) -> Option<Instant> {
        let shutdown = self.shutdown.as_ref().and_then(Shutdown::next_due);
        let start = self.start.as_ref().and_then(Start::next_due);
        shutdown.into_iter().chain(start).min()
    }

    /// Whether something is in progress that must not be left alone.
    fn is_busy(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| !shutdown.is_over())
            || self
                .start
                .as_ref()
                .is_some_and(|start| start.is_spawning() || start.holds_on_failure() && !start.is_over())
    }

    /// The highest epoch this hook has seen.
    pub(super) fn highest_epoch(&self) -> u64 {
        let status = self.status.borrow();
        let held = status.hold.as_ref().map_or(0, |hold| hold.epoch);
        self.record.epoch.max(status.epoch).max(held)
    }

    /// Writes the record as it stands now. Persist, then act: what it announces is done when this comes back.
    pub(super) fn save(&mut self, then: impl FnOnce(Result<(), RecordError>) -> Done + Send + 'static) {
        self.revision += 1;
        self.record.anchor = self.clock.anchor().into();
        let writing = self.records.save(self.revision, &self.record);
        self.work.push(Box::pin(async move { then(writing.await) }));
    }

    pub(super) fn hold_order(&self, operation: &str, kind: HoldKind, epoch: u64) -> HoldOrder {
        HoldOrder { operation: operation.to_owned(), kind, epoch: epoch.max(self.highest_epoch()) }
    }

    fn conclude(&mut self, operation: String, epoch: u64, disposition: Disposition, reply: Reply<Result<(), Refusal>>) {
        let status = self.status.borrow().clone();
        let refusal = if !self.app.capabilities().hold {
            Some(Refusal::NotImplemented { capability: "CAPABILITY_CONCLUDE" })
        } else if epoch != 0 && epoch < status.epoch {
            Some(Refusal::EpochStale { asked: epoch, in_force: status.epoch })
        } else if !ended(&status) || self.is_busy() {
            Some(self.still_running(&status))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let _gone = reply.send(Err(refusal));
            return;
        }
        let app = Arc::clone(&self.app);
        let standby = self.hold_order(&operation, HoldKind::Standby, epoch);
        let held = status.hold.is_some();
        self.work.push(Box::pin(async move {
            let result = match disposition {
                Disposition::Standby if held => Ok(()),
                Disposition::Standby => app.hold(standby).await,
                Disposition::Retired => app.retire().await,
            };
            Done::Concluded { operation, epoch, disposition, result, reply }
        }));
    }

    fn tell_concluded(&self, operation: &str, epoch: u64, disposition: Disposition) {
        let text = match disposition {
            Disposition::Standby => "the operation is over: this instance stands by",
            Disposition::Retired => "the application was deleted: this instance is retired",
        };
        let (id, identity) = (operation_id(operation), &self.options.identity);
        let (application, instance) = (identity.application(), identity.instance());
        info!(operation.id = id, application, instance, epoch, "{text}");
    }

    fn on_concluded(
        &mut self,
        disposition: Disposition,
        result: Result<(), HoldError>,
        reply: Reply<Result<(), Refusal>>,
    ) {
        let answer = match result {
            Ok(()) => Ok(()),
            Err(HoldError::Unsupported) => Err(Refusal::NotImplemented { capability: "CAPABILITY_CONCLUDE" }),
            Err(error) => Err(not_durable(&error)),
        };
        let concluded = answer.is_ok();
        let _gone = reply.send(answer);
        if concluded {
            self.view.send_modify(|view| view.concluded = Some(disposition));
        }
    }

    fn terminate(&mut self, grace: Option<Duration>) -> Result<(), Refusal> {
        if let Some(shutdown) = self.shutdown.as_ref().filter(|shutdown| !shutdown.is_over()) {
            return Err(Refusal::InProgress { shutdown_id: shutdown.id().to_owned() });
        }
        // It is there already or not yet, nobody can tell; the order comes again when it shows.
        if self.start.as_ref().is_some_and(Start::is_spawning) {
            return Err(Refusal::NotServing { reason: "the application is just being started".to_owned() });
        }
        if ended(&self.status.borrow()) || self.told_locally {
            return Ok(());
        }
        self.told_locally = true;
        let app = Arc::clone(&self.app);
        let shutdown_id = format!("local-{}", id::fresh(&self.options.machine));
        self.work.push(Box::pin(async move {
            let order = StopOrder { shutdown_id, grace, ..StopOrder::default() };
            Done::ToldLocally { result: app.stop(order).await }
        }));
        Ok(())
    }

    fn release(&mut self, epoch: u64, reply: Reply<Result<(), Refusal>>) {
        self.record.released = self.record.released.max(epoch);
        let epoch = self.record.released;
        self.save(move |result| Done::Released { epoch, result, reply });
    }

    pub(super) fn still_running(&self, status: &AppStatus) -> Refusal {
        Refusal::StillRunning { instance: self.options.identity.instance_name(), processes: status.processes.max(1) }
    }
}

/// Whether the end of the application is verified, as far as the implementation verifies.
pub(super) fn ended(status: &AppStatus) -> bool {
    match status.state {
        AppState::Stopped | AppState::Held => true,
        AppState::Unknown | AppState::Starting | AppState::Running | AppState::Stopping => false,
    }
}

/// Milliseconds as the timeline counts them.
pub(super) fn since(clock: &Timeline, then_ms: u64) -> Duration {
    Duration::from_millis(clock.now().saturating_sub(then_ms))
}

/// Something could not be made durable, so it was not done.
pub(super) fn not_durable(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::NotServing { reason: chain(error).to_string() }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
