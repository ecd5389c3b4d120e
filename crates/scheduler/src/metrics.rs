//! What can be counted, and where it is counted. Every metric is declared once, in [`series`].
//!
//! Labels come from closed lists ([`labels`]), never from ids or texts of others. Operations are counted where the event
//! log is followed, so that what is counted is what is durable, and once: a restart goes on behind what it finds, and
//! counters begin at 0 with the process. What is there in some number is kept up to date with every change; a scrape reads
//! as many values as there are series, however many operations there are.
//!
//! `docs/metrics.md` is made of the declarations.

mod catalogue;
mod labels;
mod resting;
mod series;
#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quiesce_operation::report::AppState;
use quiesce_operation::{EventKind, Moment, Operation, OperationId, StateName};
use quiesce_store::Condition;
use quiesce_store::embedded::{CommitOutcome, Observer};

use crate::driver::Gauges;
use crate::hooks::{HookState, Tally};
use crate::records::EventRecord;
use catalogue::{Catalogue, Labels};
pub(crate) use labels::{Barred, Ended, Exported, Followed, Turned, label, name};
use labels::{Edge, Extension, Label, Purpose};
use resting::Resting;
use series::Series;

/// All metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    series: Arc<Series>,
    resting: Arc<Mutex<Rest>>,
}

/// The states in which an operation waits for a person while its application does not run as it should.
#[derive(Debug, Default)]
struct Rest {
    stopped: Resting,
    degraded: Resting,
}

/// What is read when somebody looks.
pub(crate) struct Now {
    pub(crate) driver: Gauges,
    pub(crate) hooks: Tally,
    pub(crate) revision: u64,
    pub(crate) condition: Condition,
    /// Until the certificate that callers see expires; none without TLS.
    pub(crate) certificate_seconds: Option<i64>,
    pub(crate) time: Moment,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut catalogue = Catalogue::new();
        let series = Arc::new(Series::declare(&mut catalogue));
        let registry = Arc::new(catalogue.into_registry());
        Self { registry, series, resting: Arc::default() }
    }

    /// An operation is open that an earlier process has begun. To be said of all of them before the first event.
    pub(crate) fn resumed(&self, operation: &Operation) {
        let state = operation.state();
        self.series.in_progress.get_or_create(&[("state", state.word())]).inc();
        self.rest(operation.id(), state, operation.updated());
    }

    /// One event became durable.
    pub(crate) fn event(&self, event: &EventRecord) {
        let (series, operation) = (&*self.series, &event.operation);
        series.events.inc();
        let kind = ("kind", operation.request.kind.word());
        match event.kind {
            EventKind::Created => {
                series.accepted.get_or_create(&[kind]).inc();
                series.in_progress.get_or_create(&[("state", operation.state.word())]).inc();
            }
            EventKind::StateChanged => self.state_changed(event),
            EventKind::Timeout => {
                count(&series.timeouts, "reason", event.failure.as_ref().map(|failure| failure.reason))
            }
            EventKind::AttemptFailed => {
                count(&series.attempts_failed, "reason", event.failure.as_ref().map(|failure| failure.reason));
            }
            EventKind::DeadlineExtended => count(&series.extensions, "outcome", Some(Extension::Granted)),
            EventKind::ExtensionDenied => count(&series.extensions, "outcome", Some(Extension::Denied)),
            EventKind::InstanceStopped => self.instance_stopped(event),
            EventKind::InstanceReady => {
                let Some(start) = &event.start else { return };
                let Some(ordered) = start.ordered else { return };
                let purpose = if start.rollback { Purpose::Rollback } else { Purpose::Target };
                let took = event.time.since(ordered).as_secs_f64();
                series.start_seconds.get_or_create(&[("purpose", purpose.word())]).observe(took);
            }
            // With an instance, its end is taken for granted; without, permission or force is given.
            EventKind::Override if event.member.is_some() => {
                series.unverified_ends.inc();
            }
            EventKind::Override => {
                series.overrides.inc();
            }
            EventKind::Progress | EventKind::InstanceStarting => {}
        }
    }

    fn state_changed(&self, event: &EventRecord) {
        let (series, operation) = (&*self.series, &event.operation);
        let state = operation.state;
        series.in_progress.get_or_create(&[("state", event.previous.word())]).dec();
        count(&series.entered, "state", Some(state));
        self.rest(&operation.id, state, event.time);
        if !state.is_final() {
            series.in_progress.get_or_create(&[("state", state.word())]).inc();
            return;
        }
        let labels = [("kind", operation.request.kind.word()), ("outcome", state.word())];
        series.operations.get_or_create(&labels).inc();
        let took = event.time.since(operation.request.time);
        series.operation_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn instance_stopped(&self, event: &EventRecord) {
        let Some(shutdown) = event.member.as_ref().and_then(|member| member.shutdown.as_ref()) else { return };
        let Some(result) = shutdown.report.as_ref().and_then(|report| report.result.as_ref()) else { return };
        let outcome = ("outcome", result.outcome.word());
        self.series.instances_stopped.get_or_create(&[outcome, ("evidence", result.evidence.word())]).inc();
        if let Some(accepted) = shutdown.accepted {
            let took = event.time.since(accepted).as_secs_f64();
            self.series.shutdown_seconds.get_or_create(&[outcome]).observe(took);
        }
    }

    fn rest(&self, id: &OperationId, state: StateName, since: Moment) {
        let mut resting = self.resting();
        let Rest { stopped, degraded } = &mut *resting;
        for (place, of) in [(stopped, StateName::Stopped), (degraded, StateName::Degraded)] {
            if state == of { place.begin(id, since) } else { place.end(id) }
        }
    }

    fn resting(&self) -> MutexGuard<'_, Rest> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch has begun; it is open until what comes back is dropped.
    pub(crate) fn watch(&self, scope: Followed) -> OpenWatch {
        self.series.watches.get_or_create(&[("scope", scope.word())]).inc();
        OpenWatch { series: Arc::clone(&self.series), scope, ended: Ended::Gone }
    }

    /// Events were left out of a watch because later ones say more.
    pub(crate) fn merged(&self, events: usize) {
        self.series.progress_merged.inc_by(events as u64);
    }

    /// A caller was not let in.
    pub(crate) fn authentication_failed(&self, why: Barred) {
        count(&self.series.authentications_failed, "outcome", Some(why));
    }

    /// Shows how many connections are open.
    pub(crate) fn connections(&self) -> Gauge {
        self.series.connections.clone()
    }

    /// A connection was closed before anything was asked on it.
    pub(crate) fn turned(&self, why: Turned) {
        count(&self.series.turned, "reason", Some(why));
    }

    /// How many lines of the audit log wait.
    pub(crate) fn audit(&self, waiting: usize) {
        self.series.audit_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A call has come in; it is under way until what comes back is dropped.
    pub(crate) fn call(&self, service: &'static str, method: &'static str) -> OpenCall {
        self.series.grpc_started.get_or_create(&[("service", service), ("method", method)]).inc();
        self.series.grpc_in_progress.inc();
        OpenCall { series: Arc::clone(&self.series), service, method }
    }

    /// So many spans of traces have come to that.
    pub(crate) fn spans(&self, became: Exported, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.series.spans.get_or_create(&[("outcome", became.word())]).inc_by(count);
    }

    /// Everything, in the text format of OpenMetrics.
    pub(crate) fn render(&self, now: &Now) -> Result<String, std::fmt::Error> {
        let series = &*self.series;
        let set = |gauge: &Gauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&series.stalled, now.driver.stalled);
        set(&series.not_driven, now.driver.failed);
        // Counted elsewhere, and never less than before: two who look at the same time do not add it up.
        series.stalls.inner().fetch_max(now.driver.stalls_total, Ordering::Relaxed);
        series.without_effect.inner().fetch_max(now.driver.inputs_without_effect_total, Ordering::Relaxed);
        series.revision.set(i64::try_from(now.revision).unwrap_or(i64::MAX));
        for known in HookState::ALL {
            set(&series.hooks.get_or_create(&[("state", known.word())]), now.hooks.of_state(*known));
        }
        for known in AppState::ALL {
            set(&series.instances.get_or_create(&[("app_state", known.word())]), now.hooks.of_app(*known));
        }
        for known in Condition::ALL {
            series.condition.get_or_create(&[("condition", known.word())]).set(i64::from(known == now.condition));
        }
        if let Some(left) = now.certificate_seconds {
            series.certificate_seconds.get_or_create(&[("edge", Edge::Callers.word())]).set(left);
        }
        let (stopped, degraded) = {
            let resting = self.resting();
            (resting.stopped.longest(now.time), resting.degraded.longest(now.time))
        };
        for (state, longest) in [(StateName::Stopped, stopped), (StateName::Degraded, degraded)] {
            let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
            series.resting_seconds.get_or_create(&[("state", state.word())]).set(longest);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn count<L: Label>(family: &Family<Labels<1>, Counter>, name: &'static str, label: Option<L>) {
    if let Some(label) = label {
        family.get_or_create(&[(name, label.word())]).inc();
    }
}

impl Observer for Metrics {
    fn committed(&self, outcome: CommitOutcome, took: Duration) {
        self.series.commit_seconds.get_or_create(&[("outcome", outcome.word())]).observe(took.as_secs_f64());
    }

    fn synced(&self, batches: usize, took: Duration) {
        self.series.sync_seconds.observe(took.as_secs_f64());
        // Some thousand at most.
        self.series.sync_batches.observe(batches as f64);
    }
}

/// A watch that is counted as open.
#[derive(Debug)]
pub(crate) struct OpenWatch {
    series: Arc<Series>,
    scope: Followed,
    ended: Ended,
}

impl OpenWatch {
    /// Why it ends, unless the watcher just leaves.
    pub(crate) fn ends(&mut self, why: Ended) {
        self.ended = why;
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.series.watches.get_or_create(&[("scope", self.scope.word())]).dec();
        count(&self.series.watches_ended, "reason", Some(self.ended));
    }
}

/// A call that is counted as under way.
#[derive(Debug)]
pub(crate) struct OpenCall {
    series: Arc<Series>,
    service: &'static str,
    method: &'static str,
}

impl OpenCall {
    /// It is answered.
    pub(crate) fn answered(&self, code: tonic::Code, took: Duration) {
        let (service, method) = (("service", self.service), ("method", self.method));
        self.series.grpc_handled.get_or_create(&[service, method, ("code", code.word())]).inc();
        self.series.grpc_seconds.get_or_create(&[service, method]).observe(took.as_secs_f64());
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.series.grpc_in_progress.dec();
    }
}
