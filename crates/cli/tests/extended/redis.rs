//! Redis from Debian's package, unmodified: nothing acknowledged is lost, and there never are two of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_testkit::eventually;
use quiesce_testkit::port::FreePort;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::census::{Census, running};
use crate::stack::{Agent, SOON, Stack};

/// What the writer does between two tries when no server accepts.
const PAUSE: Duration = Duration::from_millis(5);

fn agent(stack: &Stack, cluster: &str, port: &FreePort) -> Agent {
    let data = stack.path("data");
    std::fs::create_dir_all(&data).unwrap();
    let port = port.number().to_string();
    stack.agent(cluster, &format!("{cluster}-0")).running([
        "redis-server",
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--dir",
        data.to_str().unwrap(),
        "--save",
        "3600 1",
        "--supervised",
        "systemd",
    ])
}

/// A connection that speaks as much of RESP as is needed.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(port: u16) -> std::io::Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(("127.0.0.1", port)).await?)))
    }

    /// Sends a command and returns the answer without its type and length.
    async fn ask(&mut self, words: &[&str]) -> std::io::Result<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        match line.split_at(1) {
            ("$", "-1") => Ok("(none)".to_owned()),
            ("$", length) => {
                let mut bytes = vec![0; length.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut bytes).await?;
                Ok(String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned())
            }
            ("-", error) => Err(std::io::Error::other(error.to_owned())),
            (_, answer) => Ok(answer.to_owned()),
        }
    }
}

/// Writes ever new keys to whichever server answers, and remembers what was acknowledged.
struct Writer {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<(u64, u16)>>,
}

impl Writer {
    fn start(ports: [u16; 2]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let over = Arc::clone(&over);
            async move {
                let mut acknowledged = Vec::new();
                let mut next = 0;
                while !over.load(Ordering::Acquire) {
                    for port in ports {
                        let Ok(mut client) = Client::connect(port).await else { continue };
                        while !over.load(Ordering::Acquire) {
                            let (key, value) = (format!("key-{next}"), next.to_string());
                            match client.ask(&["SET", &key, &value]).await {
                                Ok(answer) if answer == "OK" => acknowledged.push((next, port)),
                                // Refused while it loads or stops, or gone: nobody promised anything.
                                Ok(_) | Err(_) => break,
                            }
                            next += 1;
                        }
                        next += 1;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                acknowledged
            }
        });
        Self { over, task }
    }

    async fn end(self) -> Vec<(u64, u16)> {
        self.over.store(true, Ordering::Release);
        timeout(SOON, self.task).await.expect("the writer ends").expect("it does not panic")
    }
}

async fn server_is_ready(port: u16) {
    eventually(format!("redis on port {port}"), SOON, || async move {
        let mut client = Client::connect(port).await?;
        client.ask(&["PING"]).await
    })
    .await;
}

/// Waits until a key was written and acknowledged by this server after now.
async fn writes_arrive(port: u16) {
    let size = || async move { Client::connect(port).await?.ask(&["DBSIZE"]).await };
    let before = size().await.unwrap();
    eventually(format!("writes to port {port}"), SOON, || async { size().await.is_ok_and(|now| now != before) }).await;
}

#[tokio::test]
async fn redis_moves_there_and_back_and_goes_under_a_writer_that_never_pauses() {
    let stack = Stack::start().await;
    let ports = [FreePort::claim(), FreePort::claim()];
    let [a, b] = [ports[0].number(), ports[1].number()];
    let census = Census::start("redis-server", stack.path(""), vec![a, b]);
    let (source, target) = (agent(&stack, "a", &ports[0]), agent(&stack, "b", &ports[1]).standby());
    let (mut source_agent, mut target_agent) = (source.start(), target.start());
    server_is_ready(a).await;
    stack.instance_is("b-0", instance::State::Held).await;
    let watch = stack.watch(&[]);
    watch.is_open().await;

    let writer = Writer::start([a, b]);
    writes_arrive(a).await;
    let there = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    assert_eq!(there["state"], "STATE_SUCCEEDED", "{there:#}");
    assert_eq!(there["instances"][0]["status"]["result"]["evidence"], "EVIDENCE_GROUP_EMPTY", "{there:#}");
    assert_eq!(there["starts"][0]["status"]["result"]["readiness"], "READINESS_NOTIFIED", "{there:#}");
    writes_arrive(b).await;
    let back = stack.quiesce(&["migrate", "db", "--to", "a", "-o", "json"]).await.expect(0).json();
    assert_eq!(back["state"], "STATE_SUCCEEDED", "{back:#}");
    writes_arrive(a).await;
    let acknowledged = writer.end().await;

    let by = |port| acknowledged.iter().filter(|(_, by)| *by == port).count();
    assert!(by(a) > 100 && by(b) > 100, "{} writes to a, {} to b", by(a), by(b));
    let mut client = Client::connect(a).await.unwrap();
    for (key, by) in &acknowledged {
        let value = client.ask(&["GET", &format!("key-{key}")]).await.unwrap();
        assert_eq!(value, key.to_string(), "key {key}, acknowledged by port {by}, is lost");
    }
    let epochs: Vec<i64> = [&there, &back].iter().map(|operation| text_number(&operation["epoch"])).collect();
    assert!(epochs[0] > 1 && epochs[1] > epochs[0], "{epochs:?}");
    watch
        .sees("what Redis says of itself", |event| {
            event["type"] == "TYPE_PROGRESS"
                && event["instance"]["status"]["message"] == "Saving the final RDB snapshot"
        })
        .await;

    let deleted = stack.quiesce(&["delete", "db", "-o", "json"]).await.expect(0).json();
    assert_eq!(deleted["state"], "STATE_SUCCEEDED", "{deleted:#}");
    assert_eq!((source_agent.ends().await, target_agent.ends().await), (Some(0), Some(0)));
    let counted = census.end();
    assert_eq!(counted.double, Vec::<String>::new(), "after {} looks", counted.looks);
    assert_eq!(counted.seen.len(), 3, "{counted:?}");
    assert!(counted.looks > 50, "{counted:?}");

    // A restart policy would do this; the application stays deleted all the same.
    for agent in [source, target] {
        let mut again = agent.start();
        assert_eq!(again.ends().await, Some(78));
        again.wait_for_line("To begin a new life on purpose, remove the directory", SOON).await;
    }
    assert_eq!(running("redis-server", &stack.path("")), Vec::<u32>::new());
}

fn text_number(value: &serde_json::Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("not a number: {value}"))
}
