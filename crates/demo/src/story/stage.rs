//! What a demonstration plays on: a directory, a bucket, a scheduler, two agents with a ledger each, a client.
//!
//! Owns how each of them is started and ended. It knows nothing of what is to be shown; that is in the scenes.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_protocol::v1::{GetInstanceRequest, GetServerInfoRequest, Instance, instance};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use super::family::{Family, Process};
use super::{Options, StoryError};
use crate::bucket::{Bucket, BucketOptions};
use crate::ledger::book::Epoch;
use crate::ledger::{TOLD_TO_STOP, vars};
use crate::load::{Load, LoadOptions};
use crate::s3::S3Server;

/// What is moved about.
pub(super) const APPLICATION: &str = "applications/ledger";

/// How slow a slow save is.
pub(super) const SLOW_SAVE: Duration = Duration::from_secs(4);

/// Between two looks at something that will be so in a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// From one write of the client to the next: some hundred a second, so that every moment has its write.
const WRITE_INTERVAL: Duration = Duration::from_millis(2);

/// A child that was told to end, or will end by itself in a moment, gets this long.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// Every call to the scheduler is answered in milliseconds, or something is wrong.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// The generated client.
pub(super) type Api = SchedulerClient<Channel>;

/// One of the two clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cluster {
    North,
    South,
}

impl Cluster {
    pub(super) const BOTH: [Self; 2] = [Self::North, Self::South];

    /// Its name, which is also that of its only instance.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::South => "south",
        }
    }

    pub(super) fn instance(self) -> String {
        format!("{APPLICATION}/instances/{}", self.name())
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port that stays ours, and refuses connections, until a child listens there: bound, but not listening. It is still
/// ours when the child has gone, so a second one can listen there again.
#[derive(Debug)]
struct Place {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Place {
    fn reserve() -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: socket.local_addr()?, _socket: socket })
    }
}

/// A cluster's part of the stage.
#[derive(Debug)]
struct Site {
    place: Place,
    agent: Option<Process>,
}

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    options: Options,
    directory: TempDir,
    family: Family,
    bucket: BucketOptions,
    s3: Option<S3Server>,
    scheduler_place: Place,
    scheduler: Option<Process>,
    sites: [Site; 2],
    load: Option<Load>,
    api: Api,
}

impl Stage {
    /// Makes the directory, reserves the ports and starts the bucket. Starts no process yet.
    pub(super) async fn set(options: Options) -> Result<Self, StoryError> {
        let directory = tempfile::Builder::new().prefix("quiesce-demo-").tempdir();
        let directory = directory.map_err(|source| StoryError::Io { what: "make a temporary directory", source })?;
        for name in ["logs", "s3"] {
            fs::create_dir(directory.path().join(name))
                .map_err(|source| StoryError::Io { what: "make a directory", source })?;
        }
        let place = || Place::reserve().map_err(|source| StoryError::Io { what: "reserve a port on loopback", source });
        let s3 = S3Server::start(&directory.path().join("s3")).await?;
        let scheduler_place = place()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", scheduler_place.address))
            .map_err(StoryError::Address)?
            .connect_timeout(CALL_TIME_MAX);
        Ok(Self {
            options,
            directory,
            family: Family::new(),
            bucket: s3.bucket_options(),
            s3: Some(s3),
            scheduler_place,
            scheduler: None,
            sites: [Site { place: place()?, agent: None }, Site { place: place()?, agent: None }],
            load: None,
            api: SchedulerClient::new(endpoint.connect_lazy()),
        })
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn family(&self) -> &Family {
        &self.family
    }

    pub(super) fn api(&self) -> Api {
        self.api.clone()
    }

    pub(super) fn bucket(&self) -> Result<Bucket, StoryError> {
        Ok(Bucket::new(&self.bucket)?)
    }

    pub(super) fn bucket_endpoint(&self) -> &str {
        &self.bucket.endpoint
    }

    pub(super) fn scheduler_address(&self) -> SocketAddr {
        self.scheduler_place.address
    }

    /// Where the ledger of this cluster serves, when it runs.
    pub(super) fn ledger_address(&self, cluster: Cluster) -> SocketAddr {
        self.site(cluster).place.address
    }

    /// The client.
    pub(super) fn load(&self) -> Result<&Load, StoryError> {
        self.load.as_ref().ok_or(StoryError::Absent("client"))
    }

    /// Starts the scheduler, for the first time or again, and waits until it serves. Its pid.
    pub(super) async fn start_scheduler(&mut self) -> Result<u32, StoryError> {
        let mut command = Command::new(&self.options.program);
        command.arg("scheduler").args(["--listen", &self.scheduler_place.address.to_string()]);
        command.args(["--admin-listen", "off", "--log-format", "text"]);
        command.arg("--data-dir").arg(self.directory.path().join("scheduler"));
        let scheduler = self.start("scheduler", command)?;
        let pid = scheduler.pid();
        self.scheduler = Some(scheduler);
        loop {
            // Not there yet; the scene has a limit.
            if within(self.api().get_server_info(GetServerInfoRequest {})).await.is_ok() {
                return Ok(pid);
            }
            if !self.scheduler.as_ref().is_some_and(Process::is_alive) {
                return Err(StoryError::Gone { name: "scheduler" });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// `kill -9`.
    pub(super) async fn kill_scheduler(&mut self) -> Result<(), StoryError> {
        let scheduler = self.scheduler.take().ok_or(StoryError::Absent("scheduler"))?;
        scheduler.kill().await.map_err(|source| StoryError::Io { what: "kill the scheduler", source })
    }

    /// Tells the scheduler to end, and waits for it.
    pub(super) async fn end_scheduler(&mut self) -> Result<ExitStatus, StoryError> {
        let scheduler = self.scheduler.take().ok_or(StoryError::Absent("scheduler"))?;
        scheduler.terminate().map_err(|source| StoryError::Io { what: "signal the scheduler", source })?;
        ended("scheduler", scheduler).await
    }

    /// Starts an agent with a ledger below it. Its pid.
    pub(super) fn start_agent(&mut self, cluster: Cluster, standby: bool) -> Result<u32, StoryError> {
        let mut command = Command::new(&self.options.program);
        command.args(["agent", "--application", "ledger", "--cluster", cluster.name(), "--instance", cluster.name()]);
        command.args(["--scheduler", &format!("http://{}", self.scheduler_place.address), "--log-format", "text"]);
        command.arg("--state-dir").arg(self.directory.path().join(cluster.name()));
        if standby {
            command.arg("--standby");
        }
        command.arg("--").arg(&self.options.program).args(&self.options.ledger);
        command.envs(self.bucket.to_vars());
        command.env(vars::LISTEN, self.ledger_address(cluster).to_string());
        command.env(vars::SAVE_SECONDS, SLOW_SAVE.as_secs().to_string());
        command.env(vars::SAVE_SLOWLY_WHILE, self.saves_slowly(cluster));
        command.env(vars::REFUSE_START_WHILE, self.refuses_to_start(cluster));
        let agent = self.start(cluster.name(), command)?;
        let pid = agent.pid();
        self.site_mut(cluster).agent = Some(agent);
        Ok(pid)
    }

    /// Waits for an agent that will end by itself.
    pub(super) async fn agent_ended(&mut self, cluster: Cluster) -> Result<ExitStatus, StoryError> {
        let agent = self.site_mut(cluster).agent.take().ok_or(StoryError::Absent("agent"))?;
        ended(cluster.name(), agent).await
    }

    /// Waits until the scheduler sees this instance so.
    pub(super) async fn instance_is(&self, cluster: Cluster, state: instance::State) -> Result<Instance, StoryError> {
        loop {
            let request = GetInstanceRequest { name: cluster.instance() };
            // Not registered yet is one of the things waited for.
            let answer = within(self.api().get_instance(request)).await.ok();
            if let Some(instance) = answer.and_then(|answer| answer.instance).filter(|found| found.state() == state) {
                return Ok(instance);
            }
            self.expect_agent(cluster)?;
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Starts the client, which writes without pause from now on.
    pub(super) fn start_load(&mut self) {
        self.load = Some(Load::start(LoadOptions {
            candidates: Cluster::BOTH.map(|cluster| self.ledger_address(cluster)).to_vec(),
            interval: WRITE_INTERVAL,
            name: "client".to_owned(),
        }));
    }

    /// Ends the client.
    pub(super) fn take_load(&mut self) -> Result<Load, StoryError> {
        self.load.take().ok_or(StoryError::Absent("client"))
    }

    /// Waits until the client was given so many acknowledgements more, from this cluster; not for a ledger that is gone.
    pub(super) async fn writes_flow(&self, cluster: Cluster, more: u64) -> Result<(), StoryError> {
        let mut stats = self.load()?.stats();
        let address = self.ledger_address(cluster);
        let mut begin = None;
        let enough = stats.wait_for(|stats| {
            let here = stats.last.is_some_and(|(from, _)| from == address);
            here && stats.acknowledged >= *begin.get_or_insert(stats.acknowledged) + more
        });
        tokio::select! {
            // The sender lives in the load, and the load on this stage.
            enough = enough => enough.map(drop).map_err(|_| StoryError::Absent("client")),
            gone = self.agent_is_gone(cluster) => Err(gone),
        }
    }

    /// Both agents run, or the story is over.
    pub(super) fn expect_agents(&self) -> Result<(), StoryError> {
        Cluster::BOTH.into_iter().try_for_each(|cluster| self.expect_agent(cluster))
    }

    fn expect_agent(&self, cluster: Cluster) -> Result<(), StoryError> {
        let runs = self.site(cluster).agent.as_ref().is_some_and(Process::is_alive);
        runs.then_some(()).ok_or(StoryError::Gone { name: cluster.name() })
    }

    async fn agent_is_gone(&self, cluster: Cluster) -> StoryError {
        loop {
            if let Err(gone) = self.expect_agent(cluster) {
                return gone;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// As long as this file exists, the ledger of this cluster saves slowly.
    pub(super) fn saves_slowly(&self, cluster: Cluster) -> PathBuf {
        self.directory.path().join(format!("{cluster}-saves-slowly"))
    }

    /// As long as this file exists, the ledger of this cluster refuses to start.
    pub(super) fn refuses_to_start(&self, cluster: Cluster) -> PathBuf {
        self.directory.path().join(format!("{cluster}-refuses-to-start"))
    }

    /// How often the ledger with this epoch was told to stop, by its own log.
    pub(super) fn times_told_to_stop(&self, epoch: Epoch) -> Result<usize, StoryError> {
        let mark = format!("epoch={epoch} ");
        let mut times = 0;
        for cluster in Cluster::BOTH {
            let log = fs::read(self.log(cluster.name()))
                .map_err(|source| StoryError::Io { what: "read the log of an agent", source })?;
            let log = String::from_utf8_lossy(&log);
            times += log.lines().filter(|line| line.contains(TOLD_TO_STOP) && line.contains(&mark)).count();
        }
        Ok(times)
    }

    /// Ends the bucket.
    pub(super) async fn end_bucket(&mut self) {
        if let Some(s3) = self.s3.take() {
            s3.stop().await;
        }
    }

    /// Takes the stage down by force, and the directory unless it shall be kept. Where it was kept.
    pub(super) fn take_down(self, keep: bool) -> io::Result<Option<PathBuf>> {
        drop(self.load);
        self.family.kill();
        if keep {
            return Ok(Some(self.directory.keep()));
        }
        self.directory.close().map(|()| None)
    }

    fn start(&self, name: &'static str, command: Command) -> Result<Process, StoryError> {
        self.family.start(command, &self.log(name)).map_err(|source| StoryError::Start { name, source })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join("logs").join(format!("{name}.log"))
    }

    fn site(&self, cluster: Cluster) -> &Site {
        &self.sites[cluster as usize]
    }

    fn site_mut(&mut self, cluster: Cluster) -> &mut Site {
        &mut self.sites[cluster as usize]
    }
}

/// One call, within its time.
pub(super) async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, StoryError> {
    match tokio::time::timeout(CALL_TIME_MAX, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(StoryError::Silent),
    }
}

async fn ended(name: &'static str, process: Process) -> Result<ExitStatus, StoryError> {
    match tokio::time::timeout(END_TIME_MAX, process.wait()).await {
        Ok(status) => status.map_err(|source| StoryError::Io { what: "wait for a child", source }),
        Err(_) => Err(StoryError::DidNotEnd { name, limit: END_TIME_MAX }),
    }
}
