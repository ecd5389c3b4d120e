//! The story of an operation, told by log lines alone: those of the scheduler and of both agents, as JSON, put together.
//!
//! The application does not stop in time at first, so there is a second attempt; the target does not come up, so the source
//! is started again. Every event that a watch shows has its line, and every phase of the agents, with whose it is.

use std::collections::BTreeMap;
use std::time::Duration;

use quiesce_protocol::v1::instance;
use serde_json::Value;

use crate::program::Program;
use crate::stack::{Actor, SOON, Stack, states, touch};

/// Of one operation, in the order in which they were written.
struct Story(Vec<Value>);

impl Story {
    fn of(operation: &str, tellers: &[&Actor]) -> Self {
        let mut lines: Vec<Value> = tellers.iter().flat_map(|teller| log_lines(teller)).collect();
        lines.retain(|line| line["operation.id"] == operation);
        lines.sort_by_key(|line| line["timestamp"].as_str().expect("a line has a time").to_owned());
        Self(lines)
    }

    /// What became durable.
    fn events(&self) -> Vec<&Value> {
        self.0.iter().filter(|line| line.get("event").is_some()).collect()
    }

    /// The states it went through; each line goes on where the one before was.
    #[track_caller]
    fn states(&self) -> Vec<String> {
        let mut at = "PENDING".to_owned();
        let changes = self.events().into_iter().filter(|line| line["event"] == "STATE_CHANGED");
        let states = changes.map(|line| {
            assert_eq!(line["previous_state"], at, "{line:#}");
            line["state"].as_str().expect("a state").clone_into(&mut at);
            at.clone()
        });
        states.collect()
    }

    /// The phases of shutdowns, by instance and attempt, and of starts, by instance and epoch.
    fn phases(&self, by: &str) -> BTreeMap<(String, u64), Vec<String>> {
        let mut phases = BTreeMap::<_, Vec<String>>::new();
        let other = if by == "attempt" { "epoch" } else { "attempt" };
        for line in self.0.iter().filter(|line| line.get("phase").is_some() && line.get("event").is_none()) {
            let is_start = line.get("attempt").is_none();
            if is_start == (other == "attempt") {
                let key = (line["instance"].as_str().unwrap().to_owned(), line[by].as_u64().unwrap());
                phases.entry(key).or_default().push(line["phase"].as_str().unwrap().to_owned());
            }
        }
        phases
    }
}

/// What a process wrote on standard error: JSON, every line of it.
fn log_lines(teller: &Actor) -> Vec<Value> {
    let text = teller.stderr();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(parse).collect()
}

fn short(value: &Value, prefix: &str) -> String {
    value.as_str().unwrap_or_default().trim_start_matches(prefix).to_owned()
}

/// An event of a watch as its log line has it: what, whose, of a stop the attempt, of a start the epoch, and why.
fn as_told(event: &Value) -> [String; 5] {
    let (stop, start) = (&event["instance"], &event["start"]);
    let instance = [&stop["instance"], &start["instance"], &event["failure"]["instance"]];
    let instance = instance.into_iter().find_map(Value::as_str).filter(|name| !name.is_empty()).unwrap_or("-");
    let attempt = stop["status"]["shutdownId"].as_str().and_then(|id| id.split('.').nth(1)).unwrap_or("-");
    let epoch = start["epoch"].as_str().unwrap_or("-").to_owned();
    let reason = event["failure"].get("reason").map_or("-".to_owned(), |reason| short(reason, "REASON_"));
    [short(&event["type"], "TYPE_"), instance.rsplit('/').next().unwrap().to_owned(), attempt.to_owned(), epoch, reason]
}

/// The same of a line.
fn as_read(line: &Value) -> [String; 5] {
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let number = |key: &str| line[key].to_string();
    let (attempt, epoch) = match (line.get("instance"), line.get("attempt")) {
        (Some(_), Some(_)) => (number("attempt"), "-".to_owned()),
        (Some(_), None) => ("-".to_owned(), number("epoch")),
        (None, _) => ("-".to_owned(), "-".to_owned()),
    };
    [text("event"), text("instance"), attempt, epoch, text("failure")]
}

#[tokio::test]
async fn the_lines_of_all_tell_the_whole_story_of_an_operation() {
    let stack = Stack::start().await;
    stack
        .apply(
            "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
             policy: {gracePeriod: 2s, startTimeout: 20s, retry: {maxAttempts: 2, initialBackoff: 0.5s}}\n",
        )
        .await;
    let program = Program::new(&stack);
    let release = stack.path("release");
    let command = program.command(&["--until", release.to_str().unwrap()]);
    let source = stack.agent("a", "a-0").logging_json().running(command).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let target = stack.agent("b", "b-0").logging_json().standby().running(["sh", "-c", "exit 1"]).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let watch = stack.watch(&[]);
    watch.is_open().await;

    let name = stack.begin(&["migrate", "db", "--to", "b", "--reason", "moving house"]).await;
    // Told for the second time, it ends.
    program.reaches("term", 2).await;
    touch(&release);
    let over = "that it is over";
    watch.sees(over, |event| event["operation"]["state"] == "STATE_ROLLED_BACK").await;
    // The agent hears of it in its own time.
    source.wait_for_line("\"phase\":\"READY\"", Duration::from_secs(20)).await;
    let scheduler = stack.scheduler_log();
    scheduler.wait_for_line("\"state\":\"ROLLED_BACK\"", SOON).await;

    let id = name.strip_prefix("operations/").expect("the name of an operation");
    let story = Story::of(id, &[scheduler, &source, &target]);
    let shown = || story.0.iter().map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(story.states(), states(&watch.events(), &name), "{}", shown());
    let happened: Vec<_> = watch
        .events()
        .iter()
        .filter(|event| event["operation"]["name"] == name.as_str() && event["type"] != "TYPE_PROGRESS")
        .map(as_told)
        .collect();
    let told: Vec<_> = story.events().into_iter().map(as_read).collect();
    assert_eq!(told, happened, "{}", shown());

    let stops = story.phases("attempt");
    let of = |attempt: u64| stops.get(&("a-0".to_owned(), attempt)).map(|phases| phases.join(" ")).unwrap_or_default();
    assert_eq!(of(1), "ACCEPTED STOPPING", "{}", shown());
    assert_eq!(of(2), "ACCEPTED STOPPING STOPPED", "{}", shown());
    let starts = story.phases("epoch");
    let joined: Vec<_> = starts.iter().map(|((instance, _), phases)| (instance.as_str(), phases.join(" "))).collect();
    let wanted = [("a-0", "ACCEPTED STARTING READY".to_owned()), ("b-0", "ACCEPTED STARTING FAILED".to_owned())];
    assert_eq!(joined, wanted, "{}", shown());

    // Whose each line is, in the same words by whoever wrote it.
    for line in &story.0 {
        assert!(line["epoch"].is_u64() || line.get("instance").is_none(), "{line:#}");
        assert!(line.get("phase").is_none() || line.get("instance").is_some(), "{line:#}");
        if line.get("shutdown.id").is_some() {
            assert!(line["attempt"].is_u64() && line["application"] == "db", "{line:#}");
        }
    }
    let ended = story.0.iter().find(|line| line["event"] == "INSTANCE_STOPPED").unwrap();
    let words = ["instance", "outcome", "evidence", "exit_code", "attempt", "epoch"].map(|key| ended[key].to_string());
    assert_eq!(words[..4], ["\"a-0\"", "\"STOPPED\"", "\"GROUP_EMPTY\"", "0"], "{ended:#}");
    assert_eq!((words[4].as_str(), ended["epoch"].as_u64() > Some(0)), ("2", true), "{ended:#}");
    assert!(
        story.0.iter().any(|line| line["event"] == "CREATED"
            && line["target_cluster"] == "b"
            && line["reason"] == "moving house"),
        "{}",
        shown()
    );
}
