//! The scheduler as a process: flags, log, signals, exit code.
//!
//! Owns what people see of it on the command line and on standard error. Everything else is in [`crate::server`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use quiesce_runtime::signals::Signals;
use quiesce_runtime::telemetry::{self, chain};
use tracing::{error, info, warn};

use crate::access::Mode;
use crate::config::{self, Settings};
use crate::server::{BindError, Scheduler, StoreChoice};

/// Exit code for a configuration that cannot be used (`EX_USAGE` of sysexits.h); wrong flags end with 2.
const EXIT_CONFIG: u8 = 64;

/// Flags of `quiesce scheduler`. Each beats its environment variable, which beats the file, which beats the default.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SchedulerArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_CONFIG")]
    pub config: Option<PathBuf>,

    /// Where callers and agents come in [default: 127.0.0.1:7600]
    #[arg(long, value_name = "ADDR", env = "QUIESCE_SCHEDULER_LISTEN")]
    pub listen: Option<String>,

    /// Where /metrics, /healthz and /readyz are served, or "off" [default: 127.0.0.1:7601]
    #[arg(long, value_name = "ADDR", env = "QUIESCE_SCHEDULER_ADMIN_LISTEN")]
    pub admin_listen: Option<String>,

    /// Where the state is kept [default: $XDG_STATE_HOME/quiesce/scheduler; for root
    /// /var/lib/quiesce/scheduler]
    #[arg(long, value_name = "DIR", env = "QUIESCE_SCHEDULER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// How the state is kept: embedded, memory (gone with the process) or etcd [default: embedded]
    #[arg(long, value_name = "STORE", env = "QUIESCE_SCHEDULER_STORE")]
    pub store: Option<String>,

    /// Addresses of etcd, separated by commas; for --store etcd
    #[arg(long, value_name = "URLS", env = "QUIESCE_SCHEDULER_ETCD_ENDPOINTS")]
    pub etcd_endpoints: Option<String>,

    /// Where agents dial in, if that is not where they call, as host:port
    #[arg(long, value_name = "ADDR", env = "QUIESCE_SCHEDULER_ATTACH_ENDPOINT")]
    pub attach_endpoint: Option<String>,

    /// Speak TLS with this certificate, followed by those between it and the CA (PEM)
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert (PEM), for its owner alone to read
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Know clients by certificates these CAs have signed (PEM); those without are served as well
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// Pages that may call by gRPC-Web, as https://ops.example.net, separated by commas [default: none]
    #[arg(long, value_name = "ORIGINS", env = "QUIESCE_SCHEDULER_WEB_ORIGINS")]
    pub web_origins: Option<String>,

    /// Show on a page of the admin address what goes on; it takes the role viewer where access is enforced
    #[arg(long, env = "QUIESCE_SCHEDULER_WEB_PAGE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub web_page: Option<bool>,

    /// Trust a hook at https:// whose certificate these CAs have signed (PEM) [default: as --tls-client-ca, else the
    /// system's]
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_TLS_HOOK_CA")]
    pub tls_hook_ca: Option<PathBuf>,

    /// Do without TLS on other addresses than loopback: for callers if there is no certificate, and for hooks that listen
    #[arg(long, env = "QUIESCE_SCHEDULER_INSECURE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,

    /// Who may call: open (everybody may do everything) or enforced (tokens, certificates, roles) [default: open on
    /// loopback, else enforced]
    #[arg(long, value_name = "MODE", env = "QUIESCE_SCHEDULER_ACCESS")]
    pub access: Option<String>,

    /// Where to record who changed what and who was refused: a file, - for standard output, or off [default: off when
    /// access is open, else audit.jsonl in the data directory]
    #[arg(long, value_name = "FILE", env = "QUIESCE_SCHEDULER_AUDIT")]
    pub audit: Option<String>,

    /// What to log: directives such as info,quiesce_scheduler=debug [default: info]
    #[arg(long, value_name = "FILTER", env = "QUIESCE_SCHEDULER_LOG")]
    pub log: Option<String>,

    /// How to log: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT", env = "QUIESCE_SCHEDULER_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// Make a new key for tokens at this start, whatever the age of the one there is; what has begun keeps its own
    #[arg(long)]
    pub rotate_key: bool,

    /// Print the settings in effect as TOML and exit
    #[arg(long)]
    pub print_config: bool,
}

/// Runs a scheduler until SIGTERM or SIGINT. For `main`: sets up the log, installs signal handlers.
#[must_use]
pub fn run(args: SchedulerArgs) -> ExitCode {
    let settings = match config::load(&args) {
        Ok(settings) => settings,
        Err(problems) => {
            say(&format!("the configuration cannot be used:\n{problems}"));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if args.print_config {
        return print_config(&settings);
    }
    if let Err(error) = telemetry::init(&settings.telemetry) {
        say(&chain(&error).to_string());
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("cannot start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> ExitCode {
    let voice = Voice { json: settings.telemetry.is_json() };
    // Before anything is opened, so that no signal finds a half-open scheduler with the default handler.
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            voice.complain(&chain(&error).to_string());
            return ExitCode::FAILURE;
        }
    };
    let state = match &settings.config.store {
        StoreChoice::Embedded { directory } => directory.display().to_string(),
        StoreChoice::Memory | StoreChoice::Given(_) => "in memory, gone with this process".to_owned(),
    };
    let (mode, has_page) = (settings.config.access.mode, settings.config.page);
    if settings.insecure && settings.config.tls.is_some() {
        warn!(
            "--insecure: hooks that listen without TLS are called, and whoever is on the network can read their tokens"
        );
    } else if settings.insecure {
        warn!("--insecure: whoever reaches this scheduler can read everything and stop applications");
    }
    let scheme = if settings.config.tls.is_some() { "https" } else { "http" };
    let ca = if settings.config.tls.is_some() { " --ca FILE" } else { "" };
    let bound = match Scheduler::bind(settings.config).await {
        Ok(bound) => bound,
        Err(error) => {
            voice.complain(&format!("the scheduler cannot start: {}", chain(&error)));
            if let BindError::Listen { address, .. } = &error {
                voice.complain(&format!("is another scheduler running? try another port than {}", address.port()));
            }
            return ExitCode::FAILURE;
        }
    };
    let (local, admin) = (bound.local_addr(), bound.admin_addr());
    let first_admin = bound.first_admin_token().map(|path| path.display().to_string());
    let admin_scheme = if bound.is_admin_encrypted() { "https" } else { "http" };
    let ready = move |resumed: usize| {
        let admin = admin.map(|admin| format!("{admin_scheme}://{admin}"));
        let looks = admin.as_ref().map(|admin| format!(", metrics and health on {admin}")).unwrap_or_default();
        voice.say(&format!("scheduler listens on {scheme}://{local}{looks}"));
        voice.say(&format!("state: {state}; operations resumed: {resumed}"));
        if let Some(admin) = admin.filter(|_| has_page) {
            voice.say(&format!("a page that shows what goes on: {admin}/"));
        }
        if let Some(path) = first_admin {
            voice.say(&format!("access: enforced; the first admin token is in {path}, for --token-file"));
        }
        let agent = format!("quiesce agent --application NAME --cluster NAME --scheduler {scheme}://{local}{ca}");
        match mode {
            Mode::Open => voice.say(&format!("next: {agent} -- COMMAND")),
            Mode::Enforced => {
                voice.say(&format!(
                    "next: quiesce{ca} --token-file FILE token create --role agent --application NAME --out join.token"
                ));
                voice.say(&format!("then: {agent} --join-token-file join.token -- COMMAND"));
            }
        }
    };
    let until = async {
        let signal = signals.next().await;
        info!(%signal, "stopping");
    };
    match bound.run_and_tell(until, ready).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %chain(&error), "the scheduler failed");
            ExitCode::FAILURE
        }
    }
}

fn print_config(settings: &Settings) -> ExitCode {
    let written = std::io::stdout().write_all(settings.to_toml().as_bytes());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How people hear of its start and of what keeps it from starting: as text, or as lines of the log where these are JSON,
/// so that whoever reads them as that can read every line.
#[derive(Debug, Clone, Copy)]
struct Voice {
    json: bool,
}

impl Voice {
    fn say(self, line: &str) {
        if self.json { info!("{line}") } else { say(line) }
    }

    fn complain(self, line: &str) {
        if self.json { error!("{line}") } else { say(line) }
    }
}

/// One line for people on standard error. If nobody can read it there is nowhere else to say so.
fn say(line: &str) {
    let _unread = writeln!(std::io::stderr(), "quiesce: {line}");
}
