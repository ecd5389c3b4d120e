//! The scenes in their order, and what they count together.

mod back;
mod crash;
mod delete;
mod refuse;
mod start;
mod there;

use std::pin::Pin;
use std::time::Duration;

use quiesce_protocol::v1::{MigrateApplicationRequest, Operation, ShutdownPolicy};
use uuid::Uuid;

use super::StoryError;
use super::follow::Follower;
use super::judge::{self, Finding, list};
use super::show::{Show, Style, count, seconds};
use super::stage::{APPLICATION, Cluster, Stage, within};
use crate::ledger::book::Epoch;
use crate::load::verify;

/// Writes that must flow before a scene begins and after it has ended.
const WRITES_BETWEEN: u64 = 150;

/// Plenty for a start that loads a few hundred entries.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A scene: what is about to happen, why that is hard, and how it is played.
pub(super) struct Scene {
    pub(super) title: &'static str,
    pub(super) why: &'static str,
    pub(super) play: Play,
}

type Play = for<'a> fn(&'a mut Stage, &'a mut Show, &'a mut Tally) -> Playing<'a>;
type Playing<'a> = Pin<Box<dyn Future<Output = Result<Vec<Finding>, StoryError>> + 'a>>;

/// All of them.
pub(super) const SCENES: &[Scene] =
    &[start::SCENE, there::SCENE, back::SCENE, refuse::SCENE, crash::SCENE, delete::SCENE];

/// What is counted over all scenes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    acknowledged: u64,
    migrations: u32,
    rollbacks: u32,
    /// The longest pause the client saw around a quick save, and around a slow one.
    longest_pause: [Duration; 2],
    /// The epochs under which the client was given acknowledgements, in their order.
    epochs: Vec<Epoch>,
}

impl Tally {
    /// The permission that writes now.
    fn epoch(&self) -> Epoch {
        self.epochs.last().copied().unwrap_or(Epoch::new(0))
    }

    /// Another epoch reigns.
    fn succeeded_by(&mut self, operation: &Operation) {
        self.epochs.push(Epoch::new(u64::try_from(operation.epoch).unwrap_or(0)));
    }

    /// The summary of a story in which every check was passed: a lost write or a second writer would have ended it.
    pub(super) fn show(&self, show: &mut Show) {
        let [quick, slow] = self.longest_pause;
        let rows = [
            ("acknowledged writes", count(self.acknowledged)),
            ("lost", "0".to_owned()),
            ("two writers at once", "never".to_owned()),
            ("migrations", format!("{} done, {} rolled back", self.migrations, self.rollbacks)),
            ("longest pause", format!("{}; with a slow save {}", seconds(quick), seconds(slow))),
            ("epochs", list(&self.epochs)),
        ];
        for (name, value) in rows {
            show.line(&[(&format!("{name:<22}"), Style::Plain), (&value, Style::Bold)]);
        }
    }
}

/// A policy with this grace period. The start takes a moment, so a start that hangs is known soon.
fn policy(grace: Duration) -> ShutdownPolicy {
    ShutdownPolicy { grace_period: wire(grace), start_timeout: wire(START_TIMEOUT), ..ShutdownPolicy::default() }
}

/// Asks the scheduler to migrate.
async fn migrate(stage: &Stage, from: Cluster, to: Cluster, policy: ShutdownPolicy) -> Result<Follower, StoryError> {
    let request = MigrateApplicationRequest {
        name: APPLICATION.to_owned(),
        source_cluster: from.name().to_owned(),
        target_cluster: to.name().to_owned(),
        request_id: Uuid::new_v4().to_string(),
        policy: Some(policy),
        reason: "demonstration".to_owned(),
        ..MigrateApplicationRequest::default()
    };
    let answer = within(stage.api().migrate_application(request)).await?;
    Ok(Follower::new(&answer.operation.ok_or(StoryError::Empty)?))
}

/// What the client has to say after a scene that left the ledger running on `cluster`: it reads everything back.
/// `slow` says what kind of save there was.
async fn promises(stage: &Stage, tally: &mut Tally, cluster: Cluster, slow: bool) -> Result<Vec<Finding>, StoryError> {
    stage.writes_flow(cluster, WRITES_BETWEEN).await?;
    let load = stage.load()?;
    let pause = load.take_longest_pause();
    let longest = &mut tally.longest_pause[usize::from(slow)];
    *longest = pause.max(*longest);
    let record = load.record();
    tally.acknowledged = record.acknowledged.len() as u64;
    let mut findings = judge::promises(verify(stage.ledger_address(cluster), &record).await, &tally.epochs);
    findings.push(judge::pause(pause));
    Ok(findings)
}

/// A duration of the contract.
fn wire(duration: Duration) -> Option<prost_types::Duration> {
    // Only durations beyond any policy do not fit.
    prost_types::Duration::try_from(duration).ok()
}

/// Makes or takes away a file that a ledger looks for.
fn set(path: &std::path::Path, there: bool) -> Result<(), StoryError> {
    let done = if there { std::fs::write(path, "") } else { std::fs::remove_file(path) };
    done.map_err(|source| StoryError::Io { what: "set the scene", source })
}
