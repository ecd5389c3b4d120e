//! A slow, dead or hostile hook delays nobody else (I7).

use std::sync::Arc;

use quiesce_operation::{Kind, Placement, Reason, StateName};
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{Evidence, ShutdownPhase, ShutdownStatus};
use quiesce_runtime::clock::ManualClock;
use quiesce_store::fault::FaultyStore;
use quiesce_testkit::hook::{Act, Script};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::world::{SOURCE, World, caller, hasty, hook, memory};
use crate::driver::{Command, CommandError};
use crate::records::Connect;

#[tokio::test]
async fn a_dead_hook_delays_no_other_operation() {
    let world = World::new().await;
    // Takes connections and never says a word on them.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.register_at("a", SOURCE, Connect::Listen { endpoint: dead.local_addr().unwrap().to_string() }).await;
    let stuck = world.delete(quiesce_operation::Policy::built_in()).await;
    world.until_state(&stuck, StateName::Preparing).await;
    world.forget("a").await;
    let (_hook, listening) = hook(Script::default()).await;
    world.register("b", SOURCE, &listening).await;
    let id = world.begin("op-2", Kind::Delete, Placement::External { require_confirmation: false }, hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    assert_eq!(world.operation(&stuck).await.state(), StateName::Preparing);
}

#[tokio::test]
async fn a_flood_of_reports_becomes_a_trickle_and_the_result_gets_through() {
    let world = World::new().await;
    let acts = vec![
        Act::Report(ShutdownPhase::Stopping),
        Act::Flood(2_000),
        Act::Result(Outcome::Stopped, Evidence::GroupEmpty),
    ];
    let (_hook, listening) = hook(Script::of([acts])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Succeeded).await;
    let revision = world.store.durable().borrow().as_u64();
    assert!(revision < 200, "two thousand reports without news are not worth {revision} writes");
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_call_and_nothing_else() {
    let world = World::new().await;
    let huge = ShutdownStatus { sequence: 2, phase: 3, message: "x".repeat(5 << 20), ..Default::default() };
    let (_hook, listening) =
        hook(Script::of([vec![Act::Report(ShutdownPhase::Accepted), Act::Raw(Box::new(huge))]])).await;
    world.register("a", SOURCE, &listening).await;
    let id = world.delete(hasty()).await;
    world.end(&id, StateName::Degraded).await;
}

#[tokio::test]
async fn a_hook_that_does_not_speak_http_2_is_as_good_as_none() {
    let world = World::new().await;
    let garbage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = garbage.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = garbage.accept().await {
            // Whether the garbage was taken does not matter.
            let _taken = socket.write_all(&[b'?'; 4096]).await;
        }
    });
    world.register_at("a", SOURCE, Connect::Listen { endpoint: address.to_string() }).await;
    let id = world.delete(hasty()).await;
    world.degraded(&id, Reason::HookUnreachable).await;
}

#[tokio::test(start_paused = true)]
async fn too_many_commands_for_one_operation_are_refused_at_once() {
    let store = FaultyStore::new(memory());
    let world = World::with_clock(Arc::new(store.clone()), Arc::new(ManualClock::new(1_000_000))).await;
    world.register_at("a", SOURCE, Connect::DialIn).await;
    let id = world.delete(hasty()).await;
    world.until_state(&id, StateName::Preparing).await;
    store.hold();
    let commands = (0..400).map(|_| world.handle.command(&id, Command::Confirm(caller())));
    // The first one changes something, so that the rest has to wait for its commit.
    let first = world.handle.command(&id, Command::Extend { grace: hasty().grace_period * 2 });
    let (first, outcomes) = futures::join!(first, futures::future::join_all(commands));
    assert!(matches!(first, Err(CommandError::Stalled(_))), "{first:?}");
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(CommandError::Busy(_)))).count();
    assert!(busy >= 100, "{busy} of 400 were refused");
    store.release();
    world.until(&id, |operation| operation.policy().grace_period > hasty().grace_period).await;
}
