//! F: attempts that fail, timers, force.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::failure::Reason;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use quiesce_protocol::v1::stop_result::Outcome;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::fake::{Act, Call, Fake, Script, deaf, stopped, stopping, stops, waits};
use super::stage::{Stage, Staged, count, failures, hasty, millis, once, patient, quick, some};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect};

pub(super) const CHECKS: &[Check] = checks! {
    F01 Must "a hook that does not answer: ACCEPT_TIMEOUT, and the next attempt",
        rules::ACCEPT, "Run a timer from the call to the first report.", [], silent_hook;
    F02 Must "a stream that falls silent: it is joined again first, then HEARTBEAT_TIMEOUT",
        rules::SILENCE, "Run a timer from report to report.", [], silent_stream;
    F03 Must "the grace period is over: GRACE_TIMEOUT, not before its time",
        rules::GRACE, "Begin the timer with the first report of the hook.", [], grace;
    F04 Must "max_attempts are made, with pauses that grow by the multiplier to max_backoff, and a spread of a fifth",
        rules::BACKOFF, "Compute the pause from the number of the attempt.", [], backoff;
    F05 Must "each attempt has its number, a shutdown_id and a token of its own; joining again keeps the id",
        rules::SHUTDOWN_ID, "Make the id from operation, instance and attempt.", [], numbered;
    F06 Must "UNAVAILABLE, UNKNOWN, INTERNAL, a broken connection: joined again in the same attempt",
        rules::RECONNECT, "Take these for a lost connection, not for an answer.", [], reconnects;
    F07 Must "INVALID_ARGUMENT, PERMISSION_DENIED, WRONG_INSTANCE: HOOK_REJECTED at once",
        rules::REJECTED, "Do not wait for a timer when the hook has said no.", [], rejected;
    F08 Must "OK without a result: PROTOCOL_ERROR",
        rules::NO_RESULT, "A stream that ends has to end with a result.", [], no_result;
    F09 Must "a result with a wrong token, or without one, does not count",
        rules::TOKEN, "Compare the token before you look at the result.", [], wrong_token;
    F10 Must "a phase or a sequence that goes back: PROTOCOL_ERROR",
        rules::BROKEN, "Hold each report against the one before.", [], goes_back;
    F11 Must "STILL_RUNNING: the next attempt",
        rules::RESULT, "A no is a result, and ends the attempt.", [], still_running;
    F12 Must "RESTARTED: the next attempt",
        rules::RESULT, "What runs again has not stopped.", [], restarted;
    F13 Must "GIVE_UP: DEGRADED, and nobody is ever told to kill",
        rules::GIVE_UP, "Kill only when the policy or a person says so.", [], gives_up;
    F14 Must "FORCE: killed with the right id and token, SUCCEEDED, OUTCOME_KILLED",
        rules::FORCE, "Send KillApplication for the shutdown that runs, and wait for its result.", [], forces;
    F15 Must "a kill that has no effect: KILL_TIMEOUT, DEGRADED",
        rules::FORCE, "A kill that was sent proves nothing.", [], kill_ignored;
    F16 Must "the hook is gone under FORCE: DEGRADED; with allow_unverified SUCCEEDED, and counted as unverified",
        rules::UNVERIFIED, "Without proof go on only if that was asked for.", [], gone;
    F17 Must "evidence CLAIMED is no verified end",
        rules::CLAIM, "Hold the evidence against min_evidence.", [], claimed;
    F18 Must "hold_on_unclean_exit: DEGRADED with UNCLEAN_EXIT; without, SUCCEEDED",
        rules::UNCLEAN, "Look at `clean` of the result.", [], unclean;
    F19 Must "overall_timeout: OVERALL_TIMEOUT, DEGRADED, whatever attempts are left",
        rules::OVERALL, "Run a timer over the whole operation.", [], overall;
    F20 Must "one of three fails: the other two are not called again in the next attempt",
        rules::STAY, "Remember who has ended.", [], one_of_three;
    F21 Must "no HTTP/2 PING on a connection to a hook that listens, for 90 s (waits.quiet)",
        rules::NO_PINGS, "Switch keep-alive off; GetHookInfo and reports are the signs of life.", [], no_pings;
};

/// A migration to its end, or until it is degraded: its name and its events.
async fn played(stage: &Stage, staged: &Staged) -> Result<(v1::Operation, Vec<v1::OperationEvent>), Stop> {
    let followed = stage.follow(&staged.name).await?;
    let operation = stage.migrate(&staged.name).await?;
    let events = followed.read_to_end().await?;
    Ok((stage.operation(&operation).await?, events))
}

fn expect_state(operation: &v1::Operation, wanted: State) -> Verdict {
    let seen = format!("{} {:?}", operation.state().as_str_name(), operation.failure);
    expect(operation.state() == wanted, wanted.as_str_name(), seen)
}

fn expect_failure(events: &[v1::OperationEvent], wanted: Reason) -> Verdict {
    let seen = failures(events);
    expect(seen.contains(&wanted), wanted.as_str_name(), format!("{seen:?}"))
}

fn expect_shutdowns(hook: &Fake, wanted: usize) -> Verdict {
    let seen = hook.ids().len();
    expect(seen == wanted, format!("{wanted} shutdowns"), seen)
}

/// The first attempt fails so, the second is well.
async fn then_well(stage: &Stage, first: Vec<Act>, wanted: Reason) -> Result<Staged, Stop> {
    well_under(stage, quick(), first, wanted).await
}

async fn well_under(
    stage: &Stage,
    policy: v1::ShutdownPolicy,
    first: Vec<Act>,
    wanted: Reason,
) -> Result<Staged, Stop> {
    let staged = stage.staged(policy, Script::of([first, stops()])).await?;
    let (operation, events) = played(stage, &staged).await?;
    expect_failure(&events, wanted)?;
    expect_state(&operation, State::Succeeded)?;
    expect(operation.attempt == 2, "attempt 2", operation.attempt)?;
    expect_shutdowns(&staged.hook, 2)?;
    Ok(staged)
}

async fn silent_hook(stage: &Stage) -> Verdict {
    well_under(stage, hasty(quick()), vec![Act::Hang], Reason::AcceptTimeout).await.map(drop)
}

async fn silent_stream(stage: &Stage) -> Verdict {
    let first = [stopping(), vec![Act::Hang, Act::Hang, Act::Hang, Act::Hang]].concat();
    let policy = v1::ShutdownPolicy { grace_period: millis(20_000), ..hasty(quick()) };
    let staged = stage.staged(policy, Script::of([first, stops()])).await?;
    let (operation, events) = played(stage, &staged).await?;
    expect_failure(&events, Reason::HeartbeatTimeout)?;
    expect_state(&operation, State::Succeeded)?;
    let ids = staged.hook.ids();
    let of_first = staged.hook.shutdowns().iter().filter(|request| Some(&request.shutdown_id) == ids.first()).count();
    expect(ids.len() == 2, "two shutdowns", ids.len())?;
    let joined =
        of_first >= 2 || staged.hook.calls().iter().filter(|(_, call)| matches!(call, Call::Info(_))).count() >= 2;
    expect(joined, "a try to reach the hook before the attempt is given up", "none")
}

async fn grace(stage: &Stage) -> Verdict {
    let staged = stage.staged(once(), Script::of([deaf()])).await?;
    let began = Instant::now();
    let (operation, events) = played(stage, &staged).await?;
    let took = began.elapsed();
    expect_failure(&events, Reason::GraceTimeout)?;
    expect_state(&operation, State::Degraded)?;
    expect(count(&events, Type::Timeout) > 0, "TYPE_TIMEOUT", "none")?;
    let grace = Duration::from_millis(1_500);
    let told = staged.hook.shutdowns().first().and_then(|request| request.grace_period);
    expect(told == millis(1_500), "the hook told of 1.5 s", format!("{told:?}"))?;
    expect(took >= grace.mul_f64(0.8), format!("not before {grace:?}, less a fifth"), format!("{took:?}"))?;
    let late = grace.mul_f64(1.2) + Duration::from_secs(3);
    expect(took <= late, format!("not after {late:?}"), format!("{took:?}"))
}

async fn backoff(stage: &Stage) -> Verdict {
    let retry = v1::RetryPolicy {
        max_attempts: Some(5),
        initial_backoff: millis(300),
        max_backoff: millis(1_000),
        backoff_multiplier: Some(2.0),
    };
    let refuses = vec![Act::Fail(Code::InvalidArgument, "INVALID_FIELD")];
    let policy = v1::ShutdownPolicy { retry: Some(retry), ..quick() };
    let staged = stage.staged(policy, Script::of([refuses])).await?;
    let (operation, _) = played(stage, &staged).await?;
    expect_state(&operation, State::Degraded)?;
    expect_shutdowns(&staged.hook, 5)?;
    let told = |(at, call): &(Instant, Call)| matches!(call, Call::Shutdown(_)).then_some(*at);
    let times: Vec<_> = staged.hook.calls().iter().filter_map(told).collect();
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, nominal) in pauses.iter().zip([300_u64, 600, 1_000, 1_000]) {
        let nominal = Duration::from_millis(nominal);
        let (least, most) = (nominal.mul_f64(0.79), nominal.mul_f64(1.2) + Duration::from_millis(1_500));
        let fits = (least..=most).contains(pause);
        expect(fits, "pauses of 0.3, 0.6, 1, 1 s, a fifth more or less", format!("{pauses:.2?}"))?;
    }
    Ok(())
}

async fn numbered(stage: &Stage) -> Verdict {
    let first = [
        stopping(),
        vec![Act::Fail(Code::Unavailable, ""), Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)],
    ]
    .concat();
    let staged = stage.staged(quick(), Script::of([first, stops()])).await?;
    let (operation, _) = played(stage, &staged).await?;
    expect_state(&operation, State::Succeeded)?;
    let requests = staged.hook.shutdowns();
    let ids = staged.hook.ids();
    expect(ids.len() == 2, "two shutdown ids", ids.len())?;
    let (one, two): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.shutdown_id == ids[0]);
    expect(one.len() >= 2, "the first joined again under its id", one.len())?;
    let attempts = one.iter().all(|request| request.attempt == 1) && two.iter().all(|request| request.attempt == 2);
    expect(attempts, "attempts 1 and 2", format!("{requests:?}"))?;
    let same = one.iter().all(|request| request.completion_token == one[0].completion_token);
    expect(same, "the same token when joining again", "another one")?;
    expect(one[0].completion_token != two[0].completion_token, "a token for each attempt", "the same")
}

async fn reconnects(stage: &Stage) -> Verdict {
    for code in [Code::Unavailable, Code::Unknown, Code::Internal] {
        let acts = [stopping(), vec![Act::Fail(code, ""), stopped()]].concat();
        let staged = stage.staged(quick(), Script::of([acts])).await?;
        let (operation, _) = played(stage, &staged).await?;
        expect_state(&operation, State::Succeeded)?;
        expect(operation.attempt == 1, format!("{code:?}: attempt 1"), operation.attempt)?;
        expect_shutdowns(&staged.hook, 1)?;
    }
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until(&operation, "the point of no return", |operation| operation.point_of_no_return_time.is_some()).await?;
    staged.hook.vanish();
    let again = stage.listening(&staged.name, "one", &staged.hook).await?;
    stage.register(again).await?;
    staged.hook.release();
    let operation = stage.until_state(&operation, State::Succeeded).await?;
    expect(operation.attempt == 1, "a broken connection: attempt 1", operation.attempt)?;
    expect_shutdowns(&staged.hook, 1)
}

async fn rejected(stage: &Stage) -> Verdict {
    for (code, reason) in [
        (Code::InvalidArgument, "INVALID_FIELD"),
        (Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
        (Code::FailedPrecondition, "WRONG_INSTANCE"),
    ] {
        let policy = v1::ShutdownPolicy { grace_period: millis(60_000), accept_timeout: millis(30_000), ..once() };
        let staged = stage.staged(policy, Script::of([vec![Act::Fail(code, reason)]])).await?;
        let (operation, events) = played(stage, &staged).await?;
        expect_failure(&events, Reason::HookRejected)?;
        expect_state(&operation, State::Degraded)?;
        expect_shutdowns(&staged.hook, 1)?;
    }
    Ok(())
}

async fn no_result(stage: &Stage) -> Verdict {
    let first = [stopping(), vec![Act::End]].concat();
    then_well(stage, first, Reason::ProtocolError).await.map(drop)
}

async fn wrong_token(stage: &Stage) -> Verdict {
    for token in ["", "not-the-token"] {
        let acts = [stopping(), vec![Act::ResultWithToken(token), Act::UntilReleased]].concat();
        let staged = stage.staged(once(), Script::of([acts])).await?;
        // Or being asked whether it runs would show the result to be wrong.
        staged.hook.change(|script| script.info.app_state = v1::hook_info::AppState::Unspecified.into());
        let (operation, _) = played(stage, &staged).await?;
        let failed = operation.counts.as_ref().is_some_and(|counts| counts.stopped == 0);
        expect(failed, format!("no end by the token {token:?}"), format!("{:?}", operation.counts))?;
        expect_state(&operation, State::Degraded)?;
    }
    Ok(())
}

async fn goes_back(stage: &Stage) -> Verdict {
    let phase =
        [stopping(), vec![Act::Say(|status| status.phase = v1::ShutdownPhase::Accepted.into()), Act::UntilReleased]];
    then_well(stage, phase.concat(), Reason::ProtocolError).await?;
    let sequence = [
        vec![Act::Say(|status| status.sequence = 9)],
        stopping(),
        vec![Act::Say(|status| status.sequence = 2), Act::UntilReleased],
    ];
    then_well(stage, sequence.concat(), Reason::ProtocolError).await.map(drop)
}

async fn still_running(stage: &Stage) -> Verdict {
    let first = [stopping(), vec![Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)]].concat();
    then_well(stage, first, Reason::StillRunning).await.map(drop)
}

async fn restarted(stage: &Stage) -> Verdict {
    let first = [stopping(), vec![Act::Result(Outcome::Restarted, v1::Evidence::Unspecified)]].concat();
    then_well(stage, first, Reason::Restarted).await.map(drop)
}

async fn gives_up(stage: &Stage) -> Verdict {
    let staged = stage.staged(quick(), Script::of([deaf()])).await?;
    let (operation, _) = played(stage, &staged).await?;
    expect_state(&operation, State::Degraded)?;
    expect_shutdowns(&staged.hook, 2)?;
    sleep(Duration::from_secs(1)).await;
    expect(staged.hook.kills().is_empty(), "no KillApplication", staged.hook.kills().len())?;
    let application = stage.get_application(&staged.name).await?;
    let blocked = application.active_operation == operation.name
        && application.state() == v1::application::State::Degraded
        && application.cluster == stage.cluster("a");
    expect(blocked, "the application DEGRADED, where it was", format!("{application:?}"))
}

fn forcing() -> v1::ShutdownPolicy {
    v1::ShutdownPolicy { failure_strategy: v1::FailureStrategy::Force.into(), ..once() }
}

/// With force in its policy, for which a reason is needed.
async fn forced(stage: &Stage, staged: &Staged) -> Result<v1::Operation, Stop> {
    Ok(played(stage, staged).await?.0)
}

async fn forces(stage: &Stage) -> Verdict {
    let staged = stage.staged(forcing(), Script::of([deaf()])).await?;
    let operation = forced(stage, &staged).await?;
    expect_state(&operation, State::Succeeded)?;
    let (shutdowns, kills) = (staged.hook.shutdowns(), staged.hook.kills());
    let kill = some("a KillApplication", kills.first())?;
    let of_it = shutdowns.iter().find(|request| request.shutdown_id == kill.shutdown_id);
    let of_it = some("a Shutdown with the id of the kill", of_it)?;
    expect(kill.completion_token == of_it.completion_token, "the token of that shutdown", "another one")?;
    let result = operation.instances.first().and_then(|instance| instance.status.clone()?.result);
    let killed = result.as_ref().is_some_and(|result| result.outcome() == Outcome::Killed);
    expect(killed, "OUTCOME_KILLED", format!("{result:?}"))
}

async fn kill_ignored(stage: &Stage) -> Verdict {
    let script = Script { kill_ignored: true, ..Script::of([deaf()]) };
    let staged = stage.staged(hasty(forcing()), script).await?;
    let (operation, events) = played(stage, &staged).await?;
    expect_state(&operation, State::Degraded)?;
    expect_failure(&events, Reason::KillTimeout)?;
    expect(!staged.hook.kills().is_empty(), "a KillApplication", "none")
}

async fn gone(stage: &Stage) -> Verdict {
    for allowed in [false, true] {
        let grace_period = millis(4_000);
        let policy = v1::ShutdownPolicy { allow_unverified: Some(allowed), grace_period, ..hasty(forcing()) };
        let staged = stage.staged(policy, Script::of([deaf()])).await?;
        let followed = stage.follow(&staged.name).await?;
        let operation = stage.migrate(&staged.name).await?;
        stage.until_state(&operation, State::Stopping).await?;
        staged.hook.vanish();
        followed.read_to_end().await?;
        let operation = stage.operation(&operation).await?;
        expect_state(&operation, if allowed { State::Succeeded } else { State::Degraded })?;
        let unverified = operation.counts.map_or(0, |counts| counts.unverified);
        expect(!allowed || unverified == 1, "counts.unverified 1", unverified)?;
        expect(!allowed || !operation.overrides.is_empty(), "an entry in overrides", "none")?;
    }
    Ok(())
}

async fn claimed(stage: &Stage) -> Verdict {
    let acts = [stopping(), vec![Act::Result(Outcome::Stopped, v1::Evidence::Claimed)]].concat();
    let staged = stage.staged(once(), Script::of([acts])).await?;
    // Whoever claims says nothing better when asked again.
    staged.hook.change(|script| script.info.app_state = v1::hook_info::AppState::Unspecified.into());
    let (operation, _) = played(stage, &staged).await?;
    expect_state(&operation, State::Degraded)?;
    let verified = operation.instances.iter().any(|instance| instance.verified);
    expect(!verified, "no verified end", "verified")
}

async fn unclean(stage: &Stage) -> Verdict {
    for hold in [true, false] {
        let policy = v1::ShutdownPolicy { hold_on_unclean_exit: Some(hold), ..once() };
        let staged = stage.staged(policy, Script::of([[stopping(), vec![Act::Unclean]].concat()])).await?;
        let (operation, _) = played(stage, &staged).await?;
        expect_state(&operation, if hold { State::Degraded } else { State::Succeeded })?;
        let failure = operation.failure.as_ref().map(v1::Failure::reason);
        expect(!hold || failure == Some(Reason::UncleanExit), "UNCLEAN_EXIT", format!("{failure:?}"))?;
    }
    Ok(())
}

async fn overall(stage: &Stage) -> Verdict {
    let retry = v1::RetryPolicy {
        max_attempts: Some(100),
        initial_backoff: millis(200),
        max_backoff: millis(200),
        backoff_multiplier: Some(1.0),
    };
    let policy = v1::ShutdownPolicy { retry: Some(retry), overall_timeout: millis(3_000), ..quick() };
    let staged = stage.staged(policy, Script::of([deaf()])).await?;
    let (operation, events) = played(stage, &staged).await?;
    expect_state(&operation, State::Degraded)?;
    let reason = operation.failure.as_ref().map(v1::Failure::reason);
    let named = reason == Some(Reason::OverallTimeout) || failures(&events).contains(&Reason::OverallTimeout);
    expect(named, "OVERALL_TIMEOUT", format!("{reason:?}"))
}

async fn one_of_three(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(quick())).await?.name;
    let still = [stopping(), vec![Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)]].concat();
    let first = stage.instance(&name, "one", Script::of([stops()])).await?;
    let third = stage.instance(&name, "three", Script::of([stops()])).await?;
    let hook = stage.instance(&name, "two", Script::of([still, stops()])).await?;
    let staged = Staged { name, hook };
    let (operation, _) = played(stage, &staged).await?;
    expect_state(&operation, State::Succeeded)?;
    expect_shutdowns(&staged.hook, 2)?;
    expect_shutdowns(&first, 1)?;
    expect_shutdowns(&third, 1)
}

async fn no_pings(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    sleep(stage.subject.quiet).await;
    let asked = staged.hook.calls().iter().any(|(_, call)| matches!(call, Call::Info(_)));
    expect(asked, "GetHookInfo meanwhile", "none")?;
    let pings = staged.hook.pings();
    expect(pings == 0, "no PING", format!("{pings}"))
}
