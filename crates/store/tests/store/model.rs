//! The embedded engine does what the model does, whatever it is asked.

use futures::future::join_all;
use proptest::collection::vec;
use proptest::prelude::*;
use quiesce_store::conformance::scan_pages;
use quiesce_store::embedded::{EmbeddedStore, Options};
use quiesce_store::memory::MemoryStore;
use quiesce_store::{Batch, Entry, Expect, Key, Revision, Scan, Space, Store, Write};
use uuid::Uuid;

/// One thing to do to both stores.
#[derive(Clone, Debug)]
enum Step {
    /// Batches that wait at the same time, so that the engine may put them into one group.
    Commit(Vec<Batch>),
    Scan(Scan),
    Reopen,
}

/// Few keys and revisions, so that batches get in each other's way.
fn key() -> impl Strategy<Value = Key> {
    (space(), "[ab]{0,2}").prop_map(|(space, id)| space.key(&id))
}

fn space() -> impl Strategy<Value = Space> {
    prop_oneof![Just(Space::Operations), Just(Space::Events)]
}

fn revision() -> impl Strategy<Value = Revision> {
    (0_u64..60).prop_map(Revision::new)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Absent), Just(Expect::Present), revision().prop_map(Expect::Revision)]
}

fn write() -> impl Strategy<Value = Write> {
    let value = || vec(any::<u8>(), 0..40).prop_map(bytes::Bytes::from);
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Write::Put { key, value }),
        2 => key().prop_map(|key| Write::Delete { key }),
        3 => (space(), value()).prop_map(|(space, value)| Write::Append { space, value }),
        1 => (space(), revision()).prop_map(|(space, through)| Write::Trim { space, through }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (vec((key(), expect()), 0..3), vec(write(), 0..5)).prop_map(|(expectations, writes)| {
        let batch = expectations.into_iter().fold(Batch::new(), |batch, (key, expect)| batch.expect(key, expect));
        writes.into_iter().fold(batch, Batch::write)
    })
}

fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![key(), (space(), revision()).prop_map(|(space, revision)| space.log_key(revision))]
}

fn scan() -> impl Strategy<Value = Scan> {
    let bound = || proptest::option::of(any_key());
    (space(), "[ab]{0,2}", bound(), bound(), 0_usize..8, any::<bool>()).prop_map(
        |(space, prefix, after, before, limit, reverse)| Scan { space, prefix, after, before, limit, reverse },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(batch(), 1..6).prop_map(Step::Commit),
        4 => scan().prop_map(Step::Scan),
        1 => Just(Step::Reopen),
    ]
}

async fn outcomes(store: &dyn Store, batches: &[Batch]) -> Vec<Result<(u64, u64), String>> {
    // The batches enter the queue in this order, whether or not they end in one group.
    let outcomes = join_all(batches.iter().map(|batch| store.commit(batch.clone()))).await;
    let told = |outcome: Result<quiesce_store::Committed, quiesce_store::CommitError>| {
        outcome.map(|ok| (ok.first.as_u64(), ok.last.as_u64())).map_err(|error| error.to_string())
    };
    outcomes.into_iter().map(told).collect()
}

async fn everything(store: &dyn Store) -> Vec<Entry> {
    let mut entries = scan_pages(store, Scan::all(Space::Operations)).await;
    entries.extend(scan_pages(store, Scan::all(Space::Events)).await);
    entries
}

async fn run(steps: Vec<Step>) {
    let directory = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(directory.path(), &Options::new(Uuid::new_v4())).unwrap();
    let model = MemoryStore::new(Uuid::new_v4());
    let mut engine = open();
    for step in steps {
        match step {
            Step::Commit(batches) => {
                assert_eq!(outcomes(&engine, &batches).await, outcomes(&model, &batches).await, "{batches:?}");
            }
            Step::Scan(scan) => {
                assert_eq!(
                    engine.scan(scan.clone()).await.unwrap(),
                    model.scan(scan.clone()).await.unwrap(),
                    "{scan:?}"
                );
            }
            Step::Reopen => {
                engine.close().unwrap();
                engine = open();
            }
        }
        assert_eq!(*engine.durable().borrow(), *model.durable().borrow());
    }
    assert_eq!(everything(&engine).await, everything(&model).await);
}

proptest! {
    // Each case makes a store of its own and syncs some ten times.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_the_model_does(steps in vec(step(), 1..25)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
