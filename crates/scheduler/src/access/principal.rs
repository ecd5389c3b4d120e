//! Whoever calls, and what he may do. Pure: what a request needs comes in as a [`Need`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use quiesce_operation::{ApplicationId, InstanceId};

use super::need::{About, Least, Need};
use crate::convert;
use crate::secrets::HeldCredential;
use crate::status::Problem;

/// What people and services may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// The applications somebody has to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applications {
    All,
    Only(BTreeSet<ApplicationId>),
}

impl Applications {
    pub(crate) fn has(&self, application: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(some) => some.iter().any(|one| one.as_str() == application),
        }
    }

    /// The same by resource name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(_) => name.strip_prefix("applications/").is_some_and(|application| self.has(application)),
        }
    }
}

/// By what a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Means {
    /// By nothing.
    Nothing,
    /// By the name in the certificate of its connection.
    Certificate {
        /// When that expires.
        until: Option<SystemTime>,
    },
    /// By the token of this id.
    Token(String),
    /// By the credential of a registered instance.
    Instance,
}

impl Means {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Certificate { .. } => "certificate",
            Self::Token(_) => "token",
            Self::Instance => "instance",
        }
    }
}

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Everything: access is open.
    Everything,
    /// What a role may.
    Role { role: Role, applications: Applications },
    /// Let instances of these applications join; of one of them only, if it is named.
    Join { applications: BTreeSet<ApplicationId>, instance: Option<InstanceId> },
    /// Be this instance.
    Instance(HeldCredential),
    /// Nothing but what carries its own proof.
    Nothing,
}

/// Whoever makes a call.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// For records, request ids and the audit log. Two callers never share one.
    pub(crate) name: String,
    pub(crate) means: Means,
    pub(crate) rights: Rights,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Principal {
    /// A caller without credential: one who may do `rights`.
    pub(crate) fn anonymous(from: Option<IpAddr>, rights: Rights) -> Self {
        let name = from.map_or_else(|| "anonymous".to_owned(), |from| format!("anonymous@{from}"));
        Self { name, means: Means::Nothing, rights }
    }

    /// Which applications exist for this caller.
    pub(crate) fn sees(&self) -> Applications {
        match &self.rights {
            Rights::Everything => Applications::All,
            Rights::Role { applications, .. } => applications.clone(),
            Rights::Join { .. } | Rights::Instance(_) | Rights::Nothing => Applications::Only(BTreeSet::new()),
        }
    }

    /// Whether this caller may do that. Looks at names only, never at what exists; [`About::Operation`] of a caller who
    /// is restricted to some applications remains to be looked at.
    ///
    /// # Errors
    /// [`Problem::CredentialsInvalid`] for whoever brought none, [`Problem::NotAllowed`] for the others.
    pub(crate) fn permit(&self, need: &Need<'_>) -> Result<(), Problem> {
        let denied = || Problem::NotAllowed { role: need.role().map_or("agent", Role::as_str) };
        let allowed = match &self.rights {
            Rights::Everything => return Ok(()),
            _ if need.least == Least::Proof => return Ok(()),
            Rights::Nothing => return Err(Problem::CredentialsInvalid(super::NO_CREDENTIAL)),
            Rights::Role { role, applications } => {
                need.role().is_some_and(|wanted| *role >= wanted) && within(applications, need.about)
            }
            Rights::Join { applications, instance } => {
                need.least == Least::Joining
                    && need.overrides.is_none()
                    && applications.iter().any(|application| match (need.about, instance) {
                        (About::Instance(name), Some(instance)) => {
                            name == convert::instance_name(application, instance)
                        }
                        (About::Instance(name), None) => belongs(name, application.as_str()),
                        _ => false,
                    })
            }
            Rights::Instance(HeldCredential { application, instance, .. }) => {
                matches!(need.least, Least::Joining | Least::Leaving | Least::Instance)
                    && need.overrides.is_none()
                    && matches!(need.about, About::Instance(name) if name == convert::instance_name(application, instance))
            }
        };
        if !allowed {
            return Err(denied());
        }
        // In the record of an operation an override without a reason is worth nothing.
        match need.overrides {
            Some(what) if need.reason.is_some_and(|reason| reason.trim().is_empty()) => {
                Err(Problem::field("reason", format!("must say why, with {what}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn within(applications: &Applications, about: About<'_>) -> bool {
    let Applications::Only(some) = applications else { return true };
    match about {
        // What is listed is filtered, and operations are looked up.
        About::Server | About::Several | About::Operation(_) => true,
        About::Application(name) => applications.has_name(name),
        About::Instance(name) => some.iter().any(|application| belongs(name, application.as_str())),
        // They tell of applications of others.
        About::Cluster(_) | About::Clusters | About::Token(_) | About::Tokens => false,
    }
}

/// Whether the instance called `name` is one of `application`.
fn belongs(name: &str, application: &str) -> bool {
    name.strip_prefix("applications/")
        .and_then(|rest| rest.strip_prefix(application))
        .is_some_and(|rest| rest.starts_with("/instances/"))
}
