//! Many who watch while much happens: each sees every change of every operation, once and in order (I5).

use std::collections::BTreeMap;

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use quiesce_protocol::v1;
use quiesce_testkit::hook::{Script, ScriptedHook};
use tokio::time::timeout;
use tonic::Streaming;
use v1::operation::State;
use v1::operation_event::Type;

use crate::agents::{Agent, Place, Reach};
use crate::stage::{AT_ONCE, LIMIT, Stage, external, is_final, patient};

const WATCHERS: usize = 100;
const OPERATIONS: usize = 200;

type Events = Streaming<v1::WatchOperationsResponse>;

/// A watch that misses nothing from here on.
async fn begin(stage: &Stage) -> Events {
    let request = v1::WatchOperationsRequest { skip_snapshot: true, ..Default::default() };
    let mut events = stage.client().watch_operations(request).await.unwrap().into_inner();
    let first = events.next().await.unwrap().unwrap().event.unwrap();
    assert_eq!(first.r#type(), Type::Bookmark);
    events
}

/// The states of each operation, as one watcher sees them until all are over.
async fn watch(mut events: Events) -> BTreeMap<String, Vec<State>> {
    let mut seen: BTreeMap<String, Vec<State>> = BTreeMap::new();
    let (mut over, mut last) = (0, 0);
    while over < OPERATIONS {
        let event = timeout(LIMIT, events.next()).await.expect("something happens").unwrap().unwrap().event.unwrap();
        assert!(event.r#type() == Type::Bookmark || event.revision > last, "revisions rise: {event:?}");
        last = event.revision;
        if event.r#type() == Type::StateChanged {
            let operation = event.operation.unwrap();
            over += usize::from(is_final(operation.state()));
            seen.entry(operation.name.clone()).or_default().push(operation.state());
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_watchers_see_every_change_of_every_operation() {
    let stage = Stage::start().await;
    let stage = &stage;
    let agents: Vec<_> = stream::iter((0..OPERATIONS).map(|number| async move {
        let application = format!("app-{number}");
        stage.create(&application, patient(), external()).await;
        let hook = ScriptedHook::new(Script::default());
        Agent::start(stage, &Place::only(&application), hook, Reach::Listens).await
    }))
    .buffered(AT_ONCE)
    .collect()
    .await;
    let watches = join_all((0..WATCHERS).map(|_| begin(stage))).await;
    let watching = join_all(watches.into_iter().map(watch));
    let working = stream::iter((0..OPERATIONS).map(|number| async move {
        let operation = stage.delete(&format!("app-{number}")).await.unwrap();
        assert_eq!(stage.outcome(&operation).await.state(), State::Succeeded);
    }))
    .buffer_unordered(AT_ONCE)
    .collect::<Vec<()>>();
    let (seen, _) = tokio::join!(watching, working);
    let states = [State::Preparing, State::Stopping, State::Stopped, State::Finalizing, State::Succeeded];
    for seen in seen {
        assert_eq!(seen.len(), OPERATIONS);
        assert!(seen.values().all(|found| *found == states), "{seen:#?}");
    }
    drop(agents);
}
