//! Checks of what callers send: every violation of a request is found and reported at once, by field path.
//!
//! Owns the limits of the contract ("Limits", "Names" in `types.proto`). It looks at requests only, never at what is
//! stored.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use quiesce_operation::policy::{self, BACKOFF_MIN};
use quiesce_operation::{
    ApplicationId, ClusterId, InstanceId, NameError, OperationId, Placement, Policy, PolicyOverrides,
};
use quiesce_protocol::v1;

use crate::convert::duration_from_wire;
use crate::convert::report::{MESSAGE_MAX, TEXT_MAX};
use crate::endpoint::Endpoint;
use crate::filter::{Filter, Filterable};
use crate::page::PageRequest;
use crate::records::Connect;
use crate::secrets::{CompletionToken, TOKEN_BYTES_MAX};
use crate::status::{Problem, Violation, shown};
use crate::token::{Purpose, ResumeToken, parse_page_token};

/// Longest display name, in bytes.
const DISPLAY_NAME_MAX: usize = 128;
/// Longest request id and start id, in characters.
const REQUEST_ID_MAX: usize = 64;
/// Longest shutdown id, in characters.
const SHUTDOWN_ID_MAX: usize = 128;
/// The last epoch: every language holds it exactly (a double, too), and nobody who makes one up can use up what is left.
/// At a start a millisecond it is reached after 285,000 years.
const EPOCH_MAX: u64 = (1 << 53) - 1;
/// Longest name of a token, in characters.
const TOKEN_ID_MAX: usize = 40;
/// Longest agent id, in bytes.
const AGENT_ID_MAX: usize = 64;
/// Most entries of a map.
const MAP_MAX: usize = 64;
/// Longest key of a map, in bytes.
const MAP_KEY_MAX: usize = 63;
/// Longest value of a map, in bytes.
const MAP_VALUE_MAX: usize = 1024;
/// Longest duration on the wire.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most bytes of violations that are reported. They travel in a header, and the strictest library (grpc-java) takes 8 KiB
/// of headers in all; what it is sent beyond that breaks the call instead of explaining it.
const VIOLATIONS_BYTES_MAX: usize = 5000;
/// What a violation takes beside its texts.
const VIOLATION_OVERHEAD: usize = 8;

/// The violations found so far.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    found: Vec<Violation>,
    bytes: usize,
    /// What is wrong with a field whose errors have a reason of their own; it counts when nothing else is wrong.
    special: Option<Problem>,
}

/// What the values of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// Lines for people and filters.
    Lines,
    /// Whatever the application makes of them, except what no environment variable holds.
    Opaque,
}

impl Violations {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Notes one; the same one once.
    pub(crate) fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        let violation = Violation { field: field.into(), description: description.into() };
        let bytes = violation.field.len() + violation.description.len() + VIOLATION_OVERHEAD;
        if self.bytes + bytes <= VIOLATIONS_BYTES_MAX && !self.found.contains(&violation) {
            self.bytes += bytes;
            self.found.push(violation);
        }
    }

    fn has(&self, field: &str) -> bool {
        self.found.iter().any(|violation| violation.field == field)
    }

    /// Fails with all that were found.
    pub(crate) fn check(self) -> Result<(), Problem> {
        match (&self.found[..], self.special) {
            ([], _) => Ok(()),
            ([_], Some(special)) => Err(special),
            ([..], _) => Err(Problem::InvalidFields(self.found)),
        }
    }

    /// All that were found, a line each.
    pub(crate) fn into_lines(self) -> impl Iterator<Item = String> {
        self.found.into_iter().map(|Violation { field, description }| format!("{field}: {description}"))
    }

    /// The value, or a note of what is wrong with `field`.
    fn specially<T>(&mut self, field: &str, result: Result<T, Problem>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problem) => {
                self.add(field, problem.to_string());
                self.special = Some(problem);
                None
            }
        }
    }

    /// The value, if nothing was found; a missing value goes with a violation.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        self.check()?;
        value.ok_or_else(|| Problem::field("", "must be set"))
    }

    fn parsed<T>(&mut self, field: &str, result: Result<T, NameError>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// `applications/{application}`
    pub(crate) fn application(&mut self, field: &str, name: &str) -> Option<ApplicationId> {
        let Some(id) = name.strip_prefix("applications/") else {
            self.add(field, "must have the form applications/{application}");
            return None;
        };
        self.parsed(field, ApplicationId::parse(id))
    }

    /// `applications/{application}/instances/{instance}`
    pub(crate) fn instance(&mut self, field: &str, name: &str) -> Option<(ApplicationId, InstanceId)> {
        let parts: Vec<&str> = name.split('/').collect();
        let ["applications", application, "instances", instance] = parts[..] else {
            self.add(field, "must have the form applications/{application}/instances/{instance}");
            return None;
        };
        let application = self.parsed(field, ApplicationId::parse(application));
        let instance = self.parsed(field, InstanceId::parse(instance));
        application.zip(instance)
    }

    /// `clusters/{cluster}`
    pub(crate) fn cluster_name(&mut self, field: &str, name: &str) -> Option<ClusterId> {
        let Some(id) = name.strip_prefix("clusters/") else {
            self.add(field, "must have the form clusters/{cluster}");
            return None;
        };
        self.parsed(field, ClusterId::parse(id))
    }

    /// `operations/{operation}`
    pub(crate) fn operation(&mut self, field: &str, name: &str) -> Option<OperationId> {
        let Some(id) = name.strip_prefix("operations/") else {
            self.add(field, "must have the form operations/{operation}");
            return None;
        };
        self.parsed(field, OperationId::parse(id))
    }

    /// A bare `{cluster}`, required.
    pub(crate) fn cluster(&mut self, field: &str, id: &str) -> Option<ClusterId> {
        if id.is_empty() {
            self.add(field, "must be set");
            return None;
        }
        self.parsed(field, ClusterId::parse(id))
    }

    /// A bare `{cluster}`, or nothing.
    pub(crate) fn optional_cluster(&mut self, field: &str, id: &str) -> Option<ClusterId> {
        if id.is_empty() { None } else { self.cluster(field, id) }
    }

    /// `tokens/{token}`; the bare name.
    pub(crate) fn token_name(&mut self, field: &str, name: &str) -> Option<String> {
        let id = name.strip_prefix("tokens/").filter(|id| {
            (1..=TOKEN_ID_MAX).contains(&id.len()) && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        });
        if id.is_none() {
            self.add(field, "must have the form tokens/{token}");
        }
        id.map(str::to_owned)
    }

    fn size(&mut self, field: &str, text: &str, max: usize) {
        if text.len() > max {
            self.add(field, format!("must have at most {max} bytes, has {}", text.len()));
        }
    }

    /// A text of one line with at most `max` bytes: it gets into tables, logs and filters.
    pub(crate) fn line(&mut self, field: &str, text: &str, max: usize) -> String {
        self.size(field, text, max);
        if text.contains(char::is_control) {
            self.add(field, "must hold no control characters");
        }
        text.to_owned()
    }

    /// A display name.
    pub(crate) fn display_name(&mut self, field: &str, text: &str) -> String {
        self.line(field, text, DISPLAY_NAME_MAX)
    }

    /// A reason, which may have several lines.
    pub(crate) fn reason(&mut self, text: &str) -> String {
        self.size("reason", text, MESSAGE_MAX);
        if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')) {
            self.add("reason", "must hold no control characters but line breaks and tabs");
        }
        text.to_owned()
    }

    /// Identity of an agent.
    pub(crate) fn agent_id(&mut self, field: &str, text: &str) -> String {
        self.line(field, text, AGENT_ID_MAX)
    }

    /// A request id, if there is one.
    pub(crate) fn request_id(&mut self, id: &str) -> String {
        if !id.is_empty() {
            self.token("request_id", id, REQUEST_ID_MAX, "._:-");
        }
        id.to_owned()
    }

    /// A start id; required.
    pub(crate) fn start_id(&mut self, field: &str, id: &str) -> String {
        self.token(field, id, REQUEST_ID_MAX, "._:-");
        id.to_owned()
    }

    fn token(&mut self, field: &str, id: &str, max: usize, more: &str) {
        let fits = (1..=max).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
        if !fits {
            self.add(field, format!("must be 1 to {max} characters of A-Z, a-z, 0-9 and {more}"));
        }
    }

    /// An etag: the revision in it, none if it is not one of ours and therefore matches nothing.
    pub(crate) fn etag(&mut self, field: &str, etag: &str) -> String {
        self.line(field, etag, TEXT_MAX)
    }

    /// A filter of `T`, without the fields in `except`.
    pub(crate) fn filter<T: Filterable>(&mut self, text: &str, except: &[&str]) -> Option<Filter> {
        self.specially("filter", Filter::parse::<T>(text, except))
    }

    /// Size and token of a page.
    pub(crate) fn page(&mut self, size: i32, token: &str, purpose: Purpose) -> Option<PageRequest> {
        let size = match usize::try_from(size) {
            Ok(size) => Some(size),
            Err(_) => {
                self.add("page_size", "must not be negative");
                None
            }
        };
        let last = self.specially("page_token", parse_page_token(token, purpose));
        Some(PageRequest::new(size?, last?, purpose))
    }

    /// Where a watch goes on, if it does not begin.
    pub(crate) fn resume_token(&mut self, token: &str, purpose: Purpose) -> Option<ResumeToken> {
        self.specially("resume_token", ResumeToken::parse(token, purpose)).flatten()
    }

    /// Labels.
    pub(crate) fn labels(&mut self, field: &str, map: &HashMap<String, String>) -> BTreeMap<String, String> {
        self.map(field, map, Values::Lines)
    }

    /// Parameters for the application.
    pub(crate) fn parameters(&mut self, field: &str, map: &HashMap<String, String>) -> BTreeMap<String, String> {
        self.map(field, map, Values::Opaque)
    }

    fn map(&mut self, field: &str, map: &HashMap<String, String>, values: Values) -> BTreeMap<String, String> {
        if map.len() > MAP_MAX {
            self.add(field, format!("must have at most {MAP_MAX} entries, has {}", map.len()));
            return BTreeMap::new();
        }
        let sorted: BTreeMap<String, String> = map.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in &sorted {
            if key.is_empty() || key.len() > MAP_KEY_MAX || key.contains(char::is_control) {
                let rule = format!("must have 1 to {MAP_KEY_MAX} bytes and no control characters");
                self.add(field, format!("key `{}` {rule}", shown(key)));
                continue;
            }
            let path = format!("{field}.{key}");
            match values {
                Values::Lines => {
                    self.line(&path, value, MAP_VALUE_MAX);
                }
                Values::Opaque => {
                    self.size(&path, value, MAP_VALUE_MAX);
                    if value.contains('\0') {
                        self.add(path, "must hold no NUL");
                    }
                }
            }
        }
        sorted
    }

    /// A duration, if set: not negative, at most seven days.
    pub(crate) fn duration(&mut self, field: &str, value: Option<&prost_types::Duration>) -> Option<Duration> {
        match duration_from_wire(value?) {
            Some(duration) if duration <= DURATION_MAX => Some(duration),
            Some(_) => {
                self.add(field, "must be at most 7 days");
                None
            }
            None => {
                self.add(field, "must be a duration that is not negative, with less than a second of nanoseconds");
                None
            }
        }
    }

    /// A count, if set.
    pub(crate) fn count(&mut self, field: &str, value: Option<i32>) -> Option<u32> {
        let count = u32::try_from(value?);
        count.map_err(|_| self.add(field, "must not be negative")).ok()
    }

    /// An epoch.
    pub(crate) fn epoch(&mut self, field: &str, epoch: i64) -> u64 {
        let known = u64::try_from(epoch).ok().filter(|epoch| *epoch <= EPOCH_MAX);
        if known.is_none() {
            self.add(field, format!("must be between 0 and {EPOCH_MAX}"));
        }
        known.unwrap_or(0)
    }

    /// The id of a shutdown; required.
    pub(crate) fn shutdown_id(&mut self, field: &str, id: &str) {
        self.token(field, id, SHUTDOWN_ID_MAX, "._-");
    }

    /// A completion token; required. Whether it is the right one is not a question of form.
    pub(crate) fn completion_token(&mut self, field: &str, token: &str) -> Option<CompletionToken> {
        let found = CompletionToken::parse(token);
        if found.is_none() {
            self.add(field, format!("must have 1 to {TOKEN_BYTES_MAX} bytes"));
        }
        found
    }

    /// Notes an enum value nobody knows.
    pub(crate) fn unknown_enum(&mut self, field: &str, value: i32) {
        self.add(field, format!("{value} is not a known value"));
    }

    /// A placement; unset is external.
    pub(crate) fn placement(&mut self, placement: Option<&v1::Placement>) -> Placement {
        use v1::placement::Driver;
        match placement.and_then(|placement| placement.driver.as_ref()) {
            Some(Driver::Agents(v1::AgentsPlacement {})) => Placement::Agents,
            Some(Driver::External(external)) => {
                Placement::External { require_confirmation: external.require_confirmation }
            }
            None => Placement::External { require_confirmation: false },
        }
    }

    /// How a hook is reached; across a network in the clear only if `in_clear`.
    pub(crate) fn connect(&mut self, field: &str, instance: &v1::Instance, in_clear: bool) -> Option<Connect> {
        use v1::instance::ConnectMode;
        let mode = ConnectMode::try_from(instance.connect_mode);
        if mode.is_err() {
            self.unknown_enum(&format!("{field}.connect_mode"), instance.connect_mode);
        }
        if mode == Ok(ConnectMode::DialIn) {
            return Some(Connect::DialIn);
        }
        let endpoint = &instance.endpoint;
        let found = Endpoint::parse(endpoint).filter(|_| endpoint.len() <= TEXT_MAX);
        // How an unknown mode would be reached nobody knows; what is given has to be an address all the same.
        let rule = match found {
            None if mode.is_err() && endpoint.is_empty() => None,
            None => Some("must be https://host:port, host:port or unix:/absolute/path (CONNECT_MODE_LISTEN)"),
            Some(found) if !in_clear && !found.is_private() => Some(
                "is in the clear, and others on the network could read the hook's token: serve the hook in TLS and \
                 register https://host:port (quiesce agent --cert, --key), let the agent dial in, or start the scheduler \
                 with --insecure",
            ),
            Some(_) => None,
        };
        if let Some(rule) = rule {
            self.add(format!("{field}.endpoint"), rule);
        }
        (found.is_some() && rule.is_none() && mode.is_ok()).then(|| Connect::Listen { endpoint: endpoint.clone() })
    }

    /// The bounds of what a request sets of a policy, so that they are reported beside everything else that is wrong
    /// with it. How the backoffs fit to inherited ones shows in the merged policy only.
    pub(crate) fn overrides(&mut self, field: &str, given: &PolicyOverrides) {
        let mut alone = given.clone();
        if given.initial_backoff.is_none() || given.max_backoff.is_none() {
            alone.initial_backoff.get_or_insert(BACKOFF_MIN);
            alone.max_backoff.get_or_insert(policy::DURATION_MAX);
        }
        self.policy(field, &Policy::built_in().with(&alone));
    }

    /// The bounds of a merged policy; violations are reported under `field`, one for each of its fields.
    pub(crate) fn policy(&mut self, field: &str, policy: &Policy) {
        for (path, description) in policy.violations() {
            let path = format!("{field}.{path}");
            if !self.has(&path) {
                self.add(path, description);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_is_reported_with_its_field() {
        let mut bad = Violations::new();
        bad.application("application.name", "shop");
        bad.cluster("application.cluster", "a b");
        bad.display_name("application.display_name", &"x".repeat(200));
        bad.duration("policy.grace_period", Some(&prost_types::Duration { seconds: -1, nanos: 0 }));
        bad.labels("labels", &HashMap::from([(String::new(), String::new())]));
        let Err(Problem::InvalidFields(found)) = bad.check() else { panic!("violations expected") };
        let fields: Vec<&str> = found.iter().map(|violation| violation.field.as_str()).collect();
        let wanted =
            ["application.name", "application.cluster", "application.display_name", "policy.grace_period", "labels"];
        assert_eq!(fields, wanted);
    }
}
