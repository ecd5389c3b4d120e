//! What hooks say, from the wire to the domain, in the careful reading of the contract.
//!
//! Everything a hook sends is untrusted: texts are cut to the contract's limits, unknown values are taken for the
//! careful one, and the completion token is taken out and blotted out wherever else it turns up.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use quiesce_operation::report::{
    AppState, Capabilities, Evidence, Readiness, StartPhase, StartReport, StartResult, StopOutcome, StopPhase,
    StopReport, StopResult,
};
use quiesce_protocol::v1;

use super::HookInfo;

/// Longest `message` the contract allows, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Longest other text the contract allows, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// A report as sent, with the token that came with it.
pub(crate) struct SentReport {
    /// The shutdown it says it is about; empty: it does not say.
    pub(crate) shutdown_id: String,
    /// The report, without any token.
    pub(crate) report: StopReport,
    /// The token sent with the result.
    pub(crate) completion_token: String,
}

/// Reads a report; `secret` is the token that must not be passed on in any text of it.
pub(crate) fn stop_report(status: v1::ShutdownStatus, secret: &str) -> SentReport {
    let result = status.result.map(|result| stop_result(result, secret));
    let phase = phase(status.phase, result.as_ref());
    let report = StopReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase,
        percent: status.percent.and_then(|percent| u8::try_from(percent).ok()).filter(|percent| *percent <= 100),
        step: text(status.step, TEXT_BYTES_MAX, secret),
        message: text(status.message, MESSAGE_BYTES_MAX, secret),
        report_time: status.report_time.as_ref().and_then(millis),
        wanted_grace_period: status.wanted_grace_period.and_then(duration),
        result,
    };
    SentReport { shutdown_id: status.shutdown_id, report, completion_token: status.completion_token }
}

/// Reads a result.
pub(crate) fn stop_result(result: v1::StopResult, secret: &str) -> StopResult {
    use v1::stop_result::Outcome;
    let outcome = match result.outcome() {
        Outcome::Stopped => StopOutcome::Stopped,
        Outcome::Killed => StopOutcome::Killed,
        Outcome::NotRunning => StopOutcome::NotRunning,
        Outcome::StillRunning => StopOutcome::StillRunning,
        Outcome::Restarted => StopOutcome::Restarted,
        Outcome::Cancelled => StopOutcome::Cancelled,
        Outcome::Unknown | Outcome::Unspecified => StopOutcome::Unknown,
    };
    let evidence = match result.evidence() {
        v1::Evidence::Unspecified | v1::Evidence::Claimed => Evidence::Claimed,
        v1::Evidence::ProcessGone => Evidence::ProcessGone,
        v1::Evidence::Manager => Evidence::Manager,
        v1::Evidence::ExitObserved => Evidence::ExitObserved,
        v1::Evidence::ChildReaped => Evidence::ChildReaped,
        v1::Evidence::GroupEmpty => Evidence::GroupEmpty,
    };
    StopResult {
        outcome,
        evidence,
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        clean: result.clean,
        duration: result.duration.and_then(duration),
        message: text(result.message, MESSAGE_BYTES_MAX, secret),
        held: result.held,
    }
}

/// The phase in which a shutdown ends that way.
pub(crate) fn final_phase(outcome: StopOutcome) -> StopPhase {
    match outcome {
        StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => StopPhase::Stopped,
        StopOutcome::StillRunning | StopOutcome::Restarted | StopOutcome::Unknown => StopPhase::Failed,
        StopOutcome::Cancelled => StopPhase::Cancelled,
    }
}

/// The phase of a report. A result outweighs it: with one the shutdown is over, whatever the phase says.
fn phase(phase: i32, result: Option<&StopResult>) -> StopPhase {
    if let Some(result) = result {
        return final_phase(result.outcome);
    }
    match v1::ShutdownPhase::try_from(phase) {
        Ok(v1::ShutdownPhase::Accepted) => StopPhase::Accepted,
        Ok(v1::ShutdownPhase::Draining) => StopPhase::Draining,
        Ok(v1::ShutdownPhase::Killing) => StopPhase::Killing,
        Ok(v1::ShutdownPhase::Stopped) => StopPhase::Stopped,
        Ok(v1::ShutdownPhase::Failed) => StopPhase::Failed,
        Ok(v1::ShutdownPhase::Cancelled) => StopPhase::Cancelled,
        // Unknown: not over yet, past the point of no return.
        Ok(v1::ShutdownPhase::Stopping | v1::ShutdownPhase::Unspecified) | Err(_) => StopPhase::Stopping,
    }
}

/// Reads a report of a start.
pub(crate) fn start_report(status: v1::StartStatus) -> StartReport {
    use v1::start_result::{Outcome, Readiness as Ready};
    let result = status.result.map(|result| StartResult {
        ready: result.outcome() == Outcome::Ready,
        readiness: match result.readiness() {
            Ready::Unspecified => Readiness::Unspecified,
            Ready::Notified => Readiness::Notified,
            Ready::Command => Readiness::Command,
            Ready::Tcp => Readiness::Tcp,
            Ready::Settled => Readiness::Settled,
        },
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        duration: result.duration.and_then(duration),
        message: text(result.message, MESSAGE_BYTES_MAX, ""),
    });
    let phase = match (&result, v1::StartPhase::try_from(status.phase)) {
        (Some(result), _) if result.ready => StartPhase::Ready,
        (Some(_), _) => StartPhase::Failed,
        (None, Ok(v1::StartPhase::Accepted)) => StartPhase::Accepted,
        (None, Ok(v1::StartPhase::Ready)) => StartPhase::Ready,
        (None, Ok(v1::StartPhase::Failed)) => StartPhase::Failed,
        // Unknown: not over yet.
        (None, Ok(v1::StartPhase::Starting | v1::StartPhase::Unspecified) | Err(_)) => StartPhase::Starting,
    };
    StartReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase,
        message: text(status.message, MESSAGE_BYTES_MAX, ""),
        report_time: status.report_time.as_ref().and_then(millis),
        result,
    }
}

/// Reads what a hook says about itself; an empty message is a valid answer: ready, no capabilities, unknown state.
pub(crate) fn hook_info(info: v1::HookInfo) -> HookInfo {
    use v1::hook_info::AppState as State;
    let app_state = match info.app_state() {
        State::Unspecified => AppState::Unspecified,
        State::Running => AppState::Running,
        State::Stopped => AppState::Stopped,
        State::Held => AppState::Held,
        State::Starting => AppState::Starting,
        State::Stopping => AppState::Stopping,
    };
    let capabilities = capabilities(&info);
    HookInfo {
        instance: text(info.instance, TEXT_BYTES_MAX, ""),
        implementation: text(info.implementation, TEXT_BYTES_MAX, ""),
        implementation_version: text(info.implementation_version, TEXT_BYTES_MAX, ""),
        protocol_version: text(info.protocol_version, TEXT_BYTES_MAX, ""),
        capabilities,
        ready: info.ready.unwrap_or(true),
        not_ready_reason: text(info.not_ready_reason, MESSAGE_BYTES_MAX, ""),
        app_state,
        app_start_time: info.app_start_time.and_then(|time| SystemTime::try_from(time).ok()),
        epoch: u64::try_from(info.epoch).unwrap_or(0),
        app_message: text(info.app_message, MESSAGE_BYTES_MAX, ""),
    }
}

fn capabilities(info: &v1::HookInfo) -> Capabilities {
    let mut found = Capabilities::default();
    for capability in info.capabilities() {
        let flag = match capability {
            v1::Capability::Unspecified => continue,
            v1::Capability::Check => &mut found.check,
            v1::Capability::Status => &mut found.status,
            v1::Capability::Cancel => &mut found.cancel,
            v1::Capability::UpdateDeadline => &mut found.update_deadline,
            v1::Capability::Kill => &mut found.kill,
            v1::Capability::Settle => &mut found.settle,
            v1::Capability::Durable => &mut found.durable,
            v1::Capability::Start => &mut found.start,
            v1::Capability::Hold => &mut found.hold,
            v1::Capability::Conclude => &mut found.conclude,
        };
        *flag = true;
    }
    found
}

/// At most `max` bytes of `text`, whole characters, without `secret`.
pub(crate) fn text(mut text: String, max: usize, secret: &str) -> String {
    if !secret.is_empty() && text.contains(secret) {
        text = text.replace(secret, "[secret]");
    }
    text.truncate(text.floor_char_boundary(max));
    text
}

/// A message for people, cut to its limit.
pub(crate) fn message(message: &str, secret: &str) -> String {
    text(message.to_owned(), MESSAGE_BYTES_MAX, secret)
}

/// A duration for the wire. What no policy can hold is cut to the largest one the type can say.
pub(crate) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}

/// A duration from the wire; negative ones and nonsense count as unset.
fn duration(duration: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(duration).ok()
}

fn millis(time: &Timestamp) -> Option<u64> {
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u64::try_from(time.nanos).ok()?;
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_answer_is_a_ready_hook_that_can_do_nothing_more() {
        let info = hook_info(v1::HookInfo::default());
        assert!(info.ready);
        assert_eq!(info.capabilities, Capabilities::default());
        assert_eq!(info.app_state, AppState::Unspecified);
    }

    #[test]
    fn unknown_values_are_taken_for_the_careful_ones() {
        let status = v1::ShutdownStatus { phase: 99, ..Default::default() };
        assert_eq!(stop_report(status, "").report.phase, StopPhase::Stopping);
        let result = stop_result(v1::StopResult { outcome: 99, evidence: 99, ..Default::default() }, "");
        assert_eq!((result.outcome, result.evidence), (StopOutcome::Unknown, Evidence::Claimed));
        let status = v1::StartStatus { phase: 99, ..Default::default() };
        assert_eq!(start_report(status).phase, StartPhase::Starting);
    }

    #[test]
    fn the_token_is_taken_out_of_every_text() {
        let status = v1::ShutdownStatus {
            message: "token qct1.1.x here".to_owned(),
            step: "qct1.1.x".to_owned(),
            completion_token: "qct1.1.x".to_owned(),
            result: Some(v1::StopResult { message: "qct1.1.x".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let sent = stop_report(status, "qct1.1.x");
        assert!(!format!("{:?}", sent.report).contains("qct1"), "{:?}", sent.report);
        assert_eq!(sent.completion_token, "qct1.1.x");
    }

    #[test]
    fn texts_are_cut_at_whole_characters() {
        let cut = text("ä".repeat(200), TEXT_BYTES_MAX - 1, "");
        assert_eq!(cut.len(), TEXT_BYTES_MAX - 2);
    }
}
