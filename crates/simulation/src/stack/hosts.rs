//! The hosts of the scheduler and of the agents: production code on simulated machines, begun again when it ends.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use quiesce_agent::StartMode;
use quiesce_agent::application::Application;
use quiesce_agent::hook::{HookOptions, Records};
use quiesce_agent::identity::Identity;
use quiesce_agent::life::{self, Listen, Parts, Reach};
use quiesce_operation::Policy;
use quiesce_runtime::tasks::Tasks;
use quiesce_scheduler::{Config, Scheduler, StoreChoice};
use tokio::time::sleep;

use super::instance::Instance;
use super::machine::Boot;
use super::plan::Role;
use super::world::{SCHEDULER, World};

/// Where agents listen, those that do.
const AGENT_PORT: u16 = 7700;
/// How soon whatever watches over an agent starts it again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// One life of the scheduler. Whoever told it to stop starts it again.
pub(super) async fn scheduler(world: Arc<World>) -> turmoil::Result {
    let (_, port) = SCHEDULER.split_once(':').expect("the constant has a port");
    let boot = Boot { id: "scheduler".to_owned(), at: Duration::ZERO, skew_ms: 0 };
    let config = Config {
        listen: (Ipv4Addr::UNSPECIFIED, port.parse()?).into(),
        admin_listen: None,
        store: StoreChoice::Given(world.storage.clone()),
        default_policy: Policy::built_in(),
        ..Config::ephemeral()
    };
    let bound = Scheduler::bind_on(world.machine("scheduler", boot), config).await?;
    let told = Arc::clone(&world.drain);
    let ready = |resumed| world.story.tell("scheduler", format_args!("serves, {resumed} operations resumed"));
    Box::pin(bound.run_and_tell(told.notified_owned(), ready)).await?;
    Ok(())
}

/// One life of an agent's machine; whatever watches over the agent starts it again when it ends.
pub(super) async fn agent(world: Arc<World>, role: Role, instance: Arc<Instance>) -> turmoil::Result {
    loop {
        if instance.is_deleted() {
            world.story.tell(&instance.host, "stays away: deleted for good");
            std::future::pending::<()>().await;
        }
        let beside = Arc::new(instance.open());
        let _gone = Gone(Arc::clone(&instance));
        let mut options = HookOptions::new(Identity::new(role.application, role.name, role.cluster)?);
        options.machine = world.machine(&instance.host, instance.boot());
        let listen = role.listens.then(|| Listen {
            address: format!("0.0.0.0:{AGENT_PORT}"),
            advertise: Some(format!("{}:{AGENT_PORT}", instance.host)),
            tls: None,
        });
        let parts = Parts {
            options,
            records: Records::on(instance.clone()),
            reach: Reach::Sockets { scheduler: format!("http://{SCHEDULER}"), tls: None, listen },
            credential: quiesce_agent::credential::Credential::none(),
            agent_id: format!("agent of {}", instance.host),
            stop_order: 0,
            labels: HashMap::new(),
            policy: world.plan.policy(),
            standby: role.standby,
            start: StartMode::Permitted,
            grace: None,
        };
        let tasks = Tasks::new();
        let nobody_asks = stream::once(std::future::pending()).boxed();
        let code = life::live(beside as Arc<dyn Application>, parts, nobody_asks, &tasks).boxed_local().await?;
        world.story.tell(&instance.host, format_args!("the agent ends with code {code}"));
        sleep(RESTART_AFTER).await;
    }
}

/// Tells the instance that its agent is gone, however it goes.
struct Gone(Arc<Instance>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.agent_gone();
    }
}
