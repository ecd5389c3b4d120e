//! `quiesce get`: lists, and single resources.

use std::io;
use std::time::SystemTime;

use quiesce_protocol::v1::{
    Application, Cluster, GetApplicationRequest, GetClusterRequest, GetInstanceRequest, GetOperationRequest, Instance,
    ListApplicationsRequest, ListClustersRequest, ListInstancesRequest, ListOperationsRequest, Operation,
};
use quiesce_runtime::clock::wall_now;
use tonic::Status;

use super::{Ending, Session, note};
use crate::args::{Format, GetArgs, Kind};
use crate::client::{Client, Listing};
use crate::error::Error;
use crate::name::{self, InstanceName};
use crate::output::json::{self, Described, Document};
use crate::output::table::{Cell, Table};
use crate::output::text::{self, Style};
use crate::output::words;

/// The parent that means "of all applications".
pub(super) const ALL_APPLICATIONS: &str = "applications/-";

pub(super) async fn run(session: &Session, args: GetArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let filter = args.filter.unwrap_or_default();
    let now = wall_now();
    match (args.kind, args.name) {
        (Kind::Application, Some(name)) => show(session, &application(&client, &name).await?, applications),
        (Kind::Instance, Some(name)) => show(session, &instance(&client, &name).await?, |r| instances(r, now)),
        (Kind::Operation, Some(name)) => show(session, &operation(&client, &name).await?, |r| operations(r, now)),
        (Kind::Cluster, Some(name)) => show(session, &cluster(&client, &name).await?, |r| clusters(r, now)),
        (Kind::Application, None) => {
            list(session, "applications", list_applications(&client, &filter).await?, applications)
        }
        (Kind::Instance, None) => {
            list(session, "instances", list_instances(&client, ALL_APPLICATIONS, &filter).await?, |r| instances(r, now))
        }
        (Kind::Operation, None) => {
            list(session, "operations", list_operations(&client, &filter).await?, |r| operations(r, now))
        }
        (Kind::Cluster, None) => {
            list(session, "clusters", list_clusters(&client, &filter).await?, |r| clusters(r, now))
        }
    }?;
    Ok(Ending::Done)
}

/// One application by short or full name.
pub(super) async fn application(client: &Client, name: &str) -> Result<Application, Error> {
    let request = GetApplicationRequest { name: name::application(name) };
    let what = format!("get application {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.get_application(request.clone()).await).await?;
    answer.application.ok_or_else(|| nothing(&what))
}

/// One cluster by short or full name.
pub(super) async fn cluster(client: &Client, name: &str) -> Result<Cluster, Error> {
    let request = GetClusterRequest { name: name::cluster(name) };
    let what = format!("get cluster {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.get_cluster(request.clone()).await).await?;
    answer.cluster.ok_or_else(|| nothing(&what))
}

/// One operation by short or full name.
pub(super) async fn operation(client: &Client, name: &str) -> Result<Operation, Error> {
    let request = GetOperationRequest { name: name::operation(name) };
    let what = format!("get operation {}", name::short(&request.name));
    let answer = client.call(&what, async |mut api| api.get_operation(request.clone()).await).await?;
    answer.operation.ok_or_else(|| nothing(&what))
}

/// One instance by full name, as `db/db-0`, or by its last part where only one application has such an instance.
pub(super) async fn instance(client: &Client, name: &str) -> Result<Instance, Error> {
    let what = format!("get instance {}", name::short(name));
    let leaf = match name::instance(name) {
        InstanceName::Full(name) => {
            let request = GetInstanceRequest { name };
            let answer = client.call(&what, async |mut api| api.get_instance(request.clone()).await).await?;
            return answer.instance.ok_or_else(|| nothing(&what));
        }
        InstanceName::Leaf(leaf) => leaf,
    };
    let mut all = list_instances(client, ALL_APPLICATIONS, "").await?.items;
    all.retain(|instance| name::leaf(&instance.name) == leaf);
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => Err(Error::Input {
            problem: format!("cannot {what}: no application has an instance of that name"),
            advice: vec!["see what there is: quiesce get instances".to_owned()],
        }),
        _ => Err(Error::Input {
            problem: format!("cannot {what}: several applications have an instance of that name"),
            advice: all
                .iter()
                .map(|instance| format!("quiesce get instance {}", name::short(&instance.name)))
                .collect(),
        }),
    }
}

pub(super) async fn list_instances(client: &Client, parent: &str, filter: &str) -> Result<Listing<Instance>, Error> {
    client
        .pages("list instances", async |mut api, page_size, page_token| {
            let request =
                ListInstancesRequest { parent: parent.to_owned(), page_size, page_token, filter: filter.to_owned() };
            let page = api.list_instances(request).await?.into_inner();
            Ok((page.instances, page.next_page_token))
        })
        .await
}

pub(super) async fn list_applications(client: &Client, filter: &str) -> Result<Listing<Application>, Error> {
    client
        .pages("list applications", async |mut api, page_size, page_token| {
            let request = ListApplicationsRequest { page_size, page_token, filter: filter.to_owned() };
            let page = api.list_applications(request).await?.into_inner();
            Ok((page.applications, page.next_page_token))
        })
        .await
}

/// One operation that matches, if there is one: whether the question can be asked at all.
pub(super) async fn list_operations_once(client: &Client, filter: &str) -> Result<(), Error> {
    let request = ListOperationsRequest { page_size: 1, page_token: String::new(), filter: filter.to_owned() };
    client.call("list operations", async |mut api| api.list_operations(request.clone()).await).await.map(drop)
}

pub(super) async fn list_operations(client: &Client, filter: &str) -> Result<Listing<Operation>, Error> {
    client
        .pages("list operations", async |mut api, page_size, page_token| {
            let request = ListOperationsRequest { page_size, page_token, filter: filter.to_owned() };
            let page = api.list_operations(request).await?.into_inner();
            Ok((page.operations, page.next_page_token))
        })
        .await
}

async fn list_clusters(client: &Client, filter: &str) -> Result<Listing<Cluster>, Error> {
    client
        .pages("list clusters", async |mut api, page_size, page_token| {
            let request = ListClustersRequest { page_size, page_token, filter: filter.to_owned() };
            let page = api.list_clusters(request).await?.into_inner();
            Ok((page.clusters, page.next_page_token))
        })
        .await
}

fn nothing(what: &str) -> Error {
    Error::rpc(what, Status::internal("the scheduler answered without the resource"))
}

fn show<M: Described>(session: &Session, resource: &M, table: impl Fn(&[M]) -> Table) -> Result<(), Error> {
    session.show(&Document::of(resource), || table(std::slice::from_ref(resource)).lines(session.width()))
}

pub(super) fn list<M: Described>(
    session: &Session,
    kind: &str,
    listing: Listing<M>,
    table: impl Fn(&[M]) -> Table,
) -> Result<(), Error> {
    let Listing { items, truncated } = listing;
    match session.format {
        Format::Json | Format::Yaml => {
            let documents: Vec<_> = items.iter().map(Document::of).collect();
            json::write(&mut io::stdout().lock(), session.format, &documents)?;
        }
        Format::Table if items.is_empty() => note(format!("no {kind}")),
        Format::Table => session.print(&table(&items).lines(session.width()))?,
    }
    if truncated {
        note(format!("only the first {} {kind} are shown; narrow it down with --filter", items.len()));
    }
    Ok(())
}

fn applications(resources: &[Application]) -> Table {
    let mut table = Table::new(["NAME", "STATE", "CLUSTER", "PLACEMENT", "READY", "STANDBY", "EPOCH", "OPERATION"]);
    for application in resources {
        table.row([
            Cell::styled(name::short(&application.name), Style::Bold),
            Cell::styled(words::standing(application), words::application_style(application)),
            (&application.cluster).into(),
            words::placement(application.placement.as_ref()).into(),
            format!("{}/{}", application.ready_instance_count, active_instances(application)).into(),
            application.standby_instance_count.to_string().into(),
            application.epoch.to_string().into(),
            name::short(&application.active_operation).into(),
        ]);
    }
    table
}

/// Those that ought to be ready: a standby is not.
fn active_instances(application: &Application) -> i32 {
    application.instance_count.saturating_sub(application.standby_instance_count)
}

/// Also used on the pages of applications.
pub(super) fn instances(resources: &[Instance], now: SystemTime) -> Table {
    let mut table = Table::new(["NAME", "CLUSTER", "STATE", "APPLICATION", "EPOCH", "ORDER", "SEEN"]);
    for instance in resources {
        let app_state =
            instance.hook.as_ref().filter(|hook| hook.app_state != 0).map(|hook| words::app_state(hook.app_state));
        table.row([
            Cell::styled(name::short(&instance.name), Style::Bold),
            (&instance.cluster).into(),
            Cell::styled(words::instance_state(instance.state), words::instance_style(instance.state)),
            app_state.unwrap_or_default().into(),
            instance.epoch.to_string().into(),
            instance.stop_order.to_string().into(),
            text::age(instance.last_seen_time.as_ref(), now).into(),
        ]);
    }
    table
}

/// Also used on the pages of applications.
pub(super) fn operations(resources: &[Operation], now: SystemTime) -> Table {
    let mut table = Table::new(["NAME", "KIND", "APPLICATION", "FROM", "TO", "STATE", "AGE", "FAILURE"]);
    for operation in resources {
        let failure = operation.failure.as_ref().map(|failure| words::failure_reason(failure.reason));
        table.row([
            Cell::styled(name::short(&operation.name), Style::Bold),
            words::kind(operation.kind).into(),
            name::short(&operation.application).into(),
            (&operation.source_cluster).into(),
            (&operation.target_cluster).into(),
            Cell::styled(words::operation_state(operation.state), words::operation_style(operation.state)),
            text::age(operation.create_time.as_ref(), now).into(),
            failure.unwrap_or_default().into(),
        ]);
    }
    table
}

fn clusters(resources: &[Cluster], now: SystemTime) -> Table {
    let mut table = Table::new(["NAME", "APPLICATIONS", "INSTANCES", "AGE", "LABELS"]);
    for cluster in resources {
        table.row([
            Cell::styled(name::short(&cluster.name), Style::Bold),
            cluster.application_count.to_string().into(),
            cluster.instance_count.to_string().into(),
            text::age(cluster.create_time.as_ref(), now).into(),
            crate::output::describe::labels(&cluster.labels).into(),
        ]);
    }
    table
}
