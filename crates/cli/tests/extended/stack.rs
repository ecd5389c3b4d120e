//! A scheduler with its agents, as processes: started, crashed, started again, asked.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost_reflect::{DescriptorPool, DynamicMessage};
use quiesce_protocol::FILE_DESCRIPTOR_SET;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_protocol::v1::{GetInstanceRequest, GetOperationRequest, Instance, Operation, instance};
use quiesce_testkit::directory::short_temp_dir;
use quiesce_testkit::eventually;
use quiesce_testkit::namespace::{Cable, End, Namespace};
use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::{Process, spawn};
use quiesce_testkit::proxy::TcpProxy;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::census;

/// For what takes a moment, on a machine that is busy with something else.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Lines of each process shown when a test fails.
const TAIL: usize = 60;

/// The directory of the scheduler's data, below that of the stack.
const DATA: &str = "scheduler";

/// A scheduler and a directory for everything. Dropping it kills what was started here, also what escaped.
#[derive(Debug)]
pub(crate) struct Stack {
    scheduler: Option<Actor>,
    port: FreePort,
    admin: FreePort,
    /// Where the scheduler and its clients are, if not in the network of the machine.
    namespace: Option<Arc<Namespace>>,
    /// How everybody proves who he is, where that is asked for.
    proofs: Option<Proofs>,
    directory: TempDir,
}

/// What it takes to be let in where access is enforced and everything is encrypted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proofs {
    /// Flags of the scheduler.
    pub(crate) scheduler: Vec<String>,
    /// The environment of the client.
    pub(crate) client: Vec<(&'static str, String)>,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::start_within(&[]).await
    }

    /// The same, with the scheduler started by another command, which executes what stands behind it.
    pub(crate) async fn start_within(wrapper: &[&str]) -> Self {
        let mut stack = Self::unstarted();
        stack.start_scheduler_within(wrapper).await;
        stack
    }

    /// The same in a network of its own, where its scheduler can be reached at every address.
    pub(crate) async fn start_in(namespace: &Arc<Namespace>) -> Self {
        let mut stack = Self::unstarted();
        stack.namespace = Some(Arc::clone(namespace));
        stack.start_scheduler().await;
        stack
    }

    /// Ports and a directory, and no scheduler.
    pub(crate) fn unstarted() -> Self {
        let (port, admin) = (FreePort::claim(), FreePort::claim());
        Self { scheduler: None, port, admin, namespace: None, proofs: None, directory: short_temp_dir() }
    }

    /// From its next start on the scheduler speaks TLS and lets nobody in who proves nothing.
    pub(crate) fn secure(&mut self, proofs: Proofs) {
        self.proofs = Some(proofs);
    }

    /// Where it will be started.
    pub(crate) fn put_into(&mut self, namespace: &Arc<Namespace>) {
        self.namespace = Some(Arc::clone(namespace));
    }

    pub(crate) fn proofs(&mut self) -> &mut Proofs {
        self.proofs.as_mut().expect("the stack is secured")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the scheduler, again after a crash: same data, same port.
    pub(crate) async fn start_scheduler(&mut self) {
        self.start_scheduler_within(&[]).await;
    }

    pub(crate) async fn start_scheduler_within(&mut self, wrapper: &[&str]) {
        let scheduler = self.try_scheduler(wrapper, &self.data_dir());
        scheduler.wait_for_line("operations resumed", SOON).await;
        self.scheduler = Some(scheduler);
    }

    /// How the scheduler is started, for somebody who does so without the stack.
    pub(crate) fn scheduler_program(&self) -> Scheduler {
        let (namespace, directory) = (self.namespace.clone(), self.directory.path().to_owned());
        let flags = self.proofs.as_ref().map(|proofs| proofs.scheduler.clone());
        Scheduler { port: self.port.number(), admin: self.admin.number(), namespace, flags, directory }
    }

    /// Starts a scheduler that may refuse to come up.
    pub(crate) fn try_scheduler(&self, wrapper: &[&str], data_dir: &Path) -> Actor {
        self.scheduler_program().start_within(wrapper, data_dir)
    }

    /// Stops the scheduler gracefully.
    pub(crate) async fn stop_scheduler(&mut self) {
        self.scheduler().signal(Signal::TERM);
        assert_eq!(self.scheduler().ends().await, Some(0));
        self.scheduler = None;
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path(DATA)
    }

    /// What the admin address says: the whole answer.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin.number())).await.expect("the admin address");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the answer is text");
        answer
    }

    /// Waits until the admin address says so.
    pub(crate) async fn admin_says(&self, path: &str, text: &str) {
        eventually(format!("{path} to say {text:?}"), SOON, || async {
            let answer = self.admin(path).await;
            if answer.contains(text) { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    pub(crate) fn scheduler(&mut self) -> &mut Actor {
        self.scheduler.as_mut().expect("the scheduler was started")
    }

    /// The scheduler, to read what it has written.
    pub(crate) fn scheduler_log(&self) -> &Actor {
        self.scheduler.as_ref().expect("the scheduler was started")
    }

    pub(crate) fn scheduler_pid(&self) -> u32 {
        self.scheduler.as_ref().expect("the scheduler was started").pid()
    }

    pub(crate) async fn crash_scheduler(&mut self) {
        self.scheduler().kill_9().await;
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.proofs.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port.number())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A proxy in front of the scheduler; give its address to [`Agent::through`].
    pub(crate) async fn proxy(&self) -> TcpProxy {
        TcpProxy::start(([127, 0, 0, 1], self.port.number()).into()).await
    }

    /// An agent of application `db` that is not started yet.
    pub(crate) fn agent(&self, cluster: &str, instance: &str) -> Agent {
        Agent {
            scheduler: self.url(),
            namespace: None,
            directory: self.directory.path().to_owned(),
            cluster: cluster.to_owned(),
            instance: instance.to_owned(),
            wrapper: Vec::new(),
            flags: Vec::new(),
            log_format: "text",
            command: Vec::new(),
        }
    }

    /// Runs a command of the client to its end.
    pub(crate) async fn quiesce(&self, args: &[&str]) -> Ran {
        self.quiesce_with(args, &[]).await
    }

    /// The same, with more in its environment, or with other things.
    pub(crate) async fn quiesce_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.client_command(args);
        command.envs(environment.iter().copied()).stdin(std::process::Stdio::null()).kill_on_drop(true);
        // Longer than any test may take; it says which command hung.
        let output = timeout(Duration::from_secs(60), command.output()).await;
        let output =
            output.unwrap_or_else(|_elapsed| panic!("quiesce {args:?} does not end")).expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Begins an operation without following it, and returns its name.
    pub(crate) async fn begin(&self, args: &[&str]) -> String {
        let ran = self.quiesce(&[args, &["--detach", "-o", "json"]].concat()).await.expect(0);
        ran.json()["name"].as_str().expect("an operation has a name").to_owned()
    }

    /// `quiesce apply` of one document.
    pub(crate) async fn apply(&self, document: &str) {
        let file = self.path("document.yaml");
        std::fs::write(&file, document).expect("the directory can be written to");
        self.quiesce(&["apply", "-f", file.to_str().expect("a path of ours is text")]).await.expect(0);
    }

    /// `quiesce watch` in the background.
    pub(crate) fn watch(&self, args: &[&str]) -> Watch {
        Watch(Actor::start("watch", self.client_command(&[&["watch", "-o", "json"], args].concat())))
    }

    fn client_command(&self, args: &[&str]) -> Command {
        let mut command = quiesce(self.namespace.as_deref());
        command.args(args).env("QUIESCE_SCHEDULER", self.url()).current_dir(self.directory.path());
        command.envs(self.proofs.iter().flat_map(|proofs| proofs.client.iter().cloned()));
        command
    }

    async fn try_client(&self) -> Result<SchedulerClient<Channel>, String> {
        let endpoint = Endpoint::from_shared(self.url()).expect("it is a URL");
        let channel = match self.namespace.clone() {
            None => endpoint.connect().await,
            Some(namespace) => {
                let to = ([127, 0, 0, 1], self.port.number()).into();
                let connect = move |_uri| {
                    let namespace = Arc::clone(&namespace);
                    async move { namespace.connect(to).await.map(TokioIo::new) }
                };
                endpoint.connect_with_connector(service_fn(connect)).await
            }
        };
        channel.map(SchedulerClient::new).map_err(|error| format!("no scheduler: {error}"))
    }

    pub(crate) async fn operation(&self, name: &str) -> Operation {
        self.try_operation(name).await.unwrap_or_else(|error| panic!("cannot look at {name}: {error}"))
    }

    /// The same where the scheduler may be away.
    pub(crate) async fn try_operation(&self, name: &str) -> Result<Operation, String> {
        if self.proofs.is_some() {
            return self.look_at("operations", name, "quiesce.v1.Operation").await;
        }
        let mut client = self.try_client().await?;
        let answer = client.get_operation(GetOperationRequest { name: name.to_owned() }).await;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        Ok(answer.operation.expect("it is in the answer"))
    }

    /// What the command line says of a resource: it knows how to prove itself, and how to speak TLS.
    async fn look_at<M: prost::Message + Default>(&self, kind: &str, name: &str, message: &str) -> Result<M, String> {
        let ran = self.quiesce(&["get", kind, name, "-o", "json"]).await;
        if ran.code != Some(0) {
            return Err(ran.stderr);
        }
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build has checked it");
        let descriptor = pool.get_message_by_name(message).expect("a message of the contract");
        let mut json = serde_json::Deserializer::from_str(&ran.stdout);
        let message = DynamicMessage::deserialize(descriptor, &mut json).map_err(|error| error.to_string())?;
        message.transcode_to().map_err(|error| error.to_string())
    }

    /// Waits until the operation is in this state. Another state in which it would rest ends the wait.
    pub(crate) async fn reaches(&self, name: &str, state: State, limit: Duration) -> Operation {
        let last = eventually(format!("{name} to be {state:?}"), limit, || async {
            let now = self.operation(name).await;
            let rests = now.done || now.state() == State::Degraded;
            if now.state() == state || rests { Ok(now) } else { Err(format!("{:?}: {}", now.state(), now.message)) }
        });
        let last = last.await;
        assert_eq!(last.state(), state, "{last:#?}");
        last
    }

    /// The instance as the scheduler knows it, which may be away.
    pub(crate) async fn try_instance(&self, name: &str) -> Result<Instance, String> {
        if self.proofs.is_some() {
            return self.look_at("instances", &format!("db/{name}"), "quiesce.v1.Instance").await;
        }
        let name = format!("applications/db/instances/{name}");
        let mut client = self.try_client().await?;
        let answer = client.get_instance(GetInstanceRequest { name }).await;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        Ok(answer.instance.expect("it is in the answer"))
    }

    /// Waits until the instance is known to the scheduler in this state.
    pub(crate) async fn instance_is(&self, name: &str, state: instance::State) -> Instance {
        self.instance_becomes(name, state, SOON).await
    }

    /// The same for what may take a while.
    pub(crate) async fn instance_becomes(&self, name: &str, state: instance::State, limit: Duration) -> Instance {
        eventually(format!("instance {name} to be {state:?}"), limit, || async {
            let now = self.try_instance(name).await?;
            if now.state() == state { Ok(now) } else { Err(format!("{:?}", now.state())) }
        })
        .await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.scheduler.take());
        // Some applications overwrite the environment by which the testkit knows its processes; none leaves the
        // directory in which it was started for one outside.
        for pid in census::pids_below(self.directory.path()) {
            census::kill_9(pid);
        }
    }
}

/// How a scheduler is started; the same value starts it again.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    port: u16,
    admin: u16,
    namespace: Option<Arc<Namespace>>,
    /// Flags with which it is safe everywhere.
    flags: Option<Vec<String>>,
    directory: PathBuf,
}

impl Scheduler {
    pub(crate) fn start(&self) -> Actor {
        self.start_within(&[], &self.directory.join(DATA))
    }

    fn start_within(&self, wrapper: &[&str], data_dir: &Path) -> Actor {
        let mut command = quiesce_within(self.namespace.as_deref(), wrapper);
        // Where nobody else is, every address is as safe as the loopback; it has to be told so.
        let (host, insecure) = match self.namespace {
            None => ("127.0.0.1", &[][..]),
            Some(_) if self.flags.is_some() => ("0.0.0.0", &[][..]),
            Some(_) => ("0.0.0.0", &["--insecure", "--access", "open"][..]),
        };
        let admin_host = if self.flags.is_some() { host } else { "127.0.0.1" };
        command
            .args(["scheduler", "--listen", &format!("{host}:{}", self.port)])
            .args(insecure)
            .args(["--admin-listen", &format!("{admin_host}:{}", self.admin), "--data-dir"])
            .arg(data_dir)
            .args(self.flags.iter().flatten())
            .current_dir(&self.directory);
        Actor::start("scheduler", command)
    }
}

/// How an agent is started; the same value starts it again.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    scheduler: String,
    namespace: Option<Arc<Namespace>>,
    directory: PathBuf,
    cluster: String,
    pub(crate) instance: String,
    /// Another command, which executes what stands behind it.
    wrapper: Vec<String>,
    flags: Vec<String>,
    log_format: &'static str,
    command: Vec<String>,
}

impl Agent {
    pub(crate) fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Its log is JSON, as it is by itself where nobody looks.
    pub(crate) fn logging_json(mut self) -> Self {
        self.log_format = "auto";
        self
    }

    pub(crate) fn standby(self) -> Self {
        self.with(&["--standby"])
    }

    pub(crate) fn through(self, proxy: &TcpProxy) -> Self {
        self.at(&proxy.address().to_string())
    }

    /// Calls the scheduler at this `host:port`.
    pub(crate) fn at(mut self, address: &str) -> Self {
        let scheme = self.scheduler.split_once("://").map_or("http", |(scheme, _)| scheme);
        self.scheduler = format!("{scheme}://{address}");
        self
    }

    /// Starts it by another command, which executes what stands behind it.
    pub(crate) fn within(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Runs it at the far end of this cable, whose near end is the scheduler's.
    pub(crate) fn behind(mut self, stack: &Stack, cable: &Cable, namespace: &Arc<Namespace>) -> Self {
        self.scheduler = format!("http://{}:{}", cable.address(End::Near), stack.port.number());
        self.namespace = Some(Arc::clone(namespace));
        self
    }

    pub(crate) fn running(mut self, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn start(&self) -> Actor {
        let wrapper: Vec<_> = self.wrapper.iter().map(String::as_str).collect();
        let mut command = quiesce_within(self.namespace.as_deref(), &wrapper);
        command
            .args(["agent", "--application", "db", "--cluster", &self.cluster, "--instance", &self.instance])
            .args(["--scheduler", &self.scheduler, "--log-format", self.log_format, "--state-dir"])
            .arg(self.state_dir())
            .args(&self.flags)
            .args(self.says_when_it_is_ready().then_some(["--ready-command", "false"]).into_iter().flatten())
            .arg("--")
            .args(&self.command)
            .current_dir(&self.directory);
        Actor::start(&self.instance, command)
    }

    /// `application.py` does. On a busy machine its start takes longer than the second for which an application has to
    /// live otherwise, so nothing but its word counts.
    fn says_when_it_is_ready(&self) -> bool {
        self.command.first().is_some_and(|program| program == "python3")
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.join("state").join(&self.instance)
    }
}

/// The binary, where it is to run.
fn quiesce(namespace: Option<&Namespace>) -> Command {
    quiesce_within(namespace, &[])
}

/// The same, started by another command.
fn quiesce_within(namespace: Option<&Namespace>, wrapper: &[&str]) -> Command {
    let program = wrapper.iter().chain(&[env!("CARGO_BIN_EXE_quiesce")]).map(|word| (*word).to_owned());
    let mut words: Vec<_> = namespace.into_iter().flat_map(Namespace::entrance).chain(program).collect();
    let mut command = Command::new(words.remove(0));
    command.args(words);
    command
}

/// A process whose last words are shown when the test fails.
#[derive(Debug)]
pub(crate) struct Actor {
    name: String,
    process: Process,
}

impl Actor {
    pub(crate) fn start(name: &str, command: Command) -> Self {
        Self { name: name.to_owned(), process: spawn(name, command) }
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub(crate) async fn ends(&mut self) -> Option<i32> {
        self.process.wait(SOON).await.code()
    }
}

impl Deref for Actor {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Actor {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.process.lines();
            eprintln!("---- the last lines of {}", self.name);
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                eprintln!("{}", line.text);
            }
        }
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// That it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}{}", self.stdout, self.stderr))
    }
}

/// A stream of events.
#[derive(Debug)]
pub(crate) struct Watch(pub(crate) Actor);

impl Watch {
    pub(crate) fn events(&self) -> Vec<Value> {
        let stdout = self.0.stdout();
        stdout.lines().map(|line| serde_json::from_str(line).expect("an event per line")).collect()
    }

    /// Waits for an event, which may be there already.
    pub(crate) async fn sees(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let wanted = &mut wanted;
        eventually(format!("the watch to see {what}"), SOON, move || {
            let found = self.events().into_iter().find(|event| wanted(event));
            async move { found }
        })
        .await
    }

    /// Waits until the watch says that nothing later is missed.
    pub(crate) async fn is_open(&self) {
        self.sees("that it is open", |event| event["type"] == "TYPE_BOOKMARK").await;
    }
}

/// The states an operation went through, as a watch saw them.
pub(crate) fn states(events: &[Value], operation: &str) -> Vec<String> {
    let changes = events.iter().filter(|event| event["type"] == "TYPE_STATE_CHANGED");
    let ours = changes.filter(|event| event["operation"]["name"] == operation);
    ours.map(|event| event["operation"]["state"].as_str().unwrap_or_default().trim_start_matches("STATE_").to_owned())
        .collect()
}

/// Creates an empty file: how a test says "now" to a program.
pub(crate) fn touch(path: &Path) {
    std::fs::write(path, "").expect("the directory can be written to");
}
