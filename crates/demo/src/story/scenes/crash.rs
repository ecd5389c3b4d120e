//! The scheduler dies in the middle of a stop.

use std::time::Duration;

use quiesce_protocol::v1::{OperationEvent, operation};
use tokio::time::sleep;

use super::{Scene, Tally, migrate, policy, promises, set};
use crate::story::StoryError;
use crate::story::judge::{self, Finding};
use crate::story::show::Show;
use crate::story::stage::{Cluster, Stage};

/// Longer than the slow save, so that time is not the matter here.
const GRACE: Duration = Duration::from_secs(20);

/// How long nobody is there.
const AWAY: Duration = Duration::from_millis(500);

pub(super) const SCENE: Scene = Scene {
    title: "Migrate north -> south, and kill -9 the scheduler in the middle of the stop",
    why: "Nobody may forget what was asked for, start the clock again, or tell the ledger to stop a second time. The \
          agent goes on alone; a new scheduler takes up the operation where it was.",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    set(&stage.saves_slowly(Cluster::North), true)?;
    let stopped = tally.epoch();
    let mut follower = migrate(stage, Cluster::North, Cluster::South, policy(GRACE)).await?;
    follower.until(stage, show, is_saving).await?;
    stage.kill_scheduler().await?;
    follower.aside(show, "kill -9", "the scheduler is dead, the ledger goes on saving");
    sleep(AWAY).await;
    let pid = stage.start_scheduler().await?;
    follower.aside(show, "scheduler", &format!("runs again, pid {pid}, with what it had stored"));
    let operation = follower.follow_out(stage, show).await?;
    set(&stage.saves_slowly(Cluster::North), false)?;
    tally.migrations += 1;
    tally.succeeded_by(&operation);
    let mut findings = vec![
        judge::ended_as(&operation, operation::State::Succeeded),
        judge::proven_end(&operation),
        Finding::of(operation.attempt == 1, format!("in attempt {} of the same operation", operation.attempt)),
        judge::told_once(&[(stopped, stage.times_told_to_stop(stopped)?)]),
    ];
    if findings.iter().all(|finding| finding.good) {
        findings.extend(promises(stage, tally, Cluster::South, true).await?);
    }
    Ok(findings)
}

/// The ledger has said how far it is, and it is not at the beginning any more: the middle of the stop.
fn is_saving(event: &OperationEvent) -> bool {
    let stopping = event.operation.as_ref().is_some_and(|it| it.state() == operation::State::Stopping);
    let status = event.instance.as_ref().and_then(|instance| instance.status.as_ref());
    let at_work = |said: &str| said.starts_with("saving") && !said.ends_with(" 0 %");
    stopping && status.is_some_and(|status| status.result.is_none() && at_work(&status.message))
}
