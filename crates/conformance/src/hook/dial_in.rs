//! A: agents that dial in, and networks and schedulers that let them down.

use std::time::Duration;

use quiesce_protocol::v1::{ShutdownPhase, ShutdownStatus};
use tokio::time::{Instant, sleep};

use super::stage::{PLENTY, Running, Stage};
use crate::check::{Check, Level, Need, Stop, Verdict, expect};
use crate::fixture::Mode;
use crate::gateway::{Event, Gateway, What, token_of};
use crate::rules;

/// The longest pause between two tries (rule A5), and a fifth.
const PAUSE_MAX: Duration = Duration::from_secs(36);
/// How soon an agent is back whose connection was lost while the gateway was there (rule A5: 5 s and a fifth; a try may
/// fail). The checks give it more.
const BACK_LIMIT: Duration = Duration::from_secs(35);
/// How soon it is back whose connection says nothing: 20 s to the next PING, 20 s for its answer, and then a pause.
const DEAD_LIMIT: Duration = Duration::from_secs(65);
/// The shortest pause behind a refusal: the first is 1 s, less a fifth.
const PAUSE_MIN: Duration = Duration::from_millis(700);
/// Connections closer together are of one try.
const ONE_TRY: Duration = Duration::from_millis(200);
/// What a machine may be late by.
const LATE: Duration = Duration::from_secs(2);

const DIAL_IN: &[Need] = &[Need::DialIn];

const ADVICE_BACK: &str =
    "Dial in again whenever a connection is lost, after a pause that doubles from 1 s to 30 s, and register before.";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "A01",
        level: Level::Must,
        title: "the preface line is as specified, with the token of the registration",
        rule: rules::PREFACE,
        advice: "Send exactly \"QUIESCE/1 ATTACH <attach_token>\" CR LF, as the first bytes.",
        needs: DIAL_IN,
        run: |stage| Box::pin(preface(stage)),
    },
    Check {
        id: "A02",
        level: Level::Must,
        title: "after an ERROR line the token is not used again: a pause, a registration, a new token",
        rule: rules::A2,
        advice: "A token is good once, whatever the answer; register before every dialling in.",
        needs: DIAL_IN,
        run: |stage| Box::pin(refusal(stage)),
    },
    Check {
        id: "A03",
        level: Level::Must,
        title: "after OK the roles are reversed: GetHookInfo and Shutdown work",
        rule: rules::REVERSED,
        advice: "Hand the socket to your gRPC server, or put a pipe before its port. Swallow no byte behind the answer.",
        needs: DIAL_IN,
        run: |stage| Box::pin(reversed(stage)),
    },
    Check {
        id: "A04",
        level: Level::Must,
        title: "the connection is cut during a shutdown: back within 35 s, the same id joins, told once",
        rule: rules::A5,
        advice: ADVICE_BACK,
        needs: &[Need::DialIn, Need::Mode(Mode::Deaf)],
        run: |stage| Box::pin(cut(stage)),
    },
    Check {
        id: "A05",
        level: Level::Must,
        title: "the connection falls silent: a second one replaces it, and outlives it",
        rule: rules::A1,
        advice: "Give a connection up whose PINGs are not answered; do not tie the agent to one connection.",
        needs: DIAL_IN,
        run: |stage| Box::pin(silent(stage)),
    },
    Check {
        id: "A06",
        level: Level::Must,
        title: "an idle connection sees a PING of the agent at least every 30 s",
        rule: rules::A3,
        advice: "Switch the HTTP/2 keepalive of the server on: every 20 s, time out after 20 s.",
        needs: DIAL_IN,
        run: |stage| Box::pin(pings(stage)),
    },
    Check {
        id: "A07",
        level: Level::Must,
        title: "the connection is cut again and again: the same agent comes back, the application runs on",
        rule: rules::A6,
        advice: "A lost connection is no reason to end, and none to touch the application.",
        needs: DIAL_IN,
        run: |stage| Box::pin(again_and_again(stage)),
    },
    Check {
        id: "A08",
        level: Level::Must,
        title: "the gateway is away for 2 minutes: pauses grow, are not all alike, and end at 30 s and a fifth",
        rule: rules::A5,
        advice: ADVICE_BACK,
        needs: DIAL_IN,
        run: |stage| Box::pin(away(stage)),
    },
];

fn gateway(stage: &Stage) -> Result<&Gateway, Stop> {
    stage.subject.gateway().ok_or_else(|| Stop::Skipped("the hook does not dial in (--accept)".to_owned()))
}

/// Cuts the connection; when.
fn cut_now(running: &Running<'_>) -> Instant {
    let now = Instant::now();
    running.connection.line.handle.cut();
    now
}

async fn until(
    gateway: &Gateway,
    since: Instant,
    limit: Duration,
    expected: &str,
    happened: impl Fn(&What) -> bool,
) -> Result<Event, Stop> {
    match gateway.until(since, limit, happened).await {
        Some(event) => Ok(event),
        None => {
            let seen: Vec<_> = gateway.events(since).into_iter().map(|event| name(&event.what)).collect();
            let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
            Err(Stop::failed(format!("{expected} within {limit:?}"), seen))
        }
    }
}

/// In words, without tokens.
fn name(what: &What) -> String {
    match what {
        What::Connected => "a connection".to_owned(),
        What::Registered { .. } => "a registration".to_owned(),
        What::Preface(_) => "a preface".to_owned(),
        What::Refused => "a refusal".to_owned(),
        What::Attached => "an attached connection".to_owned(),
        What::Silent(why) => format!("an attached connection that does not answer ({why})"),
    }
}

fn is_preface(what: &What) -> bool {
    matches!(what, What::Preface(_))
}

async fn preface(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let gateway = gateway(stage)?;
    let since = cut_now(&running);
    let event = until(gateway, since, BACK_LIMIT, "a preface", is_preface).await?;
    let What::Preface(line) = event.what else { return Ok(()) };
    let expected = "\"QUIESCE/1 ATTACH <attach_token>\" CR LF";
    let token = token_of(&line).ok_or_else(|| {
        // Whatever stands behind the second space may be a token.
        let text = String::from_utf8_lossy(&line);
        let shown: Vec<_> = text.splitn(3, ' ').take(2).collect();
        Stop::failed(expected, format!("{} bytes that begin with {:?}", line.len(), shown.join(" ")))
    })?;
    let given = gateway.events(since).into_iter().any(|event| match event.what {
        What::Registered { token: given, .. } => given == token,
        _ => false,
    });
    expect(given, "the attach_token of the registration just before", "another one")?;
    until(gateway, since, BACK_LIMIT, "an attached connection", |what| *what == What::Attached).await.map(drop)
}

async fn refusal(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let gateway = gateway(stage)?;
    gateway.refuse(1);
    let since = cut_now(&running);
    let refused = until(gateway, since, BACK_LIMIT, "a preface", |what| *what == What::Refused).await?;
    // The preface that was refused came before the refusal, and may have come in the same moment.
    let behind = refused.at + Duration::from_millis(1);
    let next = until(gateway, behind, PAUSE_MAX, "another preface", is_preface).await?;
    let events = gateway.events(since);
    let prefaces = events.iter().filter_map(|event| match &event.what {
        What::Preface(line) => token_of(line),
        _ => None,
    });
    let prefaces: Vec<_> = prefaces.collect();
    let again = prefaces.len() > 1 && prefaces[1..].contains(&prefaces[0]);
    expect(!again, "a new attach_token", "the one that was refused")?;
    let registered = |event: &Event| event.at >= refused.at && matches!(event.what, What::Registered { .. });
    expect(events.iter().any(registered), "a registration behind the refusal", "none")?;
    let pause = next.at.saturating_duration_since(refused.at);
    expect(pause >= PAUSE_MIN, format!("a pause of at least {PAUSE_MIN:?} behind the refusal"), format!("{pause:?}"))?;
    until(gateway, refused.at, PAUSE_MAX, "an attached connection", |what| *what == What::Attached).await.map(drop)
}

async fn reversed(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    for _ in 0..3 {
        running.info().await?;
    }
    let last: ShutdownStatus = running.stop(stage.request()).await?;
    expect(last.result.is_some(), "a result", "none")
}

async fn cut(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Deaf).await?;
    let request = stage.request();
    let mut reports = running.shutdown(request.clone()).await?;
    let seen = reports.until_phase(ShutdownPhase::Stopping).await?;
    running.until_signals(1).await?;
    let since = cut_now(&running);
    until(gateway(stage)?, since, BACK_LIMIT, "an attached connection", |what| *what == What::Attached).await?;
    running.reconnect().await?;
    let first = running.shutdown(request).await?.report(PLENTY).await?;
    let expected = format!("a sequence above {}, the last one seen", seen.sequence);
    expect(first.sequence > seen.sequence, expected, first.sequence)?;
    stage.expect_alive("after its hook lost the connection").await?;
    running.expect_signals(1).await
}

async fn silent(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let older = running.connection.line.handle.clone();
    let since = Instant::now();
    older.stop();
    until(gateway(stage)?, since, DEAD_LIMIT, "a second connection", |what| *what == What::Attached).await?;
    running.reconnect().await?;
    // The gateway has closed the older one by now; that must not take the newer one along.
    sleep(LATE).await;
    running.info().await?;
    expect(!running.connection.line.handle.is_gone(), "that the second connection outlives the first", "it is gone")
}

async fn pings(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let handle = running.connection.line.handle.clone();
    let since = Instant::now();
    sleep(stage.waits().ping).await;
    let seen = handle.pings().into_iter().filter(|at| *at >= since).count();
    expect(seen > 0, format!("a PING within {:?}", stage.waits().ping), "none")
}

async fn again_and_again(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let gateway = gateway(stage)?;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let since = cut_now(&running);
        until(gateway, since, BACK_LIMIT, "an attached connection", |what| *what == What::Attached).await?;
        running.reconnect().await?;
        agents.extend(gateway.events(since).into_iter().filter_map(|event| match event.what {
            What::Registered { agent_id, .. } => Some(agent_id),
            _ => None,
        }));
    }
    agents.dedup();
    expect(agents.len() <= 1, "the same Instance.agent_id each time", format!("{} different ones", agents.len()))?;
    running.expect_untouched("after its hook lost connections").await
}

async fn away(stage: &Stage) -> Verdict {
    let mut running = stage.start(Mode::Fast).await?;
    let gateway = gateway(stage)?;
    let since = Instant::now();
    gateway.go_away(true);
    sleep(stage.waits().away).await;
    let tries = gateway.events(since).into_iter().filter(|event| event.what == What::Connected);
    let mut times: Vec<Instant> = Vec::new();
    for event in tries {
        if times.last().is_none_or(|last| event.at.saturating_duration_since(*last) > ONE_TRY) {
            times.push(event.at);
        }
    }
    let back = Instant::now();
    gateway.go_away(false);
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).collect();
    judge_pauses(&pauses)?;
    until(gateway, back, PAUSE_MAX + LATE, "an attached connection", |what| *what == What::Attached).await?;
    running.reconnect().await?;
    running.expect_untouched("after the gateway was away").await
}

/// They grow, are spread, and have an end.
fn judge_pauses(pauses: &[Duration]) -> Verdict {
    let shown = format!("{pauses:.1?}");
    expect(pauses.len() >= 3, "at least four tries while the gateway is away", format!("pauses of {shown}"))?;
    let longest = pauses.iter().max().copied().unwrap_or_default();
    let first = pauses.first().copied().unwrap_or_default();
    expect(longest >= first * 2, "pauses that grow", &shown)?;
    expect(longest <= PAUSE_MAX + LATE, format!("no pause above {PAUSE_MAX:?}"), &shown)?;
    let follows = |pair: &[Duration]| {
        let nominal = (pair[0].as_secs_f64() * 2.0).min(30.0);
        (pair[1].as_secs_f64() / nominal - 1.0).abs() < 0.01
    };
    let regular = pauses.windows(2).all(follows);
    expect(!regular, "pauses with a spread of a fifth, so that agents do not come all at once", &shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_judged_by_growth_spread_and_end() {
        let seconds = |all: &[f64]| all.iter().copied().map(Duration::from_secs_f64).collect::<Vec<_>>();
        judge_pauses(&seconds(&[1.1, 1.8, 4.3, 7.2, 18.0, 33.0])).unwrap();
        for wrong in
            [&[1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0][..], &[1.0, 1.1, 0.9, 1.0], &[1.0, 2.1], &[5.0, 11.0, 44.0]]
        {
            assert!(judge_pauses(&seconds(wrong)).is_err(), "{wrong:?}");
        }
    }
}
