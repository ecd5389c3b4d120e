//! D: what a restart keeps.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::failure::Reason;
use quiesce_protocol::v1::operation::State;
use tokio::time::Instant;

use super::fake::{Act, Script, deaf, drains, stopping, waits};
use super::stage::{PLENTY, Stage, millis, once, patient, quick};
use super::{Check, Need, rules};
use crate::check::{Stop, Verdict, expect, tell};

pub(super) const CHECKS: &[Check] = checks! {
    D01 Must "operations in STOPPING, BACKING_OFF, DEGRADED and SUCCEEDED are there after a restart, and go on",
        rules::DURABLE, "Store every change before you act on it.", [Need::Restart], survives;
    D02 Must "after a restart the hook is joined with the same shutdown_id and token",
        rules::RECONNECT, "Derive id and token, or store them.", [Need::Restart], joined;
    D03 Must "after a restart a request_id is remembered",
        rules::RETENTION, "Store the id together with the operation.", [Need::Restart], remembered;
    D04 Must "after a restart timers go on: the grace period is not granted twice",
        rules::TIMERS, "Store when the grace period began, or what is left of it.", [Need::Restart], timers;
    D05 Must "starts in STARTING and ROLLING_BACK are joined after a restart, each under its epoch, and go on",
        rules::START_JOIN, "Store the epoch before you order the start.", [Need::Restart], starts;
};

async fn survives(stage: &Stage) -> Verdict {
    let slow = v1::RetryPolicy {
        max_attempts: Some(2),
        initial_backoff: millis(15_000),
        max_backoff: millis(15_000),
        backoff_multiplier: Some(1.0),
    };
    let still =
        [stopping(), vec![Act::Result(v1::stop_result::Outcome::StillRunning, v1::Evidence::Unspecified)]].concat();
    let cases = [
        (patient(), waits(), State::Stopping),
        (v1::ShutdownPolicy { retry: Some(slow), ..quick() }, still.clone(), State::BackingOff),
        (once(), still, State::Degraded),
        (patient(), super::fake::stops(), State::Succeeded),
    ];
    let mut open = Vec::new();
    for (policy, acts, state) in cases {
        let staged = stage.staged(policy, Script::of([acts])).await?;
        let operation = stage.migrate(&staged.name).await?;
        let before = stage.until_state(&operation, state).await?;
        open.push((staged, before));
    }
    stage.restart().await?;
    for (_, before) in &open {
        let after = stage.operation(&before.name).await?;
        let same = after.state() == before.state()
            && after.attempt == before.attempt
            && after.requester == before.requester
            && after.policy == before.policy
            && after.revision >= before.revision;
        expect(same, format!("{} in attempt {}", before.state().as_str_name(), before.attempt), format!("{after:?}"))?;
    }
    let (staged, before) = &open[0];
    staged.hook.release();
    stage.until_state(&before.name, State::Succeeded).await.map(drop)
}

async fn joined(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until(&operation, "the point of no return", |found| found.point_of_no_return_time.is_some()).await?;
    stage.restart().await?;
    let again = staged.hook.told(PLENTY, |_| staged.hook.shutdowns().len() >= 2).await;
    expect(again, "the hook joined again", staged.hook.shutdowns().len())?;
    let requests = staged.hook.shutdowns();
    let same = requests.iter().all(|request| {
        request.shutdown_id == requests[0].shutdown_id && request.completion_token == requests[0].completion_token
    });
    expect(same, "the same shutdown_id and token", "others")?;
    staged.hook.release();
    let found = stage.until_state(&operation, State::Succeeded).await?;
    expect(found.attempt == 1, "attempt 1", found.attempt)
}

async fn remembered(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([drains()])).await?;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&staged.name) };
    let failed = |status| Stop::failed("MigrateApplication: OK", tell(&status));
    let first = stage.try_migrate(request.clone()).await.map_err(failed)?;
    stage.restart().await?;
    let again = stage.try_migrate(request).await.map_err(failed)?;
    expect(again.name == first.name, first.name, again.name)
}

/// How much of the grace period of D04 is over before the restart. It is what an operation ends later that grants it twice;
/// the times in records are compared by the second, with two seconds for a machine that is busy.
const USED_UP: Duration = Duration::from_secs(3);

async fn timers(stage: &Stage) -> Verdict {
    let policy = v1::ShutdownPolicy { grace_period: millis(6_000), heartbeat_timeout: millis(10_000), ..once() };
    let staged = stage.staged(policy, Script::of([deaf()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let begun = |found: &v1::Operation| found.deadline_time.is_some();
    let before = stage.until(&operation, "a deadline", begun).await?.deadline_time.unwrap_or_default();
    let began = Instant::now();
    tokio::time::sleep(USED_UP).await;
    stage.restart().await?;
    stage.until(&operation, "the operation after the restart", begun).await?;
    let found = stage.until_state(&operation, State::Degraded).await?;
    let took = began.elapsed();
    let reason = found.failure.as_ref().map(v1::Failure::reason);
    expect(reason == Some(Reason::GraceTimeout), "GRACE_TIMEOUT", format!("{reason:?}"))?;
    let end = found.update_time.unwrap_or_default().seconds;
    // Granted twice it would end three seconds later, at least.
    let late = end - before.seconds;
    expect(late <= 2, "the end of the grace period as it was before", format!("{late} s later, {took:?} in all"))
}

async fn starts(stage: &Stage) -> Verdict {
    let (forth, _source, target) = super::starting::under_way(stage).await?;
    let (back, source) = super::starting::going_back(stage).await?;
    stage.restart().await?;
    for (operation, hook, state) in [(forth, target, State::Succeeded), (back, source, State::RolledBack)] {
        let again = hook.told(PLENTY, |_| hook.starts().len() >= 2).await;
        expect(again, "the start asked for again", hook.starts().len())?;
        hook.release();
        stage.until_state(&operation, state).await?;
        let epochs: Vec<_> = hook.starts().iter().map(|(_, request)| request.epoch).collect();
        let same = epochs.iter().all(|epoch| *epoch == epochs[0]);
        expect(same, "the same epoch after the restart", format!("{epochs:?}"))?;
    }
    Ok(())
}
