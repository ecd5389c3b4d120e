//! Who may call, what is served beside the hook, and readers that are slow.

use std::time::Duration;

use futures::StreamExt as _;
use quiesce_agent::hook::Records;
use quiesce_agent::serve::Access;
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, Capability, GetHookInfoRequest, ShutdownPhase};
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::scripted::{Manner, Scripted};
use crate::world::{INSTANCE, World, outcome, reason, request};

// I01 I03 I05
#[tokio::test]
async fn the_hook_says_what_it_is() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let info = world.client.clone().get_hook_info(GetHookInfoRequest {}).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.instance.as_str(), info.implementation.as_str()), (INSTANCE, "quiesce-agent"));
    assert!(info.protocol_version.starts_with("1.") && !info.implementation_version.is_empty());
    assert_eq!(info.app_state(), v1::hook_info::AppState::Running);
    assert!(info.app_start_time.is_some() && info.epoch == 1);
    let offered: Vec<_> = info.capabilities().collect();
    assert!(offered.contains(&Capability::Start) && offered.contains(&Capability::Conclude));
    // Without a drain there is nothing to take back, and a hook without a state directory is not durable.
    assert!(!offered.contains(&Capability::Cancel) && !offered.contains(&Capability::Durable));
}

// I06 I07 I08
#[tokio::test]
async fn nobody_calls_without_the_token_and_health_is_for_everybody() {
    let (token, access) = Access::bearer();
    let app = Scripted::running(Manner::Quick);
    let world = World::open(app.clone(), Records::volatile(), None, access).await;
    let call = async |credentials: Option<&str>| {
        let mut request = Request::new(request("s1"));
        if let Some(credentials) = credentials {
            request.metadata_mut().insert("authorization", credentials.parse().unwrap());
        }
        world.client.clone().shutdown(request).await.map(drop)
    };
    let early = call(Some("Bearer hook-token")).await.unwrap_err();
    assert_eq!(reason(&early), (Code::Unavailable, "NOT_SERVING".to_owned()));
    token.set("hook-token");
    for wrong in [None, Some("Bearer other"), Some("Basic hook-token"), Some("hook-token")] {
        let status = call(wrong).await.unwrap_err();
        assert_eq!(reason(&status), (Code::Unauthenticated, "CREDENTIALS_INVALID".to_owned()), "{wrong:?}");
    }
    assert!(app.told().is_empty());
    let channel = Endpoint::from_shared(world.url.clone()).unwrap().connect().await.unwrap();
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    let asked = futures::stream::iter([ServerReflectionRequest::default()]);
    let refused = ServerReflectionClient::new(channel).server_reflection_info(asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    call(Some("bearer hook-token")).await.unwrap();
}

// I09
#[tokio::test]
async fn reflection_lists_what_is_served_and_nothing_else() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let channel = Endpoint::from_shared(world.url.clone()).unwrap().connect().await.unwrap();
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("quiesce.v1.ShutdownHook".to_owned()),
        MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned()),
    ];
    let answers = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter(questions.map(ask)))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await;
    let MessageResponse::ListServicesResponse(list) = &answers[0] else { panic!("{:?}", answers[0]) };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc.health.v1.Health", "quiesce.v1.ShutdownHook"]);
    for answer in &answers[1..] {
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    }
}

// I02
#[tokio::test]
async fn many_look_at_the_same_time() {
    let app = Scripted::running(Manner::Quick);
    let world = World::new(app.clone()).await;
    let calls = (0..100).map(|_| {
        let mut client = world.client.clone();
        async move { client.get_hook_info(GetHookInfoRequest {}).await.unwrap() }
    });
    let answers: Vec<_> = futures::stream::iter(calls).buffer_unordered(10).collect().await;
    assert!(answers.len() == 100 && app.is_alive());
}

// R07
#[tokio::test]
async fn a_reader_that_does_not_read_delays_nobody() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let slow = world.shutdown(request("s1")).await.unwrap();
    let mut quick = world.shutdown(request("s1")).await.unwrap();
    quick.until_phase(ShutdownPhase::Stopping).await;
    for n in 0..5_000 {
        app.say(&format!("{n} {}", "x".repeat(400)));
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    app.exit(0);
    assert_eq!(outcome(&quick.last().await), Outcome::Stopped);
    assert_eq!(outcome(&slow.last().await), Outcome::Stopped);
}

// R06
#[tokio::test]
async fn a_cut_connection_is_no_end() {
    let app = Scripted::running(Manner::Waits);
    let world = World::new(app.clone()).await;
    let mut first = ShutdownHookClient::connect(world.url.clone()).await.unwrap();
    let mut stream = first.shutdown(request("s1")).await.unwrap().into_inner();
    let mut seen = 0;
    while let Some(status) = stream.message().await.unwrap().and_then(|response| response.status) {
        seen = status.sequence;
        if status.phase() == ShutdownPhase::Stopping {
            break;
        }
    }
    drop((stream, first));
    app.say("still here");
    let mut again = world.shutdown(request("s1")).await.unwrap();
    assert!(again.until(|status| status.message == "still here").await.sequence > seen);
    app.is_told(1).await;
    app.exit(0);
    assert_eq!(outcome(&again.last().await), Outcome::Stopped);
    assert_eq!(app.stops(), 1);
    // The server has not kept anything of the connection that was cut.
    tokio::time::timeout(Duration::from_secs(20), world.crash()).await.unwrap();
}

// A5
#[tokio::test(start_paused = true)]
async fn a_scheduler_that_is_gone_before_its_first_word_is_given_up() {
    let world = World::new(Scripted::running(Manner::Quick)).await;
    let (near, _far) = tokio::io::duplex(1024);
    let (_signal, drain) = quiesce_runtime::drain::channel();
    let serving = quiesce_agent::serve::serve_connection(world.hook.clone(), near, drain);
    // In virtual time; without a limit nothing would ever happen again.
    drop(tokio::time::timeout(Duration::from_secs(30), serving).await.expect("it is given up"));
}
