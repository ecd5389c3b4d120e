//! What can be counted: every metric of the scheduler, declared once.
//!
//! Labels come from enums and from the names of our own methods, never from ids or texts of others. Operations are
//! counted where the event log is followed, so that what is counted is what is durable.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use quiesce_protocol::v1;
use quiesce_store::Condition;
use v1::operation_event::Type;

use crate::driver::Gauges;

type Labels<const N: usize> = [(&'static str, String); N];

/// Upper bounds in seconds: from a fast exit to the longest grace period.
const SHUTDOWN_SECONDS: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 86_400.0];
/// Upper bounds in seconds: from a read in memory to a dry run that waits for hooks.
const HANDLING_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Why a connection was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// There are too many, at all or of its peer.
    Limit,
    /// The handshake failed.
    Tls,
    /// What it said first is nothing we know, or did not come in time.
    Preface,
    /// It wanted to dial in with a token that is no good.
    Attach,
}

/// All metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    operations: Family<Labels<2>, Counter>,
    stops: Family<Labels<1>, Histogram>,
    timeouts: Family<Labels<1>, Counter>,
    attempts_failed: Counter,
    events: Counter,
    grpc_handled: Family<Labels<3>, Counter>,
    grpc_seconds: Family<Labels<2>, Histogram>,
    in_progress: Gauge,
    stalled: Gauge,
    not_driven: Gauge,
    stalls: Gauge,
    without_effect: Gauge,
    revision: Gauge,
    condition: Family<Labels<1>, Gauge>,
    authentications_failed: Family<Labels<1>, Counter>,
    audit_waiting: Gauge,
    connections: Gauge,
    turned: Family<Labels<1>, Counter>,
    certificate_seconds: Family<Labels<1>, Gauge>,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("quiesce");
        let metrics = Self {
            registry: Arc::default(),
            operations: Family::default(),
            stops: Family::new_with_constructor(|| Histogram::new(SHUTDOWN_SECONDS)),
            timeouts: Family::default(),
            attempts_failed: Counter::default(),
            events: Counter::default(),
            grpc_handled: Family::default(),
            grpc_seconds: Family::new_with_constructor(|| Histogram::new(HANDLING_SECONDS)),
            in_progress: Gauge::default(),
            stalled: Gauge::default(),
            not_driven: Gauge::default(),
            stalls: Gauge::default(),
            without_effect: Gauge::default(),
            revision: Gauge::default(),
            condition: Family::default(),
            authentications_failed: Family::default(),
            audit_waiting: Gauge::default(),
            connections: Gauge::default(),
            turned: Family::default(),
            certificate_seconds: Family::default(),
        };
        let m = &metrics;
        registry.register("operations", "Operations that are done, by kind and outcome", m.operations.clone());
        registry.register(
            "shutdown_duration_seconds",
            "Time from the acceptance of a shutdown to the end of the instance, by outcome",
            m.stops.clone(),
        );
        registry.register("timeouts", "Timers that ran out, by reason", m.timeouts.clone());
        registry.register("attempts_failed", "Attempts on an instance that failed", m.attempts_failed.clone());
        registry.register("events", "Events of operations", m.events.clone());
        registry.register("grpc_server_handled", "Calls answered, by service, method and code", m.grpc_handled.clone());
        registry.register(
            "grpc_server_handling_seconds",
            "Time until a call was answered; for streams, until they began",
            m.grpc_seconds.clone(),
        );
        registry.register("operations_in_progress", "Operations that are being driven", m.in_progress.clone());
        registry.register(
            "operations_stalled",
            "Operations whose last change the store does not take",
            m.stalled.clone(),
        );
        registry.register(
            "operations_not_driven",
            "Operations that ought to be driven and are not",
            m.not_driven.clone(),
        );
        registry.register("store_stalls", "Changes the store did not take at first, so far", m.stalls.clone());
        registry.register(
            "inputs_without_effect",
            "Answers of hooks that changed nothing (stale, repeated or no news), so far",
            m.without_effect.clone(),
        );
        registry.register("store_revision", "Writes that are durable, so far", m.revision.clone());
        registry.register(
            "store_condition",
            "1 for what the store would say to a change now, 0 for everything else",
            m.condition.clone(),
        );
        registry.register(
            "authentications_failed",
            "Callers who were not let in: refused, or throttled after too many of them",
            m.authentications_failed.clone(),
        );
        registry.register(
            "audit_lines_waiting",
            "Lines of the audit log that could not be written yet",
            m.audit_waiting.clone(),
        );
        registry.register("connections", "Connections of callers and agents that are open", m.connections.clone());
        registry.register(
            "connections_turned_away",
            "Connections that were closed before anything was asked on them, by reason",
            m.turned.clone(),
        );
        registry.register(
            "tls_certificate_expiry_seconds",
            "Time until the certificate callers see expires, negative afterwards; nothing without TLS",
            m.certificate_seconds.clone(),
        );
        *metrics.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry;
        metrics
    }

    /// One event became durable.
    pub(crate) fn event(&self, event: &v1::OperationEvent) {
        self.events.inc();
        let Some(operation) = &event.operation else { return };
        match event.r#type() {
            Type::StateChanged if operation.done => {
                let kind = operation.kind().as_str_name().trim_start_matches("OPERATION_KIND_").to_lowercase();
                let outcome = operation.state().as_str_name().trim_start_matches("STATE_").to_lowercase();
                self.operations.get_or_create(&[("kind", kind), ("outcome", outcome)]).inc();
            }
            Type::Timeout => {
                let reason = event.failure.as_ref().map(v1::Failure::reason).unwrap_or_default();
                let reason = reason.as_str_name().trim_start_matches("REASON_").to_lowercase();
                self.timeouts.get_or_create(&[("reason", reason)]).inc();
            }
            Type::AttemptFailed => {
                self.attempts_failed.inc();
            }
            Type::InstanceStopped => {
                let Some(instance) = &event.instance else { return };
                let Some(result) = instance.status.as_ref().and_then(|status| status.result.as_ref()) else { return };
                let Some(took) = between(instance.accept_time, event.event_time) else { return };
                let outcome = result.outcome().as_str_name().trim_start_matches("OUTCOME_").to_lowercase();
                self.stops.get_or_create(&[("outcome", outcome)]).observe(took.as_secs_f64());
            }
            Type::Unspecified
            | Type::Snapshot
            | Type::Created
            | Type::StateChanged
            | Type::Progress
            | Type::DeadlineExtended
            | Type::ExtensionDenied
            | Type::Bookmark
            | Type::InstanceStarting
            | Type::InstanceReady
            | Type::Override => {}
        }
    }

    /// A caller was not let in.
    pub(crate) fn authentication_failed(&self, throttled: bool) {
        let outcome = if throttled { "throttled" } else { "refused" };
        self.authentications_failed.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// Shows how many connections are open.
    pub(crate) fn connections(&self) -> Gauge {
        self.connections.clone()
    }

    /// A connection was closed before anything was asked on it.
    pub(crate) fn turned(&self, why: Turned) {
        let reason = match why {
            Turned::Limit => "limit",
            Turned::Tls => "tls",
            Turned::Preface => "preface",
            Turned::Attach => "attach_token",
        };
        self.turned.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// How many lines of the audit log wait.
    pub(crate) fn audit(&self, waiting: usize) {
        self.audit_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// One call was answered.
    pub(crate) fn call(&self, service: &'static str, method: &str, code: tonic::Code, took: Duration) {
        let (service, method) = (("service", service.to_owned()), ("method", method.to_owned()));
        let code = ("code", format!("{code:?}"));
        self.grpc_handled.get_or_create(&[service.clone(), method.clone(), code]).inc();
        self.grpc_seconds.get_or_create(&[service, method]).observe(took.as_secs_f64());
    }

    /// Everything, in the text format of OpenMetrics.
    pub(crate) fn render(
        &self,
        driver: Gauges,
        revision: u64,
        condition: Condition,
        certificate_seconds: Option<i64>,
    ) -> Result<String, std::fmt::Error> {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.in_progress, driver.open as u64);
        set(&self.stalled, driver.stalled as u64);
        set(&self.not_driven, driver.failed as u64);
        set(&self.stalls, driver.stalls_total);
        set(&self.without_effect, driver.inputs_without_effect_total);
        set(&self.revision, revision);
        for known in Condition::ALL {
            let gauge = self.condition.get_or_create(&[("condition", known.as_str().to_owned())]);
            gauge.set(i64::from(known == condition));
        }
        if let Some(left) = certificate_seconds {
            self.certificate_seconds.get_or_create(&[("edge", "callers".to_owned())]).set(left);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

fn between(start: Option<prost_types::Timestamp>, end: Option<prost_types::Timestamp>) -> Option<Duration> {
    let (start, end) = (SystemTime::try_from(start?).ok()?, SystemTime::try_from(end?).ok()?);
    end.duration_since(start).ok()
}
