//! The rules of a shutdown (H1 to H17): what follows what, and what is said of it.
//!
//! ```text
//! recording -> [draining] -> committing -> holding -> telling -> waiting -> [settling] -> concluding -> over
//! ```
//!
//! *Committing* writes down that the application is about to be told: from there on it is the point of no return, and a
//! program that starts anew goes on from there. Nothing here kills on its own account: a grace period that is over is
//! said, and nothing else (H12).

use std::sync::Arc;
use std::time::Duration;

use futures::future::abortable;
use quiesce_runtime::clock::Clock as _;
use quiesce_runtime::telemetry::chain;
use tokio::sync::watch;
use tokio::time::Instant;

use quiesce_mutation::{Mutant, active};

use super::DrainOrder;
use super::chronicle::of_shutdown;
use super::engine::{Done, Engine, Reply, ended, since};
use super::order::ShutdownOrder;
use super::record::RecordError;
use super::refusal::Refusal;
use super::report::{Outcome, Phase, Progress, Report, Snapshot, Verdict};
use super::shutdown::{Kill, Recorded, Shutdown, Stage, message, verdict};
use crate::application::{AppStatus, End, Evidence, HoldError, KillError, StopError, StopOrder};
use crate::token::Token;

/// Pause after a record that could not be written: short beside the `accept_timeout` within which the scheduler wants to
/// hear of a shutdown, 10 s unless told otherwise, and long beside a failing write.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes up what an earlier program left.
    pub(super) fn resume(&mut self) {
        let Some(record) = self.record.shutdown.clone() else { return };
        let mut shutdown = Shutdown::from_record(record);
        if self.options.drain.is_some() {
            // Draining is not recorded, but it may have been reported, and phases do not go back (H5).
            shutdown.phase = shutdown.phase.max(Phase::Draining);
        }
        let over = shutdown.is_over();
        if !over {
            let (identity, phase) = (&self.options.identity, shutdown.phase.as_str());
            of_shutdown!(info, identity, shutdown, phase, "taking up a shutdown that an earlier agent began");
        }
        self.generation += 1;
        self.shutdown = Some(shutdown);
        if !over {
            self.take_up();
        }
    }

    /// Writes down that the next program goes on, so that no two of them say the same. Until then nothing is said.
    pub(super) fn take_up(&mut self) {
        if self.shutdown.as_ref().is_some_and(|shutdown| matches!(shutdown.stage, Stage::Recording)) {
            self.record_shutdown(Recorded::Acceptance, None);
        }
    }

    /// H1: a known id is joined, whatever else the request says. Who joins hears how it stands by a report of its own:
    /// the one before may have been read on another call, and `sequence` rises across calls (H4).
    pub(super) fn join(&mut self, shutdown_id: &str, token: Option<&Token>) -> Option<watch::Receiver<Progress>> {
        let shutdown = self.shutdown.as_mut().filter(|shutdown| shutdown.id() == shutdown_id)?;
        shutdown.learn(token);
        shutdown.said = None;
        let reports = shutdown.reports.subscribe();
        let status = self.status.borrow().clone();
        self.publish(&status);
        Some(reports)
    }

    pub(super) fn accept(&mut self, order: ShutdownOrder) -> Result<watch::Receiver<Progress>, Refusal> {
        if let Some(reports) = self.join(&order.shutdown_id, order.token.as_ref()) {
            return Ok(reports);
        }
        if self.leaving {
            return Err(Refusal::NotServing { reason: "the agent is ending".to_owned() });
        }
        let status = self.status.borrow().clone();
        if order.epoch != 0 && order.epoch < status.epoch {
            return Err(Refusal::EpochStale { asked: order.epoch, in_force: status.epoch });
        }
        if let Some(running) = self.shutdown.as_mut().filter(|shutdown| !shutdown.is_over()) {
            if !running.yields_to(&order) {
                return Err(Refusal::InProgress { shutdown_id: running.id().to_owned() });
            }
            of_shutdown!(info, self.options.identity, running, by = order.shutdown_id, "a later attempt takes over");
            if let Stage::Draining(drain) = &running.stage {
                drain.abort();
            }
            running.reports.send_replace(Progress::Refused(Refusal::Superseded { by: order.shutdown_id.clone() }));
        }
        self.generation += 1;
        let ran = !ended(&status) || self.start.as_ref().is_some_and(|start| start.is_spawning());
        let epoch_before = self.record.epoch;
        // H15: from here on nothing starts under this epoch any more.
        self.record.epoch = order.epoch.max(self.highest_epoch());
        let mut shutdown = Shutdown::new(order, self.clock.now(), ran);
        shutdown.epoch_before = epoch_before;
        shutdown.before = status.said;
        of_shutdown!(
            info,
            self.options.identity,
            shutdown,
            phase = shutdown.phase.as_str(),
            kind = shutdown.order.kind.as_str(),
            grace = shutdown.grace.map(tracing::field::debug),
            reason = shutdown.order.reason,
            "shutdown accepted"
        );
        let reports = shutdown.reports.subscribe();
        self.shutdown = Some(shutdown);
        self.record_shutdown(Recorded::Acceptance, None);
        Ok(reports)
    }

    pub(super) fn get(&self, shutdown_id: &str) -> Result<Snapshot, Refusal> {
        self.shutdown
            .as_ref()
            .filter(|shutdown| shutdown_id.is_empty() || shutdown.id() == shutdown_id)
            .and_then(Shutdown::snapshot)
            .ok_or_else(|| Refusal::ShutdownNotFound { shutdown_id: shutdown_id.to_owned() })
    }

    pub(super) fn update_deadline(
        &mut self,
        shutdown_id: &str,
        grace: Option<Duration>,
        granted: bool,
    ) -> Result<(), Refusal> {
        let shutdown = self.known(shutdown_id)?;
        if shutdown.is_over() || shutdown.grace == grace {
            return Ok(());
        }
        shutdown.grace = grace;
        shutdown.overdue = false;
        if let Some(shutdown) = &self.shutdown {
            let grace = grace.map(tracing::field::debug);
            of_shutdown!(info, self.options.identity, shutdown, grace, granted, "the deadline has moved");
        }
        Ok(())
    }

    pub(super) fn cancel(&mut self, shutdown_id: &str, reason: &str, reply: Reply<Result<Snapshot, Refusal>>) {
        let cancellable = self.options.drain.is_some();
        let shutdown = match self.known(shutdown_id) {
            Ok(_) if !cancellable => {
                let _gone = reply.send(Err(Refusal::NotImplemented { capability: "CAPABILITY_CANCEL" }));
                return;
            }
            Ok(shutdown) => shutdown,
            Err(refusal) => {
                let _gone = reply.send(Err(refusal));
                return;
            }
        };
        match &shutdown.stage {
            Stage::Over if shutdown.phase == Phase::Cancelled => {
                let snapshot = shutdown.snapshot().ok_or(Refusal::ShutdownNotFound { shutdown_id: String::new() });
                let _gone = reply.send(snapshot);
                return;
            }
            Stage::Concluding(_) if shutdown.phase == Phase::Cancelled => {
                shutdown.cancel_waiters.push(reply);
                return;
            }
            Stage::Draining(drain) => drain.abort(),
            Stage::Recording if shutdown.phase < Phase::Stopping => {}
            Stage::Waiting if active(Mutant::CancelsTooLate) => {}
            Stage::Recording
            | Stage::Committing
            | Stage::Holding
            | Stage::Telling
            | Stage::Waiting
            | Stage::Settling { .. }
            | Stage::Concluding(_)
            | Stage::Over => {
                let _gone = reply.send(Err(Refusal::PointOfNoReturn { shutdown_id: shutdown_id.to_owned() }));
                return;
            }
        }
        shutdown.cancel_waiters.push(reply);
        if let Some(shutdown) = &self.shutdown {
            of_shutdown!(info, self.options.identity, shutdown, reason, "shutdown taken back, the application runs on");
        }
        self.conclude_shutdown(Outcome::Cancelled, None, "taken back before the application was told to stop");
    }

    pub(super) fn kill(
        &mut self,
        shutdown_id: &str,
        token: &str,
        reason: &str,
        reply: Reply<Result<Snapshot, Refusal>>,
    ) {
        let can_kill = self.app.capabilities().kill;
        let refusal = match self.known(shutdown_id) {
            Err(refusal) => Some(refusal),
            Ok(shutdown) if !shutdown.is_token(token) => Some(Refusal::TokenInvalid),
            Ok(_) if !can_kill => Some(Refusal::NotImplemented { capability: "CAPABILITY_KILL" }),
            Ok(_) => None,
        };
        if let Some(refusal) = refusal {
            let _gone = reply.send(Err(refusal));
            return;
        }
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        if shutdown.is_over() || matches!(shutdown.stage, Stage::Concluding(_)) || shutdown.kill == Kill::Sent {
            let snapshot = shutdown.snapshot();
            let unknown = || Refusal::ShutdownNotFound { shutdown_id: shutdown_id.to_owned() };
            let _gone = reply.send(snapshot.ok_or_else(unknown));
            return;
        }
        shutdown.kill_waiters.push(reply);
        if shutdown.kill != Kill::No {
            return;
        }
        of_shutdown!(warn, self.options.identity, shutdown, reason, "told to kill the application");
        shutdown.kill = Kill::Wanted;
        match &shutdown.stage {
            Stage::Draining(drain) => {
                drain.abort();
                self.commit();
            }
            // The hold comes first (H16): it goes on with the kill when that is durable.
            Stage::Recording | Stage::Committing | Stage::Holding => {}
            Stage::Telling | Stage::Waiting | Stage::Settling { .. } => self.kill_now(),
            Stage::Concluding(_) | Stage::Over => {}
        }
    }

    pub(super) fn on_recorded(&mut self, what: Recorded, result: Result<(), RecordError>) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        match (what, result) {
            // It was accepted long ago. To forget it would be to accept it anew, with all of its time and reports that
            // begin at 1.
            (Recorded::Acceptance, Err(error)) if shutdown.incarnation > 0 => {
                of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "the shutdown cannot be taken up yet, its record cannot be written");
                let generation = self.generation;
                self.work.push(Box::pin(async move {
                    tokio::time::sleep(RECORD_AGAIN).await;
                    Done::Paused { generation }
                }));
            }
            (Recorded::Acceptance, Err(error)) => {
                of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "the shutdown cannot be recorded, so it is refused");
                let reason = "the shutdown cannot be recorded".to_owned();
                shutdown.reports.send_replace(Progress::Refused(Refusal::NotStoppable { reason }));
                self.record.epoch = shutdown.epoch_before;
                self.shutdown = None;
                // Or the next record that is written would let the program after this one take up what was refused.
                self.record.shutdown = None;
            }
            // Taken back while the record was being written.
            (Recorded::Acceptance, Ok(())) if !matches!(shutdown.stage, Stage::Recording) => {}
            (Recorded::Acceptance, Ok(())) => {
                shutdown.durable = true;
                self.go();
            }
            (Recorded::Commitment, Err(error)) => {
                of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "the point of no return cannot be recorded, the application runs on");
                self.conclude_shutdown(
                    Outcome::StillRunning,
                    None,
                    "cannot record that it is about to be told to stop",
                );
            }
            (Recorded::Commitment, Ok(())) => {
                shutdown.phase = shutdown.phase.max(Phase::Stopping);
                let phase = shutdown.phase.as_str();
                of_shutdown!(info, self.options.identity, shutdown, phase, "the point of no return");
                self.hold_or_tell();
            }
            (Recorded::Kill, result) => {
                if let Err(error) = result {
                    // The order to kill stands; a lost record lets a later program report the phase before, once.
                    of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "the order to kill cannot be recorded");
                }
                shutdown.phase = shutdown.phase.max(Phase::Killing);
                let phase = shutdown.phase.as_str();
                of_shutdown!(warn, self.options.identity, shutdown, phase, "killing the application");
                self.send_kill();
            }
            (Recorded::Result, result) => {
                if let Err(error) = result {
                    // The application has ended or not all the same; a lost record costs a repeated look at most.
                    of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "the result of the shutdown cannot be recorded");
                }
                self.publish_result();
            }
        }
    }

    /// Accepted and durable: says so, and begins.
    fn go(&mut self) {
        let status = self.status.borrow().clone();
        self.publish(&status);
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        let drain = self.options.drain.as_ref().filter(|_| {
            shutdown.phase < Phase::Stopping && shutdown.kill == Kill::No && shutdown.ran && !ended(&status)
        });
        let Some(drain) = drain else {
            self.commit();
            return;
        };
        let order = DrainOrder {
            operation: shutdown.order.operation.clone(),
            kind: shutdown.order.kind,
            grace: shutdown.grace,
            parameters: shutdown.order.parameters.clone(),
            trace: shutdown.order.trace.clone(),
        };
        let (work, handle) = abortable(drain(order));
        shutdown.stage = Stage::Draining(handle);
        shutdown.phase = Phase::Draining;
        let phase = shutdown.phase.as_str();
        of_shutdown!(info, self.options.identity, shutdown, phase, "draining, the shutdown can still be taken back");
        let generation = self.generation;
        self.work.push(Box::pin(async move {
            match work.await {
                Ok(result) => Done::Drained { generation, result },
                Err(_aborted) => Done::Nothing,
            }
        }));
    }

    pub(super) fn on_drained(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.commit(),
            Err(reason) => {
                if let Some(shutdown) = &self.shutdown {
                    of_shutdown!(
                        warn,
                        self.options.identity,
                        shutdown,
                        reason,
                        "draining failed, the application runs on"
                    );
                }
                self.conclude_shutdown(Outcome::StillRunning, None, &format!("draining failed: {reason}"));
            }
        }
    }

    /// The point of no return: written down before anything is done about it.
    fn commit(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        shutdown.stage = Stage::Committing;
        self.record_shutdown(Recorded::Commitment, None);
    }

    /// H16: held before told.
    fn hold_or_tell(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        if !self.app.capabilities().hold {
            self.tell();
            return;
        }
        shutdown.stage = Stage::Holding;
        let (operation, kind, epoch) = (shutdown.order.operation.clone(), shutdown.order.kind, shutdown.order.epoch);
        let order = self.hold_order(&operation, kind, epoch);
        let (app, generation) = (Arc::clone(&self.app), self.generation);
        self.work.push(Box::pin(async move { Done::Held { generation, result: app.hold(order).await } }));
    }

    pub(super) fn on_held(&mut self, result: Result<(), HoldError>) {
        match result {
            Ok(()) => {
                if let Some(shutdown) = &self.shutdown {
                    let (identity, text) = (&self.options.identity, "held: nothing starts the application from now on");
                    of_shutdown!(info, identity, shutdown, "{text}");
                }
                self.tell();
            }
            Err(HoldError::Ended) => {}
            Err(error @ (HoldError::Unsupported | HoldError::NotDurable(_))) => {
                if let Some(shutdown) = &self.shutdown {
                    let (identity, error) = (&self.options.identity, chain(&error));
                    of_shutdown!(error, identity, shutdown, %error, "the hold cannot be made durable, the application runs on");
                }
                self.conclude_shutdown(Outcome::StillRunning, None, &chain(&error).to_string());
            }
        }
    }

    fn tell(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        if shutdown.kill == Kill::Wanted {
            self.kill_now();
            return;
        }
        if self.told_locally {
            of_shutdown!(info, self.options.identity, shutdown, "the application was told to stop already");
            shutdown.stage = Stage::Waiting;
            return;
        }
        shutdown.stage = Stage::Telling;
        of_shutdown!(info, self.options.identity, shutdown, "telling the application to stop");
        let order = StopOrder {
            shutdown_id: shutdown.order.shutdown_id.clone(),
            grace: shutdown.grace,
            parameters: shutdown.order.parameters.clone(),
            trace: shutdown.order.trace.clone(),
        };
        let (app, generation) = (Arc::clone(&self.app), self.generation);
        self.work.push(Box::pin(async move { Done::Told { generation, result: app.stop(order).await } }));
    }

    pub(super) fn on_told(&mut self, result: Result<(), StopError>) {
        let over = ended(&self.status.borrow());
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        if !matches!(shutdown.stage, Stage::Telling) {
            return;
        }
        match result {
            Err(StopError::Ended) => {}
            Err(error @ (StopError::NotTold { .. } | StopError::NotDurable(_))) if !over => {
                of_shutdown!(warn, self.options.identity, shutdown, error = %chain(&error), "the application was not told to stop, it runs on");
                self.conclude_shutdown(Outcome::StillRunning, None, &chain(&error).to_string());
            }
            Ok(()) if active(Mutant::ToldIsStopped) => {
                let status = self.status.borrow().clone();
                self.on_end(&status);
            }
            Ok(()) | Err(_) => shutdown.stage = Stage::Waiting,
        }
    }

    fn kill_now(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        shutdown.stage = Stage::Waiting;
        shutdown.kill = Kill::UnderWay;
        self.record_shutdown(Recorded::Kill, None);
    }

    fn send_kill(&mut self) {
        let (app, generation) = (Arc::clone(&self.app), self.generation);
        self.work.push(Box::pin(async move { Done::Killed { generation, result: app.kill().await } }));
    }

    pub(super) fn on_killed(&mut self, result: Result<(), KillError>) {
        let status = self.status.borrow().clone();
        self.publish(&status);
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        let answer = match result {
            Ok(()) => {
                shutdown.kill = Kill::Sent;
                shutdown.snapshot().ok_or(Refusal::NotServing { reason: "nothing was reported yet".to_owned() })
            }
            Err(KillError::Unsupported) => Err(Refusal::NotImplemented { capability: "CAPABILITY_KILL" }),
            Err(KillError::Ended) => Err(Refusal::NotServing { reason: "the agent is ending".to_owned() }),
            Err(error @ KillError::Refused { .. }) => {
                of_shutdown!(error, self.options.identity, shutdown, error = %chain(&error), "killing failed");
                Err(Refusal::NotStoppable { reason: error.to_string() })
            }
        };
        if answer.is_err() {
            // The next call tries again.
            shutdown.kill = Kill::No;
        }
        for waiter in shutdown.kill_waiters.drain(..) {
            let _gone = waiter.send(answer.clone());
        }
    }

    /// Looks at the application and the clock, and says what there is to say.
    pub(super) fn advance_shutdown(&mut self, status: &AppStatus) {
        let spawning = self.start.as_ref().is_some_and(|start| start.is_spawning());
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        match &shutdown.stage {
            Stage::Draining(drain) if ended(status) => {
                drain.abort();
                let text = "the application ended by itself while it was being drained";
                of_shutdown!(info, self.options.identity, shutdown, "{text}");
                self.commit();
            }
            // A start under way has the word first: what it starts has to be stopped.
            Stage::Waiting if ended(status) && !spawning => self.on_end(status),
            Stage::Settling { verdict, .. } if !ended(status) => {
                let verdict = (**verdict).clone();
                of_shutdown!(warn, self.options.identity, shutdown, "something started the application again");
                let text = "it ended, but something started it again";
                self.conclude_with(Verdict { outcome: Outcome::Restarted, message: text.to_owned(), ..verdict });
            }
            Stage::Settling { until, verdict } if *until <= Instant::now() => {
                let verdict = (**verdict).clone();
                self.conclude_with(verdict);
            }
            Stage::Recording
            | Stage::Draining(_)
            | Stage::Committing
            | Stage::Holding
            | Stage::Telling
            | Stage::Waiting
            | Stage::Settling { .. }
            | Stage::Concluding(_)
            | Stage::Over => {}
        }
        self.publish(status);
        self.notice_overdue();
    }

    /// The application has ended: verdict, and settling if that was asked for.
    fn on_end(&mut self, status: &AppStatus) {
        let settles = self.app.capabilities().settle;
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        let end = status.end.as_ref();
        let killed = end.is_some_and(|end| end.killed);
        let outcome = match (shutdown.ran, killed) {
            (false, _) => Outcome::NotRunning,
            (true, true) => Outcome::Killed,
            (true, false) => Outcome::Stopped,
        };
        let verdict = Verdict {
            duration: since(&self.clock, shutdown.accepted_ms),
            held: status.hold.is_some(),
            ..verdict(outcome, end)
        };
        of_shutdown!(
            info,
            self.options.identity,
            shutdown,
            outcome = verdict.outcome.as_str(),
            evidence = verdict.evidence.map(Evidence::as_str),
            exit_code = verdict.exit_code,
            exit_signal = verdict.exit_signal,
            held = verdict.held,
            "the application has ended"
        );
        match shutdown.order.settle {
            Some(settle) if settles && outcome != Outcome::NotRunning => {
                let until = Instant::now() + settle;
                shutdown.stage = Stage::Settling { until, verdict: Box::new(verdict) };
            }
            _ => self.conclude_with(verdict),
        }
    }

    fn conclude_shutdown(&mut self, outcome: Outcome, end: Option<&End>, message: &str) {
        let duration = self.shutdown.as_ref().map_or(Duration::ZERO, |s| since(&self.clock, s.accepted_ms));
        let held = self.status.borrow().hold.is_some();
        let evidence = None;
        self.conclude_with(Verdict { duration, held, evidence, message: message.to_owned(), ..verdict(outcome, end) });
    }

    fn conclude_with(&mut self, verdict: Verdict) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        shutdown.phase = verdict.outcome.phase();
        let report = Report {
            shutdown_id: shutdown.order.shutdown_id.clone(),
            sequence: shutdown.next_sequence(),
            phase: shutdown.phase,
            message: verdict.message.clone(),
            time_ms: self.clock.wall_ms(),
            wanted: None,
            verdict: Some(verdict),
        };
        shutdown.stage = Stage::Concluding(Box::new(report.clone()));
        self.record_shutdown(Recorded::Result, Some(report));
    }

    fn publish_result(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        let Stage::Concluding(report) = std::mem::replace(&mut shutdown.stage, Stage::Over) else { return };
        let verdict = report.verdict.as_ref();
        of_shutdown!(
            info,
            self.options.identity,
            shutdown,
            phase = report.phase.as_str(),
            outcome = verdict.map(|verdict| verdict.outcome.as_str()),
            evidence = verdict.and_then(|verdict| verdict.evidence).map(Evidence::as_str),
            exit_code = verdict.and_then(|verdict| verdict.exit_code),
            exit_signal = verdict.and_then(|verdict| verdict.exit_signal),
            held = verdict.map(|verdict| verdict.held),
            detail = report.message,
            "shutdown over"
        );
        let token = shutdown.order.token.clone();
        shutdown.reports.send_replace(Progress::Final((*report).clone(), token.clone()));
        for waiter in shutdown.cancel_waiters.drain(..).chain(shutdown.kill_waiters.drain(..)) {
            let _gone = waiter.send(Ok(((*report).clone(), token.clone())));
        }
    }

    /// Publishes a report when there is news or a heartbeat is due. The result has its own way.
    fn publish(&mut self, status: &AppStatus) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        // Until the acceptance is durable nothing is said.
        if !shutdown.durable || matches!(shutdown.stage, Stage::Over | Stage::Concluding(_)) {
            return;
        }
        let elapsed = since(&self.clock, shutdown.accepted_ms);
        if let Some(until) = status.extend_until {
            let wish = elapsed + until.saturating_duration_since(Instant::now().into_std());
            // Within the grace period there is nothing to ask for. Whole seconds, so that a wish repeated does not grow
            // by the time it took to arrive.
            let total = Duration::from_secs(wish.as_secs() + 1);
            if shutdown.grace.is_some_and(|grace| total > grace) {
                shutdown.wanted = shutdown.wanted.max(Some(total));
            }
        }
        let news = (shutdown.phase, message(shutdown, status), shutdown.wanted);
        let now = Instant::now();
        if shutdown.said.as_ref() == Some(&news) && now < shutdown.next_report {
            return;
        }
        let (phase, text, wanted) = news.clone();
        shutdown.said = Some(news);
        // A little before the heartbeat is due, so that it is in time when it arrives.
        shutdown.next_report = now + shutdown.order.heartbeat.mul_f32(0.8);
        let report = Report {
            shutdown_id: shutdown.order.shutdown_id.clone(),
            sequence: shutdown.next_sequence(),
            phase,
            message: text,
            time_ms: self.clock.wall_ms(),
            wanted,
            verdict: None,
        };
        shutdown.reports.send_replace(Progress::Live(report));
    }

    /// H12: says that the grace period is over, and does nothing about it.
    fn notice_overdue(&mut self) {
        let Some(shutdown) = self.shutdown.as_mut() else { return };
        let over = shutdown.grace.is_some_and(|grace| since(&self.clock, shutdown.accepted_ms) > grace);
        if over && !shutdown.overdue && !shutdown.is_over() {
            shutdown.overdue = true;
            of_shutdown!(
                warn,
                self.options.identity,
                shutdown,
                grace = shutdown.grace.map(tracing::field::debug),
                "the grace period is over and the application still runs; watching on, the scheduler decides"
            );
        }
    }

    fn known(&mut self, shutdown_id: &str) -> Result<&mut Shutdown, Refusal> {
        self.shutdown
            .as_mut()
            .filter(|shutdown| shutdown.id() == shutdown_id)
            .ok_or_else(|| Refusal::ShutdownNotFound { shutdown_id: shutdown_id.to_owned() })
    }

    fn record_shutdown(&mut self, what: Recorded, last: Option<Report>) {
        let Some(shutdown) = &self.shutdown else { return };
        self.record.shutdown = Some(shutdown.to_record(last));
        let generation = self.generation;
        self.save(move |result| Done::Recorded { generation, what, result });
    }
}
