//! Distributed traces: who called, what the operation went through, what was asked of which hook, as spans by OTLP.
//!
//! Off unless the environment names a collector, see [`settings`]. An operation outlives processes, so nothing of its spans
//! is kept in one: their ids follow from its own ([`ids`]), what they say from the event log ([`tale`]). Its place in the
//! trace of the caller is part of its record. Whoever does not record hands on what the caller sent, unchanged.

mod export;
mod ids;
mod settings;
mod tale;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanProcessor as _};
use quiesce_operation::{InstanceId, Moment, Operation, Trace};
use quiesce_runtime::clock::Clock;
use quiesce_runtime::machine::Machine;
use quiesce_runtime::trace_context::TraceContext;
use tonic::Code;
use tracing::warn;

use crate::metrics::Metrics;
use crate::records::EventRecord;
use export::Queue;
pub use settings::{OpenError, TraceSettings};
use tale::Tales;

/// How long what still waits to be sent may take when the scheduler stops.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// Records, or does not. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Traces {
    recording: Option<Arc<Recording>>,
}

struct Recording {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    queue: Queue,
}

impl Traces {
    /// Records to where the settings say. Call it in a runtime, which the connection lives in.
    pub(crate) fn open(settings: TraceSettings, machine: &Machine, metrics: &Metrics) -> Result<Self, OpenError> {
        let Some(collector) = settings.collector()? else { return Ok(Self::default()) };
        let resource = settings::resource();
        let queue = Queue::new(collector.exporter(machine)?, &resource, metrics.clone());
        // The sampler is what the environment says, by way of the library.
        let provider = SdkTracerProvider::builder().with_span_processor(queue.clone()).with_resource(resource).build();
        let tracer = provider.tracer(settings::SCOPE);
        Ok(Self { recording: Some(Arc::new(Recording { provider, tracer, queue })) })
    }

    /// A call has come in.
    pub(crate) fn call(&self, headers: &HeaderMap, service: &'static str, method: &'static str) -> TracedCall {
        let came = TraceContext::read(|name| headers.get(name)?.to_str().ok());
        let Some(recording) = &self.recording else { return TracedCall { context: came, span: None } };
        let parent = came
            .as_ref()
            .map_or_else(Context::new, |came| Context::new().with_remote_span_context(span_context(came, true)));
        let builder = recording.tracer.span_builder(format!("{service}/{method}")).with_kind(SpanKind::Server);
        let attributes = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.service", service),
            KeyValue::new("rpc.method", method),
        ];
        let span = builder.with_attributes(attributes).start_with_context(&recording.tracer, &parent);
        let own = span.span_context();
        let context = TraceContext {
            trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(own.span_id().to_bytes()),
            sampled: own.is_sampled(),
            state: own.trace_state().header(),
        };
        TracedCall { context: Some(context), span: Some(span) }
    }

    /// What is to be sent along with the shutdown of an instance.
    pub(crate) fn of_shutdown(&self, operation: &Operation, instance: &InstanceId, fence: u32) -> Option<TraceContext> {
        self.of(operation, || ids::shutdown(operation.id(), instance, fence))
    }

    /// What is to be sent along with the start of an instance.
    pub(crate) fn of_start(&self, operation: &Operation, instance: &InstanceId, epoch: u64) -> Option<TraceContext> {
        self.of(operation, || ids::start(operation.id(), instance, epoch))
    }

    /// The caller's own place where nothing is recorded that could be a parent.
    fn of(&self, operation: &Operation, span: impl FnOnce() -> u64) -> Option<TraceContext> {
        let caller = stored(operation.request().trace.as_ref()?)?;
        Some(if self.recording.is_some() && caller.sampled { caller.child(span()) } else { caller })
    }

    /// Hears the event log, if anything is recorded.
    pub(crate) fn listener(&self, clock: &Arc<dyn Clock>) -> Option<Listener> {
        let queue = self.recording.as_ref()?.queue.clone();
        Some(Listener { tales: Tales::new(Arc::clone(clock)), queue, begin: None })
    }

    /// Sends what still waits, for a while.
    pub(crate) async fn close(self) {
        let Some(recording) = self.recording else { return };
        let closing = move || recording.provider.shutdown_with_timeout(CLOSE_LIMIT);
        match tokio::task::spawn_blocking(closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "not all spans were sent"),
            Err(_aborted) => warn!("not all spans were sent"),
        }
    }
}

/// A call that is being answered.
pub(crate) struct TracedCall {
    /// The place in the trace of whatever this call begins.
    pub(crate) context: Option<TraceContext>,
    span: Option<Span>,
}

impl TracedCall {
    /// It has its answer. Of the codes, those count as errors that are the server's (semantic conventions of gRPC).
    pub(crate) fn answered(mut self, code: Code, reason: &str) {
        let Some(span) = &mut self.span else { return };
        span.set_attribute(KeyValue::new("rpc.response.status_code", i64::from(i32::from(code))));
        if !reason.is_empty() {
            span.set_attribute(KeyValue::new("error.type", reason.to_owned()));
        }
        let is_ours = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if is_ours {
            span.set_status(Status::error(code.description()));
        }
        span.end();
    }
}

/// Makes spans of events and hands them over.
pub(crate) struct Listener {
    tales: Tales,
    queue: Queue,
    /// When the first of the operations that are open was accepted.
    begin: Option<Moment>,
}

impl Listener {
    /// Operations are open that an earlier process has begun.
    pub(crate) fn resumed<'a>(&mut self, operations: impl Iterator<Item = &'a Operation>) {
        let traced = operations.filter(|operation| operation.request().trace.is_some());
        self.begin = traced.map(|operation| operation.request().time).min();
    }

    /// Since when there is something in the log that has not been told yet, or perhaps not.
    pub(crate) fn begin(&self) -> Moment {
        let recent = self.tales.recent();
        // Events are in the order in which they became durable, which is not quite that in which they happened.
        self.begin.map_or(recent, |begin| tale::before(begin).min(recent))
    }

    /// An event, in the order of the log.
    pub(crate) fn hear(&mut self, event: &EventRecord) {
        for span in self.tales.hear(event) {
            self.queue.on_end(span);
        }
    }

    /// An event from before this process. An operation that was over by then has been told of, unless that was so
    /// shortly before that it may have got lost with the process: told twice, it has the same ids.
    pub(crate) fn recall(&mut self, event: &EventRecord) {
        let spans = self.tales.hear(event);
        if event.time >= self.tales.recent() {
            spans.into_iter().for_each(|span| self.queue.on_end(span));
        }
    }
}

/// As it is kept with an operation.
pub(crate) fn to_store(context: &TraceContext) -> Trace {
    Trace { parent: context.to_string(), state: context.state.clone() }
}

fn stored(trace: &Trace) -> Option<TraceContext> {
    TraceContext::read(|name| match name {
        quiesce_runtime::trace_context::TRACEPARENT => Some(trace.parent.as_str()),
        _ => Some(trace.state.as_str()),
    })
}

fn span_context(context: &TraceContext, is_remote: bool) -> SpanContext {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = context.state.parse::<TraceState>().unwrap_or_default();
    SpanContext::new(context.trace_id.into(), context.span_id.into(), flags, is_remote, state)
}
