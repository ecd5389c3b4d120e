//! An agent is killed on either side of every single thing it writes, and every disk error is tried everywhere.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Exit, Identity};
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_runtime::machine::{Listener, Network, Socket};
use quiesce_simulation::machine::temper::{Executable, Kinship, Offspring, OnTerm, Speech, Temper};
use quiesce_simulation::machine::{Fate, Home, What};
use tokio::time::sleep;
use tonic::Code;

use crate::story::{GRACE, Story, kill, told};

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
        ("nameless", Temper { is_nameless: true, ..plain.clone() }),
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

/// What is asked of an agent that comes back whenever it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plot {
    /// It starts its application by itself, and is told to stop it.
    Leave,
    /// It stands by: started, stopped, started again under the next epoch, stopped again.
    Return,
}

/// What becomes of some of the writes of a story; the others succeed.
type Plan = BTreeMap<usize, Fate>;

/// A story, and how many writes there were in it.
async fn story_of(plot: Plot, home: Home, temper: Temper, plan: Plan) -> (Story, usize) {
    let story = if plot == Plot::Return { Story::of_a_standby(1) } else { Story::at(home, 1) };
    story.machine.set_temper(temper);
    let writes = Arc::new(AtomicUsize::new(0));
    let (counted, fates) = (Arc::clone(&writes), plan.clone());
    story.machine.set_fate(move |_| {
        let this = counted.fetch_add(1, Ordering::Relaxed);
        assert!(this < WRITES_MAX, "it writes and writes");
        fates.get(&this).copied().unwrap_or(Fate::Durable)
    });
    let supervisor = async {
        loop {
            // Whatever ends an agent, something starts it again, after a moment.
            story.agent().ended().await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let user = async {
        match plot {
            Plot::Leave => {
                story.until_state(AppState::Running).await;
                stop(&story, "s", story.epochs()[0], &plan).await;
            }
            Plot::Return => {
                for round in ["there", "back"] {
                    let epoch = story.start_anew().await;
                    assert_eq!(story.epochs(), [epoch], "ready is running: {plan:?}:\n{}", story.log());
                    stop(&story, round, epoch, &plan).await;
                }
            }
        }
        let starts = story.starts();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(story.starts(), starts, "held is held: {plan:?}:\n{}", story.log());
    };
    tokio::select! {
        biased;
        () = user => {}
        () = supervisor => unreachable!("it loops"),
    }
    story.check();
    let writes = writes.load(Ordering::Relaxed);
    (story, writes)
}

async fn stop(story: &Story, round: &str, epoch: u64, plan: &Plan) {
    let ended = story.shutdown_in_attempts(round, i64::try_from(epoch).unwrap()).await.result.unwrap();
    let context = || format!("{plan:?}: {ended:?}:\n{}", story.log());
    assert!(matches!(ended.outcome(), Outcome::Stopped | Outcome::NotRunning) && ended.held, "{}", context());
    assert_eq!(story.epochs(), [0; 0], "stopped is stopped: {}", context());
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

/// Every write of every story meets this fate once.
fn everywhere(plot: Plot, home: Home, fate: Fate) {
    for (name, temper) in decent() {
        for nth in 0.. {
            let plan = Plan::from([(nth, fate)]);
            let (story, writes) = told(story_of(plot, home, temper.clone(), plan));
            told_once_an_attempt(&story, &format!("{name}, {plot:?}, write {nth}, {fate:?}"));
            if writes <= nth {
                assert!(nth > 8, "{name}: a story has more writes than {nth}");
                break;
            }
        }
    }
}

#[test]
fn killed_before_any_write_it_neither_starts_nor_tells_twice() {
    everywhere(Plot::Leave, Home::Host, Fate::CrashBefore);
    everywhere(Plot::Return, Home::Host, Fate::CrashBefore);
}

#[test]
fn killed_after_any_write_it_neither_starts_nor_tells_twice() {
    everywhere(Plot::Leave, Home::Host, Fate::CrashAfter);
    everywhere(Plot::Return, Home::Host, Fate::CrashAfter);
}

#[test]
fn killed_at_any_two_writes_likewise() {
    let fates = [Fate::CrashBefore, Fate::CrashAfter];
    for (first, second) in fates.into_iter().flat_map(|first| fates.map(|second| (first, second))) {
        let mut writes = WRITES_MAX;
        for nth in 0..WRITES_MAX {
            for later in nth + 1..WRITES_MAX {
                let plan = Plan::from([(nth, first), (later, second)]);
                let (story, made) = told(story_of(Plot::Return, Home::Host, Temper::default(), plan));
                told_once_an_attempt(&story, &format!("writes {nth} and {later}, {first:?} and {second:?}"));
                writes = made;
                if made <= later {
                    break;
                }
            }
            if writes <= nth + 1 {
                break;
            }
        }
        assert!((10..WRITES_MAX).contains(&writes), "{writes} writes");
    }
}

#[test]
fn in_a_container_likewise() {
    everywhere(Plot::Leave, Home::Container, Fate::CrashBefore);
    everywhere(Plot::Leave, Home::Container, Fate::CrashAfter);
}

#[test]
fn a_disk_that_is_full_for_any_one_write_breaks_no_promise() {
    everywhere(Plot::Leave, Home::Host, Fate::Refused(io::ErrorKind::StorageFull));
    everywhere(Plot::Return, Home::Host, Fate::Refused(io::ErrorKind::StorageFull));
}

#[test]
fn a_slow_disk_changes_nothing() {
    for takes in [1, 3, 20] {
        everywhere(Plot::Leave, Home::Host, Fate::Slow(Duration::from_secs(takes)));
    }
}

#[test]
fn a_full_disk_is_not_asked_without_pause() {
    told(async {
        let mut story = Story::new(1);
        story.ladder = "SIGINT:0s,SIGTERM";
        story.machine.set_temper(Temper { on_term: OnTerm::Hangs, ..Temper::default() });
        let agent = story.agent();
        story.until_state(AppState::Running).await;
        let mut refused = 0;
        story.machine.set_fate(move |write| {
            let is_next_step = write.content.is_some_and(|text| String::from_utf8_lossy(text).contains("\"rung\": 1"));
            refused += usize::from(is_next_step);
            assert!(refused < WRITES_MAX, "it writes and writes");
            if is_next_step { Fate::Refused(io::ErrorKind::StorageFull) } else { Fate::Durable }
        });
        let (ended, ()) = tokio::join!(story.shutdown("s1", 1), async {
            sleep(GRACE).await;
            let mut hook = story.straw.hook().await;
            hook.kill_application(kill("s1")).await.unwrap();
        });
        assert_eq!(ended.result.unwrap().outcome(), Outcome::Killed);
        assert_eq!(story.terms(), 0, "what is not written down is not done");
        drop(agent);
    });
}

/// A network on which the scheduler is there.
struct Plugged;

impl Network for Plugged {
    fn listen<'a>(&'a self, _: &'a str, _: Option<Duration>) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect<'a>(&'a self, _: &'a str, _: Option<Duration>) -> BoxFuture<'a, io::Result<Box<dyn Socket>>> {
        Box::pin(async { Ok(Box::new(tokio::io::empty()) as Box<dyn Socket>) })
    }
}

/// The refused one is still in memory when the next thing is written down: here, that the permission is given back.
#[test]
fn the_record_of_a_refused_shutdown_is_not_written_later() {
    told(async {
        let mut story = Story::new(1);
        story.machine = story.machine.clone().on(Arc::new(Plugged));
        let crash = (Duration::from_secs(9), Exit { code: Some(7), signal: None });
        story.machine.set_temper(Temper { crashes: Some(crash), ..Temper::default() });
        let agent = story.agent();
        story.until_state(AppState::Running).await;
        story.machine.set_fate(|write| {
            let is_acceptance = write.content.is_some_and(|text| String::from_utf8_lossy(text).contains("refused-one"));
            if is_acceptance { Fate::Refused(io::ErrorKind::StorageFull) } else { Fate::Durable }
        });
        let refused = story.shutdown_once("refused-one", 5, 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        story.machine.set_fate(|_| Fate::Durable);
        let record = || String::from_utf8(story.machine.file("/state/hook.json").unwrap_or_default()).unwrap();
        assert_eq!(agent.ended().await, Some(7));
        assert!(record().contains("\"released\": 1"), "{}", record());
        assert!(!record().contains("refused-one"), "{}", record());
        story.machine.set_temper(Temper::default());
        let agent = story.agent();
        story.until_state(AppState::Running).await;
        assert_eq!((story.epochs(), story.terms()), (vec![2], 0), "an epoch below that of the refused one is as good");
        drop(agent);
        story.check();
    });
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
