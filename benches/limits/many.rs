//! Fifty at once, with real agents and applications: what Krake was measured with.

use std::time::{Duration, Instant};

use quiesce_benches::report::{Goal, Row, Unit};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::callers::{Callers, Watcher};
use crate::idle::{agent, bare_victim, until_started};
use crate::process::{Running, Scheduler, disk_directory};
use crate::size::Size;

/// So long everything rests before it begins: what has just registered is looked at more often at first.
const SETTLE: Duration = Duration::from_secs(12);

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let count = size.at_once;
    // The applications' own time: as many, told by a signal, without anybody in between.
    let mut bare = Vec::new();
    for _ in 0..count {
        let directory = tempfile::tempdir_in(disk_directory())?;
        bare.push((bare_victim(directory.path())?, directory));
    }
    for (_, directory) in &bare {
        until_started(directory.path()).await?;
    }
    sleep(Duration::from_millis(200)).await;
    let begin = Instant::now();
    for (victim, _) in &bare {
        victim.signal(Signal::TERM)?;
    }
    for (victim, _) in &mut bare {
        victim.ended().await?;
    }
    let own = begin.elapsed();

    let scheduler = Scheduler::start().await?;
    let callers = Callers::connect(scheduler.address).await?;
    let watcher = Watcher::begin(scheduler.address).await?;
    let mut agents: Vec<(Running, TempDir)> = Vec::new();
    for number in 0..count {
        let directory = tempfile::tempdir_in(disk_directory())?;
        agents.push((agent(&scheduler, &format!("app-{number}"), directory.path())?, directory));
    }
    for (_, directory) in &agents {
        until_started(directory.path()).await?;
    }
    if count > 10 {
        sleep(SETTLE).await;
    }
    let before = scheduler.running.usage()?;
    let begin = Instant::now();
    callers.run("app", count, count, &watcher).await?;
    let took = begin.elapsed();
    let after = scheduler.running.usage()?;
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    Ok(vec![
        Row::new(format!("{count} deleted at once, real agents"), Unit::Milliseconds, milliseconds(took))
            .beside("the same applications, told by a bare signal", milliseconds(own))
            .goal(Goal::ExcessAtMost(50.0))
            .note("Krake: 33.5 s"),
        Row::new(
            "CPU of the scheduler for each of them",
            Unit::Milliseconds,
            milliseconds(after.cpu - before.cpu) / count as f64,
        )
        .goal(Goal::AtMost(1.0))
        .note("Krake: 1.0 s"),
        Row::new("memory of the scheduler beside them", Unit::Bytes, after.resident as f64)
            .goal(Goal::AtMost(f64::from(20 << 20)))
            .note("Krake: 540 MiB"),
    ])
}
