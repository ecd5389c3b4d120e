//! The reports of a shutdown or a start, as they come in, and what the rules say of them as a whole.

use std::time::Duration;

use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{
    ShutdownPhase, ShutdownRequest, ShutdownStatus, StartApplicationRequest, StartApplicationResponse, StartStatus,
};
use tokio::time::{Instant, timeout};
use tonic::{Request, Status, Streaming};

use super::stage::PLENTY;
use crate::check::{Stop, tell};
use crate::reach::Hook;

/// One report.
#[derive(Debug, Clone)]
pub(crate) struct Report<S> {
    /// Since the call began.
    pub(crate) after: Duration,
    pub(crate) status: S,
}

/// What comes next.
pub(crate) enum Next<S> {
    Report(S),
    /// The call is over.
    End(Result<(), Status>),
    /// Nothing, for as long as was waited.
    Silence,
}

/// What a response of a stream holds.
pub(crate) trait Reported {
    type Status: Clone;
    fn status(self) -> Option<Self::Status>;
    fn is_final(status: &Self::Status) -> bool;
}

impl Reported for quiesce_protocol::v1::ShutdownResponse {
    type Status = ShutdownStatus;
    fn status(self) -> Option<ShutdownStatus> {
        self.status
    }
    fn is_final(status: &ShutdownStatus) -> bool {
        status.result.is_some()
    }
}

impl Reported for StartApplicationResponse {
    type Status = StartStatus;
    fn status(self) -> Option<StartStatus> {
        self.status
    }
    fn is_final(status: &StartStatus) -> bool {
        status.result.is_some()
    }
}

/// The reports of one call.
pub(crate) struct Stream<R: Reported> {
    stream: Streaming<R>,
    began: Instant,
    pub(crate) seen: Vec<Report<R::Status>>,
}

/// Of a Shutdown.
pub(crate) type Reports = Stream<quiesce_protocol::v1::ShutdownResponse>;
/// Of a StartApplication.
pub(crate) type StartReports = Stream<StartApplicationResponse>;

impl Reports {
    pub(crate) async fn of(mut hook: Hook, request: Request<ShutdownRequest>) -> Result<Self, Status> {
        let began = Instant::now();
        let stream = ShutdownHookClient::shutdown(&mut hook, request).await?.into_inner();
        Ok(Self { stream, began, seen: Vec::new() })
    }

    /// Reads until a phase at least so far on is reported, and not the end.
    pub(crate) async fn until_phase(&mut self, phase: ShutdownPhase) -> Result<ShutdownStatus, Stop> {
        let name = phase.as_str_name();
        let end = Instant::now() + PLENTY;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await {
                Next::Report(status) if status.result.is_some() => {
                    return Err(Stop::failed(format!("a report of {name}"), show(&status)));
                }
                Next::Report(status) if status.phase >= i32::from(phase) => return Ok(status),
                Next::Report(_) => {}
                Next::End(end) => {
                    return Err(Stop::failed(
                        format!("a report of {name}"),
                        format!("the call ends with {}", told(&end)),
                    ));
                }
                Next::Silence => {
                    return Err(Stop::failed(format!("a report of {name} within {PLENTY:?}"), "none comes"));
                }
            }
        }
    }

    /// The longest time without a report, up to now.
    pub(crate) fn longest_gap(&self) -> Duration {
        let until_now = self.began.elapsed();
        let ends = self.seen.iter().map(|report| report.after).chain([until_now]);
        let mut last = Duration::ZERO;
        let mut longest = Duration::ZERO;
        for end in ends {
            longest = longest.max(end.saturating_sub(last));
            last = end;
        }
        longest
    }
}

impl StartReports {
    pub(crate) async fn of(mut hook: Hook, request: StartApplicationRequest) -> Result<Self, Status> {
        let began = Instant::now();
        let stream = hook.start_application(request).await?.into_inner();
        Ok(Self { stream, began, seen: Vec::new() })
    }
}

impl<R: Reported + 'static> Stream<R> {
    /// What comes within `limit`.
    pub(crate) async fn next(&mut self, limit: Duration) -> Next<R::Status> {
        match timeout(limit, self.stream.message()).await {
            Err(_elapsed) => Next::Silence,
            Ok(Ok(None)) => Next::End(Ok(())),
            Ok(Err(status)) => Next::End(Err(status)),
            Ok(Ok(Some(response))) => match response.status() {
                // A response without a status says nothing at all, and so is no report.
                None => Next::Silence,
                Some(status) => {
                    self.seen.push(Report { after: self.began.elapsed(), status: status.clone() });
                    Next::Report(status)
                }
            },
        }
    }

    /// The next report.
    pub(crate) async fn report(&mut self, limit: Duration) -> Result<R::Status, Stop> {
        match self.next(limit).await {
            Next::Report(status) => Ok(status),
            Next::End(end) => Err(Stop::failed("a report", format!("the call ends with {}", told(&end)))),
            Next::Silence => Err(Stop::failed(format!("a report within {limit:?}"), "nothing")),
        }
    }

    /// Reads up to the final report.
    pub(crate) async fn result(&mut self, limit: Duration) -> Result<R::Status, Stop> {
        let end = Instant::now() + limit;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await {
                Next::Report(status) if R::is_final(&status) => return Ok(status),
                Next::Report(_) => {}
                Next::End(end) => {
                    return Err(Stop::failed("a report with a result", format!("the call ends with {}", told(&end))));
                }
                Next::Silence => {
                    return Err(Stop::failed(format!("a report with a result within {limit:?}"), "none comes"));
                }
            }
        }
    }

    /// Reads everything up to the end of the call.
    pub(crate) async fn rest(&mut self, limit: Duration) -> Result<Result<(), Status>, Stop> {
        let end = Instant::now() + limit;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())).await {
                Next::Report(_) => {}
                Next::End(end) => return Ok(end),
                Next::Silence => {
                    return Err(Stop::failed(format!("that the call ends within {limit:?}"), "it does not end"));
                }
            }
        }
    }
}

/// The end of a call in words.
pub(crate) fn told(end: &Result<(), Status>) -> String {
    match end {
        Ok(()) => "OK".to_owned(),
        Err(status) => tell(status),
    }
}

/// A report in words.
pub(crate) fn show(status: &ShutdownStatus) -> String {
    let phase = name_of(ShutdownPhase::try_from(status.phase).map(|phase| phase.as_str_name()), status.phase);
    let outcome = status.result.as_ref().map(|result| {
        let outcome = name_of(Outcome::try_from(result.outcome).map(|outcome| outcome.as_str_name()), result.outcome);
        format!(" with {outcome}")
    });
    format!("report {} in {phase}{}", status.sequence, outcome.unwrap_or_default())
}

fn name_of<E>(name: Result<&'static str, E>, number: i32) -> String {
    name.map_or_else(|_| format!("value {number}, which has no name"), str::to_owned)
}
