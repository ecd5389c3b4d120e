//! Lives of an agent, as they go.

use std::time::{Duration, Instant};

use quiesce_protocol::v1::Evidence;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_simulation::machine::temper::{OnTerm, Temper};

use crate::story::{Story, told};

/// What this suite is for: an agent that crashes whenever it matters.
async fn whole_life(seed: u64) -> Story {
    let story = Story::new(seed);
    story
        .machine
        .set_temper(Temper { on_term: OnTerm::Ends { after: Duration::from_secs(5), code: 0 }, ..Temper::default() });
    let agent = story.agent();
    story.until_state(AppState::Running).await;
    assert_eq!((story.starts(), story.epochs()), (1, vec![1]));

    agent.crash();
    assert_eq!(story.epochs(), [1], "what it started lives on");
    let agent = story.agent();
    story.until_state(AppState::Running).await;
    assert_eq!(story.starts(), 1, "it was found again");

    let stopping = story.shutdown_once("s1", 1, 1);
    let crashing = async {
        story.until("told to stop", |story| story.terms() == 1).await;
        agent.crash();
    };
    let (cut, ()) = tokio::join!(stopping, crashing);
    assert!(cut.is_err(), "{cut:?}");
    let agent = story.agent();
    let stopped = story.shutdown("s1", 1).await;
    let result = stopped.result.unwrap();
    assert_eq!((result.outcome(), result.evidence()), (Outcome::Stopped, Evidence::ExitObserved));
    assert_eq!((story.terms(), result.held), (1, true));

    agent.crash();
    let agent = story.agent();
    story.until_state(AppState::Held).await;
    assert_eq!(story.starts(), 1, "the hold survives");

    assert_eq!(story.straw.next_epoch(), 2);
    assert!(story.start(2).await);
    assert_eq!((story.starts(), story.epochs()), (2, vec![2]));
    drop(agent);
    story.check();
    story
}

#[test]
fn an_agent_that_crashes_finds_joins_holds_and_starts_again() {
    told(async { drop(whole_life(1).await) });
}

#[test]
fn the_same_seed_is_the_same_story() {
    let log = |seed| told(async { whole_life(seed).await.log() });
    assert_eq!(log(7), log(7));
    assert_ne!(log(7), log(8), "pids are drawn from the seed");
}

#[test]
fn every_seed_is_a_whole_life() {
    // Without optimization the same takes twenty times as long.
    let lives = if cfg!(debug_assertions) { 50 } else { 1_000 };
    let begun = Instant::now();
    for seed in 0..lives {
        told(async { drop(whole_life(seed).await) });
    }
    println!("{lives} lives in {:?}", begun.elapsed());
}

#[test]
fn a_standby_waits_for_its_epoch() {
    told(async {
        let story = Story::of_a_standby(3);
        let agent = story.agent();
        story.until_state(AppState::Held).await;
        agent.crash();
        let agent = story.agent();
        story.until_state(AppState::Held).await;
        assert_eq!(story.starts(), 0);
        assert!(story.start(4).await);
        assert_eq!(story.epochs(), [4]);
        drop(agent);
        story.check();
    });
}
