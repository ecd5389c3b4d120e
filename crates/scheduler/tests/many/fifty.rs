//! Applications with fifty instances: told in their order, never more at a time than allowed, and as many as allowed.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream;
use quiesce_protocol::v1;
use quiesce_testkit::eventually;
use quiesce_testkit::hook::{Act, Chronicle, Entry, Script, ScriptedHook, Turn};
use v1::instance::State as Is;
use v1::operation::State;
use v1::stop_result::Outcome;

use crate::agents::{Agent, Place, Reach, register_to_dial_in};
use crate::stage::{AT_ONCE, LIMIT, Stage, agents, patient};

pub(crate) const INSTANCES: usize = 50;
/// Instances of equal stop order.
pub(crate) const EQUALS: usize = 10;
const ORDERS: usize = INSTANCES / EQUALS;
/// Instances that register at the same moment, as when a large application is deployed.
const AT_ONCE_OF_ONE: usize = 200;
/// Does not divide [`EQUALS`], so that the last ones of an order are fewer.
pub(crate) const PARALLEL: usize = 4;

pub(crate) fn name(application: &str, cluster: &str, number: usize) -> String {
    format!("{application}/{cluster}-{number:02}")
}

/// The stop order of an instance by its name.
pub(crate) fn order(instance: &str) -> usize {
    instance.rsplit_once('-').unwrap().1.parse::<usize>().unwrap() / EQUALS
}

/// Fifty agents on `cluster`; `script` says what each one does.
pub(crate) async fn fifty(
    stage: &Stage,
    application: &str,
    cluster: &'static str,
    chronicle: &Chronicle,
    script: impl Fn(usize) -> Script,
) -> Vec<Agent> {
    stream::iter((0..INSTANCES).map(|number| {
        let name = name(application, cluster, number);
        let hook = ScriptedHook::new(script(number)).writing(chronicle, &name);
        let stop_order = i32::try_from(order(&name)).unwrap();
        let reach = if number % 2 == 0 { Reach::Listens } else { Reach::DialsIn };
        async move { Agent::start(stage, &Place { name, cluster, stop_order }, hook, reach).await }
    }))
    .buffered(AT_ONCE)
    .collect()
    .await
}

/// Checks that nobody was told before everybody of a lower order had ended, and never too many at a time. There are
/// `equals` instances of each order.
#[track_caller]
pub(crate) fn assert_order(entries: &[Entry], equals: usize) {
    let mut ended: [BTreeSet<&str>; ORDERS] = std::array::from_fn(|_| BTreeSet::new());
    let mut running = BTreeSet::new();
    for Entry { instance, turn } in entries {
        let order = order(instance);
        match turn {
            Turn::Told { .. } => {
                running.insert(instance);
                let before: Vec<_> = ended[..order].iter().map(BTreeSet::len).collect();
                assert!(before.iter().all(|ended| *ended == equals), "{instance} was told when {before:?} had ended");
                assert!(running.len() <= PARALLEL, "at a time: {running:?}");
            }
            Turn::Ended => {
                running.remove(instance);
                ended[order].insert(instance);
            }
            Turn::Ordered => {}
        }
    }
}

/// Who has ended.
pub(crate) fn ended(entries: &[Entry]) -> BTreeSet<&str> {
    entries.iter().filter(|entry| entry.turn == Turn::Ended).map(|entry| &*entry.instance).collect()
}

/// How many instances were told and have not ended, how many have ended.
fn standing(entries: &[Entry]) -> (usize, usize) {
    let ended = entries.iter().filter(|entry| entry.turn == Turn::Ended).count();
    let told = entries.iter().filter(|entry| matches!(entry.turn, Turn::Told { .. })).count();
    (told - ended, ended)
}

/// Lets one of those that were told end, and the next, each time when as many are under way as may be.
async fn conduct(chronicle: &Chronicle, agents: &[Agent]) {
    for gone in 0..INSTANCES {
        let expected = PARALLEL.min(EQUALS - gone % EQUALS);
        let entries = eventually(format!("{expected} to stop at a time after {gone}"), LIMIT, async || {
            let entries = chronicle.entries();
            let found = standing(&entries);
            if found == (expected, gone) { Ok(entries) } else { Err(format!("(under way, ended): {found:?}")) }
        })
        .await;
        let has_ended =
            |entry: &&Entry| entries.iter().any(|other| other.instance == entry.instance && other.turn == Turn::Ended);
        // The newest first, so that the order of ends is not that of the orders to stop.
        let next = entries.iter().rev().find(|entry| !has_ended(entry)).unwrap();
        let number: usize = next.instance.rsplit_once('-').unwrap().1.parse().unwrap();
        agents[number].hook.release();
    }
}

fn slow() -> Script {
    Script::of([vec![
        Act::Report(v1::ShutdownPhase::Stopping),
        Act::UntilReleased,
        Act::Result(Outcome::Stopped, v1::Evidence::GroupEmpty),
    ]])
}

fn standby() -> Script {
    let mut script = slow();
    script.info.app_state = v1::hook_info::AppState::Held.into();
    script
}

#[track_caller]
fn assert_all_verified(operation: &v1::Operation, count: usize) {
    assert_eq!(operation.state(), State::Succeeded, "{}", operation.message);
    assert_eq!(operation.counts.unwrap().stopped, i32::try_from(count).unwrap());
    assert_eq!(operation.instances.len(), count);
    for instance in &operation.instances {
        assert!(instance.verified, "{instance:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_instances_stop_in_their_order_move_and_go() {
    let stage = Stage::start().await;
    let policy = v1::ShutdownPolicy { max_parallel_stops: i32::try_from(PARALLEL).ok(), ..patient() };
    stage.create("db", policy, agents()).await;
    let chronicle = Chronicle::default();
    let source = fifty(&stage, "db", "a", &chronicle, |_| slow()).await;
    let target = fifty(&stage, "db", "b", &chronicle, |_| standby()).await;
    stage.instances_are("db", 2 * INSTANCES, &[Is::Ready, Is::Held]).await;

    let operation = stage.migrate("db", "b").await.unwrap();
    conduct(&chronicle, &source).await;
    assert_all_verified(&stage.outcome(&operation).await, INSTANCES);
    let entries = chronicle.entries();
    assert_order(&entries, EQUALS);
    assert_eq!(standing(&entries), (0, INSTANCES), "each was told once");
    let starts = entries.iter().position(|entry| entry.turn == Turn::Ordered).unwrap();
    let (stops, starts) = entries.split_at(starts);
    assert_eq!(standing(stops), (0, INSTANCES), "nothing starts before everything has ended");
    assert_eq!(starts.len(), INSTANCES, "each is started once: {starts:#?}");
    assert!(starts.is_sorted_by_key(|entry| std::cmp::Reverse(order(&entry.instance))), "{starts:#?}");

    // Deleted is the application: those that hold since the migration are told as well, and both sides in one order.
    target.iter().for_each(|agent| agent.hook.release());
    let operation = stage.delete("db").await.unwrap();
    assert_all_verified(&stage.outcome(&operation).await, 2 * INSTANCES);
    let deletion = chronicle.entries().split_off(entries.len());
    assert_order(&deletion, 2 * EQUALS);
    assert_eq!(
        (standing(&deletion), ended(&deletion).len()),
        ((0, 2 * INSTANCES), 2 * INSTANCES),
        "each was told once"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_application_registers_and_starts_all_at_once() {
    let stage = Stage::start().await;
    stage.create("db", v1::ShutdownPolicy::default(), agents()).await;
    let place = |number| Place { name: format!("db/a-{number}"), cluster: "a", stop_order: 0 };
    let registrations = (0..AT_ONCE_OF_ONE).map(|number| {
        let (mut gateway, place) = (stage.gateway.clone(), place(number));
        async move { register_to_dial_in(&mut gateway, &place).await.unwrap() }
    });
    futures::future::join_all(registrations).await;
    let starts = (0..AT_ONCE_OF_ONE).map(|number| {
        let (mut gateway, place) = (stage.gateway.clone(), place(number));
        let request = v1::AdmitStartRequest {
            instance: place.resource_name(),
            start_id: "first".to_owned(),
            agent_id: place.agent_id(),
            ..Default::default()
        };
        async move { gateway.admit_start(request).await.unwrap().into_inner().epoch }
    });
    let mut epochs = futures::future::join_all(starts).await;
    epochs.sort_unstable();
    let rising: Vec<_> = (1..).take(AT_ONCE_OF_ONE).collect();
    assert_eq!(epochs, rising);
}
