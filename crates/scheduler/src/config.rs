//! Where the settings come from: defaults, then the TOML file, then environment, then flags.
//!
//! The environment is merged into the flags by clap ([`crate::args`]); here it is read only for where a user's state
//! lives. Every problem is found before anything is opened, and all are reported at once.

mod file;

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use quiesce_operation::Policy;
use quiesce_runtime::telemetry::{DEFAULT_FILTER, Format, Telemetry, chain};
use quiesce_runtime::tls::{KeyPair, NamedFile};

use crate::access::{self, Mode, Target};
use crate::args::SchedulerArgs;
use crate::endpoint::is_authority;
use crate::secrets::Rotation;
use crate::server::{Config, Origin, StoreChoice, Tls};
use crate::traces::TraceSettings;
use crate::validate::Violations;
use file::File;

/// Where the scheduler listens unless told otherwise.
const LISTEN_DEFAULT: &str = "127.0.0.1:7600";
/// Where its admin address is unless told otherwise.
const ADMIN_LISTEN_DEFAULT: &str = "127.0.0.1:7601";
/// Where the first admin token is written, in the data directory.
const ADMIN_TOKEN_FILE: &str = "admin.token";
/// Where the audit log is, in the data directory.
const AUDIT_FILE: &str = "audit.jsonl";
/// Says that there shall be no such thing: no admin address, no audit log.
const OFF: &str = "off";

/// Everything a scheduler process is told.
#[derive(Debug)]
pub struct Settings {
    /// For [`crate::Scheduler::bind`].
    pub config: Config,
    /// For the log.
    pub telemetry: Telemetry,
    /// Other addresses than loopback are fine without TLS.
    pub insecure: bool,
    effective: File,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let end = if index + 1 == self.0.len() { "" } else { "\n" };
            write!(f, "  - {problem}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Settings {
    /// The settings in effect, as the file that would give them.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.effective).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

/// The settings for these flags.
///
/// # Errors
/// All problems at once.
pub fn load(args: &SchedulerArgs) -> Result<Settings, Problems> {
    let mut problems = Vec::new();
    let file = match &args.config {
        Some(path) => read(path).unwrap_or_else(|problem| {
            problems.push(problem);
            File::default()
        }),
        None => File::default(),
    };
    let flags = File {
        listen: args.listen.clone(),
        admin_listen: args.admin_listen.clone(),
        data_dir: args.data_dir.clone(),
        store: args.store.clone(),
        etcd_endpoints: args.etcd_endpoints.as_ref().map(|urls| urls.split(',').map(str::to_owned).collect()),
        attach_endpoint: args.attach_endpoint.clone(),
        insecure: args.insecure,
        tls: file::Tls {
            certificate: args.tls_cert.clone(),
            key: args.tls_key.clone(),
            client_ca: args.tls_client_ca.clone(),
            hook_ca: args.tls_hook_ca.clone(),
        },
        web: file::Web {
            origins: args.web_origins.as_ref().map(|list| list.split(',').map(str::to_owned).collect()),
            page: args.web_page,
        },
        log: file::Log { filter: args.log.clone(), format: args.log_format.clone() },
        access: file::Access { mode: args.access.clone(), principals: Vec::new() },
        audit: file::Audit { to: args.audit.clone() },
        policy: file::Policy::default(),
    };
    let effective = flags.or(file).or(defaults());
    let mut settings = resolve(effective, problems)?;
    // An order for one start and no setting: in a file it would be carried out at every start.
    if args.rotate_key {
        settings.config.access.rotation = Rotation::Now;
    }
    Ok(settings)
}

fn defaults() -> File {
    File {
        listen: Some(LISTEN_DEFAULT.to_owned()),
        admin_listen: Some(ADMIN_LISTEN_DEFAULT.to_owned()),
        data_dir: default_data_dir(),
        store: Some("embedded".to_owned()),
        etcd_endpoints: None,
        attach_endpoint: Some(String::new()),
        insecure: Some(false),
        tls: file::Tls::default(),
        web: file::Web { origins: Some(Vec::new()), page: Some(false) },
        log: file::Log { filter: Some(DEFAULT_FILTER.to_owned()), format: Some(Format::Auto.to_string()) },
        // What the default is depends on the address.
        access: file::Access::default(),
        audit: file::Audit::default(),
        policy: file::Policy::of(&Policy::built_in()),
    }
}

/// `/var/lib/quiesce/scheduler` for root, else the state directory of the user.
#[must_use]
pub fn default_data_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/quiesce/scheduler"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("quiesce/scheduler"))
}

fn read(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The settings that a file with this content would give, without flags.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn from_text(text: &str) -> Result<Settings, Problems> {
    let file: File = toml::from_str(text).map_err(|error| Problems(vec![error.to_string()]))?;
    resolve(file.or(defaults()), Vec::new())
}

fn resolve(mut effective: File, mut problems: Vec<String>) -> Result<Settings, Problems> {
    let insecure = effective.insecure.unwrap_or(false);
    let listen = address("listen", effective.listen.as_deref().unwrap_or(LISTEN_DEFAULT), &mut problems);
    let admin = effective.admin_listen.as_deref().unwrap_or(ADMIN_LISTEN_DEFAULT);
    let admin_listen = if admin == OFF { None } else { address("admin_listen", admin, &mut problems) };
    let tls = tls(&effective.tls, &mut problems);
    // Certificates of hooks mostly come from the CA of all other clients; what it comes to is written back, to be shown.
    effective.tls.hook_ca = effective.tls.hook_ca.take().or_else(|| effective.tls.client_ca.clone());
    // Wrong files are a problem of their own, and were meant.
    let in_clear = !insecure && matches!(tls, Ok(None));
    for (key, address) in [("listen", listen), ("admin_listen", admin_listen)] {
        let Some(address) = address.filter(|address| in_clear && !address.ip().is_loopback()) else { continue };
        let what = if key == "listen" { "could stop applications" } else { "could see the metrics" };
        problems.push(format!(
            "{key} = {address} is not a loopback address, and without TLS everybody who reaches it {what}. Give a \
             certificate with --tls-cert and --tls-key (none? begin with `quiesce pki init DIR`), listen on 127.0.0.1, \
             or say --insecure if the network is trusted"
        ));
    }
    let store = store(&effective, &mut problems);
    let telemetry = telemetry(&effective, &mut problems);
    let default_policy = effective.policy.over(&Policy::built_in());
    for (field, what) in default_policy.violations() {
        problems.push(format!("policy.{field}: {what}"));
    }
    let parameters = effective.policy.parameters.clone().into_iter().collect();
    let mut bad = Violations::new();
    bad.parameters("policy.parameters", &parameters);
    problems.extend(bad.into_lines());
    let attach_endpoint = effective.attach_endpoint.clone().unwrap_or_default();
    if !attach_endpoint.is_empty() && !is_authority(&attach_endpoint) {
        problems.push(format!("attach_endpoint = {attach_endpoint:?} is not host:port"));
    }
    if effective.web.page == Some(true) && admin == OFF {
        problems.push("web.page is on, and admin_listen, where it would be, is off; set an address there".to_owned());
    }
    let web_origins = web_origins(&effective.web, &mut problems);
    let access = access(&mut effective, listen, &mut problems);
    match (listen, store) {
        (Some(listen), Some(store)) if problems.is_empty() => {
            let tls = tls.unwrap_or(None);
            let hook_ca = effective.tls.hook_ca.as_ref().map(|path| named("tls.hook_ca", path));
            let hooks_in_clear = insecure;
            let config = Config {
                listen,
                admin_listen,
                store,
                default_policy,
                attach_endpoint,
                tls,
                hook_ca,
                hooks_in_clear,
                web_origins,
                page: effective.web.page.unwrap_or(false),
                access,
                traces: TraceSettings::Environment,
            };
            Ok(Settings { config, telemetry, insecure, effective })
        }
        _ => Err(Problems(problems)),
    }
}

/// The pages that may call.
fn web_origins(web: &file::Web, problems: &mut Vec<String>) -> Vec<Origin> {
    let mut origins = Vec::new();
    for text in web.origins.iter().flatten().filter(|text| !text.is_empty()) {
        match Origin::parse(text) {
            Ok(origin) => origins.push(origin),
            Err(error) => problems.push(format!("web.origins: {text:?} {error}")),
        }
    }
    origins
}

/// The files, or that some are missing.
fn tls(file: &file::Tls, problems: &mut Vec<String>) -> Result<Option<Tls>, Incomplete> {
    match (&file.certificate, &file.key) {
        (Some(certificate), Some(key)) => Ok(Some(Tls {
            own: KeyPair { certificate: named("tls.certificate", certificate), key: named("tls.key", key) },
            client_ca: file.client_ca.as_ref().map(|path| named("tls.client_ca", path)),
        })),
        (None, None) if file.client_ca.is_none() => Ok(None),
        (certificate, key) => {
            for (key, flag, file) in [("tls.certificate", "--tls-cert", certificate), ("tls.key", "--tls-key", key)] {
                if file.is_none() {
                    problems.push(format!("{key} is not set, and TLS needs it: give the file with {flag}"));
                }
            }
            Err(Incomplete)
        }
    }
}

fn named(setting: &'static str, path: &Path) -> NamedFile {
    NamedFile { setting, path: path.to_owned() }
}

/// TLS was meant, but not all of it was given.
#[derive(Debug)]
struct Incomplete;

fn address(key: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // `localhost:7600` is what people type; other names would depend on who answers.
    let port = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    let resolved = port.and_then(|port| ("localhost", port).to_socket_addrs().ok()?.next());
    if resolved.is_none() {
        problems.push(format!("{key} = {text:?} is not an address such as 127.0.0.1:7600"));
    }
    resolved
}

fn store(effective: &File, problems: &mut Vec<String>) -> Option<StoreChoice> {
    if effective.etcd_endpoints.is_some() && effective.store.as_deref() != Some("etcd") {
        problems.push("etcd_endpoints are for store = \"etcd\"; leave them out".to_owned());
    }
    match effective.store.as_deref() {
        Some("memory") => Some(StoreChoice::Memory),
        Some("embedded") | None => {
            if effective.data_dir.is_none() {
                problems
                    .push("data_dir is not set, and neither XDG_STATE_HOME nor HOME says where it would be".to_owned());
            }
            effective.data_dir.clone().map(|directory| StoreChoice::Embedded { directory })
        }
        Some("etcd") => {
            problems.push("store = \"etcd\" is not built in; use embedded or memory".to_owned());
            None
        }
        Some(other) => {
            problems.push(format!("store = {other:?} is not known; use embedded or memory"));
            None
        }
    }
}

/// Open on loopback, enforced elsewhere, unless it says; what it comes to is written back, to be shown.
fn access(effective: &mut File, listen: Option<SocketAddr>, problems: &mut Vec<String>) -> access::Config {
    let mode = match effective.access.mode.as_deref() {
        Some("open") => Mode::Open,
        Some("enforced") => Mode::Enforced,
        None if listen.is_some_and(|address| address.ip().is_loopback()) => Mode::Open,
        None => Mode::Enforced,
        Some(other) => {
            problems.push(format!("access.mode = {other:?} is not known; use open or enforced"));
            Mode::Enforced
        }
    };
    effective.access.mode = Some(mode.as_str().to_owned());
    let mut principals = Vec::new();
    for (number, principal) in effective.access.principals.iter().enumerate() {
        match principal.named() {
            Ok(named) => principals.push(named),
            Err(problem) => problems.push(format!("access.principals[{number}]: {problem}")),
        }
    }
    let admin_token_file = effective.data_dir.as_ref().map(|directory| directory.join(ADMIN_TOKEN_FILE));
    let audit = match effective.audit.to.as_deref() {
        Some(OFF) => Target::Off,
        Some("-") => Target::Stdout,
        Some(path) => Target::File(PathBuf::from(path)),
        None => match (&effective.data_dir, mode) {
            (Some(directory), Mode::Enforced) => Target::File(directory.join(AUDIT_FILE)),
            (Some(_), Mode::Open) | (None, _) => Target::Off,
        },
    };
    effective.audit.to = Some(match &audit {
        Target::Off => OFF.to_owned(),
        Target::Stdout => "-".to_owned(),
        Target::File(path) => path.display().to_string(),
    });
    let config = access::Config { mode, principals, admin_token_file, audit, rotation: Rotation::WhenDue };
    if mode == Mode::Enforced && config.admin_token_file.is_none() && !config.has_admin() {
        problems.push(
            "access is enforced and nobody could get in: set data_dir, where the first admin token is written, or name \
             an admin in access.principals"
                .to_owned(),
        );
    }
    config
}

fn telemetry(effective: &File, problems: &mut Vec<String>) -> Telemetry {
    let filter = effective.log.filter.clone().unwrap_or_else(|| DEFAULT_FILTER.to_owned());
    let format = match effective.log.format.as_deref().unwrap_or("auto").parse::<Format>() {
        Ok(format) => format,
        Err(error) => {
            problems.push(format!("log.format: {error}"));
            Format::Auto
        }
    };
    let telemetry = Telemetry { format, filter };
    if let Err(error) = telemetry.validate() {
        problems.push(format!("log.filter: {}", chain(&error)));
    }
    telemetry
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, SchedulerArgs) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let args = SchedulerArgs { config: Some(file.path().to_owned()), ..SchedulerArgs::default() };
        (file, args)
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let (_file, mut args) =
            file("listen = \"127.0.0.1:1\"\nstore = \"memory\"\n[policy]\ngrace_period = \"90s\"\n");
        args.listen = Some("127.0.0.1:2".to_owned());
        let settings = load(&args).unwrap();
        assert_eq!(settings.config.listen.port(), 2);
        assert!(matches!(settings.config.store, StoreChoice::Memory));
        assert_eq!(settings.config.default_policy.grace_period, Duration::from_secs(90));
        assert_eq!(settings.config.default_policy.max_attempts, 3);
    }

    #[test]
    fn access_is_open_on_loopback_and_enforced_elsewhere_unless_it_says() {
        let with = |listen: &str, mode: Option<&str>| {
            let args = SchedulerArgs {
                listen: Some(listen.to_owned()),
                insecure: Some(true),
                access: mode.map(str::to_owned),
                data_dir: Some(PathBuf::from("state")),
                ..SchedulerArgs::default()
            };
            let settings = load(&args).unwrap();
            (settings.config.access.mode, settings.config.access.audit)
        };
        let recorded = Target::File(PathBuf::from("state/audit.jsonl"));
        assert_eq!(with("127.0.0.1:1", None), (Mode::Open, Target::Off));
        assert_eq!(with("[::1]:1", None), (Mode::Open, Target::Off));
        assert_eq!(with("0.0.0.0:1", None), (Mode::Enforced, recorded.clone()));
        assert_eq!(with("127.0.0.1:1", Some("enforced")), (Mode::Enforced, recorded));
        assert_eq!(with("0.0.0.0:1", Some("open")), (Mode::Open, Target::Off));
    }

    #[test]
    fn principals_are_read_and_what_is_wrong_with_one_is_said() {
        let principal = |rest: &str| format!("store = \"memory\"\n[[access.principals]]\n{rest}\n");
        let (_file, args) = file(&principal(
            "name = \"spiffe://x/ann\"\nroles = [\"viewer\", \"operator\"]\napplications = [\"shop\"]",
        ));
        let settings = load(&args).unwrap();
        let [known] = &settings.config.access.principals[..] else { panic!("one") };
        assert_eq!((known.name.as_str(), known.role), ("spiffe://x/ann", access::NamedRole::Operator));
        assert!(settings.to_toml().contains("spiffe://x/ann"), "what is in effect is shown");
        for (rest, says) in [
            ("roles = [\"admin\"]", "name must be set"),
            ("name = \"*\"\nroles = [\"admin\"]", "name must be set"),
            ("name = \"a\"", "roles must name one"),
            ("name = \"a\"\nroles = [\"root\"]", "role \"root\" is not known"),
            ("name = \"a\"\nroles = [\"agent\"]", "an agent needs the applications"),
            ("name = \"a\"\nroles = [\"agent\", \"admin\"]\napplications = [\"b\"]", "goes with no other"),
            ("name = \"a\"\nroles = [\"viewer\"]\napplications = [\"B\"]", "applications: \"B\""),
        ] {
            let (_file, args) = file(&principal(rest));
            let problems = load(&args).unwrap_err().to_string();
            assert!(problems.contains("access.principals[0]") && problems.contains(says), "{rest}: {problems}");
        }
    }

    #[test]
    fn every_problem_is_reported() {
        let (_file, mut args) = file("[policy]\ngrace_period = \"90h\"\nparameters = { \"\" = \"x\" }\n");
        args.attach_endpoint = Some("nowhere".to_owned());
        args.listen = Some("0.0.0.0:7600".to_owned());
        args.admin_listen = Some("nowhere".to_owned());
        args.store = Some("etcd".to_owned());
        args.log_format = Some("xml".to_owned());
        let problems = load(&args).unwrap_err().to_string();
        for part in [
            "--insecure",
            "admin_listen",
            "not built in",
            "log.format",
            "policy.grace_period",
            "policy.parameters",
            "attach_endpoint",
        ] {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }

    #[test]
    fn with_tls_every_address_is_fine_and_half_of_it_is_not_taken_for_none() {
        let (_file, mut args) = file("listen = \"0.0.0.0:1\"\nadmin_listen = \"0.0.0.0:2\"\nstore = \"memory\"\n");
        let problems = load(&args).unwrap_err().to_string();
        assert_eq!(problems.matches("--tls-cert").count(), 2, "{problems}");
        args.tls_client_ca = Some("ca.pem".into());
        args.tls_key = Some("key.pem".into());
        let problems = load(&args).unwrap_err().to_string();
        assert_eq!(problems, "  - tls.certificate is not set, and TLS needs it: give the file with --tls-cert");
        args.tls_cert = Some("cert.pem".into());
        let tls = load(&args).unwrap().config.tls.unwrap();
        assert_eq!(tls.own.certificate.path, Path::new("cert.pem"));
        assert_eq!(tls.client_ca.unwrap().to_string(), "ca.pem (tls.client_ca)");
    }

    #[test]
    fn hooks_are_known_by_the_ca_of_clients_unless_theirs_is_named_and_need_tls_unless_it_says() {
        let with = |text: &str, insecure: bool| {
            let (_file, mut args) = file(&format!("store = \"memory\"\n[tls]\n{text}"));
            args.insecure = Some(insecure);
            let settings = load(&args).unwrap();
            let shown = from_text(&settings.to_toml()).unwrap().config;
            let ca = settings.config.hook_ca.map(|file| file.to_string());
            assert_eq!(shown.hook_ca.map(|file| file.to_string()), ca, "it is shown");
            (ca, settings.config.hooks_in_clear)
        };
        let own = "certificate = \"c\"\nkey = \"k\"\n";
        let named = |path: &str| Some(format!("{path} (tls.hook_ca)"));
        assert_eq!(with("", false), (None, false));
        assert_eq!(with("", true), (None, true));
        assert_eq!(with("hook_ca = \"h\"\n", false), (named("h"), false));
        assert_eq!(with(own, false), (None, false));
        assert_eq!(with(own, true), (None, true));
        assert_eq!(with(&format!("{own}client_ca = \"ca\"\n"), false), (named("ca"), false));
        assert_eq!(with(&format!("{own}client_ca = \"ca\"\nhook_ca = \"h\"\n"), false), (named("h"), false));
    }

    #[test]
    fn no_name_but_localhost_is_looked_up() {
        for text in ["localhost:80", "127.0.0.1:80"] {
            assert_eq!(address("listen", text, &mut Vec::new()).unwrap().port(), 80, "{text}");
        }
        // What stands before the last colon would be asked of the network; `localhost:` in front makes it no better.
        for text in ["localhost:nowhere.invalid:80", "localhost:127.0.0.1:80", "nowhere.invalid:80", "localhost:port"] {
            let mut problems = Vec::new();
            assert_eq!(address("listen", text, &mut problems), None, "{text}");
            assert_eq!(problems.len(), 1, "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_problems() {
        let (_file, args) = file("lissten = \"127.0.0.1:1\"\n");
        assert!(load(&args).unwrap_err().to_string().contains("lissten"));
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let (_file, args) = file("store = \"memory\"\n[policy.retry]\nmax_attempts = 5\n");
        let printed = load(&args).unwrap().to_toml();
        let (_again, args) = file(&printed);
        let settings = load(&args).unwrap();
        assert_eq!(settings.config.default_policy.max_attempts, 5);
        assert_eq!(settings.to_toml(), printed);
    }
}
