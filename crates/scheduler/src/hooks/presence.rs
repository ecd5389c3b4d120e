//! Presence: whether a hook answers, and what it last said about itself.
//!
//! One watcher for each registered instance. It asks regularly, and at once when there is a reason to: a registration,
//! an attached connection, a connection that broke. Reports of a running shutdown count as signs of life as well.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use quiesce_operation::Moment;
use quiesce_operation::report::{AppState, CallErrorClass, Capabilities};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::{Hook, Inner};

/// How often a hook that answers is asked: a hook that died shows within this time and [`ANSWER_TIMEOUT`].
const INTERVAL: Duration = Duration::from_secs(10);
/// How often one that does not answer is asked. It registers when it comes back; this is for hooks that do not.
const INTERVAL_ABSENT: Duration = Duration::from_secs(30);
/// Longest wait for a sign of life.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question holds a place among those asked at the same time, several times what an answer takes. It waits on
/// without one: else a few hundred hooks that have just died would keep every other from being asked for minutes.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a hook is asked while something is going on: after a registration an application is started, after the end
/// of a shutdown or start its state has just changed, and people look at once.
const INTERVAL_EAGER: Duration = Duration::from_secs(1);
/// How many questions are asked at that pace after each reason to look.
const EAGER_QUESTIONS: u32 = 10;
/// How often a hook that has just registered and does not answer, or not yet, is asked at that pace nevertheless. It is
/// asked before it has our answer, and knows by what to recognise us only then.
const QUESTIONS_OF_WELCOME: u32 = 5;
/// After so many questions in a row without an answer an attached connection is given up. What the agent sends may be
/// lost while it hears us well; then its own keep-alive finds nothing wrong, and TCP goes on for a quarter of an hour.
const UNANSWERED_MAX: u32 = 2;
/// Shortest time between two questions, whatever the reasons: a connection that breaks as soon as it stands must not
/// become a loop.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// How long a question that is asked only because it is time again keeps its place.
pub(super) const SPACING: Duration = Duration::from_millis(32);

/// What the scheduler knows of the hook of an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Presence {
    /// Whether it answers.
    pub state: HookState,
    /// Its last answer to GetHookInfo, however old.
    pub info: Option<HookInfo>,
    /// When it last proved to be alive.
    pub last_seen: Option<Moment>,
    /// Whether a connection stands: attached, or dialled with the last call gone through.
    pub connected: bool,
    /// Why it is unreachable, for people; empty when it is not.
    pub trouble: String,
}

/// Whether a hook answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum HookState {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers and could stop the application.
    Ready,
    /// It answers and says it could not.
    NotReady,
    /// It does not answer.
    Unreachable,
}

/// What a hook says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct HookInfo {
    /// The resource name of the instance it serves; empty: it does not know.
    pub instance: String,
    /// Name of the implementation.
    pub implementation: String,
    /// Its version.
    pub implementation_version: String,
    /// Version of the protocol.
    pub protocol_version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it could stop the application now.
    pub ready: bool,
    /// Why not.
    pub not_ready_reason: String,
    /// Why it could not start the application now; empty: it could, for all it knows.
    pub cannot_start_reason: String,
    /// Whether the application runs.
    pub app_state: AppState,
    /// When the running application was started, by the clock of the agent.
    pub app_start_time: Option<SystemTime>,
    /// The highest epoch it has seen.
    pub epoch: u64,
    /// What the application last said of itself.
    pub app_message: String,
}

impl Presence {
    pub(super) fn heard(&mut self, now: Moment, info: Option<HookInfo>) {
        self.last_seen = Some(now);
        self.connected = true;
        self.trouble.clear();
        self.info = info.or(self.info.take());
        let ready = self.info.as_ref().is_none_or(|info| info.ready);
        self.state = if ready { HookState::Ready } else { HookState::NotReady };
    }

    pub(super) fn missed(&mut self, reason: &str) {
        self.state = HookState::Unreachable;
        self.connected = false;
        reason.clone_into(&mut self.trouble);
    }
}

/// Watches one hook until it is forgotten or nobody needs hooks any more.
pub(super) async fn watch(inner: Weak<Inner>, hook: Arc<Hook>) {
    let mut eager = EAGER_QUESTIONS;
    let mut welcome = 0;
    let mut unanswered = 0;
    // Whether there is nothing to ask for but that it is time again.
    let mut routine = false;
    while !hook.forgotten.is_cancelled() {
        {
            let Some(inner) = inner.upgrade() else { return };
            hook.detach_if_gone();
            // One that has just said that it is there does not wait behind those that are only asked once more.
            let comes = hook.comes.swap(false, Ordering::Relaxed);
            welcome = if comes { QUESTIONS_OF_WELCOME } else { welcome };
            let absent = hook.presence.borrow().state == HookState::Unreachable;
            let places = match (absent, comes) {
                (_, true) => &inner.signs_of_life,
                (true, false) => &inner.signs_of_absent,
                (false, false) if routine => &inner.signs_of_routine,
                (false, false) => &inner.signs_of_life,
            };
            if hook.is_detached() {
                hook.missed("the agent has not dialled in");
            } else {
                // The outcome is written down by the call itself.
                let answered = tokio::select! {
                    biased;
                    () = hook.forgotten.cancelled() => return,
                    // There is more than routine to it now.
                    () = hook.look.notified(), if routine => {
                        (routine, eager) = (false, EAGER_QUESTIONS);
                        continue;
                    }
                    (answered, place) = ask(&hook, places) => {
                        if routine {
                            tokio::time::sleep(SPACING).await;
                        }
                        drop(place);
                        answered
                    }
                };
                unanswered = if answered || !hook.is_attached() { 0 } else { unanswered + 1 };
                if unanswered >= UNANSWERED_MAX {
                    hook.hang_up();
                    unanswered = 0;
                }
            }
        }
        let absent = hook.presence.borrow().state == HookState::Unreachable;
        let pause = match (absent, eager) {
            (true, _) if unanswered > 0 => INTERVAL,
            (true, _) if welcome > 0 => INTERVAL_EAGER,
            (true, _) => INTERVAL_ABSENT,
            (false, 0) => INTERVAL,
            (false, _) => INTERVAL_EAGER,
        };
        eager = eager.saturating_sub(1);
        welcome = welcome.saturating_sub(1);
        tokio::time::sleep(INTERVAL_MIN).await;
        tokio::select! {
            biased;
            () = hook.forgotten.cancelled() => return,
            due = timeout(pause, hook.look.notified()) => {
                routine = due.is_err();
                if !routine {
                    eager = EAGER_QUESTIONS;
                }
            }
        }
    }
}

/// Asks for a sign of life when there is a place. What comes of it is written down by the call itself. Returns the place, if
/// the question still has it.
async fn ask<'a>(hook: &Hook, places: &'a Semaphore) -> (bool, Option<SemaphorePermit<'a>>) {
    // Never closed.
    let place = places.acquire().await.ok();
    // On the heap: a hook is asked for moments and left alone for seconds, and a call in the making is large.
    let mut question = Box::pin(hook.info(ANSWER_TIMEOUT));
    let (answer, place) = match timeout(PATIENCE, &mut question).await {
        Ok(answer) => (answer, place),
        Err(_elapsed) => {
            drop(place);
            (question.await, None)
        }
    };
    (!answer.is_err_and(|error| error.class == CallErrorClass::Lost), place)
}
