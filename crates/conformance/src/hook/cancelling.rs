//! C: taken back, in time and too late.

use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{CancelShutdownRequest, Capability, ShutdownPhase};
use tonic::Code;

use super::reports::show;
use super::stage::{PLENTY, Running, Stage};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, refused, tell};
use crate::fixture::Mode;
use crate::rules;

const DRAINS: &[Need] = &[Need::Capability(Capability::Cancel), Need::Mode(Mode::Drains)];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "C01",
        level: Level::Capability,
        title: "while DRAINING: OUTCOME_CANCELLED, the application is left alone, a later Shutdown works",
        rule: rules::CANCEL,
        advice: "Stop draining, undo it, report CANCELLED; then be ready for the next shutdown_id.",
        needs: DRAINS,
        run: |stage| Box::pin(in_time(stage)),
    },
    Check {
        id: "C02",
        level: Level::Capability,
        title: "behind STOPPING: FAILED_PRECONDITION / POINT_OF_NO_RETURN, and the shutdown goes on",
        rule: rules::CANCEL,
        advice: "Look at the phase under the same lock that lets it rise.",
        needs: &[Need::Capability(Capability::Cancel), Need::Mode(Mode::Slow)],
        run: |stage| Box::pin(too_late(stage)),
    },
    Check {
        id: "C03",
        level: Level::Capability,
        title: "twice: the same answer",
        rule: rules::CANCEL,
        advice: "Answer a cancelled shutdown with its final status.",
        needs: DRAINS,
        run: |stage| Box::pin(twice(stage)),
    },
];

async fn cancel(running: &Running<'_>, shutdown_id: &str) -> Result<quiesce_protocol::v1::ShutdownStatus, Stop> {
    let request = CancelShutdownRequest { shutdown_id: shutdown_id.to_owned(), reason: "conformance check".to_owned() };
    let answer = running.hook().cancel_shutdown(request).await;
    let answer = answer.map_err(|status| Stop::failed("OK of CancelShutdown", tell(&status)))?;
    Ok(answer.into_inner().status.unwrap_or_default())
}

async fn in_time(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Drains).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    let draining = reports.until_phase(ShutdownPhase::Draining).await?;
    expect(draining.phase() == ShutdownPhase::Draining, "SHUTDOWN_PHASE_DRAINING", show(&draining))?;
    cancel(&running, &request.shutdown_id).await?;
    let last = reports.result(PLENTY).await?;
    let outcome = last.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome());
    let fits = outcome == Outcome::Cancelled && last.phase() == ShutdownPhase::Cancelled;
    expect(fits, "SHUTDOWN_PHASE_CANCELLED with OUTCOME_CANCELLED", show(&last))?;
    running.expect_untouched("after a shutdown that was taken back").await?;
    let later = running.stop(stage.request()).await?;
    let outcome = later.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome());
    expect(outcome == Outcome::Stopped, "OUTCOME_STOPPED of a later shutdown", show(&later))
}

async fn too_late(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let asked = CancelShutdownRequest { shutdown_id: request.shutdown_id, ..Default::default() };
    let answer = running.hook().cancel_shutdown(asked).await;
    refused(answer, &[Code::FailedPrecondition], "POINT_OF_NO_RETURN")?;
    let last = reports.result(PLENTY).await?;
    let outcome = last.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome());
    expect(outcome == Outcome::Stopped, "OUTCOME_STOPPED all the same", show(&last))
}

async fn twice(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Drains).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    reports.until_phase(ShutdownPhase::Draining).await?;
    let first = cancel(&running, &request.shutdown_id).await?;
    let second = cancel(&running, &request.shutdown_id).await?;
    expect(first.phase == second.phase, format!("the same answer as before, {}", show(&first)), show(&second))
}
