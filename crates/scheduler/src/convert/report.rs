//! What hooks say: reports of stops and starts, capabilities, hook infos.
//!
//! For readers only. What hooks send is read, and cut to the contract's limits, in [`crate::hooks::wire`].

use quiesce_operation::report::{
    AppState, Capabilities, Evidence, Readiness, StartPhase, StartReport, StartResult, StopOutcome, StopPhase,
    StopReport, StopResult,
};
use quiesce_protocol::v1;
use v1::hook_info::AppState as WireAppState;
use v1::start_result::{Outcome as WireStartOutcome, Readiness as WireReadiness};
use v1::stop_result::Outcome as WireStopOutcome;

use super::{duration_to_wire, int, long, millis_to_wire};
use crate::hooks::HookInfo;

/// Longest text without a limit of its own, in bytes.
pub(crate) const TEXT_MAX: usize = 256;
/// Longest `message` and `reason`, in bytes.
pub(crate) const MESSAGE_MAX: usize = 4096;

/// The report for readers, without token; `shutdown_id` is known from elsewhere.
pub(crate) fn stop_report_to_wire(report: &StopReport, shutdown_id: String) -> v1::ShutdownStatus {
    v1::ShutdownStatus {
        shutdown_id,
        sequence: int(report.sequence),
        phase: stop_phase_to_wire(report.phase).into(),
        percent: report.percent.map(i32::from),
        step: report.step.clone(),
        message: report.message.clone(),
        report_time: report.report_time.map(millis_to_wire),
        wanted_grace_period: report.wanted_grace_period.map(duration_to_wire),
        result: report.result.as_ref().map(stop_result_to_wire),
        completion_token: String::new(),
    }
}

fn stop_phase_to_wire(phase: StopPhase) -> v1::ShutdownPhase {
    use v1::ShutdownPhase as W;
    match phase {
        StopPhase::Accepted => W::Accepted,
        StopPhase::Draining => W::Draining,
        StopPhase::Stopping => W::Stopping,
        StopPhase::Killing => W::Killing,
        StopPhase::Stopped => W::Stopped,
        StopPhase::Failed => W::Failed,
        StopPhase::Cancelled => W::Cancelled,
    }
}

/// The same for readers, and for hooks that are told their own result.
pub(crate) fn stop_result_to_wire(result: &StopResult) -> v1::StopResult {
    let outcome = match result.outcome {
        StopOutcome::Stopped => WireStopOutcome::Stopped,
        StopOutcome::Killed => WireStopOutcome::Killed,
        StopOutcome::NotRunning => WireStopOutcome::NotRunning,
        StopOutcome::StillRunning => WireStopOutcome::StillRunning,
        StopOutcome::Restarted => WireStopOutcome::Restarted,
        StopOutcome::Unknown => WireStopOutcome::Unknown,
        StopOutcome::Cancelled => WireStopOutcome::Cancelled,
    };
    v1::StopResult {
        outcome: outcome.into(),
        evidence: evidence_to_wire(result.evidence).into(),
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        clean: result.clean,
        duration: result.duration.map(duration_to_wire),
        message: result.message.clone(),
        held: result.held,
    }
}

/// Unknown evidence is a claim.
pub(crate) fn evidence_from_wire(evidence: i32) -> Evidence {
    use v1::Evidence as W;
    match W::try_from(evidence) {
        Ok(W::ProcessGone) => Evidence::ProcessGone,
        Ok(W::Manager) => Evidence::Manager,
        Ok(W::ExitObserved) => Evidence::ExitObserved,
        Ok(W::ChildReaped) => Evidence::ChildReaped,
        Ok(W::GroupEmpty) => Evidence::GroupEmpty,
        Ok(W::Claimed | W::Unspecified) | Err(_) => Evidence::Claimed,
    }
}

pub(crate) fn evidence_to_wire(evidence: Evidence) -> v1::Evidence {
    use v1::Evidence as W;
    match evidence {
        Evidence::Claimed => W::Claimed,
        Evidence::ProcessGone => W::ProcessGone,
        Evidence::Manager => W::Manager,
        Evidence::ExitObserved => W::ExitObserved,
        Evidence::ChildReaped => W::ChildReaped,
        Evidence::GroupEmpty => W::GroupEmpty,
    }
}

/// A report of a start for readers.
pub(crate) fn start_report_to_wire(report: &StartReport, epoch: u64) -> v1::StartStatus {
    use v1::StartPhase as W;
    let phase = match report.phase {
        StartPhase::Accepted => W::Accepted,
        StartPhase::Starting => W::Starting,
        StartPhase::Ready => W::Ready,
        StartPhase::Failed => W::Failed,
    };
    v1::StartStatus {
        epoch: long(epoch),
        sequence: int(report.sequence),
        phase: phase.into(),
        message: report.message.clone(),
        report_time: report.report_time.map(millis_to_wire),
        result: report.result.as_ref().map(start_result_to_wire),
    }
}

fn start_result_to_wire(result: &StartResult) -> v1::StartResult {
    let readiness = match result.readiness {
        Readiness::Unspecified => WireReadiness::Unspecified,
        Readiness::Notified => WireReadiness::Notified,
        Readiness::Command => WireReadiness::Command,
        Readiness::Tcp => WireReadiness::Tcp,
        Readiness::Settled => WireReadiness::Settled,
    };
    let outcome = if result.ready { WireStartOutcome::Ready } else { WireStartOutcome::Failed };
    v1::StartResult {
        outcome: outcome.into(),
        readiness: readiness.into(),
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        duration: result.duration.map(duration_to_wire),
        message: result.message.clone(),
    }
}

/// The same for the wire, in the order of their numbers.
pub(crate) fn capabilities_to_wire(capabilities: &Capabilities) -> Vec<i32> {
    use v1::Capability as W;
    let Capabilities { check, status, cancel, update_deadline, kill, settle, durable, start, hold, conclude } =
        *capabilities;
    [
        (check, W::Check),
        (status, W::Status),
        (cancel, W::Cancel),
        (update_deadline, W::UpdateDeadline),
        (kill, W::Kill),
        (settle, W::Settle),
        (durable, W::Durable),
        (start, W::Start),
        (hold, W::Hold),
        (conclude, W::Conclude),
    ]
    .into_iter()
    .filter_map(|(has, capability)| has.then_some(capability.into()))
    .collect()
}

/// The same for readers.
pub(crate) fn hook_info_to_wire(info: &HookInfo) -> v1::HookInfo {
    let app_state = match info.app_state {
        AppState::Unspecified => WireAppState::Unspecified,
        AppState::Running => WireAppState::Running,
        AppState::Stopped => WireAppState::Stopped,
        AppState::Held => WireAppState::Held,
        AppState::Starting => WireAppState::Starting,
        AppState::Stopping => WireAppState::Stopping,
    };
    v1::HookInfo {
        instance: info.instance.clone(),
        implementation: info.implementation.clone(),
        implementation_version: info.implementation_version.clone(),
        protocol_version: info.protocol_version.clone(),
        capabilities: capabilities_to_wire(&info.capabilities),
        ready: Some(info.ready),
        not_ready_reason: info.not_ready_reason.clone(),
        app_state: app_state.into(),
        app_start_time: info.app_start_time.map(Into::into),
        epoch: long(info.epoch),
        app_message: info.app_message.clone(),
        cannot_start_reason: info.cannot_start_reason.clone(),
    }
}
