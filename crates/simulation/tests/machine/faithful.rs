//! The simulated kernel answers as Linux does: the same questions to both, about real and simulated processes.

use std::ffi::OsString;
use std::time::Duration;

use quiesce_agent::host::{Child, Host, Launch, Pinned};
use quiesce_agent::process::signal::Signal;
use quiesce_agent::process::{Exit, Identity, State};
use quiesce_simulation::machine::temper::{Executable, Kinship, Offspring, OnTerm, Temper};
use quiesce_simulation::machine::{Home, Machine};
use tokio::time::timeout;

use crate::story::told;

/// Far more than a real process takes to end when it is killed.
const LIMIT: Duration = Duration::from_secs(30);

/// The answers that have to be the same.
type Facts = Vec<(&'static str, String)>;

async fn end_of(process: &dyn Pinned) {
    timeout(LIMIT, process.ended().unwrap()).await.expect("it ends");
}

fn launch(script: &str) -> Launch {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect();
    Launch {
        program: "/bin/sh".into(),
        arguments: words(&["-c", script]),
        withheld: Vec::new(),
        variables: vec![("QUIESCE_EPOCH".into(), "7".into())],
    }
}

async fn started(host: &Host, script: &str) -> Box<dyn Child> {
    host.processes.spawn(&launch(script)).unwrap().go().await.unwrap()
}

/// A child that is never given leave to execute anything.
async fn never_let_go(host: &Host) -> Facts {
    let processes = &host.processes;
    let waiting = processes.spawn(&launch("exec sleep 600")).unwrap();
    let identity = waiting.identity();
    let entry = processes.entry(identity.pid).unwrap().unwrap();
    let pinned = processes.open(identity).unwrap().unwrap();
    let mut facts = vec![
        ("it is our child", (entry.parent == processes.own_pid()).to_string()),
        ("it leads a group", (entry.group == identity.pid).to_string()),
        ("it is the one", (entry.identity() == identity).to_string()),
        ("it is registered", processes.is_own_child(identity.pid).to_string()),
    ];
    drop(waiting);
    end_of(&*pinned).await;
    let state = processes.entry(identity.pid).unwrap().map(|entry| entry.state);
    facts.extend([
        ("it is not registered any more", processes.is_own_child(identity.pid).to_string()),
        ("it has ended", format!("{state:?}")),
        ("it is reaped as an orphan", processes.reap_orphans().unwrap().to_string()),
    ]);
    facts
}

/// A child that cannot become what it was started for.
async fn not_executable(host: &Host) -> Facts {
    let launch = Launch { program: "/nowhere/at/all".into(), ..launch("") };
    let waiting = host.processes.spawn(&launch).unwrap();
    let pinned = host.processes.open(waiting.identity()).unwrap().unwrap();
    let error = waiting.go().await.err().map(|error| error.kind());
    end_of(&*pinned).await;
    vec![
        ("why", format!("{error:?}")),
        ("it is reaped as an orphan", host.processes.reap_orphans().unwrap().to_string()),
    ]
}

/// A child from its start until nothing of it is left.
async fn child(host: &Host) -> Facts {
    let processes = &host.processes;
    let child = started(host, "exec sleep 600").await;
    let identity = child.identity();
    let stranger = Identity { start: identity.start - 1, ..identity };
    let entry = processes.entry(identity.pid).unwrap().unwrap();
    let is_marked = || {
        let environment = processes.environment(identity.pid).unwrap();
        environment.split(|byte| *byte == 0).any(|variable| variable == b"QUIESCE_EPOCH=7")
    };
    // While the shell becomes the sleeper there is a moment without any environment.
    let marked = timeout(LIMIT, async {
        while !is_marked() {
            tokio::task::yield_now().await;
        }
    });
    let marked = marked.await.is_ok();
    let there = |identity| processes.open(identity).unwrap().is_some();
    let state = || processes.entry(identity.pid).unwrap().map(|entry| entry.state);
    let mut facts = vec![
        ("it is our child", (entry.parent == processes.own_pid()).to_string()),
        ("it leads a group", (entry.group == identity.pid).to_string()),
        ("it is listed", processes.all().unwrap().contains(&entry).to_string()),
        ("it has its variables", marked.to_string()),
        ("it is registered", processes.is_own_child(identity.pid).to_string()),
        ("it can be opened", there(identity).to_string()),
        ("as somebody else it cannot", there(stranger).to_string()),
        ("it has not ended", format!("{:?} {:?}", child.peek().unwrap(), child.reap().unwrap())),
        ("it may be signalled", processes.may_signal(identity.pid).to_string()),
        ("SIGTERM reaches it", child.signal(Signal::TERM).unwrap().to_string()),
    ];
    end_of(&*child).await;
    facts.extend([
        ("how it ended can be seen", format!("{:?}", child.peek().unwrap())),
        ("and seen again", format!("{:?}", child.peek().unwrap())),
        ("it is a zombie", format!("{:?}", state())),
        ("a zombie can be opened", there(identity).to_string()),
        ("a zombie takes signals", child.signal(Signal::KILL).unwrap().to_string()),
        ("it is no orphan", processes.reap_orphans().unwrap().to_string()),
        ("it is reaped", format!("{:?}", child.reap().unwrap())),
        ("nothing is left", format!("{:?}", state())),
        ("nothing can be opened", there(identity).to_string()),
        ("nothing takes a signal", child.signal(Signal::TERM).unwrap().to_string()),
        ("nothing is registered", processes.is_own_child(identity.pid).to_string()),
    ]);
    facts
}

/// A process that outlives its parent, which is a child of ours.
async fn orphan(host: &Host) -> Facts {
    let processes = &host.processes;
    let became = processes.become_subreaper();
    let parent = started(host, "sleep 600 & exit 3").await;
    end_of(&*parent).await;
    let group = parent.identity().pid;
    let others = processes.all().unwrap();
    let orphan = others.iter().find(|entry| entry.group == group && entry.pid != group).unwrap();
    let mut facts = vec![
        ("orphans come to us", became.to_string()),
        ("the parent exited", format!("{:?}", parent.peek().unwrap())),
        ("its child is ours", (orphan.parent == processes.own_pid()).to_string()),
        ("and not registered", processes.is_own_child(orphan.pid).to_string()),
        ("the parent is reaped", format!("{:?}", parent.reap().unwrap())),
        ("the group stays", (processes.entry(orphan.pid).unwrap().unwrap().group == group).to_string()),
    ];
    let pinned = processes.open(orphan.identity()).unwrap().unwrap();
    pinned.signal(Signal::KILL).unwrap();
    end_of(&*pinned).await;
    let state = processes.entry(orphan.pid).unwrap().map(|entry| entry.state);
    facts.extend([
        ("it waits for us", (state == Some(State::Zombie)).to_string()),
        ("orphans reaped", processes.reap_orphans().unwrap().to_string()),
        ("it is gone", format!("{:?}", processes.entry(orphan.pid).unwrap())),
    ]);
    facts
}

fn simulated(temper: Temper) -> Host {
    let machine = Machine::new("edge-1", Home::Host, 1, std::sync::Arc::new(|_| {}));
    machine.set_temper(temper);
    machine.begin_agent().0
}

// One test, since a subreaper is the whole process.
#[test]
fn the_simulated_kernel_answers_as_linux_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let real = runtime.block_on(async {
        let linux = Host::linux_with(env!("CARGO_BIN_EXE_launcher").into());
        (never_let_go(&linux).await, not_executable(&linux).await, child(&linux).await, orphan(&linux).await)
    });
    let asleep = Temper { on_term: OnTerm::Dies, ..Temper::default() };
    let left_alone = Temper {
        crashes: Some((Duration::from_millis(20), Exit { code: Some(3), signal: None })),
        offspring: vec![Offspring {
            born: Duration::from_millis(10),
            kinship: Kinship::Child,
            outlives: None,
            on_term: OnTerm::Dies,
        }],
        ..asleep.clone()
    };
    let missing = Temper { executable: Executable::Missing, ..asleep.clone() };
    let simulated = told(async {
        (
            never_let_go(&simulated(asleep.clone())).await,
            not_executable(&simulated(missing)).await,
            child(&simulated(asleep)).await,
            orphan(&simulated(left_alone)).await,
        )
    });
    assert_eq!(simulated, real);
}
