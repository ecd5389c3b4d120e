//! O: migrations and deletions that go well, what is refused, request ids, dry runs.

use std::time::Duration;

use futures::future::join_all;
use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use tokio::time::sleep;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::fake::{Act, Call, Fake, Script, stopped, stopping, stops, waits};
use super::stage::{PLENTY, Stage, labels, ok, once, patient, quick, some, states};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    O01 Must "a migration goes PREPARING, STOPPING, STOPPED, FINALIZING, SUCCEEDED; then the cluster is the target",
        rules::TRANSITIONS, "Go through every state, and store each.", [], migrates;
    O02 Must "after a deletion the application is gone",
        rules::DELETE, "Forget application and instances once every end is verified.", [], deletes;
    O03 Must "no success before every hook has reported an end",
        rules::GATE, "Count the ends; go on when the last is there.", [], every_one;
    O04 Must "stop_order is kept, and no more than max_parallel_stops at a time",
        rules::STOP_ORDER, "Tell the next ones when those before them have ended.", [], in_order;
    O05 Must "a second operation is ABORTED, with the name of the first and RetryInfo",
        rules::ONE, "Decide it in the same step that stores the operation.", [], one_at_a_time;
    O06 Must "no instances, missing instances, another source, the target it is on: each refused with its reason",
        rules::INSTANCES_MISSING, "Check what the request takes for granted.", [], preconditions;
    O07 Must "the same request_id 20 times in parallel: one operation, hooks called once",
        rules::SAME, "Decide it in the same step that stores the operation.", [], in_parallel;
    O08 Must "the same request_id after the end: the same operation, and nothing happens",
        rules::SAME, "Keep the id as long as the operation.", [], after_the_end;
    O09 Must "the same request_id with other content: ALREADY_EXISTS / REQUEST_ID_CONFLICT",
        rules::OTHER, "Keep a digest of the request with its id.", [], conflict;
    O10 Must "a request that was refused does not use up its id",
        rules::USED_UP, "Store the id together with the operation, and only then.", [], refused_is_free;
    O11 Must "a dry run: plan and preview, the errors of the real call; nothing stored, nothing told, no id used",
        rules::DRY_RUN, "Do everything of the real call but storing and telling.", [], dry_run;
    O12 Must "labels, reason, request_id and requester stand in the operation, and labels in filters",
        rules::RECORD, "Store them with the operation.", [], kept;
};

fn ok_or(status: &Status) -> Stop {
    Stop::failed("OK", tell(status))
}

async fn migrates(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let followed = stage.follow(&staged.name).await?;
    let operation = stage.migrate(&staged.name).await?;
    let seen = states(&followed.read_to_end().await?);
    let whole = [State::Preparing, State::Stopping, State::Stopped, State::Finalizing, State::Succeeded];
    expect(seen == whole, format!("{whole:?}, in this order"), format!("{seen:?}"))?;
    let found = stage.operation(&operation).await?;
    let over = found.done && found.state() == State::Succeeded && found.end_time.is_some();
    expect(over, "SUCCEEDED, done, with end_time", format!("{found:?}"))?;
    let target = stage.get_application(&staged.name).await?;
    expect(target.cluster == stage.cluster("b"), stage.cluster("b"), target.cluster)?;
    let request = staged.hook.shutdowns().into_iter().next();
    let request = some("a Shutdown", request)?;
    let fits = request.operation == operation
        && request.attempt == 1
        && !request.completion_token.is_empty()
        && request.kind() == v1::OperationKind::Migrate;
    expect(fits, "a Shutdown with operation, attempt, kind and token", format!("{request:?}"))
}

async fn deletes(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let operation = stage.try_delete(stage.deletion(&staged.name)).await.map_err(|status| ok_or(&status))?;
    stage.until_state(&operation.name, State::Succeeded).await?;
    refused(stage.try_application(&staged.name).await, &[Code::NotFound], "APPLICATION_NOT_FOUND")?;
    let request = v1::GetInstanceRequest { name: format!("{}/instances/one", staged.name) };
    let instance = stage.calls().scheduler.get_instance(request).await;
    refused(instance, &[Code::NotFound], "INSTANCE_NOT_FOUND")
}

async fn told(hook: &Fake, what: &str) -> Verdict {
    let shutdown = hook.told(PLENTY, |calls| calls.iter().any(|(_, call)| matches!(call, Call::Shutdown(_)))).await;
    expect(shutdown, format!("a Shutdown of {what}"), "none")
}

/// What must not happen is given this long to happen.
const A_WHILE: Duration = Duration::from_millis(600);

async fn every_one(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let quick = stage.instance(&name, "one", Script::of([stops()])).await?;
    let slow = stage.instance(&name, "two", Script::of([waits()])).await?;
    let operation = stage.migrate(&name).await?;
    told(&quick, "the first").await?;
    told(&slow, "the second").await?;
    let one = |operation: &v1::Operation| operation.counts.as_ref().is_some_and(|counts| counts.stopped == 1);
    stage.until(&operation, "one of two stopped", one).await?;
    sleep(A_WHILE).await;
    let found = stage.operation(&operation).await?;
    expect(found.state() == State::Stopping, "STOPPING while one of two runs", found.state().as_str_name())?;
    slow.release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn in_order(stage: &Stage) -> Verdict {
    let policy = v1::ShutdownPolicy { max_parallel_stops: Some(1), ..patient() };
    let name = stage.create(stage.unmade(policy)).await?.name;
    let mut hooks = Vec::new();
    for (id, stop_order) in [("late", 2), ("early", 1), ("next", 2)] {
        let hook = stage.fake(Script::of([waits()]));
        let instance = stage.listening(&name, id, &hook).await?;
        stage.register(v1::Instance { stop_order, ..instance }).await?;
        hooks.push(hook);
    }
    let operation = stage.migrate(&name).await?;
    told(&hooks[1], "the one with the lowest stop_order").await?;
    sleep(A_WHILE).await;
    let early = hooks[0].ids().is_empty() && hooks[2].ids().is_empty();
    expect(early, "nobody told before the lowest stop_order has ended", "somebody was")?;
    hooks[1].release();
    let one_of_two = stage.until(&operation, "one more told", |_| hooks[0].ids().len() + hooks[2].ids().len() > 0);
    one_of_two.await?;
    sleep(A_WHILE).await;
    let number = hooks[0].ids().len() + hooks[2].ids().len();
    expect(number == 1, "one of equal stop_order told at a time", number)?;
    hooks[0].release();
    hooks[2].release();
    stage.until_state(&operation, State::Succeeded).await.map(drop)
}

async fn one_at_a_time(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    let again =
        [stage.try_migrate(stage.migration(&staged.name)).await, stage.try_delete(stage.deletion(&staged.name)).await];
    for answer in again {
        let Err(status) = answer else { return Err(Stop::failed("ABORTED OPERATION_IN_PROGRESS", "OK")) };
        refused::<()>(Err(status.clone()), &[Code::Aborted], "OPERATION_IN_PROGRESS")?;
        let named = status.get_details_error_info().and_then(|info| info.metadata.get("operation").cloned());
        expect(named.as_ref() == Some(&operation), format!("metadata operation {operation}"), format!("{named:?}"))?;
        expect(status.get_details_retry_info().is_some(), "RetryInfo", "none")?;
    }
    Ok(())
}

async fn preconditions(stage: &Stage) -> Verdict {
    let refusal = &[Code::FailedPrecondition];
    let empty = stage.create(stage.unmade(quick())).await?.name;
    refused(stage.try_migrate(stage.migration(&empty)).await, refusal, "NO_INSTANCES")?;
    let few = v1::Application { expected_instances: Some(2), ..stage.unmade(quick()) };
    let few = stage.create(few).await?.name;
    stage.instance(&few, "one", Script::of([stops()])).await?;
    refused(stage.try_migrate(stage.migration(&few)).await, refusal, "INSTANCES_MISSING")?;
    refused(stage.try_delete(stage.deletion(&few)).await, refusal, "INSTANCES_MISSING")?;
    let staged = stage.staged(quick(), Script::of([stops()])).await?;
    let elsewhere =
        v1::MigrateApplicationRequest { source_cluster: stage.cluster("c"), ..stage.migration(&staged.name) };
    refused(stage.try_migrate(elsewhere).await, refusal, "SOURCE_CLUSTER_MISMATCH")?;
    let here = v1::MigrateApplicationRequest { target_cluster: stage.cluster("a"), ..stage.migration(&staged.name) };
    refused(stage.try_migrate(here).await, refusal, "ALREADY_ON_TARGET")?;
    expect(staged.hook.ids().is_empty(), "no Shutdown for what was refused", "one")
}

async fn in_parallel(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&staged.name) };
    let answers = join_all((0..20).map(|_| stage.try_migrate(request.clone()))).await;
    let names: Result<Vec<_>, _> = answers.into_iter().map(|answer| answer.map(|operation| operation.name)).collect();
    let mut names = names.map_err(|status| Stop::failed("OK for each", tell(&status)))?;
    names.dedup();
    expect(names.len() == 1, "the same operation for each", format!("{names:?}"))?;
    staged.hook.release();
    stage.until_state(&names[0], State::Succeeded).await?;
    expect(staged.hook.ids().len() == 1, "one shutdown", staged.hook.ids().len())
}

async fn after_the_end(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([stops()])).await?;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&staged.name) };
    let first = stage.try_migrate(request.clone()).await.map_err(|status| ok_or(&status))?;
    stage.until_state(&first.name, State::Succeeded).await?;
    let again = stage.try_migrate(request).await.map_err(|status| ok_or(&status))?;
    let fits = again.name == first.name && again.state() == State::Succeeded;
    expect(fits, format!("{}, SUCCEEDED", first.name), format!("{again:?}"))?;
    expect(staged.hook.ids().len() == 1, "one shutdown", staged.hook.ids().len())
}

async fn conflict(stage: &Stage) -> Verdict {
    let staged = stage.staged(patient(), Script::of([waits()])).await?;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&staged.name) };
    stage.try_migrate(request.clone()).await.map_err(|status| ok_or(&status))?;
    let other = v1::MigrateApplicationRequest { target_cluster: stage.cluster("c"), ..request };
    refused(stage.try_migrate(other).await, &[Code::AlreadyExists], "REQUEST_ID_CONFLICT")
}

async fn refused_is_free(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let request = v1::MigrateApplicationRequest { request_id: stage.word(), ..stage.migration(&name) };
    refused(stage.try_migrate(request.clone()).await, &[Code::FailedPrecondition], "NO_INSTANCES")?;
    stage.instance(&name, "one", Script::of([waits()])).await?;
    // Other content, too: the id is as good as new.
    let request = v1::MigrateApplicationRequest { target_cluster: stage.cluster("c"), ..request };
    stage.try_migrate(request).await.map(drop).map_err(|status| Stop::failed("the same id: OK", tell(&status)))
}

async fn dry_run(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(once())).await?.name;
    let dry = v1::MigrateApplicationRequest { validate_only: true, request_id: stage.word(), ..stage.migration(&name) };
    refused(stage.try_migrate(dry.clone()).await, &[Code::FailedPrecondition], "NO_INSTANCES")?;
    let hook = stage.instance(&name, "one", Script::of([waits()])).await?;
    hook.change(|script| script.findings = vec!["no permission to signal".to_owned()]);
    let answer = stage.calls().scheduler.migrate_application(dry.clone()).await;
    let answer = ok("a dry run", answer)?;
    let preview = some("a preview", answer.operation)?;
    expect(preview.name.is_empty(), "a preview without a name", &preview.name)?;
    let plan = some("a plan", answer.plan)?;
    let step = some("a step", plan.steps.first().cloned())?;
    let complete = plan.steps.len() == 1
        && step.instance == format!("{name}/instances/one")
        && step.reachable
        && step.ok == Some(false)
        && step.findings.iter().any(|finding| finding.contains("no permission"))
        && !step.capabilities.is_empty()
        && plan.worst_case_duration.is_some();
    expect(complete, "a complete plan, with the findings of the hook", format!("{plan:?}"))?;
    expect(hook.ids().is_empty(), "no Shutdown", "one")?;
    let found = stage.get_application(&name).await?;
    expect(found.active_operation.is_empty(), "nothing stored", &found.active_operation)?;
    hook.change(|script| script.findings.clear());
    let real = v1::MigrateApplicationRequest { validate_only: false, target_cluster: stage.cluster("c"), ..dry };
    stage.try_migrate(real).await.map_err(|status| Stop::failed("the id of a dry run is free: OK", tell(&status)))?;
    let busy = v1::MigrateApplicationRequest { validate_only: true, ..stage.migration(&name) };
    refused(stage.try_migrate(busy).await, &[Code::Aborted], "OPERATION_IN_PROGRESS")
}

async fn kept(stage: &Stage) -> Verdict {
    let acts = [stopping(), vec![Act::UntilReleased, stopped()]].concat();
    let staged = stage.staged(patient(), Script::of([acts])).await?;
    let id = stage.word();
    let request = v1::MigrateApplicationRequest {
        request_id: id.clone(),
        labels: labels([("ticket", id.as_str())]),
        ..stage.migration(&staged.name)
    };
    let made = stage.try_migrate(request.clone()).await.map_err(|status| ok_or(&status))?;
    let found = stage.operation(&made.name).await?;
    let fits = found.labels == request.labels
        && found.reason == request.reason
        && found.request_id == id
        && !found.requester.is_empty()
        && found.application == staged.name
        && found.source_cluster == stage.cluster("a")
        && found.target_cluster == stage.cluster("b");
    expect(fits, "what was asked for, and by whom", format!("{found:?}"))?;
    let filter = format!("labels.ticket = \"{id}\"");
    let request = v1::ListOperationsRequest { filter, ..Default::default() };
    let listed = ok("ListOperations", stage.calls().scheduler.list_operations(request).await)?.operations;
    let names: Vec<_> = listed.iter().map(|operation| operation.name.as_str()).collect();
    expect(names == [made.name.as_str()], &made.name, format!("{names:?}"))?;
    expect(listed[0].instances.is_empty(), "no instances in a list", "some")
}
