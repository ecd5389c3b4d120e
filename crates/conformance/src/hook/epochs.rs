//! E: epochs, starting, holding, and what becomes of a stopped instance.

use std::time::Duration;

use quiesce_protocol::v1::conclude_shutdown_request::Disposition;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::start_result::Outcome as Started;
use quiesce_protocol::v1::{
    Capability, ConcludeShutdownRequest, ShutdownPhase, ShutdownRequest, StartApplicationRequest, StartStatus,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::bad_requests::refusal;
use super::reports::{Next, StartReports};
use super::stage::{PLENTY, POLL, Running, Stage};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, refused, tell};
use crate::fixture::Mode;
use crate::rules;

/// What the first report may take.
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// How long is watched that something stays stopped.
const WATCH: Duration = Duration::from_secs(2);
/// An instance nobody serves.
const FOREIGN: &str = "applications/somebody-else/instances/somebody-else-0";

const START: &[Need] = &[Need::Capability(Capability::Start)];
const CONCLUDE: &[Need] = &[Need::Capability(Capability::Conclude)];

const ADVICE_EPOCH: &str =
    "Keep the highest epoch of every Shutdown and StartApplication, durably, and compare before you act.";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "E01",
        level: Level::Capability,
        title: "StartApplication after a stop: OUTCOME_READY, the oracle says alive, HookInfo has the epoch",
        rule: rules::START,
        advice: "Report READY when the application is of use, not when it was spawned.",
        needs: START,
        run: |stage| Box::pin(starts(stage)),
    },
    Check {
        id: "E02",
        level: Level::Capability,
        title: "reports of a start: the first within 1 s, epoch in each, sequence rises, phases do not go back, one result",
        rule: rules::START,
        advice: "The rules of the reports of a shutdown hold for those of a start.",
        needs: START,
        run: |stage| Box::pin(reports_of_a_start(stage)),
    },
    Check {
        id: "E03",
        level: Level::Capability,
        title: "the same epoch again: OUTCOME_READY again, and the application is not started a second time",
        rule: rules::START,
        advice: "A known epoch joins the start or gets its final report.",
        needs: START,
        run: |stage| Box::pin(same_epoch(stage)),
    },
    Check {
        id: "E04",
        level: Level::Capability,
        title: "a start under an epoch that is not higher is EPOCH_STALE, and starts nothing",
        rule: rules::H15,
        advice: ADVICE_EPOCH,
        needs: START,
        run: |stage| Box::pin(lower_start(stage)),
    },
    Check {
        id: "E05",
        level: Level::Capability,
        title: "a Shutdown under an epoch below that of the application is EPOCH_STALE, and does nothing",
        rule: rules::H15,
        advice: ADVICE_EPOCH,
        needs: START,
        run: |stage| Box::pin(lower_shutdown(stage)),
    },
    Check {
        id: "E06",
        level: Level::Capability,
        title: "a start under the epoch of an accepted Shutdown is EPOCH_STALE, and starts nothing",
        rule: rules::H15,
        advice: ADVICE_EPOCH,
        needs: START,
        run: |stage| Box::pin(used_up(stage)),
    },
    Check {
        id: "E07",
        level: Level::Capability,
        title: "a start while the application runs is STILL_RUNNING, and does nothing",
        rule: rules::H17,
        advice: "Look for processes of the application before you start one.",
        needs: START,
        run: |stage| Box::pin(start_of_what_runs(stage)),
    },
    Check {
        id: "E08",
        level: Level::Capability,
        title: "a start during a shutdown is ABORTED / SHUTDOWN_IN_PROGRESS",
        rule: rules::H17,
        advice: "A shutdown that is not over goes first.",
        needs: &[Need::Capability(Capability::Start), Need::Mode(Mode::Deaf)],
        run: |stage| Box::pin(start_of_what_stops(stage)),
    },
    Check {
        id: "E09",
        level: Level::Capability,
        title: "a start without an epoch is INVALID_ARGUMENT, and starts nothing",
        rule: rules::H15,
        advice: "epoch is required, at least 1.",
        needs: START,
        run: |stage| Box::pin(no_epoch(stage)),
    },
    Check {
        id: "E10",
        level: Level::Capability,
        title: "a start of a foreign instance is WRONG_INSTANCE, and starts nothing",
        rule: rules::H13,
        advice: "Compare StartApplicationRequest.instance with your own name before you do anything.",
        needs: &[Need::Capability(Capability::Start), Need::Instance],
        run: |stage| Box::pin(foreign_start(stage)),
    },
    Check {
        id: "E11",
        level: Level::Capability,
        title: "mode broken: OUTCOME_FAILED, no process is left, and it is held",
        rule: rules::START,
        advice: "Watch the application until it is ready; when it ends before, hold it again and report FAILED.",
        needs: &[Need::Capability(Capability::Start), Need::Mode(Mode::Broken)],
        run: |stage| Box::pin(start_that_fails(stage)),
    },
    Check {
        id: "E12",
        level: Level::Capability,
        title: "after a stop: result.held, and APP_STATE_HELD",
        rule: rules::H16,
        advice: "Record the hold before you tell the application; say so in the result.",
        needs: &[Need::Capability(Capability::Hold)],
        run: |stage| Box::pin(holds(stage)),
    },
    Check {
        id: "E13",
        level: Level::Capability,
        title: "a hook that is started anew after a stop does not start the application, and says APP_STATE_HELD",
        rule: rules::H16,
        advice: "Read the hold before you start anything.",
        needs: &[Need::Capability(Capability::Hold), Need::Restart],
        run: |stage| Box::pin(holds_over_a_restart(stage)),
    },
    Check {
        id: "E14",
        level: Level::Capability,
        title: "the epoch of an accepted Shutdown is used up for a hook that is started anew, too",
        rule: rules::H15,
        advice: ADVICE_EPOCH,
        needs: &[Need::Capability(Capability::Start), Need::Restart],
        run: |stage| Box::pin(used_up_over_a_restart(stage)),
    },
    Check {
        id: "E15",
        level: Level::Capability,
        title: "ConcludeShutdown with STANDBY, twice: OK, it stays held, and can be started",
        rule: rules::CONCLUDE,
        advice: "With the hold in place there is nothing to do.",
        needs: CONCLUDE,
        run: |stage| Box::pin(stands_by(stage)),
    },
    Check {
        id: "E16",
        level: Level::Capability,
        title: "ConcludeShutdown of an application that runs is STILL_RUNNING, and does nothing",
        rule: rules::CONCLUDE,
        advice: "Conclude only what has ended.",
        needs: CONCLUDE,
        run: |stage| Box::pin(conclude_what_runs(stage)),
    },
    Check {
        id: "E17",
        level: Level::Capability,
        title: "ConcludeShutdown with RETIRED: OK, and nothing is started any more, by no restart of the hook either",
        rule: rules::RETIRED,
        advice: "Mark the hold as deleted, durably, before you answer.",
        needs: CONCLUDE,
        run: |stage| Box::pin(retires(stage)),
    },
    Check {
        id: "E18",
        level: Level::Capability,
        title: "the call of a start is cancelled after the first report: the start goes on",
        rule: rules::START,
        advice: "Run the start in a task of its own; the call only reads its reports.",
        needs: START,
        run: |stage| Box::pin(cancelled_start(stage)),
    },
];

fn show(status: &StartStatus) -> String {
    let phase = status.phase().as_str_name();
    let result = status.result.as_ref().map(|result| format!(" with {}", result.outcome().as_str_name()));
    format!("report {} of epoch {} in {phase}{}", status.sequence, status.epoch, result.unwrap_or_default())
}

fn outcome(status: &StartStatus) -> Started {
    status.result.as_ref().map_or(Started::Unspecified, |result| result.outcome())
}

/// An application that was stopped, by a shutdown with an epoch above everything; that epoch.
async fn stopped(stage: &Stage, mode: Mode) -> Result<(Running<'_>, i64), Stop> {
    let mut running = stage.start(mode).await?;
    // One is left out below it.
    let epoch = running.next_epoch().await? + 1;
    running.stop(ShutdownRequest { epoch, ..stage.request() }).await?;
    Ok((running, epoch))
}

/// How a start is refused, which is done at once.
async fn start_refusal(running: &Running<'_>, request: StartApplicationRequest) -> Result<Result<(), Status>, Stop> {
    let asked = async {
        let mut reports = StartReports::of(running.hook(), request).await?;
        match reports.next(PLENTY).await {
            Next::End(end) => end,
            Next::Report(_) | Next::Silence => Ok(()),
        }
    };
    timeout(PLENTY * 2, asked).await.map_err(|_elapsed| Stop::failed("a refusal", "nothing comes"))
}

/// Nothing is started for a while.
async fn stays_gone(stage: &Stage, when: &str) -> Verdict {
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        stage.expect_gone(when).await?;
        sleep(POLL).await;
    }
    Ok(())
}

async fn state(running: &mut Running<'_>, wanted: AppState, when: &str) -> Verdict {
    let state = running.info().await?.app_state();
    expect(state == wanted, format!("{} {when}", wanted.as_str_name()), state.as_str_name())
}

async fn starts(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    let last = running.begin(running.start_request(epoch + 1)).await?.result(PLENTY).await?;
    expect(outcome(&last) == Started::Ready, "OUTCOME_READY", show(&last))?;
    stage.expect_alive("after OUTCOME_READY").await?;
    let info = running.info().await?;
    expect(info.epoch == epoch + 1, format!("HookInfo.epoch {}", epoch + 1), info.epoch)?;
    let state = info.app_state();
    let fits = matches!(state, AppState::Running | AppState::Unspecified);
    expect(fits, "APP_STATE_RUNNING or unset", state.as_str_name())
}

async fn reports_of_a_start(stage: &Stage) -> Verdict {
    let (running, epoch) = stopped(stage, Mode::Fast).await?;
    let began = Instant::now();
    let mut reports = running.begin(running.start_request(epoch + 1)).await?;
    reports.report(PLENTY).await?;
    let took = began.elapsed();
    expect(took < FIRST_LIMIT, format!("a report within {FIRST_LIMIT:?}"), format!("it took {took:?}"))?;
    reports.rest(PLENTY).await?.map_err(|status| Stop::failed("that the call ends with OK", tell(&status)))?;
    let mut before: Option<&StartStatus> = None;
    for report in &reports.seen {
        let status = &report.status;
        expect(status.epoch == epoch + 1, format!("epoch {}", epoch + 1), show(status))?;
        if let Some(before) = before {
            let fits = status.sequence > before.sequence && status.phase >= before.phase && before.result.is_none();
            let expected = format!("a report with a higher sequence, and no lower phase, behind {}", show(before));
            expect(fits, expected, show(status))?;
        }
        before = Some(status);
    }
    expect(before.is_some_and(|last| last.result.is_some()), "a result in the last report", "none")
}

async fn same_epoch(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    let request = running.start_request(epoch + 1);
    running.begin(request.clone()).await?.result(PLENTY).await?;
    let began = running.info().await?.app_start_time;
    let again = running.begin(request).await?.result(PLENTY).await?;
    expect(outcome(&again) == Started::Ready, "OUTCOME_READY again", show(&again))?;
    let now = running.info().await?.app_start_time;
    expect(now == began, "the same app_start_time", format!("{now:?} after {began:?}"))?;
    stage.expect_alive("after the same start twice").await
}

async fn lower_start(stage: &Stage) -> Verdict {
    let (running, epoch) = stopped(stage, Mode::Fast).await?;
    let answer = start_refusal(&running, running.start_request(epoch - 1)).await?;
    refused(answer, &[Code::FailedPrecondition], "EPOCH_STALE")?;
    stays_gone(stage, "after a start with an old epoch").await
}

async fn used_up(stage: &Stage) -> Verdict {
    let (running, epoch) = stopped(stage, Mode::Fast).await?;
    let answer = start_refusal(&running, running.start_request(epoch)).await?;
    refused(answer, &[Code::FailedPrecondition], "EPOCH_STALE")?;
    stays_gone(stage, "after a start with the epoch of the shutdown").await
}

async fn lower_shutdown(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    running.start_again(Mode::Fast).await?;
    let request = ShutdownRequest { epoch, ..stage.request() };
    refused(refusal(&running, request).await?, &[Code::FailedPrecondition], "EPOCH_STALE")?;
    running.expect_untouched("after a shutdown with an old epoch").await
}

async fn start_of_what_runs(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let epoch = running.next_epoch().await?;
    let answer = start_refusal(&running, running.start_request(epoch)).await?;
    refused(answer, &[Code::FailedPrecondition], "STILL_RUNNING")?;
    running.expect_untouched("after a start of what runs").await
}

async fn start_of_what_stops(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Deaf).await?;
    let epoch = running.next_epoch().await?;
    let mut reports = running.shutdown(stage.request()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let answer = start_refusal(&running, running.start_request(epoch)).await?;
    refused(answer, &[Code::Aborted], "SHUTDOWN_IN_PROGRESS")?;
    stage.expect_alive("after a start that was refused").await
}

async fn no_epoch(stage: &Stage) -> Verdict {
    let (running, _) = stopped(stage, Mode::Fast).await?;
    let answer = start_refusal(&running, running.start_request(0)).await?;
    refused(answer, &[Code::InvalidArgument], "INVALID_FIELD")?;
    stays_gone(stage, "after a start without an epoch").await
}

async fn foreign_start(stage: &Stage) -> Verdict {
    let (running, epoch) = stopped(stage, Mode::Fast).await?;
    let request = StartApplicationRequest { instance: FOREIGN.to_owned(), ..running.start_request(epoch + 1) };
    refused(start_refusal(&running, request).await?, &[Code::FailedPrecondition], "WRONG_INSTANCE")?;
    stays_gone(stage, "after a start of another instance").await
}

async fn start_that_fails(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Broken).await?;
    let last = running.begin(running.start_request(epoch + 1)).await?.result(PLENTY).await?;
    expect(outcome(&last) == Started::Failed, "OUTCOME_FAILED", show(&last))?;
    stage.expect_gone("after OUTCOME_FAILED").await?;
    if stage.has(Capability::Hold) {
        state(&mut running, AppState::Held, "after OUTCOME_FAILED").await?;
    }
    Ok(())
}

async fn holds(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let last = running.stop(stage.request()).await?;
    expect(last.result.unwrap_or_default().held, "result.held", "it is not set")?;
    state(&mut running, AppState::Held, "after a stop").await
}

async fn holds_over_a_restart(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    running.stop(stage.request()).await?;
    stage.subject.fixture.restart().await?;
    running.reconnect().await?;
    stays_gone(stage, "after a restart of the hook that holds it").await?;
    state(&mut running, AppState::Held, "after a restart of the hook").await
}

async fn used_up_over_a_restart(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    stage.subject.fixture.restart().await?;
    running.reconnect().await?;
    let answer = start_refusal(&running, running.start_request(epoch)).await?;
    refused(answer, &[Code::FailedPrecondition], "EPOCH_STALE")?;
    stays_gone(stage, "after a start with an epoch that was used up before the restart").await
}

fn conclusion(stage: &Stage, epoch: i64, disposition: Disposition) -> ConcludeShutdownRequest {
    ConcludeShutdownRequest {
        operation: format!("operations/{}", stage.name().to_ascii_lowercase()),
        instance: stage.instance.clone(),
        epoch,
        disposition: disposition.into(),
    }
}

async fn stands_by(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    for _ in 0..2 {
        let answer = running.hook().conclude_shutdown(conclusion(stage, epoch, Disposition::Standby)).await;
        answer.map_err(|status| Stop::failed("OK of ConcludeShutdown", tell(&status)))?;
    }
    stage.expect_gone("while it stands by").await?;
    if stage.has(Capability::Hold) {
        state(&mut running, AppState::Held, "while it stands by").await?;
    }
    if stage.has(Capability::Start) {
        running.start_again(Mode::Fast).await?;
    }
    Ok(())
}

async fn conclude_what_runs(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let epoch = running.next_epoch().await?;
    for disposition in [Disposition::Standby, Disposition::Retired] {
        let answer = running.hook().conclude_shutdown(conclusion(stage, epoch, disposition)).await;
        refused(answer, &[Code::FailedPrecondition], "STILL_RUNNING")?;
    }
    running.expect_untouched("after a ConcludeShutdown of what runs").await
}

async fn retires(stage: &Stage) -> Verdict {
    let (running, epoch) = stopped(stage, Mode::Fast).await?;
    let answer = running.hook().conclude_shutdown(conclusion(stage, epoch, Disposition::Retired)).await;
    answer.map_err(|status| Stop::failed("OK of ConcludeShutdown", tell(&status)))?;
    stays_gone(stage, "after it was retired").await?;
    if stage.subject.fixture.can_restart() {
        stage.subject.fixture.restart().await?;
        stays_gone(stage, "after a restart of the hook of what was retired").await?;
    }
    Ok(())
}

async fn cancelled_start(stage: &Stage) -> Verdict {
    let (mut running, epoch) = stopped(stage, Mode::Fast).await?;
    let mut reports = running.begin(running.start_request(epoch + 1)).await?;
    reports.report(PLENTY).await?;
    drop(reports);
    let end = Instant::now() + PLENTY;
    while !(stage.is_alive().await?
        && matches!(running.info().await?.app_state(), AppState::Running | AppState::Unspecified))
    {
        if Instant::now() >= end {
            return Err(Stop::failed("that the application comes up", "it does not"));
        }
        sleep(POLL).await;
    }
    Ok(())
}
