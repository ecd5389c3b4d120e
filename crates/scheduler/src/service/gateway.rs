//! AgentGateway RPCs: what agents and, by completion token, applications call.

use quiesce_operation::report::{Evidence, StopResult};
use quiesce_protocol::v1;

use super::Service;
use super::applications::default_draft;
use crate::access::{Means, Principal, Rights};
use crate::convert;
use crate::convert::duration_to_wire;
use crate::convert::resource::instance_to_wire;
use crate::driver::{CompletionError, Granted};
use crate::hooks::report::blot_out;
use crate::hooks::wire::stop_result;
use crate::records::Connect;
use crate::registry::{Admit, Claim, End, Registration};
use crate::secrets::HeldCredential;
use crate::status::Problem;
use crate::validate::Violations;

pub(super) async fn register(
    service: &Service,
    (caller, request): (Principal, v1::RegisterInstanceRequest),
) -> Result<v1::RegisterInstanceResponse, Problem> {
    let wanted = registration(service, &request, claim(service, &caller)?)?;
    let (application, instance) = (wanted.application.clone(), wanted.instance.clone());
    let registry = service.registry.clone();
    let stored = service.carry_out("register instance", async move { registry.register(&wanted).await }).await?;
    let mut response = v1::RegisterInstanceResponse::default();
    // Whoever only registers a hook for others, or is nobody in particular, does not become that instance.
    if let (Rights::Join { .. } | Rights::Instance(_), Some(credential)) = (&caller.rights, stored.record.credential) {
        let held = HeldCredential { application: application.clone(), instance: instance.clone(), credential };
        response.instance_token = service.access.instance_token(&held).reveal().to_owned();
    }
    match &stored.record.connect {
        Connect::Listen { .. } => {
            response.hook_token =
                service.registry.hooks.token(&application, &instance, stored.record.created).reveal().to_owned();
        }
        Connect::DialIn => {
            let token = service.attachments.issue(&application, &instance);
            let token = token.map_err(|error| Problem::Internal(Box::new(error)))?;
            response.attach_token = token.reveal().to_owned();
            response.attach_endpoint.clone_from(&service.attach_endpoint);
        }
    }
    let home = service.registry.application(&application).await?;
    let holder = service.registry.holder(&home.record).await?;
    let view = service.registry.view_instance(stored, holder.as_ref());
    response.instance = Some(instance_to_wire(&*service.registry.clock, &view));
    Ok(response)
}

/// By what right the caller registers.
fn claim(service: &Service, caller: &Principal) -> Result<Claim, Problem> {
    Ok(match &caller.rights {
        Rights::Join { .. } => {
            let token = match &caller.means {
                Means::Token(id) => Some(id.clone()),
                Means::Nothing | Means::Certificate { .. } | Means::Instance => None,
            };
            Claim::Joins { token, credential: service.access.number()? }
        }
        Rights::Instance(held) => Claim::Holds(held.credential),
        Rights::Everything | Rights::Role { .. } | Rights::Nothing => Claim::Speaks,
    })
}

fn registration(
    service: &Service,
    request: &v1::RegisterInstanceRequest,
    claim: Claim,
) -> Result<Registration, Problem> {
    let mut bad = Violations::new();
    let instance = request.instance.clone().unwrap_or_default();
    let name = bad.instance("instance.name", &instance.name);
    let connect = bad.connect("instance", &instance, service.hooks_in_clear);
    let cluster = bad.optional_cluster("instance.cluster", &instance.cluster);
    let labels = bad.labels("instance.labels", &instance.labels);
    let agent_id = bad.agent_id("instance.agent_id", &instance.agent_id);
    let default_application =
        request.default_application.as_ref().and_then(|application| default_draft(application, &mut bad));
    if let Some(draft) = &default_application {
        bad.policy("default_application.policy", &service.default_policy.with(&draft.policy));
        if draft.cluster.is_none() && cluster.is_none() {
            bad.add("default_application.cluster", "must be set");
        }
    }
    let ((application, instance_id), connect) = bad.finish(name.zip(connect))?;
    Ok(Registration {
        application,
        instance: instance_id,
        connect,
        cluster,
        stop_order: instance.stop_order,
        labels,
        agent_id,
        default_application,
        held: request.held,
        claim,
    })
}

pub(super) async fn deregister(
    service: &Service,
    request: v1::DeregisterInstanceRequest,
) -> Result<v1::DeregisterInstanceResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.instance("name", &request.name);
    let (application, instance) = bad.finish(name)?;
    let registry = service.registry.clone();
    let change = async move { registry.deregister(&application, &instance).await };
    service.carry_out("deregister instance", change).await?;
    Ok(v1::DeregisterInstanceResponse {})
}

pub(super) async fn admit_start(
    service: &Service,
    request: v1::AdmitStartRequest,
) -> Result<v1::AdmitStartResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.instance("instance", &request.instance);
    let start_id = bad.start_id("start_id", &request.start_id);
    let agent_id = bad.agent_id("agent_id", &request.agent_id);
    let held_by = if request.held_by.is_empty() { None } else { bad.operation("held_by", &request.held_by) };
    let last_epoch = bad.epoch("last_epoch", request.last_epoch);
    let (application, instance) = bad.finish(name)?;
    let wanted = Admit { application, instance, start_id, agent_id, last_epoch, held_by };
    let registry = service.registry.clone();
    let epoch = service.carry_out("admit start", async move { registry.admit_start(&wanted).await }).await?;
    Ok(v1::AdmitStartResponse { epoch: convert::long(epoch) })
}

pub(super) async fn report_end(
    service: &Service,
    request: v1::ReportEndRequest,
) -> Result<v1::ReportEndResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.instance("instance", &request.instance);
    let agent_id = bad.agent_id("agent_id", &request.agent_id);
    let epoch = bad.epoch("epoch", request.epoch);
    let result = reported_result(request.result.as_ref(), &mut bad);
    let ((application, instance), result) = bad.finish(name.zip(result))?;
    let end = End { application, instance, agent_id, epoch };
    let registry = service.registry.clone();
    let ended = result.proves_end(Evidence::ProcessGone);
    service.carry_out("report end", async move { registry.report_end(&end, ended).await }).await?;
    Ok(v1::ReportEndResponse {})
}

pub(super) async fn complete_shutdown(
    service: &Service,
    request: v1::CompleteShutdownRequest,
) -> Result<v1::CompleteShutdownResponse, Problem> {
    let mut bad = Violations::new();
    bad.shutdown_id("shutdown_id", &request.shutdown_id);
    let token = bad.completion_token("completion_token", &request.completion_token);
    let result = reported_result(request.result.as_ref(), &mut bad);
    let (token, mut result) = bad.finish(token.zip(result))?;
    blot_out(&mut result.message, &token);
    let driver = service.driver.clone();
    let change = async move { Ok(driver.complete(&request.shutdown_id, &token, result).await?) };
    service.carry_out("complete shutdown", change).await?;
    Ok(v1::CompleteShutdownResponse {})
}

pub(super) async fn extend_deadline(
    service: &Service,
    request: v1::ExtendDeadlineRequest,
) -> Result<v1::ExtendDeadlineResponse, Problem> {
    let mut bad = Violations::new();
    bad.shutdown_id("shutdown_id", &request.shutdown_id);
    let token = bad.completion_token("completion_token", &request.completion_token);
    let wanted = bad.duration("wanted_grace_period", request.wanted_grace_period.as_ref());
    if request.wanted_grace_period.is_none() {
        bad.add("wanted_grace_period", "must be set");
    }
    bad.reason(&request.reason);
    let (token, wanted) = bad.finish(token.zip(wanted))?;
    let driver = service.driver.clone();
    let change = async move { Ok(driver.want_more_time(&request.shutdown_id, &token, wanted).await?) };
    let Granted { grace, deadline, remaining } = service.carry_out("extend deadline", change).await?;
    Ok(v1::ExtendDeadlineResponse {
        grace_period: Some(duration_to_wire(grace)),
        deadline_time: Some(convert::timestamp(&*service.registry.clock, deadline)),
        remaining_extension: Some(duration_to_wire(remaining)),
    })
}

/// How something ended, in the careful reading; required.
fn reported_result(result: Option<&v1::StopResult>, bad: &mut Violations) -> Option<StopResult> {
    if result.is_none() {
        bad.add("result", "must be set");
    }
    result.map(stop_result)
}

impl From<CompletionError> for Problem {
    fn from(error: CompletionError) -> Self {
        match error {
            CompletionError::NotFound => Self::ShutdownNotFound,
            CompletionError::TokenInvalid => Self::CompletionTokenInvalid,
            CompletionError::Stale => Self::CompletionTokenStale,
            CompletionError::Exhausted { granted } => Self::ExtensionExhausted { maximum: granted.grace },
            CompletionError::NotRecorded(error) => error.into(),
        }
    }
}
