//! The audit log: who changed what, and who was refused.

use quiesce_protocol::v1;
use quiesce_testkit::eventually;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use v1::token::Role;

use super::callers::House;
use crate::transport::get;
use crate::world::{LIMIT, expect_error};

fn lines(house: &House) -> Vec<Json> {
    let text = std::fs::read_to_string(house.path("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_change_and_every_refusal_is_a_line() {
    let house = House::open().await;
    house.application("shop").await;
    let (token, name) = house.token(super::callers::wanted(Role::Viewer, &["shop"])).await;
    let mut viewer = house.caller(&token);
    let get = |name: &str| v1::GetApplicationRequest { name: name.to_owned() };
    viewer.scheduler.get_application(get("applications/shop")).await.unwrap();
    drop(viewer.scheduler.get_application(get("applications/bank")).await.unwrap_err());
    let request = v1::DeleteApplicationRequest {
        name: "applications/shop".to_owned(),
        request_id: "ticket-1".to_owned(),
        reason: "no longer needed".to_owned(),
        ..Default::default()
    };
    drop(viewer.scheduler.delete_application(request.clone()).await.unwrap_err());
    drop(house.nobody().scheduler.delete_application(request.clone()).await.unwrap_err());
    let forced = v1::DeleteApplicationRequest { force: true, validate_only: true, ..request.clone() };
    drop(house.admin().scheduler.delete_application(forced).await);
    house.instance("shop", "one").await;
    let deletion = house.admin().scheduler.delete_application(request).await.unwrap().into_inner().operation.unwrap();

    let lines = lines(&house);
    let told: Vec<_> =
        lines.iter().map(|line| (line["method"].as_str().unwrap(), line["code"].as_str().unwrap())).collect();
    let id = name.strip_prefix("tokens/").unwrap();
    assert_eq!(
        told[..5],
        [
            ("CreateApplication", "Ok"),
            ("CreateToken", "Ok"),
            ("GetApplication", "PermissionDenied"),
            ("DeleteApplication", "PermissionDenied"),
            ("DeleteApplication", "Unauthenticated"),
        ]
    );
    assert_eq!((&lines[0]["made"], &lines[1]["made"]), (&Json::Null, &Json::from(name.as_str())));
    let refused = &lines[3];
    assert_eq!(refused["who"], format!("somebody (token {id})"));
    assert_eq!((&refused["by"], &refused["token"]), (&Json::from("token"), &Json::from(id)));
    assert_eq!(refused["from"], "127.0.0.1");
    assert_eq!(refused["resource"], "applications/shop");
    assert_eq!((&refused["request_id"], &refused["reason"]), (&"ticket-1".into(), &"no longer needed".into()));
    assert_eq!(refused["error"], "CALLER_NOT_ALLOWED");
    assert_eq!((&lines[4]["who"], &lines[4]["by"]), (&"".into(), &"none".into()));
    assert_eq!((&lines[5]["overrides"], &lines[5]["dry_run"]), (&"force".into(), &true.into()));
    let deleted = &lines.last().unwrap();
    assert_eq!((&deleted["resource"], &deleted["made"]), (&"applications/shop".into(), &deletion.name.into()));
    drop(viewer);
    house.close().await;
}

#[tokio::test]
async fn what_could_not_be_recorded_is_not_done() {
    let house = House::open().await;
    house.application("shop").await;
    let log = house.path("audit.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let create = |name: &str| v1::CreateApplicationRequest {
        application: Some(crate::world::application(name, "a")),
        ..Default::default()
    };
    let mut admin = house.admin();
    // That it cannot be written shows at the first line.
    admin.scheduler.create_application(create("applications/one")).await.unwrap();
    let refused = admin.scheduler.create_application(create("applications/two")).await;
    expect_error(refused, Code::Unavailable, "NOT_SERVING");
    let two = v1::GetApplicationRequest { name: "applications/two".to_owned() };
    expect_error(admin.scheduler.get_application(two).await, Code::NotFound, "APPLICATION_NOT_FOUND");
    std::fs::remove_dir(&log).unwrap();
    admin.scheduler.create_application(create("applications/two")).await.unwrap();
    let told: Vec<_> = lines(&house).iter().map(|line| line["code"].to_string()).collect();
    assert_eq!(told, ["\"Ok\"", "\"Unavailable\"", "\"Ok\""], "what waited comes first");
    drop(admin);
    house.close().await;
}

#[tokio::test]
async fn whoever_proves_nothing_is_recorded_until_there_is_too_much_of_it() {
    let house = House::open().await;
    let unknown = v1::CompleteShutdownRequest {
        shutdown_id: "op-1.1.one".to_owned(),
        completion_token: "qct1.1.x".to_owned(),
        result: Some(v1::StopResult { outcome: v1::stop_result::Outcome::Stopped.into(), ..Default::default() }),
    };
    let gibberish = v1::CompleteShutdownRequest::default();
    expect_error(house.nobody().gateway.complete_shutdown(gibberish).await, Code::InvalidArgument, "INVALID_FIELD");
    attach_with_a_wrong_token(&house).await;
    eventually("the address to be throttled", LIMIT, async || {
        match house.nobody().gateway.complete_shutdown(unknown.clone()).await {
            Err(status) if status.code() == Code::ResourceExhausted => Ok(()),
            Err(status) if status.code() == Code::PermissionDenied => Err("not yet".to_owned()),
            other => panic!("{other:?}"),
        }
    })
    .await;
    // Dialling in and calling count together.
    attach_with_a_wrong_token(&house).await;
    let lines = lines(&house);
    assert_eq!(lines[0]["service"], "quiesce-attach/1");
    assert_eq!((&lines[0]["from"], &lines[0]["code"]), (&"127.0.0.1".into(), &"Unauthenticated".into()));
    assert_eq!(lines[0]["error"], "CREDENTIALS_INVALID");
    assert_eq!(lines.len(), 20, "as many as are recorded one by one");
    assert!(lines[1..].iter().all(|line| line["error"] == "COMPLETION_TOKEN_INVALID"), "{lines:?}");
    let metrics = get(&house.world, "/metrics").await;
    assert!(metrics.contains("quiesce_connections_turned_away_total{reason=\"attach_token\"} 2"), "{metrics}");
    house.close().await;
}

async fn attach_with_a_wrong_token(house: &House) {
    let mut socket = TcpStream::connect(house.world.address).await.unwrap();
    socket.write_all(b"QUIESCE/1 ATTACH qat1.wrong\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "QUIESCE/1 ERROR UNAUTHENTICATED CREDENTIALS_INVALID\r\n");
}
