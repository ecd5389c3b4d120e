//! A stop that needs more time than it has, and gets it.

use std::time::Duration;

use quiesce_protocol::v1::{ShutdownPolicy, operation};

use super::{Scene, Tally, migrate, policy, promises, set, wire};
use crate::story::StoryError;
use crate::story::judge::{self, Finding};
use crate::story::show::Show;
use crate::story::stage::{Cluster, Stage};

/// Half of what the slow save takes.
const GRACE: Duration = Duration::from_secs(2);

/// More than the slow save needs beyond that.
const EXTENSION_MAX: Duration = Duration::from_secs(10);

pub(super) const SCENE: Scene = Scene {
    title: "Migrate back south -> north, with a save that takes twice its grace period",
    why: "Grace period 2 s, but the save takes 4 s. A blind timer would kill the ledger in the middle. It asks for \
          more time instead (EXTEND_TIMEOUT_USEC, as under systemd) and gets it, as far as the policy allows: here \
          10 s more in all (max_extension).",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    set(&stage.saves_slowly(Cluster::South), true)?;
    let policy = ShutdownPolicy { max_extension: wire(EXTENSION_MAX), ..policy(GRACE) };
    let mut follower = migrate(stage, Cluster::South, Cluster::North, policy).await?;
    follower.until(stage, show, |_| false).await?;
    let extended = follower.extended();
    let operation = follower.follow_out(stage, show).await?;
    set(&stage.saves_slowly(Cluster::South), false)?;
    tally.migrations += 1;
    tally.succeeded_by(&operation);
    let mut findings = vec![
        judge::ended_as(&operation, operation::State::Succeeded),
        judge::proven_end(&operation),
        judge::was_given_time(&operation, GRACE),
        Finding::of(extended > 0, format!("DEADLINE_EXTENDED was seen by whoever watches: {extended} times")),
    ];
    if findings.iter().all(|finding| finding.good) {
        findings.extend(promises(stage, tally, Cluster::North, true).await?);
    }
    Ok(findings)
}
