//! What a person can do next, in their words and with the command to type.

use super::{Operation, Stage, State};
use crate::failure::Reason;
use crate::policy::FailureStrategy;
use crate::request::Kind;

impl Operation {
    /// What to do next; empty while nobody has to do anything.
    #[must_use]
    pub fn advice(&self) -> String {
        let id = &self.id;
        match self.state {
            State::Stopped { confirmed: false } if self.requires_confirmation() => match self.request.kind {
                Kind::Migrate => format!(
                    "Every instance has stopped and is held. Move the workload now, then: quiesce confirm {id}. To run \
                     it at the source again: quiesce cancel {id}"
                ),
                Kind::Delete => format!(
                    "Every instance has stopped and is held. Remove what is left, then: quiesce confirm {id}. To run it \
                     again: quiesce cancel {id}"
                ),
            },
            State::Degraded { stage } => self.advice_degraded(stage),
            State::Pending
            | State::Preparing
            | State::Stopping
            | State::BackingOff { .. }
            | State::Forcing
            | State::Stopped { .. }
            | State::Starting
            | State::Finalizing { .. }
            | State::Cancelling { .. }
            | State::RollingBack
            | State::Succeeded
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => String::new(),
        }
    }

    fn advice_degraded(&self, stage: Stage) -> String {
        let id = &self.id;
        let application = &self.request.application;
        let reason = self.failure.as_ref().map(|failure| failure.reason);
        if stage == Stage::RollingBack {
            return format!(
                "The source stays held, the target's end is not proven or the source did not come up. See to the \
                 instance named, then: quiesce retry {id}. To close it and decide by hand: quiesce cancel {id}"
            );
        }
        let cause = match reason {
            Some(Reason::HookUnreachable | Reason::AcceptTimeout | Reason::HeartbeatTimeout) => {
                "Bring its agent back, then"
            }
            Some(Reason::GraceTimeout) => {
                "It was told to stop and still runs; nothing was killed. Give it longer with --grace-period, or see why \
                 it does not stop, then"
            }
            Some(Reason::StillRunning | Reason::KillTimeout) => "It still runs. See why it does not stop, then",
            Some(Reason::Restarted) => "Something starts it again: switch that off, then",
            Some(Reason::CheckFailed) => {
                "Nothing has been told to stop in this attempt. Mend what the check found, then"
            }
            Some(Reason::UncleanExit) => "It ended, but perhaps without saving. Look at its data; to go on",
            Some(Reason::Unverified) => "Find out whether it has ended, then",
            Some(
                Reason::HookRejected
                | Reason::ProtocolError
                | Reason::OverallTimeout
                | Reason::StartFailed
                | Reason::StartTimeout,
            )
            | None => "See to the cause, then",
        };
        let force = if reason.is_some_and(Reason::is_missing_proof) {
            format!("If you know that it has ended: quiesce retry {id} --force --allow-unverified")
        } else if self.policy.failure_strategy == FailureStrategy::Force {
            format!("To delete it without proof: quiesce delete {application} --force")
        } else {
            format!("To kill it: quiesce retry {id} --force")
        };
        let cancel = if !self.was_told() {
            "To leave everything as it is"
        } else if self.can_roll_back() {
            "To start again what has stopped"
        } else {
            "To close it as it is"
        };
        format!("{cause}: quiesce retry {id}. {force}. {cancel}: quiesce cancel {id}")
    }
}
