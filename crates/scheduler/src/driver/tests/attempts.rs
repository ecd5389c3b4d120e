//! How calls that go wrong are read, over the wire: groups F and X of the conformance suite.

use std::collections::BTreeSet;
use std::time::Duration;

use quiesce_operation::member::Run;
use quiesce_operation::{EventKind, FailureStrategy, Policy, Reason, StateName};
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Evidence, ShutdownPhase, ShutdownStatus, StopResult};
use quiesce_testkit::hook::{Act, Call, Script, ScriptedHook, stops};
use quiesce_testkit::proxy::TcpProxy;
use tonic::Code;

use super::world::{SOURCE, World, caller, count, hasty, hook};
use crate::driver::Command;
use crate::records::Connect;

fn accepted() -> Act {
    Act::Report(ShutdownPhase::Accepted)
}

fn stopped() -> Act {
    Act::Result(Outcome::Stopped, Evidence::GroupEmpty)
}

fn ids(hook: &ScriptedHook) -> BTreeSet<String> {
    hook.shutdowns().into_iter().map(|request| request.shutdown_id).collect()
}

/// A deletion of one instance whose shutdown goes as `acts` say ends DEGRADED for `reason`.
async fn fails(acts: Vec<Act>, reason: Reason) -> ScriptedHook {
    fails_under(hasty(), Script::of([acts]), reason).await
}

async fn fails_under(policy: Policy, script: Script, reason: Reason) -> ScriptedHook {
    let world = World::new().await;
    let (hook, listening) = hook(script).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(policy).await;
    world.degraded(&id, reason).await;
    assert_eq!(count(&hook, |call| matches!(call, Call::ConcludeShutdown(_))), 0);
    hook
}

#[tokio::test]
async fn a_hook_that_does_not_accept_is_an_accept_timeout() {
    fails(vec![Act::Hang, Act::Hang, Act::Hang], Reason::AcceptTimeout).await;
}

#[tokio::test]
async fn a_hook_that_does_not_answer_at_all_is_an_accept_timeout() {
    let hook = fails_under(hasty(), Script { mute: true, ..Script::default() }, Reason::AcceptTimeout).await;
    assert_eq!(hook.shutdowns(), []);
}

#[tokio::test]
async fn a_silent_stream_is_joined_anew_before_it_counts_as_dead() {
    let hook = fails(vec![accepted(), Act::Hang, Act::Hang, Act::Hang], Reason::HeartbeatTimeout).await;
    assert!(hook.shutdowns().len() >= 2);
    assert_eq!(ids(&hook).len(), 1);
}

#[tokio::test]
async fn heartbeats_keep_a_shutdown_alive_until_its_grace_period_ends() {
    let policy = Policy { grace_period: Duration::from_secs(2), ..hasty() };
    let hook = fails_under(policy, Script::of([vec![accepted(), Act::UntilReleased]]), Reason::GraceTimeout).await;
    assert_eq!(hook.shutdowns().len(), 1);
    assert_eq!(count(&hook, |call| matches!(call, Call::KillApplication(_))), 0, "GIVE_UP never kills");
}

#[tokio::test]
async fn broken_calls_are_repeated_within_the_attempt_under_the_same_id() {
    let world = World::new().await;
    let mut acts: Vec<Act> =
        [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled, Code::DeadlineExceeded]
            .into_iter()
            .flat_map(|code| [accepted(), Act::Fail(code, "")])
            .collect();
    acts.push(stopped());
    let (hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!((hook.shutdowns().len(), ids(&hook).len()), (6, 1));
}

#[tokio::test]
async fn a_cut_connection_is_made_again_and_the_shutdown_joined() {
    let world = World::new().await;
    let (hook, listening) = hook(Script::of([vec![accepted(), Act::UntilReleased, stopped()]])).await;
    let proxy = TcpProxy::start(listening.address).await;
    world.register_at("a", SOURCE, Connect::Listen { endpoint: proxy.address().to_string() }).await;
    let id = world.delete(hasty()).await;
    world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
    proxy.cut_connections();
    hook.told(|calls| calls.iter().filter(|call| matches!(call, Call::Shutdown(_))).count() == 2).await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
    assert_eq!(ids(&hook).len(), 1);
}

#[tokio::test]
async fn a_refusal_fails_the_attempt_at_once() {
    for (code, reason) in [
        (Code::InvalidArgument, "INVALID_FIELD"),
        (Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
        (Code::FailedPrecondition, "WRONG_INSTANCE"),
    ] {
        let hook = fails(vec![Act::Fail(code, reason)], Reason::HookRejected).await;
        assert_eq!(hook.shutdowns().len(), 1, "{code:?}");
    }
}

#[tokio::test]
async fn a_refused_shutdown_is_not_stored_as_an_accepted_one() {
    for reason in ["NOT_STOPPABLE", "EPOCH_STALE", "WRONG_INSTANCE"] {
        let world = World::new().await;
        let (_hook, listening) = hook(Script::of([vec![Act::Fail(Code::FailedPrecondition, reason)]])).await;
        world.register("a", SOURCE, &listening).await;
        let id = world.delete(hasty()).await;
        let operation = world.degraded(&id, Reason::HookRejected).await;
        let member = &operation.members()[0];
        let shutdown = member.shutdown.as_ref().expect("it was called");
        assert_eq!((&member.run, member.told, operation.point_of_no_return()), (&Run::Failed, false, None), "{reason}");
        assert_eq!((shutdown.accepted, &shutdown.report, shutdown.heard), (None, &None, None), "{reason}");
        let events = world.events().await;
        assert!(events.iter().all(|event| event.kind != EventKind::Progress), "{reason}: {events:?}");
        // Nobody was told to stop, so all of it can be taken back.
        world.handle.command(&id, Command::Cancel(caller())).await.unwrap();
        world.until_state(&id, StateName::Cancelled).await;
    }
}

#[tokio::test]
async fn a_busy_hook_is_asked_again() {
    let world = World::new().await;
    let busy = Act::Fail(Code::Aborted, "SHUTDOWN_IN_PROGRESS");
    let (hook, listening) =
        hook(Script::of([vec![busy, Act::Fail(Code::ResourceExhausted, ""), accepted(), stopped()]])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!((hook.shutdowns().len(), ids(&hook).len()), (3, 1));
}

#[tokio::test]
async fn a_call_that_ends_without_a_result_is_a_protocol_error() {
    fails(vec![accepted(), Act::End], Reason::ProtocolError).await;
}

#[tokio::test]
async fn a_result_without_the_right_token_does_not_count() {
    let raw = |token: &str| {
        Act::Raw(Box::new(ShutdownStatus {
            sequence: 9,
            phase: ShutdownPhase::Stopped.into(),
            completion_token: token.to_owned(),
            result: Some(StopResult {
                outcome: Outcome::Stopped.into(),
                evidence: Evidence::GroupEmpty.into(),
                ..Default::default()
            }),
            ..Default::default()
        }))
    };
    for token in ["", "qct1.1.AAAA"] {
        fails(vec![accepted(), raw(token)], Reason::ProtocolError).await;
    }
}

#[tokio::test]
async fn going_back_is_a_protocol_error() {
    let report = |sequence, phase: ShutdownPhase| {
        Act::Raw(Box::new(ShutdownStatus { sequence, phase: phase.into(), ..Default::default() }))
    };
    let phase = vec![report(1, ShutdownPhase::Stopping), report(2, ShutdownPhase::Accepted), Act::UntilReleased];
    let sequence = vec![report(9, ShutdownPhase::Stopping), report(2, ShutdownPhase::Stopping), Act::UntilReleased];
    for acts in [phase, sequence] {
        fails(acts, Reason::ProtocolError).await;
    }
}

#[tokio::test]
async fn the_next_attempt_has_a_new_id_and_token() {
    let world = World::new().await;
    let still = vec![accepted(), Act::Result(Outcome::StillRunning, Evidence::ExitObserved)];
    let restarted = vec![accepted(), Act::Result(Outcome::Restarted, Evidence::ExitObserved)];
    let (hook, listening) = hook(Script::of([still, restarted, stops()])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(Policy { max_attempts: 3, ..hasty() }).await;
    world.end(&id, StateName::Succeeded).await;
    let requests = hook.shutdowns();
    assert_eq!(requests.iter().map(|request| request.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ids(&hook).len(), 3);
    assert_eq!(requests.iter().map(|request| &request.completion_token).collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn instances_that_have_stopped_are_left_alone_in_the_next_attempt() {
    let world = World::new().await;
    let (good, good_at) = hook(Script::default()).await;
    let still = vec![accepted(), Act::Result(Outcome::StillRunning, Evidence::ExitObserved)];
    let (bad, bad_at) = hook(Script::of([still, stops()])).await;
    world.register("a", SOURCE, &good_at).await;
    world.register("b", SOURCE, &bad_at).await;
    let id = world.delete(Policy { max_attempts: 2, ..hasty() }).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!((good.shutdowns().len(), bad.shutdowns().len()), (1, 2));
}

#[tokio::test]
async fn forcing_kills_within_the_shutdown_with_its_token() {
    let world = World::new().await;
    let acts = vec![accepted(), Act::UntilKilled, Act::Result(Outcome::Killed, Evidence::GroupEmpty)];
    let (hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let policy = Policy { grace_period: Duration::from_secs(1), failure_strategy: FailureStrategy::Force, ..hasty() };
    let id = world.delete(policy).await;
    world.end(&id, StateName::Succeeded).await;
    let request = hook.shutdowns()[0].clone();
    let kill = hook.calls().into_iter().find_map(|call| match call {
        Call::KillApplication(kill) => Some((kill.shutdown_id, kill.completion_token)),
        _ => None,
    });
    assert_eq!(kill, Some((request.shutdown_id, request.completion_token)));
}

#[tokio::test]
async fn a_kill_without_effect_is_a_kill_timeout() {
    let policy = Policy { grace_period: Duration::from_secs(1), failure_strategy: FailureStrategy::Force, ..hasty() };
    fails_under(policy, Script::of([vec![accepted(), Act::UntilReleased]]), Reason::KillTimeout).await;
}

#[tokio::test]
async fn a_wish_within_the_limit_is_granted_and_told_once() {
    let world = World::new().await;
    let wish = Act::Wish(Duration::from_secs(25));
    let acts = vec![accepted(), wish.clone(), wish, Act::UntilReleased, stopped()];
    let (hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(Policy { max_extension: Duration::from_secs(10), ..hasty() }).await;
    hook.told(|calls| calls.iter().any(|call| matches!(call, Call::UpdateDeadline(_)))).await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
    let told: Vec<_> = hook
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::UpdateDeadline(update) => Some((update.grace_period.map(|grace| grace.seconds), update.granted)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(Some(25), true)]);
    let extended = world.events().await.into_iter().filter(|event| event.kind == EventKind::DeadlineExtended).count();
    assert_eq!(extended, 1);
}

#[tokio::test]
async fn a_wish_above_the_limit_is_cut() {
    let world = World::new().await;
    let acts = vec![accepted(), Act::Wish(Duration::from_secs(100)), Act::UntilReleased, stopped()];
    let (hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(Policy { max_extension: Duration::from_secs(10), ..hasty() }).await;
    hook.told(|calls| {
        calls.iter().any(|call| match call {
            Call::UpdateDeadline(update) => {
                update.grace_period.is_some_and(|grace| grace.seconds == 30) && !update.granted
            }
            _ => false,
        })
    })
    .await;
    hook.release();
    world.end(&id, StateName::Succeeded).await;
}

#[tokio::test]
async fn requests_carry_what_the_policy_and_the_person_said() {
    let world = World::new().await;
    let (hook, listening) = hook(Script::default()).await;
    world.register("a", SOURCE, &listening).await;
    let mut policy = hasty();
    policy.heartbeat_timeout = Duration::from_secs(3);
    policy.parameters.insert("mode".to_owned(), "fast".to_owned());
    let id = world.delete(policy).await;
    world.end(&id, StateName::Succeeded).await;
    let request = hook.shutdowns()[0].clone();
    assert_eq!(request.shutdown_id, "op-1.1.a");
    assert_eq!(request.operation, "operations/op-1");
    assert_eq!(request.instance, "applications/shop/instances/a");
    assert_eq!(request.kind(), quiesce_protocol::v1::OperationKind::Delete);
    assert_eq!(request.grace_period.map(|grace| grace.seconds), Some(20));
    assert_eq!(request.heartbeat_interval.map(|interval| interval.seconds), Some(1));
    assert_eq!(request.parameters.get("mode").map(String::as_str), Some("fast"));
    assert_eq!(request.reason, "moving house");
    let checked = hook.calls().into_iter().any(|call| match call {
        Call::CheckShutdown(check) => check.parameters.contains_key("mode") && check.instance == request.instance,
        _ => false,
    });
    assert!(checked);
}
