//! Results and wishes that come beside the stream: whether they count, given how the operation stands.

use std::time::Duration;

use quiesce_operation::report::{StopReport, StopResult};
use quiesce_operation::{Input, InstanceId, Moment, Operation};

use quiesce_mutation::{Mutant, active};

use super::{CompletionError, Granted};
use crate::hooks::report::final_phase;

/// What becomes of a result.
pub(super) enum Verdict {
    /// It is news: the machine has to hear it.
    Counts(Input),
    /// The very same result is there already.
    Known,
    /// It does not count.
    Refused(CompletionError),
}

impl Verdict {
    /// What to answer once the machine has heard it.
    pub(super) fn after(self) -> Result<(), CompletionError> {
        match self {
            Self::Known => Ok(()),
            Self::Refused(error) => Err(error),
            // Heard and not taken: its time was over.
            Self::Counts(_) => Err(CompletionError::Stale),
        }
    }
}

/// Judges a result of the shutdown of `instance` under the fence `attempt`.
pub(super) fn verdict(operation: &Operation, instance: &InstanceId, attempt: u32, result: &StopResult) -> Verdict {
    let Some(member) = operation.member(instance) else { return Verdict::Refused(CompletionError::NotFound) };
    let Some(shutdown) = member.shutdown.as_ref().filter(|shutdown| shutdown.fence >= attempt) else {
        return Verdict::Refused(CompletionError::NotFound);
    };
    if shutdown.fence > attempt && !active(Mutant::StaleAttemptCounts) {
        return Verdict::Refused(CompletionError::Stale);
    }
    let last = shutdown.report.as_ref();
    match last.and_then(|report| report.result.as_ref()) {
        Some(known) if known == result => Verdict::Known,
        Some(_) => Verdict::Refused(CompletionError::Stale),
        None if operation.is_done() => Verdict::Refused(CompletionError::Stale),
        None => {
            let mut report = last.cloned().unwrap_or_else(first_report);
            report.phase = final_phase(result.outcome);
            report.wanted_grace_period = None;
            report.result = Some(result.clone());
            Verdict::Counts(Input::StopReported { instance: instance.clone(), attempt, report })
        }
    }
}

/// What a result says of the shutdown when the hook has said nothing yet.
fn first_report() -> StopReport {
    StopReport {
        sequence: 0,
        phase: quiesce_operation::report::StopPhase::Accepted,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period: None,
        result: None,
    }
}

/// The time the shutdown of `instance` has, while it runs.
pub(super) fn granted(
    operation: &Operation,
    instance: &InstanceId,
    attempt: u32,
    now: Moment,
) -> Result<Granted, CompletionError> {
    let member = operation.member(instance).ok_or(CompletionError::NotFound)?;
    let shutdown = member.shutdown.as_ref().ok_or(CompletionError::NotFound)?;
    if shutdown.fence < attempt {
        return Err(CompletionError::NotFound);
    }
    if shutdown.fence > attempt || !member.is_in_flight() {
        return Err(CompletionError::Stale);
    }
    let policy = operation.policy();
    Ok(Granted {
        grace: shutdown.grace,
        deadline: shutdown.deadline().unwrap_or(now + shutdown.grace),
        remaining: (policy.grace_period + policy.max_extension).saturating_sub(shutdown.grace),
    })
}

/// What to answer to a wish, given the time there was before and is after the machine has heard it.
pub(super) fn judge_wish(
    before: Granted,
    after: Result<Granted, CompletionError>,
    wanted: Duration,
) -> Result<Granted, CompletionError> {
    let after = after?;
    if after.grace > before.grace || after.grace >= wanted {
        Ok(after)
    } else {
        Err(CompletionError::Exhausted { granted: after })
    }
}
