//! The suite every backend passes: the contract of [`Store`], as tests.
//!
//! A backend's tests say `quiesce_store::conformance_tests!(subject)` with an expression that makes a fresh [`Subject`];
//! that gives one test per behaviour. They panic when the contract is broken, as tests do.

pub mod batches;
pub mod scans;
pub mod writers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, Committed, Entry, Key, Revision, Scan, Store};

/// Long enough for the slowest disk; only a store that hangs gets there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// A place where a store can be opened, closed and opened again.
pub trait Subject: Send + Sync {
    /// Opens the store. Called again only after everything of the previous one was dropped; shows the same data then.
    fn open(&self) -> Arc<dyn Store>;
}

/// Makes one test of each behaviour. Takes an expression that makes a new, empty [`Subject`](crate::conformance::Subject).
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::conformance_tests!(
            @each $subject;
            batches::what_was_put_is_read_back,
            batches::deleting_removes_and_costs_a_revision_even_if_nothing_was_there,
            batches::every_write_takes_one_revision_in_order,
            batches::each_expectation_holds_when_it_should_and_names_what_it_found_when_not,
            batches::expectations_look_at_the_state_before_the_batch,
            batches::a_refused_batch_leaves_nothing_and_costs_no_revision,
            batches::the_later_write_of_a_key_wins,
            batches::bounds_are_enforced_and_what_is_within_them_is_stored,
            batches::reopening_keeps_entries_revisions_and_life,
            scans::scans_keep_to_their_space_prefix_and_bounds,
            scans::scans_are_capped_and_pages_join_up,
            scans::trimming_removes_the_log_up_to_a_revision_and_nothing_else,
            writers::one_of_many_rivals_wins,
            writers::concurrent_compare_and_swap_loses_no_update,
            writers::append_order_is_commit_order_under_many_writers,
            writers::more_commits_than_can_wait_all_happen,
            writers::a_commit_nobody_waits_for_is_whole_or_absent,
            writers::durable_never_goes_back_and_reads_see_what_it_shows,
        );
    };
    (@each $subject:expr; $($module:ident :: $check:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                $crate::conformance::bounded($crate::conformance::$module::$check(&$subject)).await;
            }
        )+
    };
}

/// Runs a check, and panics if it does not end.
pub async fn bounded(check: impl Future<Output = ()>) {
    tokio::time::timeout(CHECK_TIMEOUT, check).await.expect("the check ends: a store that hangs breaks the contract");
}

async fn commit(store: &dyn Store, batch: Batch) -> Committed {
    store.commit(batch).await.expect("the batch is committed")
}

async fn read(store: &dyn Store, key: &Key) -> Option<Entry> {
    store.get(key.clone()).await.expect("the key can be read")
}

async fn scan(store: &dyn Store, question: Scan) -> Vec<Entry> {
    store.scan(question).await.expect("the space can be read")
}

/// Everything a scan finds, page by page.
pub async fn scan_pages(store: &dyn Store, mut question: Scan) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let page = scan(store, question.clone()).await;
        let Some(last) = page.last().map(|entry| entry.key.clone()) else { return entries };
        assert!(page.len() <= question.page_max());
        entries.extend(page);
        if question.reverse {
            question.before = Some(last);
        } else {
            question.after = Some(last);
        }
    }
}

fn entry(key: &Key, value: &str, revision: Revision) -> Entry {
    Entry { key: key.clone(), value: Bytes::copy_from_slice(value.as_bytes()), revision }
}

fn span(first: u64, last: u64) -> Committed {
    Committed { first: Revision::new(first), last: Revision::new(last) }
}
