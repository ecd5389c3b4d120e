//! What gRPC itself refuses looks like every other error: E01, E05, E06.

use quiesce_protocol::v1;
use tonic::{Code, Request};

use crate::hook::Stop;
use crate::world::{World, expect_error};

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_server_lives() {
    let mut world = World::start().await;
    let request = v1::GetApplicationRequest { name: "x".repeat(5 << 20) };
    let refused = world.scheduler.get_application(request).await;
    assert_eq!(expect_error(refused, Code::ResourceExhausted, "MESSAGE_TOO_LARGE")["maximum"], "1048576");
    world.create("applications/shop", "a").await;
    world.stop().await;
}

#[tokio::test]
async fn a_method_nobody_serves_is_not_implemented() {
    let world = World::start().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
    let mut hook = v1::shutdown_hook_client::ShutdownHookClient::connect(channel).await.unwrap();
    let refused = hook.get_hook_info(v1::GetHookInfoRequest {}).await;
    expect_error(refused, Code::Unimplemented, "NOT_IMPLEMENTED");
    drop(hook);
    world.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_undo_what_was_accepted() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let mut request = Request::new(v1::MigrateApplicationRequest {
        name: "applications/shop".to_owned(),
        target_cluster: "b".to_owned(),
        request_id: "id".to_owned(),
        ..Default::default()
    });
    request.set_timeout(std::time::Duration::from_micros(1));
    // Whether the first call was in time or not: the second finds one operation, and it comes to its end.
    let _first = world.scheduler.migrate_application(request).await;
    let operation = world.migrate("shop", "b", "id").await.unwrap();
    world.operation_is(&operation.name, v1::operation::State::Succeeded).await;
    world.stop().await;
}
