//! The deletion, and the last look into the bucket.

use std::time::Duration;

use quiesce_protocol::v1::{DeleteApplicationRequest, operation};
use uuid::Uuid;

use super::{Scene, Tally, policy};
use crate::ledger::fence;
use crate::load::VerifyError;
use crate::story::StoryError;
use crate::story::follow::Follower;
use crate::story::judge::{self, Finding};
use crate::story::show::Show;
use crate::story::stage::{APPLICATION, Cluster, Stage, within};

/// Plenty for a quick save.
const GRACE: Duration = Duration::from_secs(20);

pub(super) const SCENE: Scene = Scene {
    title: "Delete the application",
    why: "Deleting is stopping as well: the ledger saves for the last time, under the eyes of its agent. Then both \
          agents end, with the application's exit code, and nothing can bring it back. What is in the bucket now must \
          be all that was acknowledged.",
    play: |stage, show, tally| Box::pin(play(stage, show, tally)),
};

async fn play(stage: &mut Stage, show: &mut Show, tally: &mut Tally) -> Result<Vec<Finding>, StoryError> {
    let request = DeleteApplicationRequest {
        name: APPLICATION.to_owned(),
        request_id: Uuid::new_v4().to_string(),
        policy: Some(policy(GRACE)),
        reason: "the end of the demonstration".to_owned(),
        ..DeleteApplicationRequest::default()
    };
    let answer = within(stage.api().delete_application(request)).await?;
    let follower = Follower::new(&answer.operation.ok_or(StoryError::Empty)?);
    let operation = follower.follow_out(stage, show).await?;
    let mut findings = vec![judge::ended_as(&operation, operation::State::Succeeded), judge::proven_end(&operation)];
    if findings.iter().any(|finding| !finding.good) {
        return Ok(findings);
    }
    for cluster in Cluster::BOTH {
        let status = stage.agent_ended(cluster).await?;
        findings.push(judge::exited(&format!("the agent of {cluster}"), status));
    }
    let record = stage.take_load()?.stop().await;
    tally.acknowledged = record.acknowledged.len() as u64;
    let saved = fence::newest(&stage.bucket()?).await?;
    let (saved, entries) = match saved {
        Some((saved, book)) => (Some(saved), book.into_entries()),
        None => (None, Default::default()),
    };
    findings.extend(judge::promises(record.check(&entries).map_err(VerifyError::Faults), &tally.epochs));
    let last = tally.epoch();
    let by = saved.map(|saved| saved.epoch);
    findings.push(Finding::of(by == Some(last), format!("the bucket holds the final state of epoch {last}")));
    let told: Result<Vec<_>, StoryError> =
        tally.epochs.iter().map(|epoch| Ok((*epoch, stage.times_told_to_stop(*epoch)?))).collect();
    findings.push(judge::told_once(&told?));
    findings.push(judge::exited("the scheduler", stage.end_scheduler().await?));
    stage.end_bucket().await;
    Ok(findings)
}
