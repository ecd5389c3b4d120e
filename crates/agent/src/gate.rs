//! The start gate: an application is started only with permission.
//!
//! Owns the decision what an agent does with its application when it begins, and the wait for an epoch. Once the
//! application runs or is held the gate has done its work; it is never asked again in the life of the agent.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use quiesce_mutation::{Mutant, active};

use crate::application::{AppState, AppStatus, HoldKind, Permission};
use crate::gateway::{self, Class, Gateway, Registration};
use crate::hook::{Hook, HookRefusal, StartOutcome};
use crate::id;
use crate::link::Standing;

/// While the gate waits it says so this often: seldom enough for a log, often enough for a person who looks.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Whether permission is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum StartMode {
    /// The scheduler is asked, unless the agent has a permission that still stands.
    #[default]
    Permitted,
    /// Nobody is asked: two copies are then yours to prevent.
    Always,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The application runs.
    Running,
    /// It is held; only the scheduler starts it.
    Held,
    /// It was started and ended before it was ready.
    Ended,
    /// It could not be executed.
    Unstartable(String),
}

/// Everything the gate needs.
pub(crate) struct Gate {
    pub(crate) hook: Hook,
    pub(crate) gateway: Gateway,
    pub(crate) registration: Registration,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) mode: StartMode,
}

impl Gate {
    /// Brings the application into the state it belongs into. May wait for ever; dropping it between two awaits leaves
    /// nothing half done, since starting is the hook's work.
    pub(crate) async fn begin(mut self) -> Begun {
        let mut pauses = gateway::pauses(self.gateway.machine());
        loop {
            let status = self.status();
            if is_alive(&status) {
                info!(epoch = status.epoch, pid = status.pid, "the application runs already, taking it over");
                return Begun::Running;
            }
            self.while_stopping().await;
            let status = self.status();
            let permission = match &status.hold {
                Some(hold) if hold.deleted || hold.kind == HoldKind::Standby || hold.operation.is_empty() => {
                    info!(since = hold.since, kind = %hold.kind, "held: waiting for the scheduler to start the application");
                    return Begun::Held;
                }
                Some(hold) => match self.ask_back(&hold.operation).await {
                    Some(epoch) => Permission::New(epoch),
                    None => return Begun::Held,
                },
                None => self.permission(&status).await,
            };
            match self.hook.start(permission).await {
                StartOutcome::Ready => return Begun::Running,
                StartOutcome::Failed(reason) if self.status().end.is_none() => return Begun::Unstartable(reason),
                StartOutcome::Failed(_) => return Begun::Ended,
                // A shutdown came in between, or the permission was used up by one: look again.
                StartOutcome::Refused(refusal) => {
                    warn!(reason = %refusal, "the application was not started");
                    if matches!(refusal, HookRefusal::Deleted { .. } | HookRefusal::StartNotPermitted { .. })
                        && self.status().hold.is_some()
                    {
                        return Begun::Held;
                    }
                    sleep(pauses.next_delay()).await;
                }
            }
        }
    }

    /// The permission to start an application that is not held.
    async fn permission(&mut self, status: &AppStatus) -> Permission {
        if active(Mutant::GateOpen) {
            return Permission::Unfenced;
        }
        if self.mode == StartMode::Always {
            warn!("the start gate is off (--start always): nobody makes sure that this is the only copy");
            return Permission::Unfenced;
        }
        let released = self.hook.view().borrow().released;
        if self.hook.application().has_standing_permission() && released < status.epoch {
            info!(epoch = status.epoch, "starting again under the permission that still stands");
            return Permission::Standing;
        }
        Permission::New(self.admitted(status.epoch).await)
    }

    /// Asks until an epoch is granted, and says what is waited for.
    async fn admitted(&mut self, last_epoch: u64) -> u64 {
        let mut waiting = Waiting::new();
        let mut pauses = gateway::pauses(self.gateway.machine());
        // One name for one start: a repeated question whose answer was lost gets the same epoch.
        let start_id = id::fresh(self.gateway.machine()).to_string();
        loop {
            self.registered(&mut waiting).await;
            match self.gateway.admit_start(&self.registration, &start_id, last_epoch, "").await {
                Ok(epoch) => {
                    info!(epoch, "permission to start");
                    return epoch;
                }
                Err(error) => waiting.say(&error.to_string()),
            }
            sleep(pauses.next_delay()).await;
        }
    }

    /// A held agent asks once, at its start, whether it may run again: its operation may have been abandoned.
    async fn ask_back(&mut self, held_by: &str) -> Option<u64> {
        let mut waiting = Waiting::new();
        let mut pauses = gateway::pauses(self.gateway.machine());
        let start_id = id::fresh(self.gateway.machine()).to_string();
        let last_epoch = self.hook.view().borrow().epoch;
        loop {
            self.registered(&mut waiting).await;
            match self.gateway.admit_start(&self.registration, &start_id, last_epoch, held_by).await {
                Ok(epoch) => {
                    info!(epoch, held_by, "the hold is lifted by the scheduler");
                    return Some(epoch);
                }
                // Only what is no answer yet is worth asking again; a no stands until the scheduler starts us by itself.
                Err(error) if error.is_silence() => waiting.say(&error.to_string()),
                Err(error) if error.class() == Class::Register || error.awaits_a_person() => {
                    waiting.say(&error.to_string())
                }
                Err(error) => {
                    info!(held_by, answer = %error, "held: waiting for the scheduler to start the application");
                    return None;
                }
            }
            sleep(pauses.next_delay()).await;
        }
    }

    async fn registered(&mut self, waiting: &mut Waiting) {
        loop {
            let why = match &*self.standing.borrow_and_update() {
                Standing::Registered => return,
                Standing::Waiting(why) => why.clone(),
                Standing::Deleted => "the application was deleted".to_owned(),
            };
            waiting.say(&why);
            tokio::select! {
                biased;
                // The link lives as long as the agent; should it be gone all the same, there is nobody to ask.
                Ok(()) = self.standing.changed() => {}
                () = sleep(SAY_EVERY) => {}
            }
        }
    }

    async fn while_stopping(&self) {
        let mut view = self.hook.view();
        // The owner ends with the agent, and then nobody waits here.
        let _ended = view.wait_for(|view| !view.stopping && !view.starting).await;
    }

    fn status(&self) -> AppStatus {
        self.hook.application().status().borrow().clone()
    }
}

/// Whether anything of the application lives, as far as is known.
pub(crate) fn is_alive(status: &AppStatus) -> bool {
    match status.state {
        AppState::Stopped | AppState::Held => false,
        AppState::Unknown | AppState::Starting | AppState::Running | AppState::Stopping => true,
    }
}

/// Says what is waited for: at once, when it changes, and from time to time.
struct Waiting {
    last: Option<(String, Instant)>,
    since: Instant,
}

impl Waiting {
    fn new() -> Self {
        Self { last: None, since: Instant::now() }
    }

    fn say(&mut self, why: &str) {
        let now = Instant::now();
        let known = self.last.as_ref().is_some_and(|(said, at)| said == why && now < *at + SAY_EVERY);
        if !known {
            let waited = self.since.elapsed().as_secs();
            info!(waited_seconds = waited, why, "waiting for permission to start the application");
            self.last = Some((why.to_owned(), now));
        }
    }
}
