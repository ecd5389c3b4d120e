//! The life of an agent, from its start to its exit code.
//!
//! ```text
//! open what was left -> held for good? -> link to the scheduler -> gate -> watch over it -> end as it ended
//! ```
//!
//! Owns the order of these things, the signals that ask the agent to end, and the exit code. Every decision about the
//! application is the hook's or the gate's.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use quiesce_runtime::drain;
use quiesce_runtime::signals::{self, Signals};
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::{self, chain};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::application::{AppStatus, Application, End, HoldKind, HoldOrder};
use crate::args::{AgentArgs, Settings, Surroundings};
use crate::gate::{Begun, Gate, is_alive};
use crate::gateway::{Class, Gateway, Registration, UrlError, pauses};
use crate::hold::HoldFile;
use crate::hook::{self, Disposition, Drain, Hook, HookOptions, Records, View};
use crate::journal::{self, Journal};
use crate::link::{self, BindError, Link, Listener, Standing};
use crate::process::helper::Helper;
use crate::supervise::{self, Supervisor};

/// Wrong flags.
const USAGE: u8 = 2;
/// The agent itself failed.
const FAILURE: u8 = 1;
/// `EX_CONFIG`: this instance was deleted for good, and starting it again takes a decision.
const DELETED: u8 = 78;
/// As shells say it: the command cannot be executed.
const UNSTARTABLE: u8 = 127;

/// How long the agent tries to tell the scheduler that the application has ended, before it ends itself. A supervisor
/// above waits for us; 5 s is well below any grace period.
const REPORT_LIMIT: Duration = Duration::from_secs(5);

/// How long answers under way may take when the agent ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// After that, tasks are aborted.
const TASKS_LIMIT: Duration = Duration::from_secs(1);

/// While the application does not end after the agent was asked to, that is said this often.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Used for reminders when no grace period was given: the default of the policy.
const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// Why an agent could not begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("cannot use the state directory")]
    Journal(#[from] journal::OpenError),
    #[error("cannot supervise the application")]
    Supervise(#[from] supervise::OpenError),
    #[error("cannot open the hook")]
    Hook(#[from] hook::OpenError),
    #[error("cannot stand by")]
    Standby(#[source] crate::application::HoldError),
    #[error("cannot use the scheduler's address")]
    Scheduler(#[from] UrlError),
    #[error("cannot serve the hook")]
    Bind(#[from] BindError),
    #[error("cannot receive signals")]
    Signals(#[from] signals::InstallError),
}

/// Runs an agent until its application has ended, and returns the exit code of the process: that of the application,
/// 128 + signal if a signal ended it, 2 for wrong flags, 78 for an instance that was deleted for good. Sets up logging
/// and a runtime of its own; call it from `main`.
pub fn run(args: AgentArgs) -> ExitCode {
    let telemetry = args.telemetry();
    let named = args.instance.is_some();
    let settings = match args.resolve(Surroundings::read()) {
        Ok(settings) => settings,
        Err(problems) => return usage(&problems),
    };
    if let Err(error) = telemetry::init(&telemetry) {
        return usage(&[chain(&error).to_string()]);
    }
    if !named {
        info!(instance = settings.identity.instance(), "this instance has no name of its own, so it is called that");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::from(FAILURE);
        }
    };
    let code = runtime.block_on(Box::pin(live(settings)));
    // Blocking work that is left is at most a file being written; the exit does not wait for a slow disk.
    runtime.shutdown_background();
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "problems with flags come before there is a log")]
fn usage(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("error: {problem}");
    }
    eprintln!("\nFor more information, try '--help'.");
    ExitCode::from(USAGE)
}

async fn live(settings: Settings) -> u8 {
    let tasks = Tasks::new();
    let (drain, draining) = drain::channel();
    let code = match begin(settings, &tasks, draining).await {
        Ok(Beginning::Deleted(note)) => {
            error!("{note}");
            return DELETED;
        }
        Ok(Beginning::Life(life)) => life.watch_over().await,
        Err(error) => {
            error!(error = %chain(&error), "the agent cannot begin");
            return FAILURE;
        }
    };
    drain.announce();
    // Answers under way first (H6, and the answer to ConcludeShutdown), then everything else.
    if let Err(error) = drain.drain(DRAIN_LIMIT).await {
        warn!(%error, "ending with calls still under way");
    }
    if let Err(error) = tasks.shutdown(TASKS_LIMIT).await {
        tracing::debug!(%error, "tasks aborted");
    }
    code
}

enum Beginning {
    Deleted(String),
    Life(Box<Life>),
}

/// Opens what an earlier life left, and links to the scheduler. Starts nothing.
async fn begin(settings: Settings, tasks: &Tasks, drain: drain::Watch) -> Result<Beginning, BeginError> {
    let signals = Signals::install()?;
    let gateway = Gateway::new(&settings.scheduler)?;
    let journal = Journal::open(&settings.state_dir)?;
    let supervisor = Supervisor::open(settings.supervise, journal.clone(), tasks).await?;
    let status = supervisor.status().borrow().clone();
    if let Some(hold) = status.hold.as_ref().filter(|hold| hold.deleted) {
        return Ok(Beginning::Deleted(HoldFile::new(journal.directory()).note(hold)));
    }
    let never_ran = status.epoch == 0 && status.hold.is_none() && !is_alive(&status);
    if settings.standby && never_ran {
        let order = HoldOrder { operation: String::new(), kind: HoldKind::Standby, epoch: 0 };
        supervisor.hold(order).await.map_err(BeginError::Standby)?;
    }
    let mut options = HookOptions::new(settings.identity.clone());
    options.drain = settings.drain_command.map(drain_by);
    let app: Arc<dyn Application> = Arc::new(supervisor.clone());
    let hook = Hook::open(Arc::clone(&app), options, Records::in_directory(journal.directory()), tasks)?;
    tasks.spawn("signals for the application", async move {
        if let Err(error) = supervisor.forward_signals().await {
            warn!(%error, "signals are not forwarded to the application");
        }
    });
    let listener = match &settings.listen {
        Some(listen) => {
            let (listener, bound) = link::bind(&listen.address).await?;
            Some((listener, listen.advertise.clone().unwrap_or(bound)))
        }
        None => None,
    };
    let registration = Registration {
        identity: settings.identity.clone(),
        agent_id: journal.contents().agent_id,
        endpoint: listener.as_ref().map(|(_, endpoint)| endpoint.clone()),
        stop_order: settings.stop_order,
        labels: settings.labels,
        held: false,
        policy: settings.policy,
    };
    info!(
        instance = settings.identity.instance_name(),
        cluster = settings.identity.cluster(),
        state_dir = %journal.directory().display(),
        endpoint = registration.endpoint.as_deref().unwrap_or("dialling in"),
        scheduler = gateway.authority(),
        "agent"
    );
    let standing = spawn_link(&gateway, &hook, &registration, listener.map(|(listener, _)| listener), drain, tasks);
    let gate = Gate {
        hook: hook.clone(),
        gateway: gateway.clone(),
        registration: registration.clone(),
        journal,
        standing: standing.clone(),
        mode: settings.start,
    };
    Ok(Beginning::Life(Box::new(Life {
        status: app.status(),
        app,
        view: hook.view(),
        hook,
        gateway,
        registration,
        standing,
        signals,
        grace: settings.grace,
        last_run: status.start_time,
        asked_to_end: None,
        begun: None,
        gate: Some(Box::pin(gate.begin())),
    })))
}

fn spawn_link(
    gateway: &Gateway,
    hook: &Hook,
    registration: &Registration,
    listener: Option<Listener>,
    drain: drain::Watch,
    tasks: &Tasks,
) -> watch::Receiver<Standing> {
    let (standing, receiver) = watch::channel(Standing::Waiting("not asked yet".to_owned()));
    let hold = drain.hold();
    let link =
        Link { gateway: gateway.clone(), hook: hook.clone(), registration: registration.clone(), standing, drain };
    tasks.spawn("link to the scheduler", async move {
        match listener {
            Some(listener) => link.listen(listener).await,
            None => link.dial_in().await,
        }
        drop(hold);
    });
    receiver
}

/// A drain command finds what it is for in its environment.
fn drain_by(command: crate::process::helper::CommandLine) -> Drain {
    Arc::new(move |order| {
        let command = command.clone();
        Box::pin(async move {
            let mut variables = vec![
                ("QUIESCE_OPERATION".to_owned(), order.operation),
                ("QUIESCE_KIND".to_owned(), order.kind.to_string()),
            ];
            variables
                .extend(order.grace.map(|grace| ("QUIESCE_GRACE_SECONDS".to_owned(), grace.as_secs().to_string())));
            let helper =
                Helper::spawn(&command, &variables).map_err(|error| format!("cannot run {command}: {error}"))?;
            match helper.wait(None).await {
                Ok(Some(exit)) if exit.code == Some(0) => Ok(()),
                Ok(Some(exit)) => Err(match (exit.code, exit.signal) {
                    (Some(code), _) => format!("{command} exited with {code}"),
                    (None, signal) => format!("{command} was ended by signal {}", signal.unwrap_or(0)),
                }),
                Ok(None) => Err(format!("{command} was lost")),
                Err(error) => Err(format!("cannot wait for {command}: {error}")),
            }
        })
    })
}

/// An agent that has begun.
struct Life {
    app: Arc<dyn Application>,
    status: watch::Receiver<AppStatus>,
    hook: Hook,
    view: watch::Receiver<View>,
    gateway: Gateway,
    registration: Registration,
    standing: watch::Receiver<Standing>,
    signals: Signals,
    grace: Option<Duration>,
    /// When the application was started last before this life of the agent.
    last_run: Option<SystemTime>,
    /// When somebody asked the agent to end.
    asked_to_end: Option<Asked>,
    begun: Option<Begun>,
    gate: Option<BoxFuture<'static, Begun>>,
}

struct Asked {
    since: Instant,
    told: bool,
    said: Instant,
}

impl Life {
    /// Watches until there is an exit code.
    async fn watch_over(mut self) -> u8 {
        loop {
            if let Some(code) = self.verdict().await {
                return code;
            }
            let remind = self.asked_to_end.as_ref().map(|asked| asked.said + REMIND_EVERY);
            tokio::select! {
                begun = passed(&mut self.gate) => {
                    self.gate = None;
                    self.begun = Some(begun);
                }
                // Senders live as long as the agent; should one be gone, the others still wake us.
                Ok(()) = self.status.changed() => {}
                Ok(()) = self.view.changed() => {}
                Ok(()) = self.standing.changed() => {}
                signal = self.signals.next() => self.ask_to_end(signal),
                () = sleep_until(remind) => self.remind(),
            }
        }
    }

    /// Looks at everything, and says whether it is over. Level-triggered.
    async fn verdict(&mut self) -> Option<u8> {
        let status = self.status.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        let deleted = *self.standing.borrow_and_update() == Standing::Deleted;
        if view.concluded == Some(Disposition::Retired) {
            info!("the application was deleted, the agent ends as it ended");
            return Some(exit_code(status.end.as_ref()));
        }
        if is_alive(&status) {
            if self.asked_to_end.is_some() && !view.stopping {
                self.tell_to_stop().await;
            }
            return None;
        }
        if view.stopping {
            return None;
        }
        if status.hold.is_some() {
            if deleted {
                return self.retire(&status).await;
            }
            if self.asked_to_end.is_some() {
                info!("held, and asked to end: the hold stays");
                return self.hook.leave_held().await.then_some(0);
            }
            return None;
        }
        match &self.begun {
            // It has run and ended already; the gate will say so in a moment.
            None if status.start_time != self.last_run => None,
            None if self.asked_to_end.is_some() => {
                info!("asked to end before the application was started");
                self.hook.leave().await.then_some(0)
            }
            None => None,
            Some(Begun::Unstartable(reason)) if status.end.is_none() => {
                error!(reason, "the application cannot be started");
                self.hook.leave().await.then_some(UNSTARTABLE)
            }
            // A start that the hook is busy with has the word.
            Some(_) if !self.hook.leave().await => None,
            Some(_) => {
                self.report_end(&status).await;
                Some(exit_code(status.end.as_ref()))
            }
        }
    }

    fn ask_to_end(&mut self, signal: signals::Signal) {
        let now = Instant::now();
        if self.asked_to_end.is_some() {
            info!(%signal, "asked to end again; the application is given its time all the same");
            return;
        }
        if self.view.borrow().stopping {
            info!(%signal, "asked to end while a shutdown is running: it goes first");
        } else {
            info!(%signal, "asked to end");
        }
        self.asked_to_end = Some(Asked { since: now, told: false, said: now });
    }

    async fn tell_to_stop(&mut self) {
        let Some(asked) = self.asked_to_end.as_mut().filter(|asked| !asked.told) else { return };
        match self.hook.terminate(self.grace).await {
            Ok(()) => {
                info!("telling the application to stop");
                asked.told = true;
            }
            Err(refusal) => info!(reason = %refusal, "the application is not told to stop by the agent itself"),
        }
    }

    /// H12 holds here as well: the agent kills nothing. Whoever asked it to end may.
    fn remind(&mut self) {
        let Some(asked) = self.asked_to_end.as_mut() else { return };
        asked.said = Instant::now();
        let status = self.status.borrow();
        let waited = asked.since.elapsed();
        let grace = self.grace.unwrap_or(DEFAULT_GRACE);
        let says = status.said.as_deref().unwrap_or_default();
        if waited > grace {
            warn!(
                waited_seconds = waited.as_secs(),
                processes = status.processes,
                says,
                "the grace period is over and the application still runs; the agent does not kill it, and waits"
            );
        } else {
            info!(waited_seconds = waited.as_secs(), processes = status.processes, says, "waiting for the application");
        }
    }

    /// Held, and meanwhile deleted: what `ConcludeShutdown` would have told us.
    async fn retire(&mut self, status: &AppStatus) -> Option<u8> {
        if let Err(error) = self.app.retire().await {
            error!(error = %chain(&error), "cannot mark the hold as deleted, staying held");
            return None;
        }
        info!("the application was deleted while this agent was away: it ends, and nothing starts it again");
        Some(exit_code(status.end.as_ref()))
    }

    /// Frees the permission to run, so that a replacement may be admitted. From here on this agent needs a new one too.
    /// A scheduler that is away is told nothing, and the permission stands.
    async fn report_end(&mut self, status: &AppStatus) {
        let Some(end) = status.end.as_ref() else { return };
        info!(
            exit_code = end.exit_code,
            exit_signal = end.exit_signal,
            how = end.message,
            "the application has ended outside of any operation"
        );
        if status.epoch == 0 || *self.standing.borrow() != Standing::Registered {
            return;
        }
        let told = timeout(REPORT_LIMIT, async {
            if !self.gateway.is_reachable().await {
                return;
            }
            // Durable first: an answer that is lost must not leave two who think they may run.
            if let Err(refusal) = self.hook.release(status.epoch).await {
                warn!(reason = %refusal, "keeping the permission to run");
                return;
            }
            let mut pauses = pauses();
            while let Err(error) = self.gateway.report_end(&self.registration, status.epoch, end).await {
                warn!(%error, "cannot report the end of the application");
                if error.class() != Class::Pause {
                    return;
                }
                tokio::time::sleep(pauses.next_delay()).await;
            }
        });
        if told.await.is_err() {
            warn!("gave up reporting the end of the application");
        }
    }
}

/// The gate's outcome; never when there is none to wait for.
async fn passed(gate: &mut Option<BoxFuture<'static, Begun>>) -> Begun {
    match gate {
        Some(gate) => gate.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// That of the application; 128 + signal; 0 when it never ran.
fn exit_code(end: Option<&End>) -> u8 {
    let Some(end) = end else { return 0 };
    let code = match (end.exit_code, end.exit_signal) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        // Nobody saw it: only what is known to have gone well counts as that.
        (None, None) => i32::from(end.clean != Some(true)),
    };
    u8::try_from(code & 0xff).unwrap_or(FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Evidence;

    #[test]
    fn the_agent_ends_as_its_application_did() {
        let end = |exit_code, exit_signal, clean| End {
            exit_code,
            exit_signal,
            evidence: Evidence::GroupEmpty,
            clean,
            killed: false,
            message: String::new(),
        };
        assert_eq!(exit_code(None), 0);
        assert_eq!(exit_code(Some(&end(Some(7), None, Some(false)))), 7);
        assert_eq!(exit_code(Some(&end(None, Some(15), None))), 143);
        assert_eq!(exit_code(Some(&end(None, None, None))), 1);
    }
}
