//! Applications, instances and clusters for readers, and how they answer filters.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use quiesce_operation::Operation;
use quiesce_operation::member::Run;
use quiesce_operation::report::AppState;
use quiesce_operation::start::StartRun;
use quiesce_protocol::v1;
use quiesce_runtime::clock::Clock;
use quiesce_store::Revision;
use v1::application::State as WireApplicationState;
use v1::instance::{ConnectMode, State as WireInstanceState};

use super::operation::placement_to_wire;
use super::policy::overrides_to_wire;
use super::report::hook_info_to_wire;
use super::{application_name, instance_name, long, operation_name, timestamp};
use crate::filter::{FieldType, Filterable, Value};
use crate::hooks::{HookState, Presence};
use crate::records::{ApplicationRecord, ClusterRecord, Connect, InstanceRecord, Stored};
use crate::registry::{ApplicationView, ClusterView, InstanceView};

/// The etag of a record: its revision, opaque to others.
pub(crate) fn etag(revision: Revision) -> String {
    format!("{:x}", revision.as_u64())
}

/// An application with what follows from other records.
pub(crate) fn application_to_wire(clock: &dyn Clock, view: &ApplicationView) -> v1::Application {
    let Stored { revision, record } = &view.application;
    let ApplicationRecord { name, display_name, cluster, policy, labels, created, updated, .. } = record;
    let policy = overrides_to_wire(policy);
    v1::Application {
        name: application_name(name),
        display_name: display_name.clone(),
        cluster: cluster.to_string(),
        policy: (policy != v1::ShutdownPolicy::default()).then_some(policy),
        expected_instances: record.expected_instances.map(super::int),
        labels: labels_to_wire(labels),
        state: application_state(view).into(),
        active_operation: record.active_operation.as_ref().map(operation_name).unwrap_or_default(),
        instance_count: count(view.instances.len()),
        ready_instance_count: count(view.instances_in(v1::instance::State::Ready)),
        standby_instance_count: count(view.instances_in(v1::instance::State::Held)),
        etag: etag(*revision),
        create_time: Some(timestamp(clock, *created)),
        update_time: Some(timestamp(clock, *updated)),
        placement: Some(placement_to_wire(record.placement)),
        epoch: long(record.epoch),
        restore_time: record.restored.map(|moment| timestamp(clock, moment)),
    }
}

fn application_state(view: &ApplicationView) -> WireApplicationState {
    let record = &view.application.record;
    match (&record.active_operation, &view.operation) {
        (Some(_), Some(operation)) if operation.state() == quiesce_operation::StateName::Degraded => {
            WireApplicationState::Degraded
        }
        // An operation that cannot be read holds the application all the same: do not touch.
        (Some(_), _) => WireApplicationState::Stopping,
        (None, _) => {
            let arrived = view.instances.iter().any(|one| one.instance.record.cluster == record.cluster);
            if record.moved_by.is_some() && !arrived {
                WireApplicationState::Stopped
            } else {
                WireApplicationState::Active
            }
        }
    }
}

/// An instance with what its hook says.
pub(crate) fn instance_to_wire(clock: &dyn Clock, view: &InstanceView) -> v1::Instance {
    let InstanceRecord { application, instance, connect, cluster, stop_order, labels, agent_id, epoch, .. } =
        &view.instance.record;
    let (mode, endpoint) = match connect {
        Connect::Listen { endpoint } => (ConnectMode::Listen, endpoint.clone()),
        Connect::DialIn => (ConnectMode::DialIn, String::new()),
    };
    v1::Instance {
        name: instance_name(application, instance),
        connect_mode: mode.into(),
        endpoint,
        cluster: cluster.to_string(),
        stop_order: *stop_order,
        labels: labels_to_wire(labels),
        state: view.state.into(),
        hook: view.presence.info.as_ref().map(hook_info_to_wire),
        last_seen_time: view.presence.last_seen.map(|moment| timestamp(clock, moment)),
        create_time: Some(timestamp(clock, view.instance.record.created)),
        update_time: Some(timestamp(clock, view.instance.record.updated)),
        epoch: long(*epoch),
        agent_id: agent_id.clone(),
        unreachable_reason: view.presence.trouble.clone(),
    }
}

/// The state of an instance: what the open operation knows of it, else what its hook says.
pub(crate) fn instance_state(
    record: &InstanceRecord,
    presence: &Presence,
    operation: Option<&Operation>,
) -> WireInstanceState {
    if let Some(operation) = operation {
        let start = operation.starts().iter().rfind(|start| start.instance == record.instance);
        match start.map(|start| &start.run) {
            Some(StartRun::Ordered { .. }) => return WireInstanceState::Starting,
            Some(StartRun::Ready) => return hook_state(presence),
            Some(StartRun::Waiting | StartRun::Failed) | None => {}
        }
        match operation.member(&record.instance).map(|member| &member.run) {
            Some(Run::Calling { .. } | Run::Running { .. }) => return WireInstanceState::Stopping,
            Some(Run::Stopped) => return WireInstanceState::Stopped,
            Some(Run::Waiting | Run::Unverified | Run::Failed) | None => {}
        }
    }
    hook_state(presence)
}

fn hook_state(presence: &Presence) -> WireInstanceState {
    let ready = match presence.state {
        HookState::Unknown | HookState::Unreachable => return WireInstanceState::Unreachable,
        HookState::Ready => WireInstanceState::Ready,
        HookState::NotReady => WireInstanceState::NotReady,
    };
    match presence.info.as_ref().map(|info| info.app_state) {
        Some(AppState::Held) => WireInstanceState::Held,
        Some(AppState::Starting) => WireInstanceState::Starting,
        Some(AppState::Stopping) => WireInstanceState::Stopping,
        Some(AppState::Stopped) => WireInstanceState::Stopped,
        Some(AppState::Running | AppState::Unspecified) | None => ready,
    }
}

/// A cluster with its counts.
pub(crate) fn cluster_to_wire(clock: &dyn Clock, view: &ClusterView) -> v1::Cluster {
    let Stored { revision, record } = &view.cluster;
    let ClusterRecord { name, display_name, labels, created, updated } = record;
    v1::Cluster {
        name: format!("clusters/{name}"),
        display_name: display_name.clone(),
        labels: labels_to_wire(labels),
        application_count: count(view.applications),
        instance_count: count(view.instances),
        etag: etag(*revision),
        create_time: Some(timestamp(clock, *created)),
        update_time: Some(timestamp(clock, *updated)),
    }
}

fn labels_to_wire(labels: &BTreeMap<String, String>) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn time(timestamp: Option<prost_types::Timestamp>) -> Value<'static> {
    Value::Time(timestamp.and_then(|timestamp| SystemTime::try_from(timestamp).ok()))
}

impl Filterable for v1::Application {
    const FIELDS: &'static [(&'static str, FieldType)] = &[
        ("name", FieldType::Text),
        ("cluster", FieldType::Text),
        ("placement", FieldType::Enum("", |word| ["AGENTS", "EXTERNAL"].contains(&word))),
        ("state", FieldType::Enum("STATE_", |word| WireApplicationState::from_str_name(word).is_some())),
        ("create_time", FieldType::Time),
    ];

    fn value(&self, field: &str) -> Value<'_> {
        use v1::placement::Driver;
        match field {
            "name" => Value::Text(&self.name),
            "cluster" => Value::Text(&self.cluster),
            "placement" => match self.placement.as_ref().and_then(|placement| placement.driver.as_ref()) {
                Some(Driver::Agents(_)) => Value::Text("AGENTS"),
                Some(Driver::External(_)) | None => Value::Text("EXTERNAL"),
            },
            "state" => Value::Text(self.state().as_str_name()),
            _ => time(self.create_time),
        }
    }

    fn labels(&self) -> &HashMap<String, String> {
        &self.labels
    }
}

impl Filterable for v1::Instance {
    const FIELDS: &'static [(&'static str, FieldType)] = &[
        ("name", FieldType::Text),
        ("cluster", FieldType::Text),
        ("state", FieldType::Enum("STATE_", |word| WireInstanceState::from_str_name(word).is_some())),
        ("connect_mode", FieldType::Enum("CONNECT_MODE_", |word| ConnectMode::from_str_name(word).is_some())),
    ];

    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => Value::Text(&self.name),
            "cluster" => Value::Text(&self.cluster),
            "state" => Value::Text(self.state().as_str_name()),
            _ => Value::Text(self.connect_mode().as_str_name()),
        }
    }

    fn labels(&self) -> &HashMap<String, String> {
        &self.labels
    }
}

impl Filterable for v1::Cluster {
    const FIELDS: &'static [(&'static str, FieldType)] = &[("name", FieldType::Text), ("create_time", FieldType::Time)];

    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => Value::Text(&self.name),
            _ => time(self.create_time),
        }
    }

    fn labels(&self) -> &HashMap<String, String> {
        &self.labels
    }
}

impl Filterable for v1::Operation {
    const FIELDS: &'static [(&'static str, FieldType)] = &[
        ("name", FieldType::Text),
        ("application", FieldType::Text),
        ("kind", FieldType::Enum("OPERATION_KIND_", |word| v1::OperationKind::from_str_name(word).is_some())),
        ("state", FieldType::Enum("STATE_", |word| v1::operation::State::from_str_name(word).is_some())),
        ("done", FieldType::Bool),
        ("source_cluster", FieldType::Text),
        ("target_cluster", FieldType::Text),
        ("requester", FieldType::Text),
        ("create_time", FieldType::Time),
        ("end_time", FieldType::Time),
    ];

    fn value(&self, field: &str) -> Value<'_> {
        match field {
            "name" => Value::Text(&self.name),
            "application" => Value::Text(&self.application),
            "kind" => Value::Text(self.kind().as_str_name()),
            "state" => Value::Text(self.state().as_str_name()),
            "done" => Value::Bool(self.done),
            "source_cluster" => Value::Text(&self.source_cluster),
            "target_cluster" => Value::Text(&self.target_cluster),
            "requester" => Value::Text(&self.requester),
            "create_time" => time(self.create_time),
            _ => time(self.end_time),
        }
    }

    fn labels(&self) -> &HashMap<String, String> {
        &self.labels
    }
}
