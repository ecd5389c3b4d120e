//! Why the hook does not do what it is told, and the one mapping of that to gRPC.
//!
//! Every answer carries one `google.rpc.ErrorInfo` with the domain and a reason of `errors.proto`, plus the details the
//! contract asks for. No other module makes a `tonic::Status`.

use std::collections::HashMap;
use std::time::Duration;

use quiesce_protocol::ERROR_DOMAIN;
use quiesce_protocol::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What RetryInfo recommends where the class is "pause": short, since a shutdown that blocks another one usually ends
/// within seconds, and long enough not to be a busy loop.
const PAUSE: Duration = Duration::from_secs(1);

/// One bad field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field as in the proto.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) description: String,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("request has {} bad field(s): {}", .0.len(), .0.iter().map(|v| v.field.as_str()).collect::<Vec<_>>().join(", "))]
    Invalid(Vec<Violation>),
    #[error("this hook serves {own}, not {asked}")]
    WrongInstance { asked: String, own: String },
    #[error("epoch {asked} is older than {in_force}, the one in force here")]
    EpochStale { asked: u64, in_force: u64 },
    #[error("the application cannot be stopped: {reason}")]
    NotStoppable { reason: String },
    #[error("shutdown {shutdown_id} of another operation or attempt is running")]
    InProgress { shutdown_id: String },
    #[error("shutdown {by} has taken over")]
    Superseded { by: String },
    #[error("no shutdown {shutdown_id:?} is known here")]
    ShutdownNotFound { shutdown_id: String },
    #[error("too late: shutdown {shutdown_id} has told the application to stop")]
    PointOfNoReturn { shutdown_id: String },
    #[error("not the completion token of this shutdown")]
    TokenInvalid,
    #[error("this hook does not offer {capability}")]
    NotImplemented { capability: &'static str },
    #[error("{processes} process(es) of {instance} are left")]
    StillRunning { instance: String, processes: u32 },
    #[error("{message}")]
    Deleted { message: String },
    #[error("the application may not be started: {reason}")]
    StartNotPermitted { reason: String },
    #[error("the hook is not serving: {reason}")]
    NotServing { reason: String },
    #[error("credentials are missing or wrong")]
    CredentialsInvalid,
    #[error("the message is larger than {maximum} bytes")]
    TooLarge { maximum: usize },
}

impl Refusal {
    /// One bad field.
    pub(crate) fn field(field: &str, description: &str) -> Self {
        Self::Invalid(vec![Violation { field: field.to_owned(), description: description.to_owned() }])
    }

    fn code(&self) -> (Code, ErrorReason) {
        match self {
            Self::Invalid(_) => (Code::InvalidArgument, ErrorReason::InvalidField),
            Self::WrongInstance { .. } => (Code::FailedPrecondition, ErrorReason::WrongInstance),
            Self::EpochStale { .. } => (Code::FailedPrecondition, ErrorReason::EpochStale),
            Self::NotStoppable { .. } => (Code::FailedPrecondition, ErrorReason::NotStoppable),
            Self::InProgress { .. } => (Code::Aborted, ErrorReason::ShutdownInProgress),
            Self::Superseded { .. } => (Code::Aborted, ErrorReason::ShutdownSuperseded),
            Self::ShutdownNotFound { .. } => (Code::NotFound, ErrorReason::ShutdownNotFound),
            Self::PointOfNoReturn { .. } => (Code::FailedPrecondition, ErrorReason::PointOfNoReturn),
            Self::TokenInvalid => (Code::PermissionDenied, ErrorReason::CompletionTokenInvalid),
            Self::NotImplemented { .. } => (Code::Unimplemented, ErrorReason::NotImplemented),
            Self::StillRunning { .. } => (Code::FailedPrecondition, ErrorReason::StillRunning),
            Self::Deleted { .. } => (Code::FailedPrecondition, ErrorReason::ApplicationDeleted),
            Self::StartNotPermitted { .. } => (Code::FailedPrecondition, ErrorReason::StartNotPermitted),
            Self::NotServing { .. } => (Code::Unavailable, ErrorReason::NotServing),
            Self::CredentialsInvalid => (Code::Unauthenticated, ErrorReason::CredentialsInvalid),
            Self::TooLarge { .. } => (Code::ResourceExhausted, ErrorReason::MessageTooLarge),
        }
    }

    /// ErrorInfo metadata, by the table of `errors.proto`.
    fn metadata(&self) -> HashMap<String, String> {
        let pair = match self {
            Self::WrongInstance { own, .. } => ("instance", own.clone()),
            Self::EpochStale { in_force, .. } => ("epoch", in_force.to_string()),
            Self::InProgress { shutdown_id } | Self::PointOfNoReturn { shutdown_id } => {
                ("shutdownId", shutdown_id.clone())
            }
            Self::NotImplemented { capability } => ("capability", (*capability).to_owned()),
            Self::StillRunning { instance, .. } => ("instance", instance.clone()),
            Self::TooLarge { maximum } => ("maximum", maximum.to_string()),
            Self::Invalid(_)
            | Self::NotStoppable { .. }
            | Self::Superseded { .. }
            | Self::ShutdownNotFound { .. }
            | Self::TokenInvalid
            | Self::Deleted { .. }
            | Self::StartNotPermitted { .. }
            | Self::NotServing { .. }
            | Self::CredentialsInvalid => return HashMap::new(),
        };
        HashMap::from([(pair.0.to_owned(), pair.1)])
    }

    /// Whose state stands in the way, for PreconditionFailure.
    fn subject(&self) -> String {
        match self {
            Self::WrongInstance { own, .. } => own.clone(),
            Self::StillRunning { instance, .. } => instance.clone(),
            Self::PointOfNoReturn { shutdown_id } => shutdown_id.clone(),
            Self::Invalid(_)
            | Self::EpochStale { .. }
            | Self::NotStoppable { .. }
            | Self::InProgress { .. }
            | Self::Superseded { .. }
            | Self::ShutdownNotFound { .. }
            | Self::TokenInvalid
            | Self::NotImplemented { .. }
            | Self::Deleted { .. }
            | Self::StartNotPermitted { .. }
            | Self::NotServing { .. }
            | Self::CredentialsInvalid
            | Self::TooLarge { .. } => String::new(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason) = refusal.code();
        let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
        let mut details = ErrorDetails::with_error_info(name, ERROR_DOMAIN, refusal.metadata());
        if let Refusal::Invalid(violations) = &refusal {
            for violation in violations {
                details.add_bad_request_violation(&violation.field, &violation.description);
            }
        }
        if code == Code::FailedPrecondition {
            details.add_precondition_failure_violation(name, refusal.subject(), refusal.to_string());
        }
        if matches!(refusal, Refusal::InProgress { .. } | Refusal::NotServing { .. }) {
            details.set_retry_info(Some(PAUSE));
        }
        Self::with_error_details(code, refusal.to_string(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_one_error_info_of_our_domain() {
        let status = Status::from(Refusal::EpochStale { asked: 3, in_force: 5 });
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("EPOCH_STALE", "quiesce.v1"));
        assert_eq!(info.metadata["epoch"], "5");
        let precondition = status.get_details_precondition_failure().unwrap();
        assert_eq!(precondition.violations[0].r#type, "EPOCH_STALE");
    }

    #[test]
    fn all_bad_fields_are_listed() {
        let bad = |field: &str| Violation { field: field.to_owned(), description: "is bad".to_owned() };
        let status = Status::from(Refusal::Invalid(vec![bad("shutdown_id"), bad("grace_period")]));
        let listed = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(listed.iter().map(|v| v.field.as_str()).collect::<Vec<_>>(), ["shutdown_id", "grace_period"]);
    }

    #[test]
    fn what_may_be_repeated_says_when() {
        let status = Status::from(Refusal::InProgress { shutdown_id: "s1".to_owned() });
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(PAUSE));
    }
}
