//! A watcher that resumes: every state change once and in order, over a crash of the scheduler too.

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use serde_json::Value;

use crate::program::Program;
use crate::stack::{SOON, Stack, states, touch};

fn number(event: &Value) -> u64 {
    event["revision"].as_str().unwrap_or_default().parse().expect("every event has a revision")
}

#[tokio::test]
async fn every_state_change_once_and_in_order_over_a_crash_of_the_scheduler() {
    let mut stack = Stack::start().await;
    let program = Program::new(&stack);
    let command = program.command(&["--until", stack.path("release").to_str().unwrap()]);
    let _source = stack.agent("a", "a-0").running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;

    let first = stack.watch(&[]);
    first.is_open().await;
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    let stopping = first.sees("STOPPING", |event| event["operation"]["state"] == "STATE_STOPPING").await;
    program.reaches("term", 1).await;
    let token = stopping["resumeToken"].as_str().unwrap().to_owned();
    let before: Vec<_> = first.events().into_iter().filter(|event| number(event) <= number(&stopping)).collect();

    // The first watch lives through the crash; the second one begins after it, behind the token.
    stack.crash_scheduler().await;
    stack.start_scheduler().await;
    let second = stack.watch(&["--since", &token]);
    touch(&stack.path("release"));
    stack.reaches(&name, State::Succeeded, SOON).await;
    for watch in [&first, &second] {
        watch.sees("the end", |event| event["operation"]["state"] == "STATE_SUCCEEDED").await;
    }

    let expected = ["PREPARING", "STOPPING", "STOPPED", "STARTING", "FINALIZING", "SUCCEEDED"];
    assert_eq!(states(&first.events(), &name), expected);
    let resumed: Vec<_> = before.into_iter().chain(second.events()).collect();
    assert_eq!(states(&resumed, &name), expected);
    for events in [first.events(), resumed] {
        let numbers: Vec<_> = events.iter().filter(|event| event["type"] != "TYPE_BOOKMARK").map(number).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
    program.told(1);
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_refused() {
    let stack = Stack::start().await;
    let ran = stack.quiesce(&["watch", "--since", "nonsense", "-o", "json"]).await;
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("token"), "{}", ran.stderr);
}
