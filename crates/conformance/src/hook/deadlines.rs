//! D: the deadline moves.

use std::time::Duration;

use quiesce_protocol::v1::{Capability, ShutdownPhase, ShutdownRequest, UpdateDeadlineRequest};
use tokio::time::Instant;
use tonic::Code;

use super::reports::{Next, show, told};
use super::stage::{HEARTBEAT, Stage, wire};
use crate::check::{Check, Level, Need, Stop, Verdict, refused, tell};
use crate::fixture::Mode;
use crate::rules;

/// A grace period that is over soon.
const GRACE: Duration = Duration::from_secs(1);
/// The one that takes its place.
const LONGER: Duration = Duration::from_secs(4);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "D01",
        level: Level::Capability,
        title: "a longer grace period: no STILL_RUNNING before its end",
        rule: rules::DEADLINE,
        advice: "Replace the grace period by the new total, counted from the first report.",
        needs: &[Need::Capability(Capability::UpdateDeadline), Need::Mode(Mode::Deaf)],
        run: |stage| Box::pin(longer(stage)),
    },
    Check {
        id: "D02",
        level: Level::Capability,
        title: "UpdateDeadline of an unknown shutdown is NOT_FOUND",
        rule: rules::DEADLINE,
        advice: "Look the shutdown_id up first.",
        needs: &[Need::Capability(Capability::UpdateDeadline)],
        run: |stage| Box::pin(unknown(stage)),
    },
];

async fn longer(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Deaf).await?;
    let request = ShutdownRequest { grace_period: wire(GRACE), ..stage.request() };
    let update = UpdateDeadlineRequest {
        shutdown_id: request.shutdown_id.clone(),
        grace_period: wire(LONGER),
        granted: true,
        ..Default::default()
    };
    let end = Instant::now() + LONGER;
    let mut reports = running.shutdown(request).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    running.hook().update_deadline(update).await.map_err(|status| Stop::failed("OK", tell(&status)))?;
    let expected = format!("that the shutdown goes on until {LONGER:?} are over");
    while Instant::now() + HEARTBEAT < end {
        match reports.next(end.saturating_duration_since(Instant::now())).await {
            Next::Report(status) if status.result.is_some() => return Err(Stop::failed(expected, show(&status))),
            Next::Report(_) | Next::Silence => {}
            Next::End(end) => return Err(Stop::failed(expected, format!("the call ends with {}", told(&end)))),
        }
    }
    stage.expect_alive("within its longer grace period").await
}

async fn unknown(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = UpdateDeadlineRequest { shutdown_id: stage.name(), ..Default::default() };
    refused(running.hook().update_deadline(request).await, &[Code::NotFound], "SHUTDOWN_NOT_FOUND")
}
