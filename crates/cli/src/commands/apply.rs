//! `quiesce apply`: documents to applications and clusters.
//!
//! Owns the reading of documents and which fields an update touches: those the document has, each as a whole. Moving an
//! application is never a side effect of applying a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use prost_types::FieldMask;
use quiesce_protocol::v1::{Application, Cluster, UpdateApplicationRequest, UpdateClusterRequest};
use serde_json::Value;
use tonic::Status;

use super::{Ending, Session, get, note, request};
use crate::args::{ApplyArgs, Format};
use crate::client::Client;
use crate::error::Error;
use crate::name;
use crate::output::json::{self, Described, Document};
use crate::output::text::{Line, Style};

/// A single message stays under 1 MiB (contract, "Limits"); this holds thousands of ordinary documents.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

pub(super) async fn run(session: &Session, args: ApplyArgs) -> Result<Ending, Error> {
    let text = read(&args.file)?;
    let objects = parse(&text).map_err(|problem| Error::Input {
        problem: format!("cannot apply {}: {problem}", args.file.display()),
        advice: vec!["nothing has been changed; see quiesce apply --help".to_owned()],
    })?;
    let client = session.connect().await?;
    let total = objects.len();
    let mut documents = Vec::new();
    let mut failed = 0;
    for object in objects {
        match apply(&client, object, args.dry_run).await {
            Ok(applied) => {
                if session.format == Format::Table {
                    let dry = if args.dry_run { " (dry run)" } else { "" };
                    let line = format!("{} {}{dry}", applied.name, applied.change.word());
                    session.print(&[Line::new(line, Style::Plain)])?;
                }
                documents.push(applied.document);
            }
            Err(error) => {
                failed += 1;
                error.lines().iter().for_each(note);
            }
        }
    }
    if session.format != Format::Table {
        json::write(&mut io::stdout().lock(), session.format, &documents)?;
    }
    if failed > 0 { Err(Error::Apply { failed, total }) } else { Ok(Ending::Done) }
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |problem: String| Error::Input {
        problem: format!("cannot read {}: {problem}", path.display()),
        advice: Vec::new(),
    };
    let mut text = String::new();
    let result = if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_INPUT + 1).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(MAX_INPUT + 1).read_to_string(&mut text))
    };
    match result {
        Ok(size) if size as u64 > MAX_INPUT => Err(failed(format!("larger than {MAX_INPUT} bytes"))),
        Ok(_) => Ok(text),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// One document, read.
#[derive(Debug, PartialEq)]
enum Object {
    Application { wanted: Box<Application>, paths: Vec<String> },
    Cluster { wanted: Cluster, paths: Vec<String> },
}

/// What a client may write, by the names of the contract.
const APPLICATION_FIELDS: &[&str] = &["display_name", "cluster", "policy", "expected_instances", "labels", "placement"];
const CLUSTER_FIELDS: &[&str] = &["display_name", "labels"];

/// Reads YAML documents, or JSON objects and arrays of them.
fn parse(text: &str) -> Result<Vec<Object>, String> {
    let values = if text.trim_start().starts_with(['{', '[']) {
        let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        // A YAML file may begin like JSON (flow style); then it is YAML that gets the last word.
        documents.or_else(|error| serde_saphyr::from_multiple(text).map_err(|_| error.to_string()))?
    } else {
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?
    };
    let objects: Vec<Value> = values
        .into_iter()
        .flat_map(|value| match value {
            Value::Array(several) => several,
            one => vec![one],
        })
        .filter(|value| !value.is_null())
        .collect();
    if objects.is_empty() {
        return Err("there is no document in it".to_owned());
    }
    let several = objects.len() > 1;
    objects
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            object(value)
                .map_err(|problem| if several { format!("document {}: {problem}", index + 1) } else { problem })
        })
        .collect()
}

fn object(value: Value) -> Result<Object, String> {
    let Value::Object(mut fields) = value else {
        return Err("not an object with `kind` and `name`".to_owned());
    };
    let kind = match fields.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(_) => return Err("kind: not a string".to_owned()),
        None => return Err("kind: missing (Application or Cluster)".to_owned()),
    };
    let value = Value::Object(fields);
    match kind.as_str() {
        "Application" => {
            let mut wanted: Application = json::read(&value).map_err(|problem| format!("{kind}: {problem}"))?;
            wanted.name = named(&kind, &wanted.name, name::application)?;
            Ok(Object::Application {
                wanted: Box::new(wanted),
                paths: paths::<Application>(&value, APPLICATION_FIELDS),
            })
        }
        "Cluster" => {
            let mut wanted: Cluster = json::read(&value).map_err(|problem| format!("{kind}: {problem}"))?;
            wanted.name = named(&kind, &wanted.name, name::cluster)?;
            Ok(Object::Cluster { wanted, paths: paths::<Cluster>(&value, CLUSTER_FIELDS) })
        }
        other => Err(format!("kind: {other:?} is unknown (Application or Cluster)")),
    }
}

fn named(kind: &str, name: &str, full: fn(&str) -> String) -> Result<String, String> {
    if name.is_empty() { Err(format!("{kind}: name: missing")) } else { Ok(full(name)) }
}

/// The fields the document has, as an update mask: so that `labels: {}` takes the labels away, and what is not in the
/// document stays.
fn paths<M: Described>(value: &Value, writable: &[&str]) -> Vec<String> {
    let descriptor = json::descriptor::<M>();
    let keys = value.as_object().into_iter().flat_map(|fields| fields.keys());
    keys.filter_map(|key| json::field(&descriptor, key))
        .map(|field| field.name().to_owned())
        .filter(|name| writable.contains(&name.as_str()))
        .collect()
}

/// What has become of an object.
struct Applied {
    name: String,
    change: Change,
    document: Document,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Created,
    Updated,
    Unchanged,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }

    fn between<T: PartialEq>(before: Option<T>, after: T) -> Self {
        match before {
            None => Self::Created,
            Some(before) if before == after => Self::Unchanged,
            Some(_) => Self::Updated,
        }
    }
}

async fn apply(client: &Client, object: Object, dry_run: bool) -> Result<Applied, Error> {
    match object {
        Object::Application { wanted, paths } => apply_application(client, *wanted, paths, dry_run).await,
        Object::Cluster { wanted, paths } => apply_cluster(client, wanted, paths, dry_run).await,
    }
}

async fn apply_application(
    client: &Client,
    mut wanted: Application,
    paths: Vec<String>,
    dry_run: bool,
) -> Result<Applied, Error> {
    let before = unless_missing(get::application(client, &wanted.name).await, "APPLICATION_NOT_FOUND")?;
    if let Some(before) = &before {
        forbid_moving(before, &mut wanted, &paths)?;
    }
    let name = wanted.name.clone();
    let what = format!("apply {name}");
    let id = request::request_id(None);
    let request = UpdateApplicationRequest {
        application: Some(wanted),
        update_mask: mask(paths),
        allow_missing: true,
        request_id: id.clone(),
        validate_only: dry_run,
    };
    let answer = client.call(&what, async |mut api| api.update_application(request.clone()).await).await?;
    let after = answer.application.ok_or_else(|| Error::rpc(&what, without_resource()))?;
    let change = Change::between(before.map(written_application), written_application(after.clone()));
    Ok(Applied { name, change, document: Document::of(&after) })
}

async fn apply_cluster(client: &Client, wanted: Cluster, paths: Vec<String>, dry_run: bool) -> Result<Applied, Error> {
    let before = unless_missing(get::cluster(client, &wanted.name).await, "CLUSTER_NOT_FOUND")?;
    let name = wanted.name.clone();
    let what = format!("apply {name}");
    let request = UpdateClusterRequest {
        cluster: Some(wanted),
        update_mask: mask(paths),
        allow_missing: true,
        request_id: request::request_id(None),
        validate_only: dry_run,
    };
    let answer = client.call(&what, async |mut api| api.update_cluster(request.clone()).await).await?;
    let after = answer.cluster.ok_or_else(|| Error::rpc(&what, without_resource()))?;
    let change = Change::between(before.map(written_cluster), written_cluster(after.clone()));
    Ok(Applied { name, change, document: Document::of(&after) })
}

/// Writing another cluster into an application that runs would only make the record wrong: its instances stay where they
/// are. The etag keeps it so between this look and the update.
fn forbid_moving(before: &Application, wanted: &mut Application, paths: &[String]) -> Result<(), Error> {
    let moves = paths.iter().any(|path| path == "cluster") && wanted.cluster != before.cluster;
    if !moves {
        return Ok(());
    }
    if before.instance_count > 0 {
        let short = name::short(&before.name);
        return Err(Error::Input {
            problem: format!("cannot apply {}: it is on {}, and a file does not move it", before.name, before.cluster),
            advice: vec![
                format!("move it: quiesce migrate {short} --to {}", wanted.cluster),
                format!("or write `cluster: {}`, or leave `cluster` out", before.cluster),
            ],
        });
    }
    if wanted.etag.is_empty() {
        wanted.etag.clone_from(&before.etag);
    }
    Ok(())
}

fn mask(paths: Vec<String>) -> Option<FieldMask> {
    (!paths.is_empty()).then_some(FieldMask { paths })
}

fn unless_missing<T>(answer: Result<T, Error>, reason: &str) -> Result<Option<T>, Error> {
    match answer {
        Ok(resource) => Ok(Some(resource)),
        Err(error) if error.is_reason(reason) => Ok(None),
        Err(error) => Err(error),
    }
}

fn without_resource() -> Status {
    Status::internal("the scheduler answered without the resource")
}

/// Only what clients write: the rest changes by itself.
fn written_application(application: Application) -> Application {
    Application {
        state: 0,
        active_operation: String::new(),
        instance_count: 0,
        ready_instance_count: 0,
        standby_instance_count: 0,
        etag: String::new(),
        create_time: None,
        update_time: None,
        epoch: 0,
        ..application
    }
}

fn written_cluster(cluster: Cluster) -> Cluster {
    Cluster {
        application_count: 0,
        instance_count: 0,
        etag: String::new(),
        create_time: None,
        update_time: None,
        ..cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_documents_and_json_say_the_same() {
        let yaml = "kind: Application\nname: db\ncluster: a\nplacement: {agents: {}}\npolicy: {gracePeriod: 90s}\n---\n\
                    # comment\nkind: Cluster\nname: a\nlabels: {}\n";
        let json = r#"[{"kind":"Application","name":"applications/db","cluster":"a","placement":{"agents":{}},
            "policy":{"gracePeriod":"90s"}},{"kind":"Cluster","name":"clusters/a","labels":{}}]"#;
        let concatenated = json.trim_matches(['[', ']']).replacen("},{", "}\n{", 1);
        let objects = parse(yaml).unwrap();
        assert_eq!(parse(json).unwrap(), objects);
        assert_eq!(parse(&concatenated).unwrap(), objects);
        let Object::Application { wanted, paths } = &objects[0] else { panic!("no application") };
        assert_eq!(wanted.name, "applications/db");
        assert_eq!(wanted.policy.as_ref().unwrap().grace_period.unwrap().seconds, 90);
        assert_eq!(paths, &["cluster", "placement", "policy"]);
        let Object::Cluster { paths, .. } = &objects[1] else { panic!("no cluster") };
        assert_eq!(paths, &["labels"], "an empty map is written, too");
    }

    #[test]
    fn flow_style_yaml_may_begin_like_json() {
        assert_eq!(parse("{kind: Cluster, name: a}").unwrap().len(), 1);
    }

    #[test]
    fn output_only_fields_are_not_written() {
        let objects = parse("kind: Application\nname: db\nstate: STATE_ACTIVE\ninstanceCount: 3\netag: x").unwrap();
        let Object::Application { paths, .. } = &objects[0] else { panic!("no application") };
        assert!(paths.is_empty());
    }

    #[test]
    fn bad_input_is_named_by_document_and_field() {
        let problem = |text| parse(text).unwrap_err();
        assert_eq!(problem(""), "there is no document in it");
        assert_eq!(problem("name: db"), "kind: missing (Application or Cluster)");
        assert_eq!(problem("kind: 1"), "kind: not a string");
        assert_eq!(problem("kind: Application"), "Application: name: missing");
        assert_eq!(problem("- 1"), "not an object with `kind` and `name`");
        assert!(problem("kind: Pod\nname: x").contains("\"Pod\" is unknown"));
        assert!(
            problem("kind: Cluster\nname: a\n---\nkind: Cluster\nnaem: b").starts_with("document 2: Cluster: naem:")
        );
        assert!(problem("kind: Application\nname: db\npolicy: {gracePeriod: 9}").contains("policy.gracePeriod: "));
        assert!(problem("a: b: c").contains("line"));
        assert!(problem("{\"kind\": \"Cluster\",").contains("EOF"));
    }

    #[test]
    fn a_file_does_not_move_what_runs() {
        let before =
            Application { cluster: "b".to_owned(), instance_count: 1, etag: "e".to_owned(), ..Default::default() };
        let mut wanted = Application { cluster: "a".to_owned(), ..Default::default() };
        let paths = ["cluster".to_owned()];
        assert!(forbid_moving(&before, &mut wanted, &paths).is_err());
        assert!(forbid_moving(&before, &mut wanted, &[]).is_ok());
        let idle = Application { instance_count: 0, ..before };
        forbid_moving(&idle, &mut wanted, &paths).unwrap();
        assert_eq!(wanted.etag, "e");
    }
}
