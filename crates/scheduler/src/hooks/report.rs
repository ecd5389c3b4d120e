//! Reports as hooks send them: taken apart by [`super::wire`], checked here.
//!
//! Everything a hook sends is untrusted. A result counts with the right token only, and the token is blotted out
//! wherever else it turns up, so that no text of a hook carries it into records and events.

use quiesce_mutation::{Mutant, active};
use quiesce_operation::report::{CallError, StartReport, StopOutcome, StopPhase, StopReport};
use quiesce_protocol::v1;

use super::call::protocol_error;
use super::wire;
use crate::secrets::CompletionToken;

/// A report of the shutdown `id`, whose token is `token`.
pub(crate) fn read_stop(
    message: v1::ShutdownResponse,
    id: &str,
    token: &CompletionToken,
) -> Result<StopReport, CallError> {
    let status = message.status.ok_or_else(|| protocol_error("a report without a status"))?;
    if !status.shutdown_id.is_empty() && status.shutdown_id != id {
        return Err(protocol_error("a report about another shutdown"));
    }
    let mut report = wire::stop_report(&status);
    blot_out(&mut report.step, token);
    blot_out(&mut report.message, token);
    let Some(result) = report.result.as_mut() else {
        return match report.phase {
            StopPhase::Stopped | StopPhase::Failed | StopPhase::Cancelled => {
                Err(protocol_error("a final phase without a result"))
            }
            StopPhase::Accepted | StopPhase::Draining | StopPhase::Stopping | StopPhase::Killing => Ok(report),
        };
    };
    let proven = CompletionToken::parse(&status.completion_token).is_some_and(|proof| proof.matches(token));
    if !proven && !active(Mutant::TokenUnchecked) {
        return Err(protocol_error("a result without the completion token of this shutdown"));
    }
    blot_out(&mut result.message, token);
    // With a result the shutdown is over, whatever the phase says.
    report.phase = final_phase(result.outcome);
    Ok(report)
}

/// A report of the start under `epoch`.
pub(crate) fn read_start(message: v1::StartApplicationResponse, epoch: i64) -> Result<StartReport, CallError> {
    let status = message.status.ok_or_else(|| protocol_error("a report without a status"))?;
    if status.epoch != 0 && status.epoch != epoch {
        return Err(protocol_error("a report about another start"));
    }
    Ok(wire::start_report(&status))
}

/// The phase in which a shutdown ends that way.
pub(crate) fn final_phase(outcome: StopOutcome) -> StopPhase {
    match outcome {
        StopOutcome::Stopped | StopOutcome::Killed | StopOutcome::NotRunning => StopPhase::Stopped,
        StopOutcome::StillRunning | StopOutcome::Restarted | StopOutcome::Unknown => StopPhase::Failed,
        StopOutcome::Cancelled => StopPhase::Cancelled,
    }
}

/// Takes a secret out of a text of somebody who should not have put it there.
pub(crate) fn blot_out(text: &mut String, token: &CompletionToken) {
    if text.contains(token.reveal()) {
        *text = text.replace(token.reveal(), "[secret]");
    }
}

/// The same for the error a call of a shutdown ended with: a hook may quote the request it did not like.
pub(crate) fn without_secret(mut error: CallError, token: &CompletionToken) -> CallError {
    blot_out(&mut error.message, token);
    error
}

#[cfg(test)]
mod tests {
    use quiesce_operation::report::CallErrorClass;

    use super::*;

    fn token() -> CompletionToken {
        CompletionToken::parse("qct1.1.x").unwrap()
    }

    fn read(status: v1::ShutdownStatus) -> Result<StopReport, CallError> {
        read_stop(v1::ShutdownResponse { status: Some(status) }, "op-1.1.a", &token())
    }

    #[test]
    fn a_result_counts_with_its_own_token_only() {
        for (given, counts) in [("qct1.1.x", true), ("qct1.1.y", false), ("", false), ("qct1.1.xx", false)] {
            let status = v1::ShutdownStatus {
                completion_token: given.to_owned(),
                result: Some(v1::StopResult::default()),
                ..Default::default()
            };
            assert_eq!(read(status).is_ok(), counts, "{given:?}");
        }
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
        let report = read(status).unwrap();
        assert!(!format!("{report:?}").contains("qct1"), "{report:?}");
    }

    #[test]
    fn an_error_that_quotes_the_request_is_blotted_as_well() {
        let error = without_secret(protocol_error(r#"bad request: { token: "qct1.1.x" }"#), &token());
        assert_eq!(error.message, r#"bad request: { token: "[secret]" }"#);
    }

    #[test]
    fn reports_that_contradict_themselves_are_protocol_errors() {
        let over = v1::ShutdownStatus { phase: v1::ShutdownPhase::Stopped.into(), ..Default::default() };
        let foreign = v1::ShutdownStatus { shutdown_id: "op-1.2.a".to_owned(), ..Default::default() };
        for status in [over, foreign] {
            assert_eq!(read(status).unwrap_err().class, CallErrorClass::Protocol);
        }
        let empty = read_stop(v1::ShutdownResponse::default(), "op-1.1.a", &token());
        assert_eq!(empty.unwrap_err().class, CallErrorClass::Protocol);
    }
}
