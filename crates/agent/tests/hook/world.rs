//! A hook on a socket, and a client of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quiesce_agent::application::Application;
use quiesce_agent::hook::{Drain, Hook, HookOptions, Records};
use quiesce_agent::identity::Identity;
use quiesce_agent::serve::{self, Access};
use quiesce_protocol::v1::shutdown_hook_client::ShutdownHookClient;
use quiesce_protocol::v1::stop_result::Outcome;
use quiesce_protocol::v1::{self, ShutdownPhase, ShutdownRequest, ShutdownStatus};
use quiesce_runtime::drain;
use quiesce_runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

pub(crate) const INSTANCE: &str = "applications/shop/instances/shop-0";
pub(crate) const TOKEN: &str = "qct1.c2VjcmV0";

/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const PLENTY: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) client: ShutdownHookClient<Channel>,
    pub(crate) hook: Hook,
    pub(crate) url: String,
    tasks: Tasks,
    drain: drain::Signal,
}

impl World {
    /// A hook that forgets.
    pub(crate) async fn new(app: Arc<dyn Application>) -> Self {
        Self::open(app, Records::volatile(), None, Access::connected()).await
    }

    /// A hook that remembers in `directory`.
    pub(crate) async fn in_directory(app: Arc<dyn Application>, directory: &Path) -> Self {
        Self::open(app, Records::in_directory(directory), None, Access::connected()).await
    }

    pub(crate) async fn open(
        app: Arc<dyn Application>,
        records: Records,
        drain: Option<Drain>,
        access: Access,
    ) -> Self {
        let tasks = Tasks::new();
        let mut options = HookOptions::new(Identity::new("shop", "shop-0", "edge-1").unwrap());
        options.drain = drain;
        let hook = Hook::open(app, options, records, &tasks).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (signal, draining) = drain::channel();
        let serving = serve::serve(hook.clone(), access, TcpListenerStream::new(listener), draining);
        tasks.spawn("server", async move { serving.await.unwrap() });
        let client = ShutdownHookClient::connect(url.clone()).await.unwrap();
        Self { client, hook, url, tasks, drain: signal }
    }

    /// Ends as a program ends that is killed: nobody is told.
    pub(crate) async fn crash(self) {
        let Self { client, hook, tasks, drain, .. } = self;
        drop((client, hook, drain));
        // Whatever does not end by itself is aborted.
        let _aborted = tasks.shutdown(Duration::ZERO).await;
    }

    pub(crate) async fn connect(&self) -> ShutdownHookClient<Channel> {
        ShutdownHookClient::connect(self.url.clone()).await.unwrap()
    }

    pub(crate) async fn shutdown(&self, request: ShutdownRequest) -> Result<Reports, Status> {
        Ok(Reports { stream: self.client.clone().shutdown(request).await?.into_inner(), seen: Vec::new() })
    }

    /// A whole shutdown from its first to its last report.
    pub(crate) async fn stop(&self, request: ShutdownRequest) -> ShutdownStatus {
        self.shutdown(request).await.unwrap().last().await
    }

    pub(crate) async fn refusal(&self, request: ShutdownRequest) -> Status {
        match self.shutdown(request).await {
            Err(status) => status,
            Ok(mut reports) => reports.error().await,
        }
    }
}

/// The reports of one call; checks the rules that hold for every one of them.
pub(crate) struct Reports {
    stream: Streaming<v1::ShutdownResponse>,
    seen: Vec<ShutdownStatus>,
}

impl Reports {
    /// The next report.
    pub(crate) async fn next(&mut self) -> Option<Result<ShutdownStatus, Status>> {
        let next = tokio::time::timeout(PLENTY, self.stream.next()).await.expect("a report in time")?;
        Some(next.map(|response| {
            let status = response.status.expect("every response has a status");
            self.check(&status);
            self.seen.push(status.clone());
            status
        }))
    }

    /// H4, H5, H6, H14.
    fn check(&self, status: &ShutdownStatus) {
        assert!(status.sequence >= 1);
        assert_eq!(status.completion_token.is_empty(), status.result.is_none(), "token with the result only");
        if let Some(before) = self.seen.last() {
            assert!(before.result.is_none(), "nothing follows the result");
            assert!(status.sequence > before.sequence, "sequence rises");
            assert!(status.phase >= before.phase, "phases do not go back");
        }
    }

    /// Reads until a report fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&ShutdownStatus) -> bool) -> ShutdownStatus {
        loop {
            let status = self.next().await.expect("a report before the end").expect("no error");
            if fits(&status) {
                return status;
            }
        }
    }

    pub(crate) async fn until_phase(&mut self, phase: ShutdownPhase) -> ShutdownStatus {
        self.until(|status| status.phase() == phase).await
    }

    /// Reads to the end, which has to be one with a result.
    pub(crate) async fn last(mut self) -> ShutdownStatus {
        let last = self.until(|status| status.result.is_some()).await;
        assert!(self.next().await.is_none(), "the call ends after the result");
        last
    }

    /// Reads to the end, which has to be an error.
    pub(crate) async fn error(&mut self) -> Status {
        loop {
            match self.next().await.expect("an error before the end") {
                Ok(status) => assert!(status.result.is_none(), "an error instead of a result"),
                Err(status) => return status,
            }
        }
    }
}

/// A request as a scheduler sends it.
pub(crate) fn request(shutdown_id: &str) -> ShutdownRequest {
    ShutdownRequest {
        shutdown_id: shutdown_id.to_owned(),
        operation: "operations/op-1".to_owned(),
        instance: INSTANCE.to_owned(),
        attempt: 1,
        kind: v1::OperationKind::Migrate.into(),
        grace_period: seconds(60),
        completion_token: TOKEN.to_owned(),
        epoch: 1,
        ..Default::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

pub(crate) fn millis(millis: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 0, nanos: millis * 1_000_000 })
}

pub(crate) fn outcome(status: &ShutdownStatus) -> Outcome {
    status.result.as_ref().expect("a result").outcome()
}

/// Code and reason of an error of ours.
pub(crate) fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "quiesce.v1");
    (status.code(), info.reason)
}
