//! Calls without a generated service: a server that answers paths, and a client that leaves messages encoded.
//!
//! `WatchOperationsResponse` holds its event in field 1, and so does `google.protobuf.BytesValue`, which is how prost encodes
//! [`Bytes`]: the same on the wire, without the work of taking it apart. Who measures streams leaves the work out on the side
//! that is not measured.

use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use prost::Message;
use quiesce_protocol::v1;
use tonic::body::Body;
use tonic::client::Grpc as ClientGrpc;
use tonic::server::{Grpc as ServerGrpc, ServerStreamingService, UnaryService};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// What a call is answered with.
pub(crate) type Answer = BoxFuture<'static, Result<http::Response<Body>, std::convert::Infallible>>;

/// Answers a unary call.
pub(crate) fn unary<M1, M2, S>(service: S, request: http::Request<Body>) -> Answer
where
    M1: Message + Default + 'static,
    M2: Message + Default + 'static,
    S: UnaryService<M1, Response = M2> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move { Ok(ServerGrpc::new(ProstCodec::<M2, M1>::new()).unary(service, request).await) })
}

/// Answers a call with a stream.
pub(crate) fn streaming<M1, M2, S>(service: S, request: http::Request<Body>) -> Answer
where
    M1: Message + Default + 'static,
    M2: Message + Default + 'static,
    S: ServerStreamingService<M1, Response = M2> + Send + 'static,
    S::Future: Send,
    S::ResponseStream: Send + 'static,
{
    Box::pin(async move { Ok(ServerGrpc::new(ProstCodec::<M2, M1>::new()).server_streaming(service, request).await) })
}

/// Answers what nobody has.
pub(crate) fn unimplemented() -> Answer {
    let mut response = http::Response::new(Body::default());
    let headers = response.headers_mut();
    headers.insert(Status::GRPC_STATUS, (Code::Unimplemented as i32).into());
    headers.insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    Box::pin(std::future::ready(Ok(response)))
}

/// Watches everything; events come encoded. Returns when the scheduler has answered.
pub(crate) async fn watch(channel: Channel, filter: &str) -> Result<Streaming<Bytes>, Status> {
    let mut client = ClientGrpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let request = v1::WatchOperationsRequest { filter: filter.to_owned(), skip_snapshot: true, ..Default::default() };
    let path = PathAndQuery::from_static("/quiesce.v1.Scheduler/WatchOperations");
    let codec = ProstCodec::<v1::WatchOperationsRequest, Bytes>::new();
    Ok(client.server_streaming(Request::new(request), path, codec).await?.into_inner())
}

/// The revision of an encoded event, its first field.
pub(crate) fn revision(event: &Bytes) -> u64 {
    match event.first() {
        Some(0x08) => prost::encoding::decode_varint(&mut &event[1..]).unwrap_or_default(),
        _ => 0,
    }
}
