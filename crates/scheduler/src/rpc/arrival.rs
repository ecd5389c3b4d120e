//! Requests arrive here as a whole before anything is done for them: whoever sends one slowly, or never, occupies nothing
//! that others need.
//!
//! Every method of ours takes one message. What it is, is none of this module's business.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::body::Body;
use tracing::debug;

use crate::status::Problem;

/// Longest message taken from callers; of the contract.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What gRPC puts in front of a message.
const PREFIX_BYTES: usize = 5;
/// How long a request may take to arrive, as long as a preface: even the largest is a second's worth of a slow line.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What a request may bring before it counts among the large ones. Nearly all are smaller; a connection has 256 streams at
/// most, so all of its small ones take no more than the two MiB HTTP/2 grants it anyway.
const SMALL_BYTES_MAX: usize = 8 << 10;
/// Most bytes of large requests that have not arrived as a whole: sixty-four of the largest. When it is full the others
/// of them wait, in the window of their senders; small ones do not.
const LARGE_BYTES_MAX: usize = 64 * MESSAGE_BYTES_MAX;

/// Where requests arrive.
pub(super) struct Arrival {
    large: Semaphore,
}

impl Arrival {
    pub(super) fn new() -> Self {
        Self { large: Semaphore::new(LARGE_BYTES_MAX) }
    }

    /// The request as a whole.
    pub(super) async fn whole(&self, body: Body) -> Result<Body, Problem> {
        match timeout(ARRIVAL_TIMEOUT, self.gather(body)).await {
            Ok(gathered) => gathered.map(|bytes| Body::new(http_body_util::Full::new(bytes))),
            Err(_elapsed) => Err(Problem::LimitExceeded { limit: "time for a request to arrive" }),
        }
    }

    async fn gather(&self, mut body: Body) -> Result<Bytes, Problem> {
        let mut gathered = BytesMut::new();
        let mut places = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                debug!(%error, "a request broke off");
                Problem::field("", "the request did not arrive as a whole")
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let length = gathered.len() + data.len();
            if length > MESSAGE_BYTES_MAX + PREFIX_BYTES {
                return Err(Problem::MessageTooLarge { maximum: MESSAGE_BYTES_MAX });
            }
            if length > SMALL_BYTES_MAX {
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                // Never closed.
                places.extend(self.large.acquire_many(bytes).await);
            }
            gathered.extend_from_slice(&data);
        }
        Ok(gathered.freeze())
    }
}
