//! Scheduler RPCs about instances; agents register theirs in [`super::gateway`].

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use quiesce_operation::{ApplicationId, Operation};
use quiesce_protocol::v1;
use quiesce_store::{Scan, Space};
use tokio::sync::Mutex;

use super::Service;
use crate::access::Principal;
use crate::convert::resource::instance_to_wire;
use crate::page::collect;
use crate::records::{InstanceRecord, Stored, from_entry, instances_of};
use crate::status::Problem;
use crate::token::Purpose;
use crate::validate::Violations;

pub(super) async fn get(
    service: &Service,
    request: v1::GetInstanceRequest,
) -> Result<v1::GetInstanceResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.instance("name", &request.name);
    let (application, instance) = bad.finish(name)?;
    let stored = service.registry.instance(&application, &instance).await?;
    let operation = holder(service, &application).await?;
    let view = service.registry.view_instance(stored, operation.as_ref());
    Ok(v1::GetInstanceResponse { instance: Some(instance_to_wire(&*service.registry.clock, &view)) })
}

/// The open operation of an application; none if the application is gone.
async fn holder(service: &Service, application: &ApplicationId) -> Result<Option<Operation>, Problem> {
    match service.registry.application(application).await {
        Ok(stored) => service.registry.holder(&stored.record).await,
        Err(Problem::ApplicationNotFound(_)) => Ok(None),
        Err(problem) => Err(problem),
    }
}

pub(super) async fn list(
    service: &Service,
    (caller, request): (Principal, v1::ListInstancesRequest),
) -> Result<v1::ListInstancesResponse, Problem> {
    let mut bad = Violations::new();
    let filter = bad.filter::<v1::Instance>(&request.filter, &[]);
    let parent = if request.parent == "applications/-" { None } else { bad.application("parent", &request.parent) };
    let purpose = Purpose::of(&["ListInstances", &request.parent, &request.filter]);
    let page = bad.page(request.page_size, &request.page_token, purpose);
    let (filter, page) = bad.finish(filter.zip(page))?;
    let scan = match &parent {
        Some(application) => {
            service.registry.application(application).await?;
            instances_of(application)
        }
        None => Scan::all(Space::Instances),
    };
    // The operations that hold the applications of this page, each read once.
    let holders: Arc<Mutex<HashMap<ApplicationId, Arc<Option<Operation>>>>> = Arc::default();
    let (filter, holders, sees) = (&filter, &holders, &caller.sees());
    let page = collect(&*service.registry.store, page, scan, |entry| {
        async move {
            let stored: Stored<InstanceRecord> = from_entry(&entry)?;
            let application = stored.record.application.clone();
            if !sees.has(application.as_str()) {
                return Ok(None);
            }
            let known = holders.lock().await.get(&application).cloned();
            let operation = match known {
                Some(operation) => operation,
                None => {
                    let operation = Arc::new(holder(service, &application).await?);
                    holders.lock().await.insert(application, Arc::clone(&operation));
                    operation
                }
            };
            let view = service.registry.view_instance(stored, Option::as_ref(&operation));
            let instance = instance_to_wire(&*service.registry.clock, &view);
            Ok(filter.matches(&instance).then_some(instance))
        }
        .boxed()
    })
    .await?;
    Ok(v1::ListInstancesResponse { instances: page.items, next_page_token: page.next_page_token })
}
