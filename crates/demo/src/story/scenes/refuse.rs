//! A target that does not come up.

use std::time::Duration;

use quiesce_protocol::v1::operation;

use super::{Scene, Tally, migrate, policy, promises, set};
use crate::story::StoryError;
use crate::story::judge::{self, Finding};
use crate::story::show::Show;
use crate::story::stage::{Cluster, Stage};

/// Plenty for a quick save.
const GRACE: Duration = Duration::from_secs(20);

pub(super) const SCENE: Scene = Scene {
    title: "Migrate north -> south, but south cannot start the ledger",
    why: "The source has stopped, the target fails: whoever gives up now has no copy left. The source was held, not \
          removed, so it can run again, with a higher epoch, after the target is known to be gone.",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    set(&stage.refuses_to_start(Cluster::South), true)?;
    let before = tally.epoch();
    let follower = migrate(stage, Cluster::North, Cluster::South, policy(GRACE)).await?;
    let operation = follower.follow_out(stage, show).await?;
    set(&stage.refuses_to_start(Cluster::South), false)?;
    tally.rollbacks += 1;
    tally.succeeded_by(&operation);
    let now = tally.epoch();
    let mut findings = vec![
        judge::start_failed(&operation),
        judge::ended_as(&operation, operation::State::RolledBack),
        judge::proven_end(&operation),
        judge::ready_by_its_own_word(&operation),
        Finding::of(now > before, format!("north writes again, under epoch {now} after {before}")),
    ];
    if findings.iter().all(|finding| finding.good) {
        findings.extend(promises(stage, tally, Cluster::North, false).await?);
    }
    Ok(findings)
}
