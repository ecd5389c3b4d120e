//! `quiesce readmit`: a person says where an application runs, after its scheduler was restored from a backup.
//!
//! The command cannot know whether that is true; it says what follows from it.

use quiesce_protocol::v1::{Application, UpdateApplicationRequest};

use super::{Ending, Session, get, note, request};
use crate::args::{Format, ReadmitArgs};
use crate::client::Client;
use crate::error::Error;
use crate::name;
use crate::output::json::{self, Document};

pub(super) async fn run(session: &Session, args: ReadmitArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let waiting = if args.all {
        let all = get::list_applications(&client, "").await?;
        if all.truncated {
            note("there are more applications than can be listed; readmit the others by name");
        }
        all.items.into_iter().filter(|application| application.restore_time.is_some()).collect()
    } else {
        let mut named = Vec::new();
        for application in &args.applications {
            named.push(get::application(&client, &name::application(application)).await?);
        }
        named
    };
    if waiting.is_empty() && session.format == Format::Table {
        note("no application waits to be readmitted");
    }
    let mut readmitted = Vec::new();
    for application in waiting {
        let short = name::short(&application.name);
        let text = match application.restore_time {
            None => format!("{short} needs no readmission"),
            Some(_) => format!("{short} is readmitted"),
        };
        let after = readmit(&client, application, args.cluster.as_deref()).await?;
        if session.format == Format::Table {
            note(format!("{text}; it runs on cluster {}", after.cluster));
        }
        readmitted.push(Document::of(&after));
    }
    match session.format {
        Format::Table => {}
        Format::Json | Format::Yaml => json::write(&mut std::io::stdout().lock(), session.format, &readmitted)?,
    }
    Ok(Ending::Done)
}

async fn readmit(client: &Client, application: Application, cluster: Option<&str>) -> Result<Application, Error> {
    let what = format!("readmit {}", name::short(&application.name));
    let cluster = cluster.map(|cluster| name::cluster(cluster).trim_start_matches("clusters/").to_owned());
    let mut paths = vec!["restore_time".to_owned()];
    paths.extend(cluster.as_ref().map(|_| "cluster".to_owned()));
    let id = request::request_id(None);
    let request = UpdateApplicationRequest {
        application: Some(Application {
            name: application.name,
            cluster: cluster.unwrap_or(application.cluster),
            ..Application::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths }),
        request_id: id.clone(),
        ..UpdateApplicationRequest::default()
    };
    let answer = client.call(&what, async |mut api| api.update_application(request.clone()).await).await;
    let after = answer.map_err(|error| error.with_request_id(&id))?.application;
    after.ok_or_else(|| Error::rpc(&what, tonic::Status::internal("the answer has no application")))
}
