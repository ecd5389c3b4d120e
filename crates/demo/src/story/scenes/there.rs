//! A migration under load.

use std::time::Duration;

use quiesce_protocol::v1::operation;

use super::{Scene, Tally, migrate, policy, promises};
use crate::story::StoryError;
use crate::story::judge::{self, Finding};
use crate::story::show::Show;
use crate::story::stage::{Cluster, Stage};

/// Plenty for a quick save.
const GRACE: Duration = Duration::from_secs(20);

pub(super) const SCENE: Scene = Scene {
    title: "Migrate north -> south while the client writes",
    why: "The newest writes exist in one process only. It has to stop, save, and be proven gone before the other copy \
          may start: a claim is not enough.",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    let follower = migrate(stage, Cluster::North, Cluster::South, policy(GRACE)).await?;
    let operation = follower.follow_out(stage, show).await?;
    tally.migrations += 1;
    tally.succeeded_by(&operation);
    let mut findings = vec![
        judge::ended_as(&operation, operation::State::Succeeded),
        judge::proven_end(&operation),
        judge::ready_by_its_own_word(&operation),
    ];
    if findings.iter().all(|finding| finding.good) {
        findings.extend(promises(stage, tally, Cluster::South, false).await?);
    }
    Ok(findings)
}
