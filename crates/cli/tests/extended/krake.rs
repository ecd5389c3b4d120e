//! An image made for Krake, as it is: `krake.py` beside `application.py`, in one container so to speak.

use std::path::Path;
use std::time::Duration;

use quiesce_protocol::v1::instance;
use quiesce_protocol::v1::operation::State;
use quiesce_testkit::port::FreePort;
use quiesce_testkit::process::alive;
use tokio::net::TcpStream;

use crate::program::Program;
use crate::stack::{Agent, SOON, Stack, states, touch};

/// How such an image is started: the script in the background, then the application.
fn image(program: &Program, port: &FreePort, script: &str, application: &[&str]) -> [String; 3] {
    let application = program.command(application).join(" ");
    let mut words = program.command(&[]);
    words[1] = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/extended/krake.py").display().to_string();
    words.insert(2, port.number().to_string());
    ["sh".to_owned(), "-c".to_owned(), format!("{} {script} & exec {application}", words.join(" "))]
}

fn agent(stack: &Stack, cluster: &str, port: &FreePort, image: [String; 3]) -> Agent {
    let url = format!("http://127.0.0.1:{}/shutdown", port.number());
    let agent = stack.agent(cluster, &format!("{cluster}-0"));
    // The application says when it is ready; nothing else counts.
    agent.with(&["--stop-url", &url, "--ready-command", "false"]).running(image)
}

/// What the application was given to report with.
fn token(pid: u32) -> String {
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let token = environment.split('\0').find_map(|variable| variable.strip_prefix("KRAKE_SHUTDOWN_TOKEN="));
    let token = token.unwrap().to_owned();
    assert_eq!(token.len(), 43);
    token
}

/// The script listens a moment after its application does.
async fn listens(port: &FreePort) {
    let connect = || async { TcpStream::connect(("127.0.0.1", port.number())).await.map(drop) };
    quiesce_testkit::eventually("the script to listen", SOON, connect).await;
}

#[tokio::test]
async fn an_image_made_for_krake_moves_as_it_is() {
    let mut stack = Stack::start().await;
    let program = Program::new(&stack);
    let ports = [FreePort::claim(), FreePort::claim()];
    let release = stack.path("release");
    let until = ["--until", release.to_str().unwrap()];
    let source = agent(&stack, "a", &ports[0], image(&program, &ports[0], "", &until)).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = agent(&stack, "b", &ports[1], image(&program, &ports[1], "", &until)).standby().start();
    stack.instance_is("b-0", instance::State::Held).await;
    listens(&ports[0]).await;
    let token = token(program.of("start")[0].pid);
    let watch = stack.watch(&[]);
    watch.is_open().await;

    // The script reports before the application has ended: nothing follows from that but a signal.
    let name = stack.begin(&["migrate", "db", "--to", "b"]).await;
    program.reaches("report-READY_FOR_ACTION", 1).await;
    program.reaches("term", 1).await;
    watch
        .sees("the report of the script", |event| {
            let message = event["instance"]["status"]["message"].as_str().unwrap_or_default();
            message.contains("the application's script reports that it is done; waiting for its processes to end")
        })
        .await;
    assert_eq!(stack.operation(&name).await.state(), State::Stopping);
    assert_eq!(program.of("start").len(), 1, "{:?}", program.entries());
    touch(&release);
    let operation = stack.reaches(&name, State::Succeeded, SOON).await;
    let result = operation.instances[0].status.as_ref().unwrap().result.clone().unwrap();
    assert_eq!(result.evidence().as_str_name(), "EVIDENCE_GROUP_EMPTY", "{result:?}");
    assert!(states(&watch.events(), &name).contains(&"STARTING".to_owned()));

    // That the script notes its report before the signal comes is likely, not certain.
    let events = program.entries().into_iter().map(|entry| entry.event).filter(|event| !event.starts_with("report"));
    let order = ["start", "asked", "saved", "term", "end", "start"];
    assert_eq!(events.collect::<Vec<_>>(), order);
    program.never_twice();
    let lines = [source.lines(), stack.scheduler().lines()].concat();
    assert!(lines.len() > 5, "{lines:?}");
    assert!(lines.iter().all(|line| !line.text.contains(&token)), "a secret is in a log");
    assert!(!watch.0.stdout().contains(&token));
}

#[tokio::test]
async fn a_script_that_never_reports_ends_nothing_and_a_person_decides() {
    let stack = Stack::start().await;
    let policy = "{gracePeriod: 2s, retry: {maxAttempts: 1}}";
    stack
        .apply(&format!("kind: Application\nname: db\ncluster: a\nplacement: {{agents: {{}}}}\npolicy: {policy}\n"))
        .await;
    let program = Program::new(&stack);
    let ports = [FreePort::claim(), FreePort::claim()];
    let _source = agent(&stack, "a", &ports[0], image(&program, &ports[0], "--never", &[])).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = agent(&stack, "b", &ports[1], image(&program, &ports[1], "", &[])).standby().start();
    stack.instance_is("b-0", instance::State::Held).await;
    listens(&ports[0]).await;

    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(3).json();
    assert_eq!(operation["failure"]["reason"], "REASON_GRACE_TIMEOUT", "{operation:#}");
    assert_eq!(program.of("asked").len(), 1, "{:?}", program.entries());
    program.told(0);
    let first = program.of("start").remove(0);
    assert!(alive(first.pid), "it was ended although nobody said that it may be");

    let name = operation["name"].as_str().unwrap();
    stack.quiesce(&["retry", name, "--force", "--reason", "the script hangs"]).await.expect(0);
    stack.reaches(name, State::Succeeded, Duration::from_secs(30)).await;
    assert!(!alive(first.pid));
    program.never_twice();
}

#[tokio::test]
async fn where_no_script_listens_nothing_is_begun() {
    let stack = Stack::start().await;
    let program = Program::new(&stack);
    let port = FreePort::claim();
    let command = program.command(&[]);
    let url = format!("http://127.0.0.1:{}/shutdown", port.number());
    let _source = stack.agent("a", "a-0").with(&["--stop-url", &url]).running(command.clone()).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(command).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let plan = stack.quiesce(&["migrate", "db", "--to", "b", "--dry-run"]).await;
    assert!(plan.stdout.contains("nothing listens at the stop URL"), "{}{}", plan.stdout, plan.stderr);
    let operation = stack.quiesce(&["migrate", "db", "--to", "b", "-o", "json"]).await.expect(3).json();
    assert_eq!(operation["failure"]["reason"], "REASON_CHECK_FAILED", "{operation:#}");
    assert!(alive(program.of("start")[0].pid));
    program.told(0);
}
