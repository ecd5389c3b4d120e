//! What spans tell of an operation that did not go well, and that whoever hears of it later tells the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::trace::SpanData;
use quiesce_operation::report::{AppState, Probe, StopPhase, StopReport};
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, Input, InstanceId, Kind, Moment, Operation, OperationId, Placement, Policy,
    PolicyOverrides, Registered, Request, Trace,
};
use quiesce_runtime::clock::{Clock, ManualClock};

use super::tale::Tales;
use crate::records::EventRecord;

const RECORDED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A deletion whose application does not end, and which a person then forces.
pub(crate) fn story(parent: &str) -> Vec<EventRecord> {
    let (cluster, instance) = (ClusterId::parse("a").unwrap(), InstanceId::parse("shop-0").unwrap());
    let at = |seconds: u64| Moment::from_millis(seconds * 1_000);
    let caller = Caller { identity: "ann".to_owned(), reason: "its host is gone".to_owned() };
    let request = Request {
        application: ApplicationId::parse("shop").unwrap(),
        kind: Kind::Delete,
        source: cluster.clone(),
        target: None,
        placement: Placement::Agents,
        force: false,
        caller: caller.clone(),
        request_id: String::new(),
        labels: BTreeMap::new(),
        time: at(0),
        trace: Some(Trace { parent: parent.to_owned(), state: String::new() }),
    };
    let policy = Policy { max_attempts: 1, ..Policy::built_in() };
    let member = Registered { instance: instance.clone(), cluster, stop_order: 0, epoch: 1 };
    let id = OperationId::parse("op-1").unwrap();
    let (mut operation, events) = Operation::accept(id, request, policy, vec![member], Vec::new(), 1);
    let mut records = Vec::new();
    let mut tell = |operation: &Operation, events: &[quiesce_operation::Event]| {
        records.extend(events.iter().map(|event| EventRecord::new(operation, event)));
    };
    tell(&operation, &events);
    let answer = Ok(Probe {
        capabilities: Default::default(),
        ready: true,
        findings: Vec::new(),
        app_state: AppState::Running,
        epoch: 1,
        cannot_start: String::new(),
    });
    let report = StopReport {
        sequence: 1,
        phase: StopPhase::Stopping,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period: None,
        result: None,
    };
    let inputs = [
        Input::Begin,
        Input::Probed { instance: instance.clone(), serial: 1, answer },
        Input::StopReported { instance, attempt: 1, report },
    ];
    for input in inputs {
        let events = operation.handle(at(1), input).events;
        tell(&operation, &events);
    }
    let events = operation.handle_deadline(at(100)).events;
    tell(&operation, &events);
    let overrides = PolicyOverrides { allow_unverified: Some(true), ..PolicyOverrides::default() };
    let events = operation.retry(at(200), &caller, true, &overrides).unwrap().events;
    tell(&operation, &events);
    let events = operation.handle(at(200), Input::Begin).events;
    tell(&operation, &events);
    while let Some(due) = operation.next_deadline() {
        let events = operation.handle_deadline(due).events;
        tell(&operation, &events);
    }
    records
}

fn tales() -> Tales {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(0));
    Tales::new(clock)
}

fn told(tales: &mut Tales, events: &[EventRecord]) -> Vec<SpanData> {
    events.iter().flat_map(|event| tales.hear(event)).collect()
}

fn one<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "{name} once");
    span
}

#[test]
fn what_went_wrong_is_on_the_spans() {
    let spans = told(&mut tales(), &story(RECORDED));
    let operation = one(&spans, "delete");
    assert_eq!(operation.parent_span_id, SpanId::from(0x00f0_67aa_0ba9_02b7));
    assert!(operation.parent_span_is_remote);
    let noted: Vec<_> = operation.events.iter().map(|event| event.name.as_ref()).collect();
    assert!(noted.contains(&"override"), "{noted:?}");

    let degraded = one(&spans, "state degraded");
    assert!(matches!(degraded.status, Status::Error { .. }), "{degraded:?}");
    assert_eq!(degraded.end_time.duration_since(degraded.start_time).unwrap().as_secs(), 100, "until the retry");
    let shutdown = one(&spans, "shutdown");
    let noted: Vec<_> = shutdown.events.iter().map(|event| event.name.as_ref()).collect();
    assert!(noted.starts_with(&["phase STOPPING", "timeout"]), "{noted:?}");
    let Status::Error { description } = &shutdown.status else { panic!("{shutdown:#?}") };
    assert!(description.starts_with("HOOK_UNREACHABLE"), "what went wrong last: {description}");
    let of_the_operation = operation.span_context.span_id();
    for span in spans.iter().filter(|span| span.name != "delete") {
        assert_eq!(span.parent_span_id, of_the_operation, "{span:#?}");
        assert_eq!(span.span_context.trace_id(), operation.span_context.trace_id());
    }
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| span.span_context.span_id().to_bytes()).collect();
    assert_eq!(ids.len(), spans.len(), "an id for each");
}

#[test]
fn who_hears_the_story_again_tells_the_same() {
    let events = story(RECORDED);
    let spans = told(&mut tales(), &events);
    assert_eq!(told(&mut tales(), &events), spans);
    assert!(told(&mut tales(), &events[..events.len() - 1]).is_empty(), "nothing before it is over");
}

#[test]
fn of_a_story_whose_beginning_is_gone_the_rest_is_told() {
    let events = story(RECORDED);
    let whole = told(&mut tales(), &events);
    let rest = told(&mut tales(), &events[3..]);
    assert_eq!(one(&rest, "delete").start_time, one(&whole, "delete").start_time);
    assert_eq!(one(&rest, "state degraded").end_time, one(&whole, "state degraded").end_time);
}

#[test]
fn what_its_caller_does_not_record_is_not_recorded_here() {
    let unrecorded = RECORDED.replace("-01", "-00");
    assert!(told(&mut tales(), &story(&unrecorded)).is_empty());
    assert!(told(&mut tales(), &story("not a place in a trace")).is_empty());
}
