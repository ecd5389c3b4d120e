//! The laws about processes: one copy, rising epochs, told once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quiesce_agent::process::Identity;
use quiesce_agent::process::signal::Signal;

use super::{Law, State};
use crate::machine::{Happening, What};

/// Every live process, and what is known of the runs they belong to.
#[derive(Default)]
pub(crate) struct Processes {
    live: BTreeMap<(Arc<str>, Identity), Run>,
    /// The highest epoch that ran on each machine.
    highest: BTreeMap<Arc<str>, u64>,
    /// Epochs up to this one were verified to have ended, by instance: nothing starts under them any more.
    ended: BTreeMap<String, u64>,
    /// Which shutdown each agent wrote down last before telling.
    telling: BTreeMap<String, String>,
    told: BTreeSet<(Arc<str>, Identity, String)>,
    /// Instances somebody has allowed to go on without proof of their end, with the epoch of the permission that was let
    /// pass; 0 where it was used already.
    excused: BTreeMap<String, u64>,
}

struct Run {
    instance: String,
    epoch: u64,
}

/// The cluster of a machine: machines are called `cluster/instance`.
fn cluster(machine: &str) -> &str {
    machine.split('/').next().unwrap_or(machine)
}

impl Processes {
    pub(super) fn about_to_tell(&mut self, machine: &str, shutdown_id: &str) {
        self.telling.insert(machine.to_owned(), shutdown_id.to_owned());
    }

    pub(super) fn live_clusters(&self) -> BTreeSet<String> {
        let unexcused = self.live.iter().filter(|(_, run)| !self.excused.contains_key(&run.instance));
        unexcused.map(|((machine, _), _)| cluster(machine).to_owned()).collect()
    }

    /// Instances with a live process that nobody is excused for.
    pub(super) fn live_instances(&self) -> BTreeSet<&str> {
        let unexcused = self.live.values().filter(|run| !self.excused.contains_key(&run.instance));
        unexcused.map(|run| run.instance.as_str()).collect()
    }

    /// Whether an application was told to stop by this operation.
    pub(super) fn was_told_by(&self, operation: &str) -> bool {
        self.told.iter().any(|(.., shutdown)| shutdown.split('.').next() == Some(operation))
    }

    pub(super) fn excuse(&mut self, instance: &str, permitted: u64) {
        let excused = self.excused.entry(instance.to_owned()).or_default();
        *excused = permitted.max(*excused);
    }

    /// The end of a run was verified.
    pub(super) fn verified(&mut self, instance: &str, epoch: u64) {
        let ended = self.ended.entry(instance.to_owned()).or_default();
        *ended = epoch.max(*ended);
    }
}

pub(super) fn happened(state: &mut State, happening: &Happening) {
    let Happening { machine, instance, epoch, process, what, .. } = happening;
    let slot = (Arc::clone(machine), *process);
    match what {
        What::Started => {
            started(state, happening);
            state.processes.live.insert(slot, Run { instance: instance.clone(), epoch: *epoch });
        }
        What::Forked => {
            state.processes.live.insert(slot, Run { instance: instance.clone(), epoch: *epoch });
        }
        What::Ended(_) => {
            state.processes.live.remove(&slot);
        }
        What::Signalled(Signal::TERM) => {
            let telling = state.processes.telling.get(&**machine).cloned().unwrap_or_default();
            if !state.processes.told.insert((Arc::clone(machine), *process, telling.clone())) {
                state.broken(Law::ToldOnce, format!("{instance} {process} was told twice for {telling:?}"));
            }
        }
        What::Signalled(_) => {}
    }
}

fn started(state: &mut State, happening: &Happening) {
    let Happening { machine, instance, epoch, .. } = happening;
    let processes = &state.processes;
    let here = processes.highest.get(machine).copied().unwrap_or_default();
    if processes.excused.get(instance).is_some_and(|permitted| *epoch <= here.max(*permitted)) {
        // Somebody has let it pass that nobody knew its end; its agent never heard of that, and its permission stands:
        // also one that it had written down and not used yet.
        let highest = state.processes.highest.entry(Arc::clone(machine)).or_default();
        *highest = (*epoch).max(*highest);
        return;
    }
    let mut broken = Vec::new();
    for ((other, process), run) in &processes.live {
        let excused = processes.excused.contains_key(&run.instance);
        if cluster(other) != cluster(machine) && !excused {
            let Run { instance: theirs, epoch: older } = run;
            broken.push((
                Law::OneCopy,
                format!("{instance} is started under epoch {epoch} while {theirs} lives (epoch {older}, {process})"),
            ));
        }
        if run.instance == *instance && other == machine {
            broken.push((Law::OneCopy, format!("{instance} is started twice: {process} of epoch {} lives", run.epoch)));
        }
    }
    let elsewhere = processes.highest.iter().filter(|(other, _)| cluster(other) != cluster(machine));
    let elsewhere = elsewhere.map(|(_, epoch)| *epoch).max().unwrap_or_default();
    if *epoch <= elsewhere || *epoch < here {
        broken.push((
            Law::EpochsRise,
            format!("{instance} is started under epoch {epoch}; {elsewhere} ran elsewhere, {here} here"),
        ));
    }
    let ended = processes.ended.get(instance).copied().unwrap_or_default();
    if *epoch <= ended {
        broken.push((
            Law::EpochsRise,
            format!("{instance} is started under epoch {epoch}, whose end was verified up to {ended}"),
        ));
    }
    for (law, what) in broken {
        state.broken(law, what);
    }
    let highest = state.processes.highest.entry(Arc::clone(machine)).or_default();
    *highest = (*epoch).max(*highest);
    if *epoch > here {
        // It runs by a permission of its own again, and not by one that somebody has let pass.
        state.processes.excused.remove(instance);
    }
}
