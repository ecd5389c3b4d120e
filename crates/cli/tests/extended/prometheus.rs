//! What `deploy/observability` asks of our metrics, asked by a real Prometheus: every query of the dashboard and every
//! series an alert looks at is there, the alert about DEGRADED fires and says what to type, and goes away.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::program::Program;
use crate::secured::{Maker, Secured};
use crate::stack::{Actor, SOON, Stack, touch};

/// In the place of what Grafana puts there: long enough for two scrapes.
const VARIABLES: [(&str, &str); 2] = [("$__rate_interval", "1m"), ("$instance", ".*")];

/// A Prometheus that scrapes one scheduler every second.
struct Prometheus {
    port: FreePort,
    _process: Actor,
}

impl Prometheus {
    async fn start(stack: &Stack) -> Self {
        let port = FreePort::claim();
        let config = stack.path("prometheus.yml");
        let scheduler = format!("127.0.0.1:{}", stack.admin_port());
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  \
             - job_name: quiesce\n    static_configs: [{{targets: [\"{scheduler}\"]}}]\n",
            file("alerts.yaml").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", stack.path("prometheus").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .current_dir(stack.directory());
        let prometheus = Self { port, _process: Actor::start("prometheus", command) };
        eventually("prometheus to be ready", SOON, || async {
            prometheus.try_get("/-/ready").await.filter(|answer| answer.starts_with("HTTP/1.0 200"))
        })
        .await;
        prometheus
    }

    /// The whole answer. HTTP/1.0, so that it is not in chunks.
    async fn try_get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port.number())).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn api(&self, path: &str) -> Value {
        let answer = self.try_get(path).await.expect("prometheus answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}"))
    }

    /// The series that a query returns.
    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let answer = self.api(&format!("/api/v1/query?query={}", encoded(query))).await;
        match answer["data"]["result"].as_array() {
            Some(found) if !found.is_empty() => Ok(found.clone()),
            Some(_) | None => Err(format!("{query}: {answer}")),
        }
    }

    /// Waits until all of them return something.
    async fn answers(&self, queries: &BTreeSet<String>) {
        eventually("every query to return series", SOON, || async {
            let mut silent = Vec::new();
            for query in queries {
                silent.extend(self.query(query).await.err());
            }
            if silent.is_empty() { Ok(()) } else { Err(silent.join("\n")) }
        })
        .await;
    }

    /// The alert of that name, if it fires.
    async fn fires(&self, name: &str) -> Option<Value> {
        let alerts = self.api("/api/v1/alerts").await;
        let alerts = alerts["data"]["alerts"].as_array().expect("a list").clone();
        alerts.into_iter().find(|alert| alert["labels"]["alertname"] == name && alert["state"] == "firing")
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/observability").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").unwrap();
        encoded
    })
}

/// What the panels of the dashboard ask.
fn dashboard_queries() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expression = |target: &Value| target["expr"].as_str().unwrap().to_owned();
    targets
        .map(expression)
        .map(|query| VARIABLES.iter().fold(query, |query, (name, value)| query.replace(name, value)))
        .collect()
}

/// What the alerts look at: an alert that finds nothing is silent for the right reason only if these are there.
fn alert_series() -> BTreeSet<String> {
    let rules = read("alerts.yaml");
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    expressions.flat_map(selectors).collect()
}

/// The names of series in an expression, each with its matchers.
fn selectors(expression: &str) -> Vec<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("quiesce_").or_else(|| rest.find("up{")) {
        rest = &rest[at..];
        let name = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        let end = match rest[name..].strip_prefix('{') {
            Some(matchers) => name + 2 + matchers.find('}').expect("matchers end"),
            None => name,
        };
        found.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    found
}

/// The listings that alerts tell to type next.
fn listings() -> Vec<Vec<String>> {
    let rules = read("alerts.yaml").split_whitespace().collect::<Vec<_>>().join(" ");
    let next = rules.split("Next: quiesce ").skip(1).filter_map(|rest| rest.split(" runbook_url").next());
    let gets = next.filter(|command| command.starts_with("get "));
    // What is quoted is one word.
    let words = |(place, part): (usize, &str)| match place % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    };
    gets.map(|command| command.split('\'').enumerate().flat_map(words).collect()).collect()
}

#[test]
fn what_an_alert_looks_at_is_found_in_its_expression() {
    assert_eq!(selectors("sum by (a) (rate(quiesce_x_total{b=\"c\"}[5m])) > 0"), ["quiesce_x_total{b=\"c\"}"]);
    assert_eq!(selectors("up{job=\"q\"} == quiesce_y"), ["quiesce_y"]);
    assert_eq!(selectors("up{job=\"q\"} == 0"), ["up{job=\"q\"}"]);
    assert!(alert_series().len() > 15 && dashboard_queries().len() > 30);
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_rules_and_every_alert_can_fire() {
    for args in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let mut command = Command::new("promtool");
        let output = command.args(args).current_dir(file("")).output().await.expect("promtool is installed");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
    }
    let (rules, tests) = (read("alerts.yaml"), read("alerts.test.yaml"));
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname=\"{name}\",alertstate=\"firing\"")), "no test makes {name} fire");
    }
}

#[tokio::test]
async fn every_query_finds_what_it_asks_for_and_degraded_rings() {
    let stack = Secured::start(Maker::Quiesce).await;
    let prometheus = Prometheus::start(&stack).await;
    stack
        .apply(
            "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
             policy: {gracePeriod: 2s, retry: {maxAttempts: 1}}\n",
        )
        .await;
    let program = Program::new(&stack);
    let release = stack.path("release");
    touch(&release);
    let command = program.command(&["--until", release.to_str().unwrap()]);
    let _source = stack.certified_agent("a", "a-0").await.running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.certified_agent("b", "b-0").await.standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let watch = stack.watch(&[]);
    watch.is_open().await;
    assert!(prometheus.fires("QuiesceOperationDegraded").await.is_none());

    stack.quiesce(&["migrate", "db", "--to", "b"]).await.expect(0);
    std::fs::remove_file(&release).unwrap();
    let ran = stack.quiesce(&["migrate", "db", "--to", "a", "-o", "json"]).await.expect(3);
    let operation = ran.json()["name"].as_str().unwrap().to_owned();
    stack.reaches(&operation, State::Degraded, SOON).await;
    let alert = eventually("the alert about DEGRADED", SOON, || prometheus.fires("QuiesceOperationDegraded")).await;
    let next = "quiesce get operations --filter 'state = DEGRADED'";
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("1 operation(s) wait for a person") && summary.ends_with(next), "{alert:#}");
    let listed = stack.quiesce(&["get", "operations", "--filter", "state = DEGRADED"]).await.expect(0);
    assert!(
        operation.ends_with(listed.stdout.lines().nth(1).unwrap().split_whitespace().next().unwrap()),
        "{listed:?}"
    );

    assert!(listings().len() > 5, "{:?}", listings());
    for listing in listings() {
        stack.quiesce(&listing.iter().map(String::as_str).collect::<Vec<_>>()).await.expect(0);
    }

    prometheus.answers(&dashboard_queries()).await;
    prometheus.answers(&alert_series()).await;
    let rows = prometheus.query("quiesce_operations_in_progress{state=\"degraded\"}").await.unwrap();
    assert_eq!(rows[0]["value"][1], "1", "{rows:?}");

    touch(&release);
    stack.quiesce(&["retry", &operation]).await.expect(0);
    stack.reaches(&operation, State::Succeeded, SOON).await;
    stack.quiesce(&["delete", "db"]).await.expect(0);
    eventually("the alert to be over", SOON, || async {
        prometheus.fires("QuiesceOperationDegraded").await.map_or(Ok(()), Err)
    })
    .await;
    let totals = [
        ("quiesce_operations_total{kind=\"migrate\",outcome=\"succeeded\"}", "2"),
        ("quiesce_operations_total{kind=\"delete\",outcome=\"succeeded\"}", "1"),
        ("quiesce_attempts_failed_total{reason=\"grace_timeout\"}", "1"),
        ("sum(quiesce_operations_in_progress)", "0"),
    ];
    for (query, value) in totals {
        eventually(format!("{query} to be {value}"), SOON, || async {
            let rows = prometheus.query(query).await?;
            if rows[0]["value"][1] == value { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }
}
