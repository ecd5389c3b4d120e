//! Who an agent speaks for: application, instance and cluster, as names of the contract.
//!
//! Owns the alphabets of `types.proto` and finds every problem at once. It reads no environment: whoever calls brings
//! the candidates.

use std::fmt;

/// Longest {application} and {instance}.
const NAME_MAX: usize = 63;

/// Longest {operation}.
const OPERATION_MAX: usize = 40;

/// Longest {cluster}.
const CLUSTER_MAX: usize = 253;

/// The three names, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    application: String,
    instance: String,
    cluster: String,
}

/// Everything that is wrong with the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct IdentityError(pub Vec<String>);

impl Identity {
    /// Checks the three names, all of them.
    pub fn new(application: &str, instance: &str, cluster: &str) -> Result<Self, IdentityError> {
        let problems: Vec<String> = [
            is_application(application).then_some(()).ok_or_else(|| {
                format!(
                    "application name {application:?} must be 1 to {NAME_MAX} characters of a-z, 0-9 and -, begin with \
                     a letter and not end with -"
                )
            }),
            is_instance(instance).then_some(()).ok_or_else(|| {
                format!(
                    "instance name {instance:?} must be 1 to {NAME_MAX} characters of a-z, 0-9, . and -, and begin and \
                     end with a letter or digit"
                )
            }),
            is_cluster(cluster).then_some(()).ok_or_else(|| {
                format!(
                    "cluster name {cluster:?} must be 1 to {CLUSTER_MAX} characters of A-Z, a-z, 0-9 and ._:@-, and \
                     begin and end with a letter or digit"
                )
            }),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect();
        if !problems.is_empty() {
            return Err(IdentityError(problems));
        }
        Ok(Self { application: application.to_owned(), instance: instance.to_owned(), cluster: cluster.to_owned() })
    }

    /// The bare name of the application.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The bare name of the instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The name of the cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// `applications/{application}`
    pub fn application_name(&self) -> String {
        format!("applications/{}", self.application)
    }

    /// `applications/{application}/instances/{instance}`
    pub fn instance_name(&self) -> String {
        format!("applications/{}/instances/{}", self.application, self.instance)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on cluster {}", self.instance_name(), self.cluster)
    }
}

/// An instance name made of `text`: what does not fit the alphabet becomes `-`, what is too long is cut.
pub fn sanitise_instance(text: &str) -> String {
    let fitting: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .collect();
    // ASCII by now, so any index is a boundary.
    let cut = &fitting.trim_start_matches(['-', '.']);
    cut[..cut.len().min(NAME_MAX)].trim_end_matches(['-', '.']).to_owned()
}

/// Whether `name` is a full instance name of the contract.
pub(crate) fn is_instance_name(name: &str) -> bool {
    name.strip_prefix("applications/")
        .and_then(|rest| rest.split_once("/instances/"))
        .is_some_and(|(application, instance)| is_application(application) && is_instance(instance))
}

/// Whether `name` is a full operation name of the contract.
pub(crate) fn is_operation_name(name: &str) -> bool {
    name.strip_prefix("operations/").is_some_and(|id| id.len() <= OPERATION_MAX && is_application(id))
}

fn is_application(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(is_lower_or_digit)
        && name.chars().all(|c| is_lower_or_digit(c) || c == '-')
}

fn is_instance(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.starts_with(is_lower_or_digit)
        && name.ends_with(is_lower_or_digit)
        && name.chars().all(|c| is_lower_or_digit(c) || c == '-' || c == '.')
}

pub(crate) fn is_cluster(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    name.len() <= CLUSTER_MAX
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || "._:@-".contains(c))
}

fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_found_at_once() {
        let error = Identity::new("Shop", "", "a b").unwrap_err();
        assert_eq!(error.0.len(), 3, "{error}");
        assert!(Identity::new("shop", "shop-0.x", "eu:1@Y").is_ok());
    }

    #[test]
    fn what_is_sanitised_is_valid_or_empty() {
        for (text, name) in [("edge-1-Büro.LAN", "edge-1-b-ro.lan"), ("--x--", "x"), ("_._", ""), ("a:b@c", "a-b-c")] {
            assert_eq!(sanitise_instance(text), name);
            assert!(name.is_empty() || is_instance(name));
        }
        assert!(is_instance(&sanitise_instance(&format!("{}-{}", "a".repeat(62), "b".repeat(62)))));
    }

    #[test]
    fn full_names_are_told_from_others() {
        assert!(is_instance_name("applications/shop/instances/shop-0"));
        for wrong in
            ["", "applications/shop", "applications/shop/instances/", "instances/a", "applications//instances/a"]
        {
            assert!(!is_instance_name(wrong), "{wrong}");
        }
        assert!(is_operation_name("operations/op-7f3k"));
        assert!(!is_operation_name("operations/"));
    }
}
