//! What a check works with: names of its own, hooks of its own, requests, and cleaning up behind it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::operation_event::Type;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Response, Status, Streaming};
use uuid::Uuid;

use super::fake::{Fake, Script};
use super::subject::{Calls, Subject};
use crate::check::{Stop, tell};

/// Longest wait for what the contract gives no time for, on a machine that is busy with something else.
pub(crate) const PLENTY: Duration = Duration::from_secs(20);
/// Pause between two questions.
pub(crate) const POLL: Duration = Duration::from_millis(30);
/// How long clearing up may take.
const CLEAR_LIMIT: Duration = Duration::from_secs(40);
/// The same behind a check that failed: what is wrong with the scheduler may be what keeps it from being cleared.
const CLEAR_FAILED_LIMIT: Duration = Duration::from_secs(10);
/// Why everything of this is done, for whoever reads the records of the scheduler.
pub(crate) const REASON: &str = "scheduler-conformance";

/// Where one check is performed.
pub struct Stage {
    pub(crate) subject: Subject,
    calls: Mutex<Calls>,
    pub(crate) info: v1::GetServerInfoResponse,
    prefix: String,
    names: AtomicU32,
    applications: Mutex<Vec<String>>,
    fakes: Mutex<Vec<Fake>>,
    clusters: Mutex<Vec<String>>,
    tokens: Mutex<Vec<String>>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A duration as it goes over the wire.
pub(crate) fn wire(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// The same, in milliseconds.
pub(crate) fn millis(millis: u64) -> Option<prost_types::Duration> {
    wire(Duration::from_millis(millis))
}

/// Two attempts of 1.5 s each. The other timers leave time for hooks of ours to answer on a machine that is busy.
pub(crate) fn quick() -> v1::ShutdownPolicy {
    let limit = millis(6_000);
    v1::ShutdownPolicy {
        grace_period: millis(1_500),
        heartbeat_timeout: limit,
        accept_timeout: limit,
        kill_timeout: limit,
        max_extension: millis(0),
        retry: Some(v1::RetryPolicy {
            max_attempts: Some(2),
            initial_backoff: millis(200),
            max_backoff: millis(200),
            backoff_multiplier: Some(1.0),
        }),
        failure_strategy: v1::FailureStrategy::GiveUp.into(),
        ..Default::default()
    }
}

/// With timers short enough to be waited for where a hook does not answer.
pub(crate) fn hasty(policy: v1::ShutdownPolicy) -> v1::ShutdownPolicy {
    let limit = millis(1_500);
    v1::ShutdownPolicy { heartbeat_timeout: limit, accept_timeout: limit, kill_timeout: limit, ..policy }
}

/// [`quick`] with one attempt only.
pub(crate) fn once() -> v1::ShutdownPolicy {
    let mut policy = quick();
    if let Some(retry) = &mut policy.retry {
        retry.max_attempts = Some(1);
    }
    policy
}

/// Patient: nothing runs out while a check looks at something else.
pub(crate) fn patient() -> v1::ShutdownPolicy {
    let limit = millis(10_000);
    v1::ShutdownPolicy {
        grace_period: millis(60_000),
        heartbeat_timeout: limit,
        accept_timeout: limit,
        kill_timeout: limit,
        ..quick()
    }
}

/// What a call that has to succeed has answered.
pub(crate) fn ok<T>(what: &str, answer: Result<Response<T>, Status>) -> Result<T, Stop> {
    answer.map(Response::into_inner).map_err(|status| Stop::failed(format!("{what}: OK"), tell(&status)))
}

/// What has to be there.
pub(crate) fn some<T>(what: &str, value: Option<T>) -> Result<T, Stop> {
    value.ok_or_else(|| Stop::failed(format!("{what} in the answer"), "none"))
}

/// An application with one instance.
pub(crate) struct Staged {
    pub(crate) name: String,
    pub(crate) hook: Fake,
}

impl Stage {
    pub(crate) async fn new(subject: Subject, info: v1::GetServerInfoResponse, id: &str) -> Result<Self, Stop> {
        let run = &Uuid::new_v4().simple().to_string()[..8];
        let calls = Mutex::new(subject.connect().await?);
        Ok(Self {
            subject,
            calls,
            info,
            prefix: format!("conf-{}-{run}", id.to_ascii_lowercase()),
            names: AtomicU32::new(0),
            applications: Mutex::default(),
            fakes: Mutex::default(),
            clusters: Mutex::default(),
            tokens: Mutex::default(),
        })
    }

    /// The clients, over the present connection.
    pub(crate) fn calls(&self) -> Calls {
        lock(&self.calls).clone()
    }

    /// Another connection takes the place of the present one.
    pub(crate) async fn reconnect(&self) -> Result<(), Stop> {
        let calls = self.subject.connect().await?;
        *lock(&self.calls) = calls;
        Ok(())
    }

    /// The scheduler is started anew, and serves again.
    pub(crate) async fn restart(&self) -> Result<(), Stop> {
        if let Some(restart) = &self.subject.restart {
            restart.restart().await?;
        }
        self.reconnect().await
    }

    /// A word nobody has used.
    pub(crate) fn word(&self) -> String {
        format!("{}-{}", self.prefix, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The name of an application nobody has used; what is made of it is cleared away.
    pub(crate) fn name(&self) -> String {
        let name = format!("applications/{}", self.word());
        lock(&self.applications).push(name.clone());
        name
    }

    /// A cluster of this check.
    pub(crate) fn cluster(&self, which: &str) -> String {
        let cluster = format!("{}-{which}", self.prefix);
        let mut clusters = lock(&self.clusters);
        if !clusters.contains(&cluster) {
            clusters.push(cluster.clone());
        }
        cluster
    }

    /// What this check has to begin with for its applications to be told from those of others.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A token that is revoked behind the check.
    pub(crate) fn revoke_later(&self, token: String) {
        lock(&self.tokens).push(token);
    }

    pub(crate) fn unmade(&self, policy: v1::ShutdownPolicy) -> v1::Application {
        v1::Application { name: self.name(), cluster: self.cluster("a"), policy: Some(policy), ..Default::default() }
    }

    pub(crate) async fn create(&self, application: v1::Application) -> Result<v1::Application, Stop> {
        let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
        let answer = self.calls().scheduler.create_application(request).await;
        some("an application", ok("CreateApplication", answer)?.application)
    }

    /// An instance that listens, as it is to be registered.
    pub(crate) async fn listening(&self, application: &str, id: &str, hook: &Fake) -> Result<v1::Instance, Stop> {
        let endpoint = hook.listen(&self.subject.hook_host).await;
        let endpoint =
            endpoint.map_err(|error| Stop::Broken(format!("cannot listen on {}: {error}", self.subject.hook_host)))?;
        let name = format!("{application}/instances/{id}");
        let agent_id = format!("agent of {name}");
        Ok(v1::Instance { name, endpoint, cluster: self.cluster("a"), agent_id, ..Default::default() })
    }

    pub(crate) async fn register(&self, instance: v1::Instance) -> Result<v1::RegisterInstanceResponse, Stop> {
        let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
        ok("RegisterInstance", self.calls().gateway.register_instance(request).await)
    }

    pub(crate) fn fake(&self, script: Script) -> Fake {
        let fake = Fake::new(script);
        lock(&self.fakes).push(fake.clone());
        fake
    }

    /// Another instance of an application.
    pub(crate) async fn instance(&self, application: &str, id: &str, script: Script) -> Result<Fake, Stop> {
        let fake = self.fake(script);
        let instance = self.listening(application, id, &fake).await?;
        self.register(instance).await?;
        Ok(fake)
    }

    /// An application on cluster a with one instance that plays `acts`.
    pub(crate) async fn staged(&self, policy: v1::ShutdownPolicy, script: Script) -> Result<Staged, Stop> {
        let name = self.create(self.unmade(policy)).await?.name;
        let hook = self.instance(&name, "one", script).await?;
        Ok(Staged { name, hook })
    }

    pub(crate) fn migration(&self, application: &str) -> v1::MigrateApplicationRequest {
        v1::MigrateApplicationRequest {
            name: application.to_owned(),
            target_cluster: self.cluster("b"),
            reason: REASON.to_owned(),
            ..Default::default()
        }
    }

    pub(crate) async fn try_migrate(&self, request: v1::MigrateApplicationRequest) -> Result<v1::Operation, Status> {
        let answer = self.calls().scheduler.migrate_application(request).await?.into_inner();
        Ok(answer.operation.unwrap_or_default())
    }

    /// Its name.
    pub(crate) async fn migrate(&self, application: &str) -> Result<String, Stop> {
        let answer = self.try_migrate(self.migration(application)).await;
        answer.map(|operation| operation.name).map_err(|status| Stop::failed("MigrateApplication: OK", tell(&status)))
    }

    pub(crate) fn deletion(&self, application: &str) -> v1::DeleteApplicationRequest {
        let (name, reason) = (application.to_owned(), REASON.to_owned());
        v1::DeleteApplicationRequest { name, reason, ..Default::default() }
    }

    pub(crate) async fn try_delete(&self, request: v1::DeleteApplicationRequest) -> Result<v1::Operation, Status> {
        let answer = self.calls().scheduler.delete_application(request).await?.into_inner();
        Ok(answer.operation.unwrap_or_default())
    }

    pub(crate) async fn try_application(&self, name: &str) -> Result<v1::Application, Status> {
        let request = v1::GetApplicationRequest { name: name.to_owned() };
        Ok(self.calls().scheduler.get_application(request).await?.into_inner().application.unwrap_or_default())
    }

    pub(crate) async fn get_application(&self, name: &str) -> Result<v1::Application, Stop> {
        self.try_application(name).await.map_err(|status| Stop::failed("GetApplication: OK", tell(&status)))
    }

    pub(crate) async fn get_instance(&self, name: &str) -> Result<v1::Instance, Stop> {
        let request = v1::GetInstanceRequest { name: name.to_owned() };
        let answer = ok("GetInstance", self.calls().scheduler.get_instance(request).await)?;
        some("an instance", answer.instance)
    }

    pub(crate) async fn operation(&self, name: &str) -> Result<v1::Operation, Stop> {
        let request = v1::GetOperationRequest { name: name.to_owned() };
        some("an operation", ok("GetOperation", self.calls().scheduler.get_operation(request).await)?.operation)
    }

    pub(crate) async fn try_cancel(&self, operation: &str) -> Result<v1::Operation, Status> {
        let request = v1::CancelOperationRequest { name: operation.to_owned(), reason: REASON.to_owned() };
        Ok(self.calls().scheduler.cancel_operation(request).await?.into_inner().operation.unwrap_or_default())
    }

    /// The operation as soon as it fulfils `reached`.
    pub(crate) async fn until(
        &self,
        operation: &str,
        expected: &str,
        reached: impl Fn(&v1::Operation) -> bool,
    ) -> Result<v1::Operation, Stop> {
        let end = Instant::now() + PLENTY;
        loop {
            let found = self.operation(operation).await?;
            if reached(&found) {
                return Ok(found);
            }
            if found.done || Instant::now() >= end {
                let failure = found.failure.as_ref().map(|failure| failure.reason().as_str_name());
                let seen = format!("{} {} {:?}", found.state().as_str_name(), found.message, failure.unwrap_or(""));
                return Err(Stop::failed(format!("{expected} within {PLENTY:?}"), seen));
            }
            sleep(POLL).await;
        }
    }

    pub(crate) async fn until_state(&self, operation: &str, state: State) -> Result<v1::Operation, Stop> {
        self.until(operation, state.as_str_name(), |operation| operation.state() == state).await
    }

    /// Everything that happens to an application from now on.
    pub(crate) async fn follow(&self, application: &str) -> Result<Followed, Stop> {
        let filter = format!("application = \"{application}\"");
        let request = v1::WatchOperationsRequest { filter, skip_snapshot: true, ..Default::default() };
        let mut events = ok("WatchOperations", self.calls().scheduler.watch_operations(request).await)?;
        match timeout(PLENTY, events.next()).await {
            Ok(Some(Ok(_bookmark))) => Ok(Followed(events)),
            Ok(Some(Err(status))) => Err(Stop::failed("a bookmark", tell(&status))),
            Ok(None) => Err(Stop::failed("a bookmark", "the end of the stream")),
            Err(_elapsed) => Err(Stop::failed(format!("a bookmark within {PLENTY:?}"), "nothing")),
        }
    }

    pub(crate) async fn watch(&self, operation: &str) -> Result<Streaming<v1::WatchOperationResponse>, Stop> {
        let request =
            v1::WatchOperationRequest { name: operation.to_owned(), end_on_degraded: true, ..Default::default() };
        ok("WatchOperation", self.calls().scheduler.watch_operation(request).await)
    }

    /// Everything that was made is taken away again, behind a check that `failed` or did not.
    pub(crate) async fn clear(&self, failed: bool) -> Result<(), Stop> {
        let limit = if failed { CLEAR_FAILED_LIMIT } else { CLEAR_LIMIT };
        for fake in lock(&self.fakes).iter() {
            fake.surrender();
        }
        let applications = lock(&self.applications).clone();
        let end = Instant::now() + limit;
        let mut remaining = applications;
        let mut last = String::new();
        while !remaining.is_empty() {
            if Instant::now() >= end {
                return Err(Stop::Broken(format!("cannot clear away {remaining:?} within {limit:?}: {last}")));
            }
            let mut kept = Vec::new();
            for name in remaining {
                match self.clear_away(&name).await {
                    Ok(true) => {}
                    Ok(false) => kept.push(name),
                    Err(problem) => {
                        last = problem;
                        kept.push(name);
                    }
                }
            }
            remaining = kept;
            if !remaining.is_empty() {
                sleep(POLL).await;
            }
        }
        let mut calls = self.calls();
        let clusters = lock(&self.clusters).clone();
        for cluster in clusters {
            let request = v1::DeleteClusterRequest { name: format!("clusters/{cluster}"), etag: String::new() };
            match calls.scheduler.delete_cluster(request).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(Stop::Broken(format!("cannot clear away {cluster}: {}", tell(&status)))),
            }
        }
        let tokens = lock(&self.tokens).clone();
        for name in tokens {
            let request = v1::RevokeTokenRequest { name, reason: REASON.to_owned() };
            // One that was revoked is gone.
            let _revoked = calls.access.revoke_token(request).await;
        }
        Ok(())
    }

    /// Whether it is gone.
    async fn clear_away(&self, name: &str) -> Result<bool, String> {
        let open = match self.try_application(name).await {
            Err(status) if status.code() == Code::NotFound => return Ok(true),
            Err(status) => return Err(tell(&status)),
            Ok(application) => application.active_operation,
        };
        let mut calls = self.calls();
        if !open.is_empty() {
            let request = v1::GetOperationRequest { name: open.clone() };
            let found = calls.scheduler.get_operation(request).await.map_err(|status| tell(&status))?.into_inner();
            let found = found.operation.unwrap_or_default();
            if found.awaiting_confirmation {
                let request = v1::ConfirmOperationRequest { name: open.clone(), reason: REASON.to_owned() };
                // The state may have changed by now; the next round sees.
                let _confirmed = calls.scheduler.confirm_operation(request).await;
            }
            if found.cancellable && found.state() == State::BackingOff {
                // The same.
                let _cancelled = self.try_cancel(&open).await;
            }
            if found.state() != State::Degraded {
                return Ok(false);
            }
        }
        let mut request = self.deletion(name);
        request.force = true;
        request.policy = Some(v1::ShutdownPolicy { allow_unverified: Some(true), ..hasty(once()) });
        match self.try_delete(request).await {
            Ok(_) => Ok(false),
            Err(status) if status.code() == Code::NotFound => Ok(true),
            Err(status) => Err(tell(&status)),
        }
    }
}

/// A watch of one application, begun before its operation.
pub(crate) struct Followed(Streaming<v1::WatchOperationsResponse>);

impl Followed {
    /// Every event until the operation is done or degraded.
    pub(crate) async fn read_to_end(mut self) -> Result<Vec<v1::OperationEvent>, Stop> {
        let mut events: Vec<v1::OperationEvent> = Vec::new();
        loop {
            match timeout(PLENTY, self.0.next()).await {
                Ok(Some(Ok(answer))) => events.extend(answer.event),
                Ok(Some(Err(status))) => return Err(Stop::failed("the end of the operation", tell(&status))),
                Ok(None) => return Err(Stop::failed("the end of the operation", "the end of the stream")),
                Err(_elapsed) => {
                    let seen = format!("{:?}", states(&events));
                    return Err(Stop::failed(format!("the end of the operation within {PLENTY:?}"), seen));
                }
            }
            let last = events.last().and_then(|event| event.operation.as_ref());
            if last.is_some_and(|last| last.done || last.state() == State::Degraded) {
                return Ok(events);
            }
        }
    }
}

/// What is left of a stream that ends by itself.
pub(crate) async fn rest(mut stream: Streaming<v1::WatchOperationResponse>) -> Result<Vec<v1::OperationEvent>, Stop> {
    let mut events = Vec::new();
    loop {
        match timeout(PLENTY, stream.next()).await {
            Ok(Some(Ok(answer))) => events.extend(answer.event),
            Ok(Some(Err(status))) => return Err(Stop::failed("a watch that ends with OK", tell(&status))),
            Ok(None) => return Ok(events),
            Err(_elapsed) => {
                let last = events.last().and_then(|event| event.operation.as_ref());
                let seen = last.map_or("nothing", |operation| operation.state().as_str_name());
                return Err(Stop::failed(format!("the end of the operation within {PLENTY:?}"), seen));
            }
        }
    }
}

/// The states an operation went through.
pub(crate) fn states(events: &[v1::OperationEvent]) -> Vec<State> {
    let changes = events.iter().filter(|event| event.r#type() == Type::StateChanged);
    changes.filter_map(|event| event.operation.as_ref()).map(v1::Operation::state).collect()
}

/// How often something happened.
pub(crate) fn count(events: &[v1::OperationEvent], wanted: Type) -> usize {
    events.iter().filter(|event| event.r#type() == wanted).count()
}

/// What went wrong, as the events of attempts that failed and of timers say.
pub(crate) fn failures(events: &[v1::OperationEvent]) -> Vec<v1::failure::Reason> {
    let wanted = |event: &&v1::OperationEvent| matches!(event.r#type(), Type::AttemptFailed | Type::Timeout);
    let failures = events.iter().filter(wanted).filter_map(|event| event.failure.as_ref());
    failures.map(v1::Failure::reason).collect()
}

/// Labels, from pairs.
pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
