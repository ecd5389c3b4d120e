//! The declaration of every metric: its name, what it means, what its labels can say. `docs/metrics.md` is made of this.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use quiesce_operation::report::{AppState, Evidence, StopOutcome};
use quiesce_operation::{Kind, Reason, StateName};
use quiesce_store::Condition;
use quiesce_store::embedded::CommitOutcome;

use super::catalogue::{Catalogue, Labels, Values};
use super::labels::{Barred, Ended, Exported, Extension, Followed, Purpose, Turned};
use crate::hooks::HookState;

/// Upper bounds in seconds: from a fast exit to the longest grace period.
const SHUTDOWN_SECONDS: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 86_400.0];
/// Upper bounds in seconds: from an application that starts at once to the longest `start_timeout`.
const START_SECONDS: [f64; 11] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0, 86_400.0];
/// Upper bounds in seconds: from a deletion of what ends at once to one that somebody comes back to after the weekend.
const OPERATION_SECONDS: [f64; 13] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86_400.0, 259_200.0];
/// Upper bounds in seconds: from a read in memory to a dry run that waits for hooks.
const HANDLING_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// Upper bounds in seconds: from a sync that a cache takes to a disk that is in trouble.
const COMMIT_SECONDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0];
/// Upper bounds in batches: from a commit that has the disk to itself to all that can wait.
const SYNC_BATCHES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// All of them.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) accepted: Family<Labels<1>, Counter>,
    pub(super) operations: Family<Labels<2>, Counter>,
    pub(super) operation_seconds: Family<Labels<2>, Histogram>,
    pub(super) in_progress: Family<Labels<1>, Gauge>,
    pub(super) entered: Family<Labels<1>, Counter>,
    pub(super) resting_seconds: Family<Labels<1>, Gauge>,
    pub(super) stalled: Gauge,
    pub(super) not_driven: Gauge,
    pub(super) instances_stopped: Family<Labels<2>, Counter>,
    pub(super) shutdown_seconds: Family<Labels<1>, Histogram>,
    pub(super) start_seconds: Family<Labels<1>, Histogram>,
    pub(super) attempts_failed: Family<Labels<1>, Counter>,
    pub(super) timeouts: Family<Labels<1>, Counter>,
    pub(super) extensions: Family<Labels<1>, Counter>,
    pub(super) overrides: Counter,
    pub(super) unverified_ends: Counter,
    pub(super) events: Counter,
    pub(super) without_effect: Counter,
    pub(super) hooks: Family<Labels<1>, Gauge>,
    pub(super) instances: Family<Labels<1>, Gauge>,
    pub(super) watches: Family<Labels<1>, Gauge>,
    pub(super) watches_ended: Family<Labels<1>, Counter>,
    pub(super) progress_merged: Counter,
    pub(super) commit_seconds: Family<Labels<1>, Histogram>,
    pub(super) sync_seconds: Histogram,
    pub(super) sync_batches: Histogram,
    pub(super) stalls: Counter,
    pub(super) revision: Gauge,
    pub(super) condition: Family<Labels<1>, Gauge>,
    pub(super) grpc_started: Family<Labels<2>, Counter>,
    pub(super) grpc_handled: Family<Labels<3>, Counter>,
    pub(super) grpc_seconds: Family<Labels<2>, Histogram>,
    pub(super) grpc_in_progress: Gauge,
    pub(super) authentications_failed: Family<Labels<1>, Counter>,
    pub(super) audit_waiting: Gauge,
    pub(super) spans: Family<Labels<1>, Counter>,
    pub(super) connections: Gauge,
    pub(super) turned: Family<Labels<1>, Counter>,
    pub(super) certificate_seconds: Family<Labels<1>, Gauge>,
}

fn outcomes() -> Values {
    Values::some("outcome", |state: StateName| state.is_final())
}

fn ends() -> Values {
    Values::some("outcome", |outcome| match outcome {
        StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => true,
        StopOutcome::StillRunning | StopOutcome::Restarted | StopOutcome::Unknown | StopOutcome::Cancelled => false,
    })
}

/// Of a timer; those of a start and of a lost connection among them.
fn timers() -> Values {
    Values::some("reason", |reason| match reason {
        Reason::AcceptTimeout
        | Reason::HeartbeatTimeout
        | Reason::GraceTimeout
        | Reason::KillTimeout
        | Reason::OverallTimeout
        | Reason::StartTimeout
        | Reason::HookUnreachable
        | Reason::HookRejected => true,
        Reason::ProtocolError
        | Reason::StillRunning
        | Reason::Restarted
        | Reason::Unverified
        | Reason::UncleanExit
        | Reason::CheckFailed
        | Reason::StartFailed => false,
    })
}

fn served() -> [Values; 2] {
    let service = "those of the contract, `grpc.health.v1.Health`, reflection, `unknown`";
    [Values::described("service", service), Values::described("method", "as in the contract, `unknown`")]
}

impl Series {
    /// Each metric, once.
    pub(super) fn declare(catalogue: &mut Catalogue) -> Self {
        let c = catalogue;
        let [service, method] = served();
        Self {
            accepted: c.counters("operations_accepted", "Operations that were accepted", [Values::of::<Kind>("kind")]),
            operations: c.counters(
                "operations",
                "Operations that are done, by how they ended",
                [Values::of::<Kind>("kind"), outcomes()],
            ),
            operation_seconds: c.histograms(
                "operation_duration_seconds",
                "Time from the acceptance of an operation to its end, rests in DEGRADED included",
                [Values::of::<Kind>("kind"), outcomes()],
                || Histogram::new(OPERATION_SECONDS),
            ),
            in_progress: c.gauges(
                "operations_in_progress",
                "Operations that are not done, by where they stand",
                [Values::some("state", |state: StateName| !state.is_final())],
            ),
            entered: c.counters(
                "operation_state_changes",
                "Changes of state, by the state entered; `pending` by a retry",
                [Values::of::<StateName>("state")],
            ),
            resting_seconds: c.gauges(
                "operations_resting_seconds",
                "How long the operation that has been longest in this state is in it, 0 if none is: DEGRADED waits for a \
                 person, STOPPED for a confirmation, and meanwhile instances are held. After a restart counted from the \
                 operation's last change",
                [Values::some("state", |state| matches!(state, StateName::Stopped | StateName::Degraded))],
            ),
            stalled: c.gauge("operations_stalled", "Operations whose last change the store does not take; should be 0"),
            not_driven: c.gauge(
                "operations_not_driven",
                "Operations that ought to be driven and are not, since the process began; should be 0",
            ),
            instances_stopped: c.counters(
                "instances_stopped",
                "Instances whose end was verified, by how they ended and by what proves it; `killed` are the forced stops",
                [ends(), Values::some("evidence", |evidence: Evidence| evidence != Evidence::Claimed)],
            ),
            shutdown_seconds: c.histograms(
                "shutdown_duration_seconds",
                "Time from the acceptance of a shutdown by its hook to the verified end of the instance",
                [ends()],
                || Histogram::new(SHUTDOWN_SECONDS),
            ),
            start_seconds: c.histograms(
                "start_duration_seconds",
                "Time from the order to start an instance until it was ready: of a target, or of the source when it rolls \
                 back",
                [Values::of::<Purpose>("purpose")],
                || Histogram::new(START_SECONDS),
            ),
            attempts_failed: c.counters(
                "attempts_failed",
                "Attempts to stop or start an instance that failed, as `Failure.Reason` says; the others are counted by \
                 `quiesce_shutdown_duration_seconds` and `quiesce_start_duration_seconds`",
                [Values::of::<Reason>("reason")],
            ),
            timeouts: c.counters(
                "timeouts",
                "Timers that ran out; `hook_unreachable` and `hook_rejected` when it was for want of a connection, or because \
                 the hook was busy",
                [timers()],
            ),
            extensions: c.counters(
                "extensions",
                "Grace periods that were prolonged, by the application's wish or by a person, and wishes that were not \
                 granted in full",
                [Values::of::<Extension>("outcome")],
            ),
            overrides: c.counter("overrides", "Times that a rule of safety was set aside: the override was given, or force was used; the ends taken for granted are \
                 `quiesce_unverified_ends_total`"),
            unverified_ends: c.counter(
                "unverified_ends",
                "Instances whose end could not be verified and was taken for granted, as an override allowed",
            ),
            events: c.counter("events", "Events of operations"),
            without_effect: c.counter(
                "inputs_without_effect",
                "Answers of hooks that changed nothing: stale, repeated, or no news",
            ),
            hooks: c.gauges(
                "hooks",
                "Registered instances, by whether their hook (the agent beside them) answers",
                [Values::of::<HookState>("state")],
            ),
            instances: c.gauges(
                "instances",
                "Registered instances, by what their hook last said of the application; `held` is the hold count",
                [Values::of::<AppState>("app_state")],
            ),
            watches: c.gauges(
                "watch_streams",
                "Watches that are open, of one operation or of all",
                [Values::of::<Followed>("scope")],
            ),
            watches_ended: c.counters(
                "watch_streams_ended",
                "Watches that ended: `finished` with what they followed, `gone` by the watcher or his credential, \
                 `too_slow` because history had gone before he read it, `stopping` with the scheduler, `failed` with the \
                 store",
                [Values::of::<Ended>("reason")],
            ),
            progress_merged: c.counter(
                "watch_progress_merged",
                "Progress events that watchers who were behind did not get, since later ones say more",
            ),
            commit_seconds: c.histograms(
                "store_commit_duration_seconds",
                "Time from the request to commit to the answer, waiting for others included: `refused` when the store could \
                 not take it; `conflict` is part of normal work. Embedded store only",
                [Values::of::<CommitOutcome>("outcome")],
                || Histogram::new(COMMIT_SECONDS),
            ),
            sync_seconds: c.histogram(
                "store_sync_duration_seconds",
                "Time of one transaction with its sync. Embedded store only",
                || Histogram::new(COMMIT_SECONDS),
            ),
            sync_batches: c.histogram(
                "store_sync_batches",
                "Commits that shared one sync. Embedded store only",
                || Histogram::new(SYNC_BATCHES),
            ),
            stalls: c.counter("store_stalls", "Changes of operations that the store did not take at first"),
            revision: c.gauge("store_revision", "Number of the last write that is durable, over the store's whole life"),
            condition: c.gauges(
                "store_condition",
                "1 for what the store would say to a change now, 0 for everything else",
                [Values::of::<Condition>("condition")],
            ),
            grpc_started: c.counters("grpc_server_started", "Calls that came in", [service.clone(), method.clone()]),
            grpc_handled: c.counters(
                "grpc_server_handled",
                "Calls that were answered; of streams, how they began",
                [service.clone(), method.clone(), Values::described("code", "of gRPC: `Ok`, `NotFound`, ...")],
            ),
            grpc_seconds: c.histograms(
                "grpc_server_handling_seconds",
                "Time until a call was answered; for streams, until they began",
                [service, method],
                || Histogram::new(HANDLING_SECONDS),
            ),
            grpc_in_progress: c.gauge("grpc_server_in_progress", "Calls that are not answered yet; streams not counted"),
            authentications_failed: c.counters(
                "authentications_failed",
                "Callers who were not let in: refused, or throttled after too many of them",
                [Values::of::<Barred>("outcome")],
            ),
            audit_waiting: c.gauge(
                "audit_lines_waiting",
                "Lines of the audit log that could not be written yet; should be 0",
            ),
            spans: c.counters(
                "trace_spans",
                "Spans of traces, by what became of them; without traces there are none",
                [Values::of::<Exported>("outcome")],
            ),
            connections: c.gauge("connections", "Connections of callers and agents that are open"),
            turned: c.counters(
                "connections_turned_away",
                "Connections that were closed before anything was asked on them",
                [Values::of::<Turned>("reason")],
            ),
            certificate_seconds: c.gauges(
                "tls_certificate_expiry_seconds",
                "Time until the certificate callers see expires, negative afterwards; without TLS not there",
                [Values::described("edge", "`callers`")],
            ),
        }
    }
}
