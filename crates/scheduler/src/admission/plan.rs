//! The plan of a dry run: what the hooks say, in which order they would be asked to stop, how long it may take.
//!
//! Pure but for the probes, which are bounded in time and number.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use quiesce_operation::report::{CallError, Probe};
use quiesce_operation::{ApplicationId, FailureStrategy, InstanceId, Operation, Policy};
use quiesce_protocol::v1;
use v1::shutdown_plan::Step;

use crate::convert::report::capabilities_to_wire;
use crate::convert::{duration_to_wire, instance_name};
use crate::hooks::Hooks;

/// Most hooks asked at the same time by one dry run.
const PROBES_AT_ONCE: usize = 16;
/// Longest wait for one hook, whatever the policy allows: a caller waits for the answer.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Asks the hooks and makes the plan of `operation`.
pub(super) async fn make(operation: &Operation, hooks: &Hooks) -> v1::ShutdownPlan {
    let application = &operation.request().application;
    let limit = operation.policy().accept_timeout.min(PROBE_MAX);
    let stops = operation.members().iter().map(|one| (one.instance.clone(), i64::from(one.stop_order))).collect();
    // Started in the opposite order of stopping.
    let starts = operation.starts().iter().map(|one| (one.instance.clone(), -i64::from(one.stop_order))).collect();
    let steps = probe_all(application, hooks, limit, true, stops).await;
    let starts = probe_all(application, hooks, limit, false, starts).await;
    v1::ShutdownPlan {
        warnings: warnings(operation.policy(), &steps, &starts),
        worst_case_duration: Some(duration_to_wire(worst_case(operation))),
        steps: steps.into_iter().map(|(_, step)| step).collect(),
        starts: starts.into_iter().map(|(_, step)| step).collect(),
    }
}

type Probed = (Option<Probe>, Step);

async fn probe_all(
    application: &ApplicationId,
    hooks: &Hooks,
    limit: Duration,
    check: bool,
    instances: Vec<(InstanceId, i64)>,
) -> Vec<Probed> {
    let probes = instances.into_iter().map(|(instance, order)| async move {
        let answer = hooks.probe(application, &instance, check, limit).await;
        step(
            instance_name(application, &instance),
            order,
            answer.map(|probe| if check { probe } else { as_start(probe) }),
        )
    });
    let mut steps: Vec<Probed> = stream::iter(probes).buffer_unordered(PROBES_AT_ONCE).collect().await;
    steps.sort_by(|(_, a), (_, b)| (a.order, &a.instance).cmp(&(b.order, &b.instance)));
    steps
}

/// The answer of a hook that is asked whether it could start, not stop.
fn as_start(probe: Probe) -> Probe {
    let alive = probe.app_state.is_alive().then(|| "the application already runs there".to_owned());
    let findings: Vec<String> =
        alive.into_iter().chain((!probe.cannot_start.is_empty()).then(|| probe.cannot_start.clone())).collect();
    Probe { ready: findings.is_empty() && probe.capabilities.start, findings, ..probe }
}

fn step(instance: String, order: i64, answer: Result<Probe, CallError>) -> Probed {
    let order = i32::try_from(order).unwrap_or(i32::MAX);
    match answer {
        Ok(probe) => {
            let step = Step {
                instance,
                order,
                reachable: true,
                ok: Some(probe.ready),
                findings: probe.findings.clone(),
                capabilities: capabilities_to_wire(&probe.capabilities),
            };
            (Some(probe), step)
        }
        Err(error) => {
            let findings = vec![error.message];
            (None, Step { instance, order, reachable: false, ok: None, findings, capabilities: Vec::new() })
        }
    }
}

fn warnings(policy: &Policy, stops: &[Probed], starts: &[Probed]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |count: usize, text: &str| {
        if count > 0 {
            warnings.push(format!("{count} of the hooks {text}"));
        }
    };
    let lacking = |probes: &[Probed], lacks: fn(&Probe) -> bool| {
        probes.iter().filter(|(probe, _)| probe.as_ref().is_some_and(lacks)).count()
    };
    warn(stops.iter().chain(starts).filter(|(probe, _)| probe.is_none()).count(), "do not answer");
    if policy.failure_strategy == FailureStrategy::Force {
        warn(lacking(stops, |probe| !probe.capabilities.kill), "cannot kill, but the strategy is FORCE");
    }
    if policy.settle_period > Duration::ZERO {
        warn(lacking(stops, |probe| !probe.capabilities.settle), "do not watch for restarts (settle_period)");
    }
    if policy.max_extension > Duration::ZERO {
        let text = "do not take a changed deadline (max_extension)";
        warn(lacking(stops, |probe| !probe.capabilities.update_deadline), text);
    }
    warn(lacking(starts, |probe| !probe.capabilities.start), "on the target cannot start the application");
    warnings
}

/// The longest time until SUCCEEDED or DEGRADED, without a rollback: every attempt fails at its very end. All groups of
/// equal stop order follow one another, each in as many turns as `max_parallel_stops` asks for.
fn worst_case(operation: &Operation) -> Duration {
    let policy = operation.policy();
    let mut orders: Vec<i32> = operation.members().iter().map(|member| member.stop_order).collect();
    orders.sort_unstable();
    let parallel = usize::try_from(policy.max_parallel_stops).unwrap_or(usize::MAX);
    let turns: usize = orders
        .chunk_by(|a, b| a == b)
        .map(|group| if parallel == 0 { 1 } else { group.len().div_ceil(parallel) })
        .sum();
    let turns = u32::try_from(turns).unwrap_or(u32::MAX);
    let one_stop = policy.accept_timeout + policy.grace_period + policy.max_extension + policy.settle_period;
    // Probes come before each attempt; 1.2 is the largest jitter of a backoff.
    let attempt = one_stop.saturating_mul(turns).saturating_add(policy.accept_timeout);
    let mut total = attempt.saturating_mul(policy.max_attempts);
    let mut backoff = policy.initial_backoff.as_secs_f64();
    for _ in 1..policy.max_attempts {
        let wait = backoff.min(policy.max_backoff.as_secs_f64());
        total = total.saturating_add(Duration::from_secs_f64(wait * 1.2));
        backoff *= policy.backoff_multiplier;
    }
    if policy.overall_timeout > Duration::ZERO {
        total = total.min(policy.overall_timeout);
    }
    if operation.request().force {
        total = policy.accept_timeout;
    }
    if operation.request().force || policy.failure_strategy == FailureStrategy::Force {
        total = total.saturating_add((policy.accept_timeout + policy.kill_timeout).saturating_mul(turns.max(1)));
    }
    let mut starts: Vec<i32> = operation.starts().iter().map(|start| start.stop_order).collect();
    starts.sort_unstable();
    let turns = u32::try_from(starts.chunk_by(|a, b| a == b).count()).unwrap_or(u32::MAX);
    total.saturating_add(policy.start_timeout.saturating_mul(turns))
}
