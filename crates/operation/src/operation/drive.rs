//! The three ways in: an input, a deadline, and how the facts then move the operation on.

use super::{Operation, State};
use crate::moment::Moment;
use crate::start::StartMember;
use crate::step::{Input, Step};

impl Operation {
    /// Takes note of something that happened. What carries an old fence, or comes when nobody waits for it, changes
    /// nothing and returns an empty step.
    #[must_use]
    pub fn handle(&mut self, now: Moment, input: Input) -> Step {
        let mut step = Step::default();
        if self.is_done() {
            return step;
        }
        match input {
            Input::Begin => self.begin(now, &mut step),
            Input::Probed { instance, serial, answer } => self.probed(now, &instance, serial, answer, &mut step),
            Input::StopReported { instance, attempt, report } => {
                self.stop_reported(now, &instance, attempt, report, &mut step);
            }
            Input::StopCallEnded { instance, attempt, error } => {
                self.stop_call_ended(now, &instance, attempt, error, &mut step);
            }
            Input::MoreTimeWanted { instance, attempt, wanted } => {
                self.more_time_wanted(now, &instance, attempt, wanted, &mut step);
            }
            Input::KillAnswered { instance, attempt, answer } => {
                self.kill_answered(now, &instance, attempt, answer, &mut step);
            }
            Input::CancelAnswered { instance, attempt, answer } => {
                self.cancel_answered(now, &instance, attempt, answer, &mut step);
            }
            Input::StartReported { instance, epoch, report } => {
                self.start_reported(now, &instance, epoch, report, &mut step);
            }
            Input::StartCallEnded { instance, epoch, error } => {
                self.start_call_ended(now, &instance, epoch, error, &mut step);
            }
            Input::Concluded { instance, answer } => self.concluded(now, &instance, answer),
        }
        self.advance(now, &mut step);
        step
    }

    /// The earliest moment at which [`Operation::handle_deadline`] has something to do; none: only an input can move it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.is_done() {
            return None;
        }
        let state = match &self.state {
            State::BackingOff { until } => [Some(*until), None],
            State::Finalizing { until, again } | State::Cancelling { until, again } => {
                [Some(*until), again.map(|again| again.at)]
            }
            State::Pending
            | State::Preparing
            | State::Stopping
            | State::Forcing
            | State::Stopped { .. }
            | State::Starting
            | State::RollingBack
            | State::Degraded { .. }
            | State::Succeeded
            | State::Cancelled
            | State::RolledBack
            | State::Abandoned => [None, None],
        };
        self.members
            .iter()
            .chain(&self.undo)
            .flat_map(|member| member.deadlines(self.policy.settle_period))
            .chain(self.starts.iter().flat_map(StartMember::deadlines))
            .chain(state.into_iter().flatten())
            .chain(self.overall_deadline())
            .min()
    }

    /// Does what is due at `now`. Calling it early or twice is harmless.
    #[must_use]
    pub fn handle_deadline(&mut self, now: Moment) -> Step {
        let mut step = Step::default();
        if self.is_done() {
            return step;
        }
        // Those that end something come first, so that nobody is called once more at the moment it is given up.
        self.overall_deadlines(now, &mut step);
        self.cancel_deadlines(now, &mut step);
        self.probe_deadlines(now, &mut step);
        for slot in self.slots() {
            self.stop_deadlines(now, slot, &mut step);
        }
        for index in 0..self.starts.len() {
            self.start_deadlines(now, index, &mut step);
        }
        self.conclude_deadlines(now, &mut step);
        self.advance(now, &mut step);
        if self.is_overdue(now) {
            // It has just come back to a state in which the overall timeout counts.
            self.overall_deadlines(now, &mut step);
            self.advance(now, &mut step);
        }
        step
    }

    /// Moves on as far as the facts allow.
    pub(super) fn advance(&mut self, now: Moment, step: &mut Step) {
        loop {
            let before = self.state();
            match self.state {
                State::Preparing => self.advance_preparing(now, step),
                State::Stopping => self.advance_stopping(now, step),
                State::BackingOff { until } if until <= now => self.begin_attempt(now, step),
                State::Forcing => self.advance_forcing(now, step),
                State::Stopped { confirmed } => self.advance_stopped(now, confirmed, step),
                State::Starting => self.advance_starting(now, step),
                State::Finalizing { until, .. } => self.advance_finalizing(now, until, step),
                State::Cancelling { until, .. } => self.advance_cancelling(now, until, step),
                State::RollingBack => self.advance_rolling_back(now, step),
                State::Pending
                | State::BackingOff { .. }
                | State::Degraded { .. }
                | State::Succeeded
                | State::Cancelled
                | State::RolledBack
                | State::Abandoned => {}
            }
            if self.state() == before {
                return;
            }
        }
    }

    fn begin(&mut self, now: Moment, step: &mut Step) {
        if self.state != State::Pending {
            return;
        }
        if self.forced {
            self.enter_forcing(now, "killing, as asked", step);
        } else {
            self.begin_attempt(now, step);
        }
    }
}
