//! X: more time.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use tonic::{Code, Status};

use super::fake::{Act, Call, Script, stopped, stopping, waits};
use super::stage::{PLENTY, Stage, count, millis, once, patient, some};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    X01 Must "a wish within the limit: granted once although it is repeated, and the hook is told by UpdateDeadline",
        rules::WISH, "A wish is a total: compare it with the total in force.", [], within;
    X02 Must "a wish above the limit: cut, EXTENSION_DENIED",
        rules::WISH, "Grant up to grace_period + max_extension, and say that it was not all.", [], above;
    X03 Must "ExtendDeadline with the right token: granted, with an answer",
        rules::EXTEND, "Do the same as for a wish in a report.", [], by_token;
    X04 Must "ExtendDeadline with a wrong token: PERMISSION_DENIED; after the end: COMPLETION_TOKEN_STALE",
        rules::COMPLETION_TOKEN, "Compare the token, then look whether the attempt still runs.", [], wrong_token;
    X05 Must "ExtendOperation beyond max_extension is allowed; a smaller value changes nothing",
        rules::EXTEND_OPERATION, "People are not limited by max_extension, and never give less time.", [], by_people;
};

fn extensible() -> v1::ShutdownPolicy {
    v1::ShutdownPolicy { max_extension: millis(5_000), ..once() }
}

async fn within(stage: &Stage) -> Verdict {
    let wish = Act::Wish(Duration::from_secs(5));
    let acts =
        [stopping(), vec![wish.clone(), wish.clone(), wish], vec![Act::For(Duration::from_millis(2_500)), stopped()]];
    let staged = stage.staged(extensible(), Script::of([acts.concat()])).await?;
    let followed = stage.follow(&staged.name).await?;
    let operation = stage.migrate(&staged.name).await?;
    let events = followed.read_to_end().await?;
    let found = stage.operation(&operation).await?;
    expect(found.state() == State::Succeeded, "SUCCEEDED: more time than grace_period", found.state().as_str_name())?;
    let granted = count(&events, Type::DeadlineExtended);
    expect(granted == 1, "one TYPE_DEADLINE_EXTENDED", granted)?;
    let told = |(_, call): &(_, Call)| matches!(call, Call::Deadline(_));
    let told = staged.hook.calls().iter().filter(|call| told(call)).count();
    expect(told == 1, "one UpdateDeadline", told)
}

async fn above(stage: &Stage) -> Verdict {
    let acts = [stopping(), vec![Act::Wish(Duration::from_secs(3_600)), Act::UntilReleased, stopped()]].concat();
    let staged = stage.staged(extensible(), Script::of([acts])).await?;
    let followed = stage.follow(&staged.name).await?;
    stage.migrate(&staged.name).await?;
    let told = staged.hook.told(PLENTY, |calls| calls.iter().any(|(_, call)| matches!(call, Call::Deadline(_)))).await;
    expect(told, "UpdateDeadline", "none")?;
    let total = staged.hook.calls().into_iter().find_map(|(_, call)| match call {
        Call::Deadline(request) => request.grace_period,
        _ => None,
    });
    // From then or from acceptance: never more than grace_period + max_extension.
    let total = total.and_then(|total| Duration::try_from(total).ok()).unwrap_or_default();
    let most = Duration::from_millis(6_500);
    expect(total <= most && total > Duration::from_millis(1_500), format!("cut to {most:?}"), format!("{total:?}"))?;
    staged.hook.release();
    let events = followed.read_to_end().await?;
    expect(count(&events, Type::ExtensionDenied) >= 1, "TYPE_EXTENSION_DENIED", "none")
}

async fn extend(
    stage: &Stage,
    shutdown: &v1::ShutdownRequest,
    token: &str,
) -> Result<v1::ExtendDeadlineResponse, Status> {
    let request = v1::ExtendDeadlineRequest {
        shutdown_id: shutdown.shutdown_id.clone(),
        completion_token: token.to_owned(),
        wanted_grace_period: millis(4_000),
        ..Default::default()
    };
    Ok(stage.calls().gateway.extend_deadline(request).await?.into_inner())
}

async fn told(hook: &super::fake::Fake) -> Result<v1::ShutdownRequest, Stop> {
    let came = hook.told(PLENTY, |_| !hook.ids().is_empty()).await;
    expect(came, "a Shutdown", "none")?;
    some("a Shutdown", hook.shutdowns().into_iter().next())
}

async fn by_token(stage: &Stage) -> Verdict {
    let staged = stage.staged(extensible(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let shutdown = told(&staged.hook).await?;
    stage.until(&operation, "the point of no return", |operation| operation.point_of_no_return_time.is_some()).await?;
    let answer = extend(stage, &shutdown, &shutdown.completion_token).await;
    let answer = answer.map_err(|status| Stop::failed("ExtendDeadline: OK", tell(&status)))?;
    expect(answer.grace_period == millis(4_000), "4 s in all", format!("{:?}", answer.grace_period))?;
    expect(answer.remaining_extension == millis(2_500), "2.5 s left", format!("{:?}", answer.remaining_extension))?;
    staged.hook.release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn wrong_token(stage: &Stage) -> Verdict {
    let policy = v1::ShutdownPolicy { max_extension: millis(5_000), ..patient() };
    let staged = stage.staged(policy, Script::of([waits()])).await?;
    let other = stage.instance(&staged.name, "two", Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let (shutdown, neighbour) = (told(&staged.hook).await?, told(&other).await?);
    for token in ["garbage", &neighbour.completion_token] {
        let answer = extend(stage, &shutdown, token).await;
        refused(answer, &[Code::PermissionDenied], "COMPLETION_TOKEN_INVALID")?;
    }
    staged.hook.release();
    let stopped = |operation: &v1::Operation| operation.counts.as_ref().is_some_and(|counts| counts.stopped == 1);
    stage.until(&operation, "one stopped", stopped).await?;
    let answer = extend(stage, &shutdown, &shutdown.completion_token).await;
    refused(answer, &[Code::FailedPrecondition], "COMPLETION_TOKEN_STALE")
}

async fn by_people(stage: &Stage) -> Verdict {
    let policy = v1::ShutdownPolicy { grace_period: millis(4_000), ..once() };
    let staged = stage.staged(policy, Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    told(&staged.hook).await?;
    let begun = |operation: &v1::Operation| operation.deadline_time.is_some();
    let before = stage.until(&operation, "a deadline", begun).await?.deadline_time;
    let extend = async |millis_in_all: u64| {
        let request = v1::ExtendOperationRequest {
            name: operation.clone(),
            grace_period: millis(millis_in_all),
            ..Default::default()
        };
        let answer = stage.calls().scheduler.extend_operation(request).await;
        super::stage::ok("ExtendOperation", answer)?;
        stage.operation(&operation).await.map(|operation| operation.deadline_time)
    };
    let same = extend(1_000).await?;
    expect(same == before, format!("{before:?}"), format!("{same:?}"))?;
    let later = extend(60_000).await?;
    let seconds = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, |time| time.seconds);
    let moved = seconds(&later) - seconds(&before);
    expect((55..=57).contains(&moved), "56 s later", format!("{moved} s"))?;
    let request =
        staged.hook.told(PLENTY, |calls| calls.iter().any(|(_, call)| matches!(call, Call::Deadline(_)))).await;
    expect(request, "UpdateDeadline", "none")
}
