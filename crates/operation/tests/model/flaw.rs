//! What can be wrong with a driver or an agent, to show that the search would find it. The machine itself stays as it is.

use quiesce_operation::report::{CallErrorClass, Evidence, StopOutcome, StopPhase, StopReport, StopResult};
use quiesce_operation::{Effect, Input};

use crate::hook::Hook;

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The driver sends, then writes.
    ActsBeforeWriting,
    /// The driver's timeline begins anew after a crash.
    ClockBeginsAnew,
    /// The driver takes what a hook claims for what it has seen.
    BelievesClaims,
    /// The driver takes a connection that broke for an application that has ended.
    TakesSilenceForTheEnd,
    /// An agent that forgets which epochs it has seen.
    ReusesEpochs,
    /// An agent that forgets which shutdowns it has begun.
    ForgetsShutdowns,
}

impl Flaw {
    /// What the driver makes of an answer.
    pub(crate) fn mishear(flaw: Option<Self>, mut input: Input) -> Input {
        match (flaw, &mut input) {
            (
                Some(Self::BelievesClaims),
                Input::StopReported { report: StopReport { result: Some(result), .. }, .. },
            ) => {
                result.evidence = Evidence::GroupEmpty;
            }
            (Some(Self::TakesSilenceForTheEnd), Input::StopCallEnded { instance, attempt, error })
                if error.class == CallErrorClass::Lost =>
            {
                return Input::StopReported { instance: instance.clone(), attempt: *attempt, report: ended() };
            }
            _ => {}
        }
        input
    }

    /// What an agent has lost before it hears a call.
    pub(crate) fn before_call(flaw: Option<Self>, hook: &mut Hook, effect: &Effect) {
        let forgets = match (flaw, effect) {
            (Some(Self::ReusesEpochs), Effect::Start { .. }) => !hook.alive,
            (Some(Self::ForgetsShutdowns), Effect::Shutdown { .. }) => hook.alive,
            _ => false,
        };
        if forgets {
            let (alive, signals) = (hook.alive, std::mem::take(&mut hook.signals));
            *hook = Hook::new(hook.instance.clone(), hook.target, hook.temper);
            (hook.alive, hook.signals) = (alive, signals);
        }
    }
}

fn ended() -> StopReport {
    StopReport {
        sequence: u32::MAX,
        phase: StopPhase::Stopped,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period: None,
        result: Some(StopResult {
            outcome: StopOutcome::Stopped,
            evidence: Evidence::GroupEmpty,
            exit_code: None,
            exit_signal: None,
            clean: None,
            duration: None,
            message: String::new(),
            held: true,
        }),
    }
}
