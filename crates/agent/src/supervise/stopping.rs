//! How a running application is told to stop: the ladder of signals, the stop command, or its own script.
//!
//! Owns the order of things: written down first, told then, never the same step twice, not even across a crash of this
//! agent. Between writing and telling a crash can swallow a signal; that costs this attempt its time, and the next
//! attempt tells again. The other way round the application would be told twice, which for many means "now, and hard".

use std::time::Duration;

use quiesce_runtime::trace_context::TraceContext;
use rustix::process::Signal;
use tokio::time::Instant;
use tracing::{info, warn};

use quiesce_mutation::{Mutant, active};

use super::{
    StopMethod,
    keeper::{Keeper, helper_variables},
};
use crate::{
    application::{StopError, StopOrder},
    host::HelperEnd,
    journal::{Script, Told},
    process::{helper_command::CommandLine, signal},
};

/// How long processes may outlive their leader before they are told themselves: a leader that passed the signal on has
/// told them already, and a second one would hurry them.
const REST_PATIENCE: Duration = Duration::from_secs(1);

/// How long processes may outlive the report of their script before they are told themselves: a script that ends the
/// application right after its report is not raced. Krake never deleted a pod sooner than that.
const REPORT_PATIENCE: Duration = Duration::from_secs(1);

/// A step that could not be written down is tried again after this: a full disk does not get room from being asked without
/// pause, and what else there is to do has to be done meanwhile.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Parameters of a policy that are handed to a stop command: more is no parameter list but a data transfer.
const PARAMETERS_MAX: usize = 64;

impl Keeper {
    /// See [`crate::application::Application::stop`].
    pub(super) async fn stop(&mut self, order: StopOrder) -> Result<(), StopError> {
        self.look().await;
        let Some(run) = &self.run else { return Ok(()) };
        let before = run.record.told.clone();
        let same = |told: &Told| told.shutdown_id == order.shutdown_id && !active(Mutant::TellsAgain);
        if before.as_ref().is_some_and(same) {
            return Ok(());
        }
        let told = Told {
            shutdown_id: order.shutdown_id.clone(),
            rung: 0,
            rest: !run.leader_lives(),
            script: self.script.as_ref().map(|_| Script::Asked),
        };
        let recorded = self.record(|record| record.told = Some(told)).await;
        recorded.map_err(|error| StopError::NotDurable(error.into()))?;
        let result = match self.config.stop.clone() {
            StopMethod::Signals(ladder) => self.tell(ladder.rungs()[0].signal),
            StopMethod::Command(line) => self.run_stop_command(&line, &order),
            StopMethod::Script(_) => self.ask_script().await,
        };
        match result {
            Ok(()) => self.plan_rung(),
            Err(reason) => {
                // Nobody was told, so this was no step.
                if let Err(error) = self.record(|record| record.told = before).await {
                    warn!(error = &error as &dyn std::error::Error, "cannot record that the application was not told");
                }
                return Err(StopError::NotTold { reason });
            }
        }
        Ok(())
    }

    fn tell(&self, signal: Signal) -> Result<(), String> {
        let Some(run) = &self.run else { return Ok(()) };
        info!(epoch = run.record.epoch, signal = %signal::name(signal), "telling the application to stop");
        run.tell(signal)
    }

    fn run_stop_command(&mut self, line: &CommandLine, order: &StopOrder) -> Result<(), String> {
        let Some(run) = &self.run else { return Ok(()) };
        let mut variables = helper_variables(&run.record);
        variables.push(("QUIESCE_SHUTDOWN_ID".to_owned(), order.shutdown_id.clone()));
        variables.extend(order.grace.map(|grace| ("QUIESCE_GRACE_SECONDS".to_owned(), grace.as_secs().to_string())));
        for (name, value) in order.parameters.iter().take(PARAMETERS_MAX) {
            variables.push((format!("QUIESCE_PARAMETER_{}", variable_name(name)), value.replace('\0', "")));
        }
        variables.extend(order.trace.iter().flat_map(TraceContext::variables));
        info!(epoch = run.record.epoch, command = %line, "telling the application to stop");
        let helper = self
            .host()
            .commands
            .run(line, &variables, None)
            .map_err(|error| format!("cannot execute {line}: {error}"))?;
        // A command of an earlier attempt that still runs is ended by this.
        self.stop_command = Some(Box::pin(report(helper, line.clone())));
        Ok(())
    }

    /// Goes on with a stop that an earlier life of this agent began: what was told is not told again, what comes later
    /// in the ladder comes after a whole wait from now.
    pub(super) fn resume_stop(&mut self) {
        self.plan_rung();
        self.plan_rest();
    }

    /// When the next signal of the ladder is due.
    pub(super) fn plan_rung(&mut self) {
        let Some(ladder) = self.config.stop.ladder() else { return };
        let Some(run) = &mut self.run else { return };
        let wait = run.record.told.as_ref().and_then(|told| match told.script {
            Some(Script::Asked) => None,
            Some(Script::Reported) => Some(REPORT_PATIENCE),
            Some(Script::Signalled) | None => ladder.rungs().get(told.rung)?.wait,
        });
        run.rung_at = wait.map(|wait| Instant::now() + wait);
    }

    /// When the leader is gone: the others are told too, after a while.
    pub(super) fn plan_rest(&mut self) {
        if self.config.stop.ladder().is_none() {
            return;
        }
        let Some(run) = &mut self.run else { return };
        let untold = run.record.told.as_ref().is_some_and(Told::owes_the_rest);
        if untold && !run.leader_lives() && !run.is_killing && run.rest_at.is_none() {
            run.rest_at = Some(Instant::now() + REST_PATIENCE);
        }
    }

    pub(super) async fn on_stop_deadline(&mut self, now: Instant) {
        let Some(ladder) = self.config.stop.ladder() else { return };
        let Some(run) = &mut self.run else { return };
        let Some(told) = run.record.told.clone() else { return };
        let rest_is_due = run.rest_at.is_some_and(|at| at <= now);
        if rest_is_due {
            run.rest_at = None;
        }
        if run.rung_at.is_some_and(|at| at <= now) {
            // An application that asked for more time is left alone for it.
            let patience = self.present.extend_until.map(Instant::from_std).filter(|until| *until > now);
            run.rung_at = patience;
            let next = told.next_rung().filter(|rung| patience.is_none() && *rung < ladder.rungs().len());
            if let Some(rung) = next {
                let (rest, script) = (!run.leader_lives(), told.script.map(|_| Script::Signalled));
                return self.step(Told { rung, rest, script, ..told }, ladder.rungs()[rung].signal).await;
            }
        }
        if rest_is_due && told.owes_the_rest() {
            let signal = ladder.rungs()[told.rung.min(ladder.rungs().len() - 1)].signal;
            self.step(Told { rest: true, ..told }, signal).await;
        }
    }

    async fn step(&mut self, told: Told, signal: Signal) {
        if let Err(error) = self.record(|record| record.told = Some(told)).await {
            warn!(error = &error as &dyn std::error::Error, "cannot record the next signal, so it was not sent");
            self.plan_rung();
            let Some(run) = &mut self.run else { return };
            run.rung_at = run.rung_at.map(|at| at.max(Instant::now() + RETRY_PAUSE));
            return;
        }
        if let Err(reason) = self.tell(signal) {
            warn!(%reason, "cannot send the next signal");
        }
        self.plan_rung();
    }
}

async fn report(helper: HelperEnd, line: CommandLine) -> String {
    match helper.await.transpose() {
        Some(Ok(exit)) if exit.code == Some(0) => format!("the stop command {line} has returned"),
        Some(Ok(exit)) => format!("the stop command {line} failed: it {}", super::run::describe(Some(exit))),
        Some(Err(error)) => not_watched(&line, &error),
        None => format!("the stop command {line} was given up"),
    }
}

fn not_watched(line: &CommandLine, error: &std::io::Error) -> String {
    warn!(command = %line, %error, "cannot watch the stop command");
    format!("the stop command {line} cannot be watched: {error}")
}

/// `max-connections` becomes `MAX_CONNECTIONS`.
fn variable_name(parameter: &str) -> String {
    let upper = |character: char| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' };
    parameter.chars().map(upper).collect()
}
