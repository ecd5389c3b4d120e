//! What an agent sees of processes that misbehave, of clocks and of reboots.

use std::time::Duration;

use quiesce_agent::process::signal::Signal;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, Evidence};
use quiesce_runtime::signals;
use quiesce_simulation::machine::What;
use quiesce_simulation::machine::temper::{Kinship, Offspring, OnTerm, Speech, Temper};
use tokio::time::Instant;

use crate::story::{INSTANCE, Story, kill, told};

async fn running(temper: Temper) -> (Story, quiesce_simulation::machine::agent::Agent) {
    let story = Story::new(5);
    story.machine.set_temper(temper);
    let agent = story.agent();
    story.until_state(AppState::Running).await;
    (story, agent)
}

fn daemon(kinship: Kinship) -> Temper {
    let offspring = Offspring {
        born: Duration::from_millis(10),
        kinship,
        outlives: Some(Duration::from_secs(8)),
        on_term: OnTerm::Ignores,
    };
    Temper { offspring: vec![offspring], ..Temper::default() }
}

#[test]
fn stopped_means_that_the_last_daemon_is_gone() {
    for kinship in [Kinship::Child, Kinship::Daemon, Kinship::Unmarked] {
        told(async {
            let (story, agent) = running(daemon(kinship)).await;
            let begun = Instant::now();
            let result = story.shutdown("s1", 1).await.result.unwrap();
            assert!(begun.elapsed() >= Duration::from_secs(8), "{kinship:?}: {:?}", begun.elapsed());
            assert_eq!((result.outcome(), result.evidence()), (Outcome::Stopped, Evidence::GroupEmpty));
            assert_eq!(story.epochs(), [0; 0]);
            drop(agent);
            story.check();
        });
    }
}

#[test]
fn who_ignores_sigterm_is_found_beforehand_and_killed_only_on_order() {
    told(async {
        let stubborn = Temper { on_term: OnTerm::Ignores, stuck: Duration::from_secs(30), ..Temper::default() };
        let (story, agent) = running(stubborn).await;
        let mut hook = story.straw.hook().await;
        let check = v1::CheckShutdownRequest { instance: INSTANCE.to_owned(), ..Default::default() };
        let found = hook.check_shutdown(check).await.unwrap().into_inner();
        assert!(!found.ok && found.findings[0].contains("ignores SIGTERM"), "{found:?}");

        let (ended, ()) = tokio::join!(story.shutdown("s1", 1), async {
            story.until("told", |story| story.terms() == 1).await;
            tokio::time::sleep(Duration::from_secs(300)).await;
            assert_eq!(story.epochs(), [1], "nobody kills it by himself");
            hook.kill_application(kill("s1")).await.unwrap();
            assert_eq!(story.epochs(), [1], "it cannot be killed for a while");
        });
        let result = ended.result.unwrap();
        assert_eq!((result.outcome(), result.exit_signal), (Outcome::Killed, Some(9)));
        drop(agent);
        story.check();
    });
}

#[test]
fn what_an_application_says_of_itself_is_heard() {
    told(async {
        let speech = Speech::ReadyAfter(Duration::from_secs(20));
        let begun = Instant::now();
        let (story, agent) = running(Temper { speech, ..Temper::default() }).await;
        assert!(begun.elapsed() >= Duration::from_secs(20), "ready when it says so: {:?}", begun.elapsed());
        drop(agent);
        story.check();
    });
}

#[test]
fn a_reboot_is_the_end_of_everything_that_ran_and_of_no_permission() {
    told(async {
        let (story, agent) = running(Temper::default()).await;
        story.machine.reboot();
        assert_eq!(story.epochs(), [0; 0]);
        assert_eq!(agent.ended().await, None, "the agent too");
        story.machine.step_wall_clock(-3_600_000);
        let agent = story.agent();
        story.until_state(AppState::Running).await;
        assert_eq!((story.starts(), story.epochs()), (2, vec![1]), "a crash needs no scheduler");
        drop(agent);
        story.check();
    });
}

#[test]
fn an_agent_that_is_asked_to_end_stops_its_application_once() {
    told(async {
        let (story, agent) = running(Temper::default()).await;
        story.machine.ask_to_end(signals::Signal::Terminate);
        story.machine.ask_to_end(signals::Signal::Interrupt);
        assert_eq!(agent.ended().await, Some(0));
        assert_eq!(story.terms(), 1);
        story.check();
    });
}

#[test]
fn a_pid_that_came_back_is_not_taken_for_the_application() {
    told(async {
        let story = Story::of_a_standby(5);
        for epoch in 1..60 {
            let agent = story.agent();
            story.until_state(AppState::Held).await;
            assert!(story.start(epoch).await);
            agent.crash();
            story.machine.signal_run("db-0", u64::try_from(epoch).unwrap(), Signal::KILL);
            let agent = story.agent();
            story.until_state(AppState::Running).await;
            let stopped = story.shutdown(&format!("s{epoch}"), epoch).await.result.unwrap();
            assert_eq!((stopped.outcome(), stopped.evidence()), (Outcome::Stopped, Evidence::GroupEmpty));
            assert_eq!(story.starts(), 2 * usize::try_from(epoch).unwrap(), "epoch {epoch}: started again each time");
            drop(agent);
        }
        let pids: std::collections::BTreeSet<i32> =
            story.happened().iter().filter(|one| one.what == What::Started).map(|one| one.process.pid).collect();
        assert!(pids.len() < 118, "some pid came back, or this shows nothing: {pids:?}");
        story.check();
    });
}
