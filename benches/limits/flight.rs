//! Many operations in flight at the same time, a crash in the middle of them, and the end of all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_store::embedded::{EmbeddedStore, Options};
use quiesce_store::{SCAN_MAX, Scan, Space, Store};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::callers::{Callers, Watcher};
use crate::hooks::Hooks;
use crate::process::Scheduler;
use crate::size::Size;

/// Longest wait for all of them, several times what it takes.
const LIMIT: Duration = Duration::from_secs(600);
/// So long it is quiet before memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

struct Flight {
    /// From the first call to all hooks told, and from their release to all over.
    took: Duration,
    bytes: f64,
    stored: f64,
}

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let [few, many] = size.in_flight;
    let mut rows = Vec::new();
    let (small, _) = fly(few, false).await?;
    let (large, recovery) = fly(many, true).await?;
    let each = |flight: &Flight, count: usize| flight.took.as_secs_f64() * 1e6 / count as f64;
    rows.push(
        Row::new(format!("in flight, {many} at once, scheduler's memory for each"), Unit::Bytes, large.bytes)
            .goal(Goal::AtMost(8.0 * 1024.0))
            .note(format!("{:.0} bytes for each of {few}; {:.0} bytes of file for each", small.bytes, large.stored)),
    );
    rows.push(
        Row::new(format!("in flight, {many} at once, time for each"), Unit::Microseconds, each(&large, many))
            .beside(format!("the same with {few}"), each(&small, few))
            .goal(Goal::RatioAtMost(1.5)),
    );
    rows.extend(recovery);
    Ok(rows)
}

async fn fly(count: usize, crash: bool) -> anyhow::Result<(Flight, Vec<Row>)> {
    let hooks = Hooks::new(false);
    let listening = hooks.listen().await?;
    let mut scheduler = Scheduler::start().await?;
    let callers = Callers::connect(scheduler.address).await?;
    let watcher = Watcher::begin(scheduler.address).await?;
    let before = scheduler.running.usage()?.resident;
    callers.create("app", count, listening.address).await?;
    let registered = scheduler.running.usage()?.resident;
    let begin = Instant::now();
    callers.open("app", count).await?;
    timeout(LIMIT, hooks.told_times(count)).await??;
    let mut took = begin.elapsed();
    sleep(SETTLE).await;
    let resident = scheduler.running.usage()?.resident;
    eprintln!(
        "  {count} in flight: {took:.1?}; KiB resident: {} before, {} registered, {} in flight",
        before >> 10,
        registered >> 10,
        resident >> 10
    );
    let bytes = resident.saturating_sub(before) as f64 / count as f64;
    let stored = size_of_files(&scheduler.data())? as f64 / count as f64;
    let mut rows = Vec::new();
    let watcher = if crash {
        let (found, again) = recover(&mut scheduler, &hooks, count).await?;
        rows = found;
        drop(watcher);
        again
    } else {
        watcher
    };
    let begin = Instant::now();
    hooks.release(true);
    timeout(LIMIT, watcher.all_over(count)).await??;
    took += begin.elapsed();
    eprintln!("  all over after {:.1?}", begin.elapsed());
    Ok((Flight { took, bytes, stored }, rows))
}

async fn recover(scheduler: &mut Scheduler, hooks: &Hooks, count: usize) -> anyhow::Result<(Vec<Row>, Watcher)> {
    scheduler.crash()?;
    let told = hooks.told().borrow().0;
    // The bare scan goes first, and leaves the file in the page cache for the other.
    let begin = Instant::now();
    let bare = scan(scheduler, count).await?;
    let opened = begin.elapsed();
    let begin = Instant::now();
    scheduler.start_again().await?;
    let served = begin.elapsed();
    timeout(LIMIT, hooks.told_times(told + count)).await??;
    let joined = begin.elapsed();
    anyhow::ensure!(scheduler.resumed == count, "{} of {count} resumed", scheduler.resumed);
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let watcher = Watcher::begin(scheduler.address).await?;
    let rows = vec![
        Row::new(
            format!("recovery, restart with {count} in flight, until all are resumed and served"),
            Unit::Milliseconds,
            milliseconds(served),
        )
        .beside("bare: the store opened and its operations read", milliseconds(opened))
        .goal(Goal::RatioAtMost(3.0))
        .note(format!("of the bare one, reading took {:.0} ms", milliseconds(bare))),
        Row::new(
            format!("recovery, until all {count} hooks are joined again"),
            Unit::Milliseconds,
            milliseconds(joined),
        )
        .note("deliberately slow: a restart must not throw everything at the network at once"),
    ];
    Ok((rows, watcher))
}

/// Opens the store and reads every operation; how long the reading took.
async fn scan(scheduler: &Scheduler, count: usize) -> anyhow::Result<Duration> {
    let store = Arc::new(EmbeddedStore::open(&scheduler.data(), &Options::new(Uuid::new_v4()))?);
    let begin = Instant::now();
    let (mut found, mut scan) = (0, Scan::all(Space::Operations));
    loop {
        let page = store.scan(scan.clone()).await?;
        found += page.len();
        match page.last() {
            Some(last) if page.len() == SCAN_MAX => scan.after = Some(last.key.clone()),
            _ => break,
        }
    }
    let took = begin.elapsed();
    anyhow::ensure!(found == count, "{found} operations, not {count}");
    Ok(took)
}

fn size_of_files(directory: &std::path::Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(directory)? {
        let metadata = entry?.metadata()?;
        total += if metadata.is_file() { metadata.len() } else { 0 };
    }
    Ok(total)
}
