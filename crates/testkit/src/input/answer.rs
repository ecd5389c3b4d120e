//! Calling an RPC with whatever bytes, and judging an error by what the contract promises of every error.

use std::time::Duration;

use prost::bytes::{Buf as _, BufMut as _, Bytes};
use prost_reflect::DescriptorPool;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetail, StatusExt as _};

/// Longest wait for an answer; wrong requests are answered in milliseconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What the headers of an error may take in all: what grpc-java accepts unless told otherwise, the least of the gRPC
/// libraries. A client that gets more sees a broken stream instead of the reason.
const HEADERS_MAX: usize = 8192;

/// What HTTP/2 counts for each header beside its text (RFC 9113, 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// Calls `path` and returns its only message, or its first: the answer to the request.
pub(super) async fn call(channel: &Channel, path: &str, request: Vec<u8>) -> Result<Bytes, Status> {
    let path: PathAndQuery = path.parse().expect("names of the contract make paths");
    let asking = async {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.expect("the server stands");
        let mut answers =
            grpc.server_streaming(Request::new(Bytes::from(request)), path.clone(), Raw).await?.into_inner();
        answers.message().await.map(Option::unwrap_or_default)
    };
    tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("{path} is answered within {LIMIT:?}"))
}

/// The reason of the error, and the fields it names. Everything that is wrong with the error itself goes to `problems`.
pub(super) fn read(status: &Status, pool: &DescriptorPool, problems: &mut Vec<String>) -> (String, Vec<String>) {
    let mut check = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    let details = status.get_error_details_vec();
    let infos: Vec<_> = details
        .iter()
        .filter_map(|detail| match detail {
            ErrorDetail::ErrorInfo(info) => Some(info),
            _ => None,
        })
        .collect();
    check(infos.len() == 1, format!("{} ErrorInfos, there has to be one", infos.len()));
    check(infos.iter().all(|info| info.domain == quiesce_protocol::ERROR_DOMAIN), format!("wrong domain: {infos:?}"));
    check(!status.message().is_empty(), "no message".to_owned());
    let size = header_bytes(status);
    check(size <= HEADERS_MAX, format!("its headers take {size} bytes, {HEADERS_MAX} is what every client accepts"));
    let reason = infos.first().map(|info| info.reason.clone()).unwrap_or_default();
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    check(
        (status.code() == Code::InvalidArgument) != violations.is_empty(),
        format!("{:?} with violations {violations:?}", status.code()),
    );
    for violation in &violations {
        check(!violation.description.is_empty(), format!("nothing is said about {}", violation.field));
    }
    if status.code() == Code::FailedPrecondition {
        let unmet = details.precondition_failure().map(|unmet| unmet.violations.clone()).unwrap_or_default();
        let named = unmet.iter().any(|one| one.r#type == reason);
        check(named, format!("no PreconditionFailure of {reason}: {unmet:?}"));
    }
    match (retry_class(pool, &reason), details.retry_info().is_some()) {
        (Some(Retry::Never), true) => check(false, format!("RetryInfo, although {reason} never goes away by itself")),
        (Some(Retry::Pause), false) => check(false, format!("no RetryInfo, although {reason} is to be repeated")),
        (None, _) => check(false, format!("{reason:?} is no reason of the contract")),
        (Some(_), _) => {}
    }
    (reason, violations.into_iter().map(|violation| violation.field).collect())
}

/// What errors.proto says about repeating a call.
enum Retry {
    Never,
    Pause,
    Other,
}

/// The retry class of `reason`: the comment at its value begins with the code and the class.
fn retry_class(pool: &DescriptorPool, reason: &str) -> Option<Retry> {
    let reasons = pool.get_enum_by_name("quiesce.v1.ErrorReason").expect("the contract has it");
    let values = &reasons.enum_descriptor_proto().value;
    let wanted = format!("ERROR_REASON_{reason}");
    let index = i32::try_from(values.iter().position(|value| value.name() == wanted)?).ok()?;
    let file = reasons.parent_file();
    // Field 2 of EnumDescriptorProto: its values.
    let path = [reasons.path(), &[2, index]].concat();
    let locations = file.file_descriptor_proto().source_code_info.as_ref()?.location.iter();
    let comment = locations.clone().find(|at| at.path == path)?.leading_comments();
    let class = comment.split_once(", ").map_or("", |(_code, rest)| rest);
    Some(if class.starts_with("never") {
        Retry::Never
    } else if class.starts_with("pause") {
        Retry::Pause
    } else {
        Retry::Other
    })
}

/// What the headers of this error take on the wire, those of HTTP aside.
fn header_bytes(status: &Status) -> usize {
    let message: usize =
        status.message().bytes().map(|byte| if (0x20..0x7f).contains(&byte) && byte != b'%' { 1 } else { 3 }).sum();
    let details = status.details().len().div_ceil(3) * 4;
    ["grpc-status", "grpc-message", "grpc-status-details-bin"]
        .iter()
        .map(|name| name.len() + HEADER_OVERHEAD)
        .sum::<usize>()
        + 2
        + message
        + details
}

/// Messages as the bytes they are, so that a request may be anything.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
