//! Listing, showing, applying, single words to operations, and wrong usage.

use std::process::Stdio;

use quiesce_protocol::v1::{Application, Cluster, Instance, Operation, ShutdownPolicy, operation::State};
use tokio::io::AsyncWriteExt as _;

use crate::fake::{Fake, Script, refusal};
use crate::run::{command, operation, quiesce};

fn application(name: &str) -> Application {
    Application { name: format!("applications/{name}"), cluster: "a".to_owned(), ..Application::default() }
}

fn instance(name: &str) -> Instance {
    Instance { name: format!("applications/{name}"), cluster: "a".to_owned(), ..Instance::default() }
}

#[tokio::test]
async fn lists_walk_through_all_pages() {
    let applications = ["one", "two", "three", "four", "five"].map(application).to_vec();
    let fake = Fake::start(Script { applications, ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["get", "applications", "-o", "json"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json().as_array().unwrap().len(), 5);
    let ran = quiesce(&fake.url, &["get", "app"]).await;
    assert_eq!(ran.stdout.lines().count(), 6);
    assert!(ran.stdout.starts_with("NAME "), "{}", ran.stdout);
    assert!(!ran.stdout.contains('\x1b'), "no colours outside of a terminal");
}

#[tokio::test]
async fn empty_lists_are_empty_arrays_and_a_word_to_people() {
    let fake = Fake::start(Script::default()).await;
    for kind in ["applications", "instances", "operations", "clusters"] {
        let ran = quiesce(&fake.url, &["get", kind, "-o", "json"]).await;
        assert_eq!((ran.code, ran.json()), (Some(0), serde_json::json!([])));
        let ran = quiesce(&fake.url, &["get", kind]).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr), ("", format!("no {kind}\n")));
    }
}

#[tokio::test]
async fn one_resource_is_one_object_in_json_and_yaml() {
    let fake = Fake::start(Script {
        applications: vec![application("db")],
        clusters: vec![Cluster { name: "clusters/a".to_owned(), ..Cluster::default() }],
        ..Script::default()
    })
    .await;
    assert_eq!(quiesce(&fake.url, &["get", "application", "db", "-o", "json"]).await.json()["name"], "applications/db");
    let ran = quiesce(&fake.url, &["get", "clusters", "a", "-o", "yaml"]).await;
    assert_eq!(ran.stdout.trim(), "name: clusters/a");
    let ran = quiesce(&fake.url, &["get", "app", "other"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("APPLICATION_NOT_FOUND") && ran.stderr.contains("quiesce get applications"));
}

#[tokio::test]
async fn an_instance_is_found_by_its_last_part_if_that_is_clear() {
    let instances = vec![instance("db/instances/db-0"), instance("x/instances/same"), instance("y/instances/same")];
    let fake = Fake::start(Script { instances, ..Script::default() }).await;
    for name in ["db-0", "db/db-0", "applications/db/instances/db-0"] {
        let ran = quiesce(&fake.url, &["get", "instance", name, "-o", "json"]).await;
        assert_eq!(ran.json()["name"], "applications/db/instances/db-0");
    }
    let ran = quiesce(&fake.url, &["get", "inst", "same"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("quiesce get instance x/same"), "{}", ran.stderr);
}

#[tokio::test]
async fn describe_writes_a_page_for_every_kind() {
    let fake = Fake::start(Script {
        applications: vec![application("db")],
        instances: vec![instance("db/instances/db-0")],
        operations: vec![operation(State::Degraded)],
        clusters: vec![Cluster { name: "clusters/a".to_owned(), ..Cluster::default() }],
        ..Script::default()
    })
    .await;
    for (kind, name, says) in [
        ("application", "db", "Grace             1m"),
        ("instance", "db-0", "Instance          db/db-0"),
        ("operation", "op-1", "State             DEGRADED"),
        ("cluster", "a", "Cluster           a"),
    ] {
        let ran = quiesce(&fake.url, &["describe", kind, name]).await;
        assert_eq!(ran.code, Some(0), "{kind}: {}", ran.stderr);
        assert!(ran.stdout.contains(says), "{kind}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn apply_says_what_it_created_updated_and_left() {
    let fake = Fake::start(Script::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.yaml");
    let file = path.to_str().unwrap();
    let write = |text: &str| std::fs::write(&path, text).unwrap();

    write("kind: Application\nname: db\ncluster: a\n---\nkind: Cluster\nname: a\n");
    let ran = quiesce(&fake.url, &["apply", "-f", file]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "applications/db created\nclusters/a created\n"));
    assert!(fake.script().updates[0].allow_missing);
    write("kind: Application\nname: db\ncluster: a\n");
    assert_eq!(quiesce(&fake.url, &["apply", "-f", file]).await.stdout, "applications/db unchanged\n");
    write("kind: Application\nname: db\ncluster: a\ndisplayName: Shop\n");
    assert_eq!(quiesce(&fake.url, &["apply", "-f", file]).await.stdout, "applications/db updated\n");
    assert_eq!(fake.script().updates[2].update_mask.clone().unwrap().paths, ["cluster", "display_name"]);

    write("kind: Application\nname: db\npolicy: {gracePeriodd: 9s}\n");
    let ran = quiesce(&fake.url, &["apply", "-f", file]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("policy.gracePeriodd: no such field"), "{}", ran.stderr);
    let ran = quiesce(&fake.url, &["apply", "-f", "does-not-exist"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("cannot read does-not-exist"), "{}", ran.stderr);
}

#[tokio::test]
async fn apply_reads_the_standard_input() {
    let fake = Fake::start(Script::default()).await;
    let mut child = command(&fake.url, &["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(br#"{"kind": "Cluster", "name": "a"}"#).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "clusters/a created\n");
}

#[tokio::test]
async fn extend_asks_for_the_present_total_and_more() {
    let policy = ShutdownPolicy {
        grace_period: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..ShutdownPolicy::default()
    };
    let running = Operation { policy: Some(policy), ..operation(State::Stopping) };
    let fake = Fake::start(Script { operations: vec![running], ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["extend", "op-1", "--by", "30s"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fake.script().extensions[0].grace_period.unwrap().seconds, 90);
}

#[tokio::test]
async fn words_to_an_operation_answer_with_its_state() {
    let fake = Fake::start(Script { operations: vec![operation(State::Pending)], ..Script::default() }).await;
    for word in ["cancel", "retry", "confirm"] {
        let ran = quiesce(&fake.url, &[word, "op-1"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "op-1 is PENDING\n"), "{}", ran.stderr);
        let ran = quiesce(&fake.url, &[word, "operations/op-1", "-o", "json"]).await;
        assert_eq!(ran.json()["name"], "operations/op-1");
    }
    quiesce(&fake.url, &["retry", "op-1", "--force", "--grace-period", "2s"]).await;
    let forced = fake.script().retries.last().cloned().unwrap();
    assert!(forced.force);
    assert_eq!(forced.policy.unwrap().grace_period.unwrap().seconds, 2);
    let too_late =
        refusal("POINT_OF_NO_RETURN", tonic::Code::FailedPrecondition, "too late", &[("operation", "operations/op-1")]);
    fake.script().refusals.push_back(too_late);
    let ran = quiesce(&fake.url, &["cancel", "op-1"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("quiesce watch op-1"), "{}", ran.stderr);
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    for args in [
        &["get"][..],
        &["get", "pods"],
        &["migrate"],
        &["migrate", "db", "--timeout", "soon"],
        &["extend", "op-1"],
        &["get", "apps", "-o", "xml"],
        &["get", "apps", "db", "--filter", "x"],
        &["frobnicate"],
        &["-o", "json", "agent", "--application", "db", "--cluster", "a", "--", "true"],
        &[],
    ] {
        let ran = quiesce("http://127.0.0.1:1", args).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn an_unreachable_scheduler_is_an_error_with_a_way_out() {
    // A port that was free a moment ago and that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for args in [&["get", "apps"][..], &["migrate", "db", "--to", "b"], &["watch"], &["-o", "json", "get", "ops"]] {
        let ran = quiesce(&url, args).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        assert!(ran.stderr.starts_with(&format!("error: cannot reach the scheduler at {url}: ")), "{}", ran.stderr);
        assert!(ran.stderr.contains("`quiesce scheduler`") && ran.stderr.contains("QUIESCE_SCHEDULER"));
    }
    let ran = quiesce("localhost:7600", &["get", "apps"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("write it like http://127.0.0.1:7600"), "{}", ran.stderr);
}

#[tokio::test]
async fn completions_need_no_scheduler() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = quiesce("http://127.0.0.1:1", &["completions", shell]).await;
        assert_eq!(ran.code, Some(0));
        assert!(ran.stdout.contains("migrate"), "{shell}");
    }
}

#[tokio::test]
async fn an_instance_that_is_gone_for_good_is_forgotten_once() {
    let instances = vec![instance("db/instances/db-0"), instance("db/instances/db-1")];
    let fake = Fake::start(Script { instances, ..Script::default() }).await;
    let ran = quiesce(&fake.url, &["forget", "db/db-0"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert_eq!(fake.script().instances, [instance("db/instances/db-1")]);
    let ran = quiesce(&fake.url, &["forget", "db/db-0"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("INSTANCE_NOT_FOUND"), "{}", ran.stderr);
    fake.script().refusals.push_back(refusal("INSTANCE_IN_USE", tonic::Code::FailedPrecondition, "a copy runs", &[]));
    let ran = quiesce(&fake.url, &["forget", "db/db-1"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("a copy runs"), "{}", ran.stderr);
}
