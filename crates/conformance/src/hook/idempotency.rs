//! R: repeating, joining, taking over, and what callers do to their calls.

use std::time::Duration;

use futures::future::try_join_all;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Capability, ShutdownPhase, ShutdownRequest, ShutdownStatus};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request};

use super::bad_requests::refusal;
use super::reports::{Next, Reports, show, told};
use super::stage::{PLENTY, Running, Stage, wire};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, refused};
use crate::fixture::Mode;
use crate::rules;

/// Deadline of a call that is shorter than any stop.
const SHORT: Duration = Duration::from_millis(300);
/// How long a shutdown is watched to go on.
const WATCH: Duration = Duration::from_secs(2);
/// Reports as often as they may be asked for.
const OFTEN: Duration = Duration::from_millis(100);

const SLOW: &[Need] = &[Need::Mode(Mode::Slow)];
const DEAF: &[Need] = &[Need::Mode(Mode::Deaf)];

const ADVICE_JOIN: &str = "Look the shutdown_id up before anything else; a known one only subscribes to what is there.";
const ADVICE_GOES_ON: &str = "Run the shutdown in a task of its own; the call only reads its reports.";
const ADVICE_ONE: &str =
    "Keep the running shutdown with its operation, attempt and epoch; compare before you accept another.";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "R01",
        level: Level::Must,
        title: "the same id after the end: one report, equal to the final one; told once",
        rule: rules::H1,
        advice: ADVICE_JOIN,
        needs: &[],
        run: |stage| Box::pin(again(stage)),
    },
    Check {
        id: "R02",
        level: Level::Must,
        title: "the same id 10 times in parallel: the same result everywhere; told once",
        rule: rules::H1,
        advice: ADVICE_JOIN,
        needs: SLOW,
        run: |stage| Box::pin(in_parallel(stage)),
    },
    Check {
        id: "R03",
        level: Level::Must,
        title: "the same id with other content joins",
        rule: rules::H1,
        advice: "Judge by shutdown_id alone; do not compare or check the rest of a repeated request.",
        needs: SLOW,
        run: |stage| Box::pin(other_content(stage)),
    },
    Check {
        id: "R04",
        level: Level::Must,
        title: "the call is cancelled after the first report: the shutdown goes on",
        rule: rules::H9,
        advice: ADVICE_GOES_ON,
        needs: SLOW,
        run: |stage| Box::pin(cancelled_call(stage)),
    },
    Check {
        id: "R05",
        level: Level::Must,
        title: "the deadline of the call is over: the shutdown goes on",
        rule: rules::H9,
        advice: ADVICE_GOES_ON,
        needs: SLOW,
        run: |stage| Box::pin(deadline_of_the_call(stage)),
    },
    Check {
        id: "R06",
        level: Level::Must,
        title: "the connection is cut, and the same id joins over the next: sequence goes on, told once",
        rule: rules::H4,
        advice: "Keep sequence and reports with the shutdown, not with the call.",
        needs: SLOW,
        run: |stage| Box::pin(cut(stage)),
    },
    Check {
        id: "R07",
        level: Level::Must,
        title: "a reader that does not read for 5 s holds nothing up, and gets the result later",
        rule: rules::H9,
        advice: "Keep the latest report only; never wait for a reader, never queue without bound.",
        needs: SLOW,
        run: |stage| Box::pin(slow_reader(stage)),
    },
    Check {
        id: "R08",
        level: Level::Must,
        title: "another operation meanwhile is ABORTED, and the first goes on",
        rule: rules::H10,
        advice: ADVICE_ONE,
        needs: DEAF,
        run: |stage| Box::pin(other_operation(stage)),
    },
    Check {
        id: "R09",
        level: Level::Must,
        title: "a higher attempt of the same operation takes over; the older call is ABORTED",
        rule: rules::H10,
        advice: ADVICE_ONE,
        needs: DEAF,
        run: |stage| Box::pin(higher_attempt(stage)),
    },
    Check {
        id: "R10",
        level: Level::Must,
        title: "a lower or equal attempt with another id is ABORTED, and the first goes on",
        rule: rules::H10,
        advice: ADVICE_ONE,
        needs: DEAF,
        run: |stage| Box::pin(lower_attempt(stage)),
    },
    Check {
        id: "R11",
        level: Level::Must,
        title: "the final report is still there after 60 s (600 s with --slow), with its sequence",
        rule: rules::H11,
        advice: "Keep the final report until the next shutdown with another id.",
        needs: &[],
        run: |stage| Box::pin(kept(stage)),
    },
    Check {
        id: "R12",
        level: Level::Must,
        title: "a new id after the application was started again is a new shutdown, not the old result",
        rule: rules::H1,
        advice: "Replay a final report for its own shutdown_id only.",
        needs: &[],
        run: |stage| Box::pin(next_one(stage)),
    },
    Check {
        id: "R13",
        level: Level::Capability,
        title: "the hook is restarted meanwhile: the same id joins, told once",
        rule: rules::DURABLE,
        advice: "Record that the application is about to be told, durably, before you tell it.",
        needs: &[Need::Capability(Capability::Durable), Need::Mode(Mode::Deaf), Need::Restart],
        run: |stage| Box::pin(restarted_meanwhile(stage)),
    },
    Check {
        id: "R14",
        level: Level::Capability,
        title: "the hook is restarted after the end: the same id gets the final report",
        rule: rules::DURABLE,
        advice: "Record the final report before you send it; keep a digest of the token, or take it from the repeated call.",
        needs: &[Need::Capability(Capability::Durable), Need::Restart],
        run: |stage| Box::pin(restarted_afterwards(stage)),
    },
    Check {
        id: "R15",
        level: Level::Must,
        title: "another operation with a higher epoch takes over; the older call is ABORTED",
        rule: rules::H10,
        advice: ADVICE_ONE,
        needs: DEAF,
        run: |stage| Box::pin(higher_epoch(stage)),
    },
    Check {
        id: "R16",
        level: Level::Must,
        title: "another operation with an epoch that is not higher is ABORTED, and the first goes on",
        rule: rules::H10,
        advice: ADVICE_ONE,
        needs: DEAF,
        run: |stage| Box::pin(lower_epoch(stage)),
    },
];

fn outcome(status: &ShutdownStatus) -> Outcome {
    status.result.as_ref().map_or(Outcome::Unspecified, |result| result.outcome())
}

fn same(first: &ShutdownStatus, again: &ShutdownStatus) -> Verdict {
    let same = first.result == again.result
        && first.sequence == again.sequence
        && first.phase == again.phase
        && first.completion_token == again.completion_token;
    expect(same, format!("the same final report again, {}", show(first)), show(again))
}

async fn again(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = stage.request();
    let first = running.stop(request.clone()).await?;
    let mut reports = running.shutdown(request).await?;
    let end = reports.rest(PLENTY).await?;
    expect(end.is_ok(), "that the call ends with OK", told(&end))?;
    let [only] = &reports.seen[..] else {
        return Err(Stop::failed("one report", format!("{}", reports.seen.len())));
    };
    same(&first, &only.status)?;
    running.expect_signals(1).await
}

async fn in_parallel(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let results = try_join_all((0..10).map(|_| running.stop(request.clone()))).await?;
    for result in &results[1..] {
        same(&results[0], result)?;
    }
    running.expect_signals(1).await
}

async fn other_content(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    let other = ShutdownRequest {
        shutdown_id: request.shutdown_id,
        attempt: 7,
        grace_period: wire(Duration::ZERO),
        completion_token: request.completion_token,
        ..stage.request()
    };
    let joined = running.stop(other).await?;
    same(&reports.result(PLENTY).await?, &joined)?;
    running.expect_signals(1).await
}

async fn cancelled_call(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let mut reports = running.shutdown(stage.request()).await?;
    reports.report(PLENTY).await?;
    drop(reports);
    stage.until_gone(PLENTY).await?;
    running.expect_signals(1).await
}

async fn deadline_of_the_call(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let mut request = Request::new(stage.request());
    request.set_timeout(SHORT);
    let called = async {
        // It may end on their side, as an error of the call or of its reports.
        if let Ok(mut reports) = running.call(request).await {
            let _ended = reports.rest(PLENTY).await;
        }
    };
    // Or on ours: not every library watches the deadline of a stream.
    let _over = timeout(SHORT, called).await;
    stage.until_gone(PLENTY).await?;
    running.expect_signals(1).await
}

async fn cut(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Slow).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    let seen = reports.until_phase(ShutdownPhase::Stopping).await?;
    running.connection.line.handle.cut();
    running.reconnect().await?;
    let mut reports = running.shutdown(request).await?;
    let first = reports.report(PLENTY).await?;
    let expected = format!("a sequence above {}, the last one seen", seen.sequence);
    expect(first.sequence > seen.sequence, expected, first.sequence)?;
    let last = if first.result.is_some() { first } else { reports.result(PLENTY).await? };
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))?;
    running.expect_signals(1).await
}

async fn slow_reader(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Slow).await?;
    let request = ShutdownRequest { heartbeat_interval: wire(OFTEN), ..stage.request() };
    let mut reports = running.shutdown(request).await?;
    reports.report(PLENTY).await?;
    sleep(stage.waits().unread).await;
    stage.until_gone(PLENTY).await?;
    let last = reports.result(PLENTY).await?;
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))
}

/// A shutdown of a deaf application that is on its way.
async fn under_way<'a>(stage: &'a Stage, request: ShutdownRequest) -> Result<(Running<'a>, Reports), Stop> {
    let running = stage.start(Mode::Deaf).await?;
    let mut reports = running.shutdown(request).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    running.until_signals(1).await?;
    Ok((running, reports))
}

/// It does not end, and the application is told by nobody else.
async fn goes_on(running: &Running<'_>, reports: &mut Reports) -> Verdict {
    under_way_for(reports, WATCH).await?;
    running.expect_signals(1).await
}

async fn under_way_for(reports: &mut Reports, watch: Duration) -> Verdict {
    let end = Instant::now() + watch;
    let expected = "that the shutdown goes on";
    while Instant::now() < end {
        match reports.next(end.saturating_duration_since(Instant::now())).await {
            Next::Report(status) if status.result.is_some() => return Err(Stop::failed(expected, show(&status))),
            // How often it reports is another check.
            Next::Report(_) | Next::Silence => {}
            Next::End(end) => return Err(Stop::failed(expected, format!("its call ends with {}", told(&end)))),
        }
    }
    Ok(())
}

async fn taken_over(running: &Running<'_>, reports: &mut Reports, by: ShutdownRequest) -> Verdict {
    let mut next = running.shutdown(by).await?;
    next.report(PLENTY).await?;
    let end = reports.rest(PLENTY).await?;
    refused(end, &[Code::Aborted], "SHUTDOWN_SUPERSEDED")?;
    under_way_for(&mut next, WATCH).await
}

async fn other_operation(stage: &Stage) -> Verdict {
    let (running, mut reports) = under_way(stage, stage.request()).await?;
    refused(refusal(&running, stage.request()).await?, &[Code::Aborted], "SHUTDOWN_IN_PROGRESS")?;
    goes_on(&running, &mut reports).await
}

async fn higher_attempt(stage: &Stage) -> Verdict {
    let request = stage.request();
    let (running, mut reports) = under_way(stage, request.clone()).await?;
    taken_over(&running, &mut reports, stage.attempt(&request, 2)).await
}

async fn lower_attempt(stage: &Stage) -> Verdict {
    let request = ShutdownRequest { attempt: 2, ..stage.request() };
    let (running, mut reports) = under_way(stage, request.clone()).await?;
    for attempt in [1, 2] {
        let other = stage.attempt(&request, attempt);
        refused(refusal(&running, other).await?, &[Code::Aborted], "SHUTDOWN_IN_PROGRESS")?;
    }
    goes_on(&running, &mut reports).await
}

async fn higher_epoch(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Deaf).await?;
    let epoch = running.next_epoch().await?;
    let mut reports = running.shutdown(ShutdownRequest { epoch, ..stage.request() }).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    taken_over(&running, &mut reports, ShutdownRequest { epoch: epoch + 1, ..stage.request() }).await
}

async fn lower_epoch(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Deaf).await?;
    let epoch = running.next_epoch().await? + 1;
    let mut reports = running.shutdown(ShutdownRequest { epoch, ..stage.request() }).await?;
    reports.until_phase(ShutdownPhase::Stopping).await?;
    running.until_signals(1).await?;
    for epoch in [epoch, epoch - 1] {
        let other = ShutdownRequest { epoch, ..stage.request() };
        refused(refusal(&running, other).await?, &[Code::Aborted], "SHUTDOWN_IN_PROGRESS")?;
    }
    goes_on(&running, &mut reports).await
}

async fn kept(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let request = stage.request();
    let first = running.stop(request.clone()).await?;
    sleep(stage.waits().kept).await;
    running.reconnect().await?;
    same(&first, &running.stop(request).await?)
}

async fn next_one(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    running.stop(stage.request()).await?;
    running.start_again(Mode::Fast).await?;
    let last = running.stop(stage.request()).await?;
    expect(outcome(&last) == Outcome::Stopped, "OUTCOME_STOPPED", show(&last))?;
    // A result that was replayed came without this.
    let signals = running.signals().await?;
    expect(signals > 0, "that the application is told to stop", "it was not")
}

async fn restarted_meanwhile(stage: &Stage) -> Verdict {
    let request = stage.request();
    let (mut running, reports) = under_way(stage, request.clone()).await?;
    let seen = reports.seen.last().map_or(0, |report| report.status.sequence);
    stage.subject.fixture.restart().await?;
    running.reconnect().await?;
    let first = running.shutdown(request).await?.report(PLENTY).await?;
    expect(first.result.is_none(), "that the shutdown is still under way", show(&first))?;
    let expected = format!("a sequence above {seen}, the last one seen");
    expect(first.sequence > seen, expected, first.sequence)?;
    let phase = first.phase >= i32::from(ShutdownPhase::Stopping);
    expect(phase, "a phase not below STOPPING, which was reported", show(&first))?;
    stage.expect_alive("after a restart of its hook").await?;
    running.expect_signals(1).await
}

async fn restarted_afterwards(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let request = stage.request();
    let first = running.stop(request.clone()).await?;
    stage.subject.fixture.restart().await?;
    running.reconnect().await?;
    same(&first, &running.stop(request).await?)?;
    running.expect_signals(1).await
}
