//! What the configuration says of access: whether it is checked, and who a certificate belongs to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use quiesce_operation::{ApplicationId, InstanceId};

use super::audit::Target;
use super::principal::{Applications, Rights, Role};
use crate::secrets::Rotation;

/// Whether callers are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everybody who reaches the scheduler may do everything.
    Open,
    /// Nobody may do anything without a credential that allows it.
    Enforced,
}

impl Mode {
    /// As it is written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Enforced => "enforced",
        }
    }
}

/// Access as it is configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether callers are checked.
    pub mode: Mode,
    /// Whose certificate is whose. The first one that fits counts.
    pub principals: Vec<Named>,
    /// Where the first admin token is written when there is none; none: no such token is made.
    pub admin_token_file: Option<PathBuf>,
    /// Whether the key that tokens are derived from gets a successor at this start, whatever its age.
    pub rotation: Rotation,
    /// Where it is recorded who changed what, and who was refused.
    pub audit: Target,
}

/// Somebody who is known by the name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// A subject alternative name, exactly; a `*` at its end stands for anything that follows.
    pub name: String,
    /// What that name may do.
    pub role: NamedRole,
    /// The only applications it may do that to; empty: all.
    pub applications: BTreeSet<ApplicationId>,
}

/// What somebody with a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedRole {
    /// Look.
    Viewer,
    /// And run operations.
    Operator,
    /// And everything else.
    Admin,
    /// Let instances of the named applications join.
    Agent,
}

impl Config {
    /// Everybody may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self {
            mode: Mode::Open,
            principals: Vec::new(),
            admin_token_file: None,
            audit: Target::Off,
            rotation: Rotation::WhenDue,
        }
    }

    /// The rights of a certificate with that name.
    pub(super) fn rights_of(&self, name: &str) -> Option<Rights> {
        let fits = |known: &&Named| match known.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == known.name,
        };
        let known = self.principals.iter().find(fits)?;
        let applications = || match known.applications.is_empty() {
            true => Applications::All,
            false => Applications::Only(known.applications.clone()),
        };
        let role = |role| Rights::Role { role, applications: applications() };
        Some(match known.role {
            NamedRole::Viewer => role(Role::Viewer),
            NamedRole::Operator => role(Role::Operator),
            NamedRole::Admin => role(Role::Admin),
            NamedRole::Agent => agent(name, &known.applications),
        })
    }

    /// Whether an admin is known without any token.
    pub(crate) fn has_admin(&self) -> bool {
        self.principals.iter().any(|one| one.role == NamedRole::Admin && one.applications.is_empty())
    }
}

/// An agent whose name says which instance it is may be that one only.
fn agent(name: &str, applications: &BTreeSet<ApplicationId>) -> Rights {
    let said = name.rsplit_once("/applications/").and_then(|(_, rest)| rest.split_once("/instances/"));
    match said {
        Some((application, instance)) => {
            let found = applications.iter().find(|one| one.as_str() == application).cloned();
            match (found, InstanceId::parse(instance)) {
                (Some(application), Ok(instance)) => {
                    Rights::Join { applications: BTreeSet::from([application]), instance: Some(instance) }
                }
                // It names itself, and as something it is not allowed to be.
                (None, _) | (_, Err(_)) => Rights::Join { applications: BTreeSet::new(), instance: None },
            }
        }
        None => Rights::Join { applications: applications.clone(), instance: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, role: NamedRole, applications: &[&str]) -> Named {
        let applications = applications.iter().map(|one| ApplicationId::parse(one).unwrap()).collect();
        Named { name: name.to_owned(), role, applications }
    }

    #[test]
    fn a_certificate_is_whose_name_fits_first_and_nobodys_otherwise() {
        let config = Config {
            principals: vec![
                named("spiffe://x/ann", NamedRole::Admin, &[]),
                named("spiffe://x/*", NamedRole::Viewer, &["shop"]),
            ],
            ..Config::open()
        };
        let role = |name: &str| match config.rights_of(name) {
            Some(Rights::Role { role, .. }) => Some(role),
            _ => None,
        };
        assert_eq!(role("spiffe://x/ann"), Some(Role::Admin));
        assert_eq!(role("spiffe://x/anna"), Some(Role::Viewer));
        assert_eq!(role("spiffe://y/ann"), None);
        assert!(config.has_admin());
    }

    #[test]
    fn an_agent_whose_name_says_its_instance_is_no_other() {
        let config =
            Config { principals: vec![named("spiffe://x/*", NamedRole::Agent, &["shop", "db"])], ..Config::open() };
        let rights = |name: &str| match config.rights_of(name) {
            Some(Rights::Join { applications, instance }) => (applications.len(), instance.map(|one| one.to_string())),
            other => panic!("{other:?}"),
        };
        assert_eq!(rights("spiffe://x/applications/shop/instances/a"), (1, Some("a".to_owned())));
        assert_eq!(rights("spiffe://x/applications/bank/instances/a"), (0, None));
        assert_eq!(rights("spiffe://x/agents"), (2, None));
    }
}
