//! Watchers: they resume with their tokens whenever the stream breaks or falls silent, and write down what they see.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::world::World;

/// How often a watcher asks to be told that nothing happened.
const BOOKMARKS: Duration = Duration::from_secs(2);
/// After so many of them have not come the stream is taken for dead (rule W5).
const SILENT_BOOKMARKS: u32 = 3;
/// Opening a stream.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Between two streams.
const PAUSE: Duration = Duration::from_millis(300);

/// What a watcher remembers.
#[derive(Debug, Default, Clone)]
pub(super) struct Watched {
    pub(super) token: String,
    pub(super) seen: Vec<Seen>,
    /// It was told that history is gone.
    pub(super) gaps: usize,
    pub(super) streams: usize,
}

/// One event that is not merged with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) revision: i64,
    pub(super) kind: Type,
    pub(super) operation: String,
    pub(super) before: State,
    pub(super) after: State,
}

impl Seen {
    fn of(event: &v1::OperationEvent) -> Option<Self> {
        let operation = event.operation.as_ref()?;
        let kind = event.r#type();
        (!matches!(kind, Type::Progress | Type::Snapshot | Type::Bookmark)).then(|| Self {
            revision: event.revision,
            kind,
            operation: operation.name.clone(),
            before: event.previous_state(),
            after: operation.state(),
        })
    }
}

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<v1::OperationEvent, Status>> + Send>>;

/// One life of the watcher of everything.
pub(super) async fn watcher(world: Arc<World>) -> turmoil::Result {
    loop {
        let token = world.memory().watched.token.clone();
        let Some(mut events) = watch_all(&world, "watcher", &token).await else {
            sleep(PAUSE).await;
            continue;
        };
        world.memory().watched.streams += 1;
        while let Some(event) = next(&mut events).await {
            match event {
                Ok(event) => note(&world, event),
                Err(status) => {
                    if status.code() == Code::OutOfRange {
                        let mut memory = world.memory();
                        memory.watched.token.clear();
                        memory.watched.gaps += 1;
                    }
                    break;
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// Token and news are remembered together, as a watcher does that writes both down.
fn note(world: &World, event: v1::OperationEvent) {
    let mut memory = world.memory();
    if memory.first_token.is_none() && !event.resume_token.is_empty() {
        memory.first_token = Some(event.resume_token.clone());
    }
    let watched = &mut memory.watched;
    let last = watched.seen.last().map_or(0, |seen| seen.revision);
    let new = Seen::of(&event);
    let backwards = new.as_ref().is_some_and(|new| new.revision <= last);
    watched.seen.extend(new);
    if !event.resume_token.is_empty() {
        watched.token.clone_from(&event.resume_token);
    }
    drop(memory);
    if backwards {
        world.story.violated("I5 in order", format_args!("revision {} came after {last}", event.revision));
    }
}

/// A stream of all events from `token` on; from now on without one.
async fn watch_all(world: &World, host: &str, token: &str) -> Option<Events> {
    let request = v1::WatchOperationsRequest {
        resume_token: token.to_owned(),
        skip_snapshot: true,
        bookmark_interval: prost_types::Duration::try_from(BOOKMARKS).ok(),
        ..Default::default()
    };
    let mut client = world.client(host);
    let stream = timeout(OPEN_LIMIT, client.watch_operations(request)).await.ok()?.ok()?.into_inner();
    Some(Box::pin(stream.map(|item| item.map(|response| response.event.unwrap_or_default()))))
}

/// The next event; none when the stream has ended or is dead.
async fn next(events: &mut Events) -> Option<Result<v1::OperationEvent, Status>> {
    timeout(BOOKMARKS * SILENT_BOOKMARKS, events.next()).await.ok().flatten()
}

/// Follows one operation to its end, or until it rests.
pub(super) async fn follow(world: &World, host: &str, operation: &str) {
    let mut token = String::new();
    loop {
        let request = v1::WatchOperationRequest {
            name: operation.to_owned(),
            resume_token: token.clone(),
            end_on_degraded: true,
            bookmark_interval: prost_types::Duration::try_from(BOOKMARKS).ok(),
        };
        let opened = timeout(OPEN_LIMIT, world.client(host).watch_operation(request)).await;
        let Ok(Ok(stream)) = opened else {
            if let Ok(Err(status)) = opened
                && matches!(status.code(), Code::NotFound | Code::OutOfRange | Code::InvalidArgument)
            {
                let what = format!("{operation} cannot be followed: {:?} {}", status.code(), status.message());
                world.story.violated("I3 accepted is kept", what);
                return;
            }
            sleep(PAUSE).await;
            continue;
        };
        let stream = stream.into_inner();
        let mut events: Events = Box::pin(stream.map(|item| item.map(|response| response.event.unwrap_or_default())));
        let mut state = State::Unspecified;
        while let Some(Ok(event)) = next(&mut events).await {
            if !event.resume_token.is_empty() {
                token.clone_from(&event.resume_token);
            }
            if let Some(operation) = &event.operation {
                state = operation.state();
            }
        }
        if is_final(state) || state == State::Degraded {
            world.memory().followed.insert(operation.to_owned(), state);
            return;
        }
        // Resumed behind the end, a stream ends without a word.
        if let Some(state) = state_of(world, host, operation).await
            && (is_final(state) || state == State::Degraded)
        {
            world.memory().followed.insert(operation.to_owned(), state);
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn state_of(world: &World, host: &str, operation: &str) -> Option<State> {
    let request = v1::GetOperationRequest { name: operation.to_owned() };
    let answer = timeout(OPEN_LIMIT, world.client(host).get_operation(request)).await.ok()?.ok()?;
    answer.into_inner().operation.map(|operation| operation.state())
}

/// Nothing follows.
pub(super) fn is_final(state: State) -> bool {
    matches!(state, State::Succeeded | State::Cancelled | State::RolledBack | State::Abandoned)
}

/// Everything that happened since `token`, in one go, for comparison; none when nobody answers.
pub(super) async fn history(world: &World, host: &str, token: &str) -> Option<Vec<Seen>> {
    let mut events = watch_all(world, host, token).await?;
    let mut all = Vec::new();
    loop {
        let event = next(&mut events).await?.ok()?;
        if event.r#type() == Type::Bookmark {
            return Some(all);
        }
        all.extend(Seen::of(&event));
    }
}
