//! That the page about metrics is what the code says, that alerts and dashboard ask for what there is, and that what happens to
//! an operation is counted by what it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quiesce_operation::report::{AppState, Probe, StopPhase, StopReport};
use quiesce_operation::{
    ApplicationId, Caller, ClusterId, Input, InstanceId, Kind, Placement, Policy, PolicyOverrides, Registered, Request,
    Step,
};

use super::*;

/// The page is made of the declarations: `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_page_about_metrics_is_up_to_date() {
    let path = file("docs/metrics.md");
    let catalogue = declared();
    let page = format!("{}{}", include_str!("page.md"), catalogue.rows());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    let line = page.lines().zip(is.lines()).find(|(want, have)| want != have);
    assert!(
        page == is,
        "docs/metrics.md is not what crates/scheduler/src/metrics.rs says; `just metrics` writes it anew\n{line:#?}"
    );
}

#[test]
fn alerts_and_dashboard_ask_for_series_that_there_are() {
    let known = declared().series();
    for name in ["deploy/observability/alerts.yaml", "deploy/observability/dashboard.json"] {
        let text = read(name);
        let asked: BTreeSet<_> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("quiesce_"))
            .collect();
        let unknown: Vec<_> = asked.iter().filter(|word| !known.iter().any(|known| known == *word)).collect();
        assert!(asked.len() >= 15 && unknown.is_empty(), "{name} asks for what there is not: {unknown:?}");
    }
}

#[test]
fn each_alert_names_the_next_step_and_its_section_of_the_page() {
    let (rules, page) = (read("deploy/observability/alerts.yaml"), read("docs/operations.md"));
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("#### ")).collect();
    let alerts: Vec<_> = rules.split("      - alert: ").skip(1).collect();
    let names: Vec<_> = alerts.iter().filter_map(|alert| alert.lines().next()).collect();
    let described: Vec<_> = sections.into_iter().filter(|section| section.starts_with("Quiesce")).collect();
    assert_eq!(names, described, "docs/operations.md, section Alerts, in the order of alerts.yaml");
    for (name, alert) in names.iter().zip(&alerts) {
        let link = format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase());
        assert!(alert.contains(&link) && alert.contains("Next:"), "{alert}");
    }
}

#[test]
fn what_can_be_there_is_there_before_anything_happens() {
    let page = scrape(&Metrics::new());
    for series in [
        "quiesce_operations_total{kind=\"delete\",outcome=\"rolled_back\"} 0",
        "quiesce_operations_in_progress{state=\"degraded\"} 0",
        "quiesce_instances_stopped_total{outcome=\"killed\",evidence=\"group_empty\"} 0",
        "quiesce_watch_streams_ended_total{reason=\"too_slow\"} 0",
        "quiesce_unverified_ends_total 0",
    ] {
        assert!(page.lines().any(|line| line == series), "{series} in {page}");
    }
    assert!(!page.contains("outcome=\"pending\"") && !page.contains("state=\"succeeded\"} 0\nquiesce_operations_in"));
}

#[test]
fn what_the_driver_counts_is_not_added_up_by_looking_twice() {
    let metrics = Metrics::new();
    let mut now = calm();
    now.driver.stalls_total = 3;
    metrics.render(&now).unwrap();
    let page = metrics.render(&now).unwrap();
    assert!(page.contains("quiesce_store_stalls_total 3\n"), "{page}");
}

/// A deletion of one instance whose application asks for time, gets some, does not end, and whose agent then vanishes.
#[test]
fn what_went_wrong_is_counted_by_what_it_was() {
    let metrics = Metrics::new();
    let (instance, at) = (InstanceId::parse("shop-0").unwrap(), |seconds: u64| Moment::from_millis(seconds * 1_000));
    let (mut operation, events) = deletion(&instance);
    let tell = |operation: &Operation, events: &[quiesce_operation::Event]| {
        events.iter().for_each(|event| metrics.event(&EventRecord::new(operation, event)));
    };
    tell(&operation, &events);
    let report = |sequence, wanted_grace_period: Option<Duration>| StopReport {
        sequence,
        phase: StopPhase::Stopping,
        percent: None,
        step: String::new(),
        message: String::new(),
        report_time: None,
        wanted_grace_period,
        result: None,
    };
    let reported = |sequence, wanted| Input::StopReported {
        instance: instance.clone(),
        attempt: 1,
        report: report(sequence, wanted),
    };
    let answer = Ok(Probe {
        capabilities: Default::default(),
        ready: true,
        findings: Vec::new(),
        app_state: AppState::Running,
        epoch: 1,
        cannot_start: String::new(),
    });
    let inputs = [
        Input::Begin,
        Input::Probed { instance: instance.clone(), serial: 1, answer },
        reported(1, None),
        reported(2, Some(Duration::from_secs(65))),
        reported(3, Some(Duration::from_secs(500))),
    ];
    for input in inputs {
        let Step { events, .. } = operation.handle(at(1), input);
        tell(&operation, &events);
    }
    let Step { events, .. } = operation.handle_deadline(at(100));
    tell(&operation, &events);
    let page = scrape(&metrics);
    let shown = |page: &str, lines: &[&str]| {
        for line in lines {
            assert!(page.lines().any(|found| found == *line), "{line} in {page}");
        }
    };
    let resting = [
        "quiesce_extensions_total{outcome=\"granted\"} 2",
        "quiesce_extensions_total{outcome=\"denied\"} 1",
        "quiesce_timeouts_total{reason=\"grace_timeout\"} 1",
        "quiesce_attempts_failed_total{reason=\"grace_timeout\"} 1",
        "quiesce_operations_in_progress{state=\"degraded\"} 1",
        "quiesce_operation_state_changes_total{state=\"degraded\"} 1",
        "quiesce_overrides_total 0",
    ];
    shown(&page, &resting);

    let caller = Caller { identity: "ann".to_owned(), reason: "its host is gone".to_owned() };
    let overrides = PolicyOverrides { allow_unverified: Some(true), ..PolicyOverrides::default() };
    let Step { events, .. } = operation.retry(at(200), &caller, true, &overrides).unwrap();
    tell(&operation, &events);
    let Step { events, .. } = operation.handle(at(200), Input::Begin);
    tell(&operation, &events);
    while let Some(due) = operation.next_deadline() {
        let Step { events, .. } = operation.handle_deadline(due);
        tell(&operation, &events);
    }
    let over = [
        "quiesce_operations_in_progress{state=\"degraded\"} 0",
        "quiesce_operations_in_progress{state=\"forcing\"} 0",
        "quiesce_operation_state_changes_total{state=\"pending\"} 1",
        "quiesce_operation_state_changes_total{state=\"forcing\"} 1",
        "quiesce_overrides_total 3",
        "quiesce_unverified_ends_total 1",
        "quiesce_operations_total{kind=\"delete\",outcome=\"succeeded\"} 1",
        "quiesce_operation_duration_seconds_count{kind=\"delete\",outcome=\"succeeded\"} 1",
    ];
    shown(&scrape(&metrics), &over);
}

fn deletion(instance: &InstanceId) -> (Operation, Vec<quiesce_operation::Event>) {
    let cluster = ClusterId::parse("a").unwrap();
    let request = Request {
        application: ApplicationId::parse("shop").unwrap(),
        kind: Kind::Delete,
        source: cluster.clone(),
        target: None,
        placement: Placement::Agents,
        force: false,
        caller: Caller { identity: "ann".to_owned(), reason: String::new() },
        request_id: String::new(),
        labels: Default::default(),
        time: Moment::from_millis(0),
        trace: None,
    };
    let policy = Policy { max_attempts: 1, max_extension: Duration::from_secs(10), ..Policy::built_in() };
    let member = Registered { instance: instance.clone(), cluster, stop_order: 0, epoch: 1 };
    Operation::accept(OperationId::parse("op-1").unwrap(), request, policy, vec![member], Vec::new(), 1)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn declared() -> Catalogue {
    let mut catalogue = Catalogue::new();
    drop(Series::declare(&mut catalogue));
    catalogue
}

fn calm() -> Now {
    let driver = Gauges { stalled: 0, failed: 0, stalls_total: 0, inputs_without_effect_total: 0 };
    let (hooks, time) = (Tally::default(), Moment::from_millis(0));
    Now { driver, hooks, revision: 0, condition: Condition::Good, certificate_seconds: None, time }
}

fn scrape(metrics: &Metrics) -> String {
    metrics.render(&calm()).unwrap()
}
