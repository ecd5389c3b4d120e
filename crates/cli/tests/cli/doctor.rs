//! `quiesce doctor` before setups that are broken in one place each: what it says, and that it says what helps.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quiesce_protocol::v1::{
    AgentsPlacement, Application, Failure, HookInfo, Instance, Placement, ShutdownPlan, failure, hook_info, instance,
    operation, placement, shutdown_plan,
};
use quiesce_runtime::tls::{KeyPair, NamedFile};
use quiesce_scheduler::access::{self, Mode};
use quiesce_scheduler::{Config, RunError, Scheduler, StoreChoice, Tls};
use quiesce_testkit::certificates::{Authority, Pair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake::{Fake, Script};
use crate::run::{Ran, command, operation as migration, quiesce};

/// The findings of a run: `(verdict, subject, what, next)`.
fn findings(ran: &Ran) -> Vec<[String; 4]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let document = ran.json();
    let list = document["findings"].as_array().expect("findings").iter();
    list.map(|one| [text(&one["verdict"]), text(&one["subject"]), text(&one["what"]), text(&one["next"])]).collect()
}

/// That it found this, said what to do about it, and exited accordingly.
#[track_caller]
fn found(ran: &Ran, verdict: &str, subject: &str, what: &str, next: &str) {
    let all = findings(ran);
    let hit = all.iter().any(|[v, s, w, n]| v == verdict && s == subject && w.contains(what) && n.contains(next));
    assert!(hit, "no {verdict} of {subject} with {what:?} and {next:?}: {all:#?}");
    let problems = all.iter().any(|[verdict, ..]| verdict == "problem");
    assert_eq!(ran.code, Some(i32::from(problems)), "{all:#?}");
}

#[track_caller]
fn no_problem(ran: &Ran) {
    let problems: Vec<_> = findings(ran).into_iter().filter(|[verdict, ..]| verdict == "problem").collect();
    assert!(problems.is_empty() && ran.code == Some(0), "{problems:#?}");
}

const JSON: [&str; 3] = ["doctor", "-o", "json"];

struct Served {
    url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Served {
    async fn start(config: Config) -> Self {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let scheduler = Scheduler::bind(config).await.expect("loopback has free ports");
        let url = format!("{scheme}://{}", scheduler.local_addr());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(scheduler.run(async move { drop(stopped.await) }));
        Self { url, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("no panic").expect("it has served");
    }
}

/// A CA, and a scheduler with a certificate of it for `name` until the beginning of `year`.
struct Encrypted {
    directory: TempDir,
    ca: PathBuf,
    served: Served,
}

impl Encrypted {
    async fn start(name: &str, year: i32) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let authority = Authority::new();
        let ca = authority.write(directory.path(), "ca.pem");
        let Pair { certificate, key } = authority.issue_until(&[name], year).write(directory.path(), "scheduler");
        let named = |setting, path| NamedFile { setting, path };
        let own = KeyPair { certificate: named("tls.certificate", certificate), key: named("tls.key", key) };
        let tls = Some(Tls { own, client_ca: Some(named("tls.client_ca", ca.clone())) });
        Self { directory, ca, served: Served::start(Config { tls, ..Config::ephemeral() }).await }
    }

    async fn doctor(&self, url: &str, ca: &Path, more: &[&str]) -> Ran {
        let ca = ["--ca", ca.to_str().expect("text")];
        quiesce(url, &[&JSON[..], &ca, more].concat()).await
    }
}

#[tokio::test]
async fn nobody_listens_and_names_that_lead_nowhere() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    found(&quiesce(&url, &JSON).await, "problem", "port", "nobody listens", "quiesce scheduler");
    let unknown = quiesce("http://nowhere.invalid:7600", &JSON).await;
    found(&unknown, "problem", "name", "nowhere.invalid cannot be resolved", "getent hosts nowhere.invalid");
    found(&quiesce("localhost:7600", &JSON).await, "problem", "address", "is no address", "http://127.0.0.1:7600");
}

#[tokio::test]
async fn a_scheduler_without_anything_is_fine_and_is_told_what_comes_next() {
    let served = Served::start(Config::ephemeral()).await;
    let ran = quiesce(&served.url, &JSON).await;
    no_problem(&ran);
    for (subject, what) in [
        ("port", "accepts connections"),
        ("tls", "none is needed on loopback"),
        ("scheduler", env!("CARGO_PKG_VERSION")),
        ("clock", "agree on the time"),
        ("health", "its store takes changes"),
        ("access", "open: everybody on this machine"),
    ] {
        found(&ran, "ok", subject, what, "");
    }
    found(&ran, "warning", "applications", "there are none", "quiesce agent");
    let people = quiesce(&served.url, &["doctor"]).await.expect(0);
    assert!(
        people.stdout.contains("-> start an agent") && people.stdout.contains("no problem, 1 warning"),
        "{}",
        people.stdout
    );
    found(
        &quiesce(&served.url, &[&JSON[..], &["nobody"]].concat()).await,
        "problem",
        "nobody",
        "no such application",
        "get applications",
    );
    served.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_told_apart() {
    let world = Encrypted::start("127.0.0.1", 4000).await;
    let url = world.served.url.clone();
    let good = world.doctor(&url, &world.ca, &[]).await;
    no_problem(&good);
    found(&good, "ok", "tls", "the certificate of 127.0.0.1 is good until 4000-01-01", "");

    let other = Authority::new().write(world.directory.path(), "other.pem");
    let wrong = world.doctor(&url, &other, &[]).await;
    found(&wrong, "problem", "tls", "not signed by a CA that is trusted here", "--ca FILE");
    let name = url.replace("127.0.0.1", "localhost");
    let wrong = world.doctor(&name, &world.ca, &[]).await;
    found(&wrong, "problem", "tls", "the certificate of localhost is for 127.0.0.1", "quiesce pki issue DIR localhost");
    let plain = quiesce(&url.replace("https", "http"), &JSON).await;
    found(&plain, "problem", "tls", "speaks TLS, and was asked without", "write https://127.0.0.1");
    let missing = world.doctor(&url, Path::new("does-not-exist.pem"), &[]).await;
    found(&missing, "problem", "ca", "does-not-exist.pem", "--ca FILE");

    let stranger = Authority::new().issue(&["spiffe://example.org/ann"]).write(world.directory.path(), "stranger");
    let (certificate, key) = (stranger.certificate.to_str().unwrap(), stranger.key.to_str().unwrap());
    let refused = world.doctor(&url, &world.ca, &["--cert", certificate, "--key", key]).await;
    found(&refused, "problem", "scheduler", "refuses the certificate of --cert", "");
    fs::set_permissions(&stranger.key, Permissions::from_mode(0o644)).unwrap();
    let open = world.doctor(&url, &world.ca, &["--cert", certificate, "--key", key]).await;
    found(&open, "problem", "key", "others have access to", "chmod 600");
    world.served.stop().await;

    let expired = Encrypted::start("127.0.0.1", 2001).await;
    let ran = expired.doctor(&expired.served.url, &expired.ca, &[]).await;
    found(&ran, "problem", "tls", "the certificate of 127.0.0.1 has expired", "quiesce pki issue DIR 127.0.0.1");

    let open = Served::start(Config::ephemeral()).await;
    let ran = expired.doctor(&open.url.replace("http", "https"), &expired.ca, &[]).await;
    found(&ran, "problem", "tls", "speaks no TLS on this port", "write http://127.0.0.1");
    open.stop().await;
    expired.served.stop().await;
}

#[tokio::test]
async fn who_calls_is_told_what_he_may_do() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let admin = data.join("admin.token");
    let mut config = Config { store: StoreChoice::Embedded { directory: data.clone() }, ..Config::ephemeral() };
    config.access =
        access::Config { mode: Mode::Enforced, admin_token_file: Some(admin.clone()), ..access::Config::open() };
    let served = Served::start(config).await;
    let url = served.url.as_str();
    found(&quiesce(url, &JSON).await, "problem", "access", "nobody was named", "--token-file");
    let with =
        async |token: &Path| quiesce(url, &[&JSON[..], &["--token-file", token.to_str().unwrap()]].concat()).await;
    let ran = with(&admin).await;
    no_problem(&ran);
    found(&ran, "ok", "access", "you are an admin", "");

    let document = directory.path().join("db.yaml");
    fs::write(&document, "kind: Application\nname: db\ncluster: a\n").unwrap();
    let admin_flag = ["--token-file", admin.to_str().unwrap()];
    quiesce(url, &[&["apply", "-f", document.to_str().unwrap()][..], &admin_flag].concat()).await.expect(0);
    let viewer = directory.path().join("viewer.token");
    let create = ["token", "create", "--role", "viewer", "--out", viewer.to_str().unwrap()];
    quiesce(url, &[&create[..], &admin_flag].concat()).await.expect(0);
    let ran = with(&viewer).await;
    found(&ran, "problem", "db", "it has no instance", "quiesce agent --application db --cluster a");

    fs::set_permissions(&viewer, Permissions::from_mode(0o644)).unwrap();
    found(&with(&viewer).await, "problem", "token", "others have access", "chmod 600");
    let bad = directory.path().join("bad.token");
    fs::write(&bad, "qbt1.nonsense.nonsense").unwrap();
    fs::set_permissions(&bad, Permissions::from_mode(0o600)).unwrap();
    let ran = with(&bad).await;
    found(&ran, "problem", "access", "does not know this token", "quiesce token create");
    assert!(!ran.stdout.contains("nonsense") && !ran.stderr.contains("nonsense"));

    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let here = quiesce(url, &[&JSON[..], &admin_flag, &["--data-dir", data.to_str().unwrap()]].concat()).await;
    found(&here, "problem", "data", "others have access", "chmod 700");
    let nowhere = quiesce(url, &[&JSON[..], &admin_flag, &["--data-dir", "does-not-exist"]].concat()).await;
    found(&nowhere, "problem", "data", "does-not-exist", "--data-dir");
    served.stop().await;
}

fn application(name: &str) -> Application {
    Application {
        name: format!("applications/{name}"),
        cluster: "a".to_owned(),
        placement: Some(Placement { driver: Some(placement::Driver::Agents(AgentsPlacement {})) }),
        ..Application::default()
    }
}

fn instance_of(name: &str, state: instance::State, cluster: &str) -> Instance {
    let (application, _) = name.split_once('-').expect("an instance is called after its application");
    Instance {
        name: format!("applications/{application}/instances/{name}"),
        cluster: cluster.to_owned(),
        state: state.into(),
        ..Instance::default()
    }
}

#[tokio::test]
async fn hooks_that_are_down_copies_in_the_wrong_place_and_what_waits_are_found() {
    use instance::State;
    let mut down = instance_of("db-0", State::Unreachable, "a");
    down.unreachable_reason = "its certificate is for another name".to_owned();
    let mut cannot = instance_of("web-0", State::NotReady, "a");
    cannot.hook = Some(HookInfo { not_ready_reason: "no permission to signal".to_owned(), ..HookInfo::default() });
    let mut stray = instance_of("cache-0", State::Ready, "c");
    stray.hook = Some(HookInfo { app_state: hook_info::AppState::Running.into(), ..HookInfo::default() });
    let mut missing = application("queue");
    missing.expected_instances = Some(3);
    let mut restored = application("old");
    restored.restore_time = Some(prost_types::Timestamp::default());
    let mut degraded = migration(operation::State::Degraded);
    degraded.failure = Some(Failure { reason: failure::Reason::GraceTimeout.into(), ..Failure::default() });
    let mut waits = migration(operation::State::Stopped);
    (waits.name, waits.awaiting_confirmation) = ("operations/op-2".to_owned(), true);
    let script = Script {
        applications: vec![
            application("db"),
            application("web"),
            application("cache"),
            missing,
            restored,
            application("gone"),
        ],
        instances: vec![
            down,
            cannot,
            stray,
            instance_of("queue-0", State::Ready, "a"),
            instance_of("old-0", State::Ready, "a"),
        ],
        operations: vec![degraded, waits],
        ..Script::default()
    };
    let fake = Fake::start(script).await;
    let ran = quiesce(&fake.url, &JSON).await;
    found(&ran, "problem", "db/db-0", "its certificate is for another name", "quiesce forget db/db-0");
    found(&ran, "problem", "web/web-0", "no permission to signal", "quiesce describe instance web/web-0");
    found(
        &ran,
        "problem",
        "cache/cache-0",
        "it runs on c, and cache belongs on a",
        "quiesce describe application cache",
    );
    found(&ran, "problem", "queue", "1 of 3 instances", "start the missing agents");
    found(&ran, "problem", "old", "restored from a backup", "quiesce readmit old");
    found(&ran, "problem", "gone", "it has no instance", "quiesce delete gone --force");
    found(&ran, "problem", "op-1", "rests in DEGRADED: GRACE_TIMEOUT", "quiesce retry op-1");
    found(&ran, "warning", "op-2", "your part", "quiesce confirm op-2");
    assert!(fake.script().deletions.iter().all(|request| request.validate_only), "it changes nothing");
}

#[tokio::test]
async fn a_rehearsal_says_what_the_hooks_object_to() {
    let step = |instance: &str, ok, findings: &[&str]| shutdown_plan::Step {
        instance: format!("applications/db/instances/{instance}"),
        reachable: true,
        ok: Some(ok),
        findings: findings.iter().map(|finding| (*finding).to_owned()).collect(),
        ..shutdown_plan::Step::default()
    };
    let plan = ShutdownPlan {
        steps: vec![step("db-0", false, &["SIGTERM is ignored"])],
        starts: vec![step("db-b", true, &["the command is slow"])],
        warnings: vec!["strategy FORCE, but two hooks cannot kill".to_owned()],
        ..ShutdownPlan::default()
    };
    let script = Script {
        applications: vec![application("db")],
        instances: vec![
            instance_of("db-0", instance::State::Ready, "a"),
            instance_of("db-b", instance::State::Held, "b"),
        ],
        plan,
        ..Script::default()
    };
    let fake = Fake::start(script).await;
    let ran = quiesce(&fake.url, &JSON).await;
    found(
        &ran,
        "problem",
        "db/db-0",
        "a stop would not work: SIGTERM is ignored",
        "quiesce migrate db --to b --dry-run",
    );
    found(&ran, "warning", "db/db-b", "a start would work, but: the command is slow", "");
    found(&ran, "warning", "db", "two hooks cannot kill", "");
    assert!(fake.script().migrations.iter().all(|request| request.validate_only), "it changes nothing");
    fake.script().plan = ShutdownPlan { steps: vec![step("db-0", true, &[])], ..ShutdownPlan::default() };
    let ran = quiesce(&fake.url, &JSON).await;
    found(&ran, "ok", "db", "it could be moved to b now", "");
    // What has been said of the instance is not said again, and nothing is said for a hook that did not answer.
    fake.script().instances[0].state = instance::State::Unreachable.into();
    fake.script().plan.steps[0].reachable = false;
    let ran = quiesce(&fake.url, &JSON).await;
    let about_db: Vec<_> = findings(&ran).into_iter().filter(|[_, subject, ..]| subject.starts_with("db")).collect();
    assert!(about_db.len() == 1 && about_db[0][2].contains("its hook is not reached"), "{about_db:#?}");
    // As a viewer.
    let denied = crate::fake::refusal("CALLER_NOT_ALLOWED", tonic::Code::PermissionDenied, "no", &[]);
    fake.script().refusals.push_back(denied);
    let mut asked = command(&fake.url, &JSON);
    asked.env("QUIESCE_TOKEN", "a-viewers");
    found(&crate::run::ran(asked).await, "warning", "access", "you are a viewer", "--token-file");
}
