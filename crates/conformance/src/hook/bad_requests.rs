//! B: requests that must not be served.

use quiesce_protocol::v1::ShutdownRequest;
use quiesce_protocol::v1::stop_result::Outcome;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::reports::{Next, show, told};
use super::stage::{PLENTY, Running, Stage};
use crate::check::{Check, Level, Need, Stop, Verdict, expect, reason, refused, tell};
use crate::fixture::Mode;
use crate::rules;

/// Longest shutdown_id of the contract.
const ID_MAX: usize = 128;
/// An instance nobody serves.
const FOREIGN: &str = "applications/somebody-else/instances/somebody-else-0";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "B01",
        level: Level::Must,
        title: "an empty shutdown_id is INVALID_ARGUMENT, and does nothing",
        rule: rules::SHUTDOWN_ID,
        advice: "Check the request before you do anything.",
        needs: &[],
        run: |stage| Box::pin(empty_id(stage)),
    },
    Check {
        id: "B02",
        level: Level::Should,
        title: "a shutdown_id of 129 characters, or with a space, is INVALID_ARGUMENT",
        rule: rules::SHUTDOWN_ID,
        advice: "Check length and characters; ids end up in file names and logs.",
        needs: &[],
        run: |stage| Box::pin(malformed_id(stage)),
    },
    Check {
        id: "B03",
        level: Level::Must,
        title: "a foreign instance is FAILED_PRECONDITION / WRONG_INSTANCE, and does nothing",
        rule: rules::H13,
        advice: "Compare ShutdownRequest.instance with your own name before you do anything.",
        needs: &[Need::Instance],
        run: |stage| Box::pin(foreign_instance(stage)),
    },
    Check {
        id: "B04",
        level: Level::Should,
        title: "errors carry google.rpc.ErrorInfo with the domain quiesce.v1",
        rule: rules::ERRORS,
        advice: "Fill grpc-status-details-bin with google.rpc.Status; every gRPC library has a package for it.",
        needs: &[],
        run: |stage| Box::pin(error_info(stage)),
    },
    Check {
        id: "B05",
        level: Level::Should,
        title: "mode untouchable: STILL_RUNNING, UNKNOWN or NOT_STOPPABLE, never STOPPED",
        rule: rules::H8,
        advice: "A signal that could not be sent is a result, STILL_RUNNING.",
        needs: &[Need::Mode(Mode::Untouchable)],
        run: |stage| Box::pin(untouchable(stage)),
    },
];

/// How the hook refuses the request, which it is expected to do at once.
pub(super) async fn refusal(running: &Running<'_>, request: ShutdownRequest) -> Result<Result<(), Status>, Stop> {
    match timeout(PLENTY, running.call(request)).await {
        Err(_elapsed) => Err(Stop::failed("a refusal", format!("nothing for {PLENTY:?}"))),
        Ok(Err(status)) => Ok(Err(status)),
        // An error may come instead of the first report.
        Ok(Ok(mut reports)) => match reports.next(PLENTY).await {
            Next::Report(_) => Ok(Ok(())),
            Next::End(end) => Ok(end),
            Next::Silence => Err(Stop::failed("a refusal", format!("nothing for {PLENTY:?}"))),
        },
    }
}

async fn empty_id(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = ShutdownRequest { shutdown_id: String::new(), ..stage.request() };
    refused(refusal(&running, request).await?, &[Code::InvalidArgument], "INVALID_FIELD")?;
    running.expect_untouched("after a request that was refused").await
}

async fn malformed_id(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    for shutdown_id in ["a".repeat(ID_MAX + 1), "with space".to_owned()] {
        let request = ShutdownRequest { shutdown_id, ..stage.request() };
        refused(refusal(&running, request).await?, &[Code::InvalidArgument], "INVALID_FIELD")?;
    }
    running.expect_untouched("after requests that were refused").await
}

async fn foreign_instance(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = ShutdownRequest { instance: FOREIGN.to_owned(), ..stage.request() };
    refused(refusal(&running, request).await?, &[Code::FailedPrecondition], "WRONG_INSTANCE")?;
    running.expect_untouched("after a request for another instance").await
}

async fn error_info(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Fast).await?;
    let request = ShutdownRequest { shutdown_id: String::new(), ..stage.request() };
    let expected = "an error with ErrorInfo, domain quiesce.v1, reason INVALID_FIELD";
    let Err(status) = refusal(&running, request).await? else { return Err(Stop::failed(expected, "no error")) };
    let domain = status.get_details_error_info().map(|info| info.domain);
    let fits = domain.as_deref() == Some(quiesce_protocol::ERROR_DOMAIN);
    expect(fits && reason(&status).as_deref() == Some("INVALID_FIELD"), expected, tell(&status))
}

async fn untouchable(stage: &Stage) -> Verdict {
    let running = stage.start(Mode::Untouchable).await?;
    let expected = "OUTCOME_STILL_RUNNING, OUTCOME_UNKNOWN, or FAILED_PRECONDITION NOT_STOPPABLE";
    let mut reports = match running.call(stage.request()).await {
        Err(status) => return refused::<()>(Err(status), &[Code::FailedPrecondition], "NOT_STOPPABLE"),
        Ok(reports) => reports,
    };
    let end = Instant::now() + PLENTY;
    while Instant::now() < end {
        match reports.next(PLENTY).await {
            Next::Report(status) => {
                let Some(result) = &status.result else { continue };
                let fits = matches!(result.outcome(), Outcome::StillRunning | Outcome::Unknown);
                return expect(fits, expected, show(&status));
            }
            Next::End(Err(status)) => return refused::<()>(Err(status), &[Code::FailedPrecondition], "NOT_STOPPABLE"),
            Next::End(end) => return Err(Stop::failed(expected, format!("the call ends with {}", told(&end)))),
            Next::Silence => return Err(Stop::failed(expected, "nothing comes")),
        }
    }
    Err(Stop::failed(format!("{expected} within {PLENTY:?}"), "reports without a result"))
}
