//! `--start always`: an application that was started without asking. Epochs come from the scheduler alone, so it runs
//! under the last one the agent has seen, 0 at first; from the first operation on it is like any other.

use quiesce_protocol::v1::instance;

use crate::program::Program;
use crate::stack::{Agent, SOON, Stack};

fn agents(stack: &Stack, program: &Program) -> [Agent; 2] {
    let command = program.command(&[]);
    let always = |cluster: &str| stack.agent(cluster, &format!("{cluster}-0")).with(&["--start", "always"]);
    [always("a").running(command.clone()), always("b").standby().running(command)]
}

#[tokio::test]
async fn what_was_started_without_asking_moves_under_rising_epochs() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let [source, target] = agents(&stack, &program);
    let (_source, _target) = (source.start(), target.start());
    stack.instance_is("a-0", instance::State::Ready).await;
    stack.instance_is("b-0", instance::State::Held).await;
    for to in ["b", "a"] {
        let operation = stack.quiesce(&["migrate", "db", "--to", to, "-o", "json"]).await.expect(0).json();
        assert_eq!(operation["state"], "STATE_SUCCEEDED", "{operation:#}");
    }
    let starts = program.of("start");
    let order: Vec<_> = starts.iter().map(|start| start.instance.as_str()).collect();
    assert_eq!(order, ["a-0", "b-0", "a-0"]);
    assert_eq!(starts[0].epoch, 0, "nobody gave it one");
    assert!(starts.is_sorted_by(|earlier, later| earlier.epoch < later.epoch), "{starts:?}");
    program.told(2);
    program.never_twice();
}

#[tokio::test]
async fn what_has_moved_away_is_not_started_even_so() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let [source, target] = agents(&stack, &program);
    let (mut first, _target) = (source.start(), target.start());
    stack.instance_is("a-0", instance::State::Ready).await;
    stack.instance_is("b-0", instance::State::Held).await;
    stack.quiesce(&["migrate", "db", "--to", "b"]).await.expect(0);

    first.kill_9().await;
    let again = source.start();
    again.wait_for_line("held", SOON).await;
    stack.instance_is("a-0", instance::State::Held).await;
    assert_eq!(program.of("start").len(), 2, "{:?}", program.entries());
    program.never_twice();
}
