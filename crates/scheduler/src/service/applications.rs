//! Scheduler RPCs about applications, migrate and delete aside.

use futures::FutureExt as _;
use quiesce_operation::PolicyOverrides;
use quiesce_protocol::v1;
use quiesce_store::{Scan, Space};

use super::Service;
use crate::access::Principal;
use crate::convert::policy::overrides_from_wire;
use crate::convert::resource::application_to_wire;
use crate::idempotency::RequestId;
use crate::mask::Mask;
use crate::page::collect;
use crate::records::{ApplicationRecord, Stored, from_entry};
use crate::registry::{APPLICATION_LEAVES, ApplicationDraft, ApplicationUpdate, RESTORE_TIME};
use crate::status::Problem;
use crate::token::Purpose;
use crate::validate::Violations;

/// What a caller says of an application; violations are noted under `application.*`.
pub(super) fn draft(application: &v1::Application, bad: &mut Violations) -> Option<ApplicationDraft> {
    let name = bad.application("application.name", &application.name);
    let draft = settings(application, "application", bad);
    Some(ApplicationDraft { name: name?, ..draft? })
}

/// The same without its name, which a registration gives elsewhere.
fn settings(application: &v1::Application, field: &str, bad: &mut Violations) -> Option<ApplicationDraft> {
    let path = |leaf: &str| format!("{field}.{leaf}");
    let cluster = bad.optional_cluster(&path("cluster"), &application.cluster);
    let display_name = bad.display_name(&path("display_name"), &application.display_name);
    let policy: PolicyOverrides = overrides_from_wire(application.policy.as_ref(), &path("policy"), bad);
    let expected_instances = bad.count(&path("expected_instances"), application.expected_instances);
    let labels = bad.labels(&path("labels"), &application.labels);
    let placement = bad.placement(application.placement.as_ref());
    // Replaced by whoever knows the name.
    let name = quiesce_operation::ApplicationId::parse("unnamed").ok()?;
    Some(ApplicationDraft { name, display_name, cluster, policy, placement, expected_instances, labels })
}

/// What an agent says of the application it would create; its name is that of the registration.
pub(super) fn default_draft(application: &v1::Application, bad: &mut Violations) -> Option<ApplicationDraft> {
    settings(application, "default_application", bad)
}

async fn answer(service: &Service, stored: Stored<ApplicationRecord>) -> Result<Option<v1::Application>, Problem> {
    let view = service.registry.view(stored).await?;
    Ok(Some(application_to_wire(&*service.registry.clock, &view)))
}

pub(super) async fn create(
    service: &Service,
    (caller, request): (Principal, v1::CreateApplicationRequest),
) -> Result<v1::CreateApplicationResponse, Problem> {
    let mut bad = Violations::new();
    let request_id = bad.request_id(&request.request_id);
    let application = request.application.unwrap_or_default();
    let draft = draft(&application, &mut bad);
    if application.cluster.is_empty() {
        bad.add("application.cluster", "must be set");
    }
    // The whole is judged with what it inherits; what the request itself breaks has been noted.
    if let Some(draft) = &draft {
        bad.policy("application.policy", &service.default_policy.with(&draft.policy));
    }
    let draft = bad.finish(draft)?;
    let (registry, dry_run) = (service.registry.clone(), request.validate_only);
    let stored = service
        .carry_out("create application", async move {
            let request_id = RequestId::of("CreateApplication", &caller.name, &request_id, &draft);
            registry.create_application(&draft, request_id.as_ref(), dry_run).await
        })
        .await?;
    Ok(v1::CreateApplicationResponse { application: answer(service, stored).await? })
}

pub(super) async fn get(
    service: &Service,
    request: v1::GetApplicationRequest,
) -> Result<v1::GetApplicationResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.application("name", &request.name);
    let stored = service.registry.application(&bad.finish(name)?).await?;
    Ok(v1::GetApplicationResponse { application: answer(service, stored).await? })
}

pub(super) async fn list(
    service: &Service,
    (caller, request): (Principal, v1::ListApplicationsRequest),
) -> Result<v1::ListApplicationsResponse, Problem> {
    let mut bad = Violations::new();
    let filter = bad.filter::<v1::Application>(&request.filter, &[]);
    let purpose = Purpose::of(&["ListApplications", &request.filter]);
    let page = bad.page(request.page_size, &request.page_token, purpose);
    let (filter, page) = bad.finish(filter.zip(page))?;
    let (filter, sees) = (&filter, &caller.sees());
    let page = collect(&*service.registry.store, page, Scan::all(Space::Applications), |entry| {
        async move {
            let stored: Stored<ApplicationRecord> = from_entry(&entry)?;
            if !sees.has(stored.record.name.as_str()) {
                return Ok(None);
            }
            let view = service.registry.view(stored).await?;
            let application = application_to_wire(&*service.registry.clock, &view);
            Ok(filter.matches(&application).then_some(application))
        }
        .boxed()
    })
    .await?;
    Ok(v1::ListApplicationsResponse { applications: page.items, next_page_token: page.next_page_token })
}

pub(super) async fn update(
    service: &Service,
    (caller, request): (Principal, v1::UpdateApplicationRequest),
) -> Result<v1::UpdateApplicationResponse, Problem> {
    let mut bad = Violations::new();
    let request_id = bad.request_id(&request.request_id);
    let application = request.application.unwrap_or_default();
    let draft = draft(&application, &mut bad);
    let etag = bad.etag("application.etag", &application.etag);
    let mask = match &request.update_mask {
        Some(mask) => Mask::parse(&mask.paths, APPLICATION_LEAVES, true, &mut bad),
        None => {
            let policy = draft.as_ref().map(|draft| draft.policy.clone()).unwrap_or_default();
            Mask::of_set(APPLICATION_LEAVES, |leaf| is_set(&application, leaf), &policy)
        }
    };
    if mask.covers(RESTORE_TIME) && application.restore_time.is_some() {
        bad.add("application.restore_time", "can only be cleared: name it in update_mask and leave it unset");
    }
    let draft = bad.finish(draft)?;
    let update = ApplicationUpdate { draft, mask, etag, allow_missing: request.allow_missing };
    let (registry, dry_run) = (service.registry.clone(), request.validate_only);
    let stored = service
        .carry_out("update application", async move {
            let content = (&update.draft, update.mask.leaves(), &update.etag, update.allow_missing);
            let request_id = RequestId::of("UpdateApplication", &caller.name, &request_id, &content);
            registry.update_application(&update, request_id.as_ref(), dry_run).await
        })
        .await?;
    Ok(v1::UpdateApplicationResponse { application: answer(service, stored).await? })
}

fn is_set(application: &v1::Application, leaf: &str) -> bool {
    match leaf {
        "display_name" => !application.display_name.is_empty(),
        "cluster" => !application.cluster.is_empty(),
        "placement" => application.placement.is_some(),
        "expected_instances" => application.expected_instances.is_some(),
        "labels" => !application.labels.is_empty(),
        _ => false,
    }
}
