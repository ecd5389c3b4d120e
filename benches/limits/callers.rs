//! Callers of a scheduler, or of what stands for one: they make applications, delete them, and one of them watches.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost::Message as _;
use quiesce_protocol::v1;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use v1::agent_gateway_client::AgentGatewayClient;
use v1::scheduler_client::SchedulerClient;

use crate::plain;
use crate::process::LIMIT;

/// Calls made at the same time while something is set up.
pub(crate) const AT_ONCE: usize = 64;
/// Connections of all callers.
const CONNECTIONS: usize = 4;

/// Connections to one address, dealt out in turns.
#[derive(Clone)]
pub(crate) struct Callers {
    channels: Arc<[Channel]>,
}

impl Callers {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let channels = futures::future::try_join_all((0..CONNECTIONS).map(|_| connect(address))).await?;
        Ok(Self { channels: channels.into() })
    }

    pub(crate) fn channel(&self, number: usize) -> Channel {
        self.channels[number % self.channels.len()].clone()
    }

    pub(crate) fn scheduler(&self, number: usize) -> SchedulerClient<Channel> {
        SchedulerClient::new(self.channel(number))
    }

    /// Applications `PREFIX-0` to `PREFIX-N`, one instance each, whose hooks listen at `hook`.
    pub(crate) async fn create(&self, prefix: &str, count: usize, hook: SocketAddr) -> anyhow::Result<()> {
        let created = (0..count).map(|number| self.create_one(number, format!("{prefix}-{number}"), hook));
        stream::iter(created).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn create_one(&self, number: usize, name: String, hook: SocketAddr) -> anyhow::Result<()> {
        let external = v1::ExternalPlacement { require_confirmation: false };
        let application = v1::Application {
            name: format!("applications/{name}"),
            cluster: "here".to_owned(),
            policy: Some(patient()),
            placement: Some(v1::Placement { driver: Some(v1::placement::Driver::External(external)) }),
            ..Default::default()
        };
        let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
        self.scheduler(number).create_application(request).await?;
        let instance = v1::Instance {
            name: format!("applications/{name}/instances/one"),
            cluster: "here".to_owned(),
            endpoint: hook.to_string(),
            agent_id: format!("agent of {name}"),
            ..Default::default()
        };
        let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
        AgentGatewayClient::new(self.channel(number)).register_instance(request).await?;
        Ok(())
    }

    /// Deletes one; the name of the operation.
    pub(crate) async fn delete(&self, number: usize, application: &str) -> anyhow::Result<String> {
        let name = format!("applications/{application}");
        let request = v1::DeleteApplicationRequest { name, ..Default::default() };
        let answer = self.scheduler(number).delete_application(request).await?.into_inner();
        Ok(answer.operation.context("a deletion is an operation")?.name)
    }

    /// Deletes `PREFIX-0` to `PREFIX-N`, `callers` of them at a time, each until it is over.
    pub(crate) async fn run(
        &self,
        prefix: &str,
        count: usize,
        callers: usize,
        watcher: &Watcher,
    ) -> anyhow::Result<()> {
        let one = |number: usize| async move {
            let operation = self.delete(number, &format!("{prefix}-{number}")).await?;
            watcher.over(&operation).await
        };
        stream::iter((0..count).map(one)).buffer_unordered(callers).try_collect().await
    }

    /// Deletes all of them, [`AT_ONCE`] calls at a time, and does not wait for the end of any.
    pub(crate) async fn open(&self, prefix: &str, count: usize) -> anyhow::Result<()> {
        let one = |number: usize| async move { self.delete(number, &format!("{prefix}-{number}")).await.map(drop) };
        stream::iter((0..count).map(one)).buffer_unordered(AT_ONCE).try_collect().await
    }
}

/// One connection that stands.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// Timers that do not matter here: whoever waits, waits for us.
fn patient() -> v1::ShutdownPolicy {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    v1::ShutdownPolicy {
        grace_period: seconds(3000),
        accept_timeout: seconds(600),
        heartbeat_timeout: seconds(3000),
        ..Default::default()
    }
}

/// Watches every operation, from its own connection.
pub(crate) struct Watcher {
    ends: Arc<Mutex<HashMap<String, End>>>,
    seen: watch::Receiver<Seen>,
    _task: JoinSet<()>,
}

/// What became of an operation first: that it was over, or that somebody asked for its end.
enum End {
    Over,
    Awaited(oneshot::Sender<()>),
}

/// What a watcher has seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) events: usize,
    /// Operations that are over.
    pub(crate) over: usize,
    /// The last change of an operation, encoded.
    pub(crate) sample: Bytes,
    /// Revision of the last event.
    pub(crate) revision: u64,
}

impl Watcher {
    /// Misses nothing from here on.
    pub(crate) async fn begin(address: SocketAddr) -> anyhow::Result<Self> {
        let mut events = plain::watch(connect(address).await?, "").await?;
        events.next().await.context("a watch begins with something")??;
        let ends = Arc::new(Mutex::new(HashMap::new()));
        let (sender, seen) = watch::channel(Seen::default());
        let mut task = JoinSet::new();
        let known = Arc::clone(&ends);
        task.spawn(async move {
            // A stream that breaks shows in that nothing is over any more.
            while let Some(Ok(encoded)) = events.next().await {
                let Ok(event) = v1::OperationEvent::decode(encoded.clone()) else { return };
                let Some(operation) = event.operation else { continue };
                sender.send_modify(|seen| {
                    seen.events += 1;
                    seen.over += usize::from(operation.done);
                    seen.sample = encoded;
                    seen.revision = u64::try_from(event.revision).unwrap_or_default();
                });
                if operation.done {
                    let mut ends = known.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(End::Awaited(awaited)) = ends.insert(operation.name, End::Over) {
                        // Whoever asked may have gone.
                        let _gone = awaited.send(());
                    }
                }
            }
        });
        Ok(Self { ends, seen, _task: task })
    }

    /// Waits until an operation is over.
    pub(crate) async fn over(&self, operation: &str) -> anyhow::Result<()> {
        let (sender, over) = oneshot::channel();
        {
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(ends.get(operation), Some(End::Over)) {
                return Ok(());
            }
            ends.insert(operation.to_owned(), End::Awaited(sender));
        }
        timeout(LIMIT, over).await.with_context(|| format!("{operation} goes on and on"))?.context("the watch ended")
    }

    /// Waits until so many operations are over in all.
    pub(crate) async fn all_over(&self, count: usize) -> anyhow::Result<()> {
        self.seen.clone().wait_for(|seen| seen.over >= count).await?;
        Ok(())
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }
}
