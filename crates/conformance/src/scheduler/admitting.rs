//! G: permission to start, outside of operations.

use quiesce_protocol::v1;
use quiesce_protocol::v1::operation::State;
use quiesce_protocol::v1::stop_result::Outcome;
use tonic::{Code, Status};

use super::fake::{Script, stops, waits};
use super::stage::{Stage, Staged, millis, ok, patient};
use super::subject::Calls;
use super::{Check, rules};
use crate::check::{Stop, Verdict, expect, refused};

pub(super) const CHECKS: &[Check] = checks! {
    G01 Must "AdmitStart: an epoch above every one known; the same start_id gets the same, another a higher one",
        rules::START_ID, "Store the epoch with the start_id before you answer.", [], rises;
    G02 Must "AdmitStart of an unknown application or instance is NOT_FOUND, or not allowed",
        rules::ADMIT, "Look the instance up first.", [], unknown;
    G03 Must "AdmitStart on another cluster is START_NOT_PERMITTED",
        rules::ADMIT, "Hold the cluster of the instance against that of the application.", [], elsewhere;
    G04 Must "AdmitStart while an operation is open is START_NOT_PERMITTED",
        rules::ADMIT, "Look at the operation, in the same step that grants the epoch.", [], during;
    G05 Must "AdmitStart of another agent is INSTANCE_IN_USE until ReportEnd for the epoch in force; an older one is ignored",
        rules::REPORT_END, "Free the permission by the epoch it was given under.", [], freed;
    G06 Must "Shutdown carries an epoch above the one the instance was admitted under",
        rules::EPOCH, "Raise the epoch when the operation begins.", [], higher;
    G07 Must "an instance whose hook says that a copy runs cannot be forgotten; an unknown one can",
        rules::FORGET, "Ask the hook before you forget its instance.", [], forgotten;
};

/// An instance, and what it shows to be let in: with access enforced its own token.
struct Member {
    name: String,
    agent: String,
    calls: Calls,
}

/// Registers it as its agent does: with access enforced by a join token, and from then on by a token of its own.
async fn join(stage: &Stage, instance: v1::Instance) -> Result<Member, Status> {
    let calls = stage.calls();
    let joining = match &stage.subject.bearer {
        None => calls.clone(),
        Some(_admin) => {
            let application = instance.name.split("/instances/").next().unwrap_or_default().to_owned();
            let token = v1::Token {
                display_name: stage.word(),
                role: v1::token::Role::Agent.into(),
                applications: vec![application],
                ..Default::default()
            };
            let request = v1::CreateTokenRequest { token: Some(token), lifetime: millis(600_000) };
            let made = calls.access.clone().create_token(request).await?.into_inner();
            stage.revoke_later(made.token.unwrap_or_default().name);
            calls.with_bearer(Some(&made.bearer_token))
        }
    };
    let (name, agent) = (instance.name.clone(), instance.agent_id.clone());
    let request = v1::RegisterInstanceRequest { instance: Some(instance), ..Default::default() };
    let token = joining.gateway.clone().register_instance(request).await?.into_inner().instance_token;
    let calls = if token.is_empty() { calls } else { calls.with_bearer(Some(&token)) };
    Ok(Member { name, agent, calls })
}

async fn member(stage: &Stage, instance: v1::Instance) -> Result<Member, Stop> {
    ok("RegisterInstance", join(stage, instance).await.map(tonic::Response::new))
}

impl Member {
    async fn admitted(&self, start: &str, last_epoch: i64) -> Result<i64, Status> {
        let request = v1::AdmitStartRequest {
            instance: self.name.clone(),
            start_id: start.to_owned(),
            agent_id: self.agent.clone(),
            last_epoch,
            ..Default::default()
        };
        Ok(self.calls.gateway.clone().admit_start(request).await?.into_inner().epoch)
    }

    async fn admit(&self, start: &str, last_epoch: i64) -> Result<i64, Stop> {
        ok("AdmitStart", self.admitted(start, last_epoch).await.map(tonic::Response::new))
    }

    async fn ended(&self, epoch: i64) -> Verdict {
        let evidence = v1::Evidence::ChildReaped.into();
        let result = v1::StopResult { outcome: Outcome::Stopped.into(), evidence, ..Default::default() };
        let request = v1::ReportEndRequest {
            instance: self.name.clone(),
            agent_id: self.agent.clone(),
            epoch,
            result: Some(result),
        };
        ok("ReportEnd", self.calls.gateway.clone().report_end(request).await).map(drop)
    }
}

/// An application, and its one instance with a hook that `script` plays.
async fn one(stage: &Stage, script: Script) -> Result<(Staged, Member), Stop> {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let hook = stage.fake(script);
    let instance = stage.listening(&name, "one", &hook).await?;
    let member = member(stage, instance).await?;
    Ok((Staged { name, hook }, member))
}

async fn rises(stage: &Stage) -> Verdict {
    let (staged, member) = one(stage, Script::standby([])).await?;
    let first = member.admit("first", 0).await?;
    expect(first >= 1, "an epoch of at least 1", first)?;
    let again = member.admit("first", 0).await?;
    expect(again == first, format!("the epoch {first} again"), again)?;
    let second = member.admit("second", first + 40).await?;
    expect(second > first + 40, format!("an epoch above {}", first + 40), second)?;
    let found = stage.get_application(&staged.name).await?.epoch;
    expect(found == second, format!("Application.epoch {second}"), found)
}

async fn unknown(stage: &Stage) -> Verdict {
    let (staged, _) = one(stage, Script::standby([])).await?;
    for name in [format!("{}/instances/one", stage.name()), format!("{}/instances/nobody", staged.name)] {
        let member = Member { name, agent: "agent".to_owned(), calls: stage.calls() };
        // Permission is decided before existence.
        refused(member.admitted("first", 0).await, &[Code::NotFound, Code::PermissionDenied], "")?;
    }
    Ok(())
}

async fn elsewhere(stage: &Stage) -> Verdict {
    let (staged, _) = one(stage, Script::standby([])).await?;
    let hook = stage.fake(Script::standby([]));
    let instance = stage.listening(&staged.name, "other", &hook).await?;
    let other = member(stage, v1::Instance { cluster: stage.cluster("b"), ..instance }).await?;
    refused(other.admitted("first", 0).await, &[Code::FailedPrecondition], "START_NOT_PERMITTED")
}

async fn during(stage: &Stage) -> Verdict {
    let (staged, member) = one(stage, Script::of([waits()])).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Stopping).await?;
    refused(member.admitted("first", 0).await, &[Code::FailedPrecondition], "START_NOT_PERMITTED")
}

/// What an agent of that name registers that has not dialled in yet.
fn dialling(stage: &Stage, application: &str, agent: &str) -> v1::Instance {
    v1::Instance {
        name: format!("{application}/instances/one"),
        connect_mode: v1::instance::ConnectMode::DialIn.into(),
        cluster: stage.cluster("a"),
        agent_id: agent.to_owned(),
        ..Default::default()
    }
}

/// Another agent registers the instance and asks for permission to start.
async fn taken_over(stage: &Stage, application: &str) -> Result<i64, Status> {
    join(stage, dialling(stage, application, "somebody else")).await?.admitted("third", 0).await
}

async fn freed(stage: &Stage) -> Verdict {
    let name = stage.create(stage.unmade(patient())).await?.name;
    let member = member(stage, dialling(stage, &name, "the first")).await?;
    let older = member.admit("first", 0).await?;
    let newer = member.admit("second", older).await?;
    refused(taken_over(stage, &name).await, &[Code::FailedPrecondition], "INSTANCE_IN_USE")?;
    member.ended(older).await?;
    refused(taken_over(stage, &name).await, &[Code::FailedPrecondition], "INSTANCE_IN_USE")?;
    member.ended(newer).await?;
    let epoch = ok("AdmitStart of another agent", taken_over(stage, &name).await.map(tonic::Response::new))?;
    expect(epoch > newer, format!("an epoch above {newer}"), epoch)
}

async fn higher(stage: &Stage) -> Verdict {
    let (staged, member) = one(stage, Script::of([stops()])).await?;
    let admitted = member.admit("first", 6).await?;
    let operation = stage.migrate(&staged.name).await?;
    stage.until_state(&operation, State::Succeeded).await?;
    let epochs: Vec<_> = staged.hook.shutdowns().iter().map(|request| request.epoch).collect();
    let above = !epochs.is_empty() && epochs.iter().all(|epoch| *epoch > admitted);
    expect(above, format!("epochs above {admitted}"), format!("{epochs:?}"))
}

async fn forgotten(stage: &Stage) -> Verdict {
    let (staged, member) = one(stage, Script::of([stops()])).await?;
    let forget = async |name: &str| {
        let request = v1::DeregisterInstanceRequest { name: name.to_owned() };
        stage.calls().gateway.deregister_instance(request).await
    };
    let nobody = format!("{}/instances/nobody", staged.name);
    ok("DeregisterInstance of an unknown instance", forget(&nobody).await)?;
    refused(forget(&member.name).await, &[Code::FailedPrecondition], "INSTANCE_IN_USE")?;
    staged.hook.change(|script| script.info.app_state = v1::hook_info::AppState::Stopped.into());
    let end = tokio::time::Instant::now() + super::stage::PLENTY;
    // Signs of life come at intervals.
    while let Err(status) = forget(&member.name).await {
        expect(tokio::time::Instant::now() < end, "forgotten when nothing runs", crate::check::tell(&status))?;
        tokio::time::sleep(super::stage::POLL).await;
    }
    Ok(())
}
