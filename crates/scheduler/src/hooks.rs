//! Hooks: how they are reached, what they say, whether they live.
//!
//! Owns at most one connection for each instance, attached or dialled, which instances at the same address share; and the
//! knowledge whether the hook answers. It does not decide what an answer means for an operation, and stores nothing: after a
//! restart every registered instance is handed in again by [`Hooks::registered`].

pub(crate) mod call;
mod connection;
mod dialler;
mod lines;
mod presence;
mod reading;
pub(crate) mod report;
mod tally;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quiesce_operation::report::{CallError, CallErrorClass, Probe};
use quiesce_operation::{ApplicationId, InstanceId, Moment};
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_runtime::machine::Socket;
use quiesce_runtime::tasks::Tasks;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::records::{Connect, InstanceRecord};
use crate::secrets::{HookToken, Secrets};
use call::{Client, lost, protocol_error};
pub(crate) use connection::SILENCE_MAX;
use connection::{Connection, reverse};
pub use connection::{Dial, HookChannel};
pub(crate) use dialler::Dialler;
use lines::{Lines, OnEnd};
pub use presence::{HookInfo, HookState, Presence};
pub(crate) use reading::Reading;
use reading::Surplus;
pub use tally::Tally;
use tally::{Counted, Counts};

/// Most hooks asked for a sign of life at the same time, slow ones aside: a thousand instances are gone through in seconds,
/// and one burst of connections stays small.
const SIGNS_OF_LIFE_MAX: usize = 64;
/// The same for hooks that are asked only because it is time again. Each keeps its place for [`presence::SPACING`], which makes
/// two thousand questions a second at most: with more than twenty thousand hooks each is asked less often, and what keeps the
/// scheduler busy is operations.
const SIGNS_OF_ROUTINE_MAX: usize = 64;
/// The same for hooks that did not answer the last time. They have places of their own: any number of dead hooks leaves the
/// others theirs.
const SIGNS_OF_ABSENT_MAX: usize = 32;
/// Longest wait of a new attached connection for its first answer; an agent that has just dialled has nothing else to
/// do.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Most findings of one check that are kept; more than that nobody reads.
const FINDINGS_MAX: usize = 32;

/// All hooks. Cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    inner: Arc<Inner>,
}

struct Inner {
    known: watch::Sender<BTreeMap<Name, Arc<Hook>>>,
    secrets: Arc<Secrets>,
    clock: Arc<dyn Clock>,
    lines: Lines,
    tasks: Tasks,
    drain: drain::Watch,
    signs_of_life: Semaphore,
    signs_of_routine: Semaphore,
    signs_of_absent: Semaphore,
    surplus: Surplus,
    counts: Counts,
}

/// The name of an instance.
pub(crate) type Name = (ApplicationId, InstanceId);

/// One hook and everything about reaching it.
pub(crate) struct Hook {
    name: Name,
    token: HookToken,
    link: watch::Sender<Link>,
    presence: watch::Sender<Presence>,
    /// Asks the monitor to look now.
    look: Arc<Notify>,
    /// It was registered since it was last asked: a sign of life is to be expected.
    comes: AtomicBool,
    clock: Arc<dyn Clock>,
    lines: Lines,
    surplus: Surplus,
    counted: Counted,
    forgotten: CancellationToken,
}

/// How a hook is reached at the moment.
enum Link {
    Listening { endpoint: String, connection: Connection },
    Attached(Connection),
    Detached,
}

/// Why an attached connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The instance is not registered, or not as one that dials in.
    #[error("the instance is not registered to dial in")]
    NotExpected,
    /// HTTP/2 could not be set up.
    #[error("HTTP/2 could not be set up over the attached connection")]
    Transport(#[source] tonic::transport::Error),
    /// It did not answer GetHookInfo.
    #[error("the attached hook does not answer: {}", .0.message)]
    Silent(CallError),
    /// It serves another instance.
    #[error("the attached hook serves {0}")]
    WrongInstance(String),
}

impl Hooks {
    /// No hooks yet.
    #[must_use]
    pub fn new(
        secrets: Arc<Secrets>,
        clock: Arc<dyn Clock>,
        dial: Arc<dyn Dial>,
        tasks: Tasks,
        drain: drain::Watch,
    ) -> Self {
        let signs_of_life = Semaphore::new(SIGNS_OF_LIFE_MAX);
        let signs_of_routine = Semaphore::new(SIGNS_OF_ROUTINE_MAX);
        let signs_of_absent = Semaphore::new(SIGNS_OF_ABSENT_MAX);
        let known = watch::Sender::new(BTreeMap::new());
        let surplus = Surplus::new();
        let counts = Counts::default();
        let lines = Lines::new(dial);
        let inner = Inner {
            known,
            secrets,
            clock,
            lines,
            tasks,
            drain,
            signs_of_life,
            signs_of_routine,
            signs_of_absent,
            surplus,
            counts,
        };
        Self { inner: Arc::new(inner) }
    }

    /// An instance was registered, or its registration has changed. It is asked for a sign of life at once. The
    /// connection stays if it still leads to the right place.
    pub(crate) fn registered(&self, record: &InstanceRecord) {
        let name = (record.application.clone(), record.instance.clone());
        if let Some(hook) = self.find(&name.0, &name.1) {
            hook.reach(&record.connect);
            hook.comes.store(true, Ordering::Relaxed);
            hook.look.notify_one();
            return;
        }
        let hook = Arc::new(Hook {
            token: self.inner.secrets.hook_token(&name.0, &name.1, record.created),
            name: name.clone(),
            link: watch::Sender::new(Link::Detached),
            presence: watch::Sender::new(Presence::default()),
            look: Arc::new(Notify::new()),
            comes: AtomicBool::new(true),
            clock: Arc::clone(&self.inner.clock),
            lines: self.inner.lines.clone(),
            surplus: self.inner.surplus.clone(),
            counted: self.inner.counts.join(),
            forgotten: CancellationToken::new(),
        });
        hook.reach(&record.connect);
        self.inner.known.send_modify(|known| {
            if let Some(other) = known.insert(name, Arc::clone(&hook)) {
                other.close();
            }
        });
        let label = format!("presence {}/{}", hook.name.0, hook.name.1);
        let drain = self.inner.drain.clone();
        let watched = presence::watch(Arc::downgrade(&self.inner), hook);
        self.inner.tasks.spawn(label, async move {
            tokio::select! {
                biased;
                () = drain.signaled() => {}
                () = watched => {}
            }
        });
    }

    /// An instance is not registered any more.
    pub fn forgotten(&self, application: &ApplicationId, instance: &InstanceId) {
        self.inner.known.send_modify(|known| {
            if let Some(hook) = known.remove(&(application.clone(), instance.clone())) {
                hook.close();
            }
        });
    }

    /// What is known of a hook. Never waits.
    #[must_use]
    pub fn presence(&self, application: &ApplicationId, instance: &InstanceId) -> Presence {
        self.find(application, instance).map_or_else(Presence::default, |hook| hook.presence.borrow().clone())
    }

    /// How many hooks are in which state. Never waits.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.inner.counts.now()
    }

    /// Asks a hook who it is and, if `check` and it can tell, whether a shutdown would work. Takes at most `limit`.
    pub async fn probe(
        &self,
        application: &ApplicationId,
        instance: &InstanceId,
        check: bool,
        limit: Duration,
    ) -> Result<Probe, CallError> {
        self.expect(application, instance)?.probe(check, BTreeMap::new(), limit).await
    }

    /// What is sent to the listening hook of an instance that was registered first at `created` as bearer; for the answer
    /// to its registration.
    #[must_use]
    pub fn token(&self, application: &ApplicationId, instance: &InstanceId, created: Moment) -> HookToken {
        self.inner.secrets.hook_token(application, instance, created)
    }

    /// Takes over a connection an agent has opened, on which it serves its hook. It replaces an older one once it has
    /// answered and proved to be the right instance.
    pub(crate) async fn attach(&self, name: &Name, socket: impl Socket) -> Result<(), AttachError> {
        let hook = self.find(&name.0, &name.1).ok_or(AttachError::NotExpected)?;
        let look = Arc::clone(&hook.look);
        let connection = reverse(socket, Arc::new(move || look.notify_one())).await.map_err(AttachError::Transport)?;
        let greeted = Client::new(connection.channel.clone(), None).info(GREETING_TIMEOUT).await;
        let info = match greeted {
            Ok(info) if info.instance.is_empty() || info.instance == hook.resource_name() => info,
            Ok(info) => {
                connection.closed.cancel();
                return Err(AttachError::WrongInstance(info.instance));
            }
            Err(error) => {
                connection.closed.cancel();
                return Err(AttachError::Silent(error));
            }
        };
        hook.attached(connection)?;
        hook.heard(Some(info));
        // Its watcher may be resting for as long as an absent hook is left alone, and an application starts in a moment.
        hook.look();
        Ok(())
    }

    pub(crate) fn find(&self, application: &ApplicationId, instance: &InstanceId) -> Option<Arc<Hook>> {
        self.inner.known.borrow().get(&(application.clone(), instance.clone())).cloned()
    }

    /// The hook, or the error a call of it would end with.
    pub(crate) fn expect(&self, application: &ApplicationId, instance: &InstanceId) -> Result<Arc<Hook>, CallError> {
        self.find(application, instance).ok_or_else(|| lost("the instance is not registered"))
    }
}

impl Hook {
    /// The name of the instance on the wire.
    pub(crate) fn resource_name(&self) -> String {
        format!("applications/{}/instances/{}", self.name.0, self.name.1)
    }

    /// A client over the connection there is; waits for one to be attached, at most `limit`.
    pub(crate) async fn client(&self, limit: Duration) -> Result<Client, CallError> {
        let mut link = self.link.subscribe();
        let ready = timeout(limit, link.wait_for(Link::is_up)).await;
        match ready.as_ref().map(|link| link.as_deref()) {
            Ok(Ok(Link::Listening { connection, .. })) => {
                Ok(Client::new(connection.channel.clone(), Some(&self.token)))
            }
            Ok(Ok(Link::Attached(connection))) => Ok(Client::new(connection.channel.clone(), None)),
            Ok(Ok(Link::Detached) | Err(_)) => Err(lost("the instance is not registered any more")),
            Err(_elapsed) => Err(lost("the agent has not dialled in")),
        }
    }

    /// Asks for a sign of life, whoever wants to know it.
    pub(crate) async fn info(&self, limit: Duration) -> Result<HookInfo, CallError> {
        let end = Instant::now() + limit;
        let answer = match self.client(limit).await {
            Ok(mut client) => client.info(end.saturating_duration_since(Instant::now())).await,
            Err(error) => Err(error),
        };
        let answer = answer.and_then(|info| match info.instance.as_str() {
            "" => Ok(info),
            other if other == self.resource_name() => Ok(info),
            other => Err(protocol_error(format!("the hook serves {other}"))),
        });
        match &answer {
            Ok(info) => self.heard(Some(info.clone())),
            Err(error) => self.missed(&error.message),
        }
        answer
    }

    /// GetHookInfo and, where the hook has it and `check` says so, CheckShutdown.
    pub(crate) async fn probe(
        &self,
        check: bool,
        parameters: BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Probe, CallError> {
        let end = Instant::now() + limit;
        let info = self.info(limit).await?;
        let mut probe = Probe {
            capabilities: info.capabilities,
            ready: info.ready,
            findings: Vec::new(),
            app_state: info.app_state,
            epoch: info.epoch,
            cannot_start: info.cannot_start_reason,
        };
        if !info.ready && !info.not_ready_reason.is_empty() {
            probe.findings.push(info.not_ready_reason);
        }
        if !(check && probe.ready && probe.capabilities.check) {
            return Ok(probe);
        }
        let left = || end.saturating_duration_since(Instant::now());
        let request =
            v1::CheckShutdownRequest { instance: self.resource_name(), parameters: parameters.into_iter().collect() };
        let answer = self.client(left()).await?.check(request, left()).await;
        match answer {
            Ok(answer) => {
                probe.ready = answer.ok;
                let findings = answer.findings.into_iter().take(FINDINGS_MAX);
                probe.findings.extend(findings.map(|finding| wire::message(&finding)));
                Ok(probe)
            }
            // Announced and not there: then it is as if it had not been announced.
            Err(error) if error.class == CallErrorClass::Unimplemented => Ok(probe),
            Err(error) => Err(error),
        }
    }

    /// The hook has shown that it is alive; `info` if it also said more about itself.
    pub(crate) fn heard(&self, info: Option<HookInfo>) {
        let now = Moment::from_millis(self.clock.now());
        self.presence.send_modify(|presence| {
            presence.heard(now, info);
            self.counted.is(presence);
        });
    }

    /// There is a reason to ask the hook how it is.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// To read a stream of reports by.
    pub(crate) fn reading(&self) -> Reading {
        Reading::new(self.surplus.clone())
    }

    /// The hook has not answered, and why.
    fn missed(&self, reason: &str) {
        let mut before = HookState::Unreachable;
        self.presence.send_modify(|presence| {
            before = presence.state;
            presence.missed(reason);
            self.counted.is(presence);
        });
        // Of one that dials in the end of its connection is told already.
        if before != HookState::Unreachable && self.is_listening() {
            let (application, instance) = (self.name.0.as_str(), self.name.1.as_str());
            info!(application, instance, reason, "a hook does not answer");
        }
    }

    /// Makes the link lead to where the registration says.
    fn reach(&self, connect: &Connect) {
        self.link.send_if_modified(|link| {
            let stays = match (&*link, connect) {
                (Link::Listening { endpoint: old, .. }, Connect::Listen { endpoint }) => old == endpoint,
                (Link::Attached(_) | Link::Detached, Connect::DialIn) => true,
                (Link::Attached(_) | Link::Detached, Connect::Listen { .. })
                | (Link::Listening { .. }, Connect::DialIn) => false,
            };
            if stays {
                return false;
            }
            link.close();
            *link = match connect {
                Connect::Listen { endpoint } => self.dialled(endpoint.clone(), Lines::join),
                Connect::DialIn => Link::Detached,
            };
            true
        });
    }

    /// A stream has been silent for too long, which may be a dead connection that nobody has noticed: a dialled one is
    /// given up and made anew, for this hook alone. An attached one cannot be made from here.
    pub(crate) fn redial(&self) {
        self.link.send_if_modified(|link| {
            let Link::Listening { endpoint, .. } = &*link else { return false };
            let fresh = self.dialled(endpoint.clone(), Lines::alone);
            link.close();
            *link = fresh;
            true
        });
    }

    /// Closes an attached connection on which nothing is answered: the agent notices that, and dials in anew.
    fn hang_up(&self) {
        self.link.send_if_modified(|link| {
            let Link::Attached(connection) = &*link else { return false };
            info!(application = self.name.0.as_str(), instance = self.name.1.as_str(), "hanging up on a silent agent");
            connection.closed.cancel();
            *link = Link::Detached;
            true
        });
    }

    fn dialled(&self, endpoint: String, take: fn(&Lines, &str, CancellationToken, OnEnd) -> HookChannel) -> Link {
        let (look, closed) = (Arc::clone(&self.look), CancellationToken::new());
        let channel = take(&self.lines, &endpoint, closed.clone(), Arc::new(move || look.notify_one()));
        Link::Listening { endpoint, connection: Connection { channel, closed } }
    }

    /// Puts a new attached connection in the place of an older one, which is closed.
    fn attached(&self, connection: Connection) -> Result<(), AttachError> {
        let taken = self.link.send_if_modified(|link| {
            if self.forgotten.is_cancelled() || matches!(link, Link::Listening { .. }) {
                return false;
            }
            link.close();
            *link = Link::Attached(connection.clone());
            true
        });
        if taken {
            return Ok(());
        }
        connection.closed.cancel();
        Err(AttachError::NotExpected)
    }

    /// Takes note of an attached connection that is gone. Returns whether there was one.
    fn detach_if_gone(&self) -> bool {
        self.link.send_if_modified(|link| match &*link {
            Link::Attached(connection) if connection.closed.is_cancelled() => {
                *link = Link::Detached;
                true
            }
            Link::Attached(_) | Link::Listening { .. } | Link::Detached => false,
        })
    }

    fn is_attached(&self) -> bool {
        matches!(*self.link.borrow(), Link::Attached(_))
    }

    fn is_listening(&self) -> bool {
        matches!(*self.link.borrow(), Link::Listening { .. })
    }

    fn is_detached(&self) -> bool {
        matches!(*self.link.borrow(), Link::Detached)
    }

    fn close(&self) {
        self.forgotten.cancel();
        self.counted.leave();
        self.link.send_modify(|link| {
            link.close();
            *link = Link::Detached;
        });
    }
}

impl Link {
    /// Whether calls can be made. A listening hook may not be there, but dialling it is the way to find out.
    fn is_up(&self) -> bool {
        match self {
            Self::Listening { .. } => true,
            Self::Attached(connection) => !connection.closed.is_cancelled(),
            Self::Detached => false,
        }
    }

    fn close(&self) {
        match self {
            Self::Listening { connection, .. } | Self::Attached(connection) => connection.closed.cancel(),
            Self::Detached => {}
        }
    }
}
