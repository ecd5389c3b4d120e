//! Requests as bytes, for what the generated types cannot say.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status};

use crate::reach::{Credential, Line};

/// A field no message of the contract has.
pub(crate) const UNKNOWN_FIELD: u32 = 15_999;

/// Sends bytes as they are; what comes is a message.
pub(crate) struct RawRequest<T>(PhantomData<T>);

impl<T> RawRequest<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + 'static> Codec for RawRequest<T> {
    type Encode = Vec<u8>;
    type Decode = T;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<T> Encoder for RawRequest<T> {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl<T: Message + Default> Decoder for RawRequest<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        T::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// A unary call whose answer does not matter.
pub(crate) async fn unary(
    line: &Line,
    bearer: Option<&str>,
    path: &'static str,
    request: Bytes,
) -> Result<Response<()>, Status> {
    let channel = tonic::service::interceptor::InterceptedService::new(line.channel.clone(), Credential::new(bearer));
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(Request::new(request.to_vec()), path, RawRequest::<()>::new()).await
}
