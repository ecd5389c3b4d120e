//! S: a normal stop, from the first report to the result.

use std::collections::HashMap;
use std::time::Duration;

use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Evidence, ShutdownPhase, ShutdownRequest, ShutdownStatus};
use tokio::time::{Instant, sleep};

use super::reports::{Next, Reports, show, told};
use super::stage::{HEARTBEAT, PLENTY, POLL, Running, Stage, wire};
use crate::check::{Check, Level, Need, Stop, Verdict, expect};
use crate::fixture::Mode;
use crate::rules;

/// What the first report may take (H2).
const FIRST_LIMIT: Duration = Duration::from_secs(1);
/// What heartbeats may come late by.
const LATE: Duration = Duration::from_millis(500);
/// heartbeat_interval when it is unset, and how late the report may come.
const UNASKED: Duration = Duration::from_secs(7);
/// What the result may take after the end, beside a heartbeat.
const NOTICE: Duration = Duration::from_secs(1);
/// What an answer may take that needs no waiting.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How soon the end is noticed of an application that dies by itself.
const DEATH_LIMIT: Duration = Duration::from_secs(5);

const SLOW: &[Need] = &[Need::Mode(Mode::Slow)];
const DEAF: &[Need] = &[Need::Mode(Mode::Deaf)];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "S01",
        level: Level::Must,
        title: "mode fast: OUTCOME_STOPPED, and no process is left at the moment the result arrives",
        rule: rules::H7,
        advice: "Wait for the end of the process (wait, pidfd, cgroup.events) before you report it.",
        needs: &[],
        run: |stage| Box::pin(is_gone_with_the_result(stage, Mode::Fast)),
    },
    Check {
        id: "S02",
        level: Level::Must,
        title: "mode slow: the first report comes within 1 s",
        rule: rules::H2,
        advice: "Send a report with ACCEPTED before you do anything else.",
        needs: SLOW,
        run: |stage| Box::pin(first_report(stage)),
    },
    Check {
        id: "S03",
        level: Level::Must,
        title: "mode slow: no result while the oracle says alive",
        rule: rules::H7,
        advice: "That the application was told is phase STOPPING, not a result.",
        needs: SLOW,
        run: |stage| Box::pin(is_gone_with_the_result(stage, Mode::Slow)),
    },
    Check {
        id: "S04",
        level: Level::Must,
        title: "mode slow: the result comes within heartbeat_interval + 1 s of the end",
        rule: rules::H3,
        advice: "Be woken by the end of the process, or look at least every heartbeat_interval.",
        needs: SLOW,
        run: |stage| Box::pin(result_is_soon(stage)),
    },
    Check {
        id: "S05",
        level: Level::Must,
        title: "mode slow, heartbeat_interval 0.5 s: no gap above 1 s between reports",
        rule: rules::H3,
        advice: "Repeat the latest report, with a new sequence, from a timer.",
        needs: SLOW,
        run: |stage| Box::pin(heartbeats(stage)),
    },
    Check {
        id: "S06",
        level: Level::Must,
        title: "mode deaf, heartbeat_interval unset: no gap above 7 s between reports",
        rule: rules::H3,
        advice: "Unset means 5 s, not never.",
        needs: DEAF,
        run: |stage| Box::pin(heartbeats_unasked(stage)),
    },
    Check {
        id: "S07",
        level: Level::Must,
        title: "exactly one report with a result, the last one, and the call ends with OK",
        rule: rules::H6,
        advice: "Send the result once, then end the stream without an error.",
        needs: SLOW,
        run: |stage| Box::pin(one_result(stage)),
    },
    Check {
        id: "S08",
        level: Level::Must,
        title: "phases never go back",
        rule: rules::H5,
        advice: "Keep the phase in one place that only lets it rise.",
        needs: SLOW,
        run: |stage| Box::pin(phases_rise(stage)),
    },
    Check {
        id: "S09",
        level: Level::Must,
        title: "every report carries the shutdown_id of the request",
        rule: rules::H4,
        advice: "Copy ShutdownRequest.shutdown_id into every ShutdownStatus.",
        needs: SLOW,
        run: |stage| Box::pin(reports_are_named(stage)),
    },
    Check {
        id: "S10",
        level: Level::Must,
        title: "sequence begins at 1 or above and rises from report to report",
        rule: rules::H4,
        advice: "Count the reports of a shutdown_id, heartbeats included.",
        needs: SLOW,
        run: |stage| Box::pin(sequence_rises(stage)),
    },
    Check {
        id: "S11",
        level: Level::Must,
        title: "completion_token comes with the result only, byte by byte; also one of 512 bytes",
        rule: rules::H14,
        advice: "Keep the token as it came and put it into the final report, nowhere else.",
        needs: SLOW,
        run: |stage| Box::pin(token_comes_back(stage)),
    },
    Check {
        id: "S12",
        level: Level::Must,
        title: "the phase of the final report fits its outcome",
        rule: rules::H6,
        advice: "STOPPED, KILLED, NOT_RUNNING: phase STOPPED; CANCELLED: phase CANCELLED; the rest: phase FAILED.",
        needs: &[],
        run: |stage| Box::pin(phase_fits(stage)),
    },
    Check {
        id: "S13",
        level: Level::Should,
        title: "the evidence is better than CLAIMED",
        rule: rules::EVIDENCE,
        advice: "Look for the process after the end (its pid and its start time), and say what you saw.",
        needs: &[],
        run: |stage| Box::pin(evidence(stage)),
    },
    Check {
        id: "S14",
        level: Level::Should,
        title: "mode exit7: exit_code 7 and not clean, or no exit_code",
        rule: rules::CLEAN,
        advice: "Take the exit status from wait, or leave exit_code and clean unset.",
        needs: &[Need::Mode(Mode::Exit7)],
        run: |stage| Box::pin(exit_code(stage)),
    },
    Check {
        id: "S15",
        level: Level::Must,
        title: "an application that does not run: OUTCOME_NOT_RUNNING within 2 s",
        rule: rules::H7,
        advice: "Look whether it runs before you tell it; with nothing to stop, say so at once.",
        needs: &[],
        run: |stage| Box::pin(not_running(stage)),
    },
    Check {
        id: "S16",
        level: Level::Must,
        title: "a request with nothing but shutdown_id works",
        rule: rules::SHUTDOWN_ID,
        advice: "Treat unset fields as the contract says; demand no other.",
        needs: &[],
        run: |stage| Box::pin(minimal(stage)),
    },
    Check {
        id: "S17",
        level: Level::Must,
        title: "grace_period 0, mode slow: it is told, and no end is claimed before the oracle agrees",
        rule: rules::H12,
        advice: "The grace period is the scheduler's clock; when it is over go on watching, or end with STILL_RUNNING.",
        needs: SLOW,
        run: |stage| Box::pin(no_grace(stage)),
    },
    Check {
        id: "S18",
        level: Level::Must,
        title: "mode deaf, the application dies by itself meanwhile: a result, with evidence",
        rule: rules::H7,
        advice: "Watch the process, not the answer to your request to stop.",
        needs: DEAF,
        run: |stage| Box::pin(dies_by_itself(stage)),
    },
    Check {
        id: "S19",
        level: Level::Must,
        title: "64 parameters of 1 KiB and a reason of 4 KiB are accepted",
        rule: rules::SHUTDOWN_ID,
        advice: "Take what the limits of the contract allow; beware of the size limits of command lines and headers.",
        needs: &[],
        run: |stage| Box::pin(large(stage)),
    },
    Check {
        id: "S20",
        level: Level::Should,
        title: "neither messages nor the log (agent.log) contain the completion token",
        rule: rules::H14,
        advice: "Leave the token out of what you log; do not print whole requests.",
        needs: SLOW,
        run: |stage| Box::pin(token_is_kept_secret(stage)),
    },
];

fn outcome(status: &ShutdownStatus) -> Outcome {
    status.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome())
}

async fn is_gone_with_the_result(stage: &Stage, mode: Mode) -> Verdict {
    let running = stage.start(mode).await?;
    let last = running.stop(stage.request()).await?;
    let alive = stage.is_alive().await?;
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))?;
    expect(!alive, "that no process is left when the result arrives", "the oracle says it is alive")
}

async fn first_report(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let began = Instant::now();
    running.shutdown(stage.request()).await?.report(PLENTY).await?;
    let took = began.elapsed();
    expect(took < FIRST_LIMIT, format!("a report within {FIRST_LIMIT:?}"), format!("it took {took:?}"))
}

async fn result_is_soon(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let mut reports = running.shutdown(stage.request()).await?;
    let ended = async {
        stage.until_gone(PLENTY).await?;
        Ok::<_, Stop>(Instant::now())
    };
    let reported = async {
        reports.result(PLENTY).await?;
        Ok::<_, Stop>(Instant::now())
    };
    let (ended, reported) = tokio::try_join!(ended, reported)?;
    let took = reported.saturating_duration_since(ended);
    let limit = HEARTBEAT + NOTICE;
    expect(took <= limit, format!("the result within {limit:?} of the end"), format!("it came {took:?} later"))
}

async fn heartbeats(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let mut reports = running.shutdown(stage.request()).await?;
    reports.result(PLENTY).await?;
    gaps(&reports, HEARTBEAT + LATE)
}

async fn heartbeats_unasked(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Deaf).await?;
    let request = ShutdownRequest { heartbeat_interval: None, ..stage.request() };
    let mut reports = running.shutdown(request).await?;
    let end = Instant::now() + stage.waits().silent;
    while Instant::now() < end {
        match reports.next(end.saturating_duration_since(Instant::now())).await {
            Next::Report(status) if status.result.is_some() => break,
            Next::Report(_) | Next::Silence => {}
            Next::End(end) => return Err(Stop::failed("reports", format!("the call ends with {}", told(&end)))),
        }
    }
    gaps(&reports, UNASKED)
}

fn gaps(reports: &Reports, limit: Duration) -> Verdict {
    let longest = reports.longest_gap();
    expect(longest <= limit, format!("no gap above {limit:?} between reports"), format!("one of {longest:?}"))
}

/// All reports of a slow stop, up to the end of the call.
async fn whole(stage: &Stage, request: ShutdownRequest) -> Result<(Reports, Result<(), tonic::Status>), Stop> {
    let running = stage.start(Mode::Slow).await?;
    let mut reports = running.shutdown(request).await?;
    let end = reports.rest(PLENTY).await?;
    Ok((reports, end))
}

async fn one_result(stage: &Stage) -> Verdict {
    let (reports, end) = whole(stage, stage.request()).await?;
    let results = reports.seen.iter().filter(|report| report.status.result.is_some()).count();
    expect(results == 1, "one report with a result", format!("{results}"))?;
    let last = reports.seen.last().is_some_and(|report| report.status.result.is_some());
    expect(last, "that the report with the result is the last", "another one follows")?;
    expect(end.is_ok(), "that the call ends with OK", told(&end))
}

async fn phases_rise(stage: &Stage) -> Verdict {
    let (reports, _) = whole(stage, stage.request()).await?;
    for pair in reports.seen.windows(2) {
        let (before, after) = (&pair[0].status, &pair[1].status);
        let expected = format!("a phase not below that of {}", show(before));
        expect(after.phase >= before.phase, expected, show(after))?;
    }
    Ok(())
}

async fn reports_are_named(stage: &Stage) -> Verdict {
    let request = stage.request();
    let (reports, _) = whole(stage, request.clone()).await?;
    for report in &reports.seen {
        let id = &report.status.shutdown_id;
        expect(*id == request.shutdown_id, format!("shutdown_id {:?}", request.shutdown_id), format!("{id:?}"))?;
    }
    Ok(())
}

async fn sequence_rises(stage: &Stage) -> Verdict {
    let (reports, _) = whole(stage, stage.request()).await?;
    let mut before = 0;
    for report in &reports.seen {
        let sequence = report.status.sequence;
        expect(sequence > before, format!("a sequence above {before}"), sequence)?;
        before = sequence;
    }
    Ok(())
}

async fn token_comes_back(stage: &Stage) -> Verdict {
    for token in [stage.request().completion_token, "AZaz09-_".repeat(64)] {
        let request = ShutdownRequest { completion_token: token.clone(), ..stage.request() };
        let (reports, _) = whole(stage, request).await?;
        for report in &reports.seen {
            let (has, wanted) = (&report.status.completion_token, report.status.result.is_some());
            if wanted {
                let seen = if has.is_empty() { "none" } else { "another one" };
                expect(*has == token, "the completion_token with the result, as it was received", seen)?;
            } else {
                expect(has.is_empty(), "no completion_token before the result", "there is one")?;
            }
        }
    }
    Ok(())
}

async fn phase_fits(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let last = running.stop(stage.request()).await?;
    let fitting = match outcome(&last) {
        Outcome::Stopped | Outcome::Killed | Outcome::NotRunning => ShutdownPhase::Stopped,
        Outcome::Cancelled => ShutdownPhase::Cancelled,
        Outcome::StillRunning | Outcome::Restarted | Outcome::Unknown | Outcome::Unspecified => ShutdownPhase::Failed,
    };
    expect(last.phase() == fitting, format!("phase {}", fitting.as_str_name()), show(&last))
}

async fn evidence(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let last = running.stop(stage.request()).await?;
    better_than_claimed(&last)
}

fn better_than_claimed(last: &ShutdownStatus) -> Verdict {
    let evidence = last.result.as_ref().map_or(0, |result| result.evidence);
    let name = Evidence::try_from(evidence).map_or("a value without a name", |evidence| evidence.as_str_name());
    expect(evidence > i32::from(Evidence::Claimed), "evidence better than EVIDENCE_CLAIMED", name)
}

async fn exit_code(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Exit7).await?;
    let result = running.stop(stage.request()).await?.result.unwrap_or_default();
    match result.exit_code {
        None => Ok(()),
        Some(7) => expect(result.clean != Some(true), "clean unset or false", "true"),
        Some(code) => Err(Stop::failed("exit_code 7, or none", format!("{code}"))),
    }
}

async fn not_running(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    stage.subject.fixture.kill().await?;
    stage.until_gone(PLENTY).await?;
    let answer = match stage.subject.connect_within(AT_ONCE).await {
        Ok(connection) => {
            running.connection = connection;
            timed(&running).await
        }
        Err(gone) => Err(gone),
    };
    let (last, took) = match answer {
        Ok(answer) => answer,
        // Some hooks leave together with their application. After a shutdown they stay.
        Err(_gone) => {
            running = stage.start(Mode::Fast).await?;
            running.stop(stage.request()).await?;
            timed(&running).await?
        }
    };
    expect(outcome(&last) == Outcome::NotRunning, "OUTCOME_NOT_RUNNING", show(&last))?;
    expect(took < AT_ONCE, format!("the result within {AT_ONCE:?}"), format!("it took {took:?}"))
}

async fn timed(running: &Running<'_>) -> Result<(ShutdownStatus, Duration), Stop> {
    let began = Instant::now();
    let last = running.stop(running.stage.request()).await?;
    Ok((last, began.elapsed()))
}

async fn minimal(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let last = running.stop(ShutdownRequest { shutdown_id: stage.name(), ..Default::default() }).await?;
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))
}

async fn no_grace(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = ShutdownRequest { grace_period: wire(Duration::ZERO), ..stage.request() };
    let last = running.stop(request).await?;
    let alive = stage.is_alive().await?;
    running.until_signals(1).await?;
    if outcome(&last) == Outcome::StillRunning {
        return Ok(());
    }
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED or OUTCOME_STILL_RUNNING", show(&last))?;
    expect(!alive, "that no process is left when the result arrives", "the oracle says it is alive")
}

async fn dies_by_itself(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Deaf).await?;
    let mut reports = running.shutdown(stage.request()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    stage.subject.fixture.kill().await?;
    let last = reports.result(DEATH_LIMIT).await?;
    let ended = matches!(outcome(&last), Outcome::Stopped | Outcome::Killed | Outcome::NotRunning);
    expect(ended, "a result that says it has ended", show(&last))?;
    better_than_claimed(&last)
}

async fn large(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let parameters: HashMap<_, _> = (0..64).map(|number| (format!("key-{number}"), "v".repeat(1024))).collect();
    let request = ShutdownRequest { parameters, reason: "r".repeat(4096), ..stage.request() };
    let last = running.stop(request).await?;
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))
}

async fn token_is_kept_secret(stage: &Stage) -> Verdict {
    let request = stage.request();
    let token = request.completion_token.clone();
    let (reports, _) = whole(stage, request).await?;
    for ShutdownStatus { message, step, result, .. } in reports.seen.into_iter().map(|report| report.status) {
        let said = [message, step, result.unwrap_or_default().message].concat();
        expect(!said.contains(&token), "no completion_token in messages", "it is in one")?;
    }
    // What was said last may still be on its way to the file.
    sleep(POLL).await;
    if let Some(log) = stage.subject.fixture.log().await? {
        expect(!log.contains(&token), "no completion_token in the log", "it is there")?;
    }
    Ok(())
}
