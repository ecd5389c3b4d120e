//! One machine, one agent at a time, and everything that happened, held against what may never happen.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use quiesce_agent::args::Settings;
use quiesce_agent::identity::Identity;
use quiesce_agent::process::signal::Signal;
use quiesce_agent::supervise::{Config, StopMethod};
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::start_result::Outcome;
use quiesce_protocol::v1::{
    self, KillApplicationRequest, OperationKind, ShutdownRequest, ShutdownStatus, StartApplicationRequest, StopResult,
    stop_result,
};
use quiesce_simulation::machine::agent::Agent;
use quiesce_simulation::machine::{Happening, Home, Machine, What};
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::straw::Straw;

pub(crate) const INSTANCE: &str = "applications/db/instances/db-0";

const TOKEN: &str = "qct1.c2VjcmV0";

/// Longer than anything in a story, in virtual time.
pub(crate) const PLENTY: Duration = Duration::from_secs(900);

/// One attempt that is lost with a crash, and some to spare.
const ATTEMPTS_MAX: i32 = 4;

/// What an attempt has.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// How often a condition is looked at, in virtual time.
const GLANCE: Duration = Duration::from_millis(20);

pub(crate) struct Story {
    pub(crate) machine: Machine,
    pub(crate) straw: Straw,
    standby: bool,
    /// How the application is told to stop.
    pub(crate) ladder: &'static str,
    happened: Arc<Mutex<Vec<Happening>>>,
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        Self::at(Home::Host, seed)
    }

    /// One whose agent begins held.
    pub(crate) fn of_a_standby(seed: u64) -> Self {
        Self { standby: true, ..Self::new(seed) }
    }

    pub(crate) fn at(home: Home, seed: u64) -> Self {
        let happened = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&happened);
        let observer = Arc::new(move |happening: &Happening| log.lock().unwrap().push(happening.clone()));
        let machine = Machine::new("edge-1", home, seed, observer);
        Self { machine, straw: Straw::new(), standby: false, ladder: "SIGTERM", happened }
    }

    /// Begins a life of the agent.
    pub(crate) fn agent(&self) -> Agent {
        self.straw.forget();
        let identity = Identity::new("db", "db-0", "edge-1").unwrap();
        let mut config = Config::new(vec!["database".into()]);
        config.stop = StopMethod::Signals(self.ladder.parse().unwrap());
        let settings = Settings { standby: self.standby, ..Settings::new(identity, PathBuf::from("/state"), config) };
        Agent::start(&self.machine, settings, self.straw.reach(self.machine.surroundings()))
    }

    pub(crate) fn happened(&self) -> Vec<Happening> {
        self.happened.lock().unwrap().clone()
    }

    /// Everything that happened, one line each.
    pub(crate) fn log(&self) -> String {
        self.happened().iter().map(|happening| format!("{happening}\n")).collect()
    }

    pub(crate) fn count(&self, what: impl Fn(&What) -> bool) -> usize {
        self.happened().iter().filter(|happening| what(&happening.what)).count()
    }

    pub(crate) fn starts(&self) -> usize {
        self.count(|what| *what == What::Started)
    }

    pub(crate) fn terms(&self) -> usize {
        self.count(|what| *what == What::Signalled(Signal::TERM))
    }

    /// Epochs that have live processes.
    pub(crate) fn epochs(&self) -> Vec<u64> {
        self.machine.census().into_keys().map(|(_, epoch)| epoch).collect()
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                sleep(GLANCE).await;
            }
        };
        timeout(PLENTY, waiting).await.unwrap_or_else(|_| panic!("never {what}; what happened:\n{}", self.log()));
    }

    pub(crate) async fn until_state(&self, state: AppState) {
        self.eventually(&format!("{state:?}"), async |story: &Self| {
            let mut hook = story.straw.hook().await;
            let info = hook.get_hook_info(v1::GetHookInfoRequest {}).await.ok()?.into_inner().info?;
            (info.app_state() == state).then_some(())
        })
        .await;
    }

    async fn eventually<T>(&self, what: &str, attempt: impl AsyncFn(&Self) -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(done) = attempt(self).await {
                    return done;
                }
                sleep(GLANCE).await;
            }
        };
        timeout(PLENTY, waiting).await.unwrap_or_else(|_| panic!("never {what}; what happened:\n{}", self.log()))
    }

    /// One call of `Shutdown`, to its end or the end of its connection.
    pub(crate) async fn shutdown_once(&self, id: &str, epoch: i64, attempt: i32) -> Result<ShutdownStatus, Status> {
        let request = ShutdownRequest {
            shutdown_id: id.to_owned(),
            operation: "operations/op-1".to_owned(),
            instance: INSTANCE.to_owned(),
            attempt,
            kind: OperationKind::Migrate.into(),
            grace_period: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            completion_token: TOKEN.to_owned(),
            epoch,
            ..Default::default()
        };
        let mut reports = self.straw.hook().await.shutdown(request).await?.into_inner();
        while let Some(response) = reports.next().await {
            let status = response?.status.unwrap();
            if status.result.is_some() {
                return Ok(status);
            }
        }
        Err(Status::unavailable("the connection ended"))
    }

    /// A whole shutdown, joined again as often as it takes.
    pub(crate) async fn shutdown(&self, id: &str, epoch: i64) -> ShutdownStatus {
        let joined = async |story: &Self| story.shutdown_once(id, epoch, 1).await.ok();
        self.eventually("the end of the shutdown", joined).await
    }

    /// As a scheduler does it: another attempt when a grace period is over, or an attempt came to nothing.
    pub(crate) async fn shutdown_in_attempts(&self, round: &str, epoch: i64) -> ShutdownStatus {
        for attempt in 1..=ATTEMPTS_MAX {
            let id = format!("{round}-{attempt}");
            let joined = async |story: &Self| story.shutdown_once(&id, epoch, attempt).await.ok();
            let ended = timeout(GRACE, self.eventually("the end of the shutdown", joined)).await;
            let stopped = |result: &StopResult| result.outcome() != stop_result::Outcome::StillRunning;
            match ended {
                Ok(status) if status.result.as_ref().is_some_and(stopped) => return status,
                Ok(_) | Err(_) => {}
            }
        }
        panic!("{ATTEMPTS_MAX} attempts; what happened:\n{}", self.log());
    }

    /// A whole start, likewise. Says whether the application came up.
    pub(crate) async fn start(&self, epoch: i64) -> bool {
        let joined = async |story: &Self| story.start_once(epoch).await.ok();
        self.eventually("the end of the start", joined).await
    }

    /// As a scheduler does it: under a new epoch when one was used up by a start that came to nothing.
    pub(crate) async fn start_anew(&self) -> u64 {
        for _ in 0..ATTEMPTS_MAX {
            let epoch = self.straw.next_epoch();
            let joined = async |story: &Self| match story.start_once(epoch).await {
                Ok(ready) => Some(ready),
                Err(status) => (status.code() == Code::FailedPrecondition).then_some(false),
            };
            if self.eventually("the end of the start", joined).await {
                return u64::try_from(epoch).unwrap();
            }
        }
        panic!("{ATTEMPTS_MAX} starts; what happened:\n{}", self.log());
    }

    async fn start_once(&self, epoch: i64) -> Result<bool, Status> {
        let request = StartApplicationRequest { epoch, instance: INSTANCE.to_owned(), ..Default::default() };
        let mut reports = self.straw.hook().await.start_application(request).await?.into_inner();
        while let Some(response) = reports.next().await {
            if let Some(result) = response?.status.unwrap().result {
                return Ok(result.outcome() == Outcome::Ready);
            }
        }
        Err(Status::unavailable("the connection ended"))
    }

    /// What holds for every story, whatever happened in it.
    pub(crate) fn check(&self) {
        let mut live: BTreeMap<u64, usize> = BTreeMap::new();
        let mut started = 0;
        for happening in self.happened() {
            match happening.what {
                What::Started => {
                    assert!(live.is_empty(), "never two copies:\n{}", self.log());
                    assert!(happening.epoch >= started, "epochs do not go back:\n{}", self.log());
                    started = happening.epoch;
                    *live.entry(happening.epoch).or_default() += 1;
                }
                What::Forked => *live.entry(happening.epoch).or_default() += 1,
                What::Ended(_) => {
                    let left = live.get_mut(&happening.epoch).unwrap();
                    *left -= 1;
                    if *left == 0 {
                        live.remove(&happening.epoch);
                    }
                }
                What::Signalled(_) => {}
            }
        }
    }
}

/// The order to kill.
pub(crate) fn kill(shutdown_id: &str) -> KillApplicationRequest {
    KillApplicationRequest {
        shutdown_id: shutdown_id.to_owned(),
        completion_token: TOKEN.to_owned(),
        ..Default::default()
    }
}

/// Runs a story in virtual time.
pub(crate) fn told<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story)
}
