//! Who is no agent at all, or one that wants to do harm: what can be done to the scheduler from outside, again and again,
//! until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use quiesce_protocol::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt as _;
use v1::agent_gateway_client::AgentGatewayClient;
use v1::scheduler_client::SchedulerClient;

use crate::agents::{Place, attach, register_to_dial_in};
use crate::stage::connect;

/// Pause between two of the same trick: quick enough that dozens of each are felt, and not a test of who has more cores.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection is held before another takes its place.
const HOLD: Duration = Duration::from_secs(2);
/// Larger than any message that is taken.
const HUGE: usize = 5 << 20;

/// All that is going on; it ends when this is dropped.
pub(crate) struct Pests {
    tasks: JoinSet<()>,
    address: SocketAddr,
}

/// A shutdown as its own hook knows it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) shutdown_id: String,
    pub(crate) token: String,
}

impl Pests {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { tasks: JoinSet::new(), address }
    }

    /// Connections that begin to say something, in each of the ways there are, and never go on.
    pub(crate) fn hold_connections(&mut self, count: usize) {
        for beginning in ["", "QUIESCE/1 ATT", "PRI * HTTP/2.0\r\n"].into_iter().cycle().take(count) {
            let address = self.address;
            self.tasks.spawn(async move {
                loop {
                    if let Ok(mut socket) = TcpStream::connect(address).await
                        && socket.write_all(beginning.as_bytes()).await.is_ok()
                    {
                        sleep(HOLD).await;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }

    /// Agents that register, dial in, and are gone as soon as they are attached.
    pub(crate) fn come_and_go(&mut self, places: Vec<Place>) {
        for place in places {
            let (address, mut gateway) = (self.address.to_string(), AgentGatewayClient::new(connect(self.address)));
            self.tasks.spawn(async move {
                loop {
                    if let Ok(token) = register_to_dial_in(&mut gateway, &place).await {
                        drop(attach(&address, &token).await);
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }

    /// Calls whose request never comes.
    pub(crate) fn begin_calls(&mut self, count: usize) {
        const PER_CONNECTION: usize = 100;
        for _ in 0..count.div_ceil(PER_CONNECTION) {
            let channel = connect(self.address);
            self.tasks.spawn(async move {
                let calls = stream::iter(0..PER_CONNECTION).map(|_| never_asking(channel.clone()));
                calls.buffer_unordered(PER_CONNECTION).for_each(async |()| sleep(PAUSE).await).await;
            });
        }
    }

    /// Watches that are never read.
    pub(crate) fn watch_nothing(&mut self, count: usize) {
        for _ in 0..count {
            let mut scheduler = SchedulerClient::new(connect(self.address));
            self.tasks.spawn(async move {
                let request = v1::WatchOperationsRequest { include_done: true, ..Default::default() };
                let _unread = scheduler.watch_operations(request).await;
                std::future::pending::<()>().await;
            });
        }
    }

    /// Requests larger than any that is taken.
    pub(crate) fn send_huge_requests(&mut self, count: usize) {
        for _ in 0..count {
            let mut gateway = AgentGatewayClient::new(connect(self.address));
            self.tasks.spawn(async move {
                loop {
                    let result = v1::StopResult { message: "x".repeat(HUGE), ..Default::default() };
                    let request = v1::CompleteShutdownRequest { result: Some(result), ..Default::default() };
                    assert!(gateway.complete_shutdown(request).await.is_err(), "5 MiB are too much");
                    sleep(PAUSE).await;
                }
            });
        }
    }

    /// Reports ends that are not theirs to report: a shutdown with the token of another, and the other way round. Each
    /// is refused, or something is badly wrong.
    pub(crate) fn steal_ends(&mut self, victims: Vec<Known>) {
        for (mine, other) in victims.iter().zip(victims.iter().skip(1)) {
            let mut gateway = AgentGatewayClient::new(connect(self.address));
            let attempts = [
                (other.shutdown_id.clone(), mine.token.clone()),
                (mine.shutdown_id.clone(), other.token.clone()),
                (next_attempt(&mine.shutdown_id), mine.token.clone()),
            ];
            self.tasks.spawn(async move {
                for (shutdown_id, completion_token) in attempts.iter().cycle() {
                    let result = v1::StopResult {
                        outcome: v1::stop_result::Outcome::Stopped.into(),
                        evidence: v1::Evidence::GroupEmpty.into(),
                        ..Default::default()
                    };
                    let request = v1::CompleteShutdownRequest {
                        shutdown_id: shutdown_id.clone(),
                        completion_token: completion_token.clone(),
                        result: Some(result),
                    };
                    let refused = gateway.complete_shutdown(request).await.expect_err("a stolen end");
                    assert!(
                        matches!(refused.code(), Code::PermissionDenied | Code::Unavailable | Code::ResourceExhausted),
                        "{refused:?}"
                    );
                    sleep(PAUSE).await;
                }
            });
        }
    }

    /// Panics if one of them found something it should not have.
    pub(crate) fn assert_harmless(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            ended.expect("no pest succeeds, and none ends by itself");
        }
    }
}

/// The same shutdown, one attempt later.
fn next_attempt(shutdown_id: &str) -> String {
    let mut parts = shutdown_id.splitn(3, '.');
    let (operation, attempt, instance) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    format!("{operation}.{}.{instance}", attempt.parse::<u32>().unwrap() + 1)
}

/// A call of which only the headers are ever sent; again when the scheduler has had enough of it.
async fn never_asking(channel: Channel) {
    loop {
        let nothing = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
        let request = http::Request::post("/quiesce.v1.Scheduler/GetOperation")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(nothing))
            .unwrap();
        // How it ends is the scheduler's choice.
        let _ended = channel.clone().oneshot(request).await;
        sleep(PAUSE).await;
    }
}
