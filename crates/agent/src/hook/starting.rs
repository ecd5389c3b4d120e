//! The rules of a start: by epoch, once, and held again when it does not come up (H15, H16, H17).
//!
//! Whether anything still lives and whether the permission is good is checked twice: here, so that the refusal is an
//! answer and not a stream, and below the seam, where it is decided.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use quiesce_runtime::clock::{Clock as _, Source};
use quiesce_runtime::telemetry::chain;
use tokio::sync::watch;
use tokio::time::Instant;

use quiesce_mutation::{Mutant, active};

use super::chronicle::of_start;
use super::engine::{Done, Engine, ended, since};
use super::order::StartCommand;
use super::refusal::Refusal;
use super::report::{StartPhase, StartProgress, StartReport, StartVerdict};
use crate::application::{AppStatus, HoldError, HoldKind, Permission, StartError, StartOrder};

/// A start that is joined after a restart of the program counts its reports on from the milliseconds since it began:
/// the program before has said less. The limit leaves room for those that follow.
const FIRST_SEQUENCE_MAX: i32 = i32::MAX / 2;

/// A start and all that is known of it.
pub(super) struct Start {
    command: StartCommand,
    epoch: u64,
    accepted_ms: u64,
    sequence: i32,
    phase: StartPhase,
    stage: Stage,
    said: Option<(StartPhase, String)>,
    next_report: Instant,
    reports: watch::Sender<StartProgress>,
    clocks: Arc<dyn Source>,
}

enum Stage {
    /// The application is being started.
    Spawning,
    /// That it becomes ready, or ends.
    Waiting,
    /// It did not come up: it is being held again.
    Holding(StartVerdict),
    Over,
}

impl Start {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn is_spawning(&self) -> bool {
        matches!(self.stage, Stage::Spawning)
    }

    pub(super) fn holds_on_failure(&self) -> bool {
        self.command.hold_on_failure
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.is_over()).then_some(self.next_report)
    }

    fn new(command: StartCommand, epoch: u64, accepted_ms: u64, sequence: i32, clocks: Arc<dyn Source>) -> Self {
        let report = StartReport {
            epoch,
            sequence,
            phase: StartPhase::Accepted,
            message: "accepted".to_owned(),
            time_ms: clocks.wall_ms(),
            verdict: None,
        };
        Self {
            epoch,
            accepted_ms,
            sequence,
            phase: StartPhase::Accepted,
            stage: Stage::Spawning,
            clocks,
            said: None,
            next_report: Instant::now() + command.heartbeat,
            reports: watch::Sender::new(StartProgress::Report(report)),
            command,
        }
    }

    fn report(&mut self, message: String, verdict: Option<StartVerdict>) {
        self.sequence = self.sequence.saturating_add(1);
        let (epoch, sequence, phase) = (self.epoch, self.sequence, self.phase);
        self.next_report = Instant::now() + self.command.heartbeat.mul_f32(0.8);
        let report = StartReport { epoch, sequence, phase, message, time_ms: self.clocks.wall_ms(), verdict };
        self.reports.send_replace(StartProgress::Report(report));
    }

    fn finish(&mut self, verdict: StartVerdict) {
        self.phase = if verdict.ready.is_some() { StartPhase::Ready } else { StartPhase::Failed };
        self.stage = Stage::Over;
        self.report(verdict.message.clone(), Some(verdict));
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.stage = Stage::Over;
        self.reports.send_replace(StartProgress::Refused(refusal));
    }
}

impl Engine {
    pub(super) fn accept_start(&mut self, command: StartCommand) -> Result<watch::Receiver<StartProgress>, Refusal> {
        let status = self.status.borrow().clone();
        if let Permission::New(epoch) = command.permission
            && let Some(reports) = self.join_start(&command, epoch, &status)
        {
            return Ok(reports);
        }
        if self.leaving {
            return Err(Refusal::NotServing { reason: "the agent is ending".to_owned() });
        }
        if let Some(shutdown) = self.shutdown.as_ref().filter(|shutdown| !shutdown.is_over()) {
            return Err(Refusal::InProgress { shutdown_id: shutdown.id().to_owned() });
        }
        let highest = self.highest_epoch();
        let epoch = match command.permission {
            Permission::New(epoch) if epoch <= highest && !active(Mutant::EpochIgnored) => {
                return Err(Refusal::EpochStale { asked: epoch, in_force: highest });
            }
            Permission::New(epoch) => epoch,
            Permission::Standing | Permission::Unfenced => status.epoch,
        };
        let spawning = self.start.as_ref().is_some_and(|start| start.is_spawning());
        if spawning || !ended(&status) {
            return Err(self.still_running(&status));
        }
        let clocks = Arc::clone(&self.options.machine.clocks);
        let start = Start::new(command, epoch, self.clock.now(), 1, clocks);
        let reports = start.reports.subscribe();
        let identity = &self.options.identity;
        let (phase, reason) = (start.phase.as_str(), &start.command.reason);
        of_start!(info, identity, start, phase, reason, "starting the application");
        let order = StartOrder {
            permission: start.command.permission,
            application: identity.application().to_owned(),
            instance: identity.instance().to_owned(),
            cluster: identity.cluster().to_owned(),
            trace: start.command.trace.clone(),
        };
        self.start = Some(start);
        let app = Arc::clone(&self.app);
        self.work.push(Box::pin(async move { Done::Started { result: app.start(order).await } }));
        Ok(reports)
    }

    /// Idempotent by epoch: the running or last start, also when the program was restarted in between.
    fn join_start(
        &mut self,
        command: &StartCommand,
        epoch: u64,
        status: &AppStatus,
    ) -> Option<watch::Receiver<StartProgress>> {
        if let Some(start) = self.start.as_ref().filter(|start| start.epoch == epoch) {
            return Some(start.reports.subscribe());
        }
        if epoch != status.epoch || ended(status) {
            return None;
        }
        let clocks = Arc::clone(&self.options.machine.clocks);
        let sequence = sequence_after_restart(status, clocks.wall_ms());
        let mut start = Start::new(command.clone(), epoch, self.clock.now(), sequence, clocks);
        start.stage = Stage::Waiting;
        start.phase = StartPhase::Starting;
        let reports = start.reports.subscribe();
        self.start = Some(start);
        Some(reports)
    }

    pub(super) fn on_started(&mut self, result: Result<(), StartError>) {
        let status = self.status.borrow().clone();
        let Some(start) = self.start.as_mut() else { return };
        let error = match result {
            Ok(()) => {
                start.epoch = status.epoch;
                start.phase = StartPhase::Starting;
                let (phase, pid) = (start.phase.as_str(), status.pid);
                of_start!(info, self.options.identity, start, phase, process.pid = pid, "the application was started");
                start.stage = Stage::Waiting;
                return;
            }
            Err(error) => error,
        };
        of_start!(warn, self.options.identity, start, error = %chain(&error), "the application was not started");
        let refusal = match error {
            StartError::Spawn { .. } => {
                let message = chain(&error).to_string();
                let duration = since(&self.clock, start.accepted_ms);
                self.fail(StartVerdict { ready: None, exit_code: None, exit_signal: None, duration, message });
                return;
            }
            StartError::Unsupported => Refusal::NotImplemented { capability: "CAPABILITY_START" },
            StartError::Outdated { epoch, highest } => Refusal::EpochStale { asked: epoch, in_force: highest },
            StartError::NoPermission | StartError::Held(_) => Refusal::StartNotPermitted { reason: error.to_string() },
            StartError::Deleted { message } => Refusal::Deleted { message },
            StartError::StillRunning { processes, .. } => {
                Refusal::StillRunning { instance: self.options.identity.instance_name(), processes }
            }
            StartError::NotDurable(_) | StartError::Deaf(_) | StartError::Ended => {
                Refusal::NotServing { reason: chain(&error).to_string() }
            }
        };
        start.refuse(refusal);
        // Nothing has begun, so there is nothing to join: whoever asks again, under the same epoch too, is answered by how
        // things stand then.
        self.start = None;
    }

    /// Looks at the application, and says what there is to say.
    pub(super) fn advance_start(&mut self, status: &AppStatus) {
        let Some(start) = self.start.as_mut() else { return };
        match &start.stage {
            Stage::Waiting if status.epoch != start.epoch => {}
            Stage::Waiting if ended(status) => {
                let end = status.end.as_ref();
                let verdict = StartVerdict {
                    ready: None,
                    exit_code: end.and_then(|end| end.exit_code),
                    exit_signal: end.and_then(|end| end.exit_signal),
                    duration: since(&self.clock, start.accepted_ms),
                    message: end.map_or_else(
                        || "it ended before it was ready".to_owned(),
                        |end| format!("it ended before it was ready: {}", end.message),
                    ),
                };
                self.fail(verdict);
                return;
            }
            Stage::Waiting => {
                if let Some(ready) = status.ready {
                    let duration = since(&self.clock, start.accepted_ms);
                    let message = status.said.clone().unwrap_or_else(|| "ready".to_owned());
                    let readiness = ready.as_str();
                    let ready = Some(ready);
                    start.finish(StartVerdict { ready, exit_code: None, exit_signal: None, duration, message });
                    let phase = start.phase.as_str();
                    of_start!(info, self.options.identity, start, phase, readiness, "the application is ready");
                    return;
                }
            }
            Stage::Spawning | Stage::Holding(_) | Stage::Over => {}
        }
        if start.is_over() {
            return;
        }
        // Until it runs, the status is that of the run before, and its last words say nothing of this start.
        let runs = matches!(start.stage, Stage::Waiting) && status.epoch == start.epoch;
        let said = status.said.clone().or_else(|| Some(status.message.clone()).filter(|message| !message.is_empty()));
        let news = (start.phase, said.filter(|_| runs).unwrap_or_else(|| "starting".to_owned()));
        if start.said.as_ref() != Some(&news) || start.next_report <= Instant::now() {
            let text = news.1.clone();
            start.said = Some(news);
            start.report(text, None);
        }
    }

    /// It did not come up. What the scheduler started is held again before that is said; a shutdown under way holds
    /// by itself.
    fn fail(&mut self, verdict: StartVerdict) {
        let stopping = self.shutdown.as_ref().is_some_and(|shutdown| !shutdown.is_over());
        let Some(start) = self.start.as_mut() else { return };
        let (phase, detail) = (StartPhase::Failed.as_str(), &verdict.message);
        of_start!(warn, self.options.identity, start, phase, detail, "the application did not come up");
        if !start.command.hold_on_failure || stopping || !self.app.capabilities().hold {
            start.finish(verdict);
            return;
        }
        start.stage = Stage::Holding(verdict);
        let (operation, epoch) = (start.command.operation.clone(), start.epoch);
        let order = self.hold_order(&operation, HoldKind::Standby, epoch);
        let app = Arc::clone(&self.app);
        self.work.push(Box::pin(async move { Done::HeldAfterStart { result: app.hold(order).await } }));
    }

    pub(super) fn on_held_after_start(&mut self, result: Result<(), HoldError>) {
        let Some(start) = self.start.as_mut() else { return };
        let Stage::Holding(verdict) = &start.stage else { return };
        let mut verdict = verdict.clone();
        let identity = &self.options.identity;
        if let Err(error) = result {
            let text = "the application cannot be held after a start that failed";
            of_start!(error, identity, start, error = %chain(&error), "{text}");
            verdict.message = format!("{}; and it could not be held: {}", verdict.message, chain(&error));
        } else {
            of_start!(info, identity, start, "held: nothing starts the application from now on");
        }
        start.finish(verdict);
    }
}

/// Above everything the program before can have said of this run, unless the clock was set back.
fn sequence_after_restart(status: &AppStatus, wall_ms: u64) -> i32 {
    let began = status.start_time.and_then(|began| began.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let elapsed = Duration::from_millis(wall_ms).saturating_sub(began);
    i32::try_from(elapsed.as_millis()).unwrap_or(i32::MAX).clamp(1, FIRST_SEQUENCE_MAX)
}

/// A start nobody follows over the wire: at the start of the agent.
pub(super) fn own_start(permission: Permission, heartbeat: Duration) -> StartCommand {
    StartCommand {
        permission,
        operation: String::new(),
        heartbeat,
        reason: "the agent starts".to_owned(),
        hold_on_failure: false,
        trace: None,
    }
}
