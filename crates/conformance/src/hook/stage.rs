//! What a check works with: an application that runs, the hook before it, requests, the oracle.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost_types::Duration as WireDuration;
use quiesce_protocol::v1::hook_info::AppState;
use quiesce_protocol::v1::start_result;
use quiesce_protocol::v1::{self, Capability, HookInfo, ShutdownRequest, StartApplicationRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::{IntoRequest, Status};
use uuid::Uuid;

use super::reports::{Reports, StartReports};
use crate::check::{Stop, Verdict, expect, tell};
use crate::fixture::Mode;
use crate::reach::Hook;
use crate::subject::{Connection, Subject, Waits};

/// Longest wait for what the contract gives no time for, on a machine that is busy with something else.
pub(crate) const PLENTY: Duration = Duration::from_secs(15);
/// Pause between two questions to the oracle.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// What reports are asked for in most checks.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);

/// Where one check is performed.
pub struct Stage {
    pub(crate) subject: Subject,
    pub(crate) capabilities: BTreeSet<Capability>,
    pub(crate) instance: String,
    /// Of the check, for names.
    id: &'static str,
    run: String,
    names: AtomicU32,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Stage {
    pub(crate) fn new(
        subject: Subject,
        capabilities: BTreeSet<Capability>,
        instance: String,
        id: &'static str,
    ) -> Self {
        let run = Uuid::new_v4().simple().to_string()[..8].to_owned();
        Self { subject, capabilities, instance, id, run, names: AtomicU32::new(0) }
    }

    pub(crate) fn waits(&self) -> Waits {
        self.subject.settings.waits
    }

    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// A name nobody has used.
    pub(crate) fn name(&self) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        format!("conf-{}-{}-{number}", self.id, self.run)
    }

    /// A request as a scheduler sends it, for a new shutdown of a new operation.
    pub(crate) fn request(&self) -> ShutdownRequest {
        let name = self.name();
        ShutdownRequest {
            operation: format!("operations/{}", name.to_ascii_lowercase()),
            instance: self.instance.clone(),
            attempt: 1,
            kind: v1::OperationKind::Migrate.into(),
            grace_period: wire(Duration::from_secs(60)),
            heartbeat_interval: wire(HEARTBEAT),
            completion_token: format!("qct1.{}", Uuid::new_v4().simple()),
            reason: "conformance check".to_owned(),
            shutdown_id: name,
            ..Default::default()
        }
    }

    /// Another attempt of the same operation.
    pub(crate) fn attempt(&self, request: &ShutdownRequest, attempt: i32) -> ShutdownRequest {
        ShutdownRequest { operation: request.operation.clone(), attempt, ..self.request() }
    }

    /// An application that runs in this mode, and the hook before it.
    pub(crate) async fn start(&self, mode: Mode) -> Result<Running<'_>, Stop> {
        self.subject.fixture.start(mode).await?;
        let end = Instant::now() + PLENTY;
        while !self.is_alive().await? {
            if Instant::now() >= end {
                let problem =
                    format!("app.start in mode {mode} was done, but app.alive does not say alive within {PLENTY:?}");
                return Err(Stop::Broken(problem));
            }
            sleep(POLL).await;
        }
        let connection = self.subject.connect().await?;
        let signals = self.subject.fixture.signals().await?;
        let mut running = Running { stage: self, connection, signals };
        // A hook that is slow to notice is no fault of these checks; I03 judges what it says.
        while Instant::now() < end {
            match running.info().await.map(|info| info.app_state()) {
                Ok(AppState::Running | AppState::Unspecified) => break,
                Ok(_other) => sleep(POLL).await,
                // The fixture may have started the hook anew: what answered was the one before.
                Err(_gone) => running.reconnect().await?,
            }
        }
        Ok(running)
    }

    pub(crate) async fn is_alive(&self) -> Result<bool, Stop> {
        Ok(self.subject.fixture.is_alive().await?)
    }

    /// Waits until the oracle says that nothing is left.
    pub(crate) async fn until_gone(&self, limit: Duration) -> Verdict {
        let end = Instant::now() + limit;
        while self.is_alive().await? {
            if Instant::now() >= end {
                return Err(Stop::failed(
                    format!("that the application ends within {limit:?}"),
                    "the oracle says it is alive",
                ));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Passes if the oracle says alive.
    pub(crate) async fn expect_alive(&self, when: &str) -> Verdict {
        expect(self.is_alive().await?, format!("an application that is alive {when}"), "the oracle says it is gone")
    }

    /// Passes if the oracle says gone.
    pub(crate) async fn expect_gone(&self, when: &str) -> Verdict {
        expect(!self.is_alive().await?, format!("that no process is left {when}"), "the oracle says it is alive")
    }
}

/// An application that was started for a check.
pub(crate) struct Running<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) connection: Connection,
    /// How often it had been told before.
    signals: u32,
}

impl Running<'_> {
    pub(crate) fn hook(&self) -> Hook {
        self.connection.hook.clone()
    }

    /// Another connection to the hook, if it listens; of one that dials in, the one there is by then.
    pub(crate) async fn reconnect(&mut self) -> Verdict {
        self.connection = self.stage.subject.connect().await?;
        Ok(())
    }

    pub(crate) async fn info(&mut self) -> Result<HookInfo, Stop> {
        let answer = timeout(PLENTY, self.connection.hook.get_hook_info(v1::GetHookInfoRequest {})).await;
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner().info.unwrap_or_default()),
            Ok(Err(status)) => Err(Stop::failed("an answer to GetHookInfo", tell(&status))),
            Err(_elapsed) => Err(Stop::failed(format!("an answer to GetHookInfo within {PLENTY:?}"), "nothing")),
        }
    }

    /// How often the application was told to stop since the check began.
    pub(crate) async fn signals(&self) -> Result<u32, Stop> {
        Ok(self.stage.subject.fixture.signals().await?.saturating_sub(self.signals))
    }

    /// Passes if it was told so often.
    pub(crate) async fn expect_signals(&self, count: u32) -> Verdict {
        let seen = self.signals().await?;
        let expected = format!("that the application is told to stop {count} times");
        expect(seen == count, expected, format!("it was told {seen} times"))
    }

    /// Waits until it was told so often.
    pub(crate) async fn until_signals(&self, count: u32) -> Verdict {
        let end = Instant::now() + PLENTY;
        while self.signals().await? < count {
            if Instant::now() >= end {
                return self.expect_signals(count).await;
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Nothing has happened to the application.
    pub(crate) async fn expect_untouched(&self, when: &str) -> Verdict {
        self.stage.expect_alive(when).await?;
        self.expect_signals(0).await
    }

    /// A call of Shutdown.
    pub(crate) async fn call(&self, request: impl IntoRequest<ShutdownRequest>) -> Result<Reports, Status> {
        Reports::of(self.hook(), request.into_request()).await
    }

    /// A call of Shutdown that the hook accepts.
    pub(crate) async fn shutdown(&self, request: ShutdownRequest) -> Result<Reports, Stop> {
        let accepted = timeout(PLENTY, self.call(request)).await;
        match accepted {
            Ok(Ok(reports)) => Ok(reports),
            Ok(Err(status)) => Err(Stop::failed("that the hook accepts the Shutdown", tell(&status))),
            Err(_elapsed) => Err(Stop::failed(format!("an answer to Shutdown within {PLENTY:?}"), "nothing")),
        }
    }

    /// A whole shutdown; its final report.
    pub(crate) async fn stop(&self, request: ShutdownRequest) -> Result<v1::ShutdownStatus, Stop> {
        self.shutdown(request).await?.result(PLENTY).await
    }

    /// A request whose epoch is above everything the hook has seen.
    pub(crate) async fn next_epoch(&mut self) -> Result<i64, Stop> {
        Ok(self.info().await?.epoch + 1)
    }

    /// StartApplication under this epoch.
    pub(crate) fn start_request(&self, epoch: i64) -> StartApplicationRequest {
        StartApplicationRequest {
            epoch,
            instance: self.stage.instance.clone(),
            operation: format!("operations/{}", self.stage.name().to_ascii_lowercase()),
            start_timeout: wire(Duration::from_secs(30)),
            heartbeat_interval: wire(HEARTBEAT),
            reason: "conformance check".to_owned(),
            ..Default::default()
        }
    }

    /// A call of StartApplication that the hook accepts.
    pub(crate) async fn begin(&self, request: StartApplicationRequest) -> Result<StartReports, Stop> {
        match timeout(PLENTY, StartReports::of(self.hook(), request)).await {
            Ok(Ok(reports)) => Ok(reports),
            Ok(Err(status)) => Err(Stop::failed("that the hook accepts the StartApplication", tell(&status))),
            Err(_elapsed) => Err(Stop::failed(format!("an answer to StartApplication within {PLENTY:?}"), "nothing")),
        }
    }

    /// Starts the stopped application again in the way that the hook has: by itself, or by the fixture.
    pub(crate) async fn start_again(&mut self, mode: Mode) -> Verdict {
        if !self.stage.has(Capability::Start) {
            let again = self.stage.start(mode).await?;
            self.connection = again.connection;
            self.signals = again.signals;
            return Ok(());
        }
        let epoch = self.next_epoch().await?;
        let status = self.begin(self.start_request(epoch)).await?.result(PLENTY).await?;
        let result = status.result.unwrap_or_default();
        expect(
            result.outcome() == start_result::Outcome::Ready,
            "OUTCOME_READY of a StartApplication with a higher epoch",
            format!("{}: {}", result.outcome().as_str_name(), result.message),
        )?;
        self.stage.expect_alive("after OUTCOME_READY").await?;
        self.signals = self.stage.subject.fixture.signals().await?;
        Ok(())
    }
}

/// On the wire.
pub(crate) fn wire(duration: Duration) -> Option<WireDuration> {
    WireDuration::try_from(duration).ok()
}
