//! The agent itself is killed, and comes back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use futures::future::BoxFuture;
use quiesce_agent::{
    application::{AppState, Application, Evidence, HoldKind, HoldOrder, Ready, StartError},
    host::{Claim, ClaimError, Files},
    journal::Journal,
    supervise::Supervisor,
};
use quiesce_runtime::tasks::Tasks;

use crate::ground::{Ended, Ground, LIMIT, again, host, lives, now, role, start, stop, until};

/// Starts are counted by their lines in `starts`, signals by their lines in `terms`. It ends with the file `end`, and with
/// the directory, lest a failed test leave it behind.
const APPLICATION: &str = r#"
    trap 'echo term >>$0/terms' TERM
    echo start >>$0/starts
    echo $$ >$0/up
    while [ -e $0/up ] && [ ! -e $0/end ]; do sleep 0.02; done
"#;

/// Not a test: an agent that starts the application, stops it if `stop` is there, and waits to be killed.
#[tokio::test]
async fn agent() {
    let Some(directory) = role() else { return };
    let ground = Ground::at(&directory);
    let mut config = ground.script(&fs::read_to_string(ground.file("script")).unwrap());
    if let Ok(probe) = fs::read_to_string(ground.file("probe")) {
        config.ready = probe.parse().unwrap();
    }
    let supervisor = ground.open(config).await;
    start(&supervisor, 1).await.unwrap();
    ground.written("up").await;
    if ground.file("stop").exists() {
        stop(&supervisor, "s-1").await;
        ground.written("terms").await;
    }
    fs::write(ground.file("agent"), "ready\n").unwrap();
    std::future::pending().await
}

/// Not a test: an agent that comes to the moment of a start that `moment` names, and waits there to be killed.
#[tokio::test]
async fn agent_in_the_middle_of_a_start() {
    let Some(directory) = role() else { return };
    let ground = Ground::at(&directory);
    let moment = match fs::read_to_string(ground.file("moment")).unwrap().as_str() {
        BEFORE_JOURNAL => Moment::BeforeJournal,
        _ => Moment::BeforeLeave,
    };
    let mut host = host();
    host.files = Arc::new(Stuck { files: Arc::clone(&host.files), moment, agent: ground.file("agent") });
    let journal = Journal::open(&host, &ground.state()).await.unwrap();
    let supervisor = Supervisor::open(ground.script(APPLICATION), journal, &Tasks::new()).await.unwrap();
    start(&supervisor, 1).await.unwrap();
}

/// Where a start stands still.
#[derive(Clone, Copy)]
enum Moment {
    /// The process is there, and stands in no journal.
    BeforeJournal,
    /// It stands in the journal, and the hold is about to be lifted.
    BeforeLeave,
}

const BEFORE_JOURNAL: &str = "before the journal";
const BEFORE_LEAVE: &str = "before the leave";

/// Files that never get beyond a moment of a start, and say so.
struct Stuck {
    files: Arc<dyn Files>,
    moment: Moment,
    agent: PathBuf,
}

impl Stuck {
    fn forever(&self) -> BoxFuture<'static, io::Result<()>> {
        fs::write(&self.agent, "ready\n").unwrap();
        Box::pin(std::future::pending())
    }
}

impl Files for Stuck {
    fn claim(&self, directory: &Path) -> Result<Claim, ClaimError> {
        self.files.claim(directory)
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        self.files.read(path, limit)
    }

    fn replace(&self, path: &Path, content: Vec<u8>) -> BoxFuture<'static, io::Result<()>> {
        let names_a_run = String::from_utf8_lossy(&content).contains("run_id");
        match self.moment {
            Moment::BeforeJournal if names_a_run => self.forever(),
            Moment::BeforeJournal | Moment::BeforeLeave => self.files.replace(path, content),
        }
    }

    fn remove(&self, path: &Path) -> BoxFuture<'static, io::Result<()>> {
        match self.moment {
            Moment::BeforeLeave => self.forever(),
            Moment::BeforeJournal => self.files.remove(path),
        }
    }
}

async fn killed_agent(ground: &Ground, script: &str) {
    fs::write(ground.file("script"), script).unwrap();
    killed_in("crash::agent", ground).await;
}

/// Kills an agent when it is ready for it. Returns its children of that moment.
async fn killed_in(test: &str, ground: &Ground) -> Vec<String> {
    let mut command = again(test, ground.file("").to_str().unwrap());
    let mut agent = Ended(command.stdout(Stdio::null()).spawn().unwrap());
    ground.written("agent").await;
    let children = children(agent.0.id());
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    children
}

/// Of all its threads: which of them forks is nobody's business.
fn children(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |thread: io::Result<fs::DirEntry>| fs::read_to_string(thread.unwrap().path().join("children"));
    threads.flat_map(|thread| words(&of_thread(thread).unwrap())).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn lines(ground: &Ground, file: &str) -> usize {
    fs::read_to_string(ground.file(file)).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn the_application_is_found_again_and_not_started_twice() {
    let ground = Ground::new();
    killed_agent(&ground, APPLICATION).await;
    let pid = ground.written("up").await;
    assert!(lives(&pid), "an application outlives its agent");

    let supervisor = ground.reopen(APPLICATION).await;
    let status = now(&supervisor);
    assert_eq!((status.epoch, status.pid.map(|pid| pid.to_string()), status.end), (1, Some(pid), None));
    assert!(matches!(start(&supervisor, 2).await, Err(StartError::StillRunning { epoch: 1, .. })));
    until(&supervisor, "running", |status| status.state == AppState::Running).await;

    stop(&supervisor, "s-1").await;
    ground.written("terms").await;
    fs::write(ground.file("end"), "").unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.evidence, end.exit_code, end.clean), (Evidence::ExitObserved, None, None));
    assert_eq!((lines(&ground, "starts"), lines(&ground, "terms")), (1, 1));
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_of_a_start_has_started_nothing() {
    // Under the same epoch: that was not used up. Under a new one: it was.
    for (moment, epoch) in [(BEFORE_JOURNAL, 1), (BEFORE_LEAVE, 2)] {
        let ground = Ground::new();
        fs::write(ground.file("moment"), moment).unwrap();
        let children = killed_in("crash::agent_in_the_middle_of_a_start", &ground).await;
        let [waiting] = &children[..] else { panic!("{moment}: one child, not {children:?}") };
        quiesce_testkit::eventually("the end of who waited", LIMIT, async || !lives(waiting)).await;
        assert_eq!(lines(&ground, "starts"), 0, "{moment}: nobody gave it leave");

        let supervisor = ground.reopen(APPLICATION).await;
        assert_eq!(now(&supervisor).state, AppState::Stopped, "{moment}");
        start(&supervisor, epoch).await.unwrap();
        ground.written("up").await;
        assert_eq!(lines(&ground, "starts"), 1, "{moment}");
        fs::write(ground.file("end"), "").unwrap();
        until(&supervisor, "the end", |status| status.end.is_some()).await;
    }
}

#[tokio::test]
async fn the_ready_command_of_an_application_found_again_knows_whom_it_is_about() {
    let ground = Ground::new();
    fs::write(ground.file("probe"), "notify").unwrap();
    killed_agent(&ground, APPLICATION).await;
    let pid = ground.written("up").await;
    let mut config = ground.script(APPLICATION);
    config.ready = format!("command:test $QUIESCE_PID = {pid} -a $QUIESCE_EPOCH = 1").parse().unwrap();
    let supervisor = ground.reopen_with(config).await;
    until(&supervisor, "ready", |status| status.ready == Some(Ready::Command)).await;
}

#[tokio::test]
async fn a_shutdown_is_joined_and_nobody_is_told_twice() {
    let ground = Ground::new();
    fs::write(ground.file("stop"), "").unwrap();
    killed_agent(&ground, APPLICATION).await;
    let supervisor = ground.reopen(APPLICATION).await;
    assert_eq!(now(&supervisor).state, AppState::Stopping);
    stop(&supervisor, "s-1").await;
    fs::write(ground.file("end"), "").unwrap();
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!((lines(&ground, "starts"), lines(&ground, "terms")), (1, 1));
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_graded_as_such() {
    let ground = Ground::new();
    killed_agent(&ground, APPLICATION).await;
    let pid = ground.written("up").await;
    fs::write(ground.file("end"), "").unwrap();
    quiesce_testkit::eventually("its end", LIMIT, async || !lives(&pid)).await;
    let supervisor = ground.reopen(APPLICATION).await;
    let status = now(&supervisor);
    assert_eq!(status.state, AppState::Stopped);
    let end = status.end.unwrap();
    assert_eq!((end.evidence, end.exit_code, end.clean), (Evidence::ProcessGone, None, None));
    assert!(end.message.contains("while no agent watched"), "{}", end.message);
}

#[tokio::test]
async fn a_straggler_is_found_though_its_leader_is_gone() {
    let ground = Ground::new();
    let script = "(setsid sh -c 'echo $$ >$0/up; while :; do sleep 0.02; done' $0 &); exit 0";
    killed_agent(&ground, script).await;
    let pid = ground.written("up").await;
    let supervisor = ground.reopen(script).await;
    assert!(now(&supervisor).processes >= 1, "{:?}", now(&supervisor));
    assert!(matches!(start(&supervisor, 2).await, Err(StartError::StillRunning { .. })));
    supervisor.kill().await.unwrap();
    let end = until(&supervisor, "the end", |status| status.end.is_some()).await.end.unwrap();
    assert_eq!((end.evidence, end.killed), (Evidence::ProcessGone, true));
    assert!(!lives(&pid));
}

#[tokio::test]
async fn somebody_else_under_the_same_pid_is_left_alone() {
    let ground = Ground::new();
    killed_agent(&ground, APPLICATION).await;
    let pid = ground.written("up").await;
    fs::write(ground.file("end"), "").unwrap();
    quiesce_testkit::eventually("its end", LIMIT, async || !lives(&pid)).await;

    // The journal now names a living process, but with another start time: a pid that was handed out again.
    let stranger = Ended(Command::new("sleep").arg("600").spawn().unwrap());
    let journal = ground.state().join("journal.json");
    let text = fs::read_to_string(&journal).unwrap();
    let forged = text.replace(&format!("\"pid\": {pid},"), &format!("\"pid\": {},", stranger.0.id()));
    assert_ne!(text, forged);
    fs::write(&journal, forged).unwrap();

    let supervisor = ground.reopen(APPLICATION).await;
    assert_eq!(now(&supervisor).state, AppState::Stopped);
    stop(&supervisor, "s-1").await;
    supervisor.kill().await.unwrap();
    assert!(lives(&stranger.0.id().to_string()));
}

#[tokio::test]
async fn a_run_of_another_boot_is_over() {
    let ground = Ground::new();
    killed_agent(&ground, APPLICATION).await;
    let pid = ground.written("up").await;
    let journal = ground.state().join("journal.json");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&journal).unwrap().replace(boot.trim(), "another-boot");
    fs::write(&journal, text).unwrap();
    let supervisor = ground.reopen(APPLICATION).await;
    let end = now(&supervisor).end.unwrap();
    assert!(end.message.contains("restarted"), "{}", end.message);
    supervisor.kill().await.unwrap();
    assert!(lives(&pid), "pids of another boot mean nothing");
}

#[tokio::test]
async fn a_run_of_another_container_is_graded_by_who_was_its_first_process() {
    for (was_init, evidence) in [("true", Evidence::ProcessGone), ("false", Evidence::Claimed)] {
        let ground = Ground::new();
        killed_agent(&ground, APPLICATION).await;
        let journal = ground.state().join("journal.json");
        let here = fs::read_link("/proc/self/ns/pid").unwrap().display().to_string();
        let text = fs::read_to_string(&journal).unwrap().replace(&here, "pid:[1]");
        let text = text.replace("\"agent_was_init\": false", &format!("\"agent_was_init\": {was_init}"));
        fs::write(&journal, text).unwrap();
        let supervisor = ground.reopen(APPLICATION).await;
        assert_eq!(now(&supervisor).end.unwrap().evidence, evidence);
    }
}

#[tokio::test]
async fn a_hold_that_came_before_the_crash_stands_after_it() {
    let ground = Ground::new();
    killed_agent(&ground, APPLICATION).await;
    let supervisor = ground.reopen(APPLICATION).await;
    let order = HoldOrder { operation: "operations/o".into(), kind: HoldKind::Delete, epoch: 1 };
    supervisor.hold(order).await.unwrap();
    drop(supervisor);
    fs::write(ground.file("end"), "").unwrap();
    let supervisor = ground.reopen(APPLICATION).await;
    until(&supervisor, "the end", |status| status.end.is_some()).await;
    assert_eq!(now(&supervisor).state, AppState::Held);
}
