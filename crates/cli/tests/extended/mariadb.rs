//! MariaDB from Debian's package, unmodified: its rows, its own account of its shutdown, its wish for time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use tokio::process::Command;
use tokio::time::timeout;

use crate::census::Census;
use crate::stack::{Agent, SOON, Stack};

/// Rows that one acknowledged statement writes.
const BATCH: usize = 50;

/// What it says on its way down, some milliseconds apart where there is little to flush; of what comes faster than the
/// scheduler writes, the last is kept.
const ITS_WORDS: [&str; 6] = [
    "Shutdown in progress",
    "Waiting to flush the buffer pool",
    "Dumping buffer pool",
    "InnoDB",
    "Free innodb buffer pool",
    "MariaDB server is down",
];

/// A database made anew, or a start, on a slow disk.
const SLOW: Duration = Duration::from_secs(50);

async fn install(data: &Path) {
    let mut command = Command::new("mariadb-install-db");
    command
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
        .arg(format!("--datadir={}", data.display()))
        .stdin(Stdio::null());
    let output = timeout(SLOW, command.output()).await.expect("it ends").expect("it runs");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn agent(stack: &Stack, cluster: &str, port: &FreePort) -> Agent {
    let path = |name: &str| stack.path(name).display().to_string();
    // Nothing but its word counts for ready, however long a busy machine takes to start it.
    let flags = ["--grace-period", "5s", "--max-extension", "2m", "--ready-command", "false"];
    stack.agent(cluster, &format!("{cluster}-0")).with(&flags).running([
        "mariadbd".to_owned(),
        "--no-defaults".to_owned(),
        "--user=root".to_owned(),
        format!("--datadir={}", path("data")),
        format!("--socket={}", path(&format!("{cluster}.sock"))),
        format!("--port={}", port.number()),
        "--skip-networking=0".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ])
}

/// What a statement answers; an error says that nothing was promised.
async fn ask(port: u16, statement: &str) -> Result<String, String> {
    let mut command = Command::new("mariadb");
    command
        .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", "--batch", "--skip-column-names"])
        .arg(format!("--port={port}"))
        .args(["--execute", statement])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(SOON, command.output()).await.map_err(|_elapsed| "no answer".to_owned())?;
    let output = output.expect("the client runs");
    if output.status.success() { Ok(text(&output.stdout).trim().to_owned()) } else { Err(text(&output.stderr)) }
}

/// Inserts batches until one is refused; returns how many rows there are by what was acknowledged.
async fn write_until_refused(port: u16, mut rows: usize) -> usize {
    loop {
        let values: Vec<_> = (rows..rows + BATCH).map(|row| format!("({row})")).collect();
        if ask(port, &format!("INSERT INTO test.log VALUES {}", values.join(","))).await.is_err() {
            return rows;
        }
        rows += BATCH;
    }
}

#[tokio::test]
async fn mariadb_moves_with_all_its_rows_and_tells_how_it_stops() {
    let stack = Stack::start().await;
    let data = stack.path("data");
    install(&data).await;
    let ports = [FreePort::claim(), FreePort::claim()];
    let [a, b] = [ports[0].number(), ports[1].number()];
    let census = Census::start("mariadbd", stack.path(""), vec![a, b]);
    let mut source = agent(&stack, "a", &ports[0]).start();
    let mut target = agent(&stack, "b", &ports[1]).standby().start();
    eventually("mariadb to answer", SLOW, || ask(a, "SELECT 1")).await;
    stack.instance_is("b-0", instance::State::Held).await;
    ask(a, "CREATE DATABASE test; CREATE TABLE test.log (id INT PRIMARY KEY) ENGINE=InnoDB").await.unwrap();
    let watch = stack.watch(&[]);
    watch.is_open().await;

    let writer = tokio::spawn(write_until_refused(a, 0));
    eventually("the first rows", SOON, || async {
        ask(a, "SELECT COUNT(*) FROM test.log").await.is_ok_and(|count| count != "0")
    })
    .await;
    let there = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    assert_eq!(there["state"], "STATE_SUCCEEDED", "{there:#}");
    assert_eq!(there["policy"]["maxExtension"], "120s", "{there:#}");
    assert_eq!(there["instances"][0]["status"]["result"]["clean"], true, "{there:#}");
    assert_eq!(there["starts"][0]["status"]["result"]["readiness"], "READINESS_NOTIFIED", "{there:#}");
    let rows = writer.await.unwrap();
    let maximum = ask(b, &format!("SELECT COUNT(*) FROM test.log WHERE id < {rows}")).await.unwrap();
    assert!(rows > 0);
    assert_eq!(maximum, rows.to_string(), "acknowledged rows are lost");
    watch
        .sees("what MariaDB says of its shutdown", |event| {
            let message = event["instance"]["status"]["message"].as_str().unwrap_or_default();
            event["type"] == "TYPE_PROGRESS" && ITS_WORDS.iter().any(|words| message.starts_with(words))
        })
        .await;
    // It asks for 30 s at a time, whatever it needs; its grace is 5 s.
    let extended = watch.sees("the extension", |event| event["type"] == "TYPE_DEADLINE_EXTENDED").await;
    let extension: f64 = extended["instance"]["extension"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    assert!((20.0..=120.0).contains(&extension), "{extended:#}");

    ask(b, "INSERT INTO test.log VALUES (-1)").await.unwrap();
    stack.quiesce(&["delete", "db", "-o", "json"]).await.expect(0);
    assert_eq!((source.ends().await, target.ends().await), (Some(0), Some(0)));
    let counted = census.end();
    assert_eq!(counted.double, Vec::<String>::new(), "after {} looks", counted.looks);
    assert_eq!(counted.seen.len(), 2, "{counted:?}");
}
