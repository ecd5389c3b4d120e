//! The way of spans out of the process: a queue with an end, batches, one export at a time. Nobody waits for it.
//!
//! The library's batches and exporter do the work; around them it is counted what became of every span, and said in the
//! log, not too often, when a collector does not take them.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use tracing::warn;

use super::settings;
use crate::metrics::{Exported, Metrics};

/// How often it is said that spans get lost.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Takes finished spans. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    batches: Arc<BatchSpanProcessor>,
    ledger: Arc<Ledger>,
}

/// What became of the spans.
struct Ledger {
    waiting: AtomicUsize,
    waiting_max: usize,
    metrics: Metrics,
    complained: Mutex<Option<Instant>>,
}

impl Queue {
    pub(super) fn new(exporter: Otlp, resource: &Resource, metrics: Metrics) -> Self {
        let waiting_max = settings::queue_size();
        let ledger = Ledger { waiting: AtomicUsize::new(0), waiting_max, metrics, complained: Mutex::new(None) };
        let ledger = Arc::new(ledger);
        // The library's own queue has room for all that wait here, so that none is dropped where nobody counts it.
        let config = BatchConfigBuilder::default().with_max_queue_size(waiting_max).build();
        let counted = Counted { exporter, ledger: Arc::clone(&ledger) };
        let mut batches = BatchSpanProcessor::builder(counted).with_batch_config(config).build();
        batches.set_resource(resource);
        Self { batches: Arc::new(batches), ledger }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.ledger.waiting).finish_non_exhaustive()
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.ledger.waiting.fetch_add(1, Ordering::Relaxed) >= self.ledger.waiting_max {
            self.ledger.waiting.fetch_sub(1, Ordering::Relaxed);
            self.ledger.metrics.spans(Exported::Dropped, 1);
            return;
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }
}

/// Sends batches, and counts them.
struct Counted {
    exporter: Otlp,
    ledger: Arc<Ledger>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The exporter has the headers, and in them perhaps a credential.
        f.write_str("Counted")
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let outcome = self.exporter.export(batch).await;
        self.ledger.sent(count, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl Ledger {
    fn sent(&self, count: usize, outcome: &OTelSdkResult) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let became = if outcome.is_ok() { Exported::Sent } else { Exported::Failed };
        self.metrics.spans(became, count);
        if let Err(error) = outcome {
            let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
            if complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
                *complained = Some(Instant::now());
                warn!(%error, spans = count, "the collector of traces does not take them; operations do not wait for it");
            }
        }
    }
}
