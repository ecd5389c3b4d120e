//! Requests, checked: what the engine is told to do.
//!
//! Owns the limits of `types.proto` and finds every violation at once. Unknown enum values are read the careful way;
//! unknown fields were ignored by the decoder already.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use quiesce_protocol::v1;
use quiesce_runtime::trace_context::TraceContext;

use super::refusal::{Refusal, Violation};
use super::wire;
use crate::application::{HoldKind, Permission};
use crate::identity::{is_cluster, is_instance_name, is_operation_name};
use crate::token::Token;

/// `heartbeat_interval` when the request has none.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// Reports are never asked for more often than this, so that no request can keep the agent busy.
const MIN_HEARTBEAT: Duration = Duration::from_millis(100);

/// Longest duration on the wire.
pub(super) const DURATION_MAX: Duration = Duration::from_hours(7 * 24);

/// The last epoch of the contract.
const EPOCH_MAX: i64 = (1 << 53) - 1;

const SHUTDOWN_ID_MAX: usize = 128;
const TOKEN_MAX: usize = 512;
const TEXT_MAX: usize = 4096;
const MAP_MAX: usize = 64;
const KEY_MAX: usize = 63;
const VALUE_MAX: usize = 1024;

/// Stop the application.
#[derive(Debug, Clone)]
pub(crate) struct ShutdownOrder {
    pub(crate) shutdown_id: String,
    pub(crate) operation: String,
    pub(crate) attempt: i32,
    pub(crate) kind: HoldKind,
    pub(crate) grace: Option<Duration>,
    pub(crate) heartbeat: Duration,
    pub(crate) settle: Option<Duration>,
    pub(crate) token: Option<Token>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) reason: String,
    /// 0: no check.
    pub(crate) epoch: u64,
    /// Of the headers, not of the message.
    pub(crate) trace: Option<TraceContext>,
}

/// Start the application.
#[derive(Debug, Clone)]
pub(crate) struct StartCommand {
    pub(crate) permission: Permission,
    pub(crate) operation: String,
    pub(crate) heartbeat: Duration,
    pub(crate) reason: String,
    /// Whether the application is held when it does not come up: ordered by the scheduler, yes; at the start of the
    /// agent the agent ends with it.
    pub(crate) hold_on_failure: bool,
    /// Of the headers, not of the message.
    pub(crate) trace: Option<TraceContext>,
}

/// What becomes of a stopped instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It stays held and stands by.
    Standby,
    /// It was deleted for good.
    Retired,
}

/// Collects what is wrong with a request.
struct Checks(Vec<Violation>);

impl Checks {
    fn require(&mut self, field: &str, holds: bool, description: impl Into<String>) {
        if !holds {
            self.0.push(Violation { field: field.to_owned(), description: description.into() });
        }
    }

    fn instance(&mut self, name: &str) {
        let fits = name.is_empty() || is_instance_name(name);
        self.require("instance", fits, "must be applications/{application}/instances/{instance}");
    }

    fn operation(&mut self, name: &str) {
        self.require("operation", name.is_empty() || is_operation_name(name), "must be operations/{operation}");
    }

    fn reason(&mut self, text: &str) {
        self.require("reason", text.len() <= TEXT_MAX, format!("must have at most {TEXT_MAX} bytes"));
        let plain = !text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t'));
        self.require("reason", plain, "must hold no control characters but line breaks and tabs");
    }

    fn shutdown_id(&mut self, id: &str) {
        let allowed = format!("must be 1 to {SHUTDOWN_ID_MAX} characters of A-Z, a-z, 0-9 and ._-");
        self.require("shutdown_id", is_shutdown_id(id), allowed);
    }

    fn token(&mut self, token: &str) {
        let allowed = format!("must have at most {TOKEN_MAX} bytes");
        self.require("completion_token", token.len() <= TOKEN_MAX, allowed);
    }

    fn cluster(&mut self, field: &str, name: &str) {
        self.require(field, name.is_empty() || is_cluster(name), "must be the name of a cluster");
    }

    fn parameters(&mut self, map: HashMap<String, String>) -> BTreeMap<String, String> {
        self.require("parameters", map.len() <= MAP_MAX, format!("must have at most {MAP_MAX} entries"));
        let fits = map.iter().all(|(key, value)| (1..=KEY_MAX).contains(&key.len()) && value.len() <= VALUE_MAX);
        let limits = format!("must have keys of 1 to {KEY_MAX} and values of at most {VALUE_MAX} bytes");
        self.require("parameters", fits, limits);
        let plain = map.iter().all(|(key, value)| !key.contains(char::is_control) && !value.contains('\0'));
        self.require("parameters", plain, "must have no control characters in keys, and no NUL in values");
        map.into_iter().collect()
    }

    fn epoch(&mut self, epoch: i64, minimum: i64) -> u64 {
        let fits = (minimum..=EPOCH_MAX).contains(&epoch);
        self.require("epoch", fits, format!("must be between {minimum} and {EPOCH_MAX}"));
        u64::try_from(epoch).unwrap_or(0)
    }

    fn duration(&mut self, field: &str, given: Option<prost_types::Duration>) -> Option<Duration> {
        let duration = wire::duration_from_wire(&given?).filter(|duration| *duration <= DURATION_MAX);
        self.require(field, duration.is_some(), "must be between 0 and 7 days");
        duration
    }

    fn heartbeat(&mut self, wire: Option<prost_types::Duration>) -> Duration {
        self.duration("heartbeat_interval", wire)
            .filter(|interval| !interval.is_zero())
            .unwrap_or(DEFAULT_HEARTBEAT)
            .max(MIN_HEARTBEAT)
    }

    fn done<T>(self, value: T) -> Result<T, Refusal> {
        if self.0.is_empty() { Ok(value) } else { Err(Refusal::Invalid(self.0)) }
    }
}

/// Whether `id` may name a shutdown.
pub(crate) fn is_shutdown_id(id: &str) -> bool {
    (1..=SHUTDOWN_ID_MAX).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// Checks a request of Shutdown.
pub(crate) fn shutdown(request: v1::ShutdownRequest) -> Result<ShutdownOrder, Refusal> {
    let mut checks = Checks(Vec::new());
    checks.shutdown_id(&request.shutdown_id);
    checks.operation(&request.operation);
    checks.instance(&request.instance);
    checks.require("attempt", request.attempt >= 0, "must not be negative");
    checks.reason(&request.reason);
    checks.cluster("target_cluster", &request.target_cluster);
    checks.token(&request.completion_token);
    checks.duration("max_extension", request.max_extension);
    // Unset, or a kind this program does not know: the graver one, as the contract says.
    let kind = match v1::OperationKind::try_from(request.kind) {
        Ok(v1::OperationKind::Migrate) => HoldKind::Migrate,
        Ok(v1::OperationKind::Delete | v1::OperationKind::Unspecified) | Err(_) => HoldKind::Delete,
    };
    let order = ShutdownOrder {
        grace: checks.duration("grace_period", request.grace_period),
        heartbeat: checks.heartbeat(request.heartbeat_interval),
        settle: checks.duration("settle_period", request.settle_period).filter(|settle| !settle.is_zero()),
        parameters: checks.parameters(request.parameters),
        epoch: checks.epoch(request.epoch, 0),
        shutdown_id: request.shutdown_id,
        operation: request.operation,
        attempt: request.attempt,
        kind,
        token: Token::new(request.completion_token),
        reason: request.reason,
        trace: None,
    };
    checks.done(order)
}

/// Checks a request of StartApplication.
pub(crate) fn start(request: v1::StartApplicationRequest) -> Result<StartCommand, Refusal> {
    let mut checks = Checks(Vec::new());
    checks.instance(&request.instance);
    checks.operation(&request.operation);
    checks.cluster("source_cluster", &request.source_cluster);
    checks.reason(&request.reason);
    checks.duration("start_timeout", request.start_timeout);
    checks.parameters(request.parameters);
    let command = StartCommand {
        permission: Permission::New(checks.epoch(request.epoch, 1)),
        operation: request.operation,
        heartbeat: checks.heartbeat(request.heartbeat_interval),
        reason: request.reason,
        hold_on_failure: true,
        trace: None,
    };
    checks.done(command)
}

/// Checks a request of ConcludeShutdown.
pub(crate) fn conclude(request: &v1::ConcludeShutdownRequest) -> Result<(Disposition, u64), Refusal> {
    use v1::conclude_shutdown_request::Disposition as Wire;
    let mut checks = Checks(Vec::new());
    checks.instance(&request.instance);
    checks.operation(&request.operation);
    let epoch = checks.epoch(request.epoch, 0);
    let disposition = match Wire::try_from(request.disposition) {
        Ok(Wire::Retired) => Disposition::Retired,
        Ok(Wire::Standby | Wire::Unspecified) | Err(_) => Disposition::Standby,
    };
    checks.done((disposition, epoch))
}

/// Checks a request of UpdateDeadline, and reads the new total.
pub(crate) fn grace(request: &v1::UpdateDeadlineRequest) -> Result<Option<Duration>, Refusal> {
    let mut checks = Checks(Vec::new());
    checks.shutdown_id(&request.shutdown_id);
    let grace = checks.duration("grace_period", request.grace_period);
    checks.done(grace)
}

/// Checks a request of CheckShutdown.
pub(crate) fn check(request: v1::CheckShutdownRequest) -> Result<(), Refusal> {
    let mut checks = Checks(Vec::new());
    checks.instance(&request.instance);
    checks.parameters(request.parameters);
    checks.done(())
}

/// Checks a request of GetShutdown; an empty id asks for the running or last one.
pub(crate) fn get(request: &v1::GetShutdownRequest) -> Result<(), Refusal> {
    let mut checks = Checks(Vec::new());
    if !request.shutdown_id.is_empty() {
        checks.shutdown_id(&request.shutdown_id);
    }
    checks.done(())
}

/// Checks a request of CancelShutdown.
pub(crate) fn cancel(request: &v1::CancelShutdownRequest) -> Result<(), Refusal> {
    let mut checks = Checks(Vec::new());
    checks.shutdown_id(&request.shutdown_id);
    checks.reason(&request.reason);
    checks.done(())
}

/// Checks a request of KillApplication.
pub(crate) fn kill(request: &v1::KillApplicationRequest) -> Result<(), Refusal> {
    let mut checks = Checks(Vec::new());
    checks.shutdown_id(&request.shutdown_id);
    checks.token(&request.completion_token);
    checks.reason(&request.reason);
    checks.done(())
}

/// The default heartbeat, for starts nobody asked to hear about.
pub(crate) fn default_heartbeat() -> Duration {
    DEFAULT_HEARTBEAT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_request_is_enough() {
        let order = shutdown(v1::ShutdownRequest { shutdown_id: "try-1".to_owned(), ..Default::default() }).unwrap();
        assert_eq!((order.heartbeat, order.grace, order.kind), (DEFAULT_HEARTBEAT, None, HoldKind::Delete));
    }

    #[test]
    fn every_bad_field_is_named() {
        let request = v1::ShutdownRequest {
            shutdown_id: "a b".to_owned(),
            operation: "op-1".to_owned(),
            instance: "shop-0".to_owned(),
            attempt: -1,
            epoch: -1,
            grace_period: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            completion_token: "x".repeat(513),
            parameters: HashMap::from([("k".repeat(64), String::new())]),
            reason: "x".repeat(4097),
            ..Default::default()
        };
        let Refusal::Invalid(violations) = shutdown(request).unwrap_err() else { panic!("not invalid") };
        let mut fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "attempt",
                "completion_token",
                "epoch",
                "grace_period",
                "instance",
                "operation",
                "parameters",
                "reason",
                "shutdown_id"
            ]
        );
    }

    #[test]
    fn durations_follow_the_rules_of_their_message() {
        for (seconds, nanos) in [(0, -1), (2, -1), (2, 1_000_000_000), (i64::MIN, -999_999_999)] {
            let grace_period = Some(prost_types::Duration { seconds, nanos });
            let request = v1::ShutdownRequest { shutdown_id: "a".to_owned(), grace_period, ..Default::default() };
            assert!(shutdown(request).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn no_request_can_ask_for_a_busy_loop() {
        let heartbeat_interval = Some(prost_types::Duration { seconds: 0, nanos: 1 });
        let request = v1::ShutdownRequest { shutdown_id: "a".to_owned(), heartbeat_interval, ..Default::default() };
        assert_eq!(shutdown(request).unwrap().heartbeat, MIN_HEARTBEAT);
    }
}
