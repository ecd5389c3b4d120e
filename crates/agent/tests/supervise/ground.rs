//! What the tests of the supervisor stand on: a state directory, scripts to supervise, waits on a condition, and this
//! test binary run once more where a test needs a process of its own.

use std::{
    env, fs,
    future::ready,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use quiesce_agent::{
    application::{AppStatus, Application, Permission, StartError, StartOrder, StopOrder},
    host::Host,
    journal::Journal,
    supervise::{Config, Supervisor},
};
use quiesce_runtime::{tasks::Tasks, trace_context::TraceContext};
use quiesce_testkit::eventually;
use tempfile::TempDir;

/// Far more than anything here takes, on a machine that is busy with something else.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Set in a process that was started by [`again`].
const ROLE: &str = "QUIESCE_TEST_ROLE";

pub(crate) struct Ground {
    path: PathBuf,
    tasks: Tasks,
    /// Removed with the test that made it.
    _directory: Option<TempDir>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().to_owned(), tasks: Tasks::new(), _directory: Some(directory) }
    }

    /// The ground of another process.
    pub(crate) fn at(path: &str) -> Self {
        Self { path: path.into(), tasks: Tasks::new(), _directory: None }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The next life of the agent, once the last one has let go of the state directory.
    pub(crate) async fn reopen(&self, script: &str) -> Supervisor {
        self.reopen_with(self.script(script)).await
    }

    pub(crate) async fn reopen_with(&self, config: Config) -> Supervisor {
        let open = || async { Journal::open(&host(), &self.state()).await };
        let journal = eventually("the state directory to be free", LIMIT, open).await;
        Supervisor::open(config, journal, &self.tasks).await.unwrap()
    }

    pub(crate) async fn open(&self, config: Config) -> Supervisor {
        let journal = Journal::open(&host(), &self.state()).await.unwrap();
        Supervisor::open(config, journal, &self.tasks).await.unwrap()
    }

    /// Supervises a shell script that finds the ground's directory in `$0`, and starts it with epoch 1.
    pub(crate) async fn started(&self, script: &str) -> Supervisor {
        let supervisor = self.open(self.script(script)).await;
        start(&supervisor, 1).await.unwrap();
        supervisor
    }

    pub(crate) fn script(&self, script: &str) -> Config {
        let directory = self.path.as_os_str().to_owned();
        Config::new(vec!["/bin/sh".into(), "-c".into(), script.into(), directory])
    }

    /// Waits for a file that a script writes, and reads it.
    pub(crate) async fn written(&self, name: &str) -> String {
        let path = self.file(name);
        let content = || ready(fs::read_to_string(&path).ok().filter(|content| content.ends_with('\n')));
        eventually(format!("the file {name}"), LIMIT, content).await.trim().to_owned()
    }
}

/// This machine, on which the agent's own program executes applications: `main` of a test is not ours.
pub(crate) fn host() -> Host {
    Host::linux_with(env!("CARGO_BIN_EXE_quiesce-agent").into())
}

pub(crate) fn new_epoch(epoch: u64) -> StartOrder {
    StartOrder {
        permission: Permission::New(epoch),
        application: "db".into(),
        instance: "db-0".into(),
        cluster: "a".into(),
        trace: None,
    }
}

pub(crate) async fn start(supervisor: &Supervisor, epoch: u64) -> Result<(), StartError> {
    supervisor.start(new_epoch(epoch)).await
}

pub(crate) async fn stop(supervisor: &Supervisor, id: &str) {
    supervisor.stop(StopOrder { shutdown_id: id.into(), ..StopOrder::default() }).await.unwrap();
}

/// A place in somebody's trace.
pub(crate) fn traced() -> TraceContext {
    TraceContext { trace_id: 0xabc, span_id: 0xdef, sampled: true, state: "vendor=1".to_owned() }
}

/// Waits until the status is so.
#[track_caller]
pub(crate) fn until(
    supervisor: &Supervisor,
    what: &'static str,
    mut predicate: impl FnMut(&AppStatus) -> bool,
) -> impl Future<Output = AppStatus> {
    let status = supervisor.status();
    eventually(what, LIMIT, move || {
        let status = status.borrow().clone();
        ready(if predicate(&status) { Ok(status) } else { Err(format!("{status:?}")) })
    })
}

pub(crate) fn now(supervisor: &Supervisor) -> AppStatus {
    supervisor.status().borrow().clone()
}

/// Whether a process runs: neither gone nor a zombie.
pub(crate) fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

/// Runs one test function of this binary in another process, which finds `role` with [`role`].
pub(crate) fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(ROLE, role);
    command
}

/// The role this process was started in, if any.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs the calling test in a process of its own, without the children of the other tests. True: this is that process.
pub(crate) fn is_alone(test: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let output = again(test, "alone").output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// A process that does not outlive the test.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already; the orphan reaper of a supervisor cannot have taken it: it is in our process group.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
