//! Every way in which a call is refused, and the only mapping from them to a gRPC status with its details.
//!
//! The table is that of `proto/quiesce/v1/errors.proto`. Code below the services returns [`Problem`]s, never a status.

use std::collections::HashMap;
use std::time::Duration;

use quiesce_operation::{ClusterId, OperationId, Refusal, StateName};
use quiesce_protocol::ERROR_DOMAIN;
use quiesce_protocol::v1::ErrorReason;
use quiesce_runtime::telemetry::chain;
use quiesce_store::CommitError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::error;
use uuid::Uuid;

use crate::records::LoadError;

/// What RetryInfo suggests where a call may be repeated: about the time in which a scheduler restarts.
pub(crate) const PAUSE: Duration = Duration::from_secs(1);
/// The same while another operation holds the application, which takes longer.
const PAUSE_FOR_OPERATION: Duration = Duration::from_secs(5);

/// One bad field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path from the request, as in its proto.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) description: String,
}

/// Why a call is refused. Names are resource names (`applications/shop`).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{}", first_violation(.0))]
    InvalidFields(Vec<Violation>),
    #[error("the filter is wrong at position {position}: {what}")]
    InvalidFilter { position: usize, what: String },
    #[error("the page token is not one of this listing; begin again without it")]
    InvalidPageToken,
    #[error("the resume token is not one of this watch; begin again without it")]
    InvalidResumeToken,
    #[error("the history does not go back that far, or is another one; begin again without a token")]
    ResumeTokenExpired,
    #[error("events were produced faster than they were read; resume with the last token")]
    WatchTooSlow,

    #[error("{0} is not known")]
    ApplicationNotFound(String),
    #[error("{0} is not known")]
    InstanceNotFound(String),
    #[error("{0} is not known; done operations are kept for 30 days")]
    OperationNotFound(String),
    #[error("{0} is not known")]
    ClusterNotFound(String),
    #[error("{0} is not known")]
    TokenNotFound(String),
    #[error("no shutdown of this id is known")]
    ShutdownNotFound,

    #[error("{0} exists already")]
    ApplicationExists(String),
    #[error("{0} exists already")]
    ClusterExists(String),
    #[error("request id `{0}` was used for something else")]
    RequestIdConflict(String),

    #[error("{0} has changed since the etag was read")]
    EtagMismatch(String),
    #[error("{application} is held by operations/{operation}")]
    OperationInProgress { application: String, operation: OperationId },

    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("nothing is registered for {0} that could be stopped")]
    NoInstances(String),
    #[error("{application} ought to have {expected} instances, {registered} are registered")]
    InstancesMissing { application: String, expected: u32, registered: usize },
    #[error("{application} runs on cluster {cluster}, not where the request says")]
    SourceClusterMismatch { application: String, cluster: ClusterId },
    #[error("{application} runs on cluster {cluster} already")]
    AlreadyOnTarget { application: String, cluster: ClusterId },
    #[error("no instance of {application} stands by on cluster {cluster}")]
    TargetNotReady { application: String, cluster: ClusterId },
    #[error("{application} takes no new instances while operations/{operation} is open")]
    ApplicationStopping { application: String, operation: OperationId },
    #[error("{application} was deleted; a held agent does not bring it back")]
    ApplicationDeleted { application: String, operation: OperationId },
    #[error("{name} is in use: {applications} applications, {instances} instances")]
    ClusterInUse { name: String, applications: usize, instances: usize },
    #[error("{instance} may not start its application now: {why}")]
    StartNotPermitted { instance: String, why: String, cluster: ClusterId, operation: Option<OperationId> },
    #[error(
        "{0}: the store was put back from a backup, and nobody has confirmed yet where it runs; until then nothing of it \
         is started or stopped"
    )]
    RestoreUnconfirmed(String),
    #[error("another agent serves {0}")]
    InstanceInUse(String),
    /// It is to be forgotten, and its hook says that it runs.
    #[error("{0} is not gone: its hook answers, and does not say that the application has stopped")]
    InstanceRuns(String),
    /// Of whom the scheduler does not know who he is, and what he is told.
    #[error("{0}")]
    CredentialsInvalid(&'static str),
    /// Says nothing about whether what it is about exists.
    #[error("the caller is not allowed to do this here; it takes the role {role}")]
    NotAllowed { role: &'static str },
    #[error("the completion token is not that of this shutdown")]
    CompletionTokenInvalid,
    #[error("the shutdown of this completion token is over")]
    CompletionTokenStale,
    #[error("no more time: {}s of extension are used up", maximum.as_secs())]
    ExtensionExhausted { maximum: Duration },

    #[error("too much at once: {limit}")]
    LimitExceeded { limit: &'static str },
    #[error("the message is larger than {maximum} bytes")]
    MessageTooLarge { maximum: usize },
    #[error("not serving: {0}")]
    NotServing(&'static str),
    #[error("{0} is not implemented")]
    NotImplemented(String),
    /// A bug, or a damaged store: the caller gets an id, the log the rest.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Most characters of a caller's text that an error repeats.
const SHOWN_MAX: usize = 40;

/// A caller's text as an error repeats it: without control characters, and cut, since errors travel in headers.
pub(crate) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        cut.push('…');
    }
    cut
}

fn first_violation(violations: &[Violation]) -> String {
    match violations {
        [] => "the request is not valid".to_owned(),
        [one] => format!("{}: {}", one.field, one.description),
        [one, rest @ ..] => format!("{}: {} (and {} more)", one.field, one.description, rest.len()),
    }
}

impl Problem {
    /// One bad field.
    pub(crate) fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::InvalidFields(vec![Violation { field: field.into(), description: description.into() }])
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Read(_) => Self::NotServing("the store cannot be read"),
            LoadError::Damaged { .. } => Self::Internal(Box::new(error)),
        }
    }
}

impl From<CommitError> for Problem {
    /// A conflict that reaches this point was retried in vain; the caller may do so later.
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::NotServing("others change the same records without pause"),
            CommitError::Full => Self::NotServing("the store has no room left; nothing was changed"),
            CommitError::ReadOnly => {
                Self::NotServing("the store cannot be written, its file system is read-only; nothing was changed")
            }
            CommitError::Unavailable { .. } => {
                Self::NotServing("the store has failed and is being opened again; nothing was changed")
            }
            CommitError::TooLarge { .. } => Self::LimitExceeded { limit: "size of one change" },
            CommitError::Closed | CommitError::Engine { .. } => {
                Self::NotServing("the store has failed; whether the change was stored shows when it is back")
            }
        }
    }
}

/// What a problem is on the wire.
struct Row {
    code: Code,
    reason: ErrorReason,
    metadata: Vec<(&'static str, String)>,
    /// Resource of a failed precondition.
    subject: String,
    pause: Option<Duration>,
}

impl Row {
    fn new(code: Code, reason: ErrorReason) -> Self {
        Self { code, reason, metadata: Vec::new(), subject: String::new(), pause: None }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn about(mut self, subject: impl ToString) -> Self {
        self.subject = subject.to_string();
        self
    }

    fn pause(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self
    }
}

/// The error table. `None`: INTERNAL, which carries no details.
fn row(problem: &Problem) -> Option<Row> {
    use ErrorReason as R;
    let not_found = |reason, name: &String| Row::new(Code::NotFound, reason).with("name", name);
    let unmet = |reason| Row::new(Code::FailedPrecondition, reason);
    Some(match problem {
        Problem::InvalidFields(_) => Row::new(Code::InvalidArgument, R::InvalidField),
        Problem::InvalidFilter { position, .. } => {
            Row::new(Code::InvalidArgument, R::InvalidFilter).with("position", position)
        }
        Problem::InvalidPageToken => Row::new(Code::InvalidArgument, R::InvalidPageToken),
        Problem::InvalidResumeToken => Row::new(Code::InvalidArgument, R::InvalidResumeToken),
        Problem::ResumeTokenExpired => Row::new(Code::OutOfRange, R::ResumeTokenExpired),
        Problem::WatchTooSlow => Row::new(Code::ResourceExhausted, R::WatchTooSlow),
        Problem::ApplicationNotFound(name) => not_found(R::ApplicationNotFound, name),
        Problem::InstanceNotFound(name) => not_found(R::InstanceNotFound, name),
        Problem::OperationNotFound(name) => not_found(R::OperationNotFound, name),
        Problem::ClusterNotFound(name) => not_found(R::ClusterNotFound, name),
        Problem::TokenNotFound(name) => not_found(R::TokenNotFound, name),
        Problem::CredentialsInvalid(_) => Row::new(Code::Unauthenticated, R::CredentialsInvalid),
        Problem::NotAllowed { role } => Row::new(Code::PermissionDenied, R::CallerNotAllowed).with("role", role),
        Problem::ShutdownNotFound => Row::new(Code::NotFound, R::ShutdownNotFound),
        Problem::ApplicationExists(name) => Row::new(Code::AlreadyExists, R::ApplicationExists).with("name", name),
        Problem::ClusterExists(name) => Row::new(Code::AlreadyExists, R::ClusterExists).with("name", name),
        Problem::RequestIdConflict(id) => Row::new(Code::AlreadyExists, R::RequestIdConflict).with("requestId", id),
        Problem::EtagMismatch(name) => Row::new(Code::Aborted, R::EtagMismatch).with("name", name),
        Problem::OperationInProgress { operation, .. } => Row::new(Code::Aborted, R::OperationInProgress)
            .with("operation", format!("operations/{operation}"))
            .pause(PAUSE_FOR_OPERATION),
        Problem::Refused(refusal) => refusal_row(refusal),
        Problem::NoInstances(name) => unmet(R::NoInstances).about(name),
        Problem::InstancesMissing { application, expected, registered } => {
            unmet(R::InstancesMissing).about(application).with("expected", expected).with("registered", registered)
        }
        Problem::SourceClusterMismatch { application, cluster } => {
            unmet(R::SourceClusterMismatch).about(application).with("cluster", cluster)
        }
        Problem::AlreadyOnTarget { application, cluster } => {
            unmet(R::AlreadyOnTarget).about(application).with("cluster", cluster)
        }
        Problem::TargetNotReady { application, cluster } => {
            unmet(R::TargetNotReady).about(application).with("cluster", cluster)
        }
        Problem::ApplicationStopping { application, operation } => {
            unmet(R::ApplicationStopping).about(application).with("operation", format!("operations/{operation}"))
        }
        Problem::ApplicationDeleted { application, operation } => {
            unmet(R::ApplicationDeleted).about(application).with("operation", format!("operations/{operation}"))
        }
        Problem::ClusterInUse { name, applications, instances } => unmet(R::ClusterInUse)
            .about(name)
            .with("name", name)
            .with("applications", applications)
            .with("instances", instances),
        Problem::StartNotPermitted { instance, cluster, operation, .. } => {
            let row = unmet(R::StartNotPermitted).about(instance).with("cluster", cluster).pause(PAUSE);
            match operation {
                Some(operation) => row.with("operation", format!("operations/{operation}")),
                None => row,
            }
        }
        Problem::RestoreUnconfirmed(name) => {
            unmet(R::RestoreUnconfirmed).about(name).with("application", name).pause(PAUSE_FOR_OPERATION)
        }
        Problem::InstanceInUse(instance) | Problem::InstanceRuns(instance) => {
            unmet(R::InstanceInUse).about(instance).with("instance", instance).pause(PAUSE)
        }
        Problem::CompletionTokenInvalid => Row::new(Code::PermissionDenied, R::CompletionTokenInvalid),
        Problem::CompletionTokenStale => unmet(R::CompletionTokenStale),
        Problem::ExtensionExhausted { maximum } => {
            unmet(R::ExtensionExhausted).with("maximum", format!("{}s", maximum.as_secs_f64()))
        }
        Problem::LimitExceeded { limit } => {
            Row::new(Code::ResourceExhausted, R::LimitExceeded).with("limit", limit).pause(PAUSE)
        }
        Problem::MessageTooLarge { maximum } => {
            Row::new(Code::ResourceExhausted, R::MessageTooLarge).with("maximum", maximum)
        }
        Problem::NotServing(_) => Row::new(Code::Unavailable, R::NotServing).pause(PAUSE),
        Problem::NotImplemented(what) => Row::new(Code::Unimplemented, R::NotImplemented).with("capability", what),
        Problem::Internal(_) => return None,
    })
}

fn refusal_row(refusal: &Refusal) -> Row {
    use ErrorReason as R;
    let about = |reason, operation: &OperationId| {
        let name = format!("operations/{operation}");
        Row::new(Code::FailedPrecondition, reason).about(&name).with("operation", name)
    };
    let state = |state: &StateName| state.as_str();
    match refusal {
        Refusal::PointOfNoReturn { operation, .. } => about(R::PointOfNoReturn, operation),
        Refusal::Done { operation, state: s } => about(R::OperationDone, operation).with("state", state(s)),
        Refusal::NotDegraded { operation, state: s } => {
            about(R::OperationNotDegraded, operation).with("state", state(s))
        }
        Refusal::NotConfirmable { operation, state: s } => {
            about(R::OperationNotConfirmable, operation).with("state", state(s))
        }
        Refusal::Policy { .. } => Row::new(Code::InvalidArgument, R::InvalidField),
    }
}

/// The reason of a problem as it stands on the wire; empty for a bug.
pub(crate) fn reason_name(reason: ErrorReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

fn violations(problem: &Problem) -> Vec<Violation> {
    match problem {
        Problem::InvalidFields(violations) => violations.clone(),
        Problem::Refused(Refusal::Policy { violations }) => violations
            .iter()
            .map(|(field, description)| Violation {
                field: format!("policy.{field}"),
                description: description.clone(),
            })
            .collect(),
        Problem::InvalidFilter { .. } => {
            vec![Violation { field: "filter".to_owned(), description: problem.to_string() }]
        }
        Problem::InvalidPageToken => {
            vec![Violation { field: "page_token".to_owned(), description: problem.to_string() }]
        }
        Problem::InvalidResumeToken => {
            vec![Violation { field: "resume_token".to_owned(), description: problem.to_string() }]
        }
        _ => Vec::new(),
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Some(row) = row(&problem) else {
            let id = Uuid::new_v4();
            error!(error.id = %id, error = %chain(&problem), "a call failed on an internal error");
            return Self::internal(format!("internal error {id}; the scheduler's log has more"));
        };
        let metadata: HashMap<String, String> =
            row.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(reason_name(row.reason), ERROR_DOMAIN, metadata);
        for Violation { field, description } in violations(&problem) {
            details.add_bad_request_violation(field, description);
        }
        if row.code == Code::FailedPrecondition {
            details.add_precondition_failure_violation(reason_name(row.reason), row.subject, problem.to_string());
        }
        if let Some(pause) = row.pause {
            details.set_retry_info(Some(pause));
        }
        Self::with_error_details(row.code, problem.to_string(), details)
    }
}
