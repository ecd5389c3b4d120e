//! An agent is killed on either side of every single thing it writes, and every disk error is tried everywhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Exit, Identity};
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_simulation::machine::temper::{Executable, Kinship, Offspring, OnTerm, Speech, Temper};
use quiesce_simulation::machine::{Fate, Home, What};
use tokio::time::sleep;

use crate::story::{GRACE, Story, told};

/// Far more writes than a story has; should it ever write for ever, the test says so.
const WRITES_MAX: usize = 200;

/// The tempers that end when they are told to.
fn decent() -> Vec<(&'static str, Temper)> {
    let ends = |ms| OnTerm::Ends { after: Duration::from_millis(ms), code: 0 };
    let child = |kinship, outlives: Option<u64>| Offspring {
        born: Duration::from_millis(5),
        kinship,
        outlives: outlives.map(Duration::from_millis),
        on_term: ends(30),
    };
    let plain = Temper { on_term: ends(300), ..Temper::default() };
    vec![
        ("plain", plain.clone()),
        ("no handler", Temper { on_term: OnTerm::Dies, ..plain.clone() }),
        ("unclean", Temper { on_term: OnTerm::Ends { after: Duration::ZERO, code: 3 }, ..plain.clone() }),
        (
            "talkative",
            Temper {
                speech: Speech::ReadyAfter(Duration::from_millis(40)),
                asks_for: Some(Duration::from_secs(30)),
                ..plain.clone()
            },
        ),
        ("child", Temper { offspring: vec![child(Kinship::Child, Some(2_500))], ..plain.clone() }),
        ("daemon", Temper { offspring: vec![child(Kinship::Daemon, None)], ..plain.clone() }),
        (
            "family",
            Temper {
                offspring: vec![
                    child(Kinship::Child, Some(0)),
                    child(Kinship::Daemon, Some(700)),
                    child(Kinship::Child, None),
                ],
                ..plain
            },
        ),
    ]
}

/// Start, shutdown, hold, start elsewhere and back: with an agent that comes back whenever it is killed.
async fn story_with(home: Home, temper: Temper, nth: usize, fate: Fate) -> (Story, bool) {
    let story = Story::at(home, nth as u64);
    story.machine.set_temper(temper);
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    story.machine.set_fate(move |_| {
        let this = counted.fetch_add(1, Ordering::Relaxed);
        assert!(this < WRITES_MAX, "it writes and writes");
        if this == nth { fate } else { Fate::Durable }
    });
    let supervisor = async {
        loop {
            // Whatever ends an agent, something starts it again, after a moment.
            story.agent().ended().await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let user = async {
        story.until_state(AppState::Running).await;
        let epoch = i64::try_from(story.epochs()[0]).unwrap();
        let stopped = story.shutdown_in_attempts(epoch).await;
        (epoch, stopped)
    };
    let (epoch, stopped) = tokio::select! {
        biased;
        done = user => done,
        () = supervisor => unreachable!("it loops"),
    };
    let outcome = stopped.result.unwrap().outcome();
    assert_ne!(outcome, Outcome::Unknown);
    let context = || format!("write {nth} {fate:?}:\n{}", story.log());
    if matches!(outcome, Outcome::Stopped | Outcome::NotRunning) {
        assert_eq!(story.epochs(), [0; 0], "stopped is stopped: {}", context());
    }
    // In a container the agent takes its application with it, and what starts then is the next run under the epoch.
    assert!(story.starts() == 1 || home == Home::Container, "one start: {}", context());
    story.check();
    assert!(epoch >= 1);
    let hit = writes.load(Ordering::Relaxed) > nth;
    (story, hit)
}

/// One attempt tells nobody twice. Written down and then killed, an agent may have told nobody: that is what the next
/// attempt is for.
fn told_once_an_attempt(story: &Story, what: &str) {
    let mut told: BTreeMap<Identity, Duration> = BTreeMap::new();
    for happening in story.happened().iter().filter(|one| one.what == What::Signalled(Signal::TERM)) {
        let before = told.insert(happening.process, happening.at);
        let is_next = |before: Duration| happening.at - before >= GRACE;
        assert!(before.is_none_or(is_next), "{what}: told twice in one attempt:\n{}", story.log());
    }
}

fn everywhere(home: Home, fate: Fate) {
    for (name, temper) in decent() {
        for nth in 0.. {
            let (story, hit) = told(story_with(home, temper.clone(), nth, fate));
            told_once_an_attempt(&story, &format!("{name}, write {nth}, {fate:?}"));
            if !hit {
                assert!(nth > 5, "{name}: a story has more writes than {nth}");
                break;
            }
        }
    }
}

#[test]
fn killed_before_any_write_it_neither_starts_nor_tells_twice() {
    everywhere(Home::Host, Fate::CrashBefore);
}

#[test]
fn killed_after_any_write_it_neither_starts_nor_tells_twice() {
    everywhere(Home::Host, Fate::CrashAfter);
}

#[test]
fn in_a_container_likewise() {
    everywhere(Home::Container, Fate::CrashBefore);
    everywhere(Home::Container, Fate::CrashAfter);
}

#[test]
fn a_disk_that_is_full_for_any_one_write_breaks_no_promise() {
    everywhere(Home::Host, Fate::Refused(io::ErrorKind::StorageFull));
}

#[test]
fn a_slow_disk_changes_nothing() {
    for takes in [1, 3, 20] {
        everywhere(Home::Host, Fate::Slow(Duration::from_secs(takes)));
    }
}

#[test]
fn what_cannot_be_executed_ends_the_agent_as_shells_say_it() {
    for executable in [Executable::Missing, Executable::Broken] {
        told(async {
            let story = Story::new(1);
            story.machine.set_temper(Temper { executable, ..Temper::default() });
            assert_eq!(story.agent().ended().await, Some(127));
            assert_eq!(story.starts(), 0);
        });
    }
}

#[test]
fn an_application_that_ends_by_itself_takes_its_agent_with_it() {
    told(async {
        let story = Story::new(1);
        let crash = (Duration::from_secs(9), Exit { code: Some(7), signal: None });
        story.machine.set_temper(Temper { crashes: Some(crash), ..Temper::default() });
        assert_eq!(story.agent().ended().await, Some(7));
        assert_eq!(story.starts(), 1);
    });
}
