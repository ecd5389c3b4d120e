//! `quiesce migrate` and `quiesce delete`: ask, then follow to the end.

use std::collections::BTreeMap;

use quiesce_protocol::v1::{
    DeleteApplicationRequest, DeleteApplicationResponse, MigrateApplicationRequest, MigrateApplicationResponse,
    Operation, ShutdownPlan, instance, shutdown_plan,
};
use tonic::Status;

use super::progress::{self, Watched};
use super::{Ending, Session, get, note, policy};
use crate::args::{DeleteArgs, Format, MigrateArgs, RequestArgs};
use crate::client::Client;
use crate::error::Error;
use crate::live::view;
use crate::name;
use crate::output::json::{Described, Document};
use crate::output::table::{Cell, Table};
use crate::output::text::{self, Line, Style};
use crate::output::words;

pub(super) async fn migrate(session: &Session, args: MigrateArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let app = name::short(&name::application(&args.application));
    let target = match args.to {
        Some(cluster) => cluster,
        None => standby_cluster(&client, &app).await?,
    };
    let request_id = request_id(args.request.request_id.as_deref());
    let request = MigrateApplicationRequest {
        name: name::application(&args.application),
        target_cluster: name::short(&target),
        request_id: request_id.clone(),
        validate_only: args.request.dry_run,
        policy: policy::overrides(&args.policy, args.force),
        reason: args.request.reason.clone(),
        ..MigrateApplicationRequest::default()
    };
    let what = format!("migrate {app}");
    let answer = client.call(&what, async |mut api| api.migrate_application(request.clone()).await).await;
    let answer = answer.map_err(|error| error.with_request_id(&request_id).with_application(&app))?;
    if args.request.dry_run {
        return show_plan(session, &answer);
    }
    accepted(session, client, &what, answer.operation, &args.request).await
}

pub(super) async fn delete(session: &Session, args: DeleteArgs) -> Result<Ending, Error> {
    let client = session.connect().await?;
    let request_id = request_id(args.request.request_id.as_deref());
    let request = DeleteApplicationRequest {
        name: name::application(&args.application),
        force: args.force,
        request_id: request_id.clone(),
        validate_only: args.request.dry_run,
        policy: policy::overrides(&args.policy, false),
        reason: args.request.reason.clone(),
        ..DeleteApplicationRequest::default()
    };
    let app = name::short(&request.name);
    let what = format!("delete {app}");
    let answer = client.call(&what, async |mut api| api.delete_application(request.clone()).await).await;
    let answer = answer.map_err(|error| error.with_request_id(&request_id).with_application(&app))?;
    if args.request.dry_run {
        return show_plan(session, &answer);
    }
    accepted(session, client, &what, answer.operation, &args.request).await
}

/// The id of a request: the caller's, or a new one.
pub(super) fn request_id(given: Option<&str>) -> String {
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

async fn accepted(
    session: &Session,
    client: Client,
    what: &str,
    operation: Option<Operation>,
    args: &RequestArgs,
) -> Result<Ending, Error> {
    let operation =
        operation.ok_or_else(|| Error::rpc(what, Status::internal("the scheduler answered without an operation")))?;
    if args.detach {
        session.show(&Document::of(&operation), || {
            let id = name::short(&operation.name);
            vec![Line::new(format!("{id} accepted: {}", view::subject(&operation)), Style::Plain)]
        })?;
        if session.format == Format::Table {
            note(format!("follow it: quiesce watch {}", name::short(&operation.name)));
        }
        return Ok(Ending::Done);
    }
    progress::follow(session, client, Watched::Request(Box::new(operation)), None, args.timeout).await
}

/// The one other cluster with instances of the application that stand by.
async fn standby_cluster(client: &Client, app: &str) -> Result<String, Error> {
    let application = get::application(client, app).await?;
    let instances = get::list_instances(client, &application.name, "").await?.items;
    let mut clusters: BTreeMap<String, usize> = BTreeMap::new();
    for instance in instances {
        if instance.cluster != application.cluster && instance.state() == instance::State::Held {
            *clusters.entry(instance.cluster).or_default() += 1;
        }
    }
    match clusters.iter().collect::<Vec<_>>().as_slice() {
        [(cluster, _)] => {
            note(format!("migrating {app} to {cluster}, the only other cluster where instances stand by"));
            Ok((*cluster).clone())
        }
        [] => Err(Error::Input {
            problem: format!(
                "cannot migrate {app}: --to is missing, and no instance stands by outside of {}",
                application.cluster
            ),
            advice: vec![
                format!("start one: quiesce agent --application {app} --cluster CLUSTER --standby -- COMMAND"),
                format!("or say where to: quiesce migrate {app} --to CLUSTER"),
            ],
        }),
        several => Err(Error::Input {
            problem: format!("cannot migrate {app}: --to is missing, and instances stand by on several clusters"),
            advice: several.iter().map(|(cluster, _)| format!("quiesce migrate {app} --to {cluster}")).collect(),
        }),
    }
}

/// The two answers of a dry run, which differ in name only.
trait Preview: Described {
    fn parts(&self) -> (Operation, ShutdownPlan);
}

impl Preview for MigrateApplicationResponse {
    fn parts(&self) -> (Operation, ShutdownPlan) {
        (self.operation.clone().unwrap_or_default(), self.plan.clone().unwrap_or_default())
    }
}

impl Preview for DeleteApplicationResponse {
    fn parts(&self) -> (Operation, ShutdownPlan) {
        (self.operation.clone().unwrap_or_default(), self.plan.clone().unwrap_or_default())
    }
}

fn show_plan(session: &Session, preview: &impl Preview) -> Result<Ending, Error> {
    session.show(&Document::of(preview), || {
        let (operation, plan) = preview.parts();
        plan_lines(&operation, &plan, session.width())
    })?;
    Ok(Ending::Done)
}

fn plan_lines(operation: &Operation, plan: &ShutdownPlan, width: Option<usize>) -> Vec<Line> {
    let mut lines =
        vec![Line::new(format!("plan: {} (nothing has been changed)", view::subject(operation)), Style::Bold)];
    lines.extend(steps("STOP", &plan.steps).lines(width));
    if !plan.starts.is_empty() {
        lines.extend(steps("START", &plan.starts).lines(width));
    }
    if let Some(worst) = text::duration(plan.worst_case_duration.as_ref()) {
        lines.push(Line::new(format!("done or DEGRADED after {} at the latest", text::span(worst)), Style::Plain));
    }
    lines.extend(plan.warnings.iter().map(|warning| Line::new(format!("warning: {warning}"), Style::Warning)));
    lines
}

fn steps(title: &'static str, steps: &[shutdown_plan::Step]) -> Table {
    let mut table = Table::new([title, "ORDER", "HOOK", "WOULD WORK", "FINDINGS", "CAN"]);
    for step in steps {
        let (hook, hook_style) = if step.reachable { ("answers", Style::Plain) } else { ("unreachable", Style::Bad) };
        let (works, works_style) = match step.ok {
            Some(true) => ("yes", Style::Good),
            Some(false) => ("no", Style::Bad),
            None => ("", Style::Plain),
        };
        let can: Vec<_> = step.capabilities.iter().map(|raw| words::capability(*raw)).collect();
        table.row([
            name::leaf(&step.instance).into(),
            step.order.to_string().into(),
            Cell::styled(hook, hook_style),
            Cell::styled(works, works_style),
            step.findings.join("; ").into(),
            can.join(" ").into(),
        ]);
    }
    table
}
