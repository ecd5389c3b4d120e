//! S: epochs, starts at the target, and the way back.

use quiesce_protocol::v1;
use quiesce_protocol::v1::conclude_shutdown_request::Disposition;
use quiesce_protocol::v1::failure::Reason;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::stop_result::Outcome;
use tokio::time::Instant;
use tonic::Code;

use super::fake::{Act, Call, Fake, Script, Start, stopping, stops, waits};
use super::stage::{PLENTY, REASON, Stage, millis, ok, once, patient, some, states};
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused, tell};

pub(super) const CHECKS: &[Check] = checks! {
    S01 Must "placement agents: STOPPED, STARTING, FINALIZING; the standby is started under a new epoch, the source stands by",
        rules::STARTING, "Send StartApplication to what stands by on the target, with an epoch never used before.",
        [], migrates;
    S02 Must "the target is not started before the last instance of the source has ended",
        rules::GATE, "Start nothing before every end is verified.", [], gate;
    S03 Must "no success before the target is ready",
        rules::STARTING, "Wait for OUTCOME_READY.", [], awaited;
    S04 Must "the call of a start breaks: asked again under the same epoch, which joins it",
        rules::START_JOIN, "Ask again with the epoch of the start, not with a new one.", [], joins;
    S05 Must "the target does not come up: ROLLED_BACK, the source is started again under a higher epoch",
        rules::ROLLED_BACK, "Raise the epoch once more, and start the source with it.", [], fails;
    S06 Must "start_timeout: START_TIMEOUT, the target is stopped before the source is started",
        rules::ROLLING_BACK, "Stop the target, verify its end, then start the source.", [], late;
    S07 Must "cancelled while STARTING: the target is stopped, then the source is started, ROLLED_BACK",
        rules::TAKEN_BACK, "Go back as if the target had not come up.", [], taken_back;
    S08 Must "the source does not come up either: DEGRADED; retry goes on rolling back",
        rules::BACK_AGAIN, "Remember that it was on its way back.", [], back_again;
    S09 Must "nothing stands by on the target: TARGET_NOT_READY, and nothing is told",
        rules::NO_STANDBY, "Look before you accept the request.", [], no_standby;
    S10 Must "a deletion: the instances are concluded with RETIRED, and a held agent is APPLICATION_DELETED",
        rules::RETIRED, "Remember the names of what was deleted.", [], retires;
    S11 Must "a deletion that is taken back starts what ran at the source, and no standby",
        rules::ROLLED_BACK, "Start what the operation has stopped, not what stood by.", [], standbys;
};

/// An application with placement `agents` that runs on cluster a and stands by on cluster b.
struct Pair {
    name: String,
    source: Fake,
    target: Fake,
}

async fn pair(stage: &Stage, policy: v1::ShutdownPolicy, source: Script, target: Script) -> Result<Pair, Stop> {
    let name = stage.create(by_agents(stage.unmade(policy))).await?.name;
    let source = stage.instance(&name, "one", source).await?;
    let target = stand_by(stage, &name, target).await?;
    Ok(Pair { name, source, target })
}

fn by_agents(application: v1::Application) -> v1::Application {
    let driver = Some(v1::placement::Driver::Agents(v1::AgentsPlacement {}));
    v1::Application { placement: Some(v1::Placement { driver }), ..application }
}

/// An instance on cluster b that has never run.
async fn stand_by(stage: &Stage, application: &str, script: Script) -> Result<Fake, Stop> {
    let hook = stage.fake(script);
    let instance = stage.listening(application, "other", &hook).await?;
    let instance = v1::Instance { cluster: stage.cluster("b"), ..instance };
    let request = v1::RegisterInstanceRequest { instance: Some(instance), held: true, ..Default::default() };
    ok("RegisterInstance of a standby", stage.calls().gateway.register_instance(request).await)?;
    Ok(hook)
}

/// A pair whose migration waits for its target to become ready.
pub(super) async fn under_way(stage: &Stage) -> Result<(String, Fake, Fake), Stop> {
    let pair = pair(stage, patient(), Script::of([stops()]), Script::standby([Start::UntilReleased])).await?;
    let operation = stage.migrate(&pair.name).await?;
    started(&pair.target, 1).await?;
    stage.until_state(&operation, State::Starting).await?;
    Ok((operation, pair.source, pair.target))
}

/// A pair whose target did not come up, and whose source is being started again.
pub(super) async fn going_back(stage: &Stage) -> Result<(String, Fake), Stop> {
    let source = Script::of([stops()]).starting([Start::UntilReleased]);
    let pair = pair(stage, patient(), source, Script::standby([Start::Fails])).await?;
    let operation = stage.migrate(&pair.name).await?;
    started(&pair.source, 1).await?;
    stage.until_state(&operation, State::RollingBack).await?;
    Ok((operation, pair.source))
}

/// The StartApplication of that number, as soon as it comes: when, and what.
async fn started(hook: &Fake, number: usize) -> Result<(Instant, v1::StartApplicationRequest), Stop> {
    let came = hook.told(PLENTY, |_| hook.starts().len() >= number).await;
    expect(came, format!("StartApplication number {number} within {PLENTY:?}"), hook.starts().len())?;
    some("a StartApplication", hook.starts().into_iter().nth(number - 1))
}

/// The epoch of the last Shutdown.
fn told_under(hook: &Fake) -> i64 {
    hook.shutdowns().last().map_or(0, |request| request.epoch)
}

/// Where the application is, and that nothing holds it.
async fn expect_home(stage: &Stage, application: &str, cluster: &str) -> Verdict {
    let found = stage.get_application(application).await?;
    let fits = found.cluster == stage.cluster(cluster) && found.active_operation.is_empty();
    expect(fits, format!("the application on {}, free", stage.cluster(cluster)), format!("{found:?}"))
}

/// The source was started again under an epoch above `epoch`; when.
fn expect_back(source: &Fake, epoch: i64) -> Result<Instant, Stop> {
    let (at, request) = some("a StartApplication at the source", source.starts().into_iter().next_back())?;
    let fits = request.epoch > epoch && request.rollback;
    expect(fits, format!("rollback, under an epoch above {epoch}"), format!("{request:?}"))?;
    Ok(at)
}

async fn migrates(stage: &Stage) -> Verdict {
    let Pair { name, source, target } =
        pair(stage, patient(), Script::of([stops()]), Script::standby([Start::Ready])).await?;
    let followed = stage.follow(&name).await?;
    let operation = stage.migrate(&name).await?;
    let passed = states(&followed.read_to_end().await?);
    let wanted =
        [State::Preparing, State::Stopping, State::Stopped, State::Starting, State::Finalizing, State::Succeeded];
    expect(passed == wanted, format!("{wanted:?}"), format!("{passed:?}"))?;
    let (_, start) = started(&target, 1).await?;
    let above = told_under(&source);
    let fits = start.epoch > above && start.operation == operation && !start.rollback;
    expect(fits, format!("a start under an epoch above {above}, no rollback"), format!("{start:?}"))?;
    expect(
        source.starts().is_empty() && target.ids().is_empty(),
        "no start at the source, no stop at the target",
        "one",
    )?;
    expect_home(stage, &name, "b").await?;
    let found = stage.get_application(&name).await?;
    expect(found.epoch == start.epoch, format!("Application.epoch {}", start.epoch), found.epoch)?;
    concluded(&source, Disposition::Standby).await
}

/// The hook hears what becomes of its instance.
async fn concluded(hook: &Fake, wanted: Disposition) -> Verdict {
    let heard = hook.told(PLENTY, |_| !hook.conclusions().is_empty()).await;
    expect(heard, format!("ConcludeShutdown within {PLENTY:?}"), "none")?;
    let seen: Vec<_> = hook.conclusions().iter().map(v1::ConcludeShutdownRequest::disposition).collect();
    expect(seen.iter().all(|seen| *seen == wanted), wanted.as_str_name(), format!("{seen:?}"))
}

async fn gate(stage: &Stage) -> Verdict {
    let Pair { name, source: _quick, target } =
        pair(stage, patient(), Script::of([stops()]), Script::standby([Start::Ready])).await?;
    let slow = stage.instance(&name, "slow", Script::of([waits()])).await?;
    let operation = stage.migrate(&name).await?;
    let half = |found: &v1::Operation| found.counts.as_ref().is_some_and(|counts| counts.stopped == 1);
    stage.until(&operation, "one of two stopped", half).await?;
    let released = Instant::now();
    slow.release();
    stage.until_state(&operation, State::Succeeded).await?;
    let (at, _) = started(&target, 1).await?;
    expect(at >= released, "no StartApplication before every instance has ended", "one")
}

async fn awaited(stage: &Stage) -> Verdict {
    let (operation, source, target) = under_way(stage).await?;
    let ready = |found: &v1::Operation| found.starts.iter().any(|start| start.status.is_some());
    let found = stage.until(&operation, "reports of the target", ready).await?;
    let waits = found.state() == State::Starting && !found.starts.iter().any(|start| start.ready);
    expect(waits, "STARTING, the target not ready", format!("{found:?}"))?;
    expect(source.conclusions().is_empty(), "no ConcludeShutdown at the source yet", "one")?;
    target.release();
    let found = stage.until_state(&operation, State::Succeeded).await?;
    expect(found.starts.iter().all(|start| start.ready), "every start ready", format!("{:?}", found.starts))
}

async fn joins(stage: &Stage) -> Verdict {
    let Pair { name, target, .. } =
        pair(stage, patient(), Script::of([stops()]), Script::standby([Start::Breaks])).await?;
    let operation = stage.migrate(&name).await?;
    stage.until_state(&operation, State::Succeeded).await?;
    let epochs: Vec<_> = target.starts().iter().map(|(_, request)| request.epoch).collect();
    let same = epochs.len() >= 2 && epochs.iter().all(|epoch| *epoch == epochs[0]);
    expect(same, "StartApplication again, under the same epoch", format!("{epochs:?}"))
}

async fn fails(stage: &Stage) -> Verdict {
    let Pair { name, source, target } =
        pair(stage, patient(), Script::of([stops()]), Script::standby([Start::Fails])).await?;
    let followed = stage.follow(&name).await?;
    let operation = stage.migrate(&name).await?;
    let passed = states(&followed.read_to_end().await?);
    let end = [State::Starting, State::RollingBack, State::RolledBack];
    expect(passed.ends_with(&end), format!("{end:?}"), format!("{passed:?}"))?;
    let found = stage.operation(&operation).await?;
    let reason = found.failure.as_ref().map(v1::Failure::reason);
    expect(reason == Some(Reason::StartFailed), "START_FAILED", format!("{reason:?}"))?;
    let (_, start) = started(&target, 1).await?;
    expect_back(&source, start.epoch)?;
    expect_home(stage, &name, "a").await
}

/// The target was told to stop, and the source to start after that.
fn expect_stopped_first(source: &Fake, target: &Fake) -> Verdict {
    let (_, start) = some("a StartApplication at the target", target.starts().into_iter().next())?;
    let started = expect_back(source, start.epoch)?;
    let told = |(at, call): (Instant, Call)| matches!(call, Call::Shutdown(_)).then_some(at);
    let stopped = target.calls().into_iter().find_map(told);
    let stopped = some("a Shutdown of the target", stopped)?;
    expect(stopped <= started, "the target told to stop before the source is started", "after")
}

async fn late(stage: &Stage) -> Verdict {
    let policy = v1::ShutdownPolicy { start_timeout: millis(1_500), ..patient() };
    let Pair { name, source, target } =
        pair(stage, policy, Script::of([stops()]), Script::standby([Start::UntilReleased])).await?;
    let operation = stage.migrate(&name).await?;
    let found = stage.until_state(&operation, State::RolledBack).await?;
    let reason = found.failure.as_ref().map(v1::Failure::reason);
    expect(reason == Some(Reason::StartTimeout), "START_TIMEOUT", format!("{reason:?}"))?;
    expect_stopped_first(&source, &target)?;
    expect_home(stage, &name, "a").await
}

async fn taken_back(stage: &Stage) -> Verdict {
    let (operation, source, target) = under_way(stage).await?;
    let answer = stage.try_cancel(&operation).await;
    answer.map_err(|status| Stop::failed("CancelOperation: OK", tell(&status)))?;
    let found = stage.until_state(&operation, State::RolledBack).await?;
    expect_stopped_first(&source, &target)?;
    expect_home(stage, &found.application, "a").await
}

async fn back_again(stage: &Stage) -> Verdict {
    let source = Script::of([stops()]).starting([Start::Fails, Start::Ready]);
    let Pair { name, source, .. } = pair(stage, patient(), source, Script::standby([Start::Fails])).await?;
    let operation = stage.migrate(&name).await?;
    stage.until_state(&operation, State::Degraded).await?;
    let failed = told_to_start(&source);
    let request =
        v1::RetryOperationRequest { name: operation.clone(), reason: REASON.to_owned(), ..Default::default() };
    ok("RetryOperation", stage.calls().scheduler.retry_operation(request).await)?;
    stage.until_state(&operation, State::RolledBack).await?;
    expect_back(&source, failed)?;
    expect_home(stage, &name, "a").await
}

/// The epoch of the last StartApplication.
fn told_to_start(hook: &Fake) -> i64 {
    hook.starts().last().map_or(0, |(_, request)| request.epoch)
}

async fn no_standby(stage: &Stage) -> Verdict {
    let name = stage.create(by_agents(stage.unmade(patient()))).await?.name;
    let source = stage.instance(&name, "one", Script::of([stops()])).await?;
    let answer = stage.try_migrate(stage.migration(&name)).await;
    refused(answer, &[Code::FailedPrecondition], "TARGET_NOT_READY")?;
    expect(source.ids().is_empty(), "no Shutdown", source.ids().len())
}

async fn retires(stage: &Stage) -> Verdict {
    let Pair { name, source, target } =
        pair(stage, patient(), Script::of([stops()]), Script::standby([Start::Ready])).await?;
    let again = v1::Instance { cluster: stage.cluster("b"), ..stage.listening(&name, "other", &target).await? };
    let answer = stage.try_delete(stage.deletion(&name)).await;
    let operation = answer.map_err(|status| Stop::failed("DeleteApplication: OK", tell(&status)))?.name;
    stage.until_state(&operation, State::Succeeded).await?;
    expect(source.starts().is_empty() && target.starts().is_empty(), "no StartApplication", "one")?;
    concluded(&source, Disposition::Retired).await?;
    let request = v1::RegisterInstanceRequest { instance: Some(again), held: true, ..Default::default() };
    let answer = stage.calls().gateway.register_instance(request).await;
    refused(answer, &[Code::FailedPrecondition], "APPLICATION_DELETED")
}

async fn standbys(stage: &Stage) -> Verdict {
    let Pair { name, source, target } =
        pair(stage, once(), Script::of([stops()]), Script::standby([Start::Ready])).await?;
    let still = [stopping(), vec![Act::Result(Outcome::StillRunning, v1::Evidence::Unspecified)]].concat();
    stage.instance(&name, "stays", Script::of([still])).await?;
    let answer = stage.try_delete(stage.deletion(&name)).await;
    let operation = answer.map_err(|status| Stop::failed("DeleteApplication: OK", tell(&status)))?.name;
    stage.until_state(&operation, State::Degraded).await?;
    let answer = stage.try_cancel(&operation).await;
    answer.map_err(|status| Stop::failed("CancelOperation: OK", tell(&status)))?;
    stage.until_state(&operation, State::RolledBack).await?;
    expect_back(&source, told_under(&source))?;
    expect(target.starts().is_empty(), "no StartApplication at what stood by", target.starts().len())
}
