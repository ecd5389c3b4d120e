//! What can go wrong, said to a person: what failed, why, and the next thing to type.
//!
//! Owns the reading of gRPC errors (ErrorInfo, field violations) and the advice for each reason of the contract. It
//! decides nothing: retrying is the business of [`crate::client`], exit codes are that of [`crate::commands`].

use std::collections::HashMap;
use std::io;

use quiesce_protocol::ERROR_DOMAIN;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::ConnectError;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::name;
use crate::output::text;

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection at all.
    #[error("cannot reach the scheduler at {url}")]
    Unreachable {
        url: String,
        #[source]
        source: tonic::transport::Error,
    },
    /// Not an address.
    #[error("{url:?} is no address of a scheduler: {why}")]
    Address { url: String, why: String },
    /// The scheduler said no, or nothing.
    #[error("cannot {what}: {}", text::clean(.status.message()))]
    Rpc {
        what: String,
        status: Box<Status>,
        /// The request's id, where repeating with it is safe.
        request_id: Option<String>,
        /// The application the request was about, by its short name.
        application: Option<String>,
    },
    /// A watch that could not be restored.
    #[error("lost sight of {what}: {why}")]
    WatchLost { what: String, why: String, resume: String },
    /// What was given to us cannot be used.
    #[error("{problem}")]
    Input { problem: String, advice: Vec<String> },
    /// Several objects of a file could not be applied; each has been reported.
    #[error("{failed} of {total} objects were not applied")]
    Apply { failed: usize, total: usize },
    /// The terminal, a pipe, or this process itself failed us.
    #[error("input or output failed")]
    Io(#[from] io::Error),
}

impl Error {
    /// What was given cannot be used.
    pub(crate) fn input(problem: impl Into<String>) -> Self {
        Self::Input { problem: problem.into(), advice: Vec::new() }
    }

    /// Wraps a refused call.
    pub(crate) fn rpc(what: impl Into<String>, status: Status) -> Self {
        Self::Rpc { what: what.into(), status: Box::new(status), request_id: None, application: None }
    }

    /// Remembers the id under which the request may safely be repeated.
    pub(crate) fn with_request_id(mut self, id: &str) -> Self {
        if let Self::Rpc { request_id, .. } = &mut self {
            *request_id = Some(id.to_owned());
        }
        self
    }

    /// Remembers which application the request was about, for the advice.
    pub(crate) fn with_application(mut self, name: &str) -> Self {
        if let Self::Rpc { application, .. } = &mut self {
            *application = Some(name.to_owned());
        }
        self
    }

    /// Whether this is the refusal with that reason.
    pub(crate) fn is_reason(&self, reason: &str) -> bool {
        match self {
            Self::Rpc { status, .. } => Reason::of(status).is_some_and(|info| info.reason == reason),
            Self::Unreachable { .. }
            | Self::Address { .. }
            | Self::WatchLost { .. }
            | Self::Input { .. }
            | Self::Apply { .. }
            | Self::Io(_) => false,
        }
    }

    /// The error in one line, and what to do about it: [`Error::lines`] for a list of findings.
    pub(crate) fn finding(&self) -> (String, Option<String>) {
        let mut lines = self.lines().into_iter();
        let what = lines.next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
        let next: Vec<_> = lines.map(|line| line.trim().trim_start_matches("next: ").to_owned()).collect();
        (what, Some(next.join("; ")).filter(|next| !next.is_empty()))
    }

    /// Whether the reader of our output has gone, which is no reason to complain.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The lines to print: the error, then indented what is wrong in detail and what to do.
    pub(crate) fn lines(&self) -> Vec<String> {
        if matches!(self, Self::Apply { total: 1, .. }) {
            // The object's own error has said it.
            return Vec::new();
        }
        let mut first = format!("error: {self}");
        let mut rest = Vec::new();
        match self {
            Self::Unreachable { source, .. } => match tls_error(source) {
                // It says itself what to do.
                Some(error) => first = format!("{first}: {}", chain(error)),
                None => {
                    first = format!("{first}: {}", innermost(source));
                    rest.push("start one with `quiesce scheduler`, or set --scheduler or QUIESCE_SCHEDULER".to_owned());
                }
            },
            Self::Address { .. } => rest.push("write it like http://127.0.0.1:7600".to_owned()),
            Self::Rpc { status, request_id, application, .. } => {
                let info = Reason::of(status);
                match &info {
                    Some(info) => first.push_str(&format!(" ({})", info.reason)),
                    None => match not_let_in(status) {
                        Some(why) => first = format!("error: {why}"),
                        None => first.push_str(&format!(" ({:?})", status.code())),
                    },
                }
                let violations = status.get_details_bad_request().map(|it| it.field_violations).unwrap_or_default();
                // The message may be the only violation already.
                let said = |description: &str| violations.len() == 1 && status.message().contains(description);
                rest.extend(violations.iter().filter(|violation| !said(&violation.description)).map(|violation| {
                    format!("{}: {}", text::clean(&violation.field), text::clean(&violation.description))
                }));
                rest.extend(info.as_ref().and_then(|info| info.advice(application.as_deref().unwrap_or("APP"))));
                if let (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown, Some(id)) =
                    (status.code(), request_id)
                {
                    rest.push(format!("it may have been accepted; repeating is safe with --request-id {id}"));
                }
            }
            Self::WatchLost { resume, .. } => {
                rest.push("nothing was taken back: what runs goes on without a watcher".to_owned());
                rest.push(format!("next: {resume}"));
            }
            Self::Input { advice, .. } => rest.extend(advice.iter().cloned()),
            Self::Apply { .. } => {}
            Self::Io(error) => first = format!("{first}: {error}"),
        }
        std::iter::once(first).chain(rest.into_iter().map(|line| format!("  {line}"))).collect()
    }
}

/// The ErrorInfo of a refusal.
struct Reason {
    reason: String,
    metadata: HashMap<String, String>,
}

impl Reason {
    fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info()?;
        (info.domain == ERROR_DOMAIN).then_some(Self { reason: info.reason, metadata: info.metadata })
    }

    fn get(&self, key: &str, otherwise: &str) -> String {
        self.metadata
            .get(key)
            .filter(|value| !value.is_empty())
            .map_or_else(|| otherwise.to_owned(), |value| text::clean(&name::short(value)))
    }

    /// What a person can do about it.
    fn advice(&self, application: &str) -> Option<String> {
        let operation = self.get("operation", "OPERATION");
        let application = self.get("application", application);
        let cluster = self.get("cluster", "CLUSTER");
        Some(match self.reason.as_str() {
            "APPLICATION_NOT_FOUND" => "see what there is: quiesce get applications".to_owned(),
            "INSTANCE_NOT_FOUND" => "see what there is: quiesce get instances".to_owned(),
            "OPERATION_NOT_FOUND" => "see what there is: quiesce get operations".to_owned(),
            "CLUSTER_NOT_FOUND" => "see what there is: quiesce get clusters".to_owned(),
            "REQUEST_ID_CONFLICT" => "this id was used for another request; leave --request-id out".to_owned(),
            "ETAG_MISMATCH" => "somebody else has changed it; look again and repeat".to_owned(),
            "OPERATION_IN_PROGRESS" | "APPLICATION_STOPPING" => {
                format!("next: quiesce watch {operation}, or quiesce cancel {operation}")
            }
            "POINT_OF_NO_RETURN" => format!("it has been told to stop; see it through: quiesce watch {operation}"),
            "OPERATION_DONE" | "OPERATION_NOT_DEGRADED" | "OPERATION_NOT_CONFIRMABLE" => {
                format!("see how it stands: quiesce describe operation {operation}")
            }
            "NO_INSTANCES" => format!(
                "start an agent: quiesce agent --application {application} --cluster CLUSTER -- COMMAND; to forget an \
                 application without instances: quiesce delete {application} --force"
            ),
            "INSTANCES_MISSING" => "see which are there: quiesce get instances; start the missing agents, or correct \
                                    expectedInstances with quiesce apply"
                .to_owned(),
            "SOURCE_CLUSTER_MISMATCH" | "ALREADY_ON_TARGET" => "see where it runs: quiesce get applications".to_owned(),
            "TARGET_NOT_READY" => format!(
                "start an agent there: quiesce agent --application {application} --cluster {cluster} --standby -- COMMAND"
            ),
            "EXTENSION_EXHAUSTED" => {
                format!("an operator may grant more: quiesce extend {operation} --by 30s")
            }
            "CLUSTER_IN_USE" => "applications or instances still name it: quiesce get instances".to_owned(),
            "INVALID_RESUME_TOKEN" | "RESUME_TOKEN_EXPIRED" => "watch again without --since".to_owned(),
            "INVALID_FILTER" => "write it like: name = db* AND labels.team = \"core\"".to_owned(),
            "CREDENTIALS_INVALID" => {
                "prove who you are: --token-file FILE; the first token is admin.token in the scheduler's data directory"
                    .to_owned()
            }
            "CALLER_NOT_ALLOWED" => {
                "your token does not allow this; an admin can make one that does: quiesce token create".to_owned()
            }
            "TOKEN_NOT_FOUND" => "see what there is: quiesce token list".to_owned(),
            "RESTORE_UNCONFIRMED" => format!(
                "see where it runs (quiesce get instances), make sure that no other copy does, then: quiesce readmit \
                 {application}"
            ),
            "NOT_SERVING" => "what runs goes on or rests where it is; try again when that is over".to_owned(),
            _ => return None,
        })
    }
}

/// What TLS has to say among the causes.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a ConnectError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Why the scheduler hung up on our certificate, in words of [`ConnectError`]: in TLS 1.3 a client hears it behind its
/// handshake, so that it is a call that fails. HTTP/2 passes on only the kind and the words of an error of its socket.
fn not_let_in(status: &Status) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(error) = cause {
        let of_socket = error.downcast_ref::<io::Error>();
        if let Some(found) = of_socket.filter(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Some(found.to_string());
        }
        cause = error.source();
    }
    None
}

/// The last cause of a chain: "Connection refused" rather than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Error {
        let metadata: HashMap<_, _> = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        Error::rpc("migrate db", Status::with_error_details(code, "not now", details))
    }

    #[test]
    fn a_refusal_names_the_reason_and_the_way_out() {
        let error = refusal(Code::Aborted, "OPERATION_IN_PROGRESS", &[("operation", "operations/op-1")]);
        assert_eq!(
            error.lines(),
            [
                "error: cannot migrate db: not now (OPERATION_IN_PROGRESS)",
                "  next: quiesce watch op-1, or quiesce cancel op-1"
            ]
        );
    }

    #[test]
    fn the_advice_on_filters_fits_whatever_is_listed() {
        let advice = refusal(Code::InvalidArgument, "INVALID_FILTER", &[]).lines().remove(1);
        assert_eq!(advice, "  write it like: name = db* AND labels.team = \"core\"");
    }

    #[test]
    fn every_field_violation_is_listed() {
        let mut details = ErrorDetails::with_bad_request_violation("name", "empty");
        details.add_bad_request_violation("policy.grace_period", "longer than 24h");
        let error = Error::rpc("apply", Status::with_error_details(Code::InvalidArgument, "bad", details));
        assert_eq!(
            error.lines(),
            ["error: cannot apply: bad (InvalidArgument)", "  name: empty", "  policy.grace_period: longer than 24h"]
        );
    }

    #[test]
    fn a_single_violation_is_not_said_twice() {
        let details = ErrorDetails::with_bad_request_violation("name", "is empty");
        let error = Error::rpc("apply", Status::with_error_details(Code::InvalidArgument, "name is empty", details));
        assert_eq!(error.lines().len(), 1);
    }

    #[test]
    fn an_uncertain_outcome_says_how_to_repeat_safely() {
        let error = Error::rpc("migrate db", Status::unavailable("gone")).with_request_id("r-1");
        assert!(error.lines()[1].ends_with("--request-id r-1"));
    }

    #[test]
    fn reasons_of_other_domains_are_not_ours() {
        let details = ErrorDetails::with_error_info("NO_INSTANCES", "else.where", HashMap::<String, String>::new());
        let error = Error::rpc("x", Status::with_error_details(Code::FailedPrecondition, "y", details));
        assert!(!error.is_reason("NO_INSTANCES"));
        assert_eq!(error.lines().len(), 1);
    }
}
