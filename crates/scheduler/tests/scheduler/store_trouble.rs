//! A store that takes no changes: everybody is told the truth, and nothing has to be restarted when it does again.

use std::sync::Arc;

use quiesce_scheduler::{Config, StoreChoice};
use quiesce_store::fault::FaultyStore;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{CommitError, Condition, EngineError};
use quiesce_testkit::eventually;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

use crate::hook::Stop;
use crate::transport::get;
use crate::world::{LIMIT, World, expect_error};

async fn health(world: &World) -> ServingStatus {
    let channel = Endpoint::from_shared(format!("http://{}", world.address)).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: "quiesce.v1.Scheduler".to_owned() };
    HealthClient::new(channel).check(request).await.unwrap().into_inner().status()
}

async fn is_told(world: &World, condition: Condition) {
    let (ready, serving) = match condition {
        Condition::Good => ("HTTP/1.1 200".to_owned(), ServingStatus::Serving),
        _ => (condition.to_string(), ServingStatus::NotServing),
    };
    let metric = format!("quiesce_store_condition{{condition=\"{}\"}} 1", condition.as_str());
    eventually(format!("everybody to be told {condition:?}"), LIMIT, || {
        let (ready, metric) = (ready.clone(), metric.clone());
        async move {
            let told = (get(world, "/readyz").await, health(world).await, get(world, "/metrics").await);
            let as_wanted = told.0.contains(&ready) && told.1 == serving && told.2.contains(&metric);
            if as_wanted { Ok(()) } else { Err(format!("{told:?}")) }
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_told_to_everybody_and_heals_without_a_restart() {
    let unavailable = CommitError::Unavailable { source: EngineError::new("the disk is gone") };
    for trouble in [CommitError::Full, CommitError::ReadOnly, unavailable] {
        let store = FaultyStore::new(Arc::new(MemoryStore::new(Uuid::new_v4())));
        let choice = StoreChoice::Given(Arc::new(store.clone()));
        let mut world = World::with(Config { store: choice, ..Config::ephemeral() }).await;
        let _hook = world.populated("shop", Stop::AtOnce).await;
        is_told(&world, Condition::Good).await;

        let condition = Condition::of(&trouble);
        store.fail_all(trouble);
        let refused = world.migrate("shop", "b", "id").await;
        let message = refused.as_ref().unwrap_err().message().to_owned();
        expect_error(refused, Code::Unavailable, "NOT_SERVING");
        assert!(message.contains("the store") && message.contains("nothing was changed"), "{message}");
        is_told(&world, condition).await;
        assert!(
            world.application("shop").await.unwrap().active_operation.is_empty(),
            "it can be read, and is untouched"
        );

        store.heal();
        is_told(&world, Condition::Good).await;
        let operation = world.migrate("shop", "b", "id").await.unwrap();
        world.operation_is(&operation.name, quiesce_protocol::v1::operation::State::Succeeded).await;
        world.stop().await;
    }
}
