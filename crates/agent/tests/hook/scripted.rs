//! An application in memory that does what a test tells it, and remembers what it was told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use quiesce_agent::application::{
    AppState, AppStatus, Application, Capabilities, End, Evidence, Findings, Hold, HoldError, HoldOrder, KillError,
    Permission, Ready, StartError, StartOrder, StopError, StopOrder,
};
use tokio::sync::watch;

/// Longest wait for what happens at once.
const LIMIT: Duration = Duration::from_secs(20);

/// What it does when it is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Ends at once.
    Quick,
    /// Ends when the test says so.
    Waits,
    /// Cannot be told.
    Deaf,
}

/// What it was told, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Hold(String),
    Stop(String),
    Kill,
    Start(u64),
    Retire,
}

pub(crate) struct Scripted {
    status: watch::Sender<AppStatus>,
    manner: Manner,
    told: Mutex<Vec<Told>>,
    disk_is_full: AtomicBool,
    capabilities: Capabilities,
}

impl Scripted {
    /// Runs under epoch 1.
    pub(crate) fn running(manner: Manner) -> Arc<Self> {
        Self::with(manner, AppState::Running)
    }

    /// Has never run.
    pub(crate) fn stopped() -> Arc<Self> {
        Self::with(Manner::Quick, AppState::Stopped)
    }

    fn with(manner: Manner, state: AppState) -> Arc<Self> {
        let runs = state == AppState::Running;
        let status = AppStatus {
            state,
            epoch: u64::from(runs),
            start_time: runs.then(long_ago),
            processes: u32::from(runs),
            ready: runs.then_some(Ready::Notified),
            ..AppStatus::default()
        };
        let capabilities = Capabilities {
            check: true,
            kill: true,
            hold: true,
            start: true,
            settle: true,
            extend: true,
            durable: true,
        };
        let told = Mutex::default();
        let disk_is_full = AtomicBool::new(false);
        Arc::new(Self { status: watch::Sender::new(status), manner, told, disk_is_full, capabilities })
    }

    /// Can be stopped, and nothing else.
    pub(crate) fn plain() -> Arc<Self> {
        let mut app = Arc::into_inner(Self::running(Manner::Quick)).unwrap();
        app.capabilities = Capabilities::default();
        Arc::new(app)
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// Waits until it was told to stop that often: that it is about to be told is reported, and stored, before.
    pub(crate) async fn is_told(&self, times: usize) {
        quiesce_testkit::eventually("the order to stop", LIMIT, async || self.stops() >= times).await;
    }

    /// How often it was told to stop.
    pub(crate) fn stops(&self) -> usize {
        self.told().iter().filter(|told| matches!(told, Told::Stop(_))).count()
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.status.borrow().state, AppState::Stopped | AppState::Held)
    }

    pub(crate) fn say(&self, text: &str) {
        self.status.send_modify(|status| status.said = Some(text.to_owned()));
    }

    pub(crate) fn wish(&self, more: Duration) {
        self.status.send_modify(|status| status.extend_until = Some(Instant::now() + more));
    }

    /// Ends with a code.
    pub(crate) fn exit(&self, code: i32) {
        self.end(Some(code), None, false);
    }

    /// It runs under this epoch.
    pub(crate) fn run_under(&self, epoch: u64) {
        self.status.send_modify(|status| status.epoch = epoch);
    }

    /// Something starts it behind everybody's back.
    pub(crate) fn respawn(&self) {
        self.status.send_modify(|status| {
            status.state = AppState::Running;
            status.processes = 1;
            status.end = None;
        });
    }

    /// From now on starts can be written down, or not.
    pub(crate) fn fill_disk(&self, full: bool) {
        self.disk_is_full.store(full, Ordering::SeqCst);
    }

    pub(crate) fn become_ready(&self) {
        self.status.send_modify(|status| {
            status.state = AppState::Running;
            status.ready = Some(Ready::Notified);
        });
    }

    fn end(&self, exit_code: Option<i32>, exit_signal: Option<i32>, killed: bool) {
        self.status.send_modify(|status| {
            status.state = if status.hold.is_some() { AppState::Held } else { AppState::Stopped };
            status.processes = 0;
            status.ready = None;
            status.end = Some(End {
                exit_code,
                exit_signal,
                evidence: Evidence::GroupEmpty,
                clean: exit_code.map(|code| code == 0),
                killed,
                message: "ended".to_owned(),
            });
        });
    }

    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }
}

impl Application for Scripted {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn status(&self) -> watch::Receiver<AppStatus> {
        self.status.subscribe()
    }

    fn check(&self) -> BoxFuture<'_, Findings> {
        Box::pin(async { Findings { ok: true, findings: vec!["looks well".to_owned()] } })
    }

    fn hold(&self, order: HoldOrder) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async move {
            self.note(Told::Hold(order.operation.clone()));
            self.status.send_modify(|status| {
                if status.state == AppState::Stopped {
                    status.state = AppState::Held;
                }
                let HoldOrder { operation, kind, epoch } = order;
                status.hold = Some(Hold { operation, kind, epoch, since: "now".to_owned(), deleted: false });
            });
            Ok(())
        })
    }

    fn stop(&self, order: StopOrder) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async move {
            let told = Told::Stop(order.shutdown_id);
            if self.told().contains(&told) || !self.is_alive() {
                return Ok(());
            }
            let manner = self.manner;
            if manner == Manner::Deaf {
                return Err(StopError::NotTold { reason: "it does not listen".to_owned() });
            }
            self.note(told);
            self.status.send_modify(|status| status.state = AppState::Stopping);
            if manner == Manner::Quick {
                self.exit(0);
            }
            Ok(())
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), KillError>> {
        Box::pin(async {
            self.note(Told::Kill);
            self.end(None, Some(9), true);
            Ok(())
        })
    }

    fn start(&self, order: StartOrder) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(async move {
            let Permission::New(epoch) = order.permission else { return Err(StartError::Unsupported) };
            if self.disk_is_full.load(Ordering::SeqCst) {
                return Err(StartError::NotDurable("no room left".into()));
            }
            self.note(Told::Start(epoch));
            self.status.send_modify(|status| {
                *status = AppStatus {
                    state: AppState::Starting,
                    epoch,
                    start_time: Some(long_ago()),
                    processes: 1,
                    ..AppStatus::default()
                }
            });
            Ok(())
        })
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async {
            self.note(Told::Retire);
            Ok(())
        })
    }
}

/// Nothing here depends on the hour.
fn long_ago() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}
