//! A hook and its application, as rules H1 to H17 of the contract want them: durable, honest about epochs, but free to be
//! slow, deaf, unkillable or unable to come up. It knows the truth the machine has to find out.

use std::collections::BTreeMap;
use std::time::Duration;

use quiesce_operation::InstanceId;
use quiesce_operation::report::{
    AppState, CallError, CallErrorClass, Capabilities, Evidence, Probe, Readiness, StartPhase, StartReport,
    StartResult, StopOutcome, StopPhase, StopReport, StopResult,
};

pub(crate) const ALL: Capabilities = Capabilities {
    check: true,
    status: true,
    cancel: true,
    update_deadline: true,
    kill: true,
    settle: true,
    durable: true,
    start: true,
    hold: true,
    conclude: true,
};

/// What an application does when it is told to stop, to start, or killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Temper {
    /// Ticks from SIGTERM to the end; none: it ignores SIGTERM.
    pub(crate) ends_after: Option<u8>,
    /// The hook gives up on a deaf application instead of watching on.
    pub(crate) gives_up: bool,
    /// The hook claims the end without having seen it.
    pub(crate) claims: bool,
    /// SIGKILL does not help.
    pub(crate) unkillable: bool,
    /// Whether a start leads to readiness; none: it hangs.
    pub(crate) comes_up: Option<bool>,
    /// The agent forgets its shutdowns when it restarts.
    pub(crate) forgetful: bool,
    /// It asks for this much time in all.
    pub(crate) wants: Option<Duration>,
}

/// A report of a shutdown, and its fence.
pub(crate) type Stop = (u32, StopReport);
/// A report of a start, and its epoch.
pub(crate) type Started = (u64, StartReport);

#[derive(Debug, Clone)]
struct Shutdown {
    attempt: u32,
    report: StopReport,
    ticks: u8,
}

#[derive(Debug, Clone)]
struct Start {
    epoch: u64,
    report: StartReport,
}

#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) instance: InstanceId,
    pub(crate) target: bool,
    pub(crate) temper: Temper,
    /// Whether a process of the application exists.
    pub(crate) alive: bool,
    /// Whether calls reach it.
    pub(crate) reachable: bool,
    /// Stop signals by attempt.
    pub(crate) signals: BTreeMap<u32, u32>,
    /// Attempts whose reports have a stream to go to.
    pub(crate) stop_stream: Option<u32>,
    pub(crate) start_stream: Option<u64>,
    epoch: u64,
    shutdown: Option<Shutdown>,
    start: Option<Start>,
}

pub(crate) fn error(class: CallErrorClass) -> CallError {
    CallError { class, grpc_code: "X".to_owned(), message: format!("{class:?}") }
}

fn stop_report(sequence: u32, phase: StopPhase) -> StopReport {
    StopReport {
        sequence,
        phase,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period: None,
        result: None,
    }
}

impl Shutdown {
    fn moves(&mut self, phase: StopPhase) {
        self.report.sequence += 1;
        self.report.phase = phase;
    }

    fn ends(&mut self, phase: StopPhase, outcome: StopOutcome, evidence: Evidence) {
        self.moves(phase);
        self.report.result = Some(StopResult {
            outcome,
            evidence,
            exit_code: Some(0),
            exit_signal: None,
            clean: Some(true),
            duration: None,
            message: String::new(),
            held: true,
        });
    }

    fn is_open(&self) -> bool {
        self.report.result.is_none()
    }
}

impl Hook {
    pub(crate) fn new(instance: InstanceId, target: bool, temper: Temper) -> Self {
        Self {
            instance,
            target,
            temper,
            alive: !target,
            reachable: true,
            signals: BTreeMap::new(),
            stop_stream: None,
            start_stream: None,
            epoch: if target { 0 } else { 7 },
            shutdown: None,
            start: None,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: !self.temper.forgetful, ..ALL }
    }

    pub(crate) fn probe(&self) -> Probe {
        let app_state = if self.alive { AppState::Running } else { AppState::Held };
        Probe {
            capabilities: self.capabilities(),
            ready: true,
            findings: Vec::new(),
            app_state,
            epoch: self.epoch,
            cannot_start: String::new(),
        }
    }

    /// Shutdown: joins, takes over, or refuses; the report that comes at once.
    pub(crate) fn shutdown(&mut self, attempt: u32, epoch: u64) -> Result<StopReport, CallError> {
        match &self.shutdown {
            Some(known) if known.attempt == attempt => {}
            Some(known) if known.attempt > attempt => return Err(error(CallErrorClass::Rejected)),
            Some(_) | None => {
                if epoch < self.epoch && self.alive {
                    return Err(error(CallErrorClass::Rejected));
                }
                self.epoch = self.epoch.max(epoch);
                let mut report = stop_report(1, StopPhase::Accepted);
                report.wanted_grace_period = self.temper.wants;
                let mut fresh = Shutdown { attempt, report, ticks: 0 };
                if !self.alive {
                    fresh.ends(StopPhase::Stopped, StopOutcome::NotRunning, Evidence::GroupEmpty);
                }
                self.shutdown = Some(fresh);
            }
        }
        let known = self.shutdown.as_ref().expect("just made or known");
        self.stop_stream = known.is_open().then_some(attempt);
        Ok(known.report.clone())
    }

    pub(crate) fn cancel(&mut self, attempt: u32) -> Result<(), CallError> {
        match &mut self.shutdown {
            Some(known) if known.attempt == attempt => match known.report.phase {
                StopPhase::Accepted | StopPhase::Draining => {
                    known.ends(StopPhase::Cancelled, StopOutcome::Cancelled, Evidence::Claimed);
                    Ok(())
                }
                StopPhase::Cancelled => Ok(()),
                StopPhase::Stopping | StopPhase::Killing | StopPhase::Stopped | StopPhase::Failed => {
                    Err(error(CallErrorClass::PointOfNoReturn))
                }
            },
            Some(_) | None => Err(error(CallErrorClass::NotFound)),
        }
    }

    pub(crate) fn kill(&mut self, attempt: u32) -> Result<(), CallError> {
        match &mut self.shutdown {
            Some(known) if known.attempt == attempt => {
                if known.is_open() && !self.temper.unkillable {
                    self.alive = false;
                    known.ends(StopPhase::Stopped, StopOutcome::Killed, Evidence::GroupEmpty);
                } else if known.is_open() {
                    known.moves(StopPhase::Killing);
                }
                Ok(())
            }
            Some(_) | None => Err(error(CallErrorClass::NotFound)),
        }
    }

    /// StartApplication: only with an epoch higher than any seen, and never while a process is left.
    pub(crate) fn start(&mut self, epoch: u64) -> Result<StartReport, CallError> {
        match &self.start {
            Some(known) if known.epoch == epoch => {}
            Some(_) | None => {
                if epoch <= self.epoch || self.alive {
                    return Err(error(CallErrorClass::Rejected));
                }
                self.epoch = epoch;
                self.alive = true;
                let report = StartReport {
                    sequence: 1,
                    phase: StartPhase::Starting,
                    message: String::new(),
                    report_time: None,
                    result: None,
                };
                self.start = Some(Start { epoch, report });
            }
        }
        self.start_stream = Some(epoch);
        Ok(self.start.as_ref().expect("just made or known").report.clone())
    }

    /// The application and its hook do a little; what is new to report.
    pub(crate) fn tick(&mut self) -> (Option<Stop>, Option<Started>) {
        let temper = self.temper;
        let mut stop = None;
        if let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| shutdown.is_open()) {
            match shutdown.report.phase {
                StopPhase::Accepted => shutdown.moves(StopPhase::Draining),
                StopPhase::Draining => {
                    *self.signals.entry(shutdown.attempt).or_default() += 1;
                    shutdown.moves(StopPhase::Stopping);
                }
                StopPhase::Stopping | StopPhase::Killing => {
                    shutdown.ticks = shutdown.ticks.saturating_add(1);
                    let phase = shutdown.report.phase;
                    if !self.alive || temper.ends_after.is_some_and(|after| after < shutdown.ticks) {
                        self.alive = false;
                        shutdown.ends(StopPhase::Stopped, StopOutcome::Stopped, Evidence::GroupEmpty);
                    } else if temper.claims {
                        shutdown.ends(StopPhase::Stopped, StopOutcome::Stopped, Evidence::Claimed);
                    } else if temper.gives_up {
                        shutdown.ends(StopPhase::Failed, StopOutcome::StillRunning, Evidence::ProcessGone);
                    } else {
                        shutdown.moves(phase);
                    }
                }
                StopPhase::Stopped | StopPhase::Failed | StopPhase::Cancelled => {}
            }
            stop = Some((shutdown.attempt, shutdown.report.clone()));
        }
        let mut started = None;
        if let Some(start) = self.start.as_mut().filter(|start| start.report.result.is_none()) {
            // A shutdown that took over has ended it.
            let outcome = if self.alive { temper.comes_up } else { Some(false) };
            if let Some(ready) = outcome {
                self.alive &= ready;
                start.report.phase = if ready { StartPhase::Ready } else { StartPhase::Failed };
                start.report.result = Some(StartResult {
                    ready,
                    readiness: Readiness::Notified,
                    exit_code: (!ready).then_some(1),
                    exit_signal: None,
                    duration: None,
                    message: String::new(),
                });
            }
            start.report.sequence += 1;
            started = Some((start.epoch, start.report.clone()));
        }
        (stop, started)
    }

    /// The final or latest report, for whoever has just changed it.
    pub(crate) fn latest(&self) -> Option<(u32, StopReport)> {
        self.shutdown.as_ref().map(|shutdown| (shutdown.attempt, shutdown.report.clone()))
    }

    pub(crate) fn restart(&mut self) {
        self.stop_stream = None;
        self.start_stream = None;
        if self.temper.forgetful {
            self.shutdown = None;
        }
    }
}
