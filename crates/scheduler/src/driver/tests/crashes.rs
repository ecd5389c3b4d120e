//! The scheduler dies on either side of every commit of a whole migration, and is started again from what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use quiesce_operation::member::Member;
use quiesce_operation::{Kind, OperationId, Placement, StateName};
use quiesce_protocol::v1::StartApplicationRequest;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_testkit::hook::{Call, Listening, Script, ScriptedHook, Start};

use super::world::{
    LIMIT, SOURCE, Stop, StoppingStore, TARGET, World, application, cluster, hasty, hook, instance, memory,
    operation_id,
};
use crate::records::{self, InstanceRecord};
use crate::secrets::ShutdownId;

/// A migration of two instances to one; its hooks are well-behaved.
struct Migration {
    sources: [(ScriptedHook, Listening); 2],
    target: (ScriptedHook, Listening),
}

fn starts(hook: &ScriptedHook) -> Vec<StartApplicationRequest> {
    let pick = |call| if let Call::StartApplication(request) = call { Some(request) } else { None };
    hook.calls().into_iter().filter_map(pick).collect()
}

/// The one epoch it was started under.
fn only_epoch(hook: &ScriptedHook) -> u64 {
    let epochs: BTreeSet<_> = starts(hook).into_iter().map(|request| request.epoch).collect();
    assert_eq!(epochs.len(), 1, "started under one epoch only");
    epochs.into_iter().next().and_then(|epoch| u64::try_from(epoch).ok()).unwrap()
}

async fn stored(world: &World, name: &str) -> InstanceRecord {
    let key = records::instance_key(&application(), &instance(name));
    records::load::<InstanceRecord>(&*world.store, key).await.unwrap().unwrap().record
}

async fn stored_epoch(world: &World, name: &str) -> u64 {
    stored(world, name).await.epoch
}

/// Whether the registry says that a copy under its last permission may be alive.
async fn may_live(world: &World, name: &str) -> bool {
    stored(world, name).await.admission.is_some_and(|admission| !admission.ended)
}

impl Migration {
    async fn new(start: Start) -> Self {
        let mut standby = Script { start, ..Script::default() };
        standby.info.app_state = AppState::Held.into();
        Self { sources: [hook(Script::default()).await, hook(Script::default()).await], target: hook(standby).await }
    }

    fn hooks(&self) -> [(&'static str, &ScriptedHook); 3] {
        [("a", &self.sources[0].0), ("b", &self.sources[1].0), ("c", &self.target.0)]
    }

    async fn begin(&self, world: &World, store: &StoppingStore, stop: Stop) -> OperationId {
        world.register("a", SOURCE, &self.sources[0].1).await;
        world.register("b", SOURCE, &self.sources[1].1).await;
        world.register("c", TARGET, &self.target.1).await;
        let (operation, batch) = world.acceptance("op-1", Kind::Migrate, Placement::Agents, hasty()).await;
        let revision = world.store.commit(batch).await.unwrap().last;
        let id = operation.id().clone();
        store.stop_at(stop);
        world.handle.adopt(operation, revision).await;
        id
    }

    /// While the scheduler waits for a commit: whatever a hook was told is in the store already.
    async fn check_nothing_ran_ahead(&self, world: &World) {
        for (name, _) in self.hooks() {
            // A call that ran ahead is on the same connection, in front of this one.
            world.hooks.probe(&application(), &instance(name), false, LIMIT).await.unwrap();
        }
        let operation = world.operation(&operation_id("op-1")).await;
        let epoch = world.application().await.unwrap().epoch;
        for (name, hook) in self.hooks() {
            for request in hook.shutdowns() {
                let id = ShutdownId::parse(&request.shutdown_id).unwrap();
                let stored = operation.member(&id.instance).map(Member::fence);
                assert_eq!(stored, Some(id.attempt), "told to stop before that was stored");
            }
            for request in starts(hook) {
                let started = u64::try_from(request.epoch).unwrap();
                assert!(operation.start(&instance(name), started).is_some(), "told to start before that was stored");
                assert!(epoch >= started, "the application does not know epoch {started}");
                assert_eq!(stored_epoch(world, name).await, started, "the instance does not know it");
            }
        }
    }

    /// What must hold whatever happened in between.
    async fn check(&self, world: &World) {
        for (_, hook) in self.hooks() {
            let shutdowns = hook.shutdowns();
            let ids: BTreeSet<_> = shutdowns.iter().map(|request| &request.shutdown_id).collect();
            let tokens: BTreeSet<_> = shutdowns.iter().map(|request| &request.completion_token).collect();
            assert!(ids.len() <= 1, "told to stop under one id only: {ids:?}");
            assert_eq!(ids.len(), tokens.len());
        }
        let states: Vec<_> =
            world.events().await.into_iter().map(|event| (event.previous, event.operation.state)).collect();
        for pair in states.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "every change of state is in the log, in order: {states:?}");
        }
        assert_eq!(world.application().await.unwrap().active_operation, None);
    }
}

/// Dies on either side of commit 0, 1, 2, ... until there is none left to die at; `check` looks at each end.
async fn die_everywhere(start: Start, end: StateName, check: impl AsyncFn(&World, &Migration)) {
    for number in 0.. {
        let mut reached = false;
        for stop in [Stop::Before(number), Stop::After(number)] {
            let migration = Migration::new(start).await;
            let disk = memory();
            let store = StoppingStore::new(disk.clone());
            let world = World::over(Arc::new(store.clone())).await;
            let id = migration.begin(&world, &store, stop).await;
            let stopped = tokio::select! {
                () = store.stopped() => true,
                () = world.handle.idle() => false,
                () = tokio::time::sleep(LIMIT) => panic!("{stop:?}: neither stopped nor done"),
            };
            if stopped && world.application().await.unwrap().active_operation.is_some() {
                migration.check_nothing_ran_ahead(&world).await;
            }
            world.crash().await;
            let world = World::over(disk).await;
            world.recover().await;
            world.end(&id, end).await;
            migration.check(&world).await;
            check(&world, &migration).await;
            reached |= stopped;
        }
        if !reached {
            assert!(number >= 6, "a migration has more commits than {number}");
            return;
        }
    }
}

#[tokio::test]
async fn a_migration_arrives_wherever_the_scheduler_dies() {
    die_everywhere(Start::Ready, StateName::Succeeded, async |world, migration| {
        let application = world.application().await.unwrap();
        assert_eq!(application.cluster, cluster(TARGET));
        assert_eq!(only_epoch(&migration.target.0), application.epoch);
        assert_eq!(stored_epoch(world, "c").await, application.epoch);
        assert!(may_live(world, "c").await, "nobody else may be admitted as c");
        assert!(migration.sources.iter().all(|(source, _)| starts(source).is_empty()), "two copies");
    })
    .await;
}

#[tokio::test]
async fn a_migration_finds_its_way_back_wherever_the_scheduler_dies() {
    die_everywhere(Start::Failed, StateName::RolledBack, async |world, migration| {
        let application = world.application().await.unwrap();
        assert_eq!(application.cluster, cluster(SOURCE));
        let lost = only_epoch(&migration.target.0);
        for (name, (source, _)) in ["a", "b"].into_iter().zip(&migration.sources) {
            assert!(starts(source).iter().all(|request| request.rollback));
            let epoch = only_epoch(source);
            assert!(epoch > lost, "{epoch} is not above {lost}");
            assert_eq!(stored_epoch(world, name).await, epoch);
            assert!(may_live(world, name).await);
        }
        assert!(!may_live(world, "c").await, "its end is verified");
    })
    .await;
}
