//! One of fifty misbehaves: the operation rests and says which one and why, nobody's turn comes early, nothing is lost, and
//! once the one behaves a retry goes on where it was.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quiesce_protocol::v1;
use quiesce_testkit::hook::{Act, Chronicle, Entry, Script, ScriptedHook, Turn, stops};
use quiesce_testkit::hostile::{self, Peer};
use tonic::Code;
use v1::ShutdownPhase as Phase;
use v1::failure::Reason;
use v1::operation::State;
use v1::stop_result::Outcome;

use crate::agents::{Agent, Place, Reach, register_at};
use crate::fifty::{EQUALS, INSTANCES, PARALLEL, assert_order, ended, fifty, name, order};
use crate::stage::{Stage, external, seconds};

/// In the middle of the third order; one that listens.
const BAD: usize = 26;
/// Larger than any message that is taken.
const HUGE: usize = 5 << 20;

/// How one of fifty misbehaves, and what is to be said of it.
struct Way {
    name: &'static str,
    does: Does,
    reason: Reason,
    /// Whether it is found out before anybody is told to stop.
    beforehand: bool,
}

enum Does {
    /// Plays these acts when told to stop the first time.
    Act(Vec<Act>),
    /// Has this script until it is reformed.
    Say(fn(&mut Script)),
    /// Is no hook at all until it is reformed.
    Be(Peer),
}

fn ways(deaf: Peer, babbling: Peer) -> Vec<Way> {
    let way = |name, does, reason, beforehand| Way { name, does, reason, beforehand };
    let told = |name, acts, reason| way(name, Does::Act(acts), reason, false);
    let stopping = || Act::Report(Phase::Stopping);
    let back = || v1::ShutdownStatus { sequence: 1, phase: Phase::Stopping.into(), ..Default::default() };
    vec![
        way("dead", Does::Be(hostile::dead()), Reason::HookUnreachable, true),
        way("deaf", Does::Be(deaf), Reason::AcceptTimeout, true),
        way("babbling", Does::Be(babbling), Reason::HookUnreachable, true),
        way("mute", Does::Say(|script| script.mute = true), Reason::AcceptTimeout, true),
        way("unwilling", Does::Say(|script| script.findings.push("disk full".into())), Reason::CheckFailed, true),
        told("refusing", vec![Act::Fail(Code::PermissionDenied, "")], Reason::HookRejected),
        told("silent", vec![Act::Hang; 8], Reason::AcceptTimeout),
        told("fainting", [vec![stopping()], vec![Act::Hang; 8]].concat(), Reason::HeartbeatTimeout),
        told("overstaying", vec![stopping(), Act::UntilReleased], Reason::GraceTimeout),
        told(
            "running",
            vec![stopping(), Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)],
            Reason::StillRunning,
        ),
        told("claiming", vec![Act::Result(Outcome::Stopped, v1::Evidence::Claimed)], Reason::Unverified),
        told("unclean", vec![Act::Unclean], Reason::UncleanExit),
        told("back-in-phase", vec![stopping(), Act::Report(Phase::Accepted)], Reason::ProtocolError),
        told("back-in-time", vec![stopping(), stopping(), Act::Raw(Box::new(back()))], Reason::ProtocolError),
        told("huge", vec![stopping(), Act::Huge(HUGE)], Reason::HookRejected),
        told("counterfeit", vec![Act::ResultWithToken("qct1.1.x".into())], Reason::ProtocolError),
        told("breaking-off", vec![stopping(), Act::End], Reason::ProtocolError),
    ]
}

/// Timers that run out short enough to be waited for, and long enough for the forty-nine on a busy machine.
fn policy(reason: Reason) -> v1::ShutdownPolicy {
    v1::ShutdownPolicy {
        max_parallel_stops: i32::try_from(PARALLEL).ok(),
        grace_period: seconds(if reason == Reason::GraceTimeout { 30 } else { 300 }),
        accept_timeout: seconds(15),
        heartbeat_timeout: seconds(15),
        retry: Some(v1::RetryPolicy { max_attempts: Some(1), ..Default::default() }),
        hold_on_unclean_exit: Some(true),
        ..Default::default()
    }
}

/// The shutdown ids each instance was told.
fn told(entries: &[Entry]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut told = BTreeMap::<_, BTreeSet<_>>::new();
    for entry in entries {
        if let Turn::Told { shutdown_id } = &entry.turn {
            told.entry(&*entry.instance).or_default().insert(shutdown_id.as_str());
        }
    }
    told
}

async fn one_of_fifty(stage: &Stage, way: Way) {
    let application = way.name;
    let chronicle = Chronicle::default();
    stage.create(application, policy(way.reason), external()).await;
    let script = |number| match &way.does {
        Does::Act(acts) if number == BAD => Script::of([acts.clone(), stops()]),
        Does::Act(_) | Does::Say(_) | Does::Be(_) => Script::default(),
    };
    let agents = fifty(stage, application, "a", &chronicle, script).await;
    let bad = name(application, "a", BAD);
    let place = Place { name: bad.clone(), cluster: "a", stop_order: i32::try_from(order(&bad)).unwrap() };
    match &way.does {
        Does::Act(_) => {}
        Does::Say(change) => agents[BAD].hook.change(change),
        Does::Be(peer) => register_at(stage, &place, &peer.address.to_string()).await.unwrap(),
    }

    let operation = stage.delete(application).await.unwrap();
    let found = stage.outcome(&operation).await;
    assert_eq!(found.state(), State::Degraded, "{application}: {}", found.message);
    let failure = found.failure.as_ref().unwrap();
    assert_eq!((failure.reason(), failure.instance.as_str()), (way.reason, &*place.resource_name()), "{failure:?}");
    let entries = chronicle.entries();
    assert_order(&entries, EQUALS);
    let last = told(&entries).keys().map(|instance| order(instance)).max();
    assert_eq!(last, (!way.beforehand).then_some(order(&bad)), "{application}: whose turn it was");
    stage.instances_are(application, INSTANCES, &ALL).await;

    let mut reformed = None;
    match &way.does {
        Does::Act(_) => {}
        Does::Say(_) => agents[BAD].hook.change(|script| *script = Script::default()),
        Does::Be(_) => {
            let hook = ScriptedHook::new(Script::default()).writing(&chronicle, &bad);
            reformed = Some(Agent::start(stage, &place, hook, Reach::Listens).await);
        }
    }
    stage.retry(&operation).await;
    let done = stage.outcome(&operation).await;
    assert_eq!(done.state(), State::Succeeded, "{application}: {}", done.message);
    assert!(done.instances.iter().all(|instance| instance.verified), "{application}");
    let entries = chronicle.entries();
    assert_order(&entries, EQUALS);
    for (instance, ids) in told(&entries) {
        let most = if instance == bad { 2 } else { 1 };
        assert!(ids.len() <= most, "{instance} was told {ids:?}");
    }
    assert_eq!(ended(&entries).len(), INSTANCES, "{application}");
    drop(reformed);
}

/// Whatever an instance is, as long as it is known.
const ALL: [v1::instance::State; 8] = {
    use v1::instance::State as Is;
    [Is::Ready, Is::NotReady, Is::Unreachable, Is::Stopping, Is::Stopped, Is::Held, Is::Unspecified, Is::Starting]
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_misbehaves() {
    let stage = Stage::start().await;
    let ways = ways(hostile::deaf().await, hostile::babbling().await);
    let mut tried: FuturesUnordered<_> = ways.into_iter().map(|way| one_of_fifty(&stage, way)).collect();
    while tried.next().await.is_some() {}
}
