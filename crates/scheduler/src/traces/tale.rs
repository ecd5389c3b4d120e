//! What an operation went through, as spans: made of the events of the log, and told when it is over.
//!
//! | span | parent | from, to |
//! |---|---|---|
//! | `migrate`, `delete` | the caller's | acceptance, final state |
//! | `state preparing`, ... | the operation | entered, left |
//! | `shutdown` | the operation | accepted by the hook, last word of it |
//! | `start` | the operation | ordered, ready or failed |
//!
//! Phases of a shutdown, timers that ran out, overrides and the like are events on these spans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents};
use quiesce_operation::member::Member;
use quiesce_operation::report::StopPhase;
use quiesce_operation::start::StartMember;
use quiesce_operation::{EventKind, Failure, InstanceId, Moment, OperationId, StateName};
use quiesce_runtime::clock::Clock;
use quiesce_runtime::trace_context::TraceContext;

use super::{ids, settings, span_context, stored};
use crate::convert::operation::event_type;
use crate::metrics::{label, name};
use crate::records::EventRecord;

/// Most shutdowns, and most starts, that are told of one operation: twice as many as an application can have instances.
const EACH_MAX: usize = 1000;
/// Most events on one span; the default limit of OpenTelemetry.
const EVENTS_MAX: usize = 128;
/// What ended so shortly before the process began may not have been sent by the one before: batches wait for 5 s by default.
const RECENT: Duration = Duration::from_secs(60);

/// So long before.
pub(super) fn before(moment: Moment) -> Moment {
    Moment::from_millis(moment.as_millis().saturating_sub(RECENT.as_millis().try_into().unwrap_or(u64::MAX)))
}

/// The operations that are under way.
pub(super) struct Tales {
    clock: Arc<dyn Clock>,
    open: BTreeMap<OperationId, Tale>,
    scope: InstrumentationScope,
}

/// One of them, so far.
#[derive(Default)]
struct Tale {
    states: Vec<(StateName, Moment)>,
    shutdowns: BTreeMap<(InstanceId, u32), Shutdown>,
    starts: BTreeMap<(InstanceId, u64), Start>,
    events: Vec<Event>,
}

struct Shutdown {
    member: Member,
    began: Moment,
    ended: Moment,
    phase: Option<StopPhase>,
    events: Vec<Event>,
    failure: Option<String>,
}

struct Start {
    member: StartMember,
    began: Moment,
    ended: Moment,
    failure: Option<String>,
}

impl Tales {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, open: BTreeMap::new(), scope: InstrumentationScope::builder(settings::SCOPE).build() }
    }

    /// What has happened since may have got lost with the process before.
    pub(super) fn recent(&self) -> Moment {
        before(Moment::from_millis(self.clock.now()))
    }

    /// An event, in the order of the log. Returns everything there is to tell once an operation is over.
    pub(super) fn hear(&mut self, event: &EventRecord) -> Vec<SpanData> {
        let operation = &event.operation;
        let Some(place) = operation.request.trace.as_ref().and_then(stored).filter(|place| place.sampled) else {
            return Vec::new();
        };
        let is_over = operation.state.is_final();
        if is_over && event.kind != EventKind::StateChanged {
            return Vec::new(); // it was told with the change
        }
        // Whose beginning is not in the log any more begins with what is known of it.
        let tale = self
            .open
            .entry(operation.id.clone())
            .or_insert_with(|| Tale { states: vec![(event.previous, operation.request.time)], ..Tale::default() });
        tale.hear(event, &*self.clock);
        if !is_over {
            return Vec::new();
        }
        let tale = self.open.remove(&operation.id).unwrap_or_default();
        Telling { clock: &*self.clock, scope: &self.scope, place, last: event }.tell(tale)
    }
}

impl Tale {
    fn hear(&mut self, event: &EventRecord, clock: &dyn Clock) {
        let time = event.time;
        if event.kind == EventKind::StateChanged {
            self.states.push((event.operation.state, time));
        }
        if let Some(member) = &event.member {
            self.hear_of_member(member, event, clock);
        }
        if let Some(start) = &event.start {
            let key = (start.instance.clone(), start.epoch);
            if self.starts.len() < EACH_MAX || self.starts.contains_key(&key) {
                let began = start.ordered.unwrap_or(time);
                let known = self.starts.entry(key).or_insert_with(|| Start {
                    member: start.clone(),
                    began,
                    ended: time,
                    failure: None,
                });
                (known.member, known.ended) = (start.clone(), time);
                known.failure = event.failure.as_ref().map(why).or(known.failure.take());
            }
        }
        let is_of_one = event.member.is_some() || event.start.is_some();
        let is_plain = matches!(event.kind, EventKind::Created | EventKind::StateChanged | EventKind::Progress);
        if !is_plain && !is_of_one && self.events.len() < EVENTS_MAX {
            self.events.push(note(event, clock));
        }
    }

    fn hear_of_member(&mut self, member: &Member, event: &EventRecord, clock: &dyn Clock) {
        let Some(shutdown) = &member.shutdown else { return };
        let key = (member.instance.clone(), shutdown.fence);
        if self.shutdowns.len() >= EACH_MAX && !self.shutdowns.contains_key(&key) {
            return;
        }
        let known = self.shutdowns.entry(key).or_insert_with(|| Shutdown {
            member: member.clone(),
            began: shutdown.accepted.unwrap_or(event.time),
            ended: event.time,
            phase: None,
            events: Vec::new(),
            failure: None,
        });
        (known.member, known.ended) = (member.clone(), event.time);
        let phase = shutdown.report.as_ref().map(|report| report.phase);
        if known.events.len() >= EVENTS_MAX {
            return;
        }
        if event.kind != EventKind::Progress && event.kind != EventKind::InstanceStopped {
            known.events.push(note(event, clock));
            known.failure = event.failure.as_ref().map(why).or(known.failure.take());
        }
        if let Some(phase) = phase.filter(|_| phase != known.phase) {
            known.phase = Some(phase);
            known.events.push(Event::new(format!("phase {phase}"), at(clock, event.time), Vec::new(), 0));
        }
    }
}

/// All spans of one operation that is over.
struct Telling<'a> {
    clock: &'a dyn Clock,
    scope: &'a InstrumentationScope,
    /// Of the operation.
    place: TraceContext,
    last: &'a EventRecord,
}

impl Telling<'_> {
    fn tell(&self, tale: Tale) -> Vec<SpanData> {
        let summary = &self.last.operation;
        let (id, request, ended) = (&summary.id, &summary.request, self.last.time);
        let own = ids::operation(id);
        let mut attributes = self.attributes();
        attributes.extend([
            KeyValue::new("quiesce.source_cluster", request.source.to_string()),
            KeyValue::new("quiesce.outcome", name(summary.state)),
            KeyValue::new("quiesce.rounds", i64::from(summary.round)),
        ]);
        attributes
            .extend(request.target.as_ref().map(|target| KeyValue::new("quiesce.target_cluster", target.to_string())));
        let failure = summary.failure.as_ref().map(why);
        let mut operation = self.span(
            label(request.kind).to_owned(),
            own,
            self.place.span_id,
            (request.time, ended),
            attributes,
            failure,
        );
        operation.parent_span_is_remote = true;
        operation.events = events(tale.events);
        let mut spans = vec![operation];
        let ends = tale.states.iter().skip(1).map(|(_, began)| *began).chain([ended]);
        for (place, ((state, began), ended)) in (0..).zip(tale.states.iter().zip(ends)) {
            if state.is_final() {
                continue;
            }
            let failure = (*state == StateName::Degraded).then(|| "it waits for a person".to_owned());
            let span = ids::state(id, place);
            let name = format!("state {}", label(*state));
            spans.push(self.span(name, span, own, (*began, ended), self.attributes(), failure));
        }
        spans.extend(tale.shutdowns.into_iter().map(|((instance, fence), shutdown)| {
            let mut attributes = self.attributes();
            attributes.extend(of_member(&shutdown.member));
            let span = ids::shutdown(id, &instance, fence);
            let times = (shutdown.began, shutdown.ended);
            let mut span = self.span("shutdown".to_owned(), span, own, times, attributes, shutdown.failure);
            span.span_kind = SpanKind::Client;
            span.events = events(shutdown.events);
            span
        }));
        spans.extend(tale.starts.into_iter().map(|((instance, epoch), start)| {
            let mut attributes = self.attributes();
            attributes.extend(of_start(&start.member));
            let span = ids::start(id, &instance, epoch);
            let mut span =
                self.span("start".to_owned(), span, own, (start.began, start.ended), attributes, start.failure);
            span.span_kind = SpanKind::Client;
            span
        }));
        spans
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let summary = &self.last.operation;
        vec![
            KeyValue::new("quiesce.operation.id", summary.id.to_string()),
            KeyValue::new("quiesce.application", summary.request.application.to_string()),
        ]
    }

    fn span(
        &self,
        name: String,
        id: u64,
        parent: u64,
        (began, ended): (Moment, Moment),
        attributes: Vec<KeyValue>,
        failure: Option<String>,
    ) -> SpanData {
        SpanData {
            span_context: span_context(&self.place.child(id), false),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: at(self.clock, began),
            end_time: at(self.clock, ended),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: Default::default(),
            status: failure.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

fn of_member(member: &Member) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("quiesce.instance", member.instance.to_string()),
        KeyValue::new("quiesce.cluster", member.cluster.to_string()),
        number("quiesce.epoch", member.epoch),
    ];
    let Some(shutdown) = &member.shutdown else { return attributes };
    attributes.push(number("quiesce.attempt", shutdown.fence));
    attributes.push(number("quiesce.grace_period_ms", shutdown.grace.as_millis()));
    if let Some(result) = shutdown.report.as_ref().and_then(|report| report.result.as_ref()) {
        attributes.push(KeyValue::new("quiesce.outcome", name(result.outcome)));
        attributes.push(KeyValue::new("quiesce.evidence", result.evidence.to_string()));
        attributes.extend(result.clean.map(|clean| KeyValue::new("quiesce.clean", clean)));
        attributes.extend(result.exit_code.map(|code| number("process.exit.code", code)));
        attributes.extend(result.exit_signal.map(|signal| number("quiesce.exit_signal", signal)));
    }
    attributes
}

fn of_start(start: &StartMember) -> [KeyValue; 4] {
    [
        KeyValue::new("quiesce.instance", start.instance.to_string()),
        KeyValue::new("quiesce.cluster", start.cluster.to_string()),
        number("quiesce.epoch", start.epoch),
        KeyValue::new("quiesce.rollback", start.rollback),
    ]
}

fn note(event: &EventRecord, clock: &dyn Clock) -> Event {
    let name = event_type(event.kind).as_str_name().trim_start_matches("TYPE_").to_ascii_lowercase();
    let message = Some(event.message.clone()).filter(|message| !message.is_empty());
    let attributes = message.map(|message| KeyValue::new("message", message)).into_iter().collect();
    Event::new(name, at(clock, event.time), attributes, 0)
}

fn why(failure: &Failure) -> String {
    format!("{}: {}", name(failure.reason), failure.message)
}

fn events(events: Vec<Event>) -> SpanEvents {
    let mut on_span = SpanEvents::default();
    on_span.events = events;
    on_span
}

fn number(name: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(name, Value::I64(value.try_into().unwrap_or(i64::MAX)))
}

fn at(clock: &dyn Clock, moment: Moment) -> SystemTime {
    clock.wall(moment.as_millis())
}
