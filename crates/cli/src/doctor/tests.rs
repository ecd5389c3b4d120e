//! What cannot be had from a real setup in a test: clocks that are wrong, certificates about to expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use quiesce_protocol::v1::{HookInfo, Instance, InstanceShutdown, Operation, ShutdownStatus};
use quiesce_runtime::tls::Certificate;

use super::{Report, Verdict, clocks};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

fn stamp(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + seconds, nanos: 0 })
}

fn only(report: &Report) -> (Verdict, &str) {
    let [finding] = &report.findings[..] else { panic!("not one finding: {report:?}") };
    (finding.verdict, &finding.what)
}

#[test]
fn the_further_clocks_are_apart_the_worse() {
    for (theirs, ours, verdict, what) in [
        (100, 103, Verdict::Ok, "agree"),
        (100, 140, Verdict::Warning, "40s behind this machine's"),
        (4000, 100, Verdict::Problem, "1h05m ahead of this machine's"),
    ] {
        let mut report = Report::default();
        clocks::of_scheduler(at(theirs), at(ours), &mut report);
        let (found, said) = only(&report);
        assert!(found == verdict && said.contains(what), "{report:?}");
    }
}

#[test]
fn an_agent_whose_reports_come_from_another_time_is_named() {
    let shutdown = |report_time, heartbeat_time| InstanceShutdown {
        instance: "applications/db/instances/db-0".to_owned(),
        status: Some(ShutdownStatus { report_time, ..ShutdownStatus::default() }),
        heartbeat_time,
        ..InstanceShutdown::default()
    };
    let of = |instances: Vec<InstanceShutdown>| {
        let mut report = Report::default();
        let operation = Operation { instances, ..Operation::default() };
        clocks::of_agents(&[operation], &[], at(0), &mut report);
        report
    };
    assert!(of(vec![shutdown(stamp(10), stamp(12)), shutdown(None, stamp(12))]).findings.is_empty());
    let found = of(vec![shutdown(stamp(10), stamp(100))]);
    assert_eq!(only(&found), (Verdict::Warning, "its agent's clock is 1m30s behind the scheduler's"));
    assert_eq!(found.findings[0].subject, "db/db-0");

    let instance = Instance {
        name: "applications/db/instances/db-1".to_owned(),
        hook: Some(HookInfo { app_start_time: stamp(600), ..HookInfo::default() }),
        ..Instance::default()
    };
    let mut report = Report::default();
    clocks::of_agents(&[], &[instance], at(0), &mut report);
    assert_eq!(only(&report), (Verdict::Warning, "its agent's clock is 10m00s ahead of the scheduler's"));
}

#[test]
fn a_certificate_is_to_be_renewed_a_week_before_its_end() {
    let certificate = Certificate {
        subject: "CN=x".to_owned(),
        issuer: "CN=ca".to_owned(),
        names: Vec::new(),
        identity: None,
        from: at(0),
        until: at(30 * 24 * 3600),
        is_authority: false,
    };
    let on_day = |day: u64| {
        let mut report = Report::default();
        report.validity("tls", "it", &certificate, at(day * 24 * 3600 + 1), "renew it");
        only(&report).0
    };
    assert_eq!([1, 24, 31].map(on_day), [Verdict::Ok, Verdict::Warning, Verdict::Problem]);
    let mut early = Report::default();
    early.validity("tls", "it", &certificate, at(0) - Duration::from_secs(1), "renew it");
    assert!(only(&early).1.contains("is not good before"), "{early:?}");
}

#[test]
fn what_others_say_cannot_steer_the_terminal() {
    let mut report = Report::default();
    report.warning("x", "a\x1b[2Jb", "c\nd");
    assert_eq!((report.findings[0].what.as_str(), report.findings[0].next.as_deref()), ("a [2Jb", Some("c d")));
}
