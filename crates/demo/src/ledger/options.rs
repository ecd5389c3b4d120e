//! What the ledger must be told, as a plain struct, and how it reads from environment variables. Nothing is taken from
//! a command line: an argument is visible to everyone on the machine, and one of these is a secret.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rusty_s3::Credentials;

use super::book::Epoch;
use crate::bucket::BucketOptions;

/// The names of the environment variables.
pub mod vars {
    /// Address to serve on, for example `127.0.0.1:7700`.
    pub const LISTEN: &str = "LEDGER_LISTEN";
    /// Name of the bucket.
    pub const BUCKET: &str = "LEDGER_BUCKET";
    /// Whole seconds a save takes at least; see [`Scene`](super::Scene).
    pub const SAVE_SECONDS: &str = "LEDGER_SAVE_SECONDS";
    /// A file without which saves are not slow after all; see [`Scene`](super::Scene).
    pub const SAVE_SLOWLY_WHILE: &str = "LEDGER_SAVE_SLOWLY_WHILE";
    /// A file whose existence keeps the ledger from starting; see [`Scene`](super::Scene).
    pub const REFUSE_START_WHILE: &str = "LEDGER_REFUSE_START_WHILE";
    /// URL of the S3 endpoint; this and the next three are the usual names.
    pub const ENDPOINT: &str = "AWS_ENDPOINT_URL";
    /// Region of the bucket.
    pub const REGION: &str = "AWS_REGION";
    /// Access key.
    pub const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
    /// Secret key.
    pub const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    /// The permission to run, a number; given by whoever starts the ledger.
    pub const EPOCH: &str = "QUIESCE_EPOCH";
    /// Where to send notifications, if anywhere.
    pub const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
}

/// Everything a ledger needs to know.
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// Address to serve on; port 0 takes a free one and tells it in `STATUS=`.
    pub listen: SocketAddr,
    /// Where the state is.
    pub bucket: BucketOptions,
    /// The permission to run.
    pub epoch: Epoch,
    /// Where to send notifications: a path, or `@` and an abstract name.
    pub notify_socket: Option<OsString>,
    /// What it plays in a demonstration.
    pub scene: Scene,
}

/// Bad days on purpose, for a demonstration. The default is a good day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// A save takes at least this long, as if the state were large.
    pub save_for: Duration,
    /// If set, only saves that begin while this file exists are slow.
    pub save_slowly_while: Option<PathBuf>,
    /// As long as this file exists, the ledger refuses to start, as if something it needs were missing.
    pub refuse_start_while: Option<PathBuf>,
}

impl Scene {
    /// How long a save that begins now takes at least.
    pub(super) fn save_takes(&self) -> Duration {
        let slow = self.save_slowly_while.as_ref().is_none_or(|path| path.exists());
        if slow { self.save_for } else { Duration::ZERO }
    }
}

/// The environment is not enough to run a ledger; every problem at once.
#[derive(Debug, thiserror::Error)]
#[error("wrong environment: {}", problems.join("; "))]
pub struct OptionsError {
    /// One fragment for each variable; no value of a secret is in them.
    pub problems: Vec<String>,
}

impl LedgerOptions {
    /// Reads the options with `lookup`, which is `std::env::var_os` in a real process.
    pub fn from_vars(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, OptionsError> {
        let mut reader = Reader { lookup, problems: Vec::new() };
        let listen = reader.parsed(vars::LISTEN, "an address with port");
        let epoch = reader.parsed(vars::EPOCH, "a number");
        let endpoint = reader.required(vars::ENDPOINT);
        let bucket = reader.required(vars::BUCKET);
        let access_key = reader.required(vars::ACCESS_KEY);
        let secret_key = reader.required(vars::SECRET_KEY);
        let region = reader.optional(vars::REGION).unwrap_or_else(|| "us-east-1".to_owned());
        let save_for = match reader.optional(vars::SAVE_SECONDS) {
            Some(_) => reader.parsed(vars::SAVE_SECONDS, "a number of seconds"),
            None => Some(0),
        };
        let save_slowly_while = (reader.lookup)(vars::SAVE_SLOWLY_WHILE).map(PathBuf::from);
        let refuse_start_while = (reader.lookup)(vars::REFUSE_START_WHILE).map(PathBuf::from);
        let notify_socket = (reader.lookup)(vars::NOTIFY_SOCKET);
        match (listen, epoch, endpoint, bucket, access_key, secret_key, save_for) {
            (
                Some(listen),
                Some(epoch),
                Some(endpoint),
                Some(bucket),
                Some(access_key),
                Some(secret_key),
                Some(save_for),
            ) => Ok(Self {
                listen,
                bucket: BucketOptions {
                    endpoint,
                    bucket,
                    region,
                    credentials: Credentials::new(access_key, secret_key),
                },
                epoch,
                notify_socket,
                scene: Scene { save_for: Duration::from_secs(save_for), save_slowly_while, refuse_start_while },
            }),
            _ => Err(OptionsError { problems: reader.problems }),
        }
    }
}

impl BucketOptions {
    /// The variables from which [`LedgerOptions::from_vars`] reads these options again: for the environment of a child
    /// process, and for nothing else, as the secret is among them.
    #[must_use]
    pub fn to_vars(&self) -> [(&'static str, String); 5] {
        [
            (vars::ENDPOINT, self.endpoint.clone()),
            (vars::BUCKET, self.bucket.clone()),
            (vars::REGION, self.region.clone()),
            (vars::ACCESS_KEY, self.credentials.key().to_owned()),
            (vars::SECRET_KEY, self.credentials.secret().to_owned()),
        ]
    }
}

struct Reader<F> {
    lookup: F,
    problems: Vec<String>,
}

impl<F: Fn(&str) -> Option<OsString>> Reader<F> {
    fn optional(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name)?;
        value.into_string().map_err(|_| self.problems.push(format!("{name} is not text"))).ok()
    }

    fn required(&mut self, name: &str) -> Option<String> {
        let known = self.problems.len();
        let value = self.optional(name).filter(|value| !value.is_empty());
        if value.is_none() && self.problems.len() == known {
            self.problems.push(format!("{name} is not set"));
        }
        value
    }

    fn parsed<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let value = self.required(name)?;
        value.parse().map_err(|_| self.problems.push(format!("{name} is not {what}"))).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn environment() -> HashMap<String, OsString> {
        let credentials = Credentials::new("key", "hush");
        let bucket = BucketOptions {
            endpoint: "http://127.0.0.1:1".to_owned(),
            bucket: "b".to_owned(),
            region: "r".to_owned(),
            credentials,
        };
        let mut vars: HashMap<String, OsString> =
            bucket.to_vars().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        vars.insert(vars::LISTEN.to_owned(), "127.0.0.1:0".into());
        vars.insert(vars::EPOCH.to_owned(), "7".into());
        vars
    }

    #[test]
    fn options_survive_the_way_through_the_environment_and_hide_the_secret() {
        let vars = environment();
        let options = LedgerOptions::from_vars(|name| vars.get(name).cloned()).unwrap();
        assert_eq!(options.epoch, Epoch::new(7));
        assert_eq!(options.bucket.region, "r");
        assert_eq!(options.bucket.credentials.secret(), "hush");
        assert_eq!(options.scene, Scene::default());
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn every_problem_is_named_at_once_and_no_value_is_shown() {
        let mut vars = environment();
        vars.remove(vars::SECRET_KEY);
        vars.insert(vars::EPOCH.to_owned(), "seven".into());
        vars.insert(vars::SAVE_SECONDS.to_owned(), "-1".into());
        let error = LedgerOptions::from_vars(|name| vars.get(name).cloned()).unwrap_err();
        assert_eq!(
            error.problems,
            [
                "QUIESCE_EPOCH is not a number",
                "AWS_SECRET_ACCESS_KEY is not set",
                "LEDGER_SAVE_SECONDS is not a number of seconds"
            ]
        );
    }
}
