//! `quiesce doctor`: looks at everything, says what it found, and exits with 1 if something has to be done.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use futures::StreamExt as _;
use quiesce_protocol::v1::{
    Application, DeleteApplicationRequest, Instance, MigrateApplicationRequest, Operation, ShutdownPlan,
};
use quiesce_runtime::clock::wall_now;
use quiesce_scheduler::config::default_data_dir;
use serde_json::json;
use tonic::{Code, Status};

use super::{Ending, Proof, Session, get};
use crate::args::{DoctorArgs, Format};
use crate::client::Client;
use crate::doctor::applications::{self, DryRun};
use crate::doctor::scheduler::{self, Answered, Caller, Role};
use crate::doctor::{Finding, Report, Verdict, clocks, connection, files};
use crate::error::Error;
use crate::name;
use crate::output::json;
use crate::output::text::{self, Line, Style};

/// A rehearsal asks every hook of an application; this many at once keep a large setup from taking minutes, and no
/// scheduler busy.
const REHEARSALS: usize = 8;
/// Most applications that are rehearsed without being named: some seconds.
const APPLICATIONS_MAX: usize = 100;
/// Most open operations whose reports are looked at, for the clocks of agents.
const OPERATIONS_MAX: usize = 50;
/// Columns of a verdict and of what it is about, at most; with the text behind them a line of a narrow terminal.
const VERDICT: usize = 9;
const SUBJECT_MAX: usize = 22;
/// How wide text is where no terminal says.
const WIDTH: usize = 120;

pub(super) async fn run(session: &Session, args: DoctorArgs) -> Result<Ending, Error> {
    let mut report = Report::default();
    let now = wall_now();
    let token = match &session.proof {
        Proof::File(path) => Some(path.as_path()),
        Proof::Token(_) | Proof::None => None,
    };
    files::of_caller(&session.target, token, now, &mut report);
    let is_loopback = is_loopback(session);
    match (&args.data_dir, default_data_dir().filter(|_| is_loopback)) {
        (Some(given), _) => files::of_scheduler(given, true, &mut report),
        (None, Some(usual)) => files::of_scheduler(&usual, false, &mut report),
        (None, None) => {}
    }
    if Box::pin(connection::check(&session.target, now, &mut report)).await {
        Box::pin(services(session, &args, is_loopback, &mut report)).await;
    }
    show(session, &report)?;
    Ok(if report.count(Verdict::Problem) == 0 { Ending::Done } else { Ending::Problems })
}

fn is_loopback(session: &Session) -> bool {
    let host = session.target.place().map(|place| place.host).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What the services say, once the way to them is known to be good.
async fn services(session: &Session, args: &DoctorArgs, is_loopback: bool, report: &mut Report) {
    let client = match session.connect().await {
        Ok(client) => client,
        // A file that cannot be read has been said already.
        Err(Error::Input { .. }) if report.count(Verdict::Problem) > 0 => return,
        Err(error) => return report.error("scheduler", &error),
    };
    let caller = Caller {
        has_token: !matches!(session.proof, Proof::None),
        has_certificate: session.target.cert.is_some(),
        is_loopback,
    };
    let Some(answered) = scheduler::check(&client, caller, report).await else { return };
    if let Err(error) = Box::pin(resources(&client, args, &answered, report)).await {
        report.error("applications", &error);
    }
}

async fn resources(client: &Client, args: &DoctorArgs, answered: &Answered, report: &mut Report) -> Result<(), Error> {
    let all = get::list_applications(client, "").await?.items;
    let wanted: Vec<String> = args.applications.iter().map(|name| name::application(name)).collect();
    for missing in wanted.iter().filter(|name| !all.iter().any(|one| one.name == **name)) {
        report.problem(
            name::short(missing),
            "there is no such application",
            "see what there is: quiesce get applications",
        );
    }
    let chosen: Vec<Application> =
        all.into_iter().filter(|one| wanted.is_empty() || wanted.contains(&one.name)).collect();
    let is_chosen = |application: &str| wanted.is_empty() || wanted.iter().any(|name| name == application);
    let instances = get::list_instances(client, get::ALL_APPLICATIONS, "").await?.items;
    let mut operations = get::list_operations(client, "done = false").await?.items;
    operations.retain(|operation| is_chosen(&operation.application));
    if chosen.is_empty() && wanted.is_empty() {
        let next = "start an agent: quiesce agent --application NAME --cluster NAME -- COMMAND";
        report.warning("applications", "there are none", next);
    }
    applications::operations(&operations, report);
    agents_clocks(client, &operations, &instances, answered.now, report).await;
    let mut by_application: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
    for instance in &instances {
        let application = instance.name.split_once("/instances/").map_or("", |(application, _)| application);
        by_application.entry(application).or_default().push(instance);
    }
    let none = Vec::new();
    let mut rehearsals = Vec::new();
    for application in &chosen {
        let own = by_application.get(application.name.as_str()).unwrap_or(&none);
        applications::standing(application, own, report);
        rehearsals.extend(applications::dry_runs(application, own).into_iter().map(|run| (application, run)));
    }
    rehearse(client, rehearsals, answered.role, report).await;
    Ok(())
}

async fn agents_clocks(
    client: &Client,
    operations: &[Operation],
    instances: &[Instance],
    now: SystemTime,
    report: &mut Report,
) {
    let mut whole = Vec::new();
    for operation in operations.iter().take(OPERATIONS_MAX) {
        // One that ends meanwhile has no reports worth looking at.
        whole.extend(get::operation(client, &operation.name).await.ok());
    }
    clocks::of_agents(&whole, instances, now, report);
}

async fn rehearse(client: &Client, mut runs: Vec<(&Application, DryRun)>, role: Role, report: &mut Report) {
    let left_out = runs.len().saturating_sub(APPLICATIONS_MAX);
    runs.truncate(APPLICATIONS_MAX);
    let asked = futures::stream::iter(runs).map(|(application, run)| async move {
        let answer = dry_run(client, application, &run).await;
        (application, run, answer)
    });
    let mut answers = Box::pin(asked.buffered(REHEARSALS));
    let mut allowed = None;
    while let Some((application, run, answer)) = answers.next().await {
        match answer {
            Ok(plan) => {
                allowed.get_or_insert(true);
                applications::plan(application, &run, &plan, report);
            }
            Err(status) if status.code() == Code::PermissionDenied => {
                allowed = Some(false);
                break;
            }
            Err(status) => report.error(name::short(&application.name), &Error::rpc("rehearse its stop", status)),
        }
    }
    match allowed {
        Some(false) => {
            let next = "ask with the token of an operator: --token-file FILE";
            report.warning("access", "you are a viewer: whether hooks could stop anything was not asked", next);
        }
        Some(true) if role == Role::Lesser => report.ok("access", "you are an operator"),
        Some(true) | None => {}
    }
    if left_out > 0 {
        let what = format!("{left_out} dry runs were left out");
        report.warning("applications", what, "name the applications: quiesce doctor APP APP");
    }
}

async fn dry_run(client: &Client, application: &Application, run: &DryRun) -> Result<ShutdownPlan, Status> {
    let name = application.name.clone();
    let plan = match run {
        DryRun::Migrate { to } => {
            let request = MigrateApplicationRequest {
                name,
                target_cluster: to.clone(),
                validate_only: true,
                ..MigrateApplicationRequest::default()
            };
            client.api().migrate_application(request).await?.into_inner().plan
        }
        DryRun::Delete => {
            let request = DeleteApplicationRequest { name, validate_only: true, ..DeleteApplicationRequest::default() };
            client.api().delete_application(request).await?.into_inner().plan
        }
    };
    plan.ok_or_else(|| Status::internal("the scheduler answered without a plan"))
}

fn show(session: &Session, report: &Report) -> Result<(), Error> {
    let (problems, warnings) = (report.count(Verdict::Problem), report.count(Verdict::Warning));
    match session.format {
        Format::Json | Format::Yaml => {
            let document = json!({ "problems": problems, "warnings": warnings, "findings": report.findings });
            Ok(json::write(&mut io::stdout().lock(), session.format, &document)?)
        }
        Format::Table => session.print(&lines(report, session.width().unwrap_or(WIDTH))),
    }
}

fn lines(report: &Report, width: usize) -> Vec<Line> {
    let widest = report.findings.iter().map(|finding| finding.subject.len()).max().unwrap_or_default();
    let subject = widest.min(SUBJECT_MAX) + 2;
    let mut lines: Vec<Line> =
        report.findings.iter().flat_map(|finding| finding_lines(finding, subject, width)).collect();
    let count = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let (problems, warnings) = (report.count(Verdict::Problem), report.count(Verdict::Warning));
    lines.push(Line::default());
    lines.push(match (problems, warnings) {
        (0, 0) => Line::new("all is well", Style::Good),
        (0, _) => Line::new(format!("no problem, {}", count(warnings, "warning")), Style::Warning),
        (_, _) => Line::new(format!("{}, {}", count(problems, "problem"), count(warnings, "warning")), Style::Bad),
    });
    lines
}

fn finding_lines(finding: &Finding, subject: usize, width: usize) -> Vec<Line> {
    let (word, style) = match finding.verdict {
        Verdict::Ok => ("ok", Style::Good),
        Verdict::Warning => ("warning", Style::Warning),
        Verdict::Problem => ("PROBLEM", Style::Bad),
    };
    let indent = VERDICT + subject;
    let room = width.saturating_sub(indent);
    let mut lines = Vec::new();
    for (index, part) in text::wrap(&finding.what, room).iter().enumerate() {
        let line = if index == 0 {
            let about = text::ellipsis(&finding.subject, subject - 1);
            Line::new(format!("{word:VERDICT$}"), style).then(format!("{about:subject$}"), Style::Bold)
        } else {
            Line::new(format!("{:indent$}", ""), Style::Plain)
        };
        lines.push(line.then(part, Style::Plain));
    }
    // Each on a line of its own and unbroken, so that a command can be copied.
    let next = finding.next.iter().flat_map(|next| next.split("; "));
    lines.extend(next.map(|part| Line::new(format!("{:VERDICT$}-> {part}", ""), Style::Dim)));
    lines
}
