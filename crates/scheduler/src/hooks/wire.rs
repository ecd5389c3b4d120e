//! What hooks send, from the wire to the domain, in the careful reading of the contract.
//!
//! Texts are cut to the contract's limits here, so that nothing larger gets into records and events. Whether a report
//! counts is checked in [`super::report`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quiesce_operation::report::{
    AppState, Capabilities, Readiness, StartPhase, StartReport, StartResult, StopOutcome, StopPhase, StopReport,
    StopResult,
};
use quiesce_protocol::v1;

use super::HookInfo;
use crate::convert::report::evidence_from_wire;
use crate::convert::{duration_from_wire, unsigned};

/// Longest text without a limit of its own, in bytes.
const TEXT_MAX: usize = 256;
/// Longest `message` and `reason`, in bytes.
const MESSAGE_MAX: usize = 4096;

/// A report of a shutdown, without the token that may have come with it.
pub(crate) fn stop_report(status: &v1::ShutdownStatus) -> StopReport {
    use v1::ShutdownPhase as W;
    StopReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase: match W::try_from(status.phase) {
            Ok(W::Accepted) => StopPhase::Accepted,
            Ok(W::Draining) => StopPhase::Draining,
            Ok(W::Killing) => StopPhase::Killing,
            Ok(W::Stopped) => StopPhase::Stopped,
            Ok(W::Failed) => StopPhase::Failed,
            Ok(W::Cancelled) => StopPhase::Cancelled,
            // Unknown: not over yet, past the point of no return.
            Ok(W::Stopping | W::Unspecified) | Err(_) => StopPhase::Stopping,
        },
        percent: status.percent.and_then(|percent| u8::try_from(percent.clamp(0, 100)).ok()),
        step: cut(&status.step, TEXT_MAX),
        message: message(&status.message),
        report_time: reported_millis(status.report_time.as_ref()),
        wanted_grace_period: reported_duration(status.wanted_grace_period.as_ref()),
        result: status.result.as_ref().map(stop_result),
    }
}

/// How a shutdown came out, as reported in the stream or beside it.
pub(crate) fn stop_result(result: &v1::StopResult) -> StopResult {
    use v1::stop_result::Outcome as W;
    StopResult {
        outcome: match result.outcome() {
            W::Stopped => StopOutcome::Stopped,
            W::Killed => StopOutcome::Killed,
            W::NotRunning => StopOutcome::NotRunning,
            W::StillRunning => StopOutcome::StillRunning,
            W::Restarted => StopOutcome::Restarted,
            W::Cancelled => StopOutcome::Cancelled,
            W::Unknown | W::Unspecified => StopOutcome::Unknown,
        },
        evidence: evidence_from_wire(result.evidence),
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        clean: result.clean,
        duration: reported_duration(result.duration.as_ref()),
        message: message(&result.message),
        held: result.held,
    }
}

/// A report of a start. With a result it is over, whatever the phase says.
pub(crate) fn start_report(status: &v1::StartStatus) -> StartReport {
    use v1::StartPhase as W;
    let result = status.result.as_ref().map(start_result);
    let phase = match (&result, W::try_from(status.phase)) {
        (Some(StartResult { ready: true, .. }), _) | (None, Ok(W::Ready)) => StartPhase::Ready,
        (Some(_), _) | (None, Ok(W::Failed)) => StartPhase::Failed,
        (None, Ok(W::Accepted)) => StartPhase::Accepted,
        // Unknown: not over yet.
        (None, Ok(W::Starting | W::Unspecified) | Err(_)) => StartPhase::Starting,
    };
    StartReport {
        sequence: u32::try_from(status.sequence).unwrap_or(0),
        phase,
        message: message(&status.message),
        report_time: reported_millis(status.report_time.as_ref()),
        result,
    }
}

fn start_result(result: &v1::StartResult) -> StartResult {
    use v1::start_result::{Outcome, Readiness as W};
    StartResult {
        ready: result.outcome() == Outcome::Ready,
        readiness: match result.readiness() {
            W::Notified => Readiness::Notified,
            W::Command => Readiness::Command,
            W::Tcp => Readiness::Tcp,
            W::Settled => Readiness::Settled,
            W::Unspecified => Readiness::Unspecified,
        },
        exit_code: result.exit_code,
        exit_signal: result.exit_signal,
        duration: reported_duration(result.duration.as_ref()),
        message: message(&result.message),
    }
}

/// What a hook says about itself. The empty message is a valid answer: ready, no capabilities, unknown state.
pub(crate) fn hook_info(info: &v1::HookInfo) -> HookInfo {
    use v1::hook_info::AppState as W;
    HookInfo {
        instance: cut(&info.instance, TEXT_MAX),
        implementation: cut(&info.implementation, TEXT_MAX),
        implementation_version: cut(&info.implementation_version, TEXT_MAX),
        protocol_version: cut(&info.protocol_version, TEXT_MAX),
        capabilities: capabilities(info),
        ready: info.ready.unwrap_or(true),
        not_ready_reason: message(&info.not_ready_reason),
        cannot_start_reason: message(&info.cannot_start_reason),
        app_state: match info.app_state() {
            W::Unspecified => AppState::Unspecified,
            W::Running => AppState::Running,
            W::Stopped => AppState::Stopped,
            W::Held => AppState::Held,
            W::Starting => AppState::Starting,
            W::Stopping => AppState::Stopping,
        },
        app_start_time: info.app_start_time.and_then(|time| SystemTime::try_from(time).ok()),
        epoch: unsigned(info.epoch),
        app_message: message(&info.app_message),
    }
}

/// Unknown capabilities are ignored.
fn capabilities(info: &v1::HookInfo) -> Capabilities {
    use v1::Capability as W;
    let mut found = Capabilities::default();
    for capability in info.capabilities() {
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

/// A duration somebody reported; one that is none says nothing.
fn reported_duration(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    duration.and_then(duration_from_wire)
}

/// Milliseconds since 1970 of a timestamp somebody reported; before 1970 it says nothing.
fn reported_millis(time: Option<&prost_types::Timestamp>) -> Option<u64> {
    let time = SystemTime::try_from(*time?).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// A message for people, cut to the limit of such.
pub(crate) fn message(text: &str) -> String {
    cut(text, MESSAGE_MAX)
}

/// At most `max` bytes of `text`, whole characters, without control characters: what hooks say gets into the terminals and
/// logs of people. Line breaks and tabs stay.
fn cut(text: &str, max: usize) -> String {
    let cut = &text[..text.floor_char_boundary(max)];
    cut.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use quiesce_operation::report::Evidence;

    use super::*;

    #[test]
    fn the_empty_answer_is_a_ready_hook_that_can_do_nothing_more() {
        let info = hook_info(&v1::HookInfo::default());
        assert!(info.ready);
        assert_eq!(info.capabilities, Capabilities::default());
        assert_eq!(info.app_state, AppState::Unspecified);
    }

    #[test]
    fn unknown_values_are_taken_for_the_careful_ones() {
        let status = v1::ShutdownStatus { phase: 99, ..Default::default() };
        assert_eq!(stop_report(&status).phase, StopPhase::Stopping);
        let result = stop_result(&v1::StopResult { outcome: 99, evidence: 99, ..Default::default() });
        assert_eq!((result.outcome, result.evidence), (StopOutcome::Unknown, Evidence::Claimed));
        let status = v1::StartStatus { phase: 99, ..Default::default() };
        assert_eq!(start_report(&status).phase, StartPhase::Starting);
    }

    #[test]
    fn a_duration_that_is_none_says_nothing() {
        for (seconds, nanos) in [(-1, 0), (i64::MIN, -999_999_999), (1, -1)] {
            let duration = Some(prost_types::Duration { seconds, nanos });
            let status = v1::ShutdownStatus { wanted_grace_period: duration, ..Default::default() };
            assert_eq!(stop_report(&status).wanted_grace_period, None);
            assert_eq!(stop_result(&v1::StopResult { duration, ..Default::default() }).duration, None);
        }
    }

    #[test]
    fn texts_are_cut_at_whole_characters() {
        assert_eq!(cut(&"ä".repeat(200), 255).len(), 254);
    }

    #[test]
    fn texts_lose_their_control_characters() {
        assert_eq!(message("\x1b[31mflushing\0\r\nnow\t\u{85}"), "[31mflushing\nnow\t");
    }
}
