//! One count for all who ask at the same time: counting goes through the whole registry, and a hundred readers need one
//! count, not a hundred.
//!
//! Nobody gets a count that began before they asked, so whoever has changed something sees it counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Counts, one at a time. Clones are the same census.
pub(crate) struct Census<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// How many have asked.
    asked: AtomicU64,
    last: Mutex<Option<Last<T>>>,
}

/// The last count, good for those who had asked when it began: this many.
struct Last<T> {
    good_for: u64,
    count: Arc<T>,
}

impl<T> Clone for Census<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Census<T> {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::new(Shared { asked: AtomicU64::new(0), last: Mutex::new(None) }) }
    }

    /// A count that began after this call: somebody else's, or that of `count`.
    pub(super) async fn take<E>(&self, count: impl AsyncFnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let Shared { asked, last } = &*self.shared;
        let ticket = asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = last.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.good_for >= ticket) {
            return Ok(Arc::clone(&last.count));
        }
        let good_for = asked.load(Ordering::SeqCst);
        let count = Arc::new(count().await?);
        *last = Some(Last { good_for, count: Arc::clone(&count) });
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn those_who_ask_during_a_count_share_the_next() {
        let (census, counts) = (Census::new(), AtomicU64::new(0));
        let (census, counts) = (&census, &counts);
        let ask = |_| async move {
            let counting = async || {
                yield_now().await;
                Ok::<_, Infallible>(counts.fetch_add(1, Ordering::SeqCst) + 1)
            };
            let Ok(count) = census.take(counting).await;
            *count
        };
        let answers = join_all((0..100).map(ask)).await;
        assert_eq!(answers[0], 1);
        assert!(answers[1..].iter().all(|answer| *answer == 2), "{answers:?}");
        assert_eq!(ask(0).await, 3, "whoever asks later gets a count of its own");
    }

    #[tokio::test]
    async fn a_count_that_fails_serves_nobody() {
        let census = Census::new();
        assert_eq!(census.take(async || Err::<u8, _>("no")).await, Err("no"));
        assert_eq!(census.take(async || Ok::<u8, &str>(7)).await.as_deref(), Ok(&7));
    }
}
