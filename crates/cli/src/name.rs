//! Resource names: the short forms people type, the full forms of the contract.
//!
//! Owns the spelling only. Whether a name is well-formed or known is for the scheduler to say.

/// `db` and `applications/db` to `applications/db`.
pub(crate) fn application(name: &str) -> String {
    full("applications/", name)
}

/// `op-7f3k` and `operations/op-7f3k` to `operations/op-7f3k`.
pub(crate) fn operation(name: &str) -> String {
    full("operations/", name)
}

/// `a` and `clusters/a` to `clusters/a`.
pub(crate) fn cluster(name: &str) -> String {
    full("clusters/", name)
}

/// A name of an instance as typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InstanceName<'a> {
    /// The full name is known.
    Full(String),
    /// Only the last part was given: any application may own it.
    Leaf(&'a str),
}

/// `db/db-0`, `applications/db/instances/db-0`, or just `db-0`.
pub(crate) fn instance(name: &str) -> InstanceName<'_> {
    match name.split_once('/') {
        _ if name.starts_with("applications/") => InstanceName::Full(name.to_owned()),
        Some((application, instance)) => InstanceName::Full(format!("applications/{application}/instances/{instance}")),
        None => InstanceName::Leaf(name),
    }
}

/// What people type for a full name: `db`, `db/db-0`, `op-7f3k`, `a`.
pub(crate) fn short(name: &str) -> String {
    let rest = ["applications/", "operations/", "clusters/"]
        .into_iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name);
    rest.replacen("/instances/", "/", 1)
}

/// The last part of a name: `db-0` of `applications/db/instances/db-0`.
pub(crate) fn leaf(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn full(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_full_names_mean_the_same() {
        assert_eq!(application("db"), "applications/db");
        assert_eq!(application("applications/db"), "applications/db");
        assert_eq!(operation("op-1"), operation("operations/op-1"));
        assert_eq!(short("applications/db/instances/db-0"), "db/db-0");
        assert_eq!(short("clusters/a"), "a");
        assert_eq!(leaf("applications/db/instances/db-0"), "db-0");
    }

    #[test]
    fn an_instance_is_named_with_or_without_its_application() {
        let full = InstanceName::Full("applications/db/instances/db-0".to_owned());
        assert_eq!(instance("db/db-0"), full);
        assert_eq!(instance("applications/db/instances/db-0"), full);
        assert_eq!(instance("db-0"), InstanceName::Leaf("db-0"));
    }
}
