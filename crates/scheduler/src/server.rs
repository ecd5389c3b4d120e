//! A whole scheduler: bound to its sockets, then run until told to stop.
//!
//! Owns the order of things. Start: store, clock, secrets, sockets; then what is registered, then what is open; only
//! then is anybody served. Stop: health says so, streams end with a token, operations rest where they are, tasks are
//! awaited, all within [`STOP_LIMIT`].

mod accept;
mod places;
mod running;
mod web;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use quiesce_operation::{Moment, Policy};
use quiesce_runtime::clock::{Clock as _, StartError, Timeline};
use quiesce_runtime::drain;
use quiesce_runtime::machine::{self, Machine};
use quiesce_runtime::tls::{Acceptor, AcceptorFiles, ClientCertificates, KeyPair, LoadError as TlsError, NamedFile};
use quiesce_store::embedded::{self, EmbeddedStore};
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, CommitError, Condition, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_web::GrpcWebLayer;
use tower::util::{MapRequestLayer, option_layer};
use tracing::{info, warn};
use uuid::Uuid;

use crate::access::{self, Audit, Mode};
use crate::admin::Admin;
use crate::driver;
use crate::hooks::{Dialler, SILENCE_MAX};
use crate::metrics::Metrics;
use crate::records::{AnchorRecord, LoadError, anchor_key, load, put};
use crate::rpc::RpcLayer;
use crate::secrets::{self, Secrets, entropy_of};
use crate::store_watch;
use crate::traces::{self, TraceSettings, Traces};
use crate::upkeep::Handout;
pub use accept::ConnectInfo;
pub use running::{GrpcService, Running};
pub use web::Origin;

/// Most streams on one connection; a client with more to do opens another.
const STREAMS_MAX: u32 = 256;
/// Most bytes of headers of a call: a token, a trace, a deadline are far less.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// After that long a connection takes no new calls; what is under way on it goes on. So a client comes back under the CAs,
/// and to the scheduler, that are there by then.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// How often an idle client is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));
/// How long streams and calls may take to end when the scheduler stops. Streams end at once; a call waits for a commit.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long everything else may take afterwards.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Where the scheduler's state is kept.
#[derive(Clone)]
pub enum StoreChoice {
    /// In a directory, durable.
    Embedded {
        /// The directory, made if need be.
        directory: PathBuf,
    },
    /// In memory, gone with the process.
    Memory,
    /// Somewhere else, opened by the caller: for tests.
    Given(Arc<dyn Store>),
}

impl std::fmt::Debug for StoreChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embedded { directory } => f.debug_struct("Embedded").field("directory", directory).finish(),
            Self::Memory => f.write_str("Memory"),
            Self::Given(_) => f.write_str("Given"),
        }
    }
}

/// What a scheduler is made of. Checked already; see [`crate::config`] for where it comes from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where callers and agents come in.
    pub listen: SocketAddr,
    /// Where operators look; none: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Where the state is kept.
    pub store: StoreChoice,
    /// What applications inherit.
    pub default_policy: Policy,
    /// Where agents dial in, `host:port`, if that is not where they call.
    pub attach_endpoint: String,
    /// Speak TLS; without, everything is in the clear.
    pub tls: Option<Tls>,
    /// Pages that may call by gRPC-Web.
    pub web_origins: Vec<Origin>,
    /// Show what goes on on a page of the admin address.
    pub page: bool,
    /// Who signs the certificates of hooks that listen; without, those the system trusts.
    pub hook_ca: Option<NamedFile>,
    /// Hooks that listen on other addresses than loopback may do so without TLS.
    pub hooks_in_clear: bool,
    /// Who may do what.
    pub access: access::Config,
    /// Whether what happens is recorded as distributed traces.
    pub traces: TraceSettings,
}

/// Files for TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// What the scheduler shows.
    pub own: KeyPair,
    /// Who signs the certificates of clients. Without it clients are not asked for one; with it they may have one.
    pub client_ca: Option<NamedFile>,
}

impl Config {
    /// A scheduler on free ports of the loopback address that remembers nothing: for tests and the demo.
    #[must_use]
    pub fn ephemeral() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            admin_listen: Some(loopback),
            store: StoreChoice::Memory,
            default_policy: Policy::built_in(),
            attach_endpoint: String::new(),
            tls: None,
            web_origins: Vec::new(),
            page: false,
            hook_ca: None,
            hooks_in_clear: true,
            access: access::Config::open(),
            traces: TraceSettings::Off,
        }
    }
}

/// Why a scheduler cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Certificate, key or CA cannot be used.
    #[error("cannot speak TLS")]
    Tls(#[source] TlsError),
    /// The store cannot be opened; another scheduler may have it open.
    #[error("cannot open the store")]
    Store(#[source] Box<embedded::OpenError>),
    /// Opening the store was interrupted.
    #[error("opening the store was interrupted")]
    Interrupted,
    /// A stored record is unreadable.
    #[error("cannot read the store")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store cannot be written.
    #[error("cannot write the store")]
    Write(#[source] CommitError),
    /// There is no clock.
    #[error("cannot establish the time")]
    Clock(#[source] StartError),
    /// What happens could not be recorded.
    #[error("cannot record what happens")]
    Audit(#[source] access::OpenError),
    /// There is no way in.
    #[error("cannot make the first admin token")]
    FirstToken(#[source] access::FirstTokenError),
    /// Traces were asked for and cannot be sent.
    #[error("cannot send traces")]
    Traces(#[source] traces::OpenError),
    /// There is no secret key.
    #[error("cannot load the secret key")]
    Secrets(#[source] secrets::LoadError),
}

/// Why a scheduler ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Open operations could not be taken up.
    #[error("cannot take up the open operations")]
    Recover(#[source] driver::RecoverError),
    /// The registered instances could not be read.
    #[error("cannot read the registered instances")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server failed.
    #[error("the server failed")]
    Serve(#[source] tonic::transport::Error),
    /// The descriptions of the services are broken; a bug of the build.
    #[error("the service descriptions are broken")]
    Reflection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts schedulers.
#[derive(Debug)]
pub struct Scheduler;

/// A scheduler with its store, clock and secrets: all of it but the sockets.
pub struct Opened {
    machine: Machine,
    store: Arc<dyn Store>,
    handout: Option<Handout>,
    timeline: Arc<Timeline>,
    secrets: Arc<Secrets>,
    config: Config,
    audit: Audit,
    metrics: Metrics,
    traces: Traces,
    /// The first admin token was made just now.
    first_admin: bool,
}

/// A scheduler with its sockets and its store, not serving yet.
pub struct Bound {
    opened: Opened,
    listener: Box<dyn machine::Listener>,
    admin: Option<TcpListener>,
    local: SocketAddr,
    admin_local: Option<SocketAddr>,
    tls: Option<Acceptors>,
    dialler: Dialler,
}

/// What shakes hands with whoever connects.
struct Acceptors {
    callers: Acceptor,
    admin: Option<Acceptor>,
}

impl Scheduler {
    /// Opens the store and reserves the sockets.
    ///
    /// # Errors
    /// The first thing that is not to be had; nothing is left behind but, perhaps, an empty store.
    pub async fn bind(config: Config) -> Result<Bound, BindError> {
        Self::bind_on(Machine::local(), config).await
    }

    /// The same on `machine`. The admin address is always this process's own.
    ///
    /// # Errors
    /// As [`Scheduler::bind`].
    pub async fn bind_on(machine: Machine, config: Config) -> Result<Bound, BindError> {
        let failed = |address| move |source| BindError::Listen { address, source };
        let tls = config.tls.as_ref().map(|tls| Acceptors::load(tls, &config, &machine)).transpose();
        let tls = tls.map_err(BindError::Tls)?;
        let dialler = dialler(&config, &machine).map_err(BindError::Tls)?;
        let listener = machine
            .network
            .listen(&config.listen.to_string(), Some(SILENCE_MAX))
            .await
            .map_err(failed(config.listen))?;
        let local = listener.local_addr().map_err(failed(config.listen))?;
        let (admin, admin_local) = match config.admin_listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed(address))?;
                let local = listener.local_addr().map_err(failed(address))?;
                (Some(listener), Some(local))
            }
            None => (None, None),
        };
        let opened = Self::open_on(machine, config).await?;
        Ok(Bound { opened, listener, admin, local, admin_local, tls, dialler })
    }

    /// Opens the store and reserves no sockets: for whoever brings the calls in another way.
    ///
    /// # Errors
    /// As [`Scheduler::bind`].
    pub async fn open_on(machine: Machine, config: Config) -> Result<Opened, BindError> {
        let metrics = Metrics::new();
        let traces = Traces::open(config.traces, &machine, &metrics).map_err(BindError::Traces)?;
        let (store, handout) = open_store(&config.store, &metrics).await?;
        // Behind the store, which makes the data directory for its owner alone.
        let audit = Audit::open(&config.access.audit).map_err(BindError::Audit)?;
        let read = |error: LoadError| BindError::Read(Box::new(error));
        let anchor = load::<AnchorRecord>(&*store, anchor_key()).await.map_err(read)?;
        let anchor = anchor.map(|stored| stored.record.into());
        let timeline = Timeline::start_with(Box::new(Arc::clone(&machine.clocks)), anchor.as_ref());
        let timeline = Arc::new(timeline.map_err(BindError::Clock)?);
        let first = put(Batch::new(), anchor_key(), &AnchorRecord::from(timeline.anchor()));
        store.commit(first).await.map_err(BindError::Write)?;
        let mut entropy = entropy_of(&machine);
        let secrets = Secrets::load(&*store, &mut entropy, Moment::from_millis(timeline.now()), config.access.rotation)
            .await
            .map_err(BindError::Secrets)?;
        let first_admin = access::first_admin(&config.access, &*store, &*timeline, &mut entropy);
        let first_admin = first_admin.await.map_err(BindError::FirstToken)?;
        let secrets = Arc::new(secrets);
        Ok(Opened { machine, store, handout, timeline, secrets, config, audit, metrics, traces, first_admin })
    }
}

/// Hooks see the same certificate as callers.
fn dialler(config: &Config, machine: &Machine) -> Result<Dialler, TlsError> {
    let authorities = config.hook_ca.as_ref().map(|file| file.path.clone());
    let own = config.tls.as_ref().map(|tls| (tls.own.certificate.path.clone(), tls.own.key.path.clone()));
    Dialler::load(authorities, own, config.hooks_in_clear, machine)
}

impl Acceptors {
    fn load(tls: &Tls, config: &Config, machine: &Machine) -> Result<Self, TlsError> {
        let load = |clients, protocols: &[&[u8]]| {
            let files = AcceptorFiles { own: tls.own.clone(), clients };
            Acceptor::load(files, protocols, Arc::clone(&machine.clocks))
        };
        let clients = tls.client_ca.clone().map_or(ClientCertificates::Ignored, ClientCertificates::Optional);
        // On loopback probes and people with curl find it as they always did.
        let beyond = config.admin_listen.is_some_and(|address| !address.ip().is_loopback());
        let admin = beyond.then(|| load(ClientCertificates::Ignored, &[b"http/1.1"])).transpose()?;
        Ok(Self { callers: load(clients, &accept::PROTOCOLS)?, admin })
    }
}

async fn open_store(choice: &StoreChoice, metrics: &Metrics) -> Result<(Arc<dyn Store>, Option<Handout>), BindError> {
    match choice {
        StoreChoice::Given(store) => Ok((Arc::clone(store), None)),
        StoreChoice::Memory => Ok((Arc::new(MemoryStore::new(Uuid::new_v4())), None)),
        StoreChoice::Embedded { directory } => {
            let place = directory.clone();
            let observer = Arc::new(metrics.clone());
            let open = move || {
                EmbeddedStore::open(&place, &embedded::Options { observer, ..embedded::Options::new(Uuid::new_v4()) })
            };
            let opened = tokio::task::spawn_blocking(open).await.map_err(|_| BindError::Interrupted)?;
            let store = Arc::new(opened.map_err(|error| BindError::Store(Box::new(error)))?);
            let handout = Handout::open(directory, Arc::clone(&store));
            let handout = handout.inspect_err(|error| {
                // As where the path is too long for a socket. Everything else works without.
                warn!(%error, "while this scheduler runs, it hands out no backups");
            });
            Ok((store, handout.ok()))
        }
    }
}

impl Bound {
    /// Where callers and agents come in.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where operators look.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_local
    }

    /// The file with the first admin token, if that was made just now.
    #[must_use]
    pub fn first_admin_token(&self) -> Option<&Path> {
        self.opened.config.access.admin_token_file.as_deref().filter(|_| self.opened.first_admin)
    }

    /// Whether the admin address speaks TLS.
    #[must_use]
    pub fn is_admin_encrypted(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.admin.is_some())
    }

    /// Serves until `until` resolves, then stops gracefully.
    ///
    /// # Errors
    /// What kept it from serving.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<(), RunError> {
        self.run_and_tell(until, |_| ()).await
    }

    /// The same; `ready` hears how many operations were resumed, just before the first call is served.
    ///
    /// # Errors
    /// As [`Bound::run`].
    pub async fn run_and_tell(
        self,
        until: impl Future<Output = ()>,
        ready: impl FnOnce(usize),
    ) -> Result<(), RunError> {
        let (signal, drain) = drain::channel();
        let Self { mut opened, listener, admin, tls, dialler, .. } = self;
        let store = Arc::clone(&opened.store);
        let handout = opened.handout.take();
        let web_origins = std::mem::take(&mut opened.config.web_origins);
        let (has_page, open) = (opened.config.page, opened.config.access.mode == Mode::Open);
        let hooks_tls = dialler.connector().cloned();
        let running = opened.start(Arc::new(dialler), &drain).await?;
        let overview = has_page.then(|| running.overview(open));
        let (scheduler, gateway, access_server) = running.servers();
        let Running { attachments, driver, hooks, clock, metrics, traces, tasks, resumed, access, .. } = running;
        let (store_watch, condition) = store_watch::open(Arc::clone(&store));
        tasks.spawn("store watch", store_watch.run(drain.clone()));
        if let Some(handout) = handout {
            tasks.spawn("backups", handout.run(drain.clone()));
        }
        let (callers_tls, admin_tls) = tls.map_or((None, None), |tls| (Some(tls.callers), tls.admin));
        for tls in callers_tls.iter().chain(&admin_tls) {
            tasks.spawn("certificates", tls.clone().keep_fresh(drain.clone()));
        }
        if let Some(tls) = hooks_tls {
            tasks.spawn("certificates", tls.keep_fresh(drain.clone()));
        }
        if let Some(listener) = admin {
            let condition = condition.clone();
            let expiry = callers_tls.as_ref().map(Acceptor::expiry);
            let metrics = metrics.clone();
            let drain = drain.clone();
            let admin =
                Admin { metrics, driver, hooks, clock, store, condition, drain, tls: admin_tls, expiry, overview };
            tasks.spawn("admin", admin.run(listener, tasks.clone()));
        }
        let (health, health_server) = tonic_health::server::health_reporter();
        set_health(&health, ServingStatus::Serving).await;
        tasks.spawn("health", watch_health(health.clone(), condition, drain.clone()));
        let (connections, incoming) = accept::channel();
        let (drain_too, tasks_too) = (drain.clone(), tasks.clone());
        let accepting = accept::Accepting {
            attachments,
            tasks: tasks_too,
            drain: drain_too,
            connections,
            tls: callers_tls,
            access: Arc::clone(&access),
            metrics: metrics.clone(),
        };
        tasks.spawn("accept", accepting.run(listener));
        let router = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .max_connection_age(CONNECTION_AGE_MAX)
            .accept_http1(true)
            .layer(option_layer((!web_origins.is_empty()).then(|| web::cors(&web_origins))))
            .layer(web::KnownOrigins::new(&web_origins))
            .layer(GrpcWebLayer::new())
            .layer(MapRequestLayer::new(accept::tell_peer))
            .layer(RpcLayer::new(metrics, access, traces.clone()))
            .add_service(scheduler)
            .add_service(gateway)
            .add_service(access_server)
            .add_service(health_server)
            .add_service(reflection()?.build_v1().map_err(|error| RunError::Reflection(Box::new(error)))?)
            .add_service(reflection()?.build_v1alpha().map_err(|error| RunError::Reflection(Box::new(error)))?);
        ready(resumed);
        let incoming = ReceiverStream::new(incoming);
        let mut serving = Box::pin(router.serve_with_incoming_shutdown(incoming, drain.clone().into_signaled()));
        let outcome = tokio::select! {
            biased;
            outcome = &mut serving => Some(outcome),
            () = until => None,
        };
        set_health(&health, ServingStatus::NotServing).await;
        signal.announce();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => match tokio::time::timeout(DRAIN_LIMIT, serving).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    warn!(limit = ?DRAIN_LIMIT, "some calls did not end in time and are cut off");
                    Ok(())
                }
            },
        };
        if let Err(error) = tasks.shutdown(STOP_LIMIT).await {
            warn!(%error, "the scheduler stops without waiting longer");
        }
        traces.close().await;
        info!("scheduler stopped; open operations rest where they are");
        outcome.map_err(RunError::Serve)
    }
}

async fn set_health(health: &HealthReporter, status: ServingStatus) {
    for service in ["", "quiesce.v1.Scheduler", "quiesce.v1.AgentGateway", "quiesce.v1.Access"] {
        health.set_service_status(service, status).await;
    }
}

/// Says NOT_SERVING while the store takes no changes.
async fn watch_health(health: HealthReporter, mut condition: watch::Receiver<Condition>, drain: drain::Watch) {
    loop {
        let good = *condition.borrow_and_update() == Condition::Good;
        set_health(&health, if good { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        tokio::select! {
            biased;
            changed = condition.changed() => if changed.is_err() { return },
            () = drain.signaled() => return,
        }
    }
}

/// Reflection of what is served here, and of the details that errors carry; the hook's service is served elsewhere.
fn reflection() -> Result<tonic_reflection::server::Builder<'static>, RunError> {
    let broken = |error: prost::DecodeError| RunError::Reflection(Box::new(error));
    let mut ours = prost_types::FileDescriptorSet::decode(quiesce_protocol::FILE_DESCRIPTOR_SET).map_err(broken)?;
    ours.file.retain(|file| !file.name().ends_with("shutdown_hook.proto"));
    Ok(tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(ours)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}
