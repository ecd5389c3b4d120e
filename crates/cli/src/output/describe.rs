//! Pages for people about one resource: labelled values, sections, tables.
//!
//! Pure: what is shown is handed in. Nothing the contract says of a resource is left out, except what is empty.

use std::collections::HashMap;
use std::time::SystemTime;

use quiesce_protocol::v1::{
    Application, Cluster, HookInfo, Instance, InstanceShutdown, InstanceStart, Operation, RetryPolicy, ShutdownPolicy,
};
use quiesce_runtime::duration;

use crate::live::verdict::describe_override;
use crate::live::view::{describe_end, describe_failure, describe_progress, phase, start_phase, subject};
use crate::name;
use crate::output::table::Table;
use crate::output::text::{self, Line, Style};
use crate::output::words;

/// Where values begin.
const INDENT: usize = 18;
/// A narrower column of prose is not readable; the terminal may cut it off.
const NARROWEST_VALUE: usize = 20;

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page {
    width: Option<usize>,
    lines: Vec<Line>,
}

impl Page {
    /// An empty page within `width` columns.
    pub(crate) fn new(width: Option<usize>) -> Self {
        Self { width, lines: Vec::new() }
    }

    /// The finished page.
    pub(crate) fn into_lines(self) -> Vec<Line> {
        match self.width {
            Some(width) => self.lines.into_iter().map(|line| line.fit(width)).collect(),
            None => self.lines,
        }
    }

    /// A labelled value, wrapped; nothing when it is empty.
    fn field(&mut self, label: &str, value: impl AsRef<str>, style: Style) {
        let room = self.width.map_or(usize::MAX, |width| width.saturating_sub(INDENT).max(NARROWEST_VALUE));
        for (index, part) in text::wrap(value.as_ref(), room).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            self.lines.push(Line::default().then(format!("{label:INDENT$}"), Style::Dim).then(part, style));
        }
    }

    fn plain(&mut self, label: &str, value: impl AsRef<str>) {
        self.field(label, value, Style::Plain);
    }

    /// A heading with space above it.
    pub(crate) fn section(&mut self, title: &str) {
        self.lines.push(Line::default());
        self.lines.push(Line::new(title, Style::Bold));
    }

    /// A table under its heading; nothing when there is none.
    pub(crate) fn table(&mut self, table: &Table) {
        self.lines.extend(table.lines(self.width));
    }

    /// What an application is.
    pub(crate) fn application(&mut self, application: &Application, now: SystemTime) {
        self.field("Application", name::short(&application.name), Style::Bold);
        self.plain("Shown as", &application.display_name);
        self.field("State", words::standing(application), words::application_style(application));
        if application.restore_time.is_some() {
            let short = name::short(&application.name);
            let since = text::age(application.restore_time.as_ref(), now);
            let advice = format!(
                "the scheduler was restored from a backup {since} ago; nothing of this is started or stopped until \
                 somebody has seen where it runs: quiesce readmit {short}"
            );
            self.field("Restored", advice, Style::Bad);
        }
        self.plain("Operation", name::short(&application.active_operation));
        self.plain("Cluster", &application.cluster);
        self.plain("Placement", words::placement(application.placement.as_ref()));
        let expected = application.expected_instances.map(|n| format!(", {n} expected")).unwrap_or_default();
        let (ready, all) = (application.ready_instance_count, application.instance_count);
        let standby = application.standby_instance_count;
        self.plain("Instances", format!("{all} registered, {ready} ready, {standby} standing by{expected}"));
        self.plain("Epoch", application.epoch.to_string());
        self.plain("Labels", labels(&application.labels));
        self.times(application.create_time.as_ref(), application.update_time.as_ref(), now);
    }

    /// What a cluster is.
    pub(crate) fn cluster(&mut self, cluster: &Cluster, now: SystemTime) {
        self.field("Cluster", name::short(&cluster.name), Style::Bold);
        self.plain("Shown as", &cluster.display_name);
        self.plain("Applications", cluster.application_count.to_string());
        self.plain("Instances", cluster.instance_count.to_string());
        self.plain("Labels", labels(&cluster.labels));
        self.times(cluster.create_time.as_ref(), cluster.update_time.as_ref(), now);
    }

    /// What an instance is, and what its hook says.
    pub(crate) fn instance(&mut self, instance: &Instance, now: SystemTime) {
        self.field("Instance", name::short(&instance.name), Style::Bold);
        self.field("State", words::instance_state(instance.state), words::instance_style(instance.state));
        if !instance.unreachable_reason.is_empty() {
            self.field("Reason", &instance.unreachable_reason, Style::Bad);
        }
        self.plain("Cluster", &instance.cluster);
        self.plain("Connection", words::connect_mode(instance.connect_mode));
        self.plain("Endpoint", &instance.endpoint);
        self.plain("Stop order", instance.stop_order.to_string());
        self.plain("Epoch", instance.epoch.to_string());
        self.plain("Agent", &instance.agent_id);
        self.plain("Labels", labels(&instance.labels));
        self.plain("Last seen", format!("{} ago", text::age(instance.last_seen_time.as_ref(), now)));
        self.times(instance.create_time.as_ref(), instance.update_time.as_ref(), now);
        if let Some(hook) = &instance.hook {
            self.hook(hook);
        }
    }

    fn hook(&mut self, hook: &HookInfo) {
        self.section("Hook");
        self.plain("Implementation", format!("{} {}", hook.implementation, hook.implementation_version));
        self.plain("Protocol", &hook.protocol_version);
        if hook.ready == Some(false) {
            self.field("Ready", format!("no: {}", hook.not_ready_reason), Style::Bad);
        }
        if !hook.cannot_start_reason.is_empty() {
            self.field("Could start", format!("no: {}", hook.cannot_start_reason), Style::Bad);
        }
        self.plain("Application", words::app_state(hook.app_state));
        if hook.app_start_time.is_some() {
            self.plain("Started", text::stamp(hook.app_start_time.as_ref()));
        }
        self.plain("Says", &hook.app_message);
        self.plain("Highest epoch", hook.epoch.to_string());
        let can: Vec<_> = hook.capabilities.iter().map(|raw| words::capability(*raw)).collect();
        self.plain("Can", can.join(" "));
    }

    /// What an operation is, how it stands, and what to do about it.
    pub(crate) fn operation(&mut self, operation: &Operation, now: SystemTime) {
        self.field("Operation", name::short(&operation.name), Style::Bold);
        self.plain("For", subject(operation));
        self.field("State", words::operation_state(operation.state), words::operation_style(operation.state));
        self.standing(operation);
        for given in &operation.overrides {
            let line = format!("{} at {}", describe_override(given), text::stamp(given.time.as_ref()));
            self.field("Override", line, Style::Warning);
        }
        self.plain("Superseded by", name::short(&operation.superseded_by));
        self.plain("Placement", words::placement(operation.placement.as_ref()));
        self.plain("Attempt", format!("{} in round {}", operation.attempt, operation.round));
        self.plain("Epoch", operation.epoch.to_string());
        self.plain("Force", if operation.force { "yes" } else { "" });
        self.plain(
            "Can be cancelled",
            if operation.done {
                ""
            } else if operation.cancellable {
                "yes"
            } else {
                "no"
            },
        );
        self.plain("Requester", &operation.requester);
        self.plain("Reason", &operation.reason);
        self.plain("Request id", &operation.request_id);
        self.plain("Labels", labels(&operation.labels));
        self.plain(
            "Accepted",
            format!(
                "{} ({} ago)",
                text::stamp(operation.create_time.as_ref()),
                text::age(operation.create_time.as_ref(), now)
            ),
        );
        for (label, time) in [
            ("No return since", &operation.point_of_no_return_time),
            ("Next attempt", &operation.next_attempt_time),
            ("Deadline", if operation.done { &None } else { &operation.deadline_time }),
            ("Ended", &operation.end_time),
        ] {
            if time.is_some() {
                self.plain(label, text::stamp(time.as_ref()));
            }
        }
        self.shutdowns(&operation.instances);
        self.starts(&operation.starts);
    }

    /// What there is to know and to do about an operation right now.
    pub(crate) fn standing(&mut self, operation: &Operation) {
        self.plain("Message", &operation.message);
        if let Some(failure) = &operation.failure {
            let style = if operation.done { Style::Warning } else { Style::Bad };
            self.field("Failure", describe_failure(failure), style);
            self.plain("Hook answered", &failure.grpc_code);
        }
        if operation.awaiting_confirmation && operation.advice.is_empty() {
            self.field("Next", format!("quiesce confirm {}", name::short(&operation.name)), Style::Bold);
        }
        for advice in operation.advice.lines() {
            self.field("Next", advice, Style::Bold);
        }
    }

    fn shutdowns(&mut self, instances: &[InstanceShutdown]) {
        if instances.is_empty() {
            return;
        }
        self.section("Stops");
        let mut table = Table::new(["INSTANCE", "PHASE", "VERIFIED", "EVIDENCE", "HELD", "TRY", "SAYS"]);
        for instance in instances {
            let status = instance.status.as_ref();
            let result = status.and_then(|status| status.result.as_ref());
            let failure = instance.failure.as_ref().map(describe_failure);
            let says = status.map(|status| describe_end(status).unwrap_or_else(|| describe_progress(status)));
            table.row([
                name::leaf(&instance.instance).into(),
                phase(instance).into(),
                yes_no(instance.verified).into(),
                result.map(|result| words::evidence(result.evidence)).unwrap_or_default().into(),
                result.map(|result| yes_no(result.held)).unwrap_or_default().into(),
                instance.attempt.to_string().into(),
                failure.or(says).unwrap_or_default().into(),
            ]);
        }
        self.table(&table);
    }

    fn starts(&mut self, starts: &[InstanceStart]) {
        if starts.is_empty() {
            return;
        }
        self.section("Starts");
        let mut table = Table::new(["INSTANCE", "PHASE", "READY", "READINESS", "EPOCH", "SAYS"]);
        for start in starts {
            let status = start.status.as_ref();
            let result = status.and_then(|status| status.result.as_ref());
            let failure = start.failure.as_ref().map(describe_failure);
            table.row([
                name::leaf(&start.instance).into(),
                start_phase(start).into(),
                yes_no(start.ready).into(),
                result.map(|result| words::readiness(result.readiness)).unwrap_or_default().into(),
                start.epoch.to_string().into(),
                failure.or_else(|| status.map(|status| status.message.clone())).unwrap_or_default().into(),
            ]);
        }
        self.table(&table);
    }

    /// A policy in effect. What `own` sets itself is marked, where there is such a distinction.
    pub(crate) fn policy(&mut self, effective: &ShutdownPolicy, own: Option<&ShutdownPolicy>) {
        let rows = policy_rows(effective);
        let own = own.map(policy_rows);
        self.section(if own.is_some() { "Policy (* set here, otherwise the scheduler's default)" } else { "Policy" });
        for (label, value) in &rows {
            let is_own = own.as_ref().is_some_and(|own| own.iter().any(|(set, _)| set == label));
            self.plain(label, format!("{value}{}", if is_own { " *" } else { "" }));
        }
    }

    fn times(
        &mut self,
        created: Option<&prost_types::Timestamp>,
        updated: Option<&prost_types::Timestamp>,
        now: SystemTime,
    ) {
        for (label, time) in [("Created", created), ("Changed", updated)] {
            if time.is_some() {
                self.plain(label, format!("{} ({} ago)", text::stamp(time), text::age(time, now)));
            }
        }
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// "a=1, b=2", in order.
pub(crate) fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join(", ")
}

/// The policy in effect: what is set in `own`, else the default.
pub(crate) fn effective(default: &ShutdownPolicy, own: &ShutdownPolicy) -> ShutdownPolicy {
    let retry = match (&default.retry, &own.retry) {
        (Some(default), Some(own)) => Some(RetryPolicy {
            max_attempts: own.max_attempts.or(default.max_attempts),
            initial_backoff: own.initial_backoff.or(default.initial_backoff),
            max_backoff: own.max_backoff.or(default.max_backoff),
            backoff_multiplier: own.backoff_multiplier.or(default.backoff_multiplier),
        }),
        (default, own) => own.or(*default),
    };
    let set = |own: i32, default: i32| if own == 0 { default } else { own };
    ShutdownPolicy {
        grace_period: own.grace_period.or(default.grace_period),
        heartbeat_timeout: own.heartbeat_timeout.or(default.heartbeat_timeout),
        accept_timeout: own.accept_timeout.or(default.accept_timeout),
        kill_timeout: own.kill_timeout.or(default.kill_timeout),
        max_extension: own.max_extension.or(default.max_extension),
        overall_timeout: own.overall_timeout.or(default.overall_timeout),
        settle_period: own.settle_period.or(default.settle_period),
        retry,
        failure_strategy: set(own.failure_strategy, default.failure_strategy),
        allow_unverified: own.allow_unverified.or(default.allow_unverified),
        hold_on_unclean_exit: own.hold_on_unclean_exit.or(default.hold_on_unclean_exit),
        max_parallel_stops: own.max_parallel_stops.or(default.max_parallel_stops),
        parameters: if own.parameters.is_empty() { default.parameters.clone() } else { own.parameters.clone() },
        min_evidence: set(own.min_evidence, default.min_evidence),
        start_timeout: own.start_timeout.or(default.start_timeout),
    }
}

/// What is set, in the order of an operation's life.
fn policy_rows(policy: &ShutdownPolicy) -> Vec<(&'static str, String)> {
    let duration = |value: &Option<prost_types::Duration>| text::duration(value.as_ref()).map(duration::format);
    let word = |raw: i32, word: fn(i32) -> String| (raw != 0).then(|| word(raw));
    let retry = policy.retry.unwrap_or_default();
    let rows = [
        ("Accept", duration(&policy.accept_timeout)),
        ("Heartbeat", duration(&policy.heartbeat_timeout)),
        ("Grace", duration(&policy.grace_period)),
        ("Extension", duration(&policy.max_extension)),
        ("Kill", duration(&policy.kill_timeout)),
        ("Settle", duration(&policy.settle_period)),
        ("Start", duration(&policy.start_timeout)),
        (
            "Overall",
            duration(&policy.overall_timeout).map(|text| if text == "0s" { "no limit".to_owned() } else { text }),
        ),
        ("Attempts", retry.max_attempts.map(|n| n.to_string())),
        ("Backoff", duration(&retry.initial_backoff)),
        ("Backoff, longest", duration(&retry.max_backoff)),
        ("Backoff, factor", retry.backoff_multiplier.map(|factor| factor.to_string())),
        ("On failure", word(policy.failure_strategy, words::failure_strategy)),
        ("Least evidence", word(policy.min_evidence, words::evidence)),
        ("Allow unverified", policy.allow_unverified.map(|value| yes_no(value).to_owned())),
        ("Hold on unclean", policy.hold_on_unclean_exit.map(|value| yes_no(value).to_owned())),
        ("Parallel stops", policy.max_parallel_stops.map(|n| if n == 0 { "all".to_owned() } else { n.to_string() })),
        ("Parameters", (!policy.parameters.is_empty()).then(|| labels(&policy.parameters))),
    ];
    rows.into_iter().filter_map(|(label, value)| value.map(|value| (label, value))).collect()
}

#[cfg(test)]
mod tests;
