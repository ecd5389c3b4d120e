//! Tokens: what they carry, how long they are good, and who learns of them.

use std::os::unix::fs::MetadataExt as _;

use quiesce_protocol::v1;
use quiesce_store::{Scan, Space};
use quiesce_testkit::eventually;
use tonic::Code;
use v1::token::Role;

use super::callers::{House, wanted};
use crate::transport::get;
use crate::world::{LIMIT, application, expect_error, seconds};

#[tokio::test]
async fn the_first_admin_finds_a_token_once_and_it_is_good_over_restarts() {
    let house = House::open().await;
    let file = house.path("admin.token");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let first = house.first_token();
    std::fs::remove_file(&file).unwrap();
    let (store, directory) = house.close().await;
    let house = House::again(store, directory).await;
    assert!(!file.exists(), "an admin is known, and has it");
    let mut admin = house.caller(&first);
    let tokens = admin.access.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(tokens.iter().map(|token| token.role()).collect::<Vec<_>>(), [Role::Admin]);
    // Without any admin there would be no way in any more.
    let name = tokens[0].name.clone();
    admin.access.revoke_token(v1::RevokeTokenRequest { name, ..Default::default() }).await.unwrap();
    drop(admin);
    let (store, directory) = house.close().await;
    let house = House::again(store, directory).await;
    house.admin().scheduler.get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn no_secret_of_a_token_is_stored_listed_or_recorded() {
    let house = House::open().await;
    house.application("shop").await;
    let (person, name) = house.token(wanted(Role::Viewer, &[])).await;
    let instance = house.instance("shop", "one").await;
    drop(house.caller(&format!("{person}x")).scheduler.get_server_info(v1::GetServerInfoRequest {}).await);
    let mut admin = house.admin();
    let listed = admin.access.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner();
    admin.access.revoke_token(v1::RevokeTokenRequest { name, ..Default::default() }).await.unwrap();
    let mut seen = format!("{listed:?}").into_bytes();
    seen.extend(std::fs::read(house.path("audit.jsonl")).unwrap());
    seen.extend(get(&house.world, "/metrics").await.into_bytes());
    for space in Space::ALL {
        for entry in house.store.scan(Scan::all(space)).await.unwrap() {
            seen.extend_from_slice(&entry.value);
        }
    }
    let first = house.first_token();
    for token in [&person, &first, &instance] {
        let secret = token.rsplit('.').next().unwrap().as_bytes();
        assert!(secret.len() >= 43, "{token}");
        assert!(!seen.windows(secret.len()).any(|window| window == secret), "{token}");
    }
    drop(admin);
    house.close().await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_it_was_opened_with() {
    let house = House::open().await;
    let (token, name) = house.token(wanted(Role::Viewer, &[])).await;
    let request = v1::WatchOperationsRequest { bookmark_interval: seconds(1), ..Default::default() };
    let mut events = house.caller(&token).scheduler.watch_operations(request).await.unwrap().into_inner();
    events.message().await.unwrap().expect("a bookmark");
    house.admin().access.revoke_token(v1::RevokeTokenRequest { name, ..Default::default() }).await.unwrap();
    let ended = async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(LIMIT, ended).await.expect("it ends at the next bookmark");
    expect_error(Err::<(), _>(status), Code::Unauthenticated, "CREDENTIALS_INVALID");
    drop(events);
    house.close().await;
}

#[tokio::test]
async fn whoever_is_restricted_sees_his_applications_only() {
    let house = House::open().await;
    for name in ["shop", "bank"] {
        house.application(name).await;
        house.instance(name, "one").await;
    }
    let mut admin = house.admin();
    let delete = |name: &str| v1::DeleteApplicationRequest {
        name: format!("applications/{name}"),
        policy: Some(v1::ShutdownPolicy { accept_timeout: seconds(1), ..Default::default() }),
        ..Default::default()
    };
    let mut operations = Vec::new();
    for name in ["shop", "bank"] {
        let answer = admin.scheduler.delete_application(delete(name)).await.unwrap().into_inner();
        operations.push(answer.operation.unwrap().name);
    }
    let mut viewer = house.caller(&house.person(Role::Viewer, &["shop"]).await);
    let seen = viewer.scheduler.list_applications(v1::ListApplicationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(seen.applications.iter().map(|one| &one.name).collect::<Vec<_>>(), ["applications/shop"]);
    let all = v1::ListInstancesRequest { parent: "applications/-".to_owned(), ..Default::default() };
    let seen = viewer.scheduler.list_instances(all).await.unwrap().into_inner();
    assert_eq!(seen.instances.iter().map(|one| &one.name).collect::<Vec<_>>(), ["applications/shop/instances/one"]);
    let seen = viewer.scheduler.list_operations(v1::ListOperationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(seen.operations.iter().map(|one| &one.name).collect::<Vec<_>>(), [&operations[0]]);
    let request = |name: &str| v1::GetOperationRequest { name: name.to_owned() };
    viewer.scheduler.get_operation(request(&operations[0])).await.unwrap();

    // What there is elsewhere and what there is nowhere get the same answer, to the letter.
    let of_others = viewer.scheduler.get_operation(request(&operations[1])).await.unwrap_err();
    let of_nobody = viewer.scheduler.get_operation(request("operations/op-none")).await.unwrap_err();
    assert_eq!(of_others.message(), of_nobody.message());
    assert_eq!(of_others.details(), of_nobody.details());
    let request = |name: &str| v1::GetApplicationRequest { name: format!("applications/{name}") };
    let of_others = viewer.scheduler.get_application(request("bank")).await.unwrap_err();
    let of_nobody = viewer.scheduler.get_application(request("nobody")).await.unwrap_err();
    assert_eq!(of_others.message(), of_nobody.message());
    expect_error(Err::<(), _>(of_others), Code::PermissionDenied, "CALLER_NOT_ALLOWED");

    // A snapshot of each operation in sight, then a bookmark.
    let mut events =
        viewer.scheduler.watch_operations(v1::WatchOperationsRequest::default()).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(event) = events.message().await.unwrap().unwrap().event {
        match event.operation {
            Some(operation) => seen.push(operation.name),
            None => break,
        }
    }
    assert!(seen.iter().all(|name| *name == operations[0]) && !seen.is_empty(), "{seen:?}");
    drop((events, viewer, admin));
    house.close().await;
}

#[tokio::test]
async fn an_override_takes_an_admin_and_a_reason() {
    let house = House::open().await;
    house.application("shop").await;
    let policy =
        |policy: v1::ShutdownPolicy| v1::DeleteApplicationRequest { policy: Some(policy), ..Default::default() };
    let overrides = [
        v1::DeleteApplicationRequest { force: true, ..Default::default() },
        policy(v1::ShutdownPolicy { allow_unverified: Some(true), ..Default::default() }),
        policy(v1::ShutdownPolicy { failure_strategy: v1::FailureStrategy::Force.into(), ..Default::default() }),
        policy(v1::ShutdownPolicy { hold_on_unclean_exit: Some(false), ..Default::default() }),
        policy(v1::ShutdownPolicy { min_evidence: v1::Evidence::ProcessGone.into(), ..Default::default() }),
    ];
    let mut operator = house.caller(&house.person(Role::Operator, &[]).await);
    let mut admin = house.admin();
    for request in overrides {
        let request = v1::DeleteApplicationRequest { name: "applications/shop".to_owned(), ..request };
        let refused = operator.scheduler.delete_application(request.clone()).await;
        assert_eq!(expect_error(refused, Code::PermissionDenied, "CALLER_NOT_ALLOWED")["role"], "admin");
        let refused = admin.scheduler.delete_application(request.clone()).await;
        assert_eq!(crate::world::bad_fields(refused), ["reason"]);
        let reason = "the site is lost".to_owned();
        let request = v1::DeleteApplicationRequest { reason, validate_only: true, ..request };
        let answer = admin.scheduler.delete_application(request).await;
        // Refused for what it is about, if at all.
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        assert!(matches!(code, Code::Ok | Code::FailedPrecondition), "{code:?}");
    }
    let plain = v1::DeleteApplicationRequest {
        name: "applications/shop".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    expect_error(operator.scheduler.delete_application(plain).await, Code::FailedPrecondition, "NO_INSTANCES");
    drop((operator, admin));
    house.close().await;
}

#[tokio::test]
async fn an_agent_cannot_bring_a_policy_that_sets_rules_aside() {
    let house = House::open().await;
    let mut agent = house.caller(&house.person(Role::Agent, &["shop"]).await);
    let register = |policy| v1::RegisterInstanceRequest {
        default_application: Some(v1::Application { policy: Some(policy), ..application("", "a") }),
        ..super::callers::dialling("applications/shop/instances/one", "agent")
    };
    let bold = v1::ShutdownPolicy { allow_unverified: Some(true), ..Default::default() };
    let refused = agent.gateway.register_instance(register(bold)).await;
    expect_error(refused, Code::PermissionDenied, "CALLER_NOT_ALLOWED");
    let modest = v1::ShutdownPolicy { grace_period: seconds(90), ..Default::default() };
    agent.gateway.register_instance(register(modest)).await.unwrap();
    drop(agent);
    house.close().await;
}

#[tokio::test]
async fn failures_from_one_address_are_throttled_and_a_good_credential_is_not() {
    let house = House::open().await;
    let info = v1::GetServerInfoRequest {};
    eventually("the address to be throttled", LIMIT, async || {
        match house.caller("qbt1.t00.AAAA").scheduler.get_server_info(info).await {
            Err(status) if status.code() == Code::ResourceExhausted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    house.admin().scheduler.get_server_info(info).await.unwrap();
    let metrics = get(&house.world, "/metrics").await;
    for outcome in ["refused", "throttled"] {
        let name = format!("quiesce_authentications_failed_total{{outcome=\"{outcome}\"}}");
        assert!(metrics.contains(&name), "{metrics}");
    }
    house.close().await;
}

#[tokio::test]
async fn lists_of_applications_are_read_one_by_one() {
    let house = House::open().await;
    let mut admin = house.admin();
    let many: Vec<String> = (0..65).map(|number| format!("a{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for applications in [&["Shop"][..], &["shop", "a/b"], &many] {
        let refused = admin.access.create_token(wanted(Role::Viewer, applications)).await;
        assert_eq!(crate::world::bad_fields(refused), ["token.applications"]);
    }
    let refused = admin.access.create_token(wanted(Role::Agent, &[])).await;
    assert_eq!(crate::world::bad_fields(refused), ["token.applications"]);
    let token = v1::Token { max_uses: Some(1), ..wanted(Role::Viewer, &[]).token.unwrap() };
    let refused = admin.access.create_token(v1::CreateTokenRequest { token: Some(token), lifetime: None }).await;
    assert_eq!(crate::world::bad_fields(refused), ["token.max_uses"]);
    drop(admin);
    house.close().await;
}
