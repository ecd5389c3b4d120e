//! Whole operations: accepted, checked, shut down with three reports, verified, over; every change durable, one watcher.

use std::net::SocketAddr;
use std::time::Instant;

use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::median;

use crate::callers::{Callers, Watcher};
use crate::hooks::Hooks;
use crate::process::{Running, Scheduler, disk_directory, role};
use crate::size::Size;
use crate::skeleton::LISTENS;

/// A skeleton that sends events such as `sample`, so many for each operation.
pub(crate) struct Bones {
    _running: Running,
    _directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

impl Bones {
    pub(crate) async fn start(hook: SocketAddr, sample: &[u8], events: usize) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(disk_directory())?;
        let event = directory.path().join("event");
        std::fs::write(&event, sample)?;
        let words = ["skeleton", &hook.to_string(), &event.display().to_string(), &events.to_string()];
        let mut running = Running::start(role(&words)?, &directory.path().join("log"))?;
        let line = running.says(LISTENS).await?;
        let address = line.trim_start_matches(LISTENS).parse()?;
        Ok(Self { _running: running, _directory: directory, address })
    }
}

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let hooks = Hooks::new(true);
    let listening = hooks.listen().await?;
    let scheduler = Scheduler::start().await?;
    let callers = Callers::connect(scheduler.address).await?;
    let watcher = Watcher::begin(scheduler.address).await?;
    callers.create("first", size.callers, listening.address).await?;
    callers.run("first", size.callers, size.callers, &watcher).await?;
    let first = watcher.seen();
    let events = first.events.div_ceil(size.callers);

    let bones = Bones::start(listening.address, &first.sample, events).await?;
    let bare_callers = Callers::connect(bones.address).await?;
    let bare_watcher = Watcher::begin(bones.address).await?;
    let (mut ours, mut bare, mut cpu, mut asked) = (Vec::new(), Vec::new(), 0.0, 0);
    for round in 0..size.rounds {
        let prefix = format!("round-{round}");
        callers.create(&prefix, size.whole, listening.address).await?;
        let (before, asked_before) = (scheduler.running.usage()?, hooks.asked());
        ours.push(rate(&callers, &prefix, size, &watcher).await?);
        cpu += (scheduler.running.usage()?.cpu - before.cpu).as_secs_f64();
        asked += hooks.asked() - asked_before;
        bare.push(rate(&bare_callers, &prefix, size, &bare_watcher).await?);
    }
    let total = (size.rounds * size.whole) as f64;
    let middle = |values| median(values).unwrap_or_default();
    let note = format!(
        "{events} events an operation; {:.0} us CPU of the scheduler and {:.1} calls of GetHookInfo for each",
        cpu / total * 1e6,
        asked as f64 / total
    );
    Ok(vec![
        Row::new(format!("whole operations, {} callers", size.callers), Unit::PerSecond, middle(ours))
            .beside("skeleton: the same calls, empty handlers, no store", middle(bare))
            .goal(Goal::RatioAtLeast(0.5))
            .note(note),
    ])
}

async fn rate(callers: &Callers, prefix: &str, size: &Size, watcher: &Watcher) -> anyhow::Result<f64> {
    let begin = Instant::now();
    callers.run(prefix, size.whole, size.callers, watcher).await?;
    Ok(size.whole as f64 / begin.elapsed().as_secs_f64())
}
