//! C: what people decide: cancel, retry, force.

use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::stop_result::Outcome;
use tonic::{Code, Status};

use super::fake::{Act, Call, Fake, Script, deaf, drains, stopped, stopping, stops, waits};
use super::stage::{PLENTY, REASON, Stage, Staged, hasty, millis, once, patient, quick};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    C01 Must "cancelled in PREPARING or BACKING_OFF, before anything was told to stop: CANCELLED",
        rules::CANCEL, "Nothing was told to stop: close the operation.", [], before_the_first;
    C02 Must "cancelled while DRAINING: CancelShutdown is called, CANCELLED",
        rules::CANCEL, "Ask the hooks, and wait for OUTCOME_CANCELLED.", [], draining;
    C03 Must "the hook answers POINT_OF_NO_RETURN: back to STOPPING, and on to the end",
        rules::TOO_LATE, "Take the no of the hook for a no.", [], too_late;
    C04 Must "behind the point of no return: POINT_OF_NO_RETURN, and it goes on",
        rules::IN_BETWEEN, "Remember that an instance was told to stop.", [], no_return;
    C05 Must "out of DEGRADED: CANCELLED if nothing was told to stop, else ABANDONED",
        rules::CLOSED, "Close it as what it is.", [], degraded;
    C06 Must "cancelling again is OK; of SUCCEEDED it is OPERATION_DONE",
        rules::CLOSED, "Answer as the first time.", [], repeated;
    C07 Must "retry: one more round, what has stopped is left alone, new tokens",
        rules::STAY, "Begin with the instances that have not ended.", [], retry;
    C08 Must "retry when not DEGRADED is refused; a repeated request_id is OK",
        rules::RETRY, "Look at the state, in the same step that changes it.", [], retry_refused;
    C09 Must "retry with force: told to kill",
        rules::RETRY_FORCE, "Go to FORCING straight away.", [], retry_force;
    C10 Must "a forced deletion supersedes what is DEGRADED, and is refused while something runs",
        rules::FORCED, "Close the older one with superseded_by, in the same step.", [], supersedes;
    C11 Must "a forced deletion with all hooks gone: SUCCEEDED, counted as unverified",
        rules::FORCED, "Give up what cannot be reached, and write it down.", [], hooks_gone;
    C12 Must "require_confirmation: rests in STOPPED until ConfirmOperation, which may be repeated",
        rules::CONFIRM, "Wait for the caller, and say so in awaiting_confirmation.", [], confirmed;
    C13 Must "ConfirmOperation when nothing is awaited: OPERATION_NOT_CONFIRMABLE",
        rules::CONFIRM, "Look at the state, in the same step that changes it.", [], unconfirmable;
    C14 Must "cancelled instead of confirmed: ROLLED_BACK, the source is started again under a higher epoch",
        rules::TAKEN_BACK, "Start what is held.", [], unconfirmed;
};

fn fine<T>(what: &str, answer: Result<T, Status>) -> Result<T, Stop> {
    answer.map_err(|status| Stop::failed(format!("{what}: OK"), tell(&status)))
}

async fn told(hook: &Fake) -> Verdict {
    let came = hook.told(PLENTY, |_| !hook.ids().is_empty()).await;
    expect(came, "a Shutdown", "none")
}

fn still() -> Vec<Act> {
    [stopping(), vec![Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)]].concat()
}

/// An operation that is DEGRADED.
async fn given_up(stage: &Stage, staged: &Staged) -> Result<String, Stop> {
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Degraded).await?;
    Ok(operation)
}

async fn before_the_first(stage: &Stage) -> Verdict {
    let retry = v1::RetryPolicy {
        max_attempts: Some(5),
        initial_backoff: millis(30_000),
        max_backoff: millis(30_000),
        backoff_multiplier: Some(1.0),
    };
    let policy = v1::ShutdownPolicy { retry: Some(retry), ..quick() };
    let refuses = vec![Act::Fail(Code::FailedPrecondition, "NOT_STOPPABLE")];
    let staged = stage.staged(policy, Script::of([refuses])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::BackingOff).await?;
    let before = staged.hook.ids().len();
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    let found = stage.until_state(&operation, State::Cancelled).await?;
    expect(found.done, "done", "not done")?;
    expect(staged.hook.ids().len() == before, "no further Shutdown", staged.hook.ids().len())?;
    let application = stage.get_application(&staged.name).await?;
    expect(application.active_operation.is_empty(), "the application free", application.active_operation)?;
    let policy = v1::ShutdownPolicy { accept_timeout: millis(30_000), ..patient() };
    let script = Script { check_hangs: true, ..Script::of([stops()]) };
    let staged = stage.staged(policy, script).await?;
    let operation = stage.migrate(&staged.name).await?;
    let checked = |calls: &[(_, Call)]| calls.iter().any(|(_, call)| matches!(call, Call::Check));
    expect(staged.hook.told(PLENTY, checked).await, "CheckShutdown", "none")?;
    stage.until_state(&operation, State::Preparing).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    stage.until_state(&operation, State::Cancelled).await?;
    expect(staged.hook.ids().is_empty(), "no Shutdown", staged.hook.ids().len())
}

async fn draining(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([drains()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    told(&staged.hook).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    stage.until_state(&operation, State::Cancelled).await?;
    let asked = |(_, call): &(_, Call)| matches!(call, Call::Cancel);
    let asked = staged.hook.calls().iter().any(asked);
    expect(asked, "CancelShutdown", "none")
}

async fn too_late(stage: &Stage) -> Verdict {
    let acts = vec![
        Act::Report(v1::ShutdownPhase::Accepted),
        Act::Report(v1::ShutdownPhase::Draining),
        Act::UntilReleased,
        Act::Report(v1::ShutdownPhase::Stopping),
        stopped(),
    ];
    let script = Script { cancel_late: true, ..Script::of([acts]) };
    let staged = stage.staged(patient(), script).await?;
    let operation = stage.migrate(&staged.name).await?;
    told(&staged.hook).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    let asked = staged.hook.told(PLENTY, |calls| calls.iter().any(|(_, call)| matches!(call, Call::Cancel))).await;
    expect(asked, "CancelShutdown", "none")?;
    stage.until_state(&operation, State::Stopping).await?;
    staged.hook.release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn no_return(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let behind = |operation: &v1::Operation| operation.point_of_no_return_time.is_some();
    stage.until(&operation, "the point of no return", behind).await?;
    refused(stage.try_cancel(&operation).await, &[Code::FailedPrecondition], "POINT_OF_NO_RETURN")?;
    staged.hook.release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn degraded(stage: &Stage) -> Verdict {
    let refuses = vec![Act::Fail(Code::InvalidArgument, "INVALID_FIELD")];
    let staged = stage.staged(once(), Script::of([refuses])).await?;
    let operation = given_up(stage, &staged).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    stage.until(&operation, "CANCELLED: nothing was told to stop", |found| found.state() == State::Cancelled).await?;
    let staged = stage.staged(once(), Script::of([still()]).without(v1::Capability::Start)).await?;
    let operation = given_up(stage, &staged).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    stage.until_state(&operation, State::Abandoned).await.map(drop)
}

async fn repeated(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([drains()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    told(&staged.hook).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    fine("CancelOperation again", stage.try_cancel(&operation).await)?;
    stage.until_state(&operation, State::Cancelled).await?;
    let again = fine("CancelOperation of what is CANCELLED", stage.try_cancel(&operation).await)?;
    expect(again.state() == State::Cancelled, "CANCELLED", again.state().as_str_name())?;
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Succeeded).await?;
    refused(stage.try_cancel(&operation).await, &[Code::FailedPrecondition], "OPERATION_DONE")
}

fn retrying(operation: &str) -> v1::RetryOperationRequest {
    v1::RetryOperationRequest { name: operation.to_owned(), reason: REASON.to_owned(), ..Default::default() }
}

async fn try_retry(stage: &Stage, request: v1::RetryOperationRequest) -> Result<v1::Operation, Status> {
    Ok(stage.calls().scheduler.retry_operation(request).await?.into_inner().operation.unwrap_or_default())
}

async fn retry(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(once())).await?.name;
    let well = stage.instance(&name, "well", Script::of([stops()])).await?;
    let hook = stage.instance(&name, "ill", Script::of([still(), stops()])).await?;
    let staged = Staged { name, hook };
    let operation = given_up(stage, &staged).await?;
    let round = fine("RetryOperation", try_retry(stage, retrying(&operation)).await)?.round;
    expect(round == 2, "round 2", round)?;
    stage.until_state(&operation, State::Succeeded).await?;
    expect(well.ids().len() == 1, "what has stopped left alone", well.ids().len())?;
    let requests = staged.hook.shutdowns();
    let tokens: Vec<_> = requests.iter().map(|request| &request.completion_token).collect();
    expect(tokens.len() == 2 && tokens[0] != tokens[1], "a new token in the new round", "the same")
}

async fn retry_refused(stage: &Stage) -> Verdict {
    let staged = stage.staged(once(), Script::of([still(), waits()])).await?;
    let operation = given_up(stage, &staged).await?;
    let request = v1::RetryOperationRequest { request_id: stage.word(), ..retrying(&operation) };
    fine("RetryOperation", try_retry(stage, request.clone()).await)?;
    let again = fine("the repeated request", try_retry(stage, request).await)?;
    expect(again.round == 2, "round 2", again.round)?;
    refused(try_retry(stage, retrying(&operation)).await, &[Code::FailedPrecondition], "OPERATION_NOT_DEGRADED")
}

async fn retry_force(stage: &Stage) -> Verdict {
    let staged = stage.staged(once(), Script::of([still(), deaf()])).await?;
    let operation = given_up(stage, &staged).await?;
    let request = v1::RetryOperationRequest { force: true, ..retrying(&operation) };
    fine("RetryOperation with force", try_retry(stage, request).await)?;
    stage.until_state(&operation, State::Succeeded).await?;
    expect(!staged.hook.kills().is_empty(), "KillApplication", "none")?;
    let found = stage.operation(&operation).await?;
    let by = found.overrides.first().map(|entry| (entry.kind(), entry.reason.clone()));
    let wanted = Some((v1::r#override::Kind::Force, REASON.to_owned()));
    expect(by == wanted, format!("an override {wanted:?}"), format!("{by:?}"))
}

async fn supersedes(stage: &Stage) -> Verdict {
    let staged = stage.staged(once(), Script::of([still(), deaf()])).await?;
    let older = given_up(stage, &staged).await?;
    let request = v1::DeleteApplicationRequest { force: true, ..stage.deletion(&staged.name) };
    let newer = fine("a forced deletion", stage.try_delete(request.clone()).await)?.name;
    let found = stage.operation(&older).await?;
    let closed = found.state() == State::Abandoned && found.superseded_by == newer;
    expect(closed, format!("ABANDONED, superseded by {newer}"), format!("{found:?}"))?;
    stage.until_state(&newer, State::Succeeded).await?;
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    stage.migrate(&staged.name).await?;
    let request = v1::DeleteApplicationRequest { force: true, ..stage.deletion(&staged.name) };
    refused(stage.try_delete(request).await, &[Code::Aborted], "OPERATION_IN_PROGRESS")
}

async fn hooks_gone(stage: &Stage) -> Verdict {
    let staged = stage.staged(hasty(once()), Script::of([waits()])).await?;
    staged.hook.vanish();
    let request = v1::DeleteApplicationRequest { force: true, ..stage.deletion(&staged.name) };
    let operation = fine("a forced deletion", stage.try_delete(request).await)?.name;
    let found = stage.until_state(&operation, State::Succeeded).await?;
    let unverified = found.counts.map_or(0, |counts| counts.unverified);
    expect(unverified == 1, "counts.unverified 1", unverified)?;
    let named = found.overrides.iter().any(|entry| !entry.instance.is_empty());
    expect(named, "the instance in overrides", format!("{:?}", found.overrides))
}

/// A migration that waits for its caller.
async fn unsure(stage: &Stage) -> Result<(Staged, String), Stop> {
    let external = v1::ExternalPlacement { require_confirmation: true };
    let placement = Some(v1::Placement { driver: Some(v1::placement::Driver::External(external)) });
    let name = stage.create(v1::Application { placement, ..stage.unmade(patient()) }).await?.name;
    let hook = stage.instance(&name, "one", Script::of([stops()])).await?;
    let staged = Staged { name, hook };
    let operation = stage.migrate(&staged.name).await?;
    let found = stage.until(&operation, "STOPPED, awaiting_confirmation", |found| found.awaiting_confirmation).await?;
    expect(found.state() == State::Stopped, "STOPPED", found.state().as_str_name())?;
    expect(!found.advice.is_empty(), "advice for people", "none")?;
    Ok((staged, operation))
}

async fn try_confirm(stage: &Stage, operation: &str) -> Result<v1::Operation, Status> {
    let request = v1::ConfirmOperationRequest { name: operation.to_owned(), reason: REASON.to_owned() };
    Ok(stage.calls().scheduler.confirm_operation(request).await?.into_inner().operation.unwrap_or_default())
}

async fn confirmed(stage: &Stage) -> Verdict {
    let (staged, operation) = unsure(stage).await?;
    let before = stage.get_application(&staged.name).await?;
    let fits = before.cluster == stage.cluster("a") && before.active_operation == operation;
    expect(fits, "the application where it was, until it is confirmed", format!("{before:?}"))?;
    fine("ConfirmOperation", try_confirm(stage, &operation).await)?;
    stage.until_state(&operation, State::Succeeded).await?;
    fine("ConfirmOperation again", try_confirm(stage, &operation).await)?;
    let cluster = stage.get_application(&staged.name).await?.cluster;
    expect(cluster == stage.cluster("b"), stage.cluster("b"), cluster)
}

async fn unconfirmable(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Stopping).await?;
    refused(try_confirm(stage, &operation).await, &[Code::FailedPrecondition], "OPERATION_NOT_CONFIRMABLE")?;
    staged.hook.release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn unconfirmed(stage: &Stage) -> Verdict {
    let (staged, operation) = unsure(stage).await?;
    fine("CancelOperation", stage.try_cancel(&operation).await)?;
    stage.until_state(&operation, State::RolledBack).await?;
    let stopped = staged.hook.shutdowns().last().map_or(0, |request| request.epoch);
    let started = staged.hook.starts().last().map_or(0, |(_, request)| request.epoch);
    expect(started > stopped, format!("a start under an epoch above {stopped}"), started)?;
    let cluster = stage.get_application(&staged.name).await?.cluster;
    expect(cluster == stage.cluster("a"), stage.cluster("a"), cluster)
}
