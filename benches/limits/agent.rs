//! The agent: what it takes on disk, in memory, at the start, when its application ends, and when nothing happens.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use quiesce_benches::report::{Goal, Row, Unit};
use quiesce_benches::statistics::Sorted;
use quiesce_protocol::v1;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use v1::shutdown_hook_client::ShutdownHookClient;
use v1::stop_result::Outcome;

use crate::idle::{bare_victim, until_started};
use crate::process::{LIMIT, Running, Scheduler, disk_directory, program};
use crate::size::Size;
use crate::straw::{Straw, TOKEN};
use crate::{tls, victim};

const APPLICATION: &str = "app";
/// After so long an agent that has just registered is asked no more often than any other.
const CALM: Duration = Duration::from_secs(15);
/// Of the cycles, so many come before memory is looked at first.
const WARM: usize = 10;

pub(crate) async fn measure(size: &Size) -> anyhow::Result<Vec<Row>> {
    let bytes = std::fs::metadata(program("quiesce-agent")?)?.len();
    let mut rows = vec![Row::new("agent, binary", Unit::Bytes, bytes as f64).goal(Goal::AtMost(f64::from(3 << 20)))];
    rows.extend(rest(size).await?);
    rows.push(starts(size).await?);
    rows.extend(cycles(size).await?);
    rows.extend(crate::notice::measure(size).await?);
    Ok(rows)
}

fn agent(scheduler: &str, directory: &Path, flags: &[&str]) -> anyhow::Result<Running> {
    let mut command = Command::new(program("quiesce-agent")?);
    command.args(["--application", APPLICATION, "--cluster", "here", "--instance", "one", "--scheduler", scheduler]);
    command.arg("--state-dir").arg(directory.join("state")).args(flags);
    command.arg("--").arg(std::env::current_exe()?).arg("victim").envs(victim::environment(directory));
    Running::start(command, &directory.join("log"))
}

/// Memory and wake-ups of one that is connected in TLS and has nothing to do.
async fn rest(size: &Size) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir_in(disk_directory())?;
    let files = tls::files(directory.path());
    let scheduler = Scheduler::start_with(&["--tls-cert", &files.certificate, "--tls-key", &files.key]).await?;
    let agent = agent(&format!("https://{}", scheduler.address), directory.path(), &["--ca", &files.authority])?;
    until_started(directory.path()).await?;
    sleep(CALM.min(size.rest)).await;
    let before = agent.usage()?;
    sleep(size.rest).await;
    let after = agent.usage()?;
    let seconds = size.rest.as_secs_f64();
    Ok(vec![
        Row::new("agent, memory at rest, attached in TLS", Unit::Bytes, after.resident as f64)
            .goal(Goal::AtMost(2.5 * f64::from(1 << 20))),
        Row::new(
            "agent, wake-ups at rest in a minute",
            Unit::Count,
            (after.sleeps - before.sleeps) as f64 / seconds * 60.0,
        )
        .note(format!(
            "signs of life are asked for every 10 s; {:.3} ms of CPU in a minute",
            (after.cpu - before.cpu).as_secs_f64() * 1e3 / seconds * 60.0
        )),
    ])
}

/// From exec to the application's first word, with permission from a scheduler and without an agent.
async fn starts(size: &Size) -> anyhow::Result<Row> {
    let straw = Straw::serve().await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..size.starts {
        let directory = tempfile::tempdir_in(disk_directory())?;
        let begin = victim::now();
        let _agent = agent(&format!("http://{}", straw.address), directory.path(), &["--listen", "127.0.0.1:0"])?;
        until_started(directory.path()).await?;
        ours.push(took(begin, directory.path())?);
        let directory = tempfile::tempdir_in(disk_directory())?;
        let begin = victim::now();
        let _victim = bare_victim(directory.path())?;
        until_started(directory.path()).await?;
        bare.push(took(begin, directory.path())?);
    }
    let milliseconds = |durations| Sorted::of(durations).quantile(50).as_secs_f64() * 1e3;
    Ok(Row::new("agent, start of an application, p50", Unit::Milliseconds, milliseconds(ours))
        .beside("bare exec", milliseconds(bare))
        .goal(Goal::ExcessAtMost(10.0))
        .note(format!("{} times; registration, permission and the durable record of it included", size.starts)))
}

fn took(begin: Duration, directory: &Path) -> anyhow::Result<Duration> {
    Ok(victim::started(directory).pop().context("it says when it started")?.saturating_sub(begin))
}

/// Stops and starts one application under one agent again and again.
async fn cycles(size: &Size) -> anyhow::Result<Vec<Row>> {
    let mut straw = Straw::serve().await?;
    let directory = tempfile::tempdir_in(disk_directory())?;
    let agent = agent(&format!("http://{}", straw.address), directory.path(), &["--listen", "127.0.0.1:0"])?;
    until_started(directory.path()).await?;
    let endpoint = timeout(LIMIT, straw.hook.wait_for(Option::is_some)).await??.clone().unwrap_or_default();
    let mut hook = Hook::connect(&endpoint).await?;
    let mut epoch = 1;
    let mut first = None;
    for number in 0..size.cycles {
        hook.stop(number, epoch).await?;
        epoch = straw.epoch();
        hook.start(epoch).await?;
        if number == size.cycles / WARM {
            first = Some(agent.usage()?.resident);
        }
    }
    let (first, last) = (first.unwrap_or_default(), agent.usage()?.resident);
    Ok(vec![
        Row::new(
            format!("agent, growth over {} starts and stops", size.cycles),
            Unit::Bytes,
            last as f64 - first as f64,
        )
        .goal(Goal::AtMost(f64::from(64 << 10)))
        .note(format!("{} KiB of memory at the end", last >> 10)),
    ])
}

struct Hook {
    client: ShutdownHookClient<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl Hook {
    async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?.connect().await?;
        Ok(Self { client: ShutdownHookClient::new(channel), bearer: format!("Bearer {TOKEN}").parse()? })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    async fn stop(&mut self, number: usize, epoch: i64) -> anyhow::Result<()> {
        let request = self.request(v1::ShutdownRequest {
            shutdown_id: format!("cycle-{number}"),
            operation: format!("operations/op-{number}"),
            instance: format!("applications/{APPLICATION}/instances/one"),
            attempt: 1,
            kind: v1::OperationKind::Migrate.into(),
            completion_token: "straw".to_owned(),
            epoch,
            ..Default::default()
        });
        let mut reports = self.client.shutdown(request).await?.into_inner();
        while let Some(report) = timeout(LIMIT, reports.message()).await?? {
            if let Some(result) = report.status.and_then(|status| status.result) {
                anyhow::ensure!(result.outcome() == Outcome::Stopped, "{result:?}");
                return Ok(());
            }
        }
        anyhow::bail!("a shutdown without a result")
    }

    async fn start(&mut self, epoch: i64) -> anyhow::Result<()> {
        let request = self.request(v1::StartApplicationRequest {
            instance: format!("applications/{APPLICATION}/instances/one"),
            epoch,
            ..Default::default()
        });
        let mut reports = self.client.start_application(request).await?.into_inner();
        while let Some(report) = timeout(LIMIT, reports.message()).await?? {
            if let Some(result) = report.status.and_then(|status| status.result) {
                anyhow::ensure!(result.outcome() == v1::start_result::Outcome::Ready, "{result:?}");
                return Ok(());
            }
        }
        anyhow::bail!("a start without a result")
    }
}
