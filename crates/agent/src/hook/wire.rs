//! Our reports as messages of the contract. Conversions, and nothing else.

use std::time::{Duration, UNIX_EPOCH};

use prost_types::Timestamp;
use quiesce_protocol::v1;

use super::report::{Outcome, Phase, Snapshot, StartPhase, StartReport, StartVerdict, Verdict};
use crate::application::{AppState, Capabilities, End, Evidence, Ready};

/// A report, with the token if there is one (H14: only final reports have one).
pub(crate) fn status((report, token): Snapshot) -> v1::ShutdownStatus {
    debug_assert!(token.is_none() || report.verdict.is_some(), "a token goes out with the result only");
    v1::ShutdownStatus {
        shutdown_id: report.shutdown_id,
        sequence: report.sequence,
        phase: phase(report.phase).into(),
        percent: None,
        step: String::new(),
        message: report.message,
        report_time: Some(timestamp(report.time_ms)),
        wanted_grace_period: report.wanted.and_then(duration),
        result: report.verdict.map(result),
        completion_token: token.map(|token| token.expose().to_owned()).unwrap_or_default(),
    }
}

fn phase(phase: Phase) -> v1::ShutdownPhase {
    match phase {
        Phase::Accepted => v1::ShutdownPhase::Accepted,
        Phase::Draining => v1::ShutdownPhase::Draining,
        Phase::Stopping => v1::ShutdownPhase::Stopping,
        Phase::Killing => v1::ShutdownPhase::Killing,
        Phase::Stopped => v1::ShutdownPhase::Stopped,
        Phase::Failed => v1::ShutdownPhase::Failed,
        Phase::Cancelled => v1::ShutdownPhase::Cancelled,
    }
}

fn result(verdict: Verdict) -> v1::StopResult {
    use v1::stop_result::Outcome as Wire;
    let outcome = match verdict.outcome {
        Outcome::Stopped => Wire::Stopped,
        Outcome::Killed => Wire::Killed,
        Outcome::NotRunning => Wire::NotRunning,
        Outcome::StillRunning => Wire::StillRunning,
        Outcome::Restarted => Wire::Restarted,
        Outcome::Cancelled => Wire::Cancelled,
    };
    v1::StopResult {
        outcome: outcome.into(),
        evidence: verdict.evidence.map_or(v1::Evidence::Unspecified, evidence).into(),
        exit_code: verdict.exit_code,
        exit_signal: verdict.exit_signal,
        clean: verdict.clean,
        duration: duration(verdict.duration),
        message: verdict.message,
        held: verdict.held,
    }
}

/// The end of a run outside of any shutdown, for `ReportEnd`.
pub(crate) fn end_result(end: &End) -> v1::StopResult {
    use v1::stop_result::Outcome as Wire;
    v1::StopResult {
        outcome: if end.killed { Wire::Killed } else { Wire::Stopped }.into(),
        evidence: evidence(end.evidence).into(),
        exit_code: end.exit_code,
        exit_signal: end.exit_signal,
        clean: end.clean,
        duration: None,
        message: end.message.clone(),
        held: false,
    }
}

fn evidence(evidence: Evidence) -> v1::Evidence {
    match evidence {
        Evidence::Claimed => v1::Evidence::Claimed,
        Evidence::ProcessGone => v1::Evidence::ProcessGone,
        Evidence::Manager => v1::Evidence::Manager,
        Evidence::ExitObserved => v1::Evidence::ExitObserved,
        Evidence::ChildReaped => v1::Evidence::ChildReaped,
        Evidence::GroupEmpty => v1::Evidence::GroupEmpty,
    }
}

/// A report of a start.
pub(crate) fn start_status(report: StartReport) -> v1::StartStatus {
    let phase = match report.phase {
        StartPhase::Accepted => v1::StartPhase::Accepted,
        StartPhase::Starting => v1::StartPhase::Starting,
        StartPhase::Ready => v1::StartPhase::Ready,
        StartPhase::Failed => v1::StartPhase::Failed,
    };
    v1::StartStatus {
        epoch: i64::try_from(report.epoch).unwrap_or(i64::MAX),
        sequence: report.sequence,
        phase: phase.into(),
        message: report.message,
        report_time: Some(timestamp(report.time_ms)),
        result: report.verdict.map(start_result),
    }
}

fn start_result(verdict: StartVerdict) -> v1::StartResult {
    use v1::start_result::{Outcome as Wire, Readiness};
    let (outcome, readiness) = match verdict.ready {
        None => (Wire::Failed, Readiness::Unspecified),
        Some(Ready::Notified) => (Wire::Ready, Readiness::Notified),
        Some(Ready::Command) => (Wire::Ready, Readiness::Command),
        Some(Ready::Tcp) => (Wire::Ready, Readiness::Tcp),
        Some(Ready::Settled) => (Wire::Ready, Readiness::Settled),
    };
    v1::StartResult {
        outcome: outcome.into(),
        readiness: readiness.into(),
        exit_code: verdict.exit_code,
        exit_signal: verdict.exit_signal,
        duration: duration(verdict.duration),
        message: verdict.message,
    }
}

/// The state of the application as HookInfo shows it.
pub(crate) fn app_state(state: AppState) -> v1::hook_info::AppState {
    use v1::hook_info::AppState as Wire;
    match state {
        AppState::Unknown => Wire::Unspecified,
        AppState::Stopped => Wire::Stopped,
        AppState::Held => Wire::Held,
        AppState::Starting => Wire::Starting,
        AppState::Running => Wire::Running,
        AppState::Stopping => Wire::Stopping,
    }
}

/// What is announced. `drain`: whether there is a time in which a shutdown can be taken back; `durable`: whether our
/// own record survives.
pub(crate) fn capabilities(of: Capabilities, drain: bool, durable: bool) -> Vec<v1::Capability> {
    [
        (of.check, v1::Capability::Check),
        (true, v1::Capability::Status),
        (drain, v1::Capability::Cancel),
        (true, v1::Capability::UpdateDeadline),
        (of.kill, v1::Capability::Kill),
        (of.settle, v1::Capability::Settle),
        (of.durable && durable, v1::Capability::Durable),
        (of.start, v1::Capability::Start),
        (of.hold, v1::Capability::Hold),
        (of.hold, v1::Capability::Conclude),
    ]
    .into_iter()
    .filter_map(|(offered, capability)| offered.then_some(capability))
    .collect()
}

/// A duration on the wire; `None` when it does not fit, which no duration of ours does.
pub(crate) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// A duration of the wire; `None` if it is negative or breaks the rules of its message (nanoseconds of a second's worth,
/// one sign). The library's own conversion mends some of that silently, and overflows over the most negative one.
pub(crate) fn duration_from_wire(duration: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(unix_ms))
}
