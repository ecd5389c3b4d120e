//! An application's own script that speaks Krake's shutdown interface: asked instead of a signal, heard, not believed.
//!
//! ```text
//! asked -> reported -> [a second] -> signalled -> the processes end
//! ```
//!
//! Owns what connects us with the script, and what its report means. It means that the careful part is over: what still
//! lives is told to end, as Krake deleted the pod then. It never means that the application has ended; that is seen from
//! its processes, as always. Without a report nobody is signalled.

use std::future::pending;

use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;
use quiesce_runtime::telemetry::chain;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{StopMethod, check, keeper::Keeper};
use crate::application::{Findings, StartError};
use crate::delegate::callback::{self, Callback, Reception, ScriptReport};
use crate::delegate::{StopUrl, ask};
use crate::journal::{Script, Told};

/// What connects the keeper with the application's script.
pub(super) struct ScriptSide {
    url: StopUrl,
    tasks: Tasks,
    /// The request under way or answered: what there is to say about it.
    asked: Option<watch::Receiver<String>>,
    /// What the script reports; open while a run lives.
    reports: Option<mpsc::Receiver<ScriptReport>>,
    /// Why a run that was found again cannot report.
    deaf: Option<String>,
}

/// What came from the script.
pub(super) enum Heard {
    /// There is something else to say about the request.
    News,
    Report(ScriptReport),
}

impl ScriptSide {
    pub(super) fn new(stop: &StopMethod, tasks: &Tasks) -> Option<Self> {
        let StopMethod::Script(url) = stop else { return None };
        Some(Self { url: url.clone(), tasks: tasks.clone(), asked: None, reports: None, deaf: None })
    }

    /// Opens a way back for an application that is about to be started; with it, what the application finds in its
    /// environment.
    pub(super) async fn open(
        &mut self,
        machine: &Machine,
        application: &str,
    ) -> Result<(Callback, [(&'static str, String); 2]), StartError> {
        let opened = callback::open(machine, application).await.map_err(StartError::Deaf)?;
        let (callback, variables) = (opened.callback.clone(), opened.variables.clone());
        self.close();
        self.reports = Some(opened.serve(&self.tasks));
        Ok((callback, variables))
    }

    /// Listens where a run that was found again was told to report, unless we do.
    async fn reopen(&mut self, machine: &Machine, callback: Option<&Callback>) {
        if self.reports.is_some() {
            return;
        }
        let Some(callback) = callback else {
            self.deaf = Some("the application was started without KRAKE_SHUTDOWN_URL".to_owned());
            return;
        };
        match callback.reopen(machine, &self.tasks).await {
            Ok(reports) => {
                self.reports = Some(reports);
                self.deaf = None;
            }
            Err(error) => self.deaf = Some(format!("cannot listen on {} again ({error})", callback.address())),
        }
    }

    /// The run is over, and with it the connections of its script.
    pub(super) fn close(&mut self) {
        (self.asked, self.reports, self.deaf) = (None, None, None);
    }

    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Heard {
        let Self { asked, reports, .. } = self;
        let news = async {
            match asked {
                Some(asked) => {
                    // A request that is over leaves its last words behind.
                    if asked.changed().await.is_err() {
                        pending::<()>().await;
                    }
                }
                None => pending().await,
            }
        };
        let report = async {
            match reports {
                Some(reports) => match reports.recv().await {
                    Some(report) => report,
                    None => pending().await,
                },
                None => pending().await,
            }
        };
        select! {
            biased;
            () = news => Heard::News,
            report = report => Heard::Report(report),
        }
    }

    /// What a person should know about it.
    pub(super) fn describe(&self, told: &Told) -> Option<String> {
        match told.script? {
            Script::Asked => {
                let asked =
                    self.asked.as_ref().map_or_else(|| format!("asked {}", self.url), |asked| asked.borrow().clone());
                Some(match &self.deaf {
                    None => format!("{asked}; waiting for the application's script to report that it is done"),
                    Some(why) => {
                        format!("{asked}; its report cannot be heard: {why}; waiting for the processes to end")
                    }
                })
            }
            Script::Reported | Script::Signalled => {
                Some("the application's script reports that it is done; waiting for its processes to end".to_owned())
            }
        }
    }
}

impl Keeper {
    /// Lets the script of a run that was found again be heard.
    pub(super) async fn hear_script_again(&mut self) {
        let machine = self.host().machine.clone();
        let (Some(script), Some(run)) = (&mut self.script, &self.run) else { return };
        script.reopen(&machine, run.record.callback.as_ref()).await;
        if let Some(why) = &script.deaf {
            warn!(%why, "the report of the application's script cannot be heard; its end is verified all the same");
        }
    }

    /// Looks whether the script could be asked and heard, and tells it nothing.
    pub(super) async fn check_script(&mut self, findings: &mut Findings) {
        if self.run.is_none() {
            return;
        }
        self.hear_script_again().await;
        let network = self.host().machine.network.clone();
        let Some(script) = &self.script else { return };
        let reached = script.url.connect(&*network).await;
        let reached = reached.map(drop).map_err(|error| chain(&error).to_string());
        check::check_script(findings, reached, script.deaf.as_deref());
    }

    /// Asks the script to stop the application. Fails when it was not reached.
    pub(super) async fn ask_script(&mut self) -> Result<(), String> {
        self.hear_script_again().await;
        let network = self.host().machine.network.clone();
        let (Some(script), Some(run)) = (&mut self.script, &self.run) else { return Ok(()) };
        info!(epoch = run.record.epoch, url = %script.url, "asking the application's script to stop it");
        let pending = script.url.connect(&*network).await.map_err(|error| chain(&error).to_string())?;
        // The request of an earlier attempt is given up by this.
        let (said, asked) = watch::channel(format!("asked {}, which has not answered yet", script.url));
        script.asked = Some(asked);
        script.tasks.spawn("request to the application's script", ask(pending, said));
        Ok(())
    }

    /// The script reports that it is done.
    pub(super) async fn on_report(&mut self, report: ScriptReport) {
        let told = self.run.as_ref().and_then(|run| run.record.told.clone());
        let Some((told, script)) = told.and_then(|told| told.script.map(|script| (told, script))) else {
            info!("the application's script reports that it is done, but nobody has asked it to stop anything");
            return report.answer(Reception::Unasked);
        };
        if script == Script::Asked {
            info!(
                shutdown.id = told.shutdown_id,
                "the application's script reports that it is done; what is left of the application is told to end"
            );
            let told = Some(Told { script: Some(Script::Reported), ..told });
            let reported = told.clone();
            if let Err(error) = self.record(|record| record.told = reported).await {
                // Nobody reports twice. What follows is written down before it is done.
                warn!(error = &error as &dyn std::error::Error, "cannot record the report of the application's script");
                if let Some(run) = &mut self.run {
                    run.record.told = told;
                }
            }
            // It wanted to be left alone for work that is done now.
            self.present.extend_until = None;
            self.plan_rung();
        }
        report.answer(Reception::Counted);
    }
}
