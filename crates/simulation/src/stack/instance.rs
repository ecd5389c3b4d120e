//! One instance of an application: its disk, its process, and the seam through which its agent sees both.
//!
//! Disk and process outlive the agent, as they do on a real machine. Every write to the disk takes time and is a place
//! to crash at. What the process does when it is told, and what becomes of it, is decided by chance; what must never
//! be done to it is checked by the [`Judge`].

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use quiesce_agent::application::{
    AppState, AppStatus, Application, Capabilities, End, Evidence, Hold, HoldError, HoldOrder, KillError, Permission,
    Ready, StartError, StartOrder, StopError, StopOrder,
};
use quiesce_agent::hook::Shelf;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::sleep;

use super::ambush::Ambush;
use super::judge::Judge;
use super::machine::Boot;
use super::story::Story;

/// A write to the disk of an agent takes up to this long.
const WRITE_MAX_MS: u64 = 3;
/// From a kill to the end.
const KILL_TAKES: Duration = Duration::from_millis(20);

/// What the application does when it is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Ends within half a second.
    Quick,
    /// Takes seconds, within the grace period.
    Slow,
    /// Does not end until it is killed.
    Deaf,
}

/// One instance. Lives as long as the run.
pub(super) struct Instance {
    /// The host it is on.
    pub(super) host: String,
    pub(super) application: &'static str,
    pub(super) name: &'static str,
    pub(super) cluster: &'static str,
    pub(super) manner: Manner,
    story: Story,
    judge: Judge,
    pub(super) ambush: Ambush,
    state: Mutex<State>,
}

struct State {
    chance: StdRng,
    /// How many times a start still fails.
    failing_starts: u32,
    // The disk.
    epoch: u64,
    revoked: u64,
    hold: Option<Hold>,
    told: Vec<String>,
    /// A start was recorded, and it is not recorded how it came out.
    starting: bool,
    record: Option<Vec<u8>>,
    last: Option<Ended>,
    // The machine.
    boot: Boot,
    boots: u32,
    run: Option<Run>,
    // The agent.
    lives: u64,
    /// Revision of the hook's record in this life.
    revision: u64,
    status: Option<watch::Sender<AppStatus>>,
}

/// A process.
struct Run {
    epoch: u64,
    start_time: SystemTime,
    /// The life of the agent whose child it is.
    parent: u64,
    ready_at: Duration,
    is_ready: bool,
    is_told: bool,
    /// When it ends by itself, with which code.
    ends_at: Option<(Duration, i32)>,
    is_killed: bool,
}

/// How the last process ended.
#[derive(Clone)]
struct Ended {
    start_time: Option<SystemTime>,
    end: End,
}

impl Instance {
    pub(super) fn new(
        (application, name, cluster): (&'static str, &'static str, &'static str),
        (manner, failing_starts): (Manner, u32),
        ambush: Ambush,
        story: &Story,
        judge: &Judge,
        seed: u64,
    ) -> Arc<Self> {
        let mut chance = StdRng::seed_from_u64(seed);
        let host = format!("{application}-{name}");
        let boot =
            Boot { id: format!("{host} boot 1"), at: Duration::ZERO, skew_ms: chance.random_range(-2000..=2000) };
        let state = State {
            chance,
            failing_starts,
            epoch: 0,
            revoked: 0,
            hold: None,
            told: Vec::new(),
            starting: false,
            record: None,
            last: None,
            boot,
            boots: 1,
            run: None,
            lives: 0,
            revision: 0,
            status: None,
        };
        let (story, judge) = (story.clone(), judge.clone());
        Arc::new(Self { host, application, name, cluster, manner, story, judge, ambush, state: Mutex::new(state) })
    }

    /// A new life of its agent begins. What it finds is what the last one left.
    pub(super) fn open(self: &Arc<Self>) -> Beside {
        let mut state = self.state();
        state.lives += 1;
        state.revision = 0;
        if state.starting && state.run.is_none() {
            state.last = Some(Ended { start_time: None, end: unseen("was never seen") });
            state.starting = false;
        }
        let status = watch::Sender::new(state.status());
        state.status = Some(status);
        Beside { instance: Arc::clone(self), life: state.lives }
    }

    /// Its agent has crashed, or ended.
    pub(super) fn agent_gone(&self) {
        self.state().status = None;
    }

    /// The machine has lost power: no process is left, and a new boot begins.
    pub(super) fn power_lost(&self) {
        let mut state = self.state();
        state.status = None;
        state.boots += 1;
        let skew_ms = state.chance.random_range(-2000..=2000);
        state.boot = Boot { id: format!("{} boot {}", self.host, state.boots), at: self.story.now(), skew_ms };
        if let Some(run) = state.run.take() {
            self.judge.ended(self.application, self.cluster, self.name);
            state.last = Some(Ended { start_time: Some(run.start_time), end: unseen("went down with its machine") });
        }
    }

    /// The process crashes now, if there is one.
    pub(super) fn crash_process(&self) -> bool {
        let now = self.story.now();
        let mut state = self.state();
        let Some(run) = state.run.as_mut() else { return false };
        run.ends_at = Some((now, 1));
        true
    }

    pub(super) fn boot(&self) -> Boot {
        self.state().boot.clone()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.state().hold.as_ref().is_some_and(|hold| hold.deleted)
    }

    /// Lets the process do what is due.
    pub(super) fn tick(&self, now: Duration) {
        let mut state = self.state();
        let lives = state.lives;
        let agent = state.status.is_some();
        let Some(run) = state.run.as_mut() else { return };
        if let Some((at, code)) = run.ends_at
            && at <= now
        {
            let how = if run.is_killed { "was killed" } else { "exited" };
            self.story.tell(&self.host, format_args!("the process {how} (epoch {}, code {code})", run.epoch));
            self.judge.ended(self.application, self.cluster, self.name);
            let evidence = match (agent, run.parent == lives) {
                (true, true) => Evidence::GroupEmpty,
                (true, false) => Evidence::ExitObserved,
                (false, _) => Evidence::ProcessGone,
            };
            let seen = evidence == Evidence::GroupEmpty;
            let end = End {
                exit_code: (seen && !run.is_killed).then_some(code),
                exit_signal: (seen && run.is_killed).then_some(9),
                evidence,
                clean: (seen && !run.is_killed).then_some(code == 0),
                killed: run.is_killed,
                message: how.to_owned(),
            };
            state.last = Some(Ended { start_time: Some(run.start_time), end });
            state.run = None;
            state.publish();
        } else if !run.is_ready && run.ready_at <= now {
            run.is_ready = true;
            state.publish();
        }
    }

    /// What one write to the disk takes.
    async fn pass_time(&self) {
        self.ambush.pass().await;
        let millis = self.state().chance.random_range(0..=WRITE_MAX_MS);
        sleep(Duration::from_millis(millis)).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn status(&self) -> AppStatus {
        let hold = self.hold.clone();
        match &self.run {
            Some(run) => AppStatus {
                state: match (run.is_told, run.is_ready) {
                    (true, _) => AppState::Stopping,
                    (false, true) => AppState::Running,
                    (false, false) => AppState::Starting,
                },
                epoch: run.epoch,
                start_time: Some(run.start_time),
                processes: 1,
                ready: run.is_ready.then_some(Ready::Notified),
                hold,
                ..AppStatus::default()
            },
            None => AppStatus {
                state: if hold.is_some() { AppState::Held } else { AppState::Stopped },
                epoch: self.epoch,
                start_time: self.last.as_ref().and_then(|last| last.start_time),
                end: self.last.as_ref().map(|last| last.end.clone()),
                hold,
                ..AppStatus::default()
            },
        }
    }

    fn publish(&self) {
        if let Some(status) = &self.status {
            status.send_replace(self.status());
        }
    }
}

/// The instance as its agent sees it, for one life of the agent.
pub(super) struct Beside {
    instance: Arc<Instance>,
    life: u64,
}

impl Beside {
    /// Time passes while something is written.
    async fn write(&self) {
        self.instance.pass_time().await;
    }

    fn tell(&self, what: impl std::fmt::Display) {
        self.instance.story.tell(&self.instance.host, what);
    }

    fn permitted(&self, permission: Permission) -> Result<u64, StartError> {
        let state = self.instance.state();
        match (&state.hold, permission) {
            (Some(hold), _) if hold.deleted => Err(StartError::Deleted { message: "deleted for good".to_owned() }),
            (_, Permission::New(epoch)) if epoch > state.epoch => Ok(epoch),
            (_, Permission::New(epoch)) => Err(StartError::Outdated { epoch, highest: state.epoch }),
            (Some(hold), Permission::Standing | Permission::Unfenced) => Err(StartError::Held(hold.clone())),
            (None, Permission::Standing) if state.epoch > state.revoked => Ok(state.epoch),
            (None, Permission::Standing) => Err(StartError::NoPermission),
            (None, Permission::Unfenced) => Ok(state.epoch),
        }
    }
}

impl Application for Beside {
    fn capabilities(&self) -> Capabilities {
        Capabilities { check: false, kill: true, hold: true, start: true, settle: true, extend: false, durable: true }
    }

    fn status(&self) -> watch::Receiver<AppStatus> {
        let state = self.instance.state();
        state.status.as_ref().expect("an agent lives beside it").subscribe()
    }

    fn has_standing_permission(&self) -> bool {
        let state = self.instance.state();
        state.epoch > state.revoked
    }

    fn hold(&self, order: HoldOrder) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async move {
            self.write().await;
            let HoldOrder { operation, kind, epoch } = order;
            {
                let mut state = self.instance.state();
                if !state.hold.as_ref().is_some_and(|hold| hold.deleted) {
                    let since = format!("{:?}", self.instance.story.now());
                    state.hold = Some(Hold { operation: operation.clone(), kind, epoch, since, deleted: false });
                    state.publish();
                }
            }
            self.write().await;
            let mut state = self.instance.state();
            state.epoch = state.epoch.max(epoch);
            state.revoked = state.epoch;
            state.publish();
            drop(state);
            self.tell(format_args!("held for {kind} {operation} (epochs up to {epoch} are revoked)"));
            Ok(())
        })
    }

    fn stop(&self, order: StopOrder) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async move {
            let known = |state: &State| state.run.is_none() || state.told.contains(&order.shutdown_id);
            if known(&self.instance.state()) {
                return Ok(());
            }
            self.write().await;
            self.instance.state().told.push(order.shutdown_id.clone());
            self.write().await;
            let now = self.instance.story.now();
            let mut state = self.instance.state();
            let takes = match self.instance.manner {
                Manner::Quick => Some(state.chance.random_range(10..500)),
                Manner::Slow => Some(state.chance.random_range(2_000..6_000)),
                Manner::Deaf => None,
            };
            let Some(run) = state.run.as_mut() else { return Ok(()) };
            self.tell(format_args!("SIGTERM (epoch {}, {})", run.epoch, order.shutdown_id));
            self.instance.judge.told(&order.shutdown_id);
            run.is_told = true;
            if let (Some(millis), None) = (takes, run.ends_at) {
                run.ends_at = Some((now + Duration::from_millis(millis), 0));
            }
            state.publish();
            Ok(())
        })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), KillError>> {
        Box::pin(async move {
            self.write().await;
            let now = self.instance.story.now();
            let mut state = self.instance.state();
            if let Some(run) = state.run.as_mut() {
                self.tell(format_args!("SIGKILL (epoch {})", run.epoch));
                run.is_killed = true;
                run.ends_at = Some((now + KILL_TAKES, 137));
            }
            Ok(())
        })
    }

    fn start(&self, order: StartOrder) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(async move {
            let instance = &*self.instance;
            if let Some(run) = &instance.state().run {
                return Err(StartError::StillRunning { processes: 1, epoch: run.epoch });
            }
            let epoch = self.permitted(order.permission)?;
            self.write().await;
            {
                let mut state = instance.state();
                state.epoch = epoch;
                state.starting = true;
            }
            self.write().await;
            instance.state().hold = None;
            self.write().await;
            let now = instance.story.now();
            let mut state = instance.state();
            let start_time = UNIX_EPOCH + Duration::from_secs(1_700_000_000) + now;
            let ready_at = now + Duration::from_millis(state.chance.random_range(20..1_000));
            let fails = matches!(order.permission, Permission::New(_)) && state.failing_starts > 0;
            state.failing_starts -= u32::from(fails);
            self.tell(format_args!("the process starts (epoch {epoch}, {:?})", order.permission));
            let ends_at = fails.then_some((ready_at, 1));
            let ready_at = if fails { Duration::MAX } else { ready_at };
            instance.judge.started(instance.application, instance.cluster, instance.name, epoch);
            state.starting = false;
            state.last = None;
            let (parent, is_told, is_ready, is_killed) = (self.life, false, false, false);
            state.run = Some(Run { epoch, start_time, parent, ready_at, is_ready, is_told, ends_at, is_killed });
            state.publish();
            Ok(())
        })
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async move {
            self.write().await;
            let mut state = self.instance.state();
            if let Some(hold) = state.hold.as_mut() {
                hold.deleted = true;
            }
            state.publish();
            drop(state);
            self.tell("retired");
            Ok(())
        })
    }
}

impl Shelf for Instance {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state().record.clone())
    }

    fn save(&self, revision: u64, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.pass_time().await;
            {
                let mut state = self.state();
                if revision >= state.revision {
                    (state.revision, state.record) = (revision, Some(content));
                }
            }
            self.pass_time().await;
            Ok(())
        })
    }
}

/// An end that nobody watched.
fn unseen(message: &str) -> End {
    End {
        exit_code: None,
        exit_signal: None,
        evidence: Evidence::ProcessGone,
        clean: None,
        killed: false,
        message: message.to_owned(),
    }
}
