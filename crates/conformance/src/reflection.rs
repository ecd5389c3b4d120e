//! What a server says it serves, in either version of reflection.

use futures::stream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb;

use crate::reach::Credential;

/// A function that lists services; the versions have the same messages, but not the same types.
macro_rules! listing {
    ($(#[$doc:meta])* $name:ident, $version:ident) => {
        $(#[$doc])*
        pub(crate) async fn $name(channel: Channel, credential: Credential) -> Result<Vec<String>, Status> {
            use pb::$version::server_reflection_client::ServerReflectionClient;
            use pb::$version::server_reflection_request::MessageRequest;
            use pb::$version::server_reflection_response::MessageResponse;

            let message_request = Some(MessageRequest::ListServices(String::new()));
            let request = pb::$version::ServerReflectionRequest { host: String::new(), message_request };
            let mut client = ServerReflectionClient::with_interceptor(channel, credential);
            let answers = client.server_reflection_info(stream::once(async { request })).await;
            match answers?.into_inner().message().await?.and_then(|answer| answer.message_response) {
                Some(MessageResponse::ListServicesResponse(list)) => {
                    Ok(list.service.into_iter().map(|service| service.name).collect())
                }
                Some(_) | None => Err(Status::new(Code::Unknown, "no list of services in the answer")),
            }
        }
    };
}

listing! {
    /// By `grpc.reflection.v1`.
    services, v1
}
listing! {
    /// By `grpc.reflection.v1alpha`, which some libraries have alone.
    services_by_alpha, v1alpha
}
