//! Calls of one hook: each has a deadline, each failure is read by the table of the contract.
//!
//! Owns metadata, limits and the reading of errors. Which connection is used is the business of
//! [`super::connection`]; what an answer means for an operation, of the machine.

use std::time::Duration;

use quiesce_operation::report::{CallError, CallErrorClass};
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::{ERROR_DOMAIN, v1};
use quiesce_runtime::trace_context::TraceContext;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use super::{HookChannel, HookInfo, wire};
use crate::secrets::HookToken;

/// Largest message taken from a hook; the contract's own limit.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One hook over one connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    inner: ShutdownHookClient<HookChannel>,
    bearer: Option<MetadataValue<Ascii>>,
    /// Headers that say where the calls stand in a trace.
    trace: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Client {
    /// Calls go over `channel`, with `token` as bearer where the hook listens.
    pub(crate) fn new(channel: HookChannel, token: Option<&HookToken>) -> Self {
        let bearer = token.and_then(|token| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.reveal()).parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let inner = ShutdownHookClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { inner, bearer, trace: Vec::new() }
    }

    /// The same, for calls that stand there in a trace.
    pub(crate) fn traced(mut self, context: Option<&TraceContext>) -> Self {
        let headers = context.into_iter().flat_map(TraceContext::headers);
        self.trace = headers.filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect();
        self
    }

    /// Asks who is there. Also returns the hook's own word for the application's state.
    pub(crate) async fn info(&mut self, limit: Duration) -> Result<HookInfo, CallError> {
        let request = self.request(v1::GetHookInfoRequest {});
        let answer = within(limit, self.inner.get_hook_info(request)).await?;
        Ok(wire::hook_info(&answer.info.unwrap_or_default()))
    }

    /// Asks whether a shutdown would work.
    pub(crate) async fn check(
        &mut self,
        request: v1::CheckShutdownRequest,
        limit: Duration,
    ) -> Result<v1::CheckShutdownResponse, CallError> {
        let request = self.request(request);
        within(limit, self.inner.check_shutdown(request)).await
    }

    /// Opens the stream of a shutdown. Opening has a deadline, the stream none: the machine's timers watch it.
    pub(crate) async fn shutdown(
        &mut self,
        request: v1::ShutdownRequest,
        limit: Duration,
    ) -> Result<Streaming<v1::ShutdownResponse>, CallError> {
        let request = self.request(request);
        within(limit, self.inner.shutdown(request)).await
    }

    /// Asks for the latest report of a shutdown.
    pub(crate) async fn status(
        &mut self,
        request: v1::GetShutdownRequest,
        limit: Duration,
    ) -> Result<v1::GetShutdownResponse, CallError> {
        let request = self.request(request);
        within(limit, self.inner.get_shutdown(request)).await
    }

    /// Takes a shutdown back.
    pub(crate) async fn cancel(
        &mut self,
        request: v1::CancelShutdownRequest,
        limit: Duration,
    ) -> Result<(), CallError> {
        let request = self.request(request);
        within(limit, self.inner.cancel_shutdown(request)).await.map(|_status| ())
    }

    /// Tells a new deadline.
    pub(crate) async fn update_deadline(
        &mut self,
        request: v1::UpdateDeadlineRequest,
        limit: Duration,
    ) -> Result<(), CallError> {
        let request = self.request(request);
        within(limit, self.inner.update_deadline(request)).await.map(|_empty| ())
    }

    /// Kills the application.
    pub(crate) async fn kill(&mut self, request: v1::KillApplicationRequest, limit: Duration) -> Result<(), CallError> {
        let request = self.request(request);
        within(limit, self.inner.kill_application(request)).await.map(|_status| ())
    }

    /// Opens the stream of a start; as [`Client::shutdown`].
    pub(crate) async fn start(
        &mut self,
        request: v1::StartApplicationRequest,
        limit: Duration,
    ) -> Result<Streaming<v1::StartApplicationResponse>, CallError> {
        let request = self.request(request);
        within(limit, self.inner.start_application(request)).await
    }

    /// Says what becomes of a stopped instance.
    pub(crate) async fn conclude(
        &mut self,
        request: v1::ConcludeShutdownRequest,
        limit: Duration,
    ) -> Result<(), CallError> {
        let request = self.request(request);
        within(limit, self.inner.conclude_shutdown(request)).await.map(|_empty| ())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        for (name, value) in &self.trace {
            request.metadata_mut().insert(*name, value.clone());
        }
        request
    }
}

/// Waits for an answer, at most `limit`; not to have got one in time reads like a lost connection.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(|status| read_status(&status)),
        Err(_elapsed) => Err(lost(format!("no answer within {limit:?}"))),
    }
}

/// No connection, or none any more.
pub(crate) fn lost(message: impl Into<String>) -> CallError {
    CallError { class: CallErrorClass::Lost, grpc_code: String::new(), message: message.into() }
}

/// The hook broke the rules.
pub(crate) fn protocol_error(message: impl Into<String>) -> CallError {
    CallError { class: CallErrorClass::Protocol, grpc_code: String::new(), message: message.into() }
}

/// Reads the end of a call by the table at `ShutdownHook`.
pub(crate) fn read_status(status: &Status) -> CallError {
    let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
    let reason = info.as_ref().map_or("", |info| info.reason.as_str());
    let class = match status.code() {
        // How a call ends that nobody answered: also what tonic makes of its own timeouts (CANCELLED) and of
        // connections that break in mid-stream (UNKNOWN).
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded => {
            CallErrorClass::Lost
        }
        Code::ResourceExhausted => CallErrorClass::Busy,
        Code::Aborted if reason == "SHUTDOWN_IN_PROGRESS" => CallErrorClass::Busy,
        Code::Unimplemented => CallErrorClass::Unimplemented,
        Code::NotFound => CallErrorClass::NotFound,
        Code::FailedPrecondition if reason == "POINT_OF_NO_RETURN" => CallErrorClass::PointOfNoReturn,
        Code::Ok
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss
        | Code::Unauthenticated => CallErrorClass::Rejected,
    };
    let message = match (reason, status.message()) {
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    CallError { class, grpc_code: code_name(status.code()).to_owned(), message: wire::message(&message) }
}

/// The name of a gRPC code as the contract writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn with_reason(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::<String, String>::new());
        Status::with_error_details(code, "text", details)
    }

    #[test]
    fn the_end_of_a_call_is_read_by_the_table() {
        use CallErrorClass::{Busy, Lost, NotFound, PointOfNoReturn, Rejected, Unimplemented};
        let table = [
            (Status::unavailable(""), Lost),
            (Status::unknown(""), Lost),
            (Status::internal(""), Lost),
            (Status::cancelled(""), Lost),
            (Status::deadline_exceeded(""), Lost),
            (Status::resource_exhausted(""), Busy),
            (with_reason(Code::Aborted, "SHUTDOWN_IN_PROGRESS"), Busy),
            (with_reason(Code::Aborted, "SHUTDOWN_SUPERSEDED"), Rejected),
            (Status::aborted(""), Rejected),
            (with_reason(Code::FailedPrecondition, "POINT_OF_NO_RETURN"), PointOfNoReturn),
            (with_reason(Code::FailedPrecondition, "WRONG_INSTANCE"), Rejected),
            (Status::invalid_argument(""), Rejected),
            (Status::permission_denied(""), Rejected),
            (Status::unauthenticated(""), Rejected),
            (Status::not_found(""), NotFound),
            (Status::unimplemented(""), Unimplemented),
            (Status::data_loss(""), Rejected),
        ];
        for (status, class) in table {
            assert_eq!(read_status(&status).class, class, "{status:?}");
        }
    }

    #[test]
    fn an_error_keeps_code_and_reason_for_people() {
        let error = read_status(&with_reason(Code::FailedPrecondition, "EPOCH_STALE"));
        assert_eq!((error.grpc_code.as_str(), error.message.as_str()), ("FAILED_PRECONDITION", "EPOCH_STALE: text"));
    }
}
