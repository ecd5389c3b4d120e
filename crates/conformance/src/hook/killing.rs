//! K: the grace period, and who kills.

use std::time::Duration;

use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Capability, KillApplicationRequest, ShutdownPhase, ShutdownRequest};
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::reports::{Next, Reports, show, told};
use super::stage::{HEARTBEAT, PLENTY, POLL, Running, Stage, wire};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, refused, tell};
use crate::fixture::Mode;
use crate::rules;

/// A grace period that is over soon.
const GRACE: Duration = Duration::from_secs(1);
/// What KillApplication may take.
const KILL_LIMIT: Duration = Duration::from_secs(1);

const KILL: &[Need] = &[Need::Capability(Capability::Kill), Need::Mode(Mode::Deaf)];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "K01",
        level: Level::Must,
        title: "mode deaf, grace 1 s: the application is alive for 5 s more",
        rule: rules::H12,
        advice: "No SIGKILL of your own; watch out for managers that send one (TimeoutStopSec, docker stop -t).",
        needs: &[Need::Mode(Mode::Deaf)],
        run: |stage| Box::pin(does_not_kill(stage)),
    },
    Check {
        id: "K02",
        level: Level::Must,
        title: "mode deaf, grace 1 s: the hook goes on reporting, or ends with STILL_RUNNING",
        rule: rules::H12,
        advice: "When the grace period is over go on watching; the scheduler decides.",
        needs: &[Need::Mode(Mode::Deaf)],
        run: |stage| Box::pin(goes_on(stage)),
    },
    Check {
        id: "K03",
        level: Level::Capability,
        title: "KillApplication: OK within 1 s, OUTCOME_KILLED, no process left",
        rule: rules::KILL,
        advice: "Send SIGKILL, answer, and let the stream report the end when it is verified.",
        needs: KILL,
        run: |stage| Box::pin(kills(stage)),
    },
    Check {
        id: "K04",
        level: Level::Capability,
        title: "KillApplication with a wrong token is PERMISSION_DENIED, and kills nothing",
        rule: rules::KILL,
        advice: "Compare the token with that of the running shutdown, in constant time.",
        needs: KILL,
        run: |stage| Box::pin(wrong_token(stage)),
    },
    Check {
        id: "K05",
        level: Level::Capability,
        title: "KillApplication of an unknown shutdown is NOT_FOUND, and kills nothing",
        rule: rules::KILL,
        advice: "Look the shutdown_id up first.",
        needs: KILL,
        run: |stage| Box::pin(unknown(stage)),
    },
    Check {
        id: "K06",
        level: Level::Capability,
        title: "KillApplication twice, and after the end, is OK",
        rule: rules::KILL,
        advice: "With nothing left to kill, answer with how it stands.",
        needs: KILL,
        run: |stage| Box::pin(twice(stage)),
    },
    Check {
        id: "K07",
        level: Level::Capability,
        title: "KillApplication in mode children leaves none of them",
        rule: rules::KILL,
        advice: "Kill the whole group (cgroup.kill, process tree), and look again until it is empty.",
        needs: &[Need::Capability(Capability::Kill), Need::Mode(Mode::Children)],
        run: |stage| Box::pin(children(stage)),
    },
];

async fn does_not_kill(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Deaf).await?;
    let request = ShutdownRequest { grace_period: wire(GRACE), ..stage.request() };
    let mut reports = running.shutdown(request).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let end = Instant::now() + GRACE + stage.waits().overdue;
    while Instant::now() < end {
        stage.expect_alive("although its grace period is over").await?;
        sleep(POLL).await;
    }
    Ok(())
}

async fn goes_on(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Deaf).await?;
    let request = ShutdownRequest { grace_period: wire(GRACE), ..stage.request() };
    let mut reports = running.shutdown(request).await?;
    let end = Instant::now() + GRACE + stage.waits().overdue;
    let expected = "reports, or a result with OUTCOME_STILL_RUNNING";
    while Instant::now() < end {
        match reports.next(PLENTY).await {
            Next::Report(status) => {
                let Some(result) = &status.result else { continue };
                return expect(result.outcome() == Outcome::StillRunning, expected, show(&status));
            }
            Next::End(end) => return Err(Stop::failed(expected, format!("the call ends with {}", told(&end)))),
            Next::Silence => return Err(Stop::failed(expected, "nothing comes")),
        }
    }
    Ok(())
}

/// A shutdown of an application that takes no notice of it.
async fn under_way(stage: &Stage, mode: Mode) -> Result<(Running<'_>, Reports, KillApplicationRequest), Stop> {
    let running = stage.start(mode).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let kill = KillApplicationRequest {
        shutdown_id: request.shutdown_id,
        completion_token: request.completion_token,
        reason: "conformance check".to_owned(),
    };
    Ok((running, reports, kill))
}

async fn killed(stage: &Stage, mode: Mode) -> Result<(Running<'_>, KillApplicationRequest), Stop> {
    let (running, mut reports, kill) = under_way(stage, mode).await?;
    let began = Instant::now();
    running.hook().kill_application(kill.clone()).await.map_err(|status| Stop::failed("OK", tell(&status)))?;
    let took = began.elapsed();
    expect(took < KILL_LIMIT, format!("an answer within {KILL_LIMIT:?}"), format!("it took {took:?}"))?;
    let last = reports.result(PLENTY).await?;
    let gone = !stage.is_alive().await?;
    let outcome = last.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome());
    expect(outcome == Outcome::Killed, "OUTCOME_KILLED", show(&last))?;
    expect(gone, "that no process is left when the result arrives", "the oracle says it is alive")?;
    Ok((running, kill))
}

async fn kills(stage: &Stage) -> Verdict {
    killed(stage, Mode::Deaf).await.map(drop)
}

async fn children(stage: &Stage) -> Verdict {
    killed(stage, Mode::Children).await.map(drop)
}

async fn wrong_token(stage: &Stage) -> Verdict {
    let (running, _reports, kill) = under_way(stage, Mode::Deaf).await?;
    for completion_token in [stage.request().completion_token, String::new()] {
        let wrong = KillApplicationRequest { completion_token, ..kill.clone() };
        let answer = running.hook().kill_application(wrong).await;
        refused(answer, &[Code::PermissionDenied], "COMPLETION_TOKEN_INVALID")?;
    }
    sleep(HEARTBEAT).await;
    stage.expect_alive("after a kill with a wrong token").await
}

async fn unknown(stage: &Stage) -> Verdict {
    let (running, _reports, kill) = under_way(stage, Mode::Deaf).await?;
    let other = KillApplicationRequest { shutdown_id: stage.name(), ..kill };
    refused(running.hook().kill_application(other).await, &[Code::NotFound], "SHUTDOWN_NOT_FOUND")?;
    sleep(HEARTBEAT).await;
    stage.expect_alive("after a kill of another shutdown").await
}

async fn twice(stage: &Stage) -> Verdict {
    let (running, mut reports, kill) = under_way(stage, Mode::Deaf).await?;
    for _ in 0..2 {
        let answer = running.hook().kill_application(kill.clone()).await;
        answer.map_err(|status| Stop::failed("OK of a repeated KillApplication", tell(&status)))?;
    }
    reports.result(PLENTY).await?;
    let answer = running.hook().kill_application(kill).await;
    answer.map(drop).map_err(|status| Stop::failed("OK of KillApplication after the end", tell(&status)))
}
