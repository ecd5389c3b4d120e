//! Health, reflection, metrics, and one port for two protocols: E04, A02, A05.

use quiesce_protocol::v1;
use quiesce_scheduler::{Config, StoreChoice};
use quiesce_testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::hook::Stop;
use crate::world::{LIMIT, World};

#[tokio::test]
async fn health_and_reflection_tell_what_is_served() {
    let world = World::start().await;
    let channel = Endpoint::from_shared(format!("http://{}", world.address)).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "quiesce.v1.Scheduler", "quiesce.v1.AgentGateway"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap().into_inner();
        assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving, "{service}");
    }
    let ask = |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let requests = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned())),
        ask(MessageRequest::FileContainingSymbol("quiesce.v1.ShutdownHook".to_owned())),
    ];
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut answers = answers;
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list of services")
    };
    let mut services: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    services.sort();
    let served = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "quiesce.v1.Access",
        "quiesce.v1.AgentGateway",
        "quiesce.v1.Scheduler",
    ];
    assert_eq!(services, served);
    let found = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(found, Some(MessageResponse::FileDescriptorResponse(_))), "error details can be decoded");
    assert!(answers.message().await.is_err(), "what is not served is not described");
    drop((answers, reflection, health));
    world.stop().await;
}

pub(crate) async fn get(world: &World, path: &str) -> String {
    let mut stream = TcpStream::connect(world.admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_admin_address_shows_metrics_and_health() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::AtOnce).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    world.operation_is(&operation.name, v1::operation::State::Succeeded).await;
    assert!(get(&world, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(&world, "/").await.starts_with("HTTP/1.1 404"));
    let metrics = eventually("the operation to be counted", LIMIT, || async {
        let metrics = get(&world, "/metrics").await;
        let counted = metrics.contains("quiesce_operations_total{kind=\"migrate\",outcome=\"succeeded\"} 1");
        if counted { Ok(metrics) } else { Err(metrics) }
    })
    .await;
    for line in [
        "quiesce_grpc_server_handled_total{service=\"quiesce.v1.Scheduler\",method=\"MigrateApplication\",code=\"Ok\"} 1",
        "quiesce_operations_accepted_total{kind=\"migrate\"} 1",
        "quiesce_operation_state_changes_total{state=\"stopping\"} 1",
        "quiesce_operations_in_progress{state=\"pending\"} 0",
        "quiesce_operations_in_progress{state=\"finalizing\"} 0",
        "quiesce_operation_duration_seconds_count{kind=\"migrate\",outcome=\"succeeded\"} 1",
        "quiesce_shutdown_duration_seconds_count{outcome=\"stopped\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    world.stop().await;
}

/// Waits until the metrics have all of these lines.
async fn counts(world: &World, lines: &[&str]) {
    eventually(format!("{lines:?} in the metrics"), LIMIT, || async {
        let metrics = get(world, "/metrics").await;
        if lines.iter().all(|wanted| metrics.lines().any(|line| line == *wanted)) { Ok(()) } else { Err(metrics) }
    })
    .await;
}

#[tokio::test]
async fn a_restart_counts_what_is_open_and_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = StoreChoice::Embedded { directory: directory.path().to_owned() };
    let config = Config { store, ..Config::ephemeral() };
    let mut world = World::with(config.clone()).await;
    let hook = world.populated("shop", Stop::Hang).await;
    let operation = world.migrate("shop", "b", "").await.unwrap();
    world.operation_is(&operation.name, v1::operation::State::Stopping).await;
    let open = "quiesce_operations_in_progress{state=\"stopping\"} 1";
    counts(&world, &[open, "quiesce_operations_accepted_total{kind=\"migrate\"} 1"]).await;
    world.stop().await;

    let world = World::with(config).await;
    let metrics = get(&world, "/metrics").await;
    for line in [open, "quiesce_operations_accepted_total{kind=\"migrate\"} 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} at once in {metrics}");
    }
    counts(&world, &["quiesce_hooks{state=\"ready\"} 1", "quiesce_instances{app_state=\"running\"} 1"]).await;
    hook.play(|script| script.stop = Stop::AtOnce);
    world.operation_is(&operation.name, v1::operation::State::Succeeded).await;
    let done = [
        "quiesce_operations_in_progress{state=\"stopping\"} 0",
        "quiesce_operations_total{kind=\"migrate\",outcome=\"succeeded\"} 1",
        "quiesce_operation_state_changes_total{state=\"stopping\"} 0",
        "quiesce_instances_stopped_total{outcome=\"stopped\",evidence=\"group_empty\"} 1",
    ];
    counts(&world, &done).await;
    let metrics = get(&world, "/metrics").await;
    let syncs = metrics.lines().find_map(|line| line.strip_prefix("quiesce_store_sync_batches_count "));
    let commits = "quiesce_store_commit_duration_seconds_count{outcome=\"durable\"} ";
    let commits = metrics.lines().find_map(|line| line.strip_prefix(commits));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    assert!(number(syncs) > 0 && number(commits) >= number(syncs), "{metrics}");
    world.stop().await;
}

#[tokio::test]
async fn what_rests_and_what_watches_is_counted() {
    let mut world = World::start().await;
    let _hook = world.populated("shop", Stop::Refuse).await;
    let policy = Some(v1::ShutdownPolicy {
        retry: Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() }),
        ..Default::default()
    });
    let request = v1::DeleteApplicationRequest { name: "applications/shop".to_owned(), policy, ..Default::default() };
    let operation = world.scheduler.delete_application(request).await.unwrap().into_inner().operation.unwrap();
    world.operation_is(&operation.name, v1::operation::State::Degraded).await;
    let stream = world.scheduler.watch_operations(v1::WatchOperationsRequest::default()).await.unwrap();
    let resting = [
        "quiesce_operations_in_progress{state=\"degraded\"} 1",
        "quiesce_attempts_failed_total{reason=\"still_running\"} 1",
        "quiesce_watch_streams{scope=\"all\"} 1",
    ];
    counts(&world, &resting).await;
    eventually("the rest to be a second old", LIMIT, || async {
        let metrics = get(&world, "/metrics").await;
        let name = "quiesce_operations_resting_seconds{state=\"degraded\"} ";
        let seconds = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
        if seconds > Some(0) { Ok(()) } else { Err(metrics) }
    })
    .await;
    drop(stream);
    let name = operation.name.clone();
    let cancel = v1::CancelOperationRequest { name, ..Default::default() };
    world.scheduler.cancel_operation(cancel).await.unwrap();
    let over = [
        "quiesce_operations_in_progress{state=\"degraded\"} 0",
        "quiesce_operations_total{kind=\"delete\",outcome=\"abandoned\"} 1",
        "quiesce_operations_resting_seconds{state=\"degraded\"} 0",
        "quiesce_watch_streams{scope=\"all\"} 0",
        "quiesce_watch_streams_ended_total{reason=\"gone\"} 1",
    ];
    counts(&world, &over).await;
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_attach_token_is_told_so_on_the_same_port() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"QUIESCE/1 ATTACH qat1.wrong\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n");
    world.stop().await;
}

#[tokio::test]
async fn whoever_does_not_say_what_it_wants_is_sent_away() {
    let world = World::start().await;
    let answers = [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
        .map(|begin| {
            let address = world.address;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(begin).await.unwrap();
                let mut answer = Vec::new();
                // Closing with bytes unread may show as a reset.
                let _ended = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("closed");
                answer
            })
        });
    for answer in answers {
        assert!(answer.await.unwrap().is_empty());
    }
    world.stop().await;
}
