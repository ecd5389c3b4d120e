//! The scheduler itself: what it is, what time it has, how it is, and what it lets the caller do.

use std::time::SystemTime;

use quiesce_protocol::v1::{GetServerInfoRequest, GetServerInfoResponse, ListTokensRequest};
use quiesce_runtime::clock::wall_now;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::{Report, clocks};
use crate::client::{CONNECT_TIMEOUT, Client};
use crate::error::Error;

/// The major version of the contract that this program speaks.
const CONTRACT: &str = "1";
/// The service whose health is asked for.
const SERVICE: &str = "quiesce.v1.Scheduler";

/// Who calls, as far as this side knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) has_token: bool,
    pub(crate) has_certificate: bool,
    pub(crate) is_loopback: bool,
}

/// What the scheduler lets the caller do, as it has said itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Admin,
    /// Operator or viewer: what a dry run is answered with tells.
    Lesser,
}

/// What is known of a scheduler that answers.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) role: Role,
    /// The time there.
    pub(crate) now: SystemTime,
}

/// Asks it for itself; none if there is no point in asking it for anything else.
pub(crate) async fn check(client: &Client, caller: Caller, report: &mut Report) -> Option<Answered> {
    let before = wall_now();
    let asked = timeout(CONNECT_TIMEOUT, client.api().get_server_info(GetServerInfoRequest {})).await;
    let answer = asked.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) => {
            refused(client, status, caller, report).await;
            return None;
        }
    };
    let after = wall_now();
    let ours = before + after.duration_since(before).unwrap_or_default() / 2;
    let theirs = date(answer.metadata());
    if !about(answer.get_ref(), report) {
        return None;
    }
    match theirs {
        Some(theirs) => clocks::of_scheduler(theirs, ours, report),
        None => {
            report.warning("clock", "the answer does not say what time it is there", "compare: date -u, here and there")
        }
    }
    health(client, report).await;
    let role = role(client, caller, report).await;
    Some(Answered { role, now: theirs.unwrap_or(ours) })
}

/// Whether it is a scheduler that this program can talk to.
fn about(info: &GetServerInfoResponse, report: &mut Report) -> bool {
    let GetServerInfoResponse { implementation, implementation_version, protocol_version, .. } = info;
    let what =
        format!("{implementation} {implementation_version}, which speaks version {protocol_version} of the contract");
    let major = protocol_version.split('.').next().unwrap_or_default();
    if major != CONTRACT {
        let next = format!("install a quiesce of that version; this is {}", env!("CARGO_PKG_VERSION"));
        report.problem("scheduler", format!("{what}; this program speaks {CONTRACT}"), next);
        return false;
    }
    if implementation_version != env!("CARGO_PKG_VERSION") {
        let what = format!("{what}; this program is {}", env!("CARGO_PKG_VERSION"));
        report.ok("scheduler", format!("{what}, which is no obstacle"));
    } else {
        report.ok("scheduler", what);
    }
    true
}

/// When the answer was made, by the header that HTTP has for that.
fn date(metadata: &MetadataMap) -> Option<SystemTime> {
    httpdate::parse_http_date(metadata.get("date")?.to_str().ok()?).ok()
}

async fn refused(client: &Client, status: Status, caller: Caller, report: &mut Report) {
    if let Some(error) = client.wrong_scheme(&status).await {
        return report.error("tls", &error);
    }
    match status.code() {
        Code::Unauthenticated => {
            let (what, next) = match (caller.has_token, caller.has_certificate) {
                (false, false) => (
                    "the scheduler wants to know who calls, and nobody was named",
                    "--token-file FILE; the first token is admin.token in the scheduler's data directory",
                ),
                (true, _) => (
                    "the scheduler does not know this token: it is revoked, expired, or of another scheduler",
                    "an admin makes a new one: quiesce token create --role operator --out FILE",
                ),
                (false, true) => (
                    "the scheduler takes the certificate for nobody's it knows",
                    "add its name to access.principals of the scheduler, or use a token: --token-file FILE",
                ),
            };
            report.problem("access", what, next);
        }
        Code::Unimplemented | Code::NotFound => {
            let what = "what answers speaks gRPC but is no scheduler of Quiesce";
            report.problem("scheduler", what, "correct the port in --scheduler or QUIESCE_SCHEDULER");
        }
        _ => report.error("scheduler", &Error::rpc("talk to the scheduler", status)),
    }
}

async fn health(client: &Client, report: &mut Report) {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let look = "read its log; on its host: curl http://127.0.0.1:7601/readyz";
    match timeout(CONNECT_TIMEOUT, client.health().check(request)).await {
        Ok(Ok(answer)) => match answer.get_ref().status() {
            ServingStatus::Serving => report.ok("health", "it serves, and its store takes changes"),
            ServingStatus::NotServing => {
                report.problem(
                    "health",
                    "it takes no changes: its store is full or has failed, or it is stopping",
                    look,
                );
            }
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
                report.warning("health", "it does not say how it is", look);
            }
        },
        // Another implementation need not have that service.
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            report.warning("health", "it does not say how it is", look);
        }
        Ok(Err(status)) => report.error("health", &Error::rpc("ask for its health", status)),
        Err(_) => report.problem("health", "it does not say in time how it is", look),
    }
}

/// Listing tokens is for admins: nothing else tells them from others, and it changes nothing.
async fn role(client: &Client, caller: Caller, report: &mut Report) -> Role {
    let request = ListTokensRequest { page_size: 1, ..ListTokensRequest::default() };
    let role = match timeout(CONNECT_TIMEOUT, client.access().list_tokens(request)).await {
        Ok(Ok(_)) => Role::Admin,
        Ok(Err(_)) | Err(_) => Role::Lesser,
    };
    if caller.has_token || caller.has_certificate {
        if role == Role::Admin {
            report.ok("access", "you are an admin");
        }
    } else if caller.is_loopback {
        report.ok("access", "open: everybody on this machine may do everything");
    } else {
        let what = "open: everybody who reaches this address may do everything";
        report.warning(
            "access",
            what,
            "start the scheduler with --access enforced, and make tokens: quiesce token create",
        );
    }
    role
}
