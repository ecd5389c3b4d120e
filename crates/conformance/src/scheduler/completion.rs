//! T: results beside the stream, and the tokens that prove them.

use std::time::Duration;

use prost::Message as _;
use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use quiesce_protocol::v1::stop_result::Outcome;
use tonic::{Code, Status};

use super::fake::{Act, Fake, Script, stopped, stopping, waits};
use super::stage::{PLENTY, Stage, count, ok, patient, quick, some};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    T01 Must "CompleteShutdown behind a stream that broke ends the attempt",
        rules::COMPLETE, "Take it exactly like a final report.", [], behind_a_break;
    T02 Must "a wrong token, of another instance, an earlier attempt, another operation: refused, and nothing ends",
        rules::COMPLETION_TOKEN, "Derive the token from shutdown, instance and attempt; compare in constant time.",
        [], foreign_tokens;
    T03 Must "the same result again is OK; another one is COMPLETION_TOKEN_STALE",
        rules::COMPLETE, "Keep the result, and hold what comes later against it.", [], again;
    T04 Must "stream and CompleteShutdown at once: counted once",
        rules::COMPLETE, "The first of the two wins, in one place.", [], both;
    T05 Must "no completion token in any answer of Get, List and Watch, nor in an error",
        rules::SECRETS, "Never store the token, and strip it from reports.", [], secret;
};

fn result(outcome: Outcome) -> Option<v1::StopResult> {
    let evidence = v1::Evidence::GroupEmpty.into();
    Some(v1::StopResult { outcome: outcome.into(), evidence, clean: Some(true), held: true, ..Default::default() })
}

async fn complete(
    stage: &Stage,
    shutdown: &v1::ShutdownRequest,
    token: &str,
    result: Option<v1::StopResult>,
) -> Result<(), Status> {
    let request = v1::CompleteShutdownRequest {
        shutdown_id: shutdown.shutdown_id.clone(),
        completion_token: token.to_owned(),
        result,
    };
    stage.calls().gateway.complete_shutdown(request).await.map(drop)
}

/// The Shutdown of that number, as soon as it comes.
async fn shutdown(hook: &Fake, number: usize) -> Result<v1::ShutdownRequest, Stop> {
    let came = hook.told(PLENTY, |_| hook.ids().len() > number).await;
    expect(came, format!("shutdown number {}", number + 1), format!("{}", hook.ids().len()))?;
    let id = hook.ids().get(number).cloned();
    let of_it = hook.shutdowns().into_iter().find(|request| Some(&request.shutdown_id) == id.as_ref());
    some("a Shutdown", of_it)
}

async fn behind_a_break(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let request = shutdown(&staged.hook, 0).await?;
    stage.until(&operation, "the point of no return", |operation| operation.point_of_no_return_time.is_some()).await?;
    staged.hook.change(|script| script.info.app_state = v1::hook_info::AppState::Held.into());
    staged.hook.vanish();
    let answer = complete(stage, &request, &request.completion_token, result(Outcome::Stopped)).await;
    answer.map_err(|status| Stop::failed("CompleteShutdown: OK", tell(&status)))?;
    let stopped = |operation: &v1::Operation| operation.counts.as_ref().is_some_and(|counts| counts.stopped == 1);
    let found = stage.until(&operation, "the end of the attempt, verified", stopped).await?;
    expect(found.attempt == 1, "attempt 1", found.attempt)
}

/// How long a result that was refused has for an effect that it must not have; there is no sign of its absence to wait for.
const A_WHILE: Duration = Duration::from_millis(300);

async fn foreign_tokens(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(quick())).await?.name;
    let still = [stopping(), vec![Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)]].concat();
    let policy = v1::ShutdownPolicy { grace_period: super::stage::millis(60_000), ..quick() };
    let one = stage.instance(&name, "one", Script::of([still.clone(), waits()])).await?;
    let two = stage.instance(&name, "two", Script::of([still, waits()])).await?;
    let other = stage.staged(patient(), Script::of([waits()])).await?;
    let request = v1::MigrateApplicationRequest { policy: Some(policy), ..stage.migration(&name) };
    let operation = stage.try_migrate(request).await;
    let operation = operation.map_err(|status| Stop::failed("MigrateApplication: OK", tell(&status)))?.name;
    stage.migrate(&other.name).await?;
    let (old, now) = (shutdown(&one, 0).await?, shutdown(&one, 1).await?);
    let (neighbour, foreign) = (shutdown(&two, 1).await?, shutdown(&other.hook, 0).await?);
    let bent = format!("{}x", now.completion_token);
    let wrong = ["", "garbage", &bent, &old.completion_token, &neighbour.completion_token, &foreign.completion_token];
    for token in wrong {
        let answer = complete(stage, &now, token, result(Outcome::Stopped)).await;
        let Err(status) = answer else {
            return Err(Stop::failed("a token that is not of this attempt: refused", "OK"));
        };
        let fits = matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument);
        expect(fits, "PERMISSION_DENIED COMPLETION_TOKEN_INVALID", tell(&status))?;
    }
    let late = complete(stage, &old, &old.completion_token, result(Outcome::Stopped)).await;
    refused(late, &[Code::FailedPrecondition], "COMPLETION_TOKEN_STALE")?;
    tokio::time::sleep(A_WHILE).await;
    let found = stage.operation(&operation).await?;
    let none = found.counts.as_ref().is_some_and(|counts| counts.stopped == 0);
    expect(none && found.state() == State::Stopping, "both still stopping", format!("{:?}", found.counts))
}

async fn again(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    // The operation stays open while another instance runs.
    let other = stage.instance(&staged.name, "two", Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let request = shutdown(&staged.hook, 0).await?;
    shutdown(&other, 0).await?;
    staged.hook.change(|script| script.info.app_state = v1::hook_info::AppState::Held.into());
    for what in ["the first", "the repetition"] {
        let answer = complete(stage, &request, &request.completion_token, result(Outcome::Stopped)).await;
        answer.map_err(|status| Stop::failed(format!("{what}: OK"), tell(&status)))?;
    }
    let stopped = |operation: &v1::Operation| operation.counts.as_ref().is_some_and(|counts| counts.stopped == 1);
    stage.until(&operation, "one stopped", stopped).await?;
    let answer = complete(stage, &request, &request.completion_token, result(Outcome::StillRunning)).await;
    refused(answer, &[Code::FailedPrecondition], "COMPLETION_TOKEN_STALE")
}

async fn both(stage: &Stage) -> Verdict {
    let staged =
        stage.staged(patient(), Script::of([[stopping(), vec![Act::UntilReleased, stopped()]].concat()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let request = shutdown(&staged.hook, 0).await?;
    let stream = stage.watch(&operation).await?;
    staged.hook.release();
    let answer = complete(stage, &request, &request.completion_token, result(Outcome::Stopped)).await;
    match answer {
        Ok(()) => {}
        // It came second; what the hook has reported differs in nothing that counts, but may differ in detail.
        Err(status) if status.code() == Code::FailedPrecondition => {}
        Err(status) => return Err(Stop::failed("OK, or stale", tell(&status))),
    }
    let events = super::stage::rest(stream).await?;
    let ends = count(&events, Type::InstanceStopped);
    expect(ends == 1, "one TYPE_INSTANCE_STOPPED", ends)?;
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn secret(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let token = shutdown(&staged.hook, 0).await?.completion_token;
    let stream = stage.watch(&operation).await?;
    let instance = stage.get_instance(&format!("{}/instances/one", staged.name)).await?;
    let mut calls = stage.calls();
    let request = v1::CompleteShutdownRequest {
        shutdown_id: "nothing.like.it".to_owned(),
        completion_token: token.clone(),
        result: result(Outcome::Stopped),
    };
    let refusal = calls.gateway.complete_shutdown(request).await;
    let Err(refusal) = refusal else { return Err(Stop::failed("NOT_FOUND", "OK")) };
    staged.hook.release();
    let events = super::stage::rest(stream).await?;
    let mut answers: Vec<_> = events.iter().map(prost::Message::encode_to_vec).collect();
    answers.push(stage.operation(&operation).await?.encode_to_vec());
    let request = v1::ListOperationsRequest { page_size: 100, ..Default::default() };
    answers.push(ok("ListOperations", calls.scheduler.list_operations(request).await)?.encode_to_vec());
    answers.push(instance.encode_to_vec());
    answers.push(stage.get_application(&staged.name).await?.encode_to_vec());
    answers.push([refusal.message().as_bytes(), refusal.details()].concat());
    let holds = |bytes: &Vec<u8>| bytes.windows(token.len()).any(|window| window == token.as_bytes());
    expect(!answers.iter().any(holds), "no completion token in answers", "one")
}
