//! What is on its way between the scheduler and the agents, and what a hook answers to a call.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use quiesce_operation::report::CallError;
use quiesce_operation::{Effect, Input, InstanceId};

use crate::hook::{Hook, Started, Stop};

/// A call to a hook, with the epoch that a Shutdown carries.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) effect: Effect,
    pub(crate) epoch: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Sent {
    Call(Call),
    Answer(Input),
}

/// One message on its way.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sent: Sent,
    /// It comes at any time or never.
    pub(crate) late: bool,
    /// All of it, written down once: by this messages are compared.
    pub(crate) text: String,
}

impl Message {
    fn new(sent: Sent) -> Self {
        let text = format!("{sent:?}");
        Self { sent, late: false, text }
    }

    pub(crate) fn call(call: Call) -> Self {
        Self::new(Sent::Call(call))
    }

    pub(crate) fn as_late(&self) -> Self {
        Self { late: true, ..self.clone() }
    }

    /// What a hook says on the streams of a shutdown and of a start.
    pub(crate) fn reports(instance: &InstanceId, stop: Option<Stop>, start: Option<Started>) -> Vec<Rc<Self>> {
        let instance = || instance.clone();
        let stop = stop.map(|(attempt, report)| Input::StopReported { instance: instance(), attempt, report });
        let start = start.map(|(epoch, report)| Input::StartReported { instance: instance(), epoch, report });
        stop.into_iter().chain(start).map(|input| Rc::new(Self::new(Sent::Answer(input)))).collect()
    }

    /// What the caller notices when this is lost; none: nobody waits for it.
    pub(crate) fn lost(&self, error: &CallError) -> Option<Self> {
        let error = error.clone();
        let input = match &self.sent {
            Sent::Call(call) => match call.effect.clone() {
                Effect::Probe { instance, serial, .. } => Input::Probed { instance, serial, answer: Err(error) },
                Effect::Shutdown { instance, attempt, .. } => Input::StopCallEnded { instance, attempt, error },
                Effect::Kill { instance, attempt } => Input::KillAnswered { instance, attempt, answer: Err(error) },
                Effect::CancelShutdown { instance, attempt } => {
                    Input::CancelAnswered { instance, attempt, answer: Err(error) }
                }
                Effect::Start { instance, epoch, .. } => Input::StartCallEnded { instance, epoch, error },
                Effect::Conclude { instance, .. } => Input::Concluded { instance, answer: Err(error) },
                Effect::UpdateDeadline { .. } => return None,
            },
            Sent::Answer(input) => match input.clone() {
                Input::Probed { instance, serial, .. } => Input::Probed { instance, serial, answer: Err(error) },
                Input::StopReported { instance, attempt, .. } | Input::StopCallEnded { instance, attempt, .. } => {
                    Input::StopCallEnded { instance, attempt, error }
                }
                Input::KillAnswered { instance, attempt, .. } => {
                    Input::KillAnswered { instance, attempt, answer: Err(error) }
                }
                Input::CancelAnswered { instance, attempt, .. } => {
                    Input::CancelAnswered { instance, attempt, answer: Err(error) }
                }
                Input::StartReported { instance, epoch, .. } | Input::StartCallEnded { instance, epoch, .. } => {
                    Input::StartCallEnded { instance, epoch, error }
                }
                Input::Concluded { instance, .. } => Input::Concluded { instance, answer: Err(error) },
                Input::Begin | Input::MoreTimeWanted { .. } => return None,
            },
        };
        Some(Self::new(Sent::Answer(input)))
    }

    /// Whether both are reports of one stream.
    pub(crate) fn overtakes(&self, earlier: &Self) -> bool {
        match (&self.sent, &earlier.sent) {
            (
                Sent::Answer(Input::StopReported { instance, attempt, .. }),
                Sent::Answer(Input::StopReported { instance: of, attempt: its, .. }),
            ) => instance == of && attempt == its,
            (
                Sent::Answer(Input::StartReported { instance, epoch, .. }),
                Sent::Answer(Input::StartReported { instance: of, epoch: its, .. }),
            ) => instance == of && epoch == its,
            _ => false,
        }
    }

    /// Whom an effect is for.
    pub(crate) fn addressee(effect: &Effect) -> &InstanceId {
        match effect {
            Effect::Probe { instance, .. }
            | Effect::Shutdown { instance, .. }
            | Effect::UpdateDeadline { instance, .. }
            | Effect::Kill { instance, .. }
            | Effect::CancelShutdown { instance, .. }
            | Effect::Start { instance, .. }
            | Effect::Conclude { instance, .. } => instance,
        }
    }
}

impl Call {
    /// The call reaches its hook.
    pub(crate) fn answers(&self, hook: &mut Hook) -> Vec<Rc<Message>> {
        let mut says = None;
        let input = match self.effect.clone() {
            Effect::Probe { instance, serial, .. } => Input::Probed { instance, serial, answer: Ok(hook.probe()) },
            Effect::Shutdown { instance, attempt, .. } => match hook.shutdown(attempt, self.epoch) {
                Ok(report) => Input::StopReported { instance, attempt, report },
                Err(error) => Input::StopCallEnded { instance, attempt, error },
            },
            Effect::UpdateDeadline { .. } => return Vec::new(),
            Effect::Kill { instance, attempt } => {
                let answer = hook.kill(attempt);
                says = hook.latest();
                Input::KillAnswered { instance, attempt, answer }
            }
            Effect::CancelShutdown { instance, attempt } => {
                let answer = hook.cancel(attempt);
                says = hook.latest();
                Input::CancelAnswered { instance, attempt, answer }
            }
            Effect::Start { instance, epoch, .. } => match hook.start(epoch) {
                Ok(report) => Input::StartReported { instance, epoch, report },
                Err(error) => Input::StartCallEnded { instance, epoch, error },
            },
            Effect::Conclude { instance, .. } => Input::Concluded { instance, answer: Ok(()) },
        };
        let says = says.filter(|(attempt, _)| hook.stop_stream == Some(*attempt));
        let mut answers = Message::reports(&hook.instance, says, None);
        answers.push(Rc::new(Message::new(Sent::Answer(input))));
        answers
    }
}

impl Ord for Message {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.late, &self.text).cmp(&(other.late, &other.text))
    }
}

impl PartialOrd for Message {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Message {}

/// For the story: what a reader has to know of it.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.late {
            f.write_str("late: ")?;
        }
        match &self.sent {
            Sent::Call(Call { effect, .. }) => write!(f, "{effect:?}"),
            Sent::Answer(Input::StopReported { instance, attempt, report }) => {
                let outcome = report.result.as_ref().map(|result| (result.outcome, result.evidence));
                write!(f, "report of {instance}, shutdown {attempt}: {}, {outcome:?}", report.phase)
            }
            Sent::Answer(Input::StartReported { instance, epoch, report }) => {
                write!(f, "report of {instance}, start {epoch}: {:?}", report.phase)
            }
            Sent::Answer(Input::Probed { instance, serial, answer: Ok(probe) }) => {
                write!(f, "answer of {instance} to probe {serial}: {:?}, epoch {}", probe.app_state, probe.epoch)
            }
            Sent::Answer(input) => write!(f, "{input:?}"),
        }
    }
}
