//! Scheduler RPCs about operations: what begins them, what shows them, what people ask of them.

use futures::{FutureExt as _, Stream, StreamExt as _};
use quiesce_operation::{Caller, Kind, OperationId, Trace};
use quiesce_protocol::v1;
use quiesce_store::{Revision, Scan, Space};

use super::Service;
use crate::access::{Applications, Principal};
use crate::admission::{Accepted, Ask, Asker};
use crate::convert::operation::{operation_to_wire, summary_to_wire};
use crate::convert::policy::overrides_from_wire;
use crate::driver::{Command, Snapshot};
use crate::idempotency::{RequestId, Use};
use crate::page::collect;
use crate::records::{OperationRecord, RequestResult, Stored, Summary, from_entry};
use crate::status::Problem;
use crate::token::{Purpose, ResumeToken};
use crate::validate::Violations;
use crate::watch::{BOOKMARK_DEFAULT, BOOKMARK_MIN, Scope, purpose_of_all};

pub(super) async fn migrate(
    service: &Service,
    (caller, request): (Principal, v1::MigrateApplicationRequest),
    trace: Option<Trace>,
) -> Result<v1::MigrateApplicationResponse, Problem> {
    let mut bad = Violations::new();
    let application = bad.application("name", &request.name);
    let target = bad.cluster("target_cluster", &request.target_cluster);
    let source = bad.optional_cluster("source_cluster", &request.source_cluster);
    let request_id = bad.request_id(&request.request_id);
    let policy = overrides_from_wire(request.policy.as_ref(), "policy", &mut bad);
    let reason = bad.reason(&request.reason);
    let labels = bad.labels("labels", &request.labels);
    let etag = bad.etag("etag", &request.etag);
    let application = bad.finish(application)?;
    let ask = Ask { application, kind: Kind::Migrate, target, source, policy, force: false, reason, labels, etag };
    let (operation, plan) =
        begin(service, ask, Asker { identity: caller.name, request_id, trace }, request.validate_only).await?;
    Ok(v1::MigrateApplicationResponse { operation: Some(operation), plan })
}

pub(super) async fn delete(
    service: &Service,
    (caller, request): (Principal, v1::DeleteApplicationRequest),
    trace: Option<Trace>,
) -> Result<v1::DeleteApplicationResponse, Problem> {
    let mut bad = Violations::new();
    let application = bad.application("name", &request.name);
    let request_id = bad.request_id(&request.request_id);
    let policy = overrides_from_wire(request.policy.as_ref(), "policy", &mut bad);
    let reason = bad.reason(&request.reason);
    let labels = bad.labels("labels", &request.labels);
    let etag = bad.etag("etag", &request.etag);
    let application = bad.finish(application)?;
    let (kind, force) = (Kind::Delete, request.force);
    let ask = Ask { application, kind, target: None, source: None, policy, force, reason, labels, etag };
    let (operation, plan) =
        begin(service, ask, Asker { identity: caller.name, request_id, trace }, request.validate_only).await?;
    Ok(v1::DeleteApplicationResponse { operation: Some(operation), plan })
}

async fn begin(
    service: &Service,
    ask: Ask,
    asker: Asker,
    dry_run: bool,
) -> Result<(v1::Operation, Option<v1::ShutdownPlan>), Problem> {
    if dry_run {
        let (operation, plan) = service.admission.rehearse(&ask, &asker).await?;
        let preview = v1::Operation {
            name: String::new(),
            state: v1::operation::State::Unspecified.into(),
            ..operation_to_wire(&*service.registry.clock, &operation, Revision::ZERO)
        };
        return Ok((preview, Some(plan)));
    }
    let admission = service.admission.clone();
    let accepted = service.carry_out("accept operation", async move { admission.accept(&ask, &asker).await }).await?;
    Ok((accepted_to_wire(service, &accepted), None))
}

fn accepted_to_wire(service: &Service, accepted: &Accepted) -> v1::Operation {
    operation_to_wire(&*service.registry.clock, &accepted.operation, accepted.revision)
}

pub(super) async fn get(
    service: &Service,
    request: v1::GetOperationRequest,
) -> Result<v1::GetOperationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    let found = service.admission.operation(&bad.finish(name)?).await?;
    Ok(v1::GetOperationResponse { operation: Some(accepted_to_wire(service, &found)) })
}

pub(super) async fn list(
    service: &Service,
    (caller, request): (Principal, v1::ListOperationsRequest),
) -> Result<v1::ListOperationsResponse, Problem> {
    let mut bad = Violations::new();
    let filter = bad.filter::<v1::Operation>(&request.filter, &[]);
    let purpose = Purpose::of(&["ListOperations", &request.filter]);
    let page = bad.page(request.page_size, &request.page_token, purpose);
    let (filter, page) = bad.finish(filter.zip(page))?;
    let scan = Scan { reverse: true, ..Scan::all(Space::Operations) };
    let (filter, clock, sees) = (&filter, &*service.registry.clock, &caller.sees());
    let page = collect(&*service.registry.store, page, scan, |entry| {
        async move {
            let Stored { revision, record: OperationRecord(operation) } = from_entry(&entry)?;
            if !sees.has(operation.request().application.as_str()) {
                return Ok(None);
            }
            let operation = summary_to_wire(clock, &Summary::of(&operation), revision);
            Ok(filter.matches(&operation).then_some(operation))
        }
        .boxed()
    })
    .await?;
    Ok(v1::ListOperationsResponse { operations: page.items, next_page_token: page.next_page_token })
}

pub(super) async fn cancel(
    service: &Service,
    (caller, request): (Principal, v1::CancelOperationRequest),
) -> Result<v1::CancelOperationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    let reason = bad.reason(&request.reason);
    let id = bad.finish(name)?;
    let operation = command(service, id, Command::Cancel(Caller { identity: caller.name, reason })).await?;
    Ok(v1::CancelOperationResponse { operation: Some(operation) })
}

pub(super) async fn retry(
    service: &Service,
    (caller, request): (Principal, v1::RetryOperationRequest),
) -> Result<v1::RetryOperationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    let reason = bad.reason(&request.reason);
    let request_id = bad.request_id(&request.request_id);
    let policy = overrides_from_wire(request.policy.as_ref(), "policy", &mut bad);
    let id = bad.finish(name)?;
    let force = request.force;
    let content = (id.as_str(), force, &policy, &reason);
    let request_id = RequestId::of("RetryOperation", &caller.name, &request_id, &content);
    let again = RequestResult::Operation(id.clone());
    if let Some(Use::Taken(_)) = service.registry.look_up(request_id.as_ref()).await? {
        return present(service, &id).await;
    }
    let now = crate::convert::now(&*service.registry.clock);
    let remember = request_id.as_ref().map(|request_id| request_id.write(again, now));
    let by = Caller { identity: caller.name, reason };
    let outcome = command(service, id.clone(), Command::Retry { by, force, policy, remember }).await;
    match outcome {
        Ok(operation) => Ok(v1::RetryOperationResponse { operation: Some(operation) }),
        // The same request may have been faster on another connection, and have taken it out of DEGRADED.
        Err(problem) => match service.registry.look_up(request_id.as_ref()).await? {
            Some(Use::Taken(_)) => present(service, &id).await,
            Some(Use::Free(_)) | None => Err(problem),
        },
    }
}

async fn present(service: &Service, id: &OperationId) -> Result<v1::RetryOperationResponse, Problem> {
    let found = service.admission.operation(id).await?;
    Ok(v1::RetryOperationResponse { operation: Some(accepted_to_wire(service, &found)) })
}

pub(super) async fn extend(
    service: &Service,
    (_, request): (Principal, v1::ExtendOperationRequest),
) -> Result<v1::ExtendOperationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    bad.reason(&request.reason);
    let grace = bad.duration("grace_period", request.grace_period.as_ref());
    if request.grace_period.is_none() {
        bad.add("grace_period", "must be set");
    }
    if grace.is_some_and(|grace| grace > quiesce_operation::policy::DURATION_MAX) {
        bad.add("grace_period", "must be at most 24 hours");
    }
    let (id, grace) = bad.finish(name.zip(grace))?;
    let operation = command(service, id, Command::Extend { grace }).await?;
    Ok(v1::ExtendOperationResponse { operation: Some(operation) })
}

pub(super) async fn confirm(
    service: &Service,
    (caller, request): (Principal, v1::ConfirmOperationRequest),
) -> Result<v1::ConfirmOperationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    let reason = bad.reason(&request.reason);
    let id = bad.finish(name)?;
    let operation = command(service, id, Command::Confirm(Caller { identity: caller.name, reason })).await?;
    Ok(v1::ConfirmOperationResponse { operation: Some(operation) })
}

async fn command(service: &Service, id: OperationId, command: Command) -> Result<v1::Operation, Problem> {
    let driver = service.driver.clone();
    let done = service.carry_out("command", async move { Ok(driver.command(&id, command).await?) }).await?;
    let Snapshot { operation, revision } = done;
    Ok(operation_to_wire(&*service.registry.clock, &operation, revision))
}

type Events = futures::stream::BoxStream<'static, Result<v1::OperationEvent, Problem>>;

pub(super) async fn watch_one(service: &Service, request: v1::WatchOperationRequest) -> Result<Events, Problem> {
    let mut bad = Violations::new();
    let name = bad.operation("name", &request.name);
    let interval = bookmark_interval(request.bookmark_interval.as_ref(), &mut bad);
    let id = request.name.strip_prefix("operations/").unwrap_or(&request.name);
    let purpose = Purpose::of(&["WatchOperation", id]);
    let token = bad.resume_token(&request.resume_token, purpose);
    let operation = bad.finish(name)?;
    let scope = Scope::One { operation, end_on_degraded: request.end_on_degraded };
    watch(service, scope, purpose, token, interval).await
}

pub(super) async fn watch_all(
    service: &Service,
    request: v1::WatchOperationsRequest,
    sees: Applications,
) -> Result<Events, Problem> {
    let mut bad = Violations::new();
    let filter = bad.filter::<v1::Operation>(&request.filter, &["state", "done"]);
    let interval = bookmark_interval(request.bookmark_interval.as_ref(), &mut bad);
    let purpose = purpose_of_all(&request.filter);
    let token = bad.resume_token(&request.resume_token, purpose);
    let filter = bad.finish(filter)?;
    let v1::WatchOperationsRequest { skip_snapshot, include_done, .. } = request;
    let scope = Scope::All { filter, skip_snapshot, include_done };
    let events = watch(service, scope, purpose, token, interval).await?;
    let shown = move |event: &Result<v1::OperationEvent, Problem>| match event {
        // Without an operation: a bookmark.
        Ok(v1::OperationEvent { operation: Some(operation), .. }) => sees.has_name(&operation.application),
        Ok(_) | Err(_) => true,
    };
    Ok(events.filter(move |event| std::future::ready(shown(event))).boxed())
}

async fn watch(
    service: &Service,
    scope: Scope,
    purpose: Purpose,
    token: Option<ResumeToken>,
    interval: std::time::Duration,
) -> Result<Events, Problem> {
    let permit = std::sync::Arc::clone(&service.watch_permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::LimitExceeded { limit: "open watches" })?;
    let events: Box<dyn Stream<Item = _> + Send + Unpin> =
        Box::new(Box::pin(service.watches.begin(scope, purpose, token, interval).await?));
    Ok(events
        .map(move |event| {
            // Held as long as the stream lives.
            let _ = &permit;
            event
        })
        .boxed())
}

fn bookmark_interval(wanted: Option<&prost_types::Duration>, bad: &mut Violations) -> std::time::Duration {
    match bad.duration("bookmark_interval", wanted) {
        Some(interval) if interval < BOOKMARK_MIN => {
            bad.add("bookmark_interval", "must be at least 1s");
            BOOKMARK_DEFAULT
        }
        Some(interval) => interval,
        None => BOOKMARK_DEFAULT,
    }
}
