//! How fast reports are read: what an application has to say is read at once, and those who say more share what is left.
//!
//! Each stream has an allowance of its own, for which it waits for nobody. What goes beyond it comes out of one surplus for
//! all streams together, turn by turn: a single chatty hook is read as fast as it speaks, and hundreds that flood cost
//! together what one of them does. What is not read waits in the hook's own HTTP/2 window.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Reports of one stream that are read at once: several times what an application says on its way out.
const BURST: u32 = 50;
/// Time between two reports of one stream for which it needs no surplus; nobody is shown more than four a second.
const ALLOWANCE_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two reports that are read out of the surplus: five hundred a second cost next to nothing.
const SURPLUS_INTERVAL: Duration = Duration::from_millis(2);
/// How far reading may fall behind that pace and still make up for it: a busy machine wakes nobody on time.
const SURPLUS_LAG: Duration = Duration::from_millis(200);

/// What is left for those who exceed their allowance. Clones are the same surplus.
#[derive(Debug, Clone)]
pub(super) struct Surplus {
    next: Arc<Mutex<Instant>>,
}

impl Surplus {
    pub(super) fn new() -> Self {
        Self { next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// When the caller may read its next report. Whoever asks waits for that before asking again, so all have their turn.
    fn reserve(&self) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let turn = (*next).max(now.checked_sub(SURPLUS_LAG).unwrap_or(now));
        *next = turn + SURPLUS_INTERVAL;
        turn
    }
}

/// The reading of one stream.
#[derive(Debug)]
pub(crate) struct Reading {
    surplus: Surplus,
    /// When everything that was read is made up for.
    even: Instant,
}

impl Reading {
    pub(super) fn new(surplus: Surplus) -> Self {
        Self { surplus, even: Instant::now() }
    }

    /// A report was read; resolves when the next one may be.
    pub(crate) async fn spend(&mut self) {
        let now = Instant::now();
        self.even = self.even.max(now) + ALLOWANCE_INTERVAL;
        if self.even > now + ALLOWANCE_INTERVAL * BURST {
            // Paid for by the surplus, not by its own allowance.
            self.even -= ALLOWANCE_INTERVAL;
            sleep_until(self.surplus.reserve()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_to_read(reading: &mut Reading, count: u32) -> Duration {
        let begin = Instant::now();
        for _ in 0..count {
            reading.spend().await;
        }
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_application_has_to_say_is_read_at_once() {
        let mut reading = Reading::new(Surplus::new());
        assert_eq!(time_to_read(&mut reading, BURST).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_flood_is_read_as_fast_as_the_surplus_allows() {
        let mut reading = Reading::new(Surplus::new());
        let took = time_to_read(&mut reading, BURST + 10_000).await;
        assert!(took > SURPLUS_INTERVAL * 9_000 && took < SURPLUS_INTERVAL * 11_000, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_floods_together_are_read_no_faster_than_one_and_the_modest_wait_for_none() {
        let surplus = Surplus::new();
        let begin = Instant::now();
        let floods = (0..100).map(|_| {
            let surplus = surplus.clone();
            tokio::spawn(async move { time_to_read(&mut Reading::new(surplus), BURST + 100).await })
        });
        let floods = futures::future::join_all(floods.collect::<Vec<_>>());
        let mut modest = Reading::new(surplus.clone());
        let modest = async {
            for _ in 0..20 {
                assert_eq!(time_to_read(&mut modest, 1).await, Duration::ZERO);
                tokio::time::sleep(ALLOWANCE_INTERVAL).await;
            }
        };
        tokio::join!(floods, modest);
        // Less than ten thousand, since each goes on to use its allowance.
        assert!(begin.elapsed() > SURPLUS_INTERVAL * 4_000, "{:?}", begin.elapsed());
    }
}
