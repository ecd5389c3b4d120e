//! An application that runs as a child of this program.
//!
//! [`Supervisor`] is the handle; everything it is asked is put in order by one task, the keeper, which owns the run. The
//! supervisor starts and stops what it is told to, at the moment it is told to. It decides nothing about *when*: that is
//! the business of the hook server, of the start gate, and of whoever they listen to.
//!
//! How an end is known, honestly:
//!
//! | evidence | when |
//! |---|---|
//! | `GroupEmpty` | we started it, reaped it, were subreaper or PID 1 all the while, and no member is left |
//! | `ChildReaped` | the same without being a subreaper: an orphan without any mark could have escaped |
//! | `ExitObserved` | a run of an earlier life of this agent: we saw its first process end and no member is left |
//! | `ProcessGone` | it ended while no agent watched, or the machine was restarted |
//! | `Claimed` | it ran in a pid namespace that cannot be seen from here |
//!
//! What a member is: [`process::membership`](crate::process). When every handle is dropped the keeper ends and the
//! application lives on; the next [`Supervisor::open`] on the same state directory finds it again.

mod check;
mod hearing;
mod keeper;
mod members;
mod run;
mod script;
mod stopping;

use std::{ffi::OsString, io};

use futures::{StreamExt as _, future::BoxFuture};
use quiesce_runtime::tasks::Tasks;
use rustix::process::Signal;
use tokio::{
    select,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    application::{
        AppStatus, Application, Capabilities, Findings, HoldError, HoldOrder, KillError, StartError, StartOrder,
        StopError, StopOrder,
    },
    delegate::StopUrl,
    hold,
    journal::{self, Journal},
    process::{
        helper_command::CommandLine,
        signal::{self, Ladder},
    },
    readiness::Probe,
};
use keeper::Keeper;

/// Orders that wait for the keeper. There is one hook server and one runner; whoever finds it full waits.
const ORDERS_MAX: usize = 16;

/// How an application is supervised.
#[derive(Debug, Clone)]
pub struct Config {
    /// Program and arguments; at least the program.
    pub command: Vec<OsString>,
    /// How it is told to stop.
    pub stop: StopMethod,
    /// How it is known to be ready after a start.
    pub ready: Probe,
    /// Exit codes that mean that all went well.
    pub success: Vec<i32>,
    /// Environment variables of the agent that the application does not get: the secrets among them.
    pub withheld: Vec<OsString>,
    /// The agent's `PATH`, for finding out beforehand whether a command exists.
    pub path: String,
}

impl Config {
    /// SIGTERM, ready as it comes, success is 0.
    pub fn new(command: Vec<OsString>) -> Self {
        Self {
            command,
            stop: StopMethod::Signals(Ladder::default()),
            ready: Probe::Auto,
            success: vec![0],
            withheld: Vec::new(),
            path: String::new(),
        }
    }
}

/// How an application is told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopMethod {
    /// By signals to its first process; when that is gone, to all that are left.
    Signals(Ladder),
    /// By a command. It finds `QUIESCE_PID`, `QUIESCE_EPOCH`, `QUIESCE_SHUTDOWN_ID`, `QUIESCE_GRACE_SECONDS` and the
    /// policy's parameters as `QUIESCE_PARAMETER_NAME` in its environment. That it exits with 0 is a claim, no proof.
    Command(CommandLine),
    /// By a script of its own that speaks the shutdown interface of Krake: it is asked here, and reports where
    /// `KRAKE_SHUTDOWN_URL` says. Its report is a claim, no proof; what still lives then is told by SIGTERM.
    Script(StopUrl),
}

impl StopMethod {
    /// The signals that are sent, if any are.
    fn ladder(&self) -> Option<Ladder> {
        match self {
            Self::Signals(ladder) => Some(ladder.clone()),
            Self::Script(_) => Some(Ladder::default()),
            Self::Command(_) => None,
        }
    }

    /// Whether this is how an application ends that does not handle what it is told by.
    fn tells_by(&self, number: i32) -> bool {
        match self {
            Self::Signals(ladder) => ladder.rungs().iter().any(|rung| signal::number(rung.signal) == number),
            // What they send is their own business; to kill, or to make it crash, is no way of telling.
            Self::Command(_) | Self::Script(_) => signal::can_tell(number),
        }
    }
}

/// Why an application cannot be supervised.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No command was given.
    #[error("no command to supervise")]
    NoCommand,
    /// It is not known whether it may be started.
    #[error(transparent)]
    Hold(#[from] hold::LoadError),
    /// What was found out about the last run cannot be written down.
    #[error("cannot bring the journal up to date")]
    Journal(#[source] journal::WriteError),
    /// The operating system does not let us look at processes.
    #[error("cannot look at the processes of the application")]
    Processes(#[source] io::Error),
}

/// Handle of a supervised application. Clones are the same application.
#[derive(Debug, Clone)]
pub struct Supervisor {
    orders: mpsc::Sender<Order>,
    status: watch::Receiver<AppStatus>,
    capabilities: Capabilities,
    journal: Journal,
    /// What is executed, and where it is looked for.
    program: (OsString, String),
}

/// What the keeper is asked.
#[derive(Debug)]
pub(crate) enum Order {
    Check(oneshot::Sender<Findings>),
    Hold(HoldOrder, oneshot::Sender<Result<(), HoldError>>),
    Stop(StopOrder, oneshot::Sender<Result<(), StopError>>),
    Kill(oneshot::Sender<Result<(), KillError>>),
    Start(StartOrder, oneshot::Sender<Result<(), StartError>>),
    Retire(oneshot::Sender<Result<(), HoldError>>),
    Forward(Signal),
}

impl Supervisor {
    /// Takes over the application of this state directory. Starts nothing: a run of an earlier life of this agent is
    /// found again if it is still there, and its end recorded if it is not.
    ///
    /// Call it inside a tokio runtime, early: from now on orphans of the application come to this process. One process
    /// can supervise several applications, but only children of its own start keep them apart for certain.
    pub async fn open(config: Config, journal: Journal, tasks: &Tasks) -> Result<Self, OpenError> {
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let program = (config.command.first().cloned().unwrap_or_default(), config.path.clone());
        let (keeper, status, capabilities) = Keeper::open(config, journal.clone(), received, tasks).await?;
        tasks.spawn("keeper of the application", keeper.work());
        Ok(Self { orders, status, capabilities, journal, program })
    }

    /// What the agent must not forget; also for the hook server.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Passes on to the application what a terminal or an operator sends to the agent: SIGHUP, SIGUSR1, SIGUSR2,
    /// SIGWINCH. Runs until the keeper has ended. SIGTERM and SIGINT are not passed on: to stop is an order.
    pub async fn forward_signals(self) -> io::Result<()> {
        let mut signals = self.journal.host().signals.to_pass_on()?;
        loop {
            let received = select! {
                biased; // once the keeper has ended nobody is left to pass anything on to
                () = self.orders.closed() => return Ok(()),
                Some(received) = signals.next() => received,
            };
            if self.orders.send(Order::Forward(received)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Asks the keeper; `None` when it is gone.
    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Application for Supervisor {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn status(&self) -> watch::Receiver<AppStatus> {
        self.status.clone()
    }

    fn check(&self) -> BoxFuture<'_, Findings> {
        Box::pin(async {
            let gone = || Findings { ok: false, findings: vec!["the agent is ending".to_owned()] };
            self.ask(Order::Check).await.unwrap_or_else(gone)
        })
    }

    fn check_start(&self) -> Result<(), String> {
        let (name, path) = &self.program;
        self.journal.host().commands.find(name, path).map(|_| ())
    }

    fn hold(&self, order: HoldOrder) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async { self.ask(|reply| Order::Hold(order, reply)).await.unwrap_or(Err(HoldError::Ended)) })
    }

    fn stop(&self, order: StopOrder) -> BoxFuture<'_, Result<(), StopError>> {
        Box::pin(async { self.ask(|reply| Order::Stop(order, reply)).await.unwrap_or(Err(StopError::Ended)) })
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), KillError>> {
        Box::pin(async { self.ask(Order::Kill).await.unwrap_or(Err(KillError::Ended)) })
    }

    fn start(&self, order: StartOrder) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(async { self.ask(|reply| Order::Start(order, reply)).await.unwrap_or(Err(StartError::Ended)) })
    }

    fn has_standing_permission(&self) -> bool {
        self.journal.contents().has_standing_permission()
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), HoldError>> {
        Box::pin(async { self.ask(Order::Retire).await.unwrap_or(Err(HoldError::Ended)) })
    }
}
