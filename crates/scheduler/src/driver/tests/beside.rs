//! Results and wishes beside the stream: groups T and X03 to X04 of the conformance suite.

use std::time::Duration;

use quiesce_operation::report::{Evidence, StopOutcome, StopResult};
use quiesce_operation::{Moment, OperationId, Policy, StateName};
use quiesce_protocol::v1::{self, ShutdownPhase};
use quiesce_testkit::hook::{Act, Listening, Script, ScriptedHook};

use super::world::{SOURCE, World, hasty, hook};
use crate::driver::CompletionError;
use crate::secrets::{CompletionToken, ShutdownId};

fn ended(message: &str) -> StopResult {
    StopResult {
        outcome: StopOutcome::Stopped,
        evidence: Evidence::ExitObserved,
        exit_code: Some(0),
        exit_signal: None,
        clean: Some(true),
        duration: None,
        message: message.to_owned(),
        held: true,
    }
}

/// One instance whose stream has accepted and then has nothing more to say.
struct Running {
    world: World,
    hook: ScriptedHook,
    _listening: Listening,
    id: OperationId,
    shutdown: String,
    token: CompletionToken,
}

impl Running {
    async fn new(policy: Policy) -> Self {
        let world = World::new().await;
        let (hook, listening) =
            hook(Script::of([vec![Act::Report(ShutdownPhase::Stopping), Act::UntilReleased]])).await;
        world.register("a", SOURCE, &listening).await;
        let id = world.delete(policy).await;
        world.until(&id, |operation| operation.members()[0].has_open_shutdown()).await;
        let request = hook.shutdowns()[0].clone();
        let token = CompletionToken::parse(&request.completion_token).unwrap();
        Self { world, hook, _listening: listening, id, shutdown: request.shutdown_id, token }
    }

    async fn complete(&self, message: &str) -> Result<(), CompletionError> {
        self.hook.end_application();
        self.world.handle.complete(&self.shutdown, &self.token, ended(message)).await
    }
}

#[tokio::test]
async fn a_result_beside_the_stream_counts_and_may_be_repeated() {
    let running = Running::new(hasty()).await;
    running.complete("saved").await.unwrap();
    running.complete("saved").await.unwrap();
    running.world.end(&running.id, StateName::Succeeded).await;
    running.world.handle.idle().await;
    running.complete("saved").await.unwrap();
    let other = running.complete("something else").await;
    assert!(matches!(other, Err(CompletionError::Stale)), "{other:?}");
}

#[tokio::test]
async fn only_the_token_of_this_very_shutdown_opens_it() {
    let running = Running::new(hasty()).await;
    let handle = &running.world.handle;
    for other in ["op-1.2.a", "op-1.1.b", "op-2.1.a"] {
        let token = running.world.secrets.completion_token(&ShutdownId::parse(other).unwrap(), Moment::from_millis(0));
        let outcome = handle.complete(&running.shutdown, &token, ended("")).await;
        assert!(matches!(outcome, Err(CompletionError::TokenInvalid)), "{other}: {outcome:?}");
        let wish = handle.want_more_time(&running.shutdown, &token, Duration::from_secs(99)).await;
        assert!(matches!(wish, Err(CompletionError::TokenInvalid)), "{other}: {wish:?}");
        // With its own token it is no shutdown that was ever begun.
        let outcome = handle.complete(other, &token, ended("")).await;
        assert!(matches!(outcome, Err(CompletionError::NotFound)), "{other}: {outcome:?}");
    }
    let outcome = handle.complete("nonsense", &running.token, ended("")).await;
    assert!(matches!(outcome, Err(CompletionError::NotFound)), "{outcome:?}");
    assert_eq!(running.world.operation(&running.id).await.state(), StateName::Stopping);
}

#[tokio::test]
async fn stream_and_call_at_once_count_once() {
    let running = Running::new(hasty()).await;
    let (first, second) = tokio::join!(running.complete("one"), running.complete("two"));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    running.world.end(&running.id, StateName::Succeeded).await;
    let kind = quiesce_operation::EventKind::InstanceStopped;
    let stopped = running.world.events().await.into_iter().filter(|event| event.kind == kind).count();
    assert_eq!(stopped, 1);
}

#[tokio::test]
async fn the_token_is_blotted_out_of_a_message() {
    let running = Running::new(hasty()).await;
    running.complete(&format!("bye {}", running.token.reveal())).await.unwrap();
    let operation = running.world.until(&running.id, |operation| operation.members()[0].has_ended()).await;
    assert!(!format!("{operation:?}").contains(running.token.reveal()));
}

#[tokio::test]
async fn more_time_is_granted_up_to_the_limit_and_refused_beyond() {
    let running = Running::new(Policy { max_extension: Duration::from_secs(10), ..hasty() }).await;
    let want = async |seconds| {
        let wanted = Duration::from_secs(seconds);
        running.world.handle.want_more_time(&running.shutdown, &running.token, wanted).await
    };
    let granted = want(25).await.unwrap();
    assert_eq!((granted.grace, granted.remaining), (Duration::from_secs(25), Duration::from_secs(5)));
    let cut = want(100).await.unwrap();
    assert_eq!((cut.grace, cut.remaining), (Duration::from_secs(30), Duration::ZERO));
    let exhausted = want(200).await;
    assert!(matches!(exhausted, Err(CompletionError::Exhausted { .. })), "{exhausted:?}");
    assert_eq!(running.world.operation(&running.id).await.deadline(), Some(cut.deadline));
    running.complete("saved").await.unwrap();
    running.world.end(&running.id, StateName::Succeeded).await;
    let stale = want(25).await;
    assert!(matches!(stale, Err(CompletionError::Stale)), "{stale:?}");
}

#[tokio::test]
async fn a_result_after_a_broken_stream_ends_the_attempt() {
    let world = World::new().await;
    let broken = vec![Act::Report(ShutdownPhase::Stopping), Act::Fail(tonic::Code::Unavailable, ""), Act::Hang];
    let (hook, listening) = hook(Script::of([broken])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    let twice = |calls: &[quiesce_testkit::hook::Call]| {
        calls.iter().filter(|call| matches!(call, quiesce_testkit::hook::Call::Shutdown(_))).count() == 2
    };
    hook.told(twice).await;
    let v1::ShutdownRequest { shutdown_id, completion_token, .. } = hook.shutdowns()[0].clone();
    let token = CompletionToken::parse(&completion_token).unwrap();
    hook.end_application();
    world.handle.complete(&shutdown_id, &token, ended("")).await.unwrap();
    world.end(&id, StateName::Succeeded).await;
}
