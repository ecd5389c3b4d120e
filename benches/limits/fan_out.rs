//! Many watchers: what reaches them in a second, and what operations pay for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::{Sorted, median};
use quiesce_protocol::v1;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Streaming;

use crate::callers::{Callers, Watcher, connect};
use crate::hooks::Hooks;
use crate::plain;
use crate::process::{LIMIT, Scheduler};
use crate::size::Size;
use crate::skeleton::GO;
use crate::whole::Bones;

/// Watchers on one connection; a scheduler takes 256 streams on each.
const PER_CONNECTION: usize = 100;
/// Operations begin so often while it is measured what watchers cost them: some ten thousand events a second for a thousand
/// watchers, which a site of this size has in a bad hour.
const PACE: Duration = Duration::from_millis(500);
/// Operations that are timed at that pace.
const PACED: usize = 40;

struct Crowd(Vec<Streaming<Bytes>>);

impl Crowd {
    async fn gather(address: SocketAddr, count: usize, filter: &str) -> anyhow::Result<Self> {
        let mut watches = Vec::with_capacity(count);
        for first in (0..count).step_by(PER_CONNECTION) {
            let channel = connect(address).await?;
            for _ in first..count.min(first + PER_CONNECTION) {
                watches.push(plain::watch(channel.clone(), filter).await?);
            }
        }
        Ok(Self(watches))
    }

    /// Everybody reads until he has seen `last`; how many messages came, of those that are counted.
    async fn read(self, last: &watch::Receiver<u64>) -> anyhow::Result<usize> {
        let mut reading = JoinSet::new();
        for mut events in self.0 {
            let mut last = last.clone();
            reading.spawn(async move {
                let (mut count, mut revision) = (0, 0);
                loop {
                    tokio::select! {
                        biased;
                        event = events.next() => {
                            let Some(event) = event.transpose()? else { return anyhow::Ok(count) };
                            count += 1;
                            revision = plain::revision(&event).max(revision);
                        }
                        Ok(()) = last.changed() => {}
                    }
                    if revision >= *last.borrow_and_update() {
                        return Ok(count);
                    }
                }
            });
        }
        let mut total = 0;
        while let Some(count) = timeout(LIMIT, reading.join_next()).await? {
            total += count??;
        }
        Ok(total)
    }
}

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let hooks = Hooks::new(true);
    let listening = hooks.listen().await?;
    let scheduler = Scheduler::start().await?;
    let callers = Callers::connect(scheduler.address).await?;
    let watcher = Watcher::begin(scheduler.address).await?;
    callers.create("first", 1, listening.address).await?;
    callers.run("first", 1, 1, &watcher).await?;
    let sample = watcher.seen().sample;
    let bones = Bones::start(listening.address, &sample, 1).await?;
    let bare_callers = Callers::connect(bones.address).await?;

    let (mut ours, mut bare, mut resident) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..size.rounds {
        let prefix = format!("round-{round}");
        callers.create(&prefix, size.watched, listening.address).await?;
        let before = scheduler.running.usage()?.resident;
        let crowd = Crowd::gather(scheduler.address, size.watchers, "").await?;
        resident = scheduler.running.usage()?.resident.saturating_sub(before) as f64 / size.watchers as f64;
        let (sender, last) = watch::channel(u64::MAX);
        let begin = Instant::now();
        let reading = tokio::spawn(async move { crowd.read(&last).await });
        callers.run(&prefix, size.watched, size.callers, &watcher).await?;
        sender.send_replace(watcher.seen().revision);
        let count = reading.await??;
        ours.push(count as f64 / begin.elapsed().as_secs_f64());

        let each = count / size.watchers;
        let crowd = Crowd::gather(bones.address, size.watchers, &each.to_string()).await?;
        let (_sender, never) = watch::channel(u64::MAX);
        let begin = Instant::now();
        bare_callers.scheduler(0).get_operation(v1::GetOperationRequest { name: GO.to_owned() }).await?;
        let count = crowd.read(&never).await?;
        bare.push(count as f64 / begin.elapsed().as_secs_f64());
    }
    let middle = |values| median(values).unwrap_or_default();
    let mut rows = vec![
        Row::new(format!("fan-out, {} watchers of everything", size.watchers), Unit::PerSecond, middle(ours))
            .beside("bare tonic: as many streams of the same bytes, encoded beforehand", middle(bare))
            .goal(Goal::RatioAtLeast(0.5))
            .note(format!("{} bytes an event; {resident:.0} bytes of memory for a watcher that waits", sample.len())),
    ];

    let paced = size.watched.min(PACED);
    callers.create("alone", paced, listening.address).await?;
    let alone = pace(&callers, "alone", paced, &watcher).await?;
    callers.create("watched", paced, listening.address).await?;
    let crowd = Crowd::gather(scheduler.address, size.watchers, "").await?;
    let (sender, last) = watch::channel(u64::MAX);
    let reading = tokio::spawn(async move { crowd.read(&last).await });
    let watched = pace(&callers, "watched", paced, &watcher).await?;
    sender.send_replace(watcher.seen().revision);
    reading.await??;
    rows.push(
        Row::new(
            format!("fan-out, an operation beside {} watchers, p50", size.watchers),
            Unit::Microseconds,
            alone_or(&watched),
        )
        .beside("the same beside one watcher", alone_or(&alone))
        .goal(Goal::RatioAtMost(1.1))
        .note(format!("{:.0} operations a second", 1.0 / PACE.as_secs_f64())),
    );
    Ok(rows)
}

fn alone_or(times: &Sorted) -> f64 {
    times.quantile(50).as_secs_f64() * 1e6
}

/// Operations one after the other at a steady pace; how long each took.
async fn pace(callers: &Callers, prefix: &str, count: usize, watcher: &Watcher) -> anyhow::Result<Sorted> {
    let mut ticks = interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        ticks.tick().await;
        let begin = Instant::now();
        let operation = callers.delete(number, &format!("{prefix}-{number}")).await?;
        watcher.over(&operation).await?;
        times.push(begin.elapsed());
    }
    Ok(Sorted::of(times))
}
