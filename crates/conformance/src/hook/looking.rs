//! Q, G, T, L: what looks and changes nothing, what is watched after the end, and that it works again and again.

use std::time::Duration;

use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{
    Capability, CheckShutdownRequest, CheckShutdownResponse, GetShutdownRequest, ShutdownPhase, ShutdownRequest,
    ShutdownStatus,
};
use tokio::time::Instant;
use tonic::Code;

use super::reports::show;
use super::stage::{PLENTY, Running, Stage, wire};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, refused, tell};
use crate::fixture::Mode;
use crate::rules;

/// How long is watched after the end.
const SETTLE: Duration = Duration::from_secs(2);
/// Open files that may come and go: connections of ours, a pipe of a helper.
const FILES_SLACK: usize = 5;

const STATUS: &[Need] = &[Need::Capability(Capability::Status), Need::Mode(Mode::Slow)];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "Q01",
        level: Level::Capability,
        title: "CheckShutdown 20 times: the application is left alone",
        rule: rules::CHECK,
        advice: "Look, with signal 0 for example; send nothing.",
        needs: &[Need::Capability(Capability::Check)],
        run: |stage| Box::pin(check_is_harmless(stage)),
    },
    Check {
        id: "Q02",
        level: Level::Capability,
        title: "CheckShutdown of an application that does not run: ok or a finding, no error",
        rule: rules::CHECK_NO,
        advice: "Answer with ok = false and a finding.",
        needs: &[Need::Capability(Capability::Check)],
        run: |stage| Box::pin(check_of_nothing(stage)),
    },
    Check {
        id: "G01",
        level: Level::Capability,
        title: "GetShutdown meanwhile, after the end, and with an empty id",
        rule: rules::STATUS,
        advice: "Return the latest report that was made; an empty id is the running shutdown, else the last.",
        needs: STATUS,
        run: |stage| Box::pin(status(stage)),
    },
    Check {
        id: "G02",
        level: Level::Capability,
        title: "GetShutdown of an unknown shutdown is NOT_FOUND",
        rule: rules::STATUS,
        advice: "Look the shutdown_id up.",
        needs: &[Need::Capability(Capability::Status)],
        run: |stage| Box::pin(status_of_nothing(stage)),
    },
    Check {
        id: "G03",
        level: Level::Capability,
        title: "GetShutdown shows no completion token before the result",
        rule: rules::STATUS_TOKEN,
        advice: "Add the token where the result is added, nowhere else.",
        needs: STATUS,
        run: |stage| Box::pin(status_has_no_token(stage)),
    },
    Check {
        id: "T01",
        level: Level::Capability,
        title: "mode respawn, settle 2 s: OUTCOME_RESTARTED",
        rule: rules::SETTLE,
        advice: "After the end keep looking for processes of the application, until settle_period is over.",
        needs: &[Need::Capability(Capability::Settle), Need::Mode(Mode::Respawn)],
        run: |stage| Box::pin(notices_a_restart(stage)),
    },
    Check {
        id: "T02",
        level: Level::Capability,
        title: "mode fast, settle 2 s: OUTCOME_STOPPED after 2 s",
        rule: rules::SETTLE,
        advice: "Hold the result back until settle_period is over.",
        needs: &[Need::Capability(Capability::Settle)],
        run: |stage| Box::pin(settles(stage)),
    },
    Check {
        id: "L01",
        level: Level::Must,
        title: "20 times stopped and started: all stops pass, open files do not grow (agent.pid)",
        rule: rules::H1,
        advice: "Forget a shutdown when the next one comes: its tasks, its descriptors.",
        needs: &[],
        run: |stage| Box::pin(again_and_again(stage)),
    },
];

fn outcome(status: &ShutdownStatus) -> Outcome {
    status.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome())
}

async fn check(running: &Running<'_>) -> Result<CheckShutdownResponse, Stop> {
    let request = CheckShutdownRequest { instance: running.stage.instance.clone(), ..Default::default() };
    let answer = running.hook().check_shutdown(request).await;
    Ok(answer.map_err(|status| Stop::failed("an answer to CheckShutdown", tell(&status)))?.into_inner())
}

async fn check_is_harmless(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    for _ in 0..20 {
        check(&running).await?;
    }
    running.expect_untouched("after 20 CheckShutdown").await
}

async fn check_of_nothing(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    running.stop(stage.request()).await?;
    let answer = check(&running).await?;
    expect(answer.ok || !answer.findings.is_empty(), "ok, or a finding that says why not", "neither")
}

async fn get(running: &Running<'_>, shutdown_id: &str) -> Result<ShutdownStatus, Stop> {
    let request = GetShutdownRequest { shutdown_id: shutdown_id.to_owned() };
    let answer = running.hook().get_shutdown(request).await;
    let answer = answer.map_err(|status| Stop::failed("an answer to GetShutdown", tell(&status)))?;
    Ok(answer.into_inner().status.unwrap_or_default())
}

async fn status(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let id = request.shutdown_id.clone();
    let mut reports = running.shutdown(request).await?;
    let seen = reports.until_phase(ShutdownPhase::Stopping).await?;
    for asked in [id.as_str(), ""] {
        let now = get(&running, asked).await?;
        let fits = now.shutdown_id == id && now.sequence >= seen.sequence && now.result.is_none();
        expect(fits, format!("the latest report of {id}, not before {}", show(&seen)), show(&now))?;
    }
    let last = reports.result(PLENTY).await?;
    for asked in [id.as_str(), ""] {
        let now = get(&running, asked).await?;
        let fits = now.shutdown_id == id && now.sequence == last.sequence && now.result == last.result;
        expect(fits, format!("the final report of {id}, {}", show(&last)), show(&now))?;
    }
    Ok(())
}

async fn status_of_nothing(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = GetShutdownRequest { shutdown_id: stage.name() };
    refused(running.hook().get_shutdown(request).await, &[Code::NotFound], "SHUTDOWN_NOT_FOUND")
}

async fn status_has_no_token(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let now = get(&running, &request.shutdown_id).await?;
    let early = now.result.is_none() && !now.completion_token.is_empty();
    expect(!early, "no completion_token before the result", "there is one")
}

async fn notices_a_restart(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Respawn).await?;
    let last = running.stop(ShutdownRequest { settle_period: wire(SETTLE), ..stage.request() }).await?;
    expect(outcome(&last) == Outcome::Restarted, "OUTCOME_RESTARTED", show(&last))
}

async fn settles(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let began = Instant::now();
    let last = running.stop(ShutdownRequest { settle_period: wire(SETTLE), ..stage.request() }).await?;
    let took = began.elapsed();
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))?;
    expect(took >= SETTLE, format!("the result not before {SETTLE:?} are over"), format!("it came after {took:?}"))
}

async fn again_and_again(stage: &Stage) -> Verdict {
    let cycles = stage.waits().cycles;
    let mut running = stage.start(Mode::Fast).await?;
    let mut files = None;
    for cycle in 0..cycles {
        if cycle > 0 {
            running.start_again(Mode::Fast).await?;
        }
        let last = running.stop(stage.request()).await?;
        let expected = format!("OUTCOME_STOPPED of stop {} of {cycles}", cycle + 1);
        expect(outcome(&last) == Outcome::Stopped, expected, show(&last))?;
        // The first one may open what stays open, such as a file of its log.
        if cycle == 0 {
            files = stage.subject.fixture.open_files().await?;
        }
    }
    let (Some(before), Some(after)) = (files, stage.subject.fixture.open_files().await?) else { return Ok(()) };
    let expected = format!("about as many open files as after the first stop, {before}");
    expect(after <= before + FILES_SLACK, expected, format!("{after}"))
}
