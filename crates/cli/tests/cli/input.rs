//! Wrong words on the command line: every command, every flag and argument that takes a value.
//!
//! A flag or argument that is new fails here until it has a row, since the rows are held against what `--help` lists.
//! Commands of a client are asked against a real scheduler, so that what is said is what people see.

use std::collections::BTreeSet;
use std::path::Path;

use quiesce_scheduler::{Config, RunError, Scheduler};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::run::{Ran, command, quiesce, ran};

/// Wrong usage, found without asking anybody.
const USAGE: i32 = 2;
/// Refused by the scheduler, or something that is not there.
const REFUSED: i32 = 1;
/// A configuration of the scheduler that cannot be used.
const CONFIGURATION: i32 = 64;

/// A command with one thing wrong: what the row is about, the words, the exit code, and what has to be said.
struct Row {
    command: &'static str,
    about: &'static str,
    words: Vec<String>,
    code: i32,
    says: &'static str,
}

fn row(command: &'static str, about: &'static str, words: &str, code: i32, says: &'static str) -> Row {
    let words = words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    Row { command, about, words, code, says }
}

/// Flags and arguments of which every text is fine.
const FREE: &[(&str, &str, &str)] = &[
    ("agent", "<CMD>", "a command that does not exist is an end like another (exit code 127)"),
    ("doctor", "[APP]", "an application that is not there is a finding, see doctor.rs"),
    ("doctor", "--data-dir", "so is a directory"),
];

/// Flags of all commands of a client; one stands for all.
const COMMON: &[&str] = &["--scheduler", "--token-file", "--ca", "--cert", "--key", "--output"];

fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("apply", "--file", "--file does-not-exist", REFUSED, "cannot read does-not-exist"),
        row("get", "<KIND>", "pods", USAGE, "'pods' for '<KIND>'"),
        row("get", "[NAME]", "applications Db", REFUSED, "name: `Db` is not an application name"),
        row("get", "[NAME]", "clusters a/b", REFUSED, "name: `a/b` is not a cluster name"),
        row("get", "[NAME]", "operations Op", REFUSED, "name: `Op` is not an operation name"),
        row("get", "[NAME]", "instances db/Db-0", REFUSED, "name: `Db-0` is not an instance name"),
        row("get", "[NAME]", "instances nobody", REFUSED, "no application has an instance of that name"),
        row("get", "--filter", "applications --filter colour=blue", REFUSED, "`colour` is not a field here"),
        row("get", "--filter", "operations op-1 --filter name=a", USAGE, "--filter"),
        row("get", "--output", "applications --output xml", USAGE, "'xml' for '--output"),
        row(
            "get",
            "--scheduler",
            "applications --scheduler nowhere",
            REFUSED,
            "\"nowhere\" is no address of a scheduler",
        ),
        row("get", "--token-file", "applications --token-file does-not-exist", REFUSED, "cannot read does-not-exist"),
        row("get", "--scheduler", "applications --scheduler http://[", REFUSED, "is no address of a scheduler"),
        row("get", "--ca", "applications --ca x.pem", REFUSED, "--ca is for a scheduler that speaks TLS"),
        row(
            "get",
            "--ca",
            "applications --scheduler https://127.0.0.1:1 --ca does-not-exist.pem",
            REFUSED,
            "cannot read does-not-exist.pem (--ca)",
        ),
        row("get", "--cert", "applications --scheduler https://x --cert x.pem", REFUSED, "--cert needs the key"),
        row("get", "--key", "applications --scheduler https://x --key x.key", REFUSED, "--key needs the certificate"),
        row("describe", "<KIND>", "pods x", USAGE, "'pods' for '<KIND>'"),
        row("describe", "<NAME>", "application Db", REFUSED, "name: `Db` is not an application name"),
        row("migrate", "--to", "db --to a!b", REFUSED, "target_cluster: `a!b` is not a cluster name"),
        row("migrate", "--to", "db --to a", REFUSED, "ALREADY_ON_TARGET"),
        row("watch", "[OPERATION]", "Op", REFUSED, "name: `Op` is not an operation name"),
        row("watch", "--since", "--since garbage", REFUSED, "INVALID_RESUME_TOKEN"),
        row("watch", "--filter", "--filter state=DEGRADED", REFUSED, "`state` is not a field here"),
        row("watch", "--timeout", "--timeout soon", USAGE, "'soon' for '--timeout"),
        row("extend", "--by", "op-1 --by 30", USAGE, "write 90s, 1m30s or 2h"),
        row("extend", "--by", "op-1 --by 8d", USAGE, "longer than 7 days"),
        row("forget", "<INSTANCE>", "db/Db-0", REFUSED, "name: `Db-0` is not an instance name"),
        row("readmit", "[APP]", "Db", REFUSED, "name: `Db` is not an application name"),
        row("readmit", "--cluster", "db --cluster a/b", REFUSED, "cluster: `a/b` is not a cluster name"),
        row("completions", "<SHELL>", "cmd", USAGE, "'cmd' for '<SHELL>'"),
        row("completions", "--program", "bash --program sh", USAGE, "'sh' for '--program"),
        row("man", "<DIR>", "/dev/null/x", REFUSED, "cannot write /dev/null/x"),
        row("top", "--filter", "--filter state=", REFUSED, "quiesce top needs a terminal"),
    ];
    for command in ["migrate", "delete"] {
        let to = if command == "migrate" { "--to b" } else { "" };
        let with = |about, words: &str, code, says| row(command, about, &format!("{to} {words}"), code, says);
        rows.extend([
            with("<APP>", "Db", REFUSED, "name: `Db` is not an application name"),
            with("<APP>", "nobody", REFUSED, "APPLICATION_NOT_FOUND"),
            with("--request-id", "db --request-id a/b", REFUSED, "request_id: must be 1 to 64 characters"),
            with("--reason", &format!("db --reason {}", "x".repeat(5000)), REFUSED, "reason: must have at most 4096"),
            with("--timeout", "db --timeout soon", USAGE, "'soon' for '--timeout"),
        ]);
        rows.extend(policy(command, &format!("{to} db")));
    }
    for command in ["cancel", "retry", "confirm", "extend"] {
        let by = if command == "extend" { "--by 30s" } else { "" };
        let name = |operation: &str| format!("{operation} {by}");
        rows.extend([
            row(command, "<OPERATION>", &name("Op"), REFUSED, "name: `Op` is not an operation name"),
            row(command, "<OPERATION>", &name("op-1"), REFUSED, "OPERATION_NOT_FOUND"),
        ]);
        // What is extended is looked up first.
        let says = if command == "extend" { "OPERATION_NOT_FOUND" } else { "reason: must have at most 4096" };
        rows.push(row(command, "--reason", &name(&format!("op-1 --reason {}", "x".repeat(5000))), REFUSED, says));
    }
    rows.push(row("retry", "--request-id", "op-1 --request-id a/b", REFUSED, "request_id: must be 1 to 64"));
    rows.extend(policy("retry", "op-1"));
    rows.extend(scheduler());
    rows.extend(agent());
    rows
}

/// Flags that override the policy.
fn policy(command: &'static str, rest: &str) -> Vec<Row> {
    let with = |about, value: &str, code, says| row(command, about, &format!("{rest} {about} {value}"), code, says);
    vec![
        with("--grace-period", "soon", USAGE, "'soon' for '--grace-period"),
        with("--grace-period", "25h", REFUSED, "policy.grace_period: must be between"),
        with("--max-extension", "1x", USAGE, "'1x' for '--max-extension"),
        with("--max-extension", "25h", REFUSED, "policy.max_extension: must be between"),
        with("--start-timeout", "30", USAGE, "'30' for '--start-timeout"),
        with("--start-timeout", "1ms", REFUSED, "policy.start_timeout: must be between"),
        with("--attempts", "many", USAGE, "'many' for '--attempts"),
        with("--attempts", "0", REFUSED, "policy.retry.max_attempts: must be between 1 and 100"),
    ]
}

fn scheduler() -> Vec<Row> {
    let with = |about, value: &str, says| {
        row("scheduler", about, &format!("--store memory {about} {value}"), CONFIGURATION, says)
    };
    vec![
        with("--config", "does-not-exist.toml", "cannot read does-not-exist.toml"),
        with("--listen", "nowhere", "listen = \"nowhere\" is not an address"),
        with("--listen", "0.0.0.0:0", "--insecure"),
        with("--admin-listen", "nowhere", "admin_listen = \"nowhere\" is not an address"),
        row("scheduler", "--store", "--store paper", CONFIGURATION, "store = \"paper\" is not known"),
        row(
            "scheduler",
            "--data-dir",
            "--listen 127.0.0.1:0 --admin-listen off --data-dir /dev/null/x",
            REFUSED,
            "/dev/null/x",
        ),
        with("--etcd-endpoints", "http://127.0.0.1:1", "etcd_endpoints are for store = \"etcd\""),
        with("--attach-endpoint", "nowhere", "attach_endpoint = \"nowhere\" is not host:port"),
        with("--web-origins", "https://a.net,https://b.net/", "web.origins: \"https://b.net/\" must be scheme"),
        with("--access", "maybe", "access.mode = \"maybe\" is not known"),
        row(
            "scheduler",
            "--audit",
            "--store memory --listen 127.0.0.1:0 --admin-listen off --audit /dev/null/x",
            REFUSED,
            "/dev/null/x",
        ),
        with("--admin-listen", "0.0.0.0:0", "--insecure"),
        with("--tls-cert", "cert.pem", "tls.key is not set"),
        with("--tls-key", "key.pem", "tls.certificate is not set"),
        with("--tls-client-ca", "ca.pem", "tls.certificate is not set"),
        row(
            "scheduler",
            "--tls-cert",
            "--store memory --listen 127.0.0.1:0 --admin-listen off --tls-cert does-not-exist.pem --tls-key key.pem",
            REFUSED,
            "cannot read does-not-exist.pem (tls.certificate)",
        ),
        row(
            "scheduler",
            "--tls-hook-ca",
            "--store memory --listen 127.0.0.1:0 --admin-listen off --tls-hook-ca does-not-exist.pem",
            REFUSED,
            "cannot read does-not-exist.pem (tls.hook_ca)",
        ),
        row("scheduler", "--web-page", "--web-page=maybe", USAGE, "'maybe' for '--web-page"),
        with("--web-page", "--admin-listen off", "web.page is on, and admin_listen"),
        row("scheduler", "--insecure", "--insecure=maybe", USAGE, "'maybe' for '--insecure"),
        with("--log", "quiesce=loud", "log.filter: "),
        with("--log-format", "xml", "log.format: "),
    ]
}

fn agent() -> Vec<Row> {
    let with = |about, words: &str, says| {
        row("agent", about, &format!("--application db --cluster a {words} -- true"), USAGE, says)
    };
    let value = |about: &'static str, value: &str, says| with(about, &format!("{about} {value}"), says);
    vec![
        row("agent", "--application", "--application Db --cluster a -- true", USAGE, "application name \"Db\" must be"),
        row("agent", "--cluster", "--application db --cluster a! -- true", USAGE, "cluster name \"a!\" must be"),
        value("--instance", "Db", "instance name \"Db\" must be"),
        value("--join-token-file", "/dev/null", "--join-token-file: others have access to /dev/null"),
        Row { code: REFUSED, ..value("--scheduler", "nowhere", "must begin with http:// or https://") },
        value("--ca", "x.pem", "is for a scheduler at https://"),
        Row {
            code: REFUSED,
            ..with("--ca", "--scheduler https://127.0.0.1:1 --ca does-not-exist", "cannot read does-not-exist (--ca)")
        },
        value("--cert", "x.pem", "--key"),
        value("--key", "x.key", "--cert"),
        with("--cert", "--cert x.pem --key x.key", "or a hook with --listen HOST:PORT"),
        with("--cert", "--cert x.pem --key x.key --listen unix:/x", "or a hook with --listen HOST:PORT"),
        Row {
            code: REFUSED,
            ..with("--cert", "--cert x.pem --key x.key --listen 127.0.0.1:0", "cannot read x.pem (--cert)")
        },
        value("--hook-client-ca", "ca.pem", "--listen"),
        with("--hook-client-ca", "--listen 127.0.0.1:0 --hook-client-ca ca.pem", "--cert"),
        with(
            "--hook-client-ca",
            "--scheduler https://a:1 --cert x.pem --key x.key --listen unix:/x --hook-client-ca ca.pem",
            "a unix socket can be opened by its owner alone",
        ),
        with("--listen", "--listen 10.0.0.7:0", "say --insecure if the network is trusted"),
        value("--listen", "nowhere", "--listen \"nowhere\" is neither HOST:PORT nor unix:/PATH"),
        with("--advertise", "--advertise a:1", "--listen"),
        with("--advertise", "--listen 0.0.0.0:0 --advertise nowhere", "--advertise \"nowhere\" is not HOST:PORT"),
        Row { code: REFUSED, ..value("--state-dir", "/dev/null/x", "/dev/null/x") },
        value("--start", "maybe", "'maybe' for '--start"),
        value("--stop-signal", "SIGKILL", "'SIGKILL' for '--stop-signal"),
        value("--stop-signal", "SIGINT:soon,SIGTERM", "--stop-signal"),
        with("--stop-command", "--stop-command=", "--stop-command"),
        value("--stop-url", "shutdown", "\"shutdown\" is no URL"),
        value("--stop-url", "https://127.0.0.1:10000/shutdown", "does not begin with http://"),
        value("--stop-url", "http://10.0.0.1:10000/shutdown", "is not on loopback"),
        value("--stop-url", "http://127.0.0.1:10000", "has no path, such as /shutdown"),
        with("--stop-url", "--stop-url http://127.0.0.1:1/x --stop-signal SIGINT", "cannot be used with"),
        with("--stop-url", "--stop-url http://127.0.0.1:1/x --stop-command true", "cannot be used with"),
        with("--drain-command", "--drain-command=", "--drain-command"),
        with("--ready-command", "--ready-command=", "--ready-command"),
        value("--ready-tcp", "80", "--ready-tcp \"80\" is not HOST:PORT"),
        value("--grace-period", "soon", "'soon' for '--grace-period"),
        value("--grace-period", "25h", "--grace-period is longer than 1day"),
        value("--max-extension", "1x", "'1x' for '--max-extension"),
        value("--success-exit-code", "fine", "'fine' for '--success-exit-code"),
        value("--stop-order", "first", "'first' for '--stop-order"),
        value("--label", "x", "--label \"x\" is not KEY=VALUE"),
        value("--log", "quiesce=loud", "quiesce=loud"),
        value("--log-format", "xml", "'xml' for '--log-format"),
    ]
}

/// A scheduler of this process, with nothing in it.
struct Running {
    url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start() -> Self {
        let scheduler = Scheduler::bind(Config::ephemeral()).await.expect("loopback has free ports");
        let url = format!("http://{}", scheduler.local_addr());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(scheduler.run(async move { drop(stopped.await) }));
        Self { url, stop, task }
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("no panic").expect("it has served");
    }
}

#[tokio::test]
async fn wrong_words_are_named_and_change_nothing() {
    let scheduler = Running::start().await;
    let url = scheduler.url.clone();
    let state = tempfile::tempdir().unwrap();
    apply(&url, state.path(), "kind: Application\nname: db\ncluster: a\n").await;
    let everything = async || {
        let mut lists = Vec::new();
        for kind in ["applications", "instances", "operations", "clusters"] {
            lists.push(quiesce(&url, &["get", kind, "-o", "json"]).await.json());
        }
        lists
    };
    let before = everything().await;
    let mut problems = Vec::new();
    for Row { command: name, words, code, says, .. } in rows() {
        let mut command = command(&url, &[name]);
        command.args(&words).env("XDG_STATE_HOME", state.path());
        let Ran { code: exit, stdout, stderr } = ran(command).await;
        if exit != Some(code) || !stderr.contains(says) || !stdout.is_empty() {
            let words = words.join(" ");
            problems
                .push(format!("{name} {words:.200}: {exit:?} instead of {code} with {says:?}: {stdout}{stderr:.600}"));
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert_eq!(everything().await, before, "nothing has changed");
    scheduler.stop().await;
}

#[tokio::test]
async fn every_flag_and_argument_that_takes_a_value_has_a_row() {
    let help = quiesce("http://127.0.0.1:1", &["--help"]).await.stdout;
    let mut missing = Vec::new();
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    for command in section(&help, "Commands:").filter_map(|line| line.split_whitespace().next()) {
        let help = quiesce("http://127.0.0.1:1", &[command, "--help"]).await.stdout;
        known.extend(values(&help).into_iter().map(|value| (command.to_owned(), value)));
    }
    assert!(known.len() > 50, "only {known:?}: help is not read any more");
    let rows = rows();
    let common =
        |value: &str| COMMON.contains(&value) && rows.iter().any(|row| row.command == "get" && row.about == value);
    for (command, value) in &known {
        let row = rows.iter().any(|row| row.command == command && row.about == value);
        let free = FREE.iter().any(|(of, about, _why)| of == command && about == value);
        if !(row || free || common(value)) {
            missing.push(format!("{command} {value} has no row"));
        }
    }
    let named = rows.iter().map(|row| (row.command, row.about)).chain(FREE.iter().map(|(of, about, _)| (*of, *about)));
    for (command, about) in named {
        if !known.contains(&(command.to_owned(), about.to_owned())) {
            missing.push(format!("{command} {about} is not there any more: remove its row"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The lines of a section of `--help` that name something: those that are indented by two.
fn section<'a>(help: &'a str, title: &'static str) -> impl Iterator<Item = &'a str> {
    let lines = help.lines().skip_while(move |line| *line != title).skip(1);
    lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  ") && !line.starts_with("   "))
}

/// Flags that take a value, and arguments, as `--help` shows them.
fn values(help: &str) -> Vec<String> {
    let mut values = Vec::new();
    for line in help.lines().map(str::trim_start) {
        if line.starts_with('-') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let flag = words
                .windows(2)
                .find(|pair| pair[0].starts_with("--") && pair[1].trim_start_matches('[').starts_with('<'));
            values.extend(flag.map(|pair| pair[0].to_owned()));
            let glued = words.iter().find(|word| word.starts_with("--") && word.contains("[=<"));
            values.extend(glued.and_then(|word| word.split('[').next()).map(str::to_owned));
        } else if line.starts_with(['<', '[']) {
            let argument = line.split_whitespace().next().unwrap_or_default().trim_end_matches('.');
            // "[default: ..]" and the like end a description.
            if argument.ends_with(['>', ']']) && argument.chars().filter(|c| c.is_alphabetic()).all(char::is_uppercase)
            {
                values.push(argument.to_owned());
            }
        }
    }
    values
}

/// Applies a document.
async fn apply(url: &str, directory: &Path, document: &str) -> Ran {
    let path = directory.join("document.yaml");
    std::fs::write(&path, document).expect("the directory is ours");
    quiesce(url, &["apply", "--file", path.to_str().expect("temporary paths are text")]).await
}

#[tokio::test]
async fn documents_are_refused_by_field() {
    let scheduler = Running::start().await;
    let url = scheduler.url.clone();
    let directory = tempfile::tempdir().unwrap();
    for (document, says) in [
        ("name: db", "kind: missing"),
        ("kind: Application\ncluster: a", "name: missing"),
        ("kind: Application\nname: Db\ncluster: a", "name: `Db` is not an application name"),
        ("kind: Application\nname: db", "application.cluster: must be set"),
        ("kind: Application\nname: db\ncluster: a!", "application.cluster: `a!` is not a cluster name"),
        ("kind: Application\nname: db\ncluster: [a]", "Application: cluster: "),
        ("kind: Application\nname: db\ncluster: a\ncolour: blue", "Application: colour: no such field"),
        ("kind: Application\nname: db\ncluster: a\nexpectedInstances: -1", "application.expected_instances: "),
        ("kind: Application\nname: db\ncluster: a\nlabels: {\"a\\nb\": c}", "application.labels: "),
        ("kind: Application\nname: db\ncluster: a\npolicy: {gracePeriod: soon}", "policy.gracePeriod: \"soon\": "),
        ("kind: Application\nname: db\ncluster: a\npolicy: {gracePeriod: 25h}", "application.policy.grace_period: "),
        ("kind: Application\nname: db\ncluster: a\npolicy: {failureStrategy: MAYBE}", "policy.failureStrategy: "),
        ("kind: Application\nname: db\ncluster: a\nplacement: {moon: {}}", "placement.moon: no such field"),
        ("kind: Cluster\nname: a b", "name: `a b` is not a cluster name"),
    ] {
        let ran = apply(&url, directory.path(), document).await;
        assert_eq!(ran.code, Some(REFUSED), "{document}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{document}: {says:?} is not said: {}", ran.stderr);
    }
    let minute = "kind: Application\nname: db\ncluster: a\npolicy: {gracePeriod: 1m, retry: {maxBackoff: 1m30s}}\n";
    assert_eq!(apply(&url, directory.path(), minute).await.stdout, "applications/db created\n");
    let written = quiesce(&url, &["get", "application", "db", "-o", "json"]).await.json();
    assert_eq!(
        (&written["policy"]["gracePeriod"], &written["policy"]["retry"]["maxBackoff"]),
        (&"60s".into(), &"90s".into())
    );
    scheduler.stop().await;
}
