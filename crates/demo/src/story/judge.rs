//! Whether what happened is what should have happened. Pure: facts in, findings out.

use std::process::ExitStatus;
use std::time::Duration;

use quiesce_protocol::v1::{Evidence, Operation, failure, operation, start_result, stop_result};

use super::show::{count, seconds};
use crate::ledger::book::Epoch;
use crate::load::{Verdict, VerifyError};

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) good: bool,
    pub(super) text: String,
}

impl Finding {
    /// What was checked and how it came out, whichever it is.
    pub(super) fn of(good: bool, text: impl Into<String>) -> Self {
        Self { good, text: text.into() }
    }
}

/// Every acknowledged write is there, and the writers followed each other in this order of epochs.
pub(super) fn promises(checked: Result<Verdict, VerifyError>, epochs: &[Epoch]) -> Vec<Finding> {
    let verdict = match checked {
        Ok(verdict) => verdict,
        Err(VerifyError::Faults(faults)) => {
            return faults.into_iter().map(|fault| Finding::of(false, fault.to_string())).collect();
        }
        Err(error) => return vec![Finding::of(false, crate::ledger::chain(&error))],
    };
    let reigns: Vec<Epoch> = verdict.writers.iter().map(|(writer, _)| writer.epoch).collect();
    let one_at_a_time = match verdict.writers.split_last() {
        Some(((last, _), [])) => format!("one writer, epoch {}", last.epoch),
        _ => format!("never two writers: epochs {} followed each other", list(&reigns)),
    };
    let all = count(verdict.acknowledged);
    vec![
        Finding::of(verdict.acknowledged > 0, format!("acknowledged writes {all}, found again {all}, lost 0")),
        match reigns == epochs {
            true => Finding::of(true, one_at_a_time),
            false => Finding::of(false, format!("the writers were epoch {}, not {}", list(&reigns), list(epochs))),
        },
    ]
}

/// The operation ended in this state.
pub(super) fn ended_as(operation: &Operation, wanted: operation::State) -> Finding {
    let word = |state: operation::State| state.as_str_name().trim_start_matches("STATE_");
    let (state, wanted_word) = (operation.state(), word(wanted));
    if state == wanted {
        return Finding::of(true, format!("the operation ended {wanted_word}"));
    }
    let mut text = format!("the operation is {}, not {wanted_word}", word(state));
    if let Some(failure) = &operation.failure {
        text.push_str(&format!(": {}", failure.message));
    }
    if !operation.advice.is_empty() {
        text.push_str(&format!(" ({})", operation.advice));
    }
    Finding::of(false, text)
}

/// The old copy is gone, by the strongest evidence, and went the way it goes when all is well.
pub(super) fn proven_end(operation: &Operation) -> Finding {
    // A rollback stops the target as well; what matters here is the source, whose instance is named after its cluster.
    let source = format!("/{}", operation.source_cluster);
    let Some(instance) = operation.instances.iter().find(|instance| instance.instance.ends_with(&source)) else {
        return Finding::of(false, "the operation stopped no copy at the source");
    };
    let Some(result) = instance.status.as_ref().and_then(|status| status.result.as_ref()) else {
        return Finding::of(false, "nobody reported the end of the old copy");
    };
    let evidence = result.evidence().as_str_name().trim_start_matches("EVIDENCE_");
    let exit = match (result.exit_code, result.exit_signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "exit not seen".to_owned(),
    };
    let good = instance.verified
        && result.outcome() == stop_result::Outcome::Stopped
        && result.evidence() == Evidence::GroupEmpty
        && result.clean == Some(true);
    let how = if good { "ended, verified" } else { "did not end as it should" };
    Finding::of(good, format!("the old copy {how}: {exit}, evidence {evidence}"))
}

/// The new copy said itself that it serves.
pub(super) fn ready_by_its_own_word(operation: &Operation) -> Finding {
    let ready = operation.starts.iter().find(|start| start.ready);
    let Some((start, result)) = ready.and_then(|start| Some((start, start.status.as_ref()?.result.as_ref()?))) else {
        return Finding::of(false, "no copy was reported ready");
    };
    let readiness = result.readiness().as_str_name().trim_start_matches("READINESS_");
    Finding::of(
        result.readiness() == start_result::Readiness::Notified,
        format!("the new copy is ready under epoch {}: {readiness}", start.epoch),
    )
}

/// The target failed, and that is why.
pub(super) fn start_failed(operation: &Operation) -> Finding {
    let failed = operation.starts.iter().find(|start| !start.rollback);
    let Some(failure) = failed.and_then(|start| start.failure.as_ref()) else {
        return Finding::of(false, "the target is not reported to have failed");
    };
    let reason = failure.reason().as_str_name().trim_start_matches("REASON_");
    Finding::of(failure.reason() == failure::Reason::StartFailed, format!("the target failed: {reason}"))
}

/// It took longer than its grace period, because it was given more.
pub(super) fn was_given_time(operation: &Operation, grace: Duration) -> Finding {
    let instance = operation.instances.first();
    let extension = instance.and_then(|instance| instance.extension).and_then(|it| Duration::try_from(it).ok());
    let result = instance.and_then(|instance| instance.status.as_ref()?.result.as_ref());
    let took = result.and_then(|result| result.duration).and_then(|it| Duration::try_from(it).ok());
    let (extension, took) = (extension.unwrap_or_default(), took.unwrap_or_default());
    let (took_text, grace_text, extension_text) = (seconds(took), seconds(grace), seconds(extension));
    let text = format!("the stop took {took_text}; grace was {grace_text}, up to {extension_text} more were granted");
    Finding::of(took > grace && !extension.is_zero(), text)
}

/// Nobody was told twice, and nobody ended untold.
pub(super) fn told_once(told: &[(Epoch, usize)]) -> Finding {
    if let Some((epoch, times)) = told.iter().find(|(_, times)| *times != 1) {
        return Finding::of(false, format!("the ledger of epoch {epoch} was told to stop {times} times"));
    }
    let epochs: Vec<Epoch> = told.iter().map(|(epoch, _)| *epoch).collect();
    Finding::of(!told.is_empty(), format!("told to stop exactly once: the ledger of epoch {}", list(&epochs)))
}

/// A process ended with 0.
pub(super) fn exited(who: &str, status: ExitStatus) -> Finding {
    match status.code() {
        Some(code) => Finding::of(code == 0, format!("{who} ended with exit code {code}")),
        None => Finding::of(false, format!("{who} was ended by a {status}")),
    }
}

/// The longest time without an acknowledgement; there is no bound to hold it to, as machines differ.
pub(super) fn pause(longest: Duration) -> Finding {
    Finding::of(true, format!("longest pause the client saw: {}", seconds(longest)))
}

/// "1, 2, 4".
pub(super) fn list(epochs: &[Epoch]) -> String {
    epochs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use quiesce_protocol::v1::{Failure, InstanceShutdown, InstanceStart, ShutdownStatus, StopResult};

    use super::*;
    use crate::load::{Fault, WriterId};

    fn verdict(epochs: &[u64]) -> Verdict {
        let writer = |epoch: &u64| (WriterId { epoch: Epoch::new(*epoch), writer: format!("w{epoch}") }, 10);
        Verdict { acknowledged: 10 * epochs.len() as u64, writers: epochs.iter().map(writer).collect() }
    }

    fn all_good(findings: &[Finding]) -> bool {
        findings.iter().all(|finding| finding.good)
    }

    fn stopped(evidence: Evidence) -> Operation {
        let result = StopResult {
            outcome: stop_result::Outcome::Stopped.into(),
            evidence: evidence.into(),
            exit_code: Some(0),
            clean: Some(true),
            duration: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..StopResult::default()
        };
        let status = ShutdownStatus { result: Some(result), ..ShutdownStatus::default() };
        let instance = InstanceShutdown {
            instance: "applications/ledger/instances/north".to_owned(),
            status: Some(status),
            verified: true,
            extension: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            ..InstanceShutdown::default()
        };
        Operation {
            source_cluster: "north".to_owned(),
            instances: vec![instance],
            state: operation::State::Succeeded.into(),
            ..Operation::default()
        }
    }

    #[test]
    fn promises_that_were_kept_are_good_news() {
        let epochs = [1, 2].map(Epoch::new);
        let findings = promises(Ok(verdict(&[1, 2])), &epochs);
        assert!(all_good(&findings), "{findings:?}");
        assert_eq!(findings[0].text, "acknowledged writes 20, found again 20, lost 0");
        assert_eq!(findings[1].text, "never two writers: epochs 1, 2 followed each other");
    }

    #[test]
    fn a_lost_write_fails_by_name() {
        let fault = Fault::Missing { key: "client-7".to_owned(), epoch: Epoch::new(1) };
        let findings = promises(Err(VerifyError::Faults(vec![fault])), &[Epoch::new(1)]);
        assert_eq!(findings, [Finding::of(false, "client-7 was acknowledged in epoch 1 and is missing")]);
    }

    #[test]
    fn a_writer_nobody_permitted_and_a_client_that_never_wrote_fail() {
        assert!(!all_good(&promises(Ok(verdict(&[1, 2, 3])), &[1, 3].map(Epoch::new))));
        assert!(!all_good(&promises(Ok(verdict(&[])), &[])));
    }

    #[test]
    fn another_ending_fails_with_its_reason_and_advice() {
        let failure = Failure { message: "still running".to_owned(), ..Failure::default() };
        let operation = Operation {
            state: operation::State::Degraded.into(),
            failure: Some(failure),
            advice: "retry".to_owned(),
            ..Operation::default()
        };
        let finding = ended_as(&operation, operation::State::Succeeded);
        assert_eq!(finding, Finding::of(false, "the operation is DEGRADED, not SUCCEEDED: still running (retry)"));
        assert!(ended_as(&operation, operation::State::Degraded).good);
    }

    #[test]
    fn weaker_evidence_than_an_empty_group_fails() {
        assert!(proven_end(&stopped(Evidence::GroupEmpty)).good);
        assert!(!proven_end(&stopped(Evidence::ProcessGone)).good);
        assert!(!proven_end(&Operation::default()).good);
    }

    #[test]
    fn more_time_counts_only_if_it_was_given_and_needed() {
        let operation = stopped(Evidence::GroupEmpty);
        assert!(was_given_time(&operation, Duration::from_secs(2)).good);
        assert!(!was_given_time(&operation, Duration::from_secs(6)).good);
        assert!(!was_given_time(&Operation::default(), Duration::from_secs(2)).good);
    }

    #[test]
    fn a_target_must_fail_for_the_reason_it_was_given() {
        let failed = |reason: failure::Reason| Operation {
            starts: vec![InstanceStart {
                failure: Some(Failure { reason: reason.into(), ..Failure::default() }),
                ..InstanceStart::default()
            }],
            ..Operation::default()
        };
        assert!(start_failed(&failed(failure::Reason::StartFailed)).good);
        assert!(!start_failed(&failed(failure::Reason::StartTimeout)).good);
        assert!(!start_failed(&Operation::default()).good);
        assert!(!ready_by_its_own_word(&failed(failure::Reason::StartFailed)).good);
    }

    #[test]
    fn a_second_signal_and_a_bad_exit_fail() {
        let told = |times: &[usize]| told_once(&times.iter().map(|it| (Epoch::new(1), *it)).collect::<Vec<_>>()).good;
        assert!(told(&[1]) && told(&[1, 1]));
        assert!(!told(&[1, 2]) && !told(&[0]) && !told(&[]));
        assert!(!exited("the agent", ExitStatus::from_raw(1 << 8)).good);
    }
}
