//! The link to the scheduler: registered, and reachable, for as long as the agent lives.
//!
//! Owns registration and the connections the hook is served on, in either direction. Whatever happens to the scheduler
//! or the network, it tries again, and the application notices nothing of it. It decides nothing about the application.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_runtime::backoff::Backoff;
use quiesce_runtime::drain;
use quiesce_runtime::machine::{self, Machine, Network};
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::Acceptor;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::UnixListenerStream;
use tracing::{error, info, warn};

use crate::application::AppState;
use crate::attach;
use crate::gateway::{self, CallError, Class, Gateway, Registration, SILENCE_MAX};
use crate::hook::Hook;
use crate::life::Serve;
use crate::listen;
use crate::serve::{self, Access, BearerToken, ServeError};

/// A listening agent registers again this often, so that a scheduler that lost its memory learns of it.
const REFRESH: Duration = Duration::from_secs(60);

/// A connection that lasted this long was a good one: the next try to connect comes quickly again.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// The first pause before an agent dials in again; rule A5.
const FIRST_REDIAL: Duration = Duration::from_secs(1);

/// Longest pause behind a connection, good or not. The scheduler was there to be dialled, so it is spared no more than
/// one dial in so many seconds; and an agent that stays away for longer than half of the default `accept_timeout` (10 s)
/// makes operations fail.
const LONGEST_ABSENCE: Duration = Duration::from_secs(5);

/// How the agent stands with the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not registered yet, and why.
    Waiting(String),
    /// Registered.
    Registered,
    /// The application was deleted for good.
    Deleted,
}

/// Where the hook listens.
pub(crate) enum Listener {
    /// In TLS, if there are files for it.
    Tcp(Box<dyn machine::Listener>, Option<Acceptor>),
    Unix(UnixListener),
    /// Somebody brings the calls.
    Given(Serve),
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(..) => "Tcp",
            Self::Unix(_) => "Unix",
            Self::Given(_) => "Given",
        })
    }
}

/// Why the hook cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: String,
    #[source]
    source: io::Error,
}

/// Binds `host:port`, to be spoken on in TLS if there is `tls`, or `unix:/path`; says where others reach it.
pub(crate) async fn bind(
    network: &dyn Network,
    address: &str,
    tls: Option<Acceptor>,
) -> Result<(Listener, String), BindError> {
    let failed = |source| BindError { address: address.to_owned(), source };
    if let Some(path) = address.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        clear_away(&path).await.map_err(failed)?;
        // The mode is the credential, so there must be no moment with another one.
        let before = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(&path);
        umask(before);
        return Ok((Listener::Unix(bound.map_err(failed)?), address.to_owned()));
    }
    let listener = network.listen(address, Some(SILENCE_MAX)).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((Listener::Tcp(listener, tls), bound.to_string()))
}

/// Removes the socket that an agent left when it was killed. What is no socket, and one that somebody listens on, stays:
/// then the address was a mistake.
async fn clear_away(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is not a socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
        Err(error) => Err(error),
    }
}

/// When an agent that dials in does so again.
struct Redial {
    /// Behind tries that led to no connection.
    unreachable: Backoff,
    /// Behind connections.
    lost: Backoff,
}

impl Redial {
    fn new(machine: &Machine) -> Self {
        let pauses = |longest| Backoff::new(FIRST_REDIAL, longest, machine.randomness());
        Self { unreachable: pauses(gateway::LONGEST_PAUSE), lost: pauses(LONGEST_ABSENCE) }
    }

    /// The pause behind a try; `lasted` is how long the connection did, if there was one.
    fn pause(&mut self, lasted: Option<Duration>) -> Duration {
        let Some(lasted) = lasted else { return self.unreachable.next_delay() };
        self.unreachable.reset();
        if lasted >= GOOD_CONNECTION {
            self.lost.reset();
        }
        self.lost.next_delay()
    }
}

/// Everything the link needs.
pub(crate) struct Link {
    pub(crate) gateway: Gateway,
    pub(crate) hook: Hook,
    pub(crate) registration: Registration,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) drain: drain::Watch,
}

impl Link {
    /// Dials in until drained.
    pub(crate) async fn dial_in(mut self) {
        let mut redial = Redial::new(self.gateway.machine());
        loop {
            let lasted = self.dial_once().await;
            if !self.pause(redial.pause(lasted)).await {
                return;
            }
        }
    }

    /// One connection from its beginning to its end; says how long it lasted.
    async fn dial_once(&mut self) -> Option<Duration> {
        let answer = self.register().await?;
        let endpoint = match answer.attach_endpoint.as_str() {
            "" => self.gateway.authority(),
            endpoint => endpoint,
        };
        let (network, tls) = (&*self.gateway.machine().network, self.gateway.tls());
        let connection = match attach::dial(network, tls, endpoint, &answer.attach_token).await {
            Ok(connection) => connection,
            Err(error) => {
                warn!(endpoint, error = %chain(&error), "cannot attach to the scheduler, trying again");
                return None;
            }
        };
        info!(endpoint, "attached to the scheduler");
        let since = Instant::now();
        let served = serve::serve_connection(self.hook.clone(), connection, self.drain.clone()).await;
        if !self.drain.is_draining() {
            warn!(endpoint, "lost the connection to the scheduler, the application runs on");
        }
        log_served(served);
        Some(since.elapsed())
    }

    /// Listens until drained, and keeps the registration fresh meanwhile.
    pub(crate) async fn listen(self, listener: Listener) {
        let (hook, drain) = (self.hook.clone(), self.drain.clone());
        let (token, serving): (_, BoxFuture<'_, _>) = match listener {
            Listener::Tcp(listener, tls) => {
                let (token, access) = Access::bearer();
                (Some(token), Box::pin(serve::serve_all(hook, access, listen::incoming(listener, tls), drain)))
            }
            Listener::Unix(listener) => {
                let incoming = UnixListenerStream::new(listener);
                (None, Box::pin(serve::serve(hook, Access::connected(), incoming, drain)))
            }
            Listener::Given(serve) => {
                let (token, access) = Access::bearer();
                let serving = serve(serve::service(hook, access), drain);
                (
                    Some(token),
                    Box::pin(async {
                        serving.await;
                        Ok(())
                    }),
                )
            }
        };
        let (served, ()) = tokio::join!(serving, self.keep_registered(token));
        log_served(served);
    }

    async fn keep_registered(mut self, token: Option<BearerToken>) {
        let mut pauses = gateway::pauses(self.gateway.machine());
        loop {
            let pause = match self.register().await {
                Some(answer) => {
                    if let Some(token) = token.as_ref().filter(|_| !answer.hook_token.is_empty()) {
                        token.set(&answer.hook_token);
                    }
                    pauses.reset();
                    REFRESH
                }
                None => pauses.next_delay(),
            };
            if !self.pause(pause).await {
                return;
            }
        }
    }

    async fn register(&mut self) -> Option<quiesce_protocol::v1::RegisterInstanceResponse> {
        let status = self.hook.application().status().borrow().clone();
        self.registration.held = status.hold.is_some() && matches!(status.state, AppState::Held | AppState::Stopped);
        match self.gateway.register(&self.registration).await {
            Ok(answer) => {
                if self.standing.send_replace(Standing::Registered) != Standing::Registered {
                    info!(
                        instance = self.registration.identity.instance_name(),
                        scheduler = self.gateway.authority(),
                        "registered"
                    );
                }
                Some(answer)
            }
            Err(error) => {
                self.note(&error);
                None
            }
        }
    }

    /// Says an error once, not at every try; what it means for the life of the agent is decided elsewhere.
    fn note(&self, error: &CallError) {
        let text = error.to_string();
        let standing = match error.class() {
            Class::Deleted => Standing::Deleted,
            Class::Pause | Class::Register | Class::Never => Standing::Waiting(text.clone()),
        };
        if self.standing.send_replace(standing.clone()) == standing {
            return;
        }
        match error.class() {
            Class::Pause | Class::Register => warn!(error = text, "trying again"),
            Class::Deleted => warn!(error = text, "the application was deleted"),
            Class::Never => {
                error!(error = text, "the scheduler refuses this agent; trying again will not help by itself")
            }
        }
    }

    /// Whether to go on.
    async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.drain.signaled() => false,
            () = sleep(pause) => true,
        }
    }
}

fn log_served(served: Result<(), ServeError>) {
    if let Err(error) = served {
        error!(error = %chain(&error), "serving the hook failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_a_connection_is_back_before_operations_fail() {
        let mut redial = Redial::new(&Machine::local());
        let longest = |redial: &mut Redial, lasted| (0..12).map(|_| redial.pause(lasted)).max().unwrap();
        let brief = Some(Duration::from_millis(100));
        // A fifth more, for the spread.
        assert!(longest(&mut redial, brief) <= LONGEST_ABSENCE * 6 / 5);
        assert!(longest(&mut redial, None) > LONGEST_ABSENCE * 2, "a scheduler that is not there is spared");
        assert!(redial.pause(brief) <= LONGEST_ABSENCE * 6 / 5);
        let first = FIRST_REDIAL * 4 / 5..=FIRST_REDIAL * 6 / 5;
        assert!(first.contains(&redial.pause(Some(GOOD_CONNECTION))));
        assert!(first.contains(&redial.pause(None)));
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_gives_way() {
        let directory = tempfile::tempdir().unwrap();
        let network = &*Machine::local().network;
        let path = directory.path().join("hook.sock");
        let address = format!("unix:{}", path.display());
        std::fs::write(&path, "precious").unwrap();
        bind(network, &address, None).await.unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();

        let (living, _) = bind(network, &address, None).await.unwrap();
        bind(network, &address, None).await.unwrap_err();
        UnixStream::connect(&path).await.unwrap();
        drop(living);
        assert!(path.exists(), "left as by an agent that was killed");
        bind(network, &address, None).await.unwrap();
    }
}
