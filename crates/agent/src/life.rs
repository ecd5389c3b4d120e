//! The life of an agent beside its application, from its start to its exit code.
//!
//! ```text
//! held for good? -> link to the scheduler -> gate -> watch over it -> end as it ended
//! ```
//!
//! Owns the order of these things, what it means to be asked to end, and the exit code. Every decision about the
//! application is the hook's or the gate's. It knows no processes: the application is whatever implements
//! [`Application`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use quiesce_protocol::v1;
use quiesce_runtime::drain;
use quiesce_runtime::signals::Signal;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{Acceptor, AcceptorFiles, Connector, ConnectorFiles, LoadError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use crate::application::{AppStatus, Application, End, HoldError, HoldKind, HoldOrder};
use crate::credential::Credential;
use crate::gate::{Begun, Gate, StartMode, is_alive};
use crate::gateway::{Class, Gateway, Registration, UrlError, pauses};
use crate::hook::{self, Disposition, Hook, HookOptions, Records, View};
use crate::link::{self, BindError, Link, Listener, Standing};
use crate::listen;
use crate::serve::Service;

/// The agent itself failed.
pub(crate) const FAILURE: u8 = 1;
/// As shells say it: the command cannot be executed.
const UNSTARTABLE: u8 = 127;

/// How long the agent tries to tell the scheduler that the application has ended, before it ends itself. A supervisor
/// above waits for us; 5 s is well below any grace period.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// While the application does not end after the agent was asked to, that is said this often.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// Used for reminders when no grace period was given: the default of the policy.
const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// How long answers under way may take when the agent ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// After that, tasks are aborted.
const TASKS_LIMIT: Duration = Duration::from_secs(1);

/// What an agent is made of, beside its application.
pub struct Parts {
    /// Whom the hook serves, on which machine.
    pub options: HookOptions,
    /// What the hook must not forget.
    pub records: Records,
    /// How it and the scheduler reach each other.
    pub reach: Reach,
    /// What it proves itself to the scheduler with.
    pub credential: Credential,
    /// Name of the agent for life.
    pub agent_id: String,
    /// Place of the instance among those that are stopped one after the other.
    pub stop_order: i32,
    /// Labels of the instance.
    pub labels: HashMap<String, String>,
    /// Policy of the application, should the scheduler not know it yet.
    pub policy: v1::ShutdownPolicy,
    /// An application that never ran waits for the scheduler to start it.
    pub standby: bool,
    /// Whether permission to start is asked for.
    pub start: StartMode,
    /// What the application is given when the agent is asked to end.
    pub grace: Option<Duration>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("options", &self.options).finish_non_exhaustive()
    }
}

/// How an agent and its scheduler reach each other.
pub enum Reach {
    /// Over sockets of the machine.
    Sockets {
        /// URL of the scheduler.
        scheduler: String,
        /// Files for one at `https://`; none for one at `http://`.
        tls: Option<ConnectorFiles>,
        /// Where the hook listens; without it the agent dials in.
        listen: Option<Listen>,
    },
    /// In another way, which the caller provides: for whoever has both in one process.
    Given {
        /// The scheduler.
        gateway: Gateway,
        /// Where the scheduler finds the hook.
        endpoint: String,
        /// Brings the hook its calls until drained.
        serve: Serve,
    },
}

/// Brings a service its calls until drained.
pub type Serve = Box<dyn FnOnce(Service, drain::Watch) -> BoxFuture<'static, ()> + Send>;

/// Where the hook listens, and where others find it.
#[derive(Debug, Clone)]
pub struct Listen {
    /// `host:port` or `unix:/path`.
    pub address: String,
    /// What the scheduler is told instead.
    pub advertise: Option<String>,
    /// Files for TLS; without, the hook is served in the clear. Not for a unix socket.
    pub tls: Option<AcceptorFiles>,
}

/// Where the hook is to be served.
enum Place {
    Socket(Listen),
    Given(String, Serve),
}

/// Why an agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The hook has lost its memory.
    #[error("cannot open the hook")]
    Hook(#[from] hook::OpenError),
    /// The hold of a standby cannot be made durable.
    #[error("cannot stand by")]
    Standby(#[source] HoldError),
    /// The URL is none.
    #[error("cannot use the scheduler's address")]
    Scheduler(#[from] UrlError),
    /// Certificate, key or CA cannot be used.
    #[error("cannot speak TLS with the scheduler")]
    Tls(#[from] LoadError),
    /// The same of the hook.
    #[error("cannot serve the hook in TLS")]
    HookTls(#[source] LoadError),
    /// The address is taken, or not ours.
    #[error("cannot serve the hook")]
    Bind(#[from] BindError),
}

/// Lives beside `app` until that has ended, and returns the exit code: that of the application, 128 + signal if a signal
/// ended it, 127 if it cannot be executed. Each item of `asked` is a request to end. An application whose hold says
/// that it was deleted for good is not for this: the caller does not let such an agent live.
///
/// # Errors
/// What kept the agent from beginning; nothing was started then.
pub async fn live(
    app: Arc<dyn Application>,
    parts: Parts,
    asked: BoxStream<'static, Signal>,
    tasks: &Tasks,
) -> Result<u8, BeginError> {
    let (drain, draining) = drain::channel();
    let life = begin(app, parts, asked, tasks, draining).await?;
    let code = life.watch_over().await;
    drain.announce();
    // Answers under way first (H6, and the answer to ConcludeShutdown), then everything else.
    if let Err(error) = drain.drain(DRAIN_LIMIT).await {
        warn!(%error, "ending with calls still under way");
    }
    if let Err(error) = tasks.shutdown(TASKS_LIMIT).await {
        tracing::debug!(%error, "tasks aborted");
    }
    Ok(code)
}

/// Takes up what an earlier life left, and links to the scheduler. Starts nothing.
async fn begin(
    app: Arc<dyn Application>,
    parts: Parts,
    asked: BoxStream<'static, Signal>,
    tasks: &Tasks,
    drain: drain::Watch,
) -> Result<Box<Life>, BeginError> {
    let machine = parts.options.machine.clone();
    let identity = parts.options.identity.clone();
    let (gateway, listen) = match parts.reach {
        Reach::Sockets { scheduler, tls, listen } => {
            let tls = tls.map(|files| Connector::load(files, Arc::clone(&machine.clocks))).transpose()?;
            if let Some(tls) = &tls {
                tasks.spawn("certificates", tls.clone().keep_fresh(drain.clone()));
            }
            (Gateway::new(machine.clone(), &scheduler, tls)?, listen.map(Place::Socket))
        }
        Reach::Given { gateway, endpoint, serve } => (gateway, Some(Place::Given(endpoint, serve))),
    };
    let gateway = gateway.with(parts.credential);
    let status = app.status().borrow().clone();
    let never_ran = status.epoch == 0 && status.hold.is_none() && !is_alive(&status);
    if parts.standby && never_ran {
        let order = HoldOrder { operation: String::new(), kind: HoldKind::Standby, epoch: 0 };
        app.hold(order).await.map_err(BeginError::Standby)?;
    }
    let hook = Hook::open(Arc::clone(&app), parts.options, parts.records, tasks)?;
    let listener = match listen {
        Some(Place::Socket(Listen { address, advertise, tls })) => {
            let tls = tls.map(|files| Acceptor::load(files, &[listen::PROTOCOL], Arc::clone(&machine.clocks)));
            let tls = tls.transpose().map_err(BeginError::HookTls)?;
            if let Some(tls) = &tls {
                tasks.spawn("certificates of the hook", tls.clone().keep_fresh(drain.clone()));
            }
            let scheme = if tls.is_some() { "https://" } else { "" };
            let (listener, bound) = link::bind(&*machine.network, &address, tls).await?;
            Some((listener, format!("{scheme}{}", advertise.unwrap_or(bound))))
        }
        Some(Place::Given(endpoint, serve)) => Some((Listener::Given(serve), endpoint)),
        None => None,
    };
    let registration = Registration {
        identity,
        agent_id: parts.agent_id,
        endpoint: listener.as_ref().map(|(_, endpoint)| endpoint.clone()),
        stop_order: parts.stop_order,
        labels: parts.labels,
        held: false,
        policy: parts.policy,
    };
    info!(
        instance = registration.identity.instance_name(),
        cluster = registration.identity.cluster(),
        endpoint = registration.endpoint.as_deref().unwrap_or("dialling in"),
        scheduler = gateway.authority(),
        "agent"
    );
    let standing = spawn_link(&gateway, &hook, &registration, listener.map(|(listener, _)| listener), drain, tasks);
    let gate = Gate {
        hook: hook.clone(),
        gateway: gateway.clone(),
        registration: registration.clone(),
        standing: standing.clone(),
        mode: parts.start,
    };
    Ok(Box::new(Life {
        status: app.status(),
        app,
        view: hook.view(),
        hook,
        gateway,
        registration,
        standing,
        asked,
        grace: parts.grace,
        last_run: status.start_time,
        asked_to_end: None,
        begun: None,
        gate: Some(Box::pin(gate.begin())),
    }))
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

/// An agent that has begun.
struct Life {
    app: Arc<dyn Application>,
    status: watch::Receiver<AppStatus>,
    hook: Hook,
    view: watch::Receiver<View>,
    gateway: Gateway,
    registration: Registration,
    standing: watch::Receiver<Standing>,
    /// Requests to end.
    asked: BoxStream<'static, Signal>,
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
                biased;
                begun = passed(&mut self.gate) => {
                    self.gate = None;
                    self.begun = Some(begun);
                }
                () = sleep_until(remind) => self.remind(),
                Some(signal) = self.asked.next() => self.ask_to_end(signal),
                // The verdict looks at all three, so that these have only to wake it: last, since an application can
                // change its status without pause. Senders live as long as the agent; should one be gone, the others
                // still wake us.
                Ok(()) = self.status.changed() => {}
                Ok(()) = self.view.changed() => {}
                Ok(()) = self.standing.changed() => {}
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

    fn ask_to_end(&mut self, signal: Signal) {
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
            let mut pauses = pauses(self.gateway.machine());
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
