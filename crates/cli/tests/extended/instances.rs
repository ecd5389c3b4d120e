//! Several instances: order, parallelism, and a standby for each.

use quiesce_protocol::v1::instance;

use crate::program::{Entry, Program};
use crate::stack::Stack;

/// Replicas at order 0, two at a time, then the primary.
const ORDERS: [&str; 5] = ["0", "0", "0", "0", "1"];

/// The most that were being stopped at the same time, and the order in which they ended.
fn stops(entries: &[Entry]) -> (usize, Vec<String>) {
    let (mut now, mut most, mut order) = (0_usize, 0, Vec::new());
    for entry in entries {
        match entry.event.as_str() {
            "term" => now += 1,
            "end" => {
                now -= 1;
                order.push(entry.instance.clone());
            }
            _ => {}
        }
        most = most.max(now);
    }
    (most, order)
}

#[tokio::test]
async fn five_instances_stop_in_their_order_move_and_go() {
    let stack = Stack::start().await;
    stack
        .apply(
            "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\nexpectedInstances: 5\n\
             policy: {maxParallelStops: 2}\n",
        )
        .await;
    let program = Program::new(&stack);
    let command = program.command(&["--own-lock"]);
    let mut agents = Vec::new();
    for cluster in ["a", "b"] {
        for (index, order) in ORDERS.iter().enumerate() {
            let agent = stack.agent(cluster, &format!("{cluster}-{index}")).with(&["--stop-order", order]);
            let agent = if cluster == "b" { agent.standby() } else { agent };
            agents.push(agent.running(command.clone()).start());
        }
    }
    for index in 0..ORDERS.len() {
        stack.instance_is(&format!("a-{index}"), instance::State::Ready).await;
        stack.instance_is(&format!("b-{index}"), instance::State::Held).await;
    }

    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(0).json();
    assert_eq!(operation["counts"]["stopped"], 5, "{operation:#}");
    let entries = program.entries();
    let (most, order) = stops(&entries);
    assert!(most <= 2, "{most} at a time: {entries:#?}");
    assert_eq!(order.last().map(String::as_str), Some("a-4"), "{order:?}");
    let last_end = entries.iter().rposition(|entry| entry.event == "end").unwrap();
    let first_at_target =
        entries.iter().position(|entry| entry.event == "start" && entry.instance.starts_with('b')).unwrap();
    assert!(last_end < first_at_target, "{entries:#?}");
    let mut started: Vec<_> = program.of("start").into_iter().skip(5).map(|entry| entry.instance).collect();
    started.sort();
    assert_eq!(started, ["b-0", "b-1", "b-2", "b-3", "b-4"]);

    let deleted = stack.quiesce(&["delete", "db", "-o", "json"]).await.expect(0).json();
    assert_eq!(deleted["state"], "STATE_SUCCEEDED", "{deleted:#}");
    for mut agent in agents {
        assert_eq!(agent.ends().await, Some(0));
    }
    let (most, order) = stops(&program.entries()[entries.len()..]);
    assert!(most <= 2, "{most} at a time");
    assert_eq!(order.last().map(String::as_str), Some("b-4"), "{order:?}");
    program.told(10);
    assert!(program.of("double").is_empty());
}
