//! A scheduler at work, whoever brings it its calls.
//!
//! Owns what happens between an open store and the first call: the parts are made, registered instances made known,
//! open operations taken up. It knows no sockets.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use quiesce_protocol::v1::access_server::AccessServer;
use quiesce_protocol::v1::agent_gateway_server::AgentGatewayServer;
use quiesce_protocol::v1::scheduler_server::SchedulerServer;
use quiesce_runtime::clock::Clock;
use quiesce_runtime::drain;
use quiesce_runtime::tasks::Tasks;
use quiesce_store::{Scan, Space};
use tonic::body::Body;
use tower::Layer as _;
use tower::util::BoxCloneSyncService;

use super::{Opened, RunError};
use crate::access::{self, Access};
use crate::admission::Admission;
use crate::attach::Attachments;
use crate::driver::{self, Handle};
use crate::history::{self, Follower, History};
use crate::hooks::{Dial, Hooks};
use crate::metrics::Metrics;
use crate::overview::Overview;
use crate::records::{InstanceRecord, LoadError, load_all};
use crate::registry::{Census, Registry, Turns};
use crate::retention::Retention;
use crate::rpc::{MESSAGE_BYTES_MAX, RpcLayer};
use crate::secrets::entropy_of;
use crate::service::{Parts, Service};
use crate::steady::Steady;
use crate::traces::Traces;
use crate::watch::Watches;

/// Takes calls as HTTP requests and answers them.
pub type GrpcService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Everything that runs, and what is needed to stop it: announce the drain it was started with, then end its tasks.
pub struct Running {
    pub(super) service: Service,
    pub(super) access: Arc<Access>,
    pub(super) attachments: Attachments,
    pub(super) driver: Handle,
    pub(super) hooks: Hooks,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    pub(super) tasks: Tasks,
    /// How many operations were taken up.
    pub(super) resumed: usize,
}

impl Running {
    /// The services `Scheduler`, `AgentGateway` and `Access`, for whoever serves them.
    pub(super) fn servers(&self) -> (SchedulerServer<Service>, AgentGatewayServer<Service>, AccessServer<Service>) {
        (
            SchedulerServer::new(self.service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            AgentGatewayServer::new(self.service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            AccessServer::new(self.service.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
    }

    /// The first two of them without sockets: each takes the requests of its own service.
    #[must_use]
    pub fn services(&self) -> (GrpcService, GrpcService) {
        let layer = RpcLayer::new(self.metrics.clone(), Arc::clone(&self.access), self.traces.clone());
        let (scheduler, gateway, _) = self.servers();
        let scheduler = BoxCloneSyncService::new(layer.layer(scheduler));
        let gateway = BoxCloneSyncService::new(layer.layer(gateway));
        (scheduler, gateway)
    }

    /// The page about it; `open`: whoever reaches it may look.
    pub(super) fn overview(&self, open: bool) -> Overview {
        let (scheduler, _) = self.services();
        Overview { scheduler, watches: self.service.watches.clone(), open }
    }

    /// The tasks of this scheduler.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// How many operations were taken up.
    #[must_use]
    pub fn resumed(&self) -> usize {
        self.resumed
    }

    /// Operations that ought to be driven and are not, since this scheduler began.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.driver.gauges().failed
    }
}

impl Opened {
    /// Makes the parts and takes up what is in the store; hooks that listen are reached by `dial`. Runs until the tasks
    /// are ended.
    ///
    /// # Errors
    /// What cannot be read.
    pub async fn start(self, dial: Arc<dyn Dial>, drain: &drain::Watch) -> Result<Running, RunError> {
        let read = |error: LoadError| RunError::Read(Box::new(error));
        let tasks = Tasks::new();
        let Self { store, timeline, secrets, machine, config, audit, metrics, traces, .. } = self;
        let clock: Arc<dyn Clock> = Arc::new(Steady::new(Arc::clone(&timeline) as Arc<dyn Clock>));
        let hooks = Hooks::new(Arc::clone(&secrets), Arc::clone(&clock), dial, tasks.clone(), drain.clone());
        for instance in load_all::<InstanceRecord>(&*store, Scan::all(Space::Instances)).await.map_err(read)? {
            hooks.registered(&instance.record);
        }
        let jitter = machine.clone();
        let driver = Handle::new(driver::Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            hooks: hooks.clone(),
            secrets: Arc::clone(&secrets),
            tasks: tasks.clone(),
            drain: drain.clone(),
            traces: traces.clone(),
            randomness: Box::new(move || jitter.randomness()),
        });
        let (history, mut follower): (History, Follower) =
            history::open(Arc::clone(&store), Arc::clone(&clock), metrics.clone(), traces.listener(&clock));
        let retention = Retention { store: Arc::clone(&store), clock: Arc::clone(&clock), timeline: Some(timeline) };
        tasks.spawn("retention", retention.run(drain.clone()));
        let plan = driver.recover().await.map_err(RunError::Recover)?;
        // What is open is counted before what happens to it.
        plan.resume.iter().for_each(|stored| metrics.resumed(&stored.operation));
        follower.resumed(plan.resume.iter().map(|stored| &stored.operation));
        tasks.spawn("history", follower.run(drain.clone()));
        let default_policy = Arc::new(config.default_policy);
        let registry = Registry {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            hooks: hooks.clone(),
            default_policy: Arc::clone(&default_policy),
            turns: Turns::new(),
            usage: Census::new(),
        };
        let entropy = entropy_of(&machine);
        let access = Access::new(
            config.access,
            access::Parts {
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
                secrets: Arc::clone(&secrets),
                entropy,
                audit,
                metrics: metrics.clone(),
            },
        );
        let access = Arc::new(access);
        let attachments = Attachments::new(hooks.clone(), secrets, entropy_of(&machine));
        let service = Service::new(Parts {
            access: Arc::clone(&access),
            admission: Admission::new(registry.clone(), driver.clone(), machine),
            registry,
            driver: driver.clone(),
            attachments: attachments.clone(),
            watches: Watches {
                store,
                clock: Arc::clone(&clock),
                history,
                drain: drain.clone(),
                metrics: metrics.clone(),
            },
            tasks: tasks.clone(),
            default_policy,
            attach_endpoint: config.attach_endpoint,
            hooks_in_clear: config.hooks_in_clear,
        });
        let resumed = plan.resume.len();
        Ok(Running { service, access, attachments, driver, hooks, clock, metrics, traces, tasks, resumed })
    }
}
