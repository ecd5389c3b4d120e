//! The faulty store fails as told, and not otherwise.

use std::sync::Arc;

use quiesce_store::fault::FaultyStore;
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, CommitError, Condition, Scan, Space, Store};
use uuid::Uuid;

fn store() -> FaultyStore {
    FaultyStore::new(Arc::new(MemoryStore::new(Uuid::new_v4())))
}

fn batch() -> Batch {
    Batch::new().append(Space::Events, "event")
}

async fn stored(store: &FaultyStore) -> usize {
    store.scan(Scan::all(Space::Events)).await.unwrap().len()
}

#[tokio::test]
async fn the_next_commits_fail_and_leave_nothing() {
    let store = store();
    store.fail_next(2, CommitError::Closed);
    for _ in 0..2 {
        assert!(matches!(store.commit(batch()).await, Err(CommitError::Closed)));
    }
    assert_eq!(stored(&store).await, 0);
    store.commit(batch()).await.unwrap();
    assert_eq!((store.attempts(), store.commits(), stored(&store).await), (3, 1, 1));
}

#[tokio::test]
async fn a_full_disk_lasts_until_healed() {
    let store = store();
    store.fail_all(CommitError::Full);
    assert_eq!(store.condition().await, Condition::Full);
    for _ in 0..5 {
        assert!(matches!(store.commit(batch()).await, Err(CommitError::Full)));
    }
    store.heal();
    store.commit(batch()).await.unwrap();
    assert_eq!((store.attempts(), store.commits()), (6, 1));
}

#[tokio::test]
async fn a_lost_acknowledgement_leaves_the_batch_stored() {
    let store = store();
    store.lose_next(1, CommitError::Closed);
    assert!(matches!(store.commit(batch()).await, Err(CommitError::Closed)));
    assert_eq!((store.commits(), stored(&store).await), (1, 1));
    store.commit(batch()).await.unwrap();
}

#[tokio::test]
async fn held_commits_wait_with_nothing_stored_until_released() {
    let store = store();
    store.hold();
    let commits: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(batch()).await })
        })
        .collect();
    store.held(3).await;
    assert_eq!((store.attempts(), store.commits(), stored(&store).await), (3, 0, 0));
    store.release();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(stored(&store).await, 3);
}

#[tokio::test]
async fn a_conflict_is_no_commit() {
    let store = store();
    let key = Space::Meta.key("a");
    let refused = Batch::new().expect(key, quiesce_store::Expect::Present);
    assert!(matches!(store.commit(refused).await, Err(CommitError::Conflict { .. })));
    assert_eq!((store.attempts(), store.commits()), (1, 0));
}
