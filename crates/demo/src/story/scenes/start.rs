//! Everything starts.

use quiesce_protocol::v1::instance;

use super::{Scene, Tally, WRITES_BETWEEN};
use crate::ledger::book::Epoch;
use crate::story::StoryError;
use crate::story::judge::Finding;
use crate::story::show::{Show, Style, count};
use crate::story::stage::{Cluster, Stage};

pub(super) const SCENE: Scene = Scene {
    title: "Start everything",
    why: "The ledger keeps its entries in memory and saves them only when it is told to stop. Kill it, and what it \
          acknowledged is gone; run it twice, and two copies write at once. So it starts with a permission only, the \
          epoch.",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    let mut row = |who: &str, text: &str| {
        show.line(&[("   ", Style::Plain), (&format!("{who:<11}"), Style::Bold), (text, Style::Plain)]);
    };
    row("bucket", &format!("{}, empty", stage.bucket_endpoint()));
    let pid = stage.start_scheduler().await?;
    row("scheduler", &format!("http://{}, pid {pid}", stage.scheduler_address()));
    // North first: the agent that registers the application decides where it is at home.
    let pid = stage.start_agent(Cluster::North, false)?;
    let north = stage.instance_is(Cluster::North, instance::State::Ready).await?;
    row("north", &format!("agent, pid {pid}; it was given epoch {} and runs the ledger", north.epoch));
    let pid = stage.start_agent(Cluster::South, true)?;
    stage.instance_is(Cluster::South, instance::State::Held).await?;
    row("south", &format!("agent, pid {pid}; it stands by, its ledger does not run"));
    stage.start_load();
    stage.writes_flow(Cluster::North, WRITES_BETWEEN).await?;
    let stats = stage.load()?.stats().borrow().clone();
    let Some((_, epoch)) = stats.last else { return Err(StoryError::Absent("client")) };
    tally.epochs.push(epoch);
    let given = Epoch::new(u64::try_from(north.epoch).unwrap_or(0));
    Ok(vec![
        Finding::of(true, format!("writes flow: {} acknowledged already", count(stats.acknowledged))),
        Finding::of(epoch == given, format!("the ledger writes under the epoch it was given: {epoch}")),
    ])
}
