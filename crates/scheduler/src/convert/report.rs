//! What hooks say: reports of stops and starts, capabilities, hook infos.
//!
//! Texts of hooks are cut to the contract's limits here, so that nothing larger gets into records and events.

use std::time::SystemTime;

use quiesce_operation::report::{
    AppState, Capabilities, Evidence, Readiness, StartPhase, StartReport, StartResult, StopOutcome, StopPhase,
    StopReport, StopResult,
};
use quiesce_protocol::v1;
use v1::hook_info::AppState as WireAppState;
use v1::start_result::{Outcome as WireStartOutcome, Readiness as WireReadiness};
use v1::stop_result::Outcome as WireStopOutcome;

use super::{duration_to_wire, int, long, millis_to_wire, reported_duration, reported_millis, unsigned};
use crate::hooks::HookInfo;

/// Longest text without a limit of its own, in bytes.
pub(crate) const TEXT_MAX: usize = 256;
/// Longest `message` and `reason`, in bytes.
pub(crate) const MESSAGE_MAX: usize = 4096;

/// `text`, at most `max` bytes of it.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A report of a shutdown as a hook sent it. The completion token is not part of it: whoever receives the report checks
/// the token first.
pub(crate) fn stop_report_from_wire(status: &v1::ShutdownStatus) -> StopReport {
    StopReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase: stop_phase_from_wire(status.phase),
        percent: status.percent.and_then(|percent| u8::try_from(percent.clamp(0, 100)).ok()),
        step: cut(&status.step, TEXT_MAX),
        message: cut(&status.message, MESSAGE_MAX),
        report_time: reported_millis(status.report_time.as_ref()),
        wanted_grace_period: reported_duration(status.wanted_grace_period.as_ref()),
        result: status.result.as_ref().map(stop_result_from_wire),
    }
}

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

/// Unknown phases are "not over yet, past the point of no return".
fn stop_phase_from_wire(phase: i32) -> StopPhase {
    use v1::ShutdownPhase as W;
    match W::try_from(phase) {
        Ok(W::Accepted) => StopPhase::Accepted,
        Ok(W::Draining) => StopPhase::Draining,
        Ok(W::Killing) => StopPhase::Killing,
        Ok(W::Stopped) => StopPhase::Stopped,
        Ok(W::Failed) => StopPhase::Failed,
        Ok(W::Cancelled) => StopPhase::Cancelled,
        Ok(W::Stopping | W::Unspecified) | Err(_) => StopPhase::Stopping,
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

/// How a shutdown came out, as reported.
pub(crate) fn stop_result_from_wire(result: &v1::StopResult) -> StopResult {
    StopResult {
        outcome: match WireStopOutcome::try_from(result.outcome) {
            Ok(WireStopOutcome::Stopped) => StopOutcome::Stopped,
            Ok(WireStopOutcome::Killed) => StopOutcome::Killed,
            Ok(WireStopOutcome::NotRunning) => StopOutcome::NotRunning,
            Ok(WireStopOutcome::StillRunning) => StopOutcome::StillRunning,
            Ok(WireStopOutcome::Restarted) => StopOutcome::Restarted,
            Ok(WireStopOutcome::Cancelled) => StopOutcome::Cancelled,
            Ok(WireStopOutcome::Unknown | WireStopOutcome::Unspecified) | Err(_) => StopOutcome::Unknown,
        },
        evidence: evidence_from_wire(result.evidence),
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        clean: result.clean,
        duration: reported_duration(result.duration.as_ref()),
        message: cut(&result.message, MESSAGE_MAX),
        held: result.held,
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

/// A report of a start as a hook sent it.
pub(crate) fn start_report_from_wire(status: &v1::StartStatus) -> StartReport {
    use v1::StartPhase as W;
    StartReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase: match W::try_from(status.phase) {
            Ok(W::Accepted) => StartPhase::Accepted,
            Ok(W::Ready) => StartPhase::Ready,
            Ok(W::Failed) => StartPhase::Failed,
            Ok(W::Starting | W::Unspecified) | Err(_) => StartPhase::Starting,
        },
        message: cut(&status.message, MESSAGE_MAX),
        report_time: reported_millis(status.report_time.as_ref()),
        result: status.result.as_ref().map(start_result_from_wire),
    }
}

fn start_result_from_wire(result: &v1::StartResult) -> StartResult {
    StartResult {
        ready: WireStartOutcome::try_from(result.outcome) == Ok(WireStartOutcome::Ready),
        readiness: match WireReadiness::try_from(result.readiness) {
            Ok(WireReadiness::Notified) => Readiness::Notified,
            Ok(WireReadiness::Command) => Readiness::Command,
            Ok(WireReadiness::Tcp) => Readiness::Tcp,
            Ok(WireReadiness::Settled) => Readiness::Settled,
            Ok(WireReadiness::Unspecified) | Err(_) => Readiness::Unspecified,
        },
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        duration: reported_duration(result.duration.as_ref()),
        message: cut(&result.message, MESSAGE_MAX),
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

/// What a hook can do; unknown capabilities are ignored.
pub(crate) fn capabilities_from_wire(wire: &[i32]) -> Capabilities {
    use v1::Capability as W;
    let mut found = Capabilities::default();
    for capability in wire.iter().filter_map(|number| W::try_from(*number).ok()) {
        match capability {
            W::Unspecified => {}
            W::Check => found.check = true,
            W::Status => found.status = true,
            W::Cancel => found.cancel = true,
            W::UpdateDeadline => found.update_deadline = true,
            W::Kill => found.kill = true,
            W::Settle => found.settle = true,
            W::Durable => found.durable = true,
            W::Start => found.start = true,
            W::Hold => found.hold = true,
            W::Conclude => found.conclude = true,
        }
    }
    found
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

/// What a hook says about itself.
pub(crate) fn hook_info_from_wire(info: &v1::HookInfo) -> HookInfo {
    HookInfo {
        instance: cut(&info.instance, TEXT_MAX),
        implementation: cut(&info.implementation, TEXT_MAX),
        implementation_version: cut(&info.implementation_version, TEXT_MAX),
        protocol_version: cut(&info.protocol_version, TEXT_MAX),
        capabilities: capabilities_from_wire(&info.capabilities),
        ready: info.ready.unwrap_or(true),
        not_ready_reason: cut(&info.not_ready_reason, MESSAGE_MAX),
        app_state: match WireAppState::try_from(info.app_state) {
            Ok(WireAppState::AppStateRunning) => AppState::Running,
            Ok(WireAppState::AppStateStopped) => AppState::Stopped,
            Ok(WireAppState::AppStateHeld) => AppState::Held,
            Ok(WireAppState::AppStateStarting) => AppState::Starting,
            Ok(WireAppState::AppStateStopping) => AppState::Stopping,
            Ok(WireAppState::AppStateUnspecified) | Err(_) => AppState::Unspecified,
        },
        app_start_time: info.app_start_time.and_then(|time| SystemTime::try_from(time).ok()),
        epoch: unsigned(info.epoch),
        app_message: cut(&info.app_message, MESSAGE_MAX),
    }
}

/// The same for readers.
pub(crate) fn hook_info_to_wire(info: &HookInfo) -> v1::HookInfo {
    let app_state = match info.app_state {
        AppState::Unspecified => WireAppState::AppStateUnspecified,
        AppState::Running => WireAppState::AppStateRunning,
        AppState::Stopped => WireAppState::AppStateStopped,
        AppState::Held => WireAppState::AppStateHeld,
        AppState::Starting => WireAppState::AppStateStarting,
        AppState::Stopping => WireAppState::AppStateStopping,
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
    }
}
