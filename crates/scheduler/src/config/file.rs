//! The TOML file: every key it may have. Durations are texts such as `"90s"`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::{Named, NamedRole};
use quiesce_operation::report::Evidence;
use quiesce_operation::{ApplicationId, FailureStrategy, PolicyOverrides};
use quiesce_runtime::duration;
use serde::{Deserialize, Serialize};

/// Settings as they stand in a file, or come from flags; what is unset comes from elsewhere.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Where callers and agents come in.
    pub(super) listen: Option<String>,
    /// Where operators look, or `off`.
    pub(super) admin_listen: Option<String>,
    /// Where the state is kept.
    pub(super) data_dir: Option<PathBuf>,
    /// `embedded`, `memory` or `etcd`.
    pub(super) store: Option<String>,
    /// For `etcd`.
    pub(super) etcd_endpoints: Option<Vec<String>>,
    /// Where agents dial in; empty: where they call.
    pub(super) attach_endpoint: Option<String>,
    /// Listen on other addresses than loopback without TLS.
    pub(super) insecure: Option<bool>,
    /// Files for TLS.
    pub(super) tls: Tls,
    /// For browsers.
    pub(super) web: Web,
    /// What to log, and how.
    pub(super) log: Log,
    /// Who may do what.
    pub(super) access: Access,
    /// What is recorded of calls.
    pub(super) audit: Audit,
    /// What applications inherit.
    pub(super) policy: Policy,
}

/// What is recorded of calls.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    /// A file, `-` for the standard output, or `off`.
    pub(super) to: Option<String>,
}

/// Who may do what.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Access {
    /// `open` or `enforced`.
    pub(super) mode: Option<String>,
    /// Whose certificate is whose.
    pub(super) principals: Vec<Principal>,
}

/// Somebody who is known by a name in a certificate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Principal {
    /// A subject alternative name; `*` at its end stands for anything.
    name: String,
    /// Some of `viewer`, `operator`, `admin`, the highest of which counts; or `agent` alone.
    roles: Vec<String>,
    /// The only applications it has to do with, by their bare names; empty: all.
    applications: Vec<String>,
}

impl Principal {
    /// The same, checked.
    pub(super) fn named(&self) -> Result<Named, String> {
        if self.name.trim_end_matches('*').is_empty() {
            return Err("name must be set, and be more than *".to_owned());
        }
        let mut found: Option<NamedRole> = None;
        for role in &self.roles {
            let role = match role.as_str() {
                "viewer" => NamedRole::Viewer,
                "operator" => NamedRole::Operator,
                "admin" => NamedRole::Admin,
                "agent" => NamedRole::Agent,
                other => return Err(format!("role {other:?} is not known; use viewer, operator, admin or agent")),
            };
            if self.roles.len() > 1 && role == NamedRole::Agent {
                return Err("role agent goes with no other: give the agent a name of its own".to_owned());
            }
            let rank = |role: NamedRole| [NamedRole::Viewer, NamedRole::Operator].iter().position(|one| *one == role);
            found = match found {
                // What has no rank here is the highest.
                Some(before) if rank(before).unwrap_or(usize::MAX) >= rank(role).unwrap_or(usize::MAX) => Some(before),
                Some(_) | None => Some(role),
            };
        }
        let Some(role) = found else { return Err("roles must name one at least".to_owned()) };
        if role == NamedRole::Agent && self.applications.is_empty() {
            return Err("an agent needs the applications it may join".to_owned());
        }
        let applications = self
            .applications
            .iter()
            .map(|name| ApplicationId::parse(name).map_err(|error| format!("applications: {name:?} {error}")));
        Ok(Named { name: self.name.clone(), role, applications: applications.collect::<Result<_, _>>()? })
    }
}

/// PEM files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    /// The scheduler's certificate, with those between it and the CA.
    pub(super) certificate: Option<PathBuf>,
    /// Its key.
    pub(super) key: Option<PathBuf>,
    /// Who signs certificates of clients.
    pub(super) client_ca: Option<PathBuf>,
    /// Who signs certificates of hooks that listen; unset: as `client_ca`, else those the system trusts.
    pub(super) hook_ca: Option<PathBuf>,
}

/// For browsers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Web {
    /// Pages that may call.
    pub(super) origins: Option<Vec<String>>,
    /// Show on a page of the admin address what goes on.
    pub(super) page: Option<bool>,
}

/// The log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// Directives such as `info,quiesce_scheduler=debug`.
    pub(super) filter: Option<String>,
    /// `auto`, `text` or `json`.
    pub(super) format: Option<String>,
}

/// The default policy, with the keys of the contract's `ShutdownPolicy`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the keys are described in the contract")]
pub(super) struct Policy {
    pub(super) grace_period: Option<Span>,
    pub(super) heartbeat_timeout: Option<Span>,
    pub(super) accept_timeout: Option<Span>,
    pub(super) kill_timeout: Option<Span>,
    pub(super) max_extension: Option<Span>,
    pub(super) overall_timeout: Option<Span>,
    pub(super) settle_period: Option<Span>,
    pub(super) start_timeout: Option<Span>,
    pub(super) failure_strategy: Option<Strategy>,
    pub(super) allow_unverified: Option<bool>,
    pub(super) hold_on_unclean_exit: Option<bool>,
    pub(super) max_parallel_stops: Option<u32>,
    pub(super) min_evidence: Option<Proof>,
    pub(super) retry: Retry,
    pub(super) parameters: BTreeMap<String, String>,
}

/// Retries of whole attempts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    max_attempts: Option<u32>,
    initial_backoff: Option<Span>,
    max_backoff: Option<Span>,
    backoff_multiplier: Option<f64>,
}

/// A duration as people write it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = duration::ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        duration::parse(&text).map(Self)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        duration::format(span.0)
    }
}

/// What to do when every attempt has failed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Strategy {
    GiveUp,
    Force,
}

/// How an end is known.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Proof {
    ProcessGone,
    Manager,
    ExitObserved,
    ChildReaped,
    GroupEmpty,
}

impl File {
    /// The set values of `self`, and those of `lower` where `self` has none.
    pub(super) fn or(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            admin_listen: self.admin_listen.or(lower.admin_listen),
            data_dir: self.data_dir.or(lower.data_dir),
            store: self.store.or(lower.store),
            etcd_endpoints: self.etcd_endpoints.or(lower.etcd_endpoints),
            attach_endpoint: self.attach_endpoint.or(lower.attach_endpoint),
            insecure: self.insecure.or(lower.insecure),
            tls: Tls {
                certificate: self.tls.certificate.or(lower.tls.certificate),
                key: self.tls.key.or(lower.tls.key),
                client_ca: self.tls.client_ca.or(lower.tls.client_ca),
                hook_ca: self.tls.hook_ca.or(lower.tls.hook_ca),
            },
            web: Web { origins: self.web.origins.or(lower.web.origins), page: self.web.page.or(lower.web.page) },
            log: Log { filter: self.log.filter.or(lower.log.filter), format: self.log.format.or(lower.log.format) },
            audit: Audit { to: self.audit.to.or(lower.audit.to) },
            access: Access {
                mode: self.access.mode.or(lower.access.mode),
                principals: if self.access.principals.is_empty() {
                    lower.access.principals
                } else {
                    self.access.principals
                },
            },
            policy: self.policy.or(lower.policy),
        }
    }
}

impl Policy {
    /// A policy in full.
    pub(super) fn of(policy: &quiesce_operation::Policy) -> Self {
        let span = |duration| Some(Span(duration));
        Self {
            grace_period: span(policy.grace_period),
            heartbeat_timeout: span(policy.heartbeat_timeout),
            accept_timeout: span(policy.accept_timeout),
            kill_timeout: span(policy.kill_timeout),
            max_extension: span(policy.max_extension),
            overall_timeout: span(policy.overall_timeout),
            settle_period: span(policy.settle_period),
            start_timeout: span(policy.start_timeout),
            failure_strategy: Some(match policy.failure_strategy {
                FailureStrategy::GiveUp => Strategy::GiveUp,
                FailureStrategy::Force => Strategy::Force,
            }),
            allow_unverified: Some(policy.allow_unverified),
            hold_on_unclean_exit: Some(policy.hold_on_unclean_exit),
            max_parallel_stops: Some(policy.max_parallel_stops),
            min_evidence: Some(match policy.min_evidence {
                // A claim is no evidence and never in a policy that passed its checks.
                Evidence::Claimed | Evidence::ProcessGone => Proof::ProcessGone,
                Evidence::Manager => Proof::Manager,
                Evidence::ExitObserved => Proof::ExitObserved,
                Evidence::ChildReaped => Proof::ChildReaped,
                Evidence::GroupEmpty => Proof::GroupEmpty,
            }),
            retry: Retry {
                max_attempts: Some(policy.max_attempts),
                initial_backoff: span(policy.initial_backoff),
                max_backoff: span(policy.max_backoff),
                backoff_multiplier: Some(policy.backoff_multiplier),
            },
            parameters: policy.parameters.clone(),
        }
    }

    fn or(self, lower: Self) -> Self {
        Self {
            grace_period: self.grace_period.or(lower.grace_period),
            heartbeat_timeout: self.heartbeat_timeout.or(lower.heartbeat_timeout),
            accept_timeout: self.accept_timeout.or(lower.accept_timeout),
            kill_timeout: self.kill_timeout.or(lower.kill_timeout),
            max_extension: self.max_extension.or(lower.max_extension),
            overall_timeout: self.overall_timeout.or(lower.overall_timeout),
            settle_period: self.settle_period.or(lower.settle_period),
            start_timeout: self.start_timeout.or(lower.start_timeout),
            failure_strategy: self.failure_strategy.or(lower.failure_strategy),
            allow_unverified: self.allow_unverified.or(lower.allow_unverified),
            hold_on_unclean_exit: self.hold_on_unclean_exit.or(lower.hold_on_unclean_exit),
            max_parallel_stops: self.max_parallel_stops.or(lower.max_parallel_stops),
            min_evidence: self.min_evidence.or(lower.min_evidence),
            retry: Retry {
                max_attempts: self.retry.max_attempts.or(lower.retry.max_attempts),
                initial_backoff: self.retry.initial_backoff.or(lower.retry.initial_backoff),
                max_backoff: self.retry.max_backoff.or(lower.retry.max_backoff),
                backoff_multiplier: self.retry.backoff_multiplier.or(lower.retry.backoff_multiplier),
            },
            parameters: if self.parameters.is_empty() { lower.parameters } else { self.parameters },
        }
    }

    /// The policy `base` with what is set here.
    pub(super) fn over(&self, base: &quiesce_operation::Policy) -> quiesce_operation::Policy {
        let span = |span: Option<Span>| span.map(|Span(duration)| duration);
        base.with(&PolicyOverrides {
            grace_period: span(self.grace_period),
            heartbeat_timeout: span(self.heartbeat_timeout),
            accept_timeout: span(self.accept_timeout),
            kill_timeout: span(self.kill_timeout),
            max_extension: span(self.max_extension),
            overall_timeout: span(self.overall_timeout),
            settle_period: span(self.settle_period),
            start_timeout: span(self.start_timeout),
            max_attempts: self.retry.max_attempts,
            initial_backoff: span(self.retry.initial_backoff),
            max_backoff: span(self.retry.max_backoff),
            backoff_multiplier: self.retry.backoff_multiplier,
            failure_strategy: self.failure_strategy.map(|strategy| match strategy {
                Strategy::GiveUp => FailureStrategy::GiveUp,
                Strategy::Force => FailureStrategy::Force,
            }),
            allow_unverified: self.allow_unverified,
            hold_on_unclean_exit: self.hold_on_unclean_exit,
            max_parallel_stops: self.max_parallel_stops,
            parameters: Some(self.parameters.clone()),
            min_evidence: self.min_evidence.map(|proof| match proof {
                Proof::ProcessGone => Evidence::ProcessGone,
                Proof::Manager => Evidence::Manager,
                Proof::ExitObserved => Evidence::ExitObserved,
                Proof::ChildReaped => Evidence::ChildReaped,
                Proof::GroupEmpty => Evidence::GroupEmpty,
            }),
        })
    }
}
