//! The hook: serves `quiesce.v1.ShutdownHook` for one [`Application`].
//!
//! Owns the protocol: which shutdown runs, what is reported, what survives a restart, who may start what. It does not
//! know processes (they are below the seam), sockets (see [`crate::serve`]) or schedulers (see [`crate::gateway`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_protocol::v1;
use quiesce_runtime::clock::{self, Timeline};
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::trace_context::TraceContext;
use tokio::sync::{mpsc, watch};

use crate::application::{Application, End, HoldKind, Permission};
use crate::identity::Identity;
use engine::{Command, Engine};
use record::Record;
use refusal::Refusal;
use report::{StartPhase, StartProgress};

pub(crate) mod chronicle;
mod engine;
mod order;
pub(crate) mod record;
mod refusal;
mod report;
mod service;
mod shutdown;
mod starting;
mod stopping;
mod wire;

pub use order::Disposition;
pub use record::{RecordError, Records, Shelf};
pub(crate) use refusal::Refusal as HookRefusal;

/// Commands that wait for the owner. It never waits for anything itself, so the queue is empty nearly always; callers
/// beyond it wait in their RPCs.
const COMMANDS: usize = 64;

/// What is done while a shutdown can still be taken back. `Err` says why the application must not be stopped now. The
/// future is dropped when the shutdown is taken back.
pub type Drain = Arc<dyn Fn(DrainOrder) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Order to prepare the application for its stop.
#[derive(Debug, Clone)]
pub struct DrainOrder {
    /// Name of the operation, empty when unknown.
    pub operation: String,
    /// What comes after the stop.
    pub kind: HoldKind,
    /// Time for drain and stop together.
    pub grace: Option<Duration>,
    /// Parameters of the policy, for the application.
    pub parameters: BTreeMap<String, String>,
    /// Where this stands in the trace of whoever asked, for those who trace too.
    pub trace: Option<TraceContext>,
}

/// What a hook is told at its birth.
pub struct HookOptions {
    /// The instance it serves.
    pub identity: Identity,
    /// Name of the implementation in `HookInfo`.
    pub implementation: &'static str,
    /// Gives `CAPABILITY_CANCEL`: without it the application is told to stop at once.
    pub drain: Option<Drain>,
    /// Whose clocks it goes by.
    pub machine: Machine,
    durable: bool,
}

impl HookOptions {
    /// A hook for `identity` on this machine, without a drain.
    pub fn new(identity: Identity) -> Self {
        Self { identity, implementation: "quiesce-agent", drain: None, machine: Machine::local(), durable: false }
    }
}

impl fmt::Debug for HookOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookOptions").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What the program around the hook may want to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// A shutdown is in progress.
    pub stopping: bool,
    /// A start is in progress.
    pub starting: bool,
    /// The highest epoch seen.
    pub epoch: u64,
    /// The permission to run of this epoch was given back to the scheduler: it may not be used again.
    pub released: u64,
    /// What became of the stopped instance, once the scheduler has said so.
    pub concluded: Option<Disposition>,
}

/// Why a hook cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What an earlier program left cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Time since an earlier program cannot be measured.
    #[error(transparent)]
    Clock(#[from] clock::StartError),
}

/// How a start came out that was ordered by this program itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartOutcome {
    /// It runs and is ready.
    Ready,
    /// It was started and did not come up, or could not be executed.
    Failed(String),
    /// It was not started.
    Refused(HookRefusal),
}

/// The hook of one application. Clones are handles of the same hook.
#[derive(Clone)]
pub struct Hook {
    app: Arc<dyn Application>,
    options: Arc<HookOptions>,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Hook {
    /// Takes up what an earlier program left in `records`, a shutdown in progress included, and runs the hook as a task
    /// of `tasks` until the last handle is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(
        app: Arc<dyn Application>,
        mut options: HookOptions,
        records: Records,
        tasks: &Tasks,
    ) -> Result<Self, OpenError> {
        options.durable = records.is_durable();
        let stored = records.load()?;
        let anchor = stored.as_ref().map(|record| record.anchor.clone().into());
        let clock = Timeline::start_with(Box::new(Arc::clone(&options.machine.clocks)), anchor.as_ref())?;
        let record = stored.unwrap_or_else(|| Record::new(clock.anchor()));
        let options = Arc::new(options);
        let (view, views) = watch::channel(View { released: record.released, epoch: record.epoch, ..View::default() });
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let engine = Engine::new(Arc::clone(&app), Arc::clone(&options), Arc::new(records), record, clock, view);
        tasks.spawn("hook", engine.run(inbox));
        Ok(Self { app, options, commands, view: views })
    }

    /// The instance it serves.
    pub fn identity(&self) -> &Identity {
        &self.options.identity
    }

    /// What goes on. Level-triggered.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// The application it serves.
    pub fn application(&self) -> &Arc<dyn Application> {
        &self.app
    }

    /// Starts the application for this program itself and waits until it is ready or has failed.
    pub(crate) async fn start(&self, permission: Permission) -> StartOutcome {
        let command = starting::own_start(permission, order::default_heartbeat());
        let mut reports = match self.ask(|reply| Command::Start { command, reply }).await {
            Ok(Ok(reports)) => reports,
            Ok(Err(refusal)) | Err(refusal) => return StartOutcome::Refused(refusal),
        };
        let over = |progress: &StartProgress| match progress {
            StartProgress::Report(report) => report.verdict.is_some(),
            StartProgress::Refused(_) => true,
        };
        match reports.wait_for(over).await.map(|progress| progress.clone()) {
            Ok(StartProgress::Report(report)) if report.phase == StartPhase::Ready => StartOutcome::Ready,
            Ok(StartProgress::Report(report)) => StartOutcome::Failed(report.message),
            Ok(StartProgress::Refused(refusal)) => StartOutcome::Refused(refusal),
            Err(_gone) => StartOutcome::Refused(Refusal::NotServing { reason: "the agent is ending".to_owned() }),
        }
    }

    /// Tells the application to stop because this program is to end; refused while a shutdown does so.
    pub(crate) async fn terminate(&self, grace: Option<Duration>) -> Result<(), HookRefusal> {
        self.ask(|reply| Command::Terminate { grace, reply }).await?
    }

    /// Asks whether this program may end. From a yes on nothing new is accepted.
    pub(crate) async fn leave(&self) -> bool {
        // An owner that is gone holds nobody back.
        self.ask(|reply| Command::Leave { held: false, reply }).await.unwrap_or(true)
    }

    /// The same for an agent that holds its application: the hold outlives it.
    pub(crate) async fn leave_held(&self) -> bool {
        self.ask(|reply| Command::Leave { held: true, reply }).await.unwrap_or(true)
    }

    /// Records that the permission to run under `epoch` is given back. Durable when it returns.
    pub(crate) async fn release(&self, epoch: u64) -> Result<(), HookRefusal> {
        self.ask(|reply| Command::Release { epoch, reply }).await?
    }
}

/// The end of a run as `ReportEnd` wants it.
pub(crate) fn end_to_wire(end: &End) -> v1::StopResult {
    wire::end_result(end)
}
