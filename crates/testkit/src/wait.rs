//! Waiting for a condition, at most so long, with a message that says what was missing.

use std::fmt::Display;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How often a condition is looked at: often enough not to be felt, seldom enough to leave two cores to the tested.
const INTERVAL: Duration = Duration::from_millis(10);

/// What a predicate may answer: `bool`, `Option` or `Result`. An error is not the end but the reason shown should
/// the wait fail: "not yet, because".
pub trait Verdict {
    /// What [`eventually`] returns once the condition holds.
    type Value;

    /// The value, or what was seen instead.
    fn into_result(self) -> Result<Self::Value, String>;
}

impl Verdict for bool {
    type Value = ();

    fn into_result(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Verdict for Option<T> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Verdict for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Asks `predicate` again and again until it holds, and returns what it found.
///
/// The wait is on a level, not on an edge: it does not matter whether the condition came true before or during the
/// wait, or how often something changed. `what` completes the sentence "waited for ...".
///
/// # Panics
/// When the condition does not hold within `limit`, with the place of the call and what was seen last. A predicate
/// that hangs counts as one that does not hold.
#[track_caller]
pub fn eventually<P, F>(
    what: impl Display,
    limit: Duration,
    mut predicate: P,
) -> impl Future<Output = <F::Output as Verdict>::Value>
where
    P: FnMut() -> F,
    F: Future,
    F::Output: Verdict,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut last = None;
        loop {
            match timeout_at(deadline, predicate()).await.map(Verdict::into_result) {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => last = Some(seen),
                Err(_elapsed) => {
                    let last = last.as_deref().unwrap_or("no answer at all");
                    panic!("{caller}: waited {limit:?} for {what}; the last look did not return, before it: {last}");
                }
            }
            if Instant::now() + INTERVAL > deadline {
                let last = last.as_deref().unwrap_or_default();
                panic!("{caller}: waited {limit:?} for {what}; seen last: {last}");
            }
            sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn failure<F: Future<Output = ()> + Send + 'static>(wait: F) -> String {
        let panic = tokio::spawn(wait).await.unwrap_err().into_panic();
        *panic.downcast::<String>().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn returns_what_the_predicate_found() {
        let mut looks = 0;
        let found = eventually("the third look", LIMIT, || {
            looks += 1;
            ready((looks == 3).then_some(looks))
        });
        assert_eq!(found.await, 3);
        eventually("what is so already", Duration::ZERO, || ready(true)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn failing_tells_place_limit_subject_and_what_was_seen_last() {
        let message = failure(eventually("the agent to hold", LIMIT, || ready(Err::<(), _>("state is RUNNING")))).await;
        assert!(message.contains("wait.rs"), "{message}");
        assert!(message.ends_with("waited 10s for the agent to hold; seen last: state is RUNNING"), "{message}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_predicate_that_hangs_does_not_hang_the_test() {
        let message = failure(eventually("an answer", LIMIT, pending::<bool>)).await;
        assert!(message.ends_with("the last look did not return, before it: no answer at all"), "{message}");
    }
}
