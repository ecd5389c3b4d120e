//! What must never happen to applications, checked in the moment in which it would happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::story::Story;

/// Watches over all processes of a run. Clones are the same judge.
#[derive(Clone)]
pub(super) struct Judge {
    story: Story,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// (application, cluster, instance) of every live process.
    live: BTreeSet<(String, String, String)>,
    /// The highest epoch any process of an application has run under, by application and cluster.
    epochs: BTreeMap<String, BTreeMap<String, u64>>,
    /// How often each shutdown told its process to stop.
    told: BTreeMap<String, u32>,
}

impl Judge {
    pub(super) fn new(story: &Story) -> Self {
        Self { story: story.clone(), state: Arc::default() }
    }

    /// A process begins to run.
    pub(super) fn started(&self, application: &str, cluster: &str, instance: &str, epoch: u64) {
        let mut state = self.state();
        for (_, other, name) in state.live.iter().filter(|(app, at, _)| app == application && at != cluster) {
            let what = format!("{application} starts on {cluster} ({instance}) while {name} runs on {other}");
            self.story.violated("I2 one live copy", what);
        }
        if !state.live.insert((application.to_owned(), cluster.to_owned(), instance.to_owned())) {
            self.story.violated("I2 one live copy", format!("{application}/{instance} was started twice"));
        }
        let epochs = state.epochs.entry(application.to_owned()).or_default();
        for (other, highest) in epochs.iter().filter(|(at, highest)| *at != cluster && **highest >= epoch) {
            let what = format!("{application} starts on {cluster} under epoch {epoch}, {other} had {highest}");
            self.story.violated("I2 epochs rise", what);
        }
        let highest = epochs.entry(cluster.to_owned()).or_default();
        *highest = epoch.max(*highest);
    }

    /// A process has ended.
    pub(super) fn ended(&self, application: &str, cluster: &str, instance: &str) {
        self.state().live.remove(&(application.to_owned(), cluster.to_owned(), instance.to_owned()));
    }

    /// A process was told to stop.
    pub(super) fn told(&self, shutdown_id: &str) {
        let times = {
            let mut state = self.state();
            let times = state.told.entry(shutdown_id.to_owned()).or_default();
            *times += 1;
            *times
        };
        if times > 1 {
            self.story.violated("I3 told once", format!("{shutdown_id} told its process {times} times"));
        }
    }

    /// How many shutdowns of an operation told the instance `name` to stop.
    pub(super) fn attempts_told(&self, operation: &str, instance: &str) -> usize {
        let (prefix, suffix) = (format!("{operation}."), format!(".{instance}"));
        self.state().told.keys().filter(|id| id.starts_with(&prefix) && id.ends_with(&suffix)).count()
    }

    /// Where processes of an application live.
    pub(super) fn live(&self, application: &str) -> Vec<(String, String)> {
        let state = self.state();
        let of_it = state.live.iter().filter(|(app, ..)| app == application);
        of_it.map(|(_, cluster, instance)| (cluster.clone(), instance.clone())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
