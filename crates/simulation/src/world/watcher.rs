//! A watcher of a world: follows everything, loses its connection, resumes, and must have seen every change once.

use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_protocol::v1::operation_event::Type;
use quiesce_protocol::v1::scheduler_client::SchedulerClient;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::chance::Chance;
use crate::laws::{Law, Laws};
use crate::story::Story;
use crate::wire::Channel;

/// How far a watcher has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Everything behind this revision has to be seen.
    pub(super) from: Option<u64>,
    /// Revisions of all changes seen, in the order of arrival.
    pub(super) seen: Vec<u64>,
    /// The revision of the last event or bookmark.
    pub(super) at: u64,
    token: String,
}

pub(super) struct Watcher {
    pub(super) channel: Channel,
    pub(super) story: Story,
    pub(super) laws: Laws,
    pub(super) chance: Chance,
    /// Whether it drops its connection by itself now and then.
    pub(super) restless: bool,
    pub(super) progress: watch::Sender<Progress>,
}

/// How long a silent stream is believed: bookmarks come every second.
const SILENCE_MAX: Duration = Duration::from_secs(45);

impl Watcher {
    pub(super) async fn follow(self) -> std::convert::Infallible {
        loop {
            self.connect().await;
            sleep(self.chance.millis(10..=1_500)).await;
        }
    }

    async fn connect(&self) {
        let mut client = SchedulerClient::new(self.channel.clone());
        let request = v1::WatchOperationsRequest {
            resume_token: self.progress.borrow().token.clone(),
            skip_snapshot: true,
            include_done: true,
            bookmark_interval: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..Default::default()
        };
        let Ok(Ok(answer)) = timeout(SILENCE_MAX, client.watch_operations(request)).await else { return };
        let mut events = answer.into_inner();
        loop {
            if self.restless && self.chance.permille(30) {
                self.story.tell("watcher", || "leaves".to_owned());
                return;
            }
            match timeout(SILENCE_MAX, events.message()).await {
                Ok(Ok(Some(message))) => self.take(message.event.unwrap_or_default()),
                Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                    self.laws.broken(Law::WatchersSeeAll, format!("history is gone: {}", status.message()));
                    return;
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        }
    }

    fn take(&self, event: v1::OperationEvent) {
        let revision = u64::try_from(event.revision).unwrap_or_default();
        self.progress.send_modify(|progress| {
            progress.token.clone_from(&event.resume_token);
            progress.at = progress.at.max(revision);
            if progress.from.is_none() {
                progress.from = Some(revision);
            }
            match event.r#type() {
                Type::Bookmark | Type::Progress | Type::Snapshot => {}
                _ => progress.seen.push(revision),
            }
        });
    }
}

impl Progress {
    pub(super) fn has_seen_all(&self, laws: &Laws) -> bool {
        self.from.is_none_or(|from| self.seen.len() >= laws.changes_after(from).len())
    }

    /// Holds what was seen against what happened.
    pub(super) fn check(&self, laws: &Laws) {
        let Some(from) = self.from else { return };
        let wanted = laws.changes_after(from);
        if self.seen != wanted {
            let missing: Vec<_> = wanted.iter().filter(|one| !self.seen.contains(one)).take(5).collect();
            let surplus: Vec<_> = self.seen.windows(2).filter(|two| two[1] <= two[0]).take(5).collect();
            laws.broken(
                Law::WatchersSeeAll,
                format!(
                    "from {from} on {} changes happened, {} were seen; missing {missing:?}, out of order {surplus:?}",
                    wanted.len(),
                    self.seen.len()
                ),
            );
        }
    }
}
