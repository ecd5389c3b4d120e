//! An application in memory, and what the operating system knows of it.
//!
//! Two things on purpose: what is alive and how often it was told is the truth that the oracle tells; what
//! [`Application::status`] says is what the hook gets to see, and a mutant may make it lie.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use futures::future::BoxFuture;
use quiesce_agent::application::{
    AppState, AppStatus, Application, Capabilities, End, Evidence, Findings, Hold, HoldError, HoldOrder, KillError,
    Permission, Ready, StartError, StartOrder, StopError, StopOrder,
};
use quiesce_conformance::fixture::Mode;
use quiesce_runtime::tasks::Tasks;
use tokio::sync::watch;
use tokio::time::sleep;

use super::mutants::Fault;

/// What a process needs to end, or to be ready.
const MOMENT: Duration = Duration::from_millis(20);
/// How long the slow one takes.
const SLOWLY: Duration = Duration::from_millis(1_500);
/// When something starts it again.
const SOON: Duration = Duration::from_millis(500);

pub(crate) struct Imitation {
    mode: Mode,
    fault: Option<Fault>,
    status: watch::Sender<AppStatus>,
    truth: Mutex<Truth>,
    tasks: Tasks,
}

#[derive(Default)]
struct Truth {
    alive: bool,
    told: Vec<String>,
    signals: u32,
    /// Counts runs, so that what was planned for one does not happen to the next.
    run: u32,
}

impl Imitation {
    /// Never started.
    pub(crate) fn new(mode: Mode, fault: Option<Fault>, tasks: &Tasks) -> Arc<Self> {
        let status = AppStatus { state: AppState::Stopped, ..AppStatus::default() };
        let status = watch::Sender::new(status);
        Arc::new(Self { mode, fault, status, truth: Mutex::default(), tasks: tasks.clone() })
    }

    /// The same, running under this epoch.
    pub(crate) fn running(mode: Mode, fault: Option<Fault>, epoch: u64, tasks: &Tasks) -> Arc<Self> {
        let imitation = Self::new(mode, fault, tasks);
        imitation.run(epoch, AppState::Running);
        imitation
    }

    /// The oracle.
    pub(crate) fn is_alive(&self) -> bool {
        self.truth.lock().unwrap().alive
    }

    pub(crate) fn signals(&self) -> u32 {
        self.truth.lock().unwrap().signals
    }

    /// Ended from outside.
    pub(crate) fn strike(&self) {
        self.end(None, Some(9), false);
    }

    /// Told once more, by whatever mutant.
    pub(crate) fn signal_again(&self) {
        self.truth.lock().unwrap().signals += 1;
    }

    /// Whatever was to come of what it was told does not come.
    pub(crate) fn forget_orders(&self) {
        self.truth.lock().unwrap().run += 1;
    }

    fn run(&self, epoch: u64, state: AppState) -> u32 {
        let run = {
            let mut truth = self.truth.lock().unwrap();
            truth.alive = true;
            truth.run += 1;
            truth.run
        };
        self.status.send_replace(AppStatus {
            state,
            epoch,
            start_time: Some(UNIX_EPOCH + Duration::from_secs(u64::from(run))),
            processes: 1,
            ready: (state == AppState::Running).then_some(Ready::Notified),
            ..AppStatus::default()
        });
        run
    }

    fn end(&self, exit_code: Option<i32>, exit_signal: Option<i32>, killed: bool) {
        {
            let mut truth = self.truth.lock().unwrap();
            if !truth.alive {
                return;
            }
            truth.alive = false;
        }
        self.say_ended(exit_code, exit_signal, killed);
    }

    fn say_ended(&self, exit_code: Option<i32>, exit_signal: Option<i32>, killed: bool) {
        let evidence = if self.fault == Some(Fault::OnlyClaims) { Evidence::Claimed } else { Evidence::GroupEmpty };
        self.status.send_modify(|status| {
            status.state = if status.hold.is_some() { AppState::Held } else { AppState::Stopped };
            status.processes = 0;
            status.ready = None;
            status.end = Some(End {
                exit_code,
                exit_signal,
                evidence,
                clean: exit_code.map(|code| code == 0),
                killed,
                message: "ended".to_owned(),
            });
        });
    }

    /// Later, unless that run is over by then.
    fn later(self: &Arc<Self>, pause: Duration, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let (imitation, run) = (Arc::clone(self), self.truth.lock().unwrap().run);
        self.tasks.spawn("imitation", async move {
            sleep(pause).await;
            if imitation.truth.lock().unwrap().run == run {
                then(&imitation);
            }
        });
    }

    fn tell(self: &Arc<Self>) {
        self.status.send_modify(|status| status.state = AppState::Stopping);
        if self.fault == Some(Fault::ToldIsStopped) {
            self.say_ended(None, None, false);
        }
        match self.mode {
            Mode::Fast | Mode::Drains | Mode::Broken => self.later(MOMENT, |it| it.end(Some(0), None, false)),
            Mode::Exit7 => self.later(MOMENT, |it| it.end(Some(7), None, false)),
            Mode::Slow => self.later(SLOWLY, |it| it.end(Some(0), None, false)),
            Mode::Respawn => self.later(MOMENT, |it| {
                it.end(Some(0), None, false);
                it.later(SOON, |it| {
                    let epoch = it.status.borrow().epoch;
                    it.run(epoch, AppState::Running);
                });
            }),
            Mode::Deaf | Mode::Children | Mode::Untouchable => {}
        }
    }
}

/// What the hook drives. A handle of its own, since orders outlive calls.
pub(crate) struct Driven(pub(crate) Arc<Imitation>);

impl Application for Driven {
    fn capabilities(&self) -> Capabilities {
        Capabilities { check: true, kill: true, hold: true, start: true, settle: true, extend: true, durable: true }
    }

    fn status(&self) -> watch::Receiver<AppStatus> {
        self.0.status.subscribe()
    }

    fn check(&self) -> BoxFuture<'_, Findings> {
        Box::pin(async { Findings::default() })
    }

    fn hold(&self, order: HoldOrder) -> BoxFuture<'_, Result<(), HoldError>> {
        let HoldOrder { operation, kind, epoch } = order;
        self.0.status.send_modify(|status| {
            let deleted = status.hold.as_ref().is_some_and(|hold| hold.deleted);
            status.hold = Some(Hold { operation, kind, epoch, since: "now".to_owned(), deleted });
            if status.state == AppState::Stopped {
                status.state = AppState::Held;
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn stop(&self, order: StopOrder) -> BoxFuture<'_, Result<(), StopError>> {
        let it = &self.0;
        if it.mode == Mode::Untouchable {
            let reason = "not permitted".to_owned();
            return Box::pin(async { Err(StopError::NotTold { reason }) });
        }
        let fresh = {
            let mut truth = it.truth.lock().unwrap();
            let fresh = truth.alive && !truth.told.contains(&order.shutdown_id);
            if fresh {
                truth.told.push(order.shutdown_id);
                truth.signals += 1 + u32::from(it.fault == Some(Fault::SignalsTwice));
            }
            fresh
        };
        if fresh {
            it.tell();
            if it.fault == Some(Fault::KillsByItself)
                && let Some(grace) = order.grace
            {
                it.later(grace + SOON, |it| it.end(None, Some(9), false));
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), KillError>> {
        match self.0.fault {
            Some(Fault::KillsTheFirstOnly) if self.0.mode == Mode::Children => {
                self.0.say_ended(None, Some(9), true);
            }
            _ => self.0.later(MOMENT, |it| it.end(None, Some(9), true)),
        }
        Box::pin(async { Ok(()) })
    }

    fn start(&self, order: StartOrder) -> BoxFuture<'_, Result<(), StartError>> {
        let it = &self.0;
        let status = it.status.borrow().clone();
        let highest = status.epoch.max(status.hold.as_ref().map_or(0, |hold| hold.epoch));
        let epoch = match order.permission {
            Permission::New(epoch) => epoch,
            Permission::Standing | Permission::Unfenced => status.epoch,
        };
        if let Some(hold) = status.hold.filter(|hold| hold.deleted) {
            let message = format!("deleted by {}", hold.operation);
            return Box::pin(async { Err(StartError::Deleted { message }) });
        }
        if matches!(order.permission, Permission::New(_)) && epoch <= highest && it.fault != Some(Fault::TakesOldEpochs)
        {
            return Box::pin(async move { Err(StartError::Outdated { epoch, highest }) });
        }
        let first = it.truth.lock().unwrap().run == 0;
        it.run(epoch, AppState::Starting);
        if it.mode == Mode::Broken && !first {
            it.later(MOMENT, |it| it.end(Some(1), None, false));
        } else {
            it.later(MOMENT, |it| {
                it.status.send_modify(|status| {
                    status.state = AppState::Running;
                    status.ready = Some(Ready::Notified);
                });
            });
        }
        Box::pin(async { Ok(()) })
    }

    fn has_standing_permission(&self) -> bool {
        let status = self.0.status.borrow();
        status.epoch > 0 && status.hold.is_none()
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), HoldError>> {
        self.0.status.send_modify(|status| {
            if let Some(hold) = status.hold.as_mut() {
                hold.deleted = true;
            }
        });
        Box::pin(async { Ok(()) })
    }
}
