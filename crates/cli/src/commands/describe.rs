//! `quiesce describe`: everything about one resource on a page.

use quiesce_protocol::v1::{Application, Cluster, GetServerInfoRequest, Instance, ListOperationsRequest, Operation};
use quiesce_runtime::clock::wall_now;

use super::{Ending, Session, get};
use crate::args::{DescribeArgs, Format, Kind};
use crate::client::Client;
use crate::error::Error;
use crate::output::describe::{Page, effective};
use crate::output::json::{Described, Document};

/// How many of an application's operations its page shows: the latest explain how it got where it is.
const LATEST_OPERATIONS: i32 = 5;

pub(super) async fn run(session: &Session, args: DescribeArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let name = &args.name;
    match args.kind {
        Kind::Application => application(session, &client, &get::application(&client, name).await?).await,
        Kind::Instance => instance(session, &get::instance(&client, name).await?),
        Kind::Operation => operation(session, &get::operation(&client, name).await?),
        Kind::Cluster => cluster(session, &client, &get::cluster(&client, name).await?).await,
    }?;
    Ok(Ending::Done)
}

async fn application(session: &Session, client: &Client, application: &Application) -> Result<(), Error> {
    if session.format != Format::Table {
        return document(session, application);
    }
    let now = wall_now();
    let default = client
        .call("get the default policy", async |mut api| api.get_server_info(GetServerInfoRequest {}).await)
        .await?
        .default_policy
        .unwrap_or_default();
    let instances = get::list_instances(client, &application.name, "").await?.items;
    let operations = latest_operations(client, &application.name).await?;

    let mut page = Page::new(session.width());
    page.application(application, now);
    if !application.active_operation.is_empty() {
        page.standing(&get::operation(client, &application.active_operation).await?);
    }
    if !instances.is_empty() {
        page.section("Instances");
        page.table(&get::instances(&instances, now));
    }
    if !operations.is_empty() {
        page.section("Latest operations");
        page.table(&get::operations(&operations, now));
    }
    let own = application.policy.clone().unwrap_or_default();
    page.policy(&effective(&default, &own), Some(&own));
    session.print(&page.into_lines())
}

async fn latest_operations(client: &Client, application: &str) -> Result<Vec<Operation>, Error> {
    let request = ListOperationsRequest {
        page_size: LATEST_OPERATIONS,
        page_token: String::new(),
        filter: format!("application = \"{application}\""),
    };
    let answer = client.call("list operations", async |mut api| api.list_operations(request.clone()).await).await?;
    Ok(answer.operations)
}

fn instance(session: &Session, instance: &Instance) -> Result<(), Error> {
    if session.format != Format::Table {
        return document(session, instance);
    }
    let mut page = Page::new(session.width());
    page.instance(instance, wall_now());
    session.print(&page.into_lines())
}

fn operation(session: &Session, operation: &Operation) -> Result<(), Error> {
    if session.format != Format::Table {
        return document(session, operation);
    }
    let mut page = Page::new(session.width());
    page.operation(operation, wall_now());
    page.policy(&operation.policy.clone().unwrap_or_default(), None);
    session.print(&page.into_lines())
}

async fn cluster(session: &Session, client: &Client, cluster: &Cluster) -> Result<(), Error> {
    if session.format != Format::Table {
        return document(session, cluster);
    }
    let now = wall_now();
    let filter = format!("cluster = \"{}\"", crate::name::short(&cluster.name));
    let instances = get::list_instances(client, "applications/-", &filter).await?.items;
    let mut page = Page::new(session.width());
    page.cluster(cluster, now);
    if !instances.is_empty() {
        page.section("Instances");
        page.table(&get::instances(&instances, now));
    }
    session.print(&page.into_lines())
}

fn document(session: &Session, resource: &impl Described) -> Result<(), Error> {
    session.show(&Document::of(resource), Vec::new)
}
