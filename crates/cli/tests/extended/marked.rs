//! A whole life of an installation in which every secret is known, and a search for all of them in everything that anybody
//! could read afterwards: logs at the level `trace`, outputs, events, metrics, audit lines, the store and its backup, the
//! state directories of agents, command lines and environments.
//!
//! That the search finds what is there is proven in the same run: one token is used as carelessly as can be, as a reason
//! that is written down, in the environment and the command line of an application that prints it. It has to be found in
//! every kind of place, and nothing else in any. Each token is also found where it is shown once, and the keys in the store.

mod place;
mod secret;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::certificates::Pair;
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::alive;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::census;
use crate::grpcurl::grpcurl;
use crate::openssl::{HEARD, dial_in};
use crate::program::Program;
use crate::secured::{Maker, Secured};
use crate::stack::{Actor, Agent, Ran, SOON, Watch, touch};

use place::{KINDS, Kind, Place, files_below};
use secret::{Search, Secret};
use tap::Tap;

const APPLICATION: &str = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
    policy: {gracePeriod: 600s}\n";

/// An agent that was away has to find its way back: backoff of a few seconds on both sides.
const AWAY: Duration = Duration::from_secs(40);

/// The token that somebody does not keep to himself.
const CARELESS: &str = "the careless token";

/// What can be listed, and a thing of each kind.
const KINDS_OF_RESOURCES: [&str; 4] = ["applications", "instances", "operations", "clusters"];

struct Story {
    stack: Secured,
    secrets: Vec<Secret>,
    /// The names of tokens, by what they are.
    tokens: BTreeMap<String, String>,
    places: Vec<Place>,
    program: Program,
    /// Between the agents and the scheduler.
    wire: Tap,
    agents: Vec<(Agent, Actor)>,
    careless: String,
}

impl Story {
    async fn begin() -> Self {
        let mut stack = Secured::unstarted(Maker::Quiesce).await;
        stack.proofs().scheduler.extend(["--log", "trace", "--log-format", "json"].map(str::to_owned));
        fs::create_dir(stack.path("logs")).unwrap();
        let logged = logged(&stack, "scheduler");
        stack.start_scheduler_within(&words(&logged)).await;
        stack.apply(APPLICATION).await;
        let pair = Pair { certificate: stack.file("127.0.0.1.pem"), key: stack.file("127.0.0.1.key") };
        let wire = Tap::in_tls(stack.port(), pair, stack.file("ca.pem")).await;
        let program = Program::new(&stack);
        let (secrets, tokens, places, agents) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
        let mut story = Self { stack, secrets, tokens, places, program, wire, agents, careless: String::new() };
        story.private_keys().await;
        story
    }

    /// What a token is called; it is searched for from now on.
    fn know(&mut self, kind: &str, token: &str) -> String {
        let token = token.trim();
        let number = self.tokens.values().filter(|name| name.starts_with(kind)).count() + 1;
        let name = self.tokens.entry(token.to_owned()).or_insert_with(|| {
            let name = if number == 1 { kind.to_owned() } else { format!("{kind}, {number}") };
            self.secrets.push(Secret::token(&name, token));
            name
        });
        name.clone()
    }

    async fn run(&mut self, args: &[&str]) -> Ran {
        self.run_with(args, &[]).await
    }

    async fn run_with(&mut self, args: &[&str], environment: &[(&str, &str)]) -> Ran {
        let ran = self.stack.quiesce_with(args, environment).await;
        let output = format!("{}{}", ran.stdout, ran.stderr);
        self.places.push(Place::new(Kind::Output, format!("quiesce {}", args.join(" ")), output));
        ran
    }

    async fn private_keys(&mut self) {
        let pki = self.stack.path("pki");
        let pki = pki.to_str().unwrap();
        self.run(&["pki", "issue", pki, "host.example"]).await.expect(0);
        self.run(&["pki", "issue", pki, "--agent", "db/x-0", "-o", "json"]).await.expect(0);
        self.run(&["pki", "show", &format!("{pki}/ca.pem"), "-o", "json"]).await.expect(0);
        self.run(&["pki", "init", pki]).await.expect(1);
        self.run(&["pki", "show", &format!("{pki}/ca.key")]).await.expect(1);
        for name in ["ca", "host.example", "x-0", "127.0.0.1", "ann"] {
            let pem = fs::read_to_string(format!("{pki}/{name}.key")).unwrap();
            let secret = Secret::pem(format!("the private key {name}"), &pem);
            assert!(!Search::new(std::slice::from_ref(&secret)).finds(pem.as_bytes()).is_empty());
            self.secrets.push(secret);
        }
    }

    /// Makes a token that is shown on standard output, once.
    async fn shown(&mut self, kind: &str, args: &[&str]) -> String {
        let ran = self.run(&[&["token", "create"], args].concat()).await.expect(0);
        let mut words = ran.stdout.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let token = words.find(|word| word.starts_with("qbt1.") || word.starts_with("qjt1."));
        let token = token.unwrap_or_else(|| panic!("no token in {}", ran.stdout)).to_owned();
        let name = self.know(kind, &token);
        self.places.last_mut().expect("it was run").shows = Some(name);
        token
    }

    /// Makes a token that goes into a file.
    async fn filed(&mut self, kind: &str, args: &[&str]) -> (PathBuf, String) {
        let file = self.stack.path(&format!("{}.token", self.tokens.len()));
        let out = ["--out", file.to_str().unwrap()];
        self.run(&[&["token", "create"], args, &out].concat()).await.expect(0);
        let token = fs::read_to_string(&file).unwrap().trim().to_owned();
        self.know(kind, &token);
        (file, token)
    }

    /// Another token of the same kind, which nobody has made.
    fn mistyped(&mut self, token: &str) -> String {
        let (known, secret) = token.rsplit_once('.').expect("a token has parts");
        let turned: String = secret.chars().rev().collect();
        // The last digit of a text of this length has bits that are none; they are 0.
        let mistyped = format!("{known}.A{}A", &turned[1..turned.len() - 1]);
        self.know("a mistyped token", &mistyped);
        mistyped
    }

    /// Tokens made in every way, revoked, mistyped, mistaken for names, kept in files that others can read.
    async fn people(&mut self) {
        let viewer = self.shown("a viewer's token", &["--role", "viewer", "--name", "ann"]).await;
        let operator = self.shown("an operator's token", &["--role", "operator", "-o", "json"]).await;
        let admin = self.shown("an admin's token", &["--role", "admin", "-o", "yaml"]).await;
        for token in [&viewer, &operator, &admin] {
            self.run_with(&["get", "applications"], &[("QUIESCE_TOKEN", token)]).await.expect(0);
        }
        self.run_with(&["token", "list"], &[("QUIESCE_TOKEN", &viewer)]).await.expect(1);
        for token in [&viewer, &admin] {
            let mistyped = self.mistyped(token);
            self.run_with(&["get", "applications"], &[("QUIESCE_TOKEN", &mistyped)]).await.expect(1);
        }
        self.run(&["token", "revoke", &viewer]).await.expect(1);
        self.mask_last_command(&viewer);
        let id = viewer.split('.').nth(1).unwrap();
        self.run(&["token", "revoke", id, "--reason", "ann has left"]).await.expect(0);
        self.run_with(&["get", "applications"], &[("QUIESCE_TOKEN", &viewer)]).await.expect(1);
        let (file, _) = self.filed("an operator's token", &["--role", "operator"]).await;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        self.run(&["get", "applications", "--token-file", file.to_str().unwrap()]).await.expect(1);
        (_, self.careless) = self.filed(CARELESS, &["--role", "viewer"]).await;
    }

    /// The name of a place is no place.
    fn mask_last_command(&mut self, token: &str) {
        let place = self.places.last_mut().expect("there is one");
        place.name = place.name.replace(token, "(a token)");
    }

    /// Agents that join, one that may not, and an application on each side.
    async fn join(&mut self) -> (Tap, FreePort) {
        let (join, _) = self.filed("a join token", &["--role", "agent", "--application", "db", "--uses", "2"]).await;
        let other = self.shown("a join token", &["--role", "agent", "--application", "db"]).await;
        let until = self.stack.path("release");
        let mut command = self.program.command(&["--until", until.to_str().unwrap()]);
        let port = FreePort::claim();
        let heard = Tap::plain(port.number()).await;
        let listens = format!("127.0.0.1:{}", port.number());
        let listening = ["--listen", &listens, "--advertise", heard.address(), "--standby"];
        touch(&self.stack.path("drained"));
        let drain = format!("until test -e {}; do sleep 0.01; done", self.stack.path("drained").display());
        let agent = self.agent("b", "b-0", &join).with(&listening).with(&["--drain-command", &drain]);
        let agent = agent.running(command.clone());

        command.extend(["--child-until".to_owned(), format!("/{}", self.careless)]);
        let prints = ["sh", "-c", r#"echo "it is $CARELESS" >&2; exec "$@""#, "sh"].map(str::to_owned);
        let source = self.agent("a", "a-0", &join).with(&["--ready-command", "false"]);
        self.start(source.running(prints.into_iter().chain(command)));
        self.stack.instance_is("a-0", instance::State::Ready).await;
        self.start(agent);
        self.stack.instance_is("b-0", instance::State::Held).await;

        let wrong = self.stack.path("wrong.token");
        let mistyped = self.mistyped(&other);
        quiesce_runtime::secret_file::create(&wrong, &mistyped).unwrap();
        let refused = self.agent("a", "c-0", &wrong).running(["true"]).start();
        refused.wait_for_line("CREDENTIALS_INVALID", SOON).await;
        drop(refused);
        (heard, port)
    }

    fn agent(&self, cluster: &str, instance: &str, join: &Path) -> Agent {
        let mut wrapper = vec!["env".to_owned(), format!("CARELESS={}", self.careless)];
        wrapper.extend(logged(&self.stack, instance));
        let flags = ["--ca", &self.stack.file_text("ca.pem"), "--join-token-file", join.to_str().unwrap()];
        let agent = self.stack.agent(cluster, instance).at(self.wire.address()).within(&words(&wrapper));
        agent.with(&flags).with(&["--log", "trace"])
    }

    fn start(&mut self, agent: Agent) {
        let actor = agent.start();
        self.agents.push((agent, actor));
    }

    /// A migration that is looked at from all sides, with a reason that should not have been written down.
    async fn migration(&mut self) {
        let reason = format!("as ann said: {}", self.careless);
        let migrated = self.run(&["migrate", "db", "--to", "b", "--detach", "-o", "json", "--reason", &reason]).await;
        let name = migrated.expect(0).json()["name"].as_str().unwrap().to_owned();
        self.program.reaches("term", 1).await;
        self.run(&["extend", &name, "--by", "30s"]).await.expect(0);
        self.look_around().await;

        // Tokens of others, and of another time.
        for token in self.wire.tokens("qat1.") {
            let ca = self.stack.file("ca.pem");
            let answer = dial_in(self.stack.port(), &ca, &token).await;
            assert!(answer.contains(HEARD), "{answer}");
            self.places.push(Place::new(Kind::Output, "dialling in with a used token", answer));
        }
        let completion = self.wire.tokens("qct1.").pop_first().expect("there is a shutdown");
        let id = name.replace("operations/", "");
        for (id, reason) in [
            (format!("{id}.7.a-0"), "COMPLETION_TOKEN_INVALID"),
            (format!("{id}.1.b-0"), "COMPLETION_TOKEN_INVALID"),
            (completion.clone(), "ShutdownId"),
        ] {
            let request = serde_json::json!({
                "shutdown_id": id,
                "completion_token": completion,
                "result": {"outcome": "OUTCOME_STOPPED", "evidence": "EVIDENCE_GROUP_EMPTY"},
            });
            let (ann, key) = (self.stack.file_text("ann.pem"), self.stack.file_text("ann.key"));
            let flags = ["-cert", &ann, "-key", &key, "-d", &request.to_string()];
            let ca = self.stack.file("ca.pem");
            let ran = grpcurl(&self.stack, &ca, &flags, &["quiesce.v1.AgentGateway/CompleteShutdown"]).await;
            assert_ne!(ran.code, Some(0), "{reason}");
            self.places.push(Place::new(
                Kind::Output,
                "completing a shutdown",
                format!("{}{}", ran.stdout, ran.stderr),
            ));
        }

        touch(&self.stack.path("release"));
        self.stack.reaches(&name, State::Succeeded, AWAY).await;
    }

    /// A migration that is taken back before the application is told to stop.
    async fn cancellation(&mut self) {
        fs::remove_file(self.stack.path("drained")).unwrap();
        let name = self.stack.begin(&["migrate", "db", "--to", "a"]).await;
        self.stack.reaches(&name, State::Stopping, SOON).await;
        self.run(&["cancel", &name, "--reason", "not today"]).await.expect(0);
        self.stack.reaches(&name, State::Cancelled, AWAY).await;
        touch(&self.stack.path("drained"));
        self.stack.instance_is("b-0", instance::State::Ready).await;
    }

    /// Another key, a migration under it, and the end of the application.
    async fn end(&mut self) {
        self.stack.stop_scheduler().await;
        self.stack.proofs().scheduler.push("--rotate-key".to_owned());
        let logged = logged(&self.stack, "scheduler");
        self.stack.start_scheduler_within(&words(&logged)).await;
        eventually("everybody to be back", AWAY, || async {
            let ran = self.stack.quiesce(&["migrate", "db", "--to", "a", "--dry-run"]).await;
            if ran.code == Some(0) { Ok(()) } else { Err(ran.stderr) }
        })
        .await;
        self.run(&["migrate", "db", "--to", "a"]).await.expect(0);
        self.look_around().await;
        self.run(&["delete", "db"]).await.expect(0);
        self.look_around().await;
    }

    /// Everything that can be asked for, in every form, and everything that can be seen from beside.
    async fn look_around(&mut self) {
        for format in ["table", "json", "yaml"] {
            for kind in KINDS_OF_RESOURCES {
                self.run(&["get", kind, "-o", format]).await.expect(0);
            }
            self.run(&["token", "list", "-o", format]).await.expect(0);
        }
        let operations = self.stack.quiesce(&["get", "operations", "-o", "json"]).await.expect(0).json();
        for operation in operations.as_array().unwrap() {
            self.run(&["describe", "operation", operation["name"].as_str().unwrap()]).await.expect(0);
        }
        // There may be none any more.
        for (kind, name) in [("application", "db"), ("instance", "db/a-0"), ("instance", "db/b-0"), ("cluster", "a")] {
            self.run(&["describe", kind, name]).await;
        }
        self.places.push(Place::new(Kind::Metrics, "/metrics", self.stack.admin("/metrics").await));
        self.processes();
        self.state_directories();
    }

    /// Command lines and environments of what runs.
    fn processes(&mut self) {
        let starts = self.program.of("start").into_iter().map(|entry| entry.pid);
        let agents = self.agents.iter().map(|(_, actor)| actor.pid());
        let mut pids: Vec<_> = starts.chain(agents).filter(|pid| alive(*pid)).collect();
        pids.push(self.stack.scheduler_pid());
        for pid in pids {
            for file in ["cmdline", "environ"] {
                // It may have ended meanwhile.
                let Ok(content) = fs::read(format!("/proc/{pid}/{file}")) else { continue };
                self.places.push(Place::new(Kind::Process, format!("{file} of {pid}"), content));
            }
        }
    }

    fn state_directories(&mut self) {
        let directories: Vec<_> = self.agents.iter().map(|(agent, _)| agent.state_dir()).collect();
        for file in directories.iter().flat_map(|directory| files_below(directory)) {
            let mut place = Place::file(Kind::AgentState, &file);
            if file.ends_with("instance.token") {
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
                let token = fs::read_to_string(&file).unwrap();
                place.shows = Some(self.know("an instance token", &token));
            }
            self.places.push(place);
        }
    }

    /// Ends everything, and reads what is left.
    async fn collect(mut self, watch: Watch) -> (Vec<Secret>, Vec<Place>) {
        let backup = self.stack.path("backup");
        let data = self.stack.data_dir();
        let args = ["store", "backup", backup.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        self.run(&args).await.expect(0);
        let mut watch = watch;
        watch.0.signal(Signal::INT);
        watch.0.ends().await;
        self.places.push(Place::new(Kind::Events, "quiesce watch", watch.0.stdout() + &watch.0.stderr()));
        let careless = self.agents[0].0.state_dir().join("planted");
        for (_, actor) in &mut self.agents {
            // Some are gone with their application.
            if alive(actor.pid()) {
                actor.signal(Signal::TERM);
            }
            actor.ends().await;
        }
        // What no product of ours would do.
        fs::write(careless, &self.careless).unwrap();
        self.state_directories();
        self.stack.stop_scheduler().await;
        self.run(&["store", "check", "--data-dir", data.to_str().unwrap(), "-o", "json"]).await.expect(0);
        let directory = self.stack.directory().to_owned();
        eventually("the last line to be in the logs", SOON, || async { census::running("tee", &directory).is_empty() })
            .await;

        for file in files_below(&self.stack.path("logs")) {
            self.places.push(Place::file(Kind::Log, &file));
        }
        for file in files_below(&data) {
            let kind = if file.to_str().unwrap().contains("audit") { Kind::Audit } else { Kind::Store };
            self.places.push(Place::file(kind, &file));
        }
        self.places.push(Place::file(Kind::Backup, &backup));
        (self.secrets, self.places)
    }

    /// The keys of the tokens, which are known by what they do: whoever has one can make a token that was heard.
    async fn keys(&mut self, completion: &BTreeSet<String>) {
        let file = self.stack.path("backup-for-keys");
        let data = self.stack.data_dir();
        let args = ["store", "backup", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        self.run(&args).await.expect(0);
        let backup = fs::read(file).unwrap();
        let operations = self.stack.quiesce(&["get", "operations", "-o", "json"]).await.expect(0).json();
        let operations: Vec<_> =
            operations.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        let mut found = BTreeSet::new();
        for key in byte_strings(&backup) {
            for name in &operations {
                for instance in ["a-0", "b-0"] {
                    let id = format!("{}.1.{instance}", name.replace("operations/", ""));
                    let mac = completion_mac(key, &id).await;
                    if let Some(token) = completion.iter().find(|token| token.ends_with(&mac)) {
                        found.insert((token.split('.').nth(1).unwrap().to_owned(), key.to_owned()));
                    }
                }
            }
        }
        let numbers: Vec<_> = found.iter().map(|(number, _)| number.as_str()).collect();
        assert_eq!(numbers, ["1", "2"], "the key of before the rotation, and that of afterwards");
        for (number, key) in &found {
            self.secrets.push(Secret::key(format!("the key of the tokens, {number}"), key));
        }
    }
}

/// Byte strings of 32 bytes, as CBOR has them, near what the store calls its keys.
fn byte_strings(store: &[u8]) -> impl Iterator<Item = &[u8]> {
    const NAME: &[u8] = b"secret-key";
    let names = store.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME);
    names.filter_map(|(at, _)| {
        let near = &store[at..store.len().min(at + 128)];
        let found = near.windows(34).find(|window| window.starts_with(&[0x58, 0x20]))?;
        Some(&found[2..])
    })
}

/// What openssl makes of a key and the id of a shutdown, in the form in which tokens have it.
async fn completion_mac(key: &[u8], id: &str) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{hex}"), "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = openssl.stdin.take().expect("standard input is piped");
    stdin.write_all(format!("completion\0{id}\0").as_bytes()).await.unwrap();
    drop(stdin);
    URL_SAFE_NO_PAD.encode(openssl.wait_with_output().await.unwrap().stdout)
}

/// A command that runs another one and keeps all that it says, more than a test could hold in memory, in a file.
fn logged(stack: &Secured, name: &str) -> Vec<String> {
    let log = stack.path("logs").join(name).display().to_string();
    let script = format!(r#"exec "$@" > >(exec tee -a {log}) 2> >(exec tee -a {log} >&2)"#);
    ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn no_secret_shows_in_any_place_and_one_that_is_planted_is_found() {
    let mut story = Story::begin().await;
    let watch = story.stack.watch(&[]);
    watch.is_open().await;
    story.people().await;
    let (hook, _port) = story.join().await;
    story.migration().await;
    story.cancellation().await;
    story.end().await;

    for (prefix, kind, least) in [
        ("qat1.", "an attach token", 1),
        ("qht1.", "a hook token", 1),
        ("qit1.", "an instance token", 2),
        ("qct1.", "a completion token", 3),
    ] {
        let heard: BTreeSet<_> = story.wire.tokens(prefix).into_iter().chain(hook.tokens(prefix)).collect();
        assert!(heard.len() >= least, "{kind}: only {} were heard", heard.len());
        for token in &heard {
            story.know(kind, token);
        }
        if prefix == "qct1." {
            story.keys(&heard).await;
        }
    }
    let (secrets, places) = story.collect(watch).await;
    judge(&secrets, &places);
}

/// That nothing but the careless token was found, and that it was found everywhere.
fn judge(secrets: &[Secret], places: &[Place]) {
    let search = Search::new(secrets);
    let mut leaks = Vec::new();
    let mut careless = BTreeSet::new();
    // What is where it belongs: that proves that the search knows it when it sees it.
    let mut at_home = BTreeSet::new();
    for place in places {
        let finds = search.finds(&place.content);
        if let Some(shows) = &place.shows {
            assert!(finds.iter().any(|find| find.secret == *shows), "{shows} is not found in {}", place.name);
        }
        for find in finds {
            if place.may_show(&find.secret) {
                at_home.insert((place.kind, find.secret.clone()));
            }
            if find.secret == CARELESS {
                careless.insert(place.kind);
            } else if !place.may_show(&find.secret) {
                let (kind, name) = (place.kind, &place.name);
                leaks.push(format!("{kind:?} {name}: {}, {}: {}", find.secret, find.form, place.around(find.at)));
            }
        }
    }
    assert!(leaks.is_empty(), "{} secrets were found: {leaks:#?}", leaks.len());
    for number in 1..=2 {
        for kind in [Kind::Store, Kind::Backup] {
            let key = format!("the key of the tokens, {number}");
            assert!(at_home.contains(&(kind, key.clone())), "{key} is not found in {kind:?}");
        }
    }
    let kinds: BTreeSet<_> = places.iter().map(|place| place.kind).collect();
    assert!(kinds.iter().eq(&KINDS), "not looked at everywhere: {kinds:?}");
    // Names and reasons are no labels of metrics; that there were any is all that can be said of these.
    let metrics = places.iter().filter(|place| place.kind == Kind::Metrics);
    assert!(metrics.into_iter().all(|place| place.content.windows(8).any(|text| text == b"quiesce_")));
    let expected: BTreeSet<_> = KINDS.into_iter().filter(|kind| *kind != Kind::Metrics).collect();
    assert_eq!(careless, expected, "the search does not find what is there");
}
