//! How messages of the contract go over the wire: encoded by prost, read into small buffers.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::BufferSettings;
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a stream reads into at first; it grows when a message needs more, and messages are mostly smaller. The usual 8 KiB would
/// be most of what an open stream takes on which nothing happens.
const READ_BUFFER_BYTES: usize = 512;
/// As it is without settings of one's own; only who writes looks at it.
const YIELD_BYTES: usize = 32 << 10;

/// The codec of the generated services.
#[derive(Debug, Clone)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(READ_BUFFER_BYTES, YIELD_BYTES))
    }
}
