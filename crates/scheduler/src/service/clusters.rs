//! Scheduler RPCs about clusters.

use futures::FutureExt as _;
use quiesce_protocol::v1;
use quiesce_store::{Scan, Space};

use super::Service;
use crate::access::Principal;
use crate::convert::resource::cluster_to_wire;
use crate::idempotency::RequestId;
use crate::mask::Mask;
use crate::page::collect;
use crate::records::{ClusterRecord, Stored, from_entry};
use crate::registry::{CLUSTER_LEAVES, ClusterDraft, ClusterUpdate, ClusterView};
use crate::status::Problem;
use crate::token::Purpose;
use crate::validate::Violations;

fn draft(cluster: &v1::Cluster, bad: &mut Violations) -> Option<ClusterDraft> {
    let name = bad.cluster_name("cluster.name", &cluster.name);
    let display_name = bad.display_name("cluster.display_name", &cluster.display_name);
    let labels = bad.labels("cluster.labels", &cluster.labels);
    Some(ClusterDraft { name: name?, display_name, labels })
}

async fn answer(service: &Service, stored: Stored<ClusterRecord>) -> Result<Option<v1::Cluster>, Problem> {
    let view = service.registry.view_cluster(stored).await?;
    Ok(Some(cluster_to_wire(&*service.registry.clock, &view)))
}

pub(super) async fn create(
    service: &Service,
    (caller, request): (Principal, v1::CreateClusterRequest),
) -> Result<v1::CreateClusterResponse, Problem> {
    let mut bad = Violations::new();
    let request_id = bad.request_id(&request.request_id);
    let draft = draft(&request.cluster.unwrap_or_default(), &mut bad);
    let draft = bad.finish(draft)?;
    let (registry, dry_run) = (service.registry.clone(), request.validate_only);
    let stored = service
        .carry_out("create cluster", async move {
            let request_id = RequestId::of("CreateCluster", &caller.name, &request_id, &draft);
            registry.create_cluster(&draft, request_id.as_ref(), dry_run).await
        })
        .await?;
    Ok(v1::CreateClusterResponse { cluster: answer(service, stored).await? })
}

pub(super) async fn get(service: &Service, request: v1::GetClusterRequest) -> Result<v1::GetClusterResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.cluster_name("name", &request.name);
    let stored = service.registry.cluster(&bad.finish(name)?).await?;
    Ok(v1::GetClusterResponse { cluster: answer(service, stored).await? })
}

pub(super) async fn list(
    service: &Service,
    request: v1::ListClustersRequest,
) -> Result<v1::ListClustersResponse, Problem> {
    let mut bad = Violations::new();
    let filter = bad.filter::<v1::Cluster>(&request.filter, &[]);
    let purpose = Purpose::of(&["ListClusters", &request.filter]);
    let page = bad.page(request.page_size, &request.page_token, purpose);
    let (filter, page) = bad.finish(filter.zip(page))?;
    let usage = service.registry.usage().await?;
    let (filter, usage) = (&filter, &usage);
    let page = collect(&*service.registry.store, page, Scan::all(Space::Clusters), |entry| {
        async move {
            let cluster: Stored<ClusterRecord> = from_entry(&entry)?;
            let (applications, instances) = usage.of(&cluster.record.name);
            let cluster = cluster_to_wire(&*service.registry.clock, &ClusterView { cluster, applications, instances });
            Ok(filter.matches(&cluster).then_some(cluster))
        }
        .boxed()
    })
    .await?;
    Ok(v1::ListClustersResponse { clusters: page.items, next_page_token: page.next_page_token })
}

pub(super) async fn update(
    service: &Service,
    (caller, request): (Principal, v1::UpdateClusterRequest),
) -> Result<v1::UpdateClusterResponse, Problem> {
    let mut bad = Violations::new();
    let request_id = bad.request_id(&request.request_id);
    let cluster = request.cluster.unwrap_or_default();
    let draft = draft(&cluster, &mut bad);
    let etag = bad.etag("cluster.etag", &cluster.etag);
    let mask = match &request.update_mask {
        Some(mask) => Mask::parse(&mask.paths, CLUSTER_LEAVES, false, &mut bad),
        None => {
            let is_set = |leaf: &str| match leaf {
                "display_name" => !cluster.display_name.is_empty(),
                _ => !cluster.labels.is_empty(),
            };
            Mask::of_set(CLUSTER_LEAVES, is_set, &quiesce_operation::PolicyOverrides::default())
        }
    };
    let draft = bad.finish(draft)?;
    let update = ClusterUpdate { draft, mask, etag, allow_missing: request.allow_missing };
    let (registry, dry_run) = (service.registry.clone(), request.validate_only);
    let stored = service
        .carry_out("update cluster", async move {
            let content = (&update.draft, update.mask.leaves(), &update.etag, update.allow_missing);
            let request_id = RequestId::of("UpdateCluster", &caller.name, &request_id, &content);
            registry.update_cluster(&update, request_id.as_ref(), dry_run).await
        })
        .await?;
    Ok(v1::UpdateClusterResponse { cluster: answer(service, stored).await? })
}

pub(super) async fn delete(
    service: &Service,
    request: v1::DeleteClusterRequest,
) -> Result<v1::DeleteClusterResponse, Problem> {
    let mut bad = Violations::new();
    let name = bad.cluster_name("name", &request.name);
    let etag = bad.etag("etag", &request.etag);
    let name = bad.finish(name)?;
    let registry = service.registry.clone();
    service.carry_out("delete cluster", async move { registry.delete_cluster(&name, &etag).await }).await?;
    Ok(v1::DeleteClusterResponse {})
}
