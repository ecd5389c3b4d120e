use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
