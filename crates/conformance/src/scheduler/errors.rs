//! E: errors and transport.

use std::time::Duration;

use quiesce_protocol::v1;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::{ErrorDetail, StatusExt as _};

use super::fake::{Script, deaf, waits};
use super::stage::{Stage, ok, patient, some};
use super::subject::Calls;
use super::{Check, Need, rules};
use crate::check::{Stop, Verdict, expect, reason, tell};
use crate::reflection;

pub(super) const CHECKS: &[Check] = checks! {
    E01 Must "every error has one ErrorInfo with a known reason, and the code and details that go with it",
        rules::ERRORS, "Make errors in one place, from the reason: code and details follow.", [], every_error;
    E02 Must "what does not exist and what is not allowed get the same answer",
        rules::PERMISSION, "Decide whether the caller may before you look whether it is there.",
        [Need::Enforced], permission_first;
    E03 Must "errors that go away after a pause carry RetryInfo",
        rules::PAUSE, "Add google.rpc.RetryInfo to every reason of the class pause.", [], retry_info;
    E04 Should "grpc.health.v1 says SERVING, and reflection lists the services, v1 and v1alpha",
        rules::REFLECTION, "Register the health and both reflection services.", [], health_and_reflection;
    E05 Must "a caller whose deadline is over repeats with its request_id: one operation, hooks called once",
        rules::DEADLINE, "Finish what was accepted, whether the caller still waits or not.", [], deadline;
    E06 Must "a request of 5 MiB is refused with RESOURCE_EXHAUSTED or INVALID_ARGUMENT, and the server lives",
        rules::SIZE, "Limit the size of requests; answer, and go on.", [], too_large;
};

/// The code that goes with a reason, as docs/protocol.md has it.
pub(super) fn code_of(reason: &str) -> Option<Code> {
    Some(match reason {
        "INVALID_FIELD" | "INVALID_FILTER" | "INVALID_PAGE_TOKEN" | "INVALID_RESUME_TOKEN" => Code::InvalidArgument,
        "APPLICATION_NOT_FOUND"
        | "INSTANCE_NOT_FOUND"
        | "OPERATION_NOT_FOUND"
        | "CLUSTER_NOT_FOUND"
        | "SHUTDOWN_NOT_FOUND"
        | "TOKEN_NOT_FOUND" => Code::NotFound,
        "APPLICATION_EXISTS" | "CLUSTER_EXISTS" | "REQUEST_ID_CONFLICT" => Code::AlreadyExists,
        "ETAG_MISMATCH" | "OPERATION_IN_PROGRESS" | "SHUTDOWN_IN_PROGRESS" | "SHUTDOWN_SUPERSEDED" => Code::Aborted,
        "POINT_OF_NO_RETURN"
        | "OPERATION_DONE"
        | "OPERATION_NOT_DEGRADED"
        | "OPERATION_NOT_CONFIRMABLE"
        | "NO_INSTANCES"
        | "INSTANCES_MISSING"
        | "SOURCE_CLUSTER_MISMATCH"
        | "ALREADY_ON_TARGET"
        | "TARGET_NOT_READY"
        | "CAPABILITY_MISSING"
        | "WRONG_INSTANCE"
        | "NOT_STOPPABLE"
        | "EXTENSION_EXHAUSTED"
        | "COMPLETION_TOKEN_STALE"
        | "APPLICATION_STOPPING"
        | "APPLICATION_DELETED"
        | "CLUSTER_IN_USE"
        | "EPOCH_STALE"
        | "START_NOT_PERMITTED"
        | "INSTANCE_IN_USE"
        | "STILL_RUNNING"
        | "RESTORE_UNCONFIRMED" => Code::FailedPrecondition,
        "RESUME_TOKEN_EXPIRED" => Code::OutOfRange,
        "WATCH_TOO_SLOW" | "LIMIT_EXCEEDED" | "MESSAGE_TOO_LARGE" => Code::ResourceExhausted,
        "CREDENTIALS_INVALID" => Code::Unauthenticated,
        "CALLER_NOT_ALLOWED" | "COMPLETION_TOKEN_INVALID" => Code::PermissionDenied,
        "NOT_SERVING" => Code::Unavailable,
        "NOT_IMPLEMENTED" => Code::Unimplemented,
        _ => return None,
    })
}

/// Passes if an error is as errors of the contract are.
fn judge(call: &str, answer: Result<(), Status>, wanted: &str) -> Verdict {
    let expected = format!("{call}: {wanted}");
    let Err(status) = answer else { return Err(Stop::failed(expected, "OK")) };
    let details = status.get_error_details_vec();
    let infos = details.iter().filter(|detail| matches!(detail, ErrorDetail::ErrorInfo(_))).count();
    expect(infos == 1, format!("{call}: exactly one ErrorInfo"), format!("{infos} in {}", tell(&status)))?;
    let details = status.get_error_details();
    let (domain, named) = details.error_info().map(|info| (info.domain.as_str(), info.reason.as_str())).unzip();
    expect(domain == Some(quiesce_protocol::ERROR_DOMAIN), format!("{call}: domain quiesce.v1"), domain.unwrap_or(""))?;
    let code = code_of(named.unwrap_or_default());
    expect(code.is_some(), format!("{call}: a reason of ErrorReason"), tell(&status))?;
    expect(code == Some(status.code()), format!("{call}: the code that goes with its reason"), tell(&status))?;
    expect(named == Some(wanted), expected, tell(&status))?;
    match status.code() {
        Code::InvalidArgument => {
            let named = details.bad_request().is_some_and(|bad| !bad.field_violations.is_empty());
            expect(named, format!("{call}: BadRequest with the field"), tell(&status))
        }
        Code::FailedPrecondition => {
            let unmet = details.precondition_failure().is_some_and(|unmet| !unmet.violations.is_empty());
            expect(unmet, format!("{call}: PreconditionFailure"), tell(&status))
        }
        _ => Ok(()),
    }
}

async fn every_error(stage: &Stage) -> Verdict {
    let mut calls = stage.calls();
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let (application, absent) = (staged.name.clone(), stage.name());
    let (scheduler, gateway, access) = (&mut calls.scheduler, &mut calls.gateway, &mut calls.access);

    let request = v1::GetApplicationRequest { name: "nothing like it".to_owned() };
    judge("GetApplication", scheduler.get_application(request).await.map(drop), "INVALID_FIELD")?;
    let request = v1::GetApplicationRequest { name: absent.clone() };
    judge("GetApplication", scheduler.get_application(request).await.map(drop), "APPLICATION_NOT_FOUND")?;
    let request = v1::GetInstanceRequest { name: format!("{application}/instances/nobody") };
    judge("GetInstance", scheduler.get_instance(request).await.map(drop), "INSTANCE_NOT_FOUND")?;
    let request = v1::GetClusterRequest { name: format!("clusters/{}", stage.word()) };
    judge("GetCluster", scheduler.get_cluster(request).await.map(drop), "CLUSTER_NOT_FOUND")?;
    let request = v1::GetOperationRequest { name: "operations/op-nobody".to_owned() };
    judge("GetOperation", scheduler.get_operation(request).await.map(drop), "OPERATION_NOT_FOUND")?;
    let request = v1::WatchOperationRequest { name: "operations/op-nobody".to_owned(), ..Default::default() };
    judge("WatchOperation", scheduler.watch_operation(request).await.map(drop), "OPERATION_NOT_FOUND")?;
    let request = v1::CancelOperationRequest { name: "operations/op-nobody".to_owned(), ..Default::default() };
    judge("CancelOperation", scheduler.cancel_operation(request).await.map(drop), "OPERATION_NOT_FOUND")?;
    let request = v1::ListApplicationsRequest { filter: "= = =".to_owned(), ..Default::default() };
    judge("ListApplications", scheduler.list_applications(request).await.map(drop), "INVALID_FILTER")?;
    let request = v1::ListApplicationsRequest { page_token: "garbage".to_owned(), ..Default::default() };
    judge("ListApplications", scheduler.list_applications(request).await.map(drop), "INVALID_PAGE_TOKEN")?;
    let request = v1::WatchOperationsRequest { resume_token: "garbage".to_owned(), ..Default::default() };
    judge("WatchOperations", scheduler.watch_operations(request).await.map(drop), "INVALID_RESUME_TOKEN")?;
    let request = v1::CreateApplicationRequest {
        application: Some(v1::Application { name: application.clone(), ..stage.unmade(patient()) }),
        ..Default::default()
    };
    judge("CreateApplication", scheduler.create_application(request).await.map(drop), "APPLICATION_EXISTS")?;
    let cluster = v1::Cluster { name: format!("clusters/{}", stage.cluster("a")), ..Default::default() };
    let request = v1::CreateClusterRequest { cluster: Some(cluster.clone()), ..Default::default() };
    judge("CreateCluster", scheduler.create_cluster(request).await.map(drop), "CLUSTER_EXISTS")?;
    let request = v1::DeleteClusterRequest { name: cluster.name, ..Default::default() };
    judge("DeleteCluster", scheduler.delete_cluster(request).await.map(drop), "CLUSTER_IN_USE")?;
    let request = v1::MigrateApplicationRequest { etag: "old".to_owned(), ..stage.migration(&application) };
    judge("MigrateApplication", scheduler.migrate_application(request).await.map(drop), "ETAG_MISMATCH")?;
    let request = v1::MigrateApplicationRequest { target_cluster: stage.cluster("a"), ..stage.migration(&application) };
    judge("MigrateApplication", scheduler.migrate_application(request).await.map(drop), "ALREADY_ON_TARGET")?;
    let request = v1::MigrateApplicationRequest { source_cluster: stage.cluster("c"), ..stage.migration(&application) };
    judge("MigrateApplication", scheduler.migrate_application(request).await.map(drop), "SOURCE_CLUSTER_MISMATCH")?;
    let operation = stage.migrate(&application).await?;
    let again = stage.deletion(&application);
    judge("DeleteApplication", scheduler.delete_application(again).await.map(drop), "OPERATION_IN_PROGRESS")?;
    let request = v1::RetryOperationRequest { name: operation.clone(), ..Default::default() };
    judge("RetryOperation", scheduler.retry_operation(request).await.map(drop), "OPERATION_NOT_DEGRADED")?;
    let request = v1::ConfirmOperationRequest { name: operation.clone(), ..Default::default() };
    judge("ConfirmOperation", scheduler.confirm_operation(request).await.map(drop), "OPERATION_NOT_CONFIRMABLE")?;
    stage.until_state(&operation, v1::operation::State::Stopping).await?;
    let request = v1::CancelOperationRequest { name: operation.clone(), ..Default::default() };
    let stopping = staged.hook.told(super::stage::PLENTY, |calls| !calls.is_empty()).await;
    expect(stopping, "a call of the hook", "none")?;
    stage.until(&operation, "the point of no return", |operation| !operation.cancellable).await?;
    judge("CancelOperation", scheduler.cancel_operation(request).await.map(drop), "POINT_OF_NO_RETURN")?;
    let request = v1::RegisterInstanceRequest {
        instance: Some(stage.listening(&absent, "one", &staged.hook).await?),
        ..Default::default()
    };
    judge("RegisterInstance", gateway.register_instance(request).await.map(drop), "APPLICATION_NOT_FOUND")?;
    let request = v1::CompleteShutdownRequest {
        shutdown_id: "nothing.like.it".to_owned(),
        completion_token: "garbage".to_owned(),
        result: Some(v1::StopResult::default()),
    };
    judge("CompleteShutdown", gateway.complete_shutdown(request).await.map(drop), "SHUTDOWN_NOT_FOUND")?;
    let request = v1::RevokeTokenRequest { name: "tokens/nobody".to_owned(), ..Default::default() };
    judge("RevokeToken", access.revoke_token(request).await.map(drop), "TOKEN_NOT_FOUND")?;
    staged.hook.release();
    stage.until_state(&operation, v1::operation::State::Succeeded).await?;
    let request = v1::CancelOperationRequest { name: operation.clone(), ..Default::default() };
    judge("CancelOperation", scheduler.cancel_operation(request).await.map(drop), "OPERATION_DONE")?;
    let request = v1::ExtendOperationRequest {
        name: operation,
        grace_period: super::stage::millis(60_000),
        ..Default::default()
    };
    judge("ExtendOperation", scheduler.extend_operation(request).await.map(drop), "OPERATION_DONE")
}

async fn permission_first(stage: &Stage) -> Verdict {
    let (mine, other) = (stage.create(stage.unmade(patient())).await?, stage.create(stage.unmade(patient())).await?);
    let token = v1::Token {
        display_name: super::stage::REASON.to_owned(),
        role: v1::token::Role::Viewer.into(),
        applications: vec![mine.name.clone()],
        ..Default::default()
    };
    let request = v1::CreateTokenRequest { token: Some(token), lifetime: super::stage::millis(600_000) };
    let made = ok("CreateToken", stage.calls().access.create_token(request).await)?;
    stage.revoke_later(some("a token", made.token)?.name);
    let mut viewer = stage.calls().with_bearer(Some(&made.bearer_token)).scheduler;
    let request = |name: &str| v1::GetApplicationRequest { name: name.to_owned() };
    ok("GetApplication of what is allowed", viewer.get_application(request(&mine.name)).await)?;
    let mut told = Vec::new();
    for name in [other.name, stage.name()] {
        let answer = viewer.get_application(request(&name)).await;
        let Err(status) = answer else { return Err(Stop::failed("an error", "OK")) };
        told.push((status.code(), reason(&status), status.message().replace(&name, "NAME")));
    }
    expect(told[0] == told[1], "the same answer to both", format!("{told:?}"))?;
    // What is not allowed is not done, and not told apart either.
    let mut told = Vec::new();
    for name in [mine.name, stage.name()] {
        let answer = viewer.delete_application(stage.deletion(&name)).await;
        let Err(status) = answer else { return Err(Stop::failed("an error", "OK")) };
        told.push(status.code());
    }
    expect(told == [Code::PermissionDenied; 2], "PERMISSION_DENIED for both", format!("{told:?}"))
}

async fn retry_info(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([deaf()])).await?;
    let mut calls = stage.calls();
    stage.migrate(&staged.name).await?;
    let busy = calls.scheduler.migrate_application(stage.migration(&staged.name)).await.map(drop);
    let gone = v1::DeregisterInstanceRequest { name: format!("{}/instances/one", staged.name) };
    let gone = calls.gateway.deregister_instance(gone).await.map(drop);
    let wanted = "OPERATION_IN_PROGRESS";
    for answer in [busy, gone] {
        let Err(status) = answer else { return Err(Stop::failed(wanted, "OK")) };
        let pause = status.get_details_retry_info().and_then(|info| info.retry_delay);
        expect(reason(&status).as_deref() == Some(wanted), wanted, tell(&status))?;
        let fits = pause.is_some_and(|pause| pause > Duration::ZERO);
        expect(fits, format!("{wanted} with RetryInfo and a pause"), format!("{pause:?}"))?;
    }
    Ok(())
}

async fn health_and_reflection(stage: &Stage) -> Verdict {
    let Calls { line, credential, .. } = stage.calls();
    let channel = line.channel;
    let mut health = HealthClient::with_interceptor(channel.clone(), credential.clone());
    let answer = ok("Check", health.check(HealthCheckRequest { service: String::new() }).await)?;
    expect(answer.status() == ServingStatus::Serving, "SERVING", answer.status().as_str_name())?;
    let expected = ["quiesce.v1.Scheduler", "quiesce.v1.AgentGateway"];

    let listed = [
        ("v1", reflection::services(channel.clone(), credential.clone()).await),
        ("v1alpha", reflection::services_by_alpha(channel, credential).await),
    ];
    for (version, listed) in listed {
        let wanted = format!("reflection {version} lists {expected:?}");
        let listed = listed.map_err(|status| Stop::failed(&wanted, tell(&status)))?;
        let all = expected.iter().all(|name| listed.iter().any(|listed| listed == name));
        expect(all, wanted, format!("{listed:?}"))?;
    }
    Ok(())
}

async fn deadline(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&staged.name) };
    let mut calls = stage.calls();
    let mut hurried = Request::new(request.clone());
    hurried.set_timeout(Duration::from_millis(1));
    // Whether it was accepted in that time is not known; that is what the id is for.
    let _unknown = calls.scheduler.migrate_application(hurried).await;
    let first = stage.try_migrate(request.clone()).await;
    let first = first.map_err(|status| Stop::failed("the repeated request: OK", tell(&status)))?;
    let second = stage.try_migrate(request).await;
    let second = second.map_err(|status| Stop::failed("the repeated request: OK", tell(&status)))?;
    expect(first.name == second.name, &first.name, &second.name)?;
    staged.hook.release();
    stage.until_state(&first.name, v1::operation::State::Succeeded).await?;
    let ids = staged.hook.ids();
    expect(ids.len() == 1, "one shutdown", format!("{}", ids.len()))
}

async fn too_large(stage: &Stage) -> Verdict {
    let application = v1::Application { display_name: "x".repeat(5 << 20), ..stage.unmade(patient()) };
    let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
    let answer = stage.calls().scheduler.create_application(request).await;
    let fits = |status: &Status| matches!(status.code(), Code::ResourceExhausted | Code::InvalidArgument);
    match answer {
        Err(status) if fits(&status) => {}
        Err(status) => return Err(Stop::failed("RESOURCE_EXHAUSTED or INVALID_ARGUMENT", tell(&status))),
        Ok(_) => return Err(Stop::failed("RESOURCE_EXHAUSTED or INVALID_ARGUMENT", "OK")),
    }
    stage.reconnect().await
}
