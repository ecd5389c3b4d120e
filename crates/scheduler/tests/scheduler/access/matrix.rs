//! Every RPC by every caller. What is let in fails for other reasons or changes nothing that matters: here counts only
//! whether it is let in.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use prost::Message as _;
use quiesce_protocol::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::token::Role;

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::callers::{Caller, Headers, House, wanted};
use crate::world::{LIMIT, application};

/// What an RPC takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Level {
    Viewer,
    Operator,
    Admin,
    /// The instance, an agent that joins it, or an admin.
    Register,
    /// The instance or an admin.
    Leave,
    /// The instance.
    Itself,
    /// Anybody.
    Proof,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scope {
    /// Whatever the caller sees.
    Any,
    /// The application `shop`, or its instance `one`.
    Shop,
    /// What belongs to no application, or does not exist.
    Elsewhere,
}

/// How a call was received.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reception {
    LetIn,
    Denied,
    Unknown,
}

type Call = Box<dyn Fn(Caller) -> BoxFuture<'static, Result<(), Status>>>;

struct Row {
    rpc: &'static str,
    level: Level,
    scope: Scope,
    call: Call,
}

macro_rules! rows {
    ($($rpc:literal $level:ident $scope:ident $client:ident.$method:ident($request:expr);)+) => {
        vec![$(Row {
            rpc: $rpc,
            level: Level::$level,
            scope: Scope::$scope,
            call: Box::new(|mut caller: Caller| Box::pin(async move {
                caller.$client.$method($request).await.map(drop)
            })),
        }),+]
    };
}

fn rows() -> Vec<Row> {
    const NO_OPERATION: &str = "operations/op-none";
    rows! {
        "GetServerInfo" Viewer Any scheduler.get_server_info(v1::GetServerInfoRequest {});
        "GetApplication" Viewer Shop scheduler.get_application(v1::GetApplicationRequest { name: "applications/shop".into() });
        "ListApplications" Viewer Any scheduler.list_applications(v1::ListApplicationsRequest::default());
        "GetCluster" Viewer Elsewhere scheduler.get_cluster(v1::GetClusterRequest { name: "clusters/a".into() });
        "ListClusters" Viewer Elsewhere scheduler.list_clusters(v1::ListClustersRequest::default());
        "GetInstance" Viewer Shop scheduler.get_instance(v1::GetInstanceRequest { name: "applications/shop/instances/one".into() });
        "ListInstances" Viewer Any scheduler.list_instances(v1::ListInstancesRequest { parent: "applications/-".into(), ..Default::default() });
        "GetOperation" Viewer Elsewhere scheduler.get_operation(v1::GetOperationRequest { name: NO_OPERATION.into() });
        "ListOperations" Viewer Any scheduler.list_operations(v1::ListOperationsRequest::default());
        "WatchOperation" Viewer Elsewhere scheduler.watch_operation(v1::WatchOperationRequest { name: NO_OPERATION.into(), ..Default::default() });
        "WatchOperations" Viewer Any scheduler.watch_operations(v1::WatchOperationsRequest::default());
        "MigrateApplication" Operator Shop scheduler.migrate_application(v1::MigrateApplicationRequest { name: "applications/shop".into(), ..Default::default() });
        "DeleteApplication" Operator Shop scheduler.delete_application(v1::DeleteApplicationRequest {
            name: "applications/shop".into(), etag: "another".into(), ..Default::default()
        });
        "CancelOperation" Operator Elsewhere scheduler.cancel_operation(v1::CancelOperationRequest { name: NO_OPERATION.into(), ..Default::default() });
        "RetryOperation" Operator Elsewhere scheduler.retry_operation(v1::RetryOperationRequest { name: NO_OPERATION.into(), ..Default::default() });
        "ExtendOperation" Operator Elsewhere scheduler.extend_operation(v1::ExtendOperationRequest { name: NO_OPERATION.into(), ..Default::default() });
        "ConfirmOperation" Operator Elsewhere scheduler.confirm_operation(v1::ConfirmOperationRequest { name: NO_OPERATION.into(), ..Default::default() });
        "CreateApplication" Admin Shop scheduler.create_application(v1::CreateApplicationRequest { application: Some(application("applications/shop", "a")), ..Default::default() });
        "UpdateApplication" Admin Shop scheduler.update_application(v1::UpdateApplicationRequest { application: Some(application("applications/shop", "a")), ..Default::default() });
        "CreateCluster" Admin Elsewhere scheduler.create_cluster(v1::CreateClusterRequest::default());
        "UpdateCluster" Admin Elsewhere scheduler.update_cluster(v1::UpdateClusterRequest::default());
        "DeleteCluster" Admin Elsewhere scheduler.delete_cluster(v1::DeleteClusterRequest::default());
        "CreateToken" Admin Elsewhere access.create_token(v1::CreateTokenRequest::default());
        "ListTokens" Admin Elsewhere access.list_tokens(v1::ListTokensRequest::default());
        "RevokeToken" Admin Elsewhere access.revoke_token(v1::RevokeTokenRequest { name: "tokens/none".into(), ..Default::default() });
        "RegisterInstance" Register Shop gateway.register_instance(v1::RegisterInstanceRequest {
            instance: Some(v1::Instance { name: "applications/shop/instances/one".into(), ..Default::default() }),
            ..Default::default()
        });
        "DeregisterInstance" Leave Shop gateway.deregister_instance(v1::DeregisterInstanceRequest {
            name: "applications/shop/instances/one".into()
        });
        "AdmitStart" Itself Shop gateway.admit_start(v1::AdmitStartRequest { instance: "applications/shop/instances/one".into(), ..Default::default() });
        "ReportEnd" Itself Shop gateway.report_end(v1::ReportEndRequest { instance: "applications/shop/instances/one".into(), ..Default::default() });
        "CompleteShutdown" Proof Any gateway.complete_shutdown(v1::CompleteShutdownRequest::default());
        "ExtendDeadline" Proof Any gateway.extend_deadline(v1::ExtendDeadlineRequest::default());
    }
}

fn reception(result: &Result<(), Status>) -> Reception {
    let Err(status) = result else { return Reception::LetIn };
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    match (status.code(), reason.as_str()) {
        (Code::Unauthenticated, "CREDENTIALS_INVALID") => Reception::Unknown,
        (Code::PermissionDenied, "CALLER_NOT_ALLOWED") => Reception::Denied,
        // Behind so many failures from one address the answer is another one, and no better.
        (Code::ResourceExhausted, "LIMIT_EXCEEDED") if status.message().contains("failed authentications") => {
            Reception::Unknown
        }
        (Code::Unauthenticated | Code::PermissionDenied, other) => panic!("another refusal: {other} {status:?}"),
        _ => Reception::LetIn,
    }
}

/// Everybody with a good credential, and whether an RPC lets him in.
async fn known(house: &House) -> Vec<(&'static str, String, fn(Level, Scope) -> bool)> {
    use Level::{Itself, Leave, Operator, Proof, Register, Viewer};
    vec![
        ("viewer", house.person(Role::Viewer, &[]).await, |level, _| matches!(level, Viewer | Proof)),
        ("operator", house.person(Role::Operator, &[]).await, |level, _| matches!(level, Viewer | Operator | Proof)),
        ("admin", house.person(Role::Admin, &[]).await, |level, _| level != Itself),
        ("viewer of shop", house.person(Role::Viewer, &["shop"]).await, |level, scope| {
            level == Proof || level == Viewer && scope != Scope::Elsewhere
        }),
        ("viewer of another", house.person(Role::Viewer, &["bank"]).await, |level, scope| {
            level == Proof || level == Viewer && scope == Scope::Any
        }),
        ("admin of shop", house.person(Role::Admin, &["shop"]).await, |level, scope| {
            level != Itself && scope != Scope::Elsewhere
        }),
        ("admin of another", house.person(Role::Admin, &["bank"]).await, |level, scope| {
            level != Itself && scope == Scope::Any
        }),
        ("who joins shop", house.person(Role::Agent, &["shop"]).await, |level, _| matches!(level, Register | Proof)),
        ("who joins another", house.person(Role::Agent, &["bank", "shopping"]).await, |level, _| level == Proof),
        ("the instance", house.instance("shop", "one").await, |level, _| {
            matches!(level, Register | Leave | Itself | Proof)
        }),
        ("its neighbour", house.instance("shop", "two").await, |level, _| level == Proof),
        ("an instance of another", house.instance("bank", "one").await, |level, _| level == Proof),
    ]
}

/// Everybody with a credential that is no good.
async fn bad(house: &House) -> Vec<(&'static str, Vec<String>)> {
    let mut admin = house.admin();
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let good = house.person(Role::Admin, &[]).await;
    let (revoked, name) = house.token(wanted(Role::Admin, &[])).await;
    admin.access.revoke_token(v1::RevokeTokenRequest { name, ..Default::default() }).await.unwrap();
    let lifetime = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let (expired, _) = house.token(v1::CreateTokenRequest { lifetime, ..wanted(Role::Admin, &[]) }).await;
    quiesce_testkit::eventually("the token to expire", LIMIT, async || {
        let result = house.caller(&expired).scheduler.get_server_info(v1::GetServerInfoRequest {}).await;
        if result.is_err() { Ok(()) } else { Err("it is good") }
    })
    .await;
    let (used_up, _) = house.token(wanted(Role::Agent, &["shop"])).await;
    let request = super::callers::dialling("applications/shop/instances/spent", "agent");
    let spent = house.caller(&used_up).gateway.register_instance(request).await.unwrap().into_inner().instance_token;
    let name = "applications/shop/instances/spent".to_owned();
    admin.gateway.deregister_instance(v1::DeregisterInstanceRequest { name }).await.unwrap();
    let elsewhere = House::open().await;
    let foreign = elsewhere.first_token();
    elsewhere.application("shop").await;
    let foreign_instance = elsewhere.instance("shop", "one").await;
    elsewhere.close().await;
    let instance = house.instance("shop", "three").await;
    // Another letter in what it says, with the proof of the old one.
    let mut parts: Vec<String> = instance.split('.').map(str::to_owned).collect();
    parts[2] = parts[2].replacen(|c: char| c.is_ascii_lowercase(), "Q", 1);
    let changed = parts.join(".");
    let (prefix, secret) = good.rsplit_once('.').unwrap();
    vec![
        ("no bearer", vec![good.clone()]),
        ("another scheme", vec![format!("Basic {good}")]),
        ("two headers", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
        ("garbage", bearer("garbage")),
        ("nothing", bearer("")),
        ("cut", bearer(&good[..good.len() - 1])),
        ("longer", bearer(&format!("{good}A"))),
        ("another secret", bearer(&format!("{prefix}.{}", secret.chars().rev().collect::<String>()))),
        ("a person's as an agent's", bearer(&good.replacen("qbt1", "qjt1", 1))),
        ("a huge one", bearer(&format!("qbt1.{}", "a".repeat(4000)))),
        ("revoked", bearer(&revoked)),
        ("expired", bearer(&expired)),
        ("used up", bearer(&used_up)),
        ("of another scheduler", bearer(&foreign)),
        ("of an instance that was forgotten", bearer(&spent)),
        ("of an instance of another scheduler", bearer(&foreign_instance)),
        ("of an instance, changed", bearer(&changed)),
        ("a completion token", bearer("qct1.1.AAAA")),
    ]
}

/// The RPCs of the scheduler's services, from the contract.
fn contract() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(quiesce_protocol::FILE_DESCRIPTOR_SET).unwrap();
    let services = files.file.iter().filter(|file| file.package() == "quiesce.v1").flat_map(|file| &file.service);
    let ours = services.filter(|service| service.name() != "ShutdownHook");
    ours.flat_map(|service| service.method.iter().map(|method| method.name().to_owned())).collect()
}

#[tokio::test]
async fn every_rpc_lets_in_whom_it_should_and_nobody_else() {
    let house = House::open().await;
    house.application("shop").await;
    house.application("bank").await;
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.rpc.to_owned()).collect::<BTreeSet<_>>(), contract());
    let mut wrong = Vec::new();
    let known = known(&house).await;
    // While it is open, nobody is forgotten and nothing else begins.
    let request = v1::DeleteApplicationRequest { name: "applications/shop".to_owned(), ..Default::default() };
    house.admin().scheduler.delete_application(request).await.unwrap();
    for (who, token, lets_in) in known {
        for row in &rows {
            let expected = if lets_in(row.level, row.scope) { Reception::LetIn } else { Reception::Denied };
            let found = (row.call)(house.caller(&token)).await;
            if reception(&found) != expected {
                wrong.push(format!("{} by {who}: {found:?}, not {expected:?}", row.rpc));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    house.close().await;
}

#[tokio::test]
async fn no_rpc_lets_in_who_brings_a_credential_that_is_no_good() {
    let house = House::open().await;
    house.application("shop").await;
    let rows = rows();
    let mut wrong = Vec::new();
    for row in &rows {
        let expected = if row.level == Level::Proof { Reception::LetIn } else { Reception::Unknown };
        let found = (row.call)(house.nobody()).await;
        if reception(&found) != expected {
            wrong.push(format!("{} by nobody: {found:?}, not {expected:?}", row.rpc));
        }
    }
    for (who, headers) in bad(&house).await {
        for row in &rows {
            let found = (row.call)(house.with_headers(headers.clone())).await;
            if reception(&found) != Reception::Unknown {
                wrong.push(format!("{} by {who}: {found:?}", row.rpc));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    house.close().await;
}

#[tokio::test]
async fn health_is_for_everybody_and_reflection_for_those_who_may_look() {
    let house = House::open().await;
    let health = HealthCheckRequest { service: "quiesce.v1.Scheduler".to_owned() };
    HealthClient::new(house.channel()).check(health).await.unwrap();
    let described = async |headers: Vec<String>| {
        let mut client = ServerReflectionClient::with_interceptor(house.channel(), Headers(headers));
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let answer = client.server_reflection_info(tokio_stream::iter([ask])).await;
        reception(&answer.map(drop))
    };
    let bearer = |token: String| vec![format!("Bearer {token}")];
    assert_eq!(described(Vec::new()).await, Reception::Unknown);
    assert_eq!(described(bearer(house.person(Role::Agent, &["shop"]).await)).await, Reception::Denied);
    assert_eq!(described(bearer(house.person(Role::Viewer, &["shop"]).await)).await, Reception::LetIn);
    house.close().await;
}
