//! Redis from Debian's package, unmodified: nothing acknowledged is lost, and there never are two of it.

use std::path::Path;
use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_testkit::port::FreePort;

use crate::census::{Census, running};
use crate::stack::{Agent, SOON, Stack};
use crate::writer::{Client, Writer, server_is_ready};

/// The command line of a Redis that speaks to a service manager, with more flags.
pub(crate) fn redis(port: u16, data: &Path, more: &[&str]) -> Vec<String> {
    let (port, data) = (port.to_string(), data.display().to_string());
    let fixed = ["redis-server", "--port", &port, "--bind", "127.0.0.1", "--dir", &data, "--supervised", "systemd"];
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn agent(stack: &Stack, cluster: &str, port: &FreePort) -> Agent {
    let data = stack.path("data");
    std::fs::create_dir_all(&data).unwrap();
    let command = redis(port.number(), &data, &["--save", "3600 1"]);
    stack.agent(cluster, &format!("{cluster}-0")).running(command)
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

    let writer = Writer::start([a, b], Duration::ZERO);
    writer.reaches(a).await;
    let there = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    assert_eq!(there["state"], "STATE_SUCCEEDED", "{there:#}");
    assert_eq!(there["instances"][0]["status"]["result"]["evidence"], "EVIDENCE_GROUP_EMPTY", "{there:#}");
    assert_eq!(there["starts"][0]["status"]["result"]["readiness"], "READINESS_NOTIFIED", "{there:#}");
    writer.reaches(b).await;
    let back = stack.quiesce(&["migrate", "db", "--to", "a", "-o", "json"]).await.expect(0).json();
    assert_eq!(back["state"], "STATE_SUCCEEDED", "{back:#}");
    writer.reaches(a).await;
    let acknowledged = writer.end().await;

    let by = |port| acknowledged.iter().filter(|write| write.port == port).count();
    assert!(by(a) > 100 && by(b) > 100, "{} writes to a, {} to b", by(a), by(b));
    assert_eq!(Client::connect(a).await.unwrap().missing(&acknowledged).await, []);
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
