//! When the store was put back from a backup: an open operation in it must not go on.
//!
//! It may have come to its end since the backup was taken, and others may have followed. Going on would stop again what
//! runs rightly, or start a second copy. So it is closed as it stood, with what is not known said plainly.

use super::{Operation, State};
use crate::failure::{Failure, Reason};
use crate::moment::Moment;
use crate::request::Caller;
use crate::start::StartRun;
use crate::step::Step;

impl Operation {
    /// Closes it because `by` has put the store back from a backup; `what` says which. Calls no hook. An operation that
    /// is over stays as it is.
    #[must_use]
    pub fn close_restored(&mut self, now: Moment, by: &Caller, what: &str) -> Step {
        let mut step = Step::default();
        if self.is_done() {
            return step;
        }
        let unknown = format!("the store was put back from {what}; how this went on since is not known");
        for slot in self.slots().filter(|&slot| self.at(slot).is_in_flight()).collect::<Vec<_>>() {
            self.fail_stop(now, slot, Reason::Unverified, unknown.clone(), &mut step);
        }
        for start in self.starts.iter_mut().filter(|start| start.is_in_flight()) {
            start.run = StartRun::Failed;
        }
        self.failure = Some(Failure {
            reason: Reason::Unverified,
            message: unknown.clone(),
            instance: None,
            attempt: self.attempt,
            grpc_code: String::new(),
            time: now,
        });
        let message = format!("abandoned by {}: {unknown}", by.identity);
        self.enter(now, State::Abandoned, message, &mut step);
        step
    }
}
