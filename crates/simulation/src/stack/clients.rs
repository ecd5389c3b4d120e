//! The people of a run: the caller, who asks until it is answered, and the person who looks after what got stuck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quiesce_protocol::v1;
use tokio::time::{sleep, sleep_until, timeout};
use tonic::{Code, Response, Status};

use super::instance::Manner;
use super::plan::{Afterthought, Ask};
use super::watching::{follow, history};
use super::world::{Outcome, World};

/// Longest wait for an answer.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(700);
/// How often the person looks.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// One life of the caller: whatever is not answered is asked again, under the same request id.
pub(super) async fn caller(world: Arc<World>) -> turmoil::Result {
    let begun = tokio::time::Instant::now();
    let elapsed = world.story.now();
    let asks = world.plan.asks.iter().enumerate().map(|(number, ask)| {
        let world = Arc::clone(&world);
        async move {
            sleep_until(begun + ask.at.saturating_sub(elapsed)).await;
            while world.memory().first_token.is_none() {
                sleep(PAUSE).await;
            }
            let Some(operation) = answered(&world, number, ask).await else { return };
            let followed = follow(&world, "caller", &operation);
            let then = async {
                if let Some((after, what)) = ask.then {
                    sleep(after).await;
                    reconsider(&world, &operation, what).await;
                }
            };
            futures::future::join(followed, then).await;
        }
    });
    join_all(asks).await;
    // The host stays: nobody takes it for crashed.
    std::future::pending().await
}

/// Asks until there is an answer; the name of the operation, if it was accepted.
async fn answered(world: &World, number: usize, ask: &Ask) -> Option<String> {
    let known = world.memory().outcomes.get(&number).cloned();
    if let Some(Outcome::Refused(_)) = known {
        return None;
    }
    let mut told = String::new();
    loop {
        let answer = timeout(CALL_LIMIT, request(world, ask)).await;
        let outcome = match answer {
            Ok(Ok(operation)) => Outcome::Accepted(operation.name),
            Ok(Err(status)) if is_worth_repeating(world, ask, &status) => {
                let answer = format!("{:?} {}", status.code(), status.message());
                if answer != told {
                    world.story.tell("caller", format_args!("{}: not yet, {answer}", ask.request_id));
                    told = answer;
                }
                sleep(PAUSE).await;
                continue;
            }
            Ok(Err(status)) => Outcome::Refused(format!("{:?}: {}", status.code(), status.message())),
            Err(_elapsed) => continue,
        };
        // An accepted request stays accepted, whatever has become of the application meanwhile.
        world.settle(number, ask, outcome.clone());
        return match outcome {
            Outcome::Accepted(name) => Some(name),
            Outcome::Refused(_) => None,
        };
    }
}

async fn request(world: &World, ask: &Ask) -> Result<v1::Operation, Status> {
    let mut client = world.client("caller");
    let name = format!("applications/{}", ask.application);
    let request_id = ask.request_id.clone();
    let operation = match ask.target {
        Some(target) => {
            let target_cluster = target.to_owned();
            let request = v1::MigrateApplicationRequest { name, target_cluster, request_id, ..Default::default() };
            client.migrate_application(request).await?.into_inner().operation
        }
        None => {
            let request = v1::DeleteApplicationRequest { name, request_id, ..Default::default() };
            client.delete_application(request).await?.into_inner().operation
        }
    };
    operation.ok_or_else(|| Status::data_loss("an answer without an operation"))
}

/// Nobody has answered, or the answer will be another one soon: another operation holds the application, it is not
/// registered yet, its standby is not.
fn is_worth_repeating(world: &World, ask: &Ask, status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::ResourceExhausted => true,
        Code::NotFound => !is_deleted(world, ask.application),
        Code::FailedPrecondition => ["is held by", "stands by on", "nothing is registered"]
            .iter()
            .any(|passing| status.message().contains(passing)),
        _ => false,
    }
}

/// Whether a deletion of the application was accepted.
fn is_deleted(world: &World, application: &str) -> bool {
    let memory = world.memory();
    let accepted = |number: usize| matches!(memory.outcomes.get(&number), Some(Outcome::Accepted(_)));
    let mut asks = world.plan.asks.iter().enumerate();
    asks.any(|(number, ask)| ask.application == application && ask.target.is_none() && accepted(number))
}

async fn reconsider(world: &World, operation: &str, what: Afterthought) {
    let mut client = world.client("caller");
    let name = operation.to_owned();
    let grace_period = Some(prost_types::Duration { seconds: 14, nanos: 0 });
    let answer = match what {
        Afterthought::Cancel => {
            let request = v1::CancelOperationRequest { name, ..Default::default() };
            timeout(CALL_LIMIT, client.cancel_operation(request)).await.map(|answer| answer.map(drop))
        }
        Afterthought::Extend => {
            let request = v1::ExtendOperationRequest { name, grace_period, ..Default::default() };
            timeout(CALL_LIMIT, client.extend_operation(request)).await.map(|answer| answer.map(drop))
        }
    };
    let answer = match answer {
        Ok(Ok(())) => "yes".to_owned(),
        Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(_elapsed) => "no answer".to_owned(),
    };
    world.story.tell("caller", format_args!("{what:?} {operation}? {answer}"));
}

/// When all is calm, retries what rests in DEGRADED, with force where nothing else helps.
pub(super) async fn person(world: Arc<World>) -> turmoil::Result {
    loop {
        sleep(LOOK_EVERY).await;
        if !world.memory().is_calm {
            continue;
        }
        let Some(operations) = operations(&world).await else { continue };
        let Some(homes) = homes(&world).await else { continue };
        let Some(instances) = instances(&world, homes.keys()).await else { continue };
        let first_token = {
            let mut memory = world.memory();
            (memory.listing, memory.homes, memory.instances) = (operations.clone(), homes, instances);
            memory.first_token.clone().unwrap_or_default()
        };
        let truth = history(&world, "person", &first_token).await;
        world.memory().truth = truth;
        for operation in operations.into_iter().filter(|it| it.state() == v1::operation::State::Degraded) {
            retry(&world, operation).await;
        }
    }
}

/// Everything there is; none when nobody answers.
async fn operations(world: &World) -> Option<Vec<v1::Operation>> {
    let mut client = world.client("person");
    let mut all = Vec::new();
    let mut request = v1::ListOperationsRequest::default();
    loop {
        let answer = timeout(CALL_LIMIT, client.list_operations(request.clone())).await.ok()?.ok()?.into_inner();
        all.extend(answer.operations);
        if answer.next_page_token.is_empty() {
            return Some(all);
        }
        request.page_token = answer.next_page_token;
    }
}

/// On which cluster each application is at home; none when nobody answers.
async fn homes(world: &World) -> Option<BTreeMap<String, String>> {
    let mut client = world.client("person");
    let answer = timeout(CALL_LIMIT, client.list_applications(v1::ListApplicationsRequest::default())).await.ok()?;
    let applications = answer.ok()?.into_inner().applications;
    let home = |it: v1::Application| (it.name.trim_start_matches("applications/").to_owned(), it.cluster);
    Some(applications.into_iter().map(home).collect())
}

/// Every instance; none when the scheduler does not answer.
async fn instances(world: &World, applications: impl Iterator<Item = &String>) -> Option<Vec<v1::Instance>> {
    let mut client = world.client("person");
    let mut found = Vec::new();
    for application in applications {
        let request = v1::ListInstancesRequest { parent: format!("applications/{application}"), ..Default::default() };
        let answer = timeout(CALL_LIMIT, client.list_instances(request)).await.ok()?.ok()?;
        found.extend(answer.into_inner().instances);
    }
    Some(found)
}

async fn retry(world: &World, operation: v1::Operation) {
    let reason = operation.failure.as_ref().map(v1::Failure::reason).unwrap_or_default();
    let times = {
        let mut memory = world.memory();
        memory.degraded.entry(operation.name.clone()).or_default().push(reason);
        let times = memory.retries.entry(operation.name.clone()).or_default();
        *times += 1;
        *times
    };
    let of_it = |role: &&super::plan::Role| operation.application.ends_with(role.application);
    let force = world.plan.cast.iter().filter(of_it).any(|role| role.manner == Manner::Deaf);
    world.story.tell("person", format_args!("retries {} ({reason:?}, time {times}, force {force})", operation.name));
    let request = v1::RetryOperationRequest { name: operation.name, force, ..Default::default() };
    let answer = timeout(CALL_LIMIT, world.client("person").retry_operation(request)).await;
    if let Ok(Err(status)) = answer.map(|answer: Result<Response<_>, _>| answer) {
        world.story.tell("person", format_args!("is refused: {}", status.message()));
    }
}
