//! The fields of messages that stand in several requests.

use std::time::Duration;

use quiesce_testkit::input::{Row, flag, form, free, ignored, optional, required};

/// Longest policy: a day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TENTH: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// `ShutdownPolicy` at `path`.
pub(super) fn policy(path: &str) -> Vec<Row> {
    let at = |field: &str| format!("{path}.{field}");
    vec![
        optional(at("grace_period"), form::duration(Duration::ZERO, DAY)),
        optional(at("heartbeat_timeout"), form::duration(SECOND, DAY)),
        optional(at("accept_timeout"), form::duration(TENTH, DAY)),
        optional(at("kill_timeout"), form::duration(TENTH, DAY)),
        optional(at("max_extension"), form::duration(Duration::ZERO, DAY)),
        optional(at("overall_timeout"), form::duration(Duration::ZERO, DAY)),
        optional(at("settle_period"), form::duration(Duration::ZERO, DAY)),
        optional(at("start_timeout"), form::duration(SECOND, DAY)),
        optional(at("retry.max_attempts"), form::number(1, 100)),
        optional(at("retry.initial_backoff"), form::duration(TENTH, DAY)),
        optional(at("retry.max_backoff"), form::duration(TENTH, DAY)),
        optional(at("retry.backoff_multiplier"), form::double(1.0, 10.0)),
        optional(at("failure_strategy"), form::known_value()),
        optional(at("min_evidence"), form::known_value().into_iter().chain(form::claimed()).collect()),
        optional(at("max_parallel_stops"), form::count()),
        optional(at("parameters"), form::parameters()),
        flag(at("allow_unverified")),
        flag(at("hold_on_unclean_exit")),
    ]
}

/// What a client writes of an `Application` at `path`, its name aside, and what it does not.
pub(super) fn application(path: &str) -> Vec<Row> {
    let at = |field: &str| format!("{path}.{field}");
    let mut rows = policy(&at("policy"));
    rows.extend([
        optional(at("display_name"), form::line(128)),
        optional(at("expected_instances"), form::count()),
        optional(at("labels"), form::labels()),
        free(at("placement.agents"), "empty; that it is there is what it says"),
        flag(at("placement.external.require_confirmation")),
    ]);
    rows.extend(
        [
            "state",
            "active_operation",
            "instance_count",
            "ready_instance_count",
            "standby_instance_count",
            "create_time",
            "update_time",
            "epoch",
        ]
        .map(|field| ignored(at(field), "output only")),
    );
    rows.push(free(at("restore_time"), "named in an update_mask it is cleared, and whoever clears it leaves it unset"));
    rows
}

/// What a client writes of the `Cluster` of a request, and what it does not.
pub(super) fn cluster() -> Vec<Row> {
    let mut rows = vec![
        required("cluster.name", form::cluster_name()),
        optional("cluster.display_name", form::line(128)),
        optional("cluster.labels", form::labels()),
    ];
    rows.extend(
        ["application_count", "instance_count", "create_time", "update_time"]
            .map(|field| ignored(format!("cluster.{field}"), "output only")),
    );
    rows
}

/// Page size, token and filter of a listing.
pub(super) fn page() -> Vec<Row> {
    vec![
        optional("page_size", form::count()),
        optional("page_token", form::opaque()).reason("INVALID_PAGE_TOKEN"),
        optional("filter", form::filter()).reason("INVALID_FILTER"),
    ]
}

/// `request_id`
pub(super) fn request_id() -> Row {
    optional("request_id", form::token(64, "._:-"))
}

/// `StopResult` at `path`: a report, not a request.
pub(super) fn stop_result(path: &str) -> Row {
    ignored(
        path,
        "reports are read in the careful way and cut to the limits; an end must be heard from newer agents, too",
    )
}
