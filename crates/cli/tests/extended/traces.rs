//! Traces: a migration seen by who collects them, through a crash of the scheduler; and one that nobody collects.

use std::collections::BTreeMap;

use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use quiesce_protocol::v1::{MigrateApplicationRequest, instance};
use quiesce_testkit::eventually;
use tokio::net::TcpListener;
use tonic::Request;

use crate::collector::{Collector, attributes, id};
use crate::program::Program;
use crate::stack::{SOON, Stack, touch};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const CALLER: u64 = 0x00f0_67aa_0ba9_02b7;
/// What a caller who traces sends along.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const APPLICATION: &str = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\n\
    policy: {gracePeriod: 30s, startTimeout: 20s}\n";

/// Asks for a migration to `b` as a caller who traces.
async fn migrate(stack: &Stack) -> String {
    let mut client = SchedulerClient::connect(stack.url()).await.unwrap();
    let message = MigrateApplicationRequest {
        name: "applications/db".to_owned(),
        target_cluster: "b".to_owned(),
        ..MigrateApplicationRequest::default()
    };
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
    client.migrate_application(request).await.unwrap().into_inner().operation.unwrap().name
}

/// An application that writes down its place in the trace and stays.
fn tells_its_place(stack: &Stack, name: &str) -> [String; 3] {
    let file = stack.path(name).display().to_string();
    let script = format!("echo $TRACEPARENT $TRACESTATE >{file}.new; mv {file}.new {file}; exec sleep 600");
    ["sh".to_owned(), "-c".to_owned(), script]
}

async fn place(stack: &Stack, name: &str) -> String {
    let read = || async { std::fs::read_to_string(stack.path(name)) };
    eventually("the application to say where it is", SOON, read).await.trim().to_owned()
}

async fn succeeds(stack: &Stack, operation: &str) {
    eventually("the migration to succeed", SOON, || async {
        let now = stack.try_operation(operation).await?;
        if now.state() == State::Succeeded { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test]
async fn one_trace_shows_a_whole_migration_through_a_crash() {
    let collector = Collector::start().await;
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{}", collector.address);
    let wrapper = [
        "env",
        &endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20not-to-be-shown",
        "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY=50",
    ];
    let mut stack = Stack::start_within(&wrapper).await;
    stack.apply(APPLICATION).await;
    let (program, release) = (Program::new(&stack), stack.path("release"));
    let stubborn = program.command(&["--until", release.to_str().unwrap()]);
    let _source = stack.agent("a", "a-0").running(stubborn).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(tells_its_place(&stack, "place")).start();
    stack.instance_is("b-0", instance::State::Held).await;

    let operation = migrate(&stack).await;
    program.reaches("term", 1).await;
    let call = collector.has(TRACE, "quiesce.v1.Scheduler/MigrateApplication").await;
    assert_eq!(id(&call.parent_span_id), CALLER);
    stack.crash_scheduler().await;
    stack.start_scheduler_within(&wrapper).await;
    touch(&release);
    succeeds(&stack, &operation).await;

    let whole = collector.has(TRACE, "migrate").await;
    let start = collector.has(TRACE, "start").await;
    let spans = collector.trace(TRACE);
    let mut names = BTreeMap::<_, usize>::new();
    for span in spans.values() {
        *names.entry(span.name.as_str()).or_default() += 1;
        let parent = id(&span.parent_span_id);
        assert!(parent == CALLER || spans.contains_key(&parent), "an orphan: {span:#?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{span:#?}");
        assert_eq!(span.trace_state, "vendor=1");
    }
    let wanted =
        ["quiesce.v1.Scheduler/MigrateApplication", "migrate", "shutdown", "start", "state stopping", "state starting"];
    assert!(wanted.iter().all(|name| names.get(name) == Some(&1)), "{names:#?}");
    assert_eq!(id(&whole.parent_span_id), id(&call.span_id), "the operation is the caller's");

    let stop = spans.values().find(|span| span.name == "shutdown").unwrap();
    assert_eq!(id(&stop.parent_span_id), id(&whole.span_id));
    assert!(stop.end_time_unix_nano <= start.start_time_unix_nano, "one after the other");
    let said = attributes(&stop.attributes);
    assert_eq!((said["quiesce.instance"].as_str(), said["quiesce.outcome"].as_str()), ("a-0", "STOPPED"), "{said:?}");
    assert_eq!(said["quiesce.operation.id"], operation.trim_start_matches("operations/"));
    let phases: Vec<_> = stop.events.iter().map(|event| event.name.as_str()).collect();
    assert!(phases.contains(&"phase STOPPING") && phases.contains(&"phase STOPPED"), "{phases:?}");
    let place = place(&stack, "place").await;
    assert_eq!(place, format!("00-{TRACE:032x}-{:016x}-01 vendor=1", id(&start.span_id)), "its parent is its start");

    let resource = collector.resource();
    assert_eq!(resource["service.name"], "quiesce-scheduler");
    assert_eq!(resource["deployment.environment.name"], "test");
    assert_eq!(collector.authorization().as_deref(), Some("Bearer not-to-be-shown"));
    assert!(!stack.scheduler_log().stderr().contains("not-to-be-shown"));
    stack.admin_says("/metrics", "quiesce_trace_spans_total{outcome=\"sent\"}").await;
}

#[tokio::test]
async fn a_collector_that_takes_nothing_holds_nothing_up() {
    // It accepts connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://{}", silent.local_addr().unwrap());
    let few = "OTEL_BSP_MAX_QUEUE_SIZE=2";
    let wrapper = ["env", &endpoint, few, "OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_EXPORTER_OTLP_TIMEOUT=500"];
    let mut stack = Stack::start_within(&wrapper).await;
    stack.apply(APPLICATION).await;
    let _source = stack.agent("a", "a-0").running(["sleep", "600"]).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(["sleep", "600"]).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let operation = migrate(&stack).await;
    succeeds(&stack, &operation).await;
    for outcome in ["failed", "dropped"] {
        eventually(format!("spans that are {outcome}"), SOON, || async {
            let page = stack.admin("/metrics").await;
            let line = format!("quiesce_trace_spans_total{{outcome=\"{outcome}\"}} ");
            let count = page.lines().find_map(|found| found.strip_prefix(&line)).map(str::to_owned);
            if count.as_deref().is_some_and(|count| count != "0") { Ok(()) } else { Err(format!("{count:?}")) }
        })
        .await;
    }
    stack.scheduler_log().wait_for_line("the collector of traces does not take them", SOON).await;
    stack.stop_scheduler().await;
}

#[tokio::test]
async fn who_records_nothing_hands_on_what_came() {
    let stack = Stack::start().await;
    stack.apply(APPLICATION).await;
    let _source = stack.agent("a", "a-0").running(["sleep", "600"]).start();
    stack.instance_is("a-0", instance::State::Ready).await;
    let _target = stack.agent("b", "b-0").standby().running(tells_its_place(&stack, "place")).start();
    stack.instance_is("b-0", instance::State::Held).await;
    let operation = migrate(&stack).await;
    succeeds(&stack, &operation).await;
    assert_eq!(place(&stack, "place").await, format!("{TRACEPARENT} vendor=1"));
}

#[tokio::test]
async fn a_variable_that_makes_no_sense_keeps_the_scheduler_from_starting() {
    let stack = Stack::unstarted();
    let wrapper = ["env", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317"];
    let mut scheduler = stack.try_scheduler(&wrapper, &stack.data_dir());
    assert_eq!(scheduler.ends().await, Some(1));
    let said = scheduler.stderr();
    assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT has to be http://HOST:PORT or https://HOST:PORT"), "{said}");
}
