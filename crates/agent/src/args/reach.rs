//! Flags that say how the agent and its scheduler reach each other, and how they know each other.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use quiesce_runtime::secret_file;
use quiesce_runtime::telemetry::chain;
use quiesce_runtime::tls::{AcceptorFiles, ClientCertificates, ConnectorFiles, ConnectorSettings, KeyPair, NamedFile};

use crate::life::{Listen, Reach};

/// How the agent and its scheduler reach each other.
#[derive(Debug, Clone, Args)]
pub struct ReachArgs {
    /// The scheduler; need not be there yet
    #[arg(long, env = "QUIESCE_SCHEDULER", value_name = "URL", default_value = "http://127.0.0.1:7600")]
    pub scheduler: String,

    /// Prove to the scheduler, with the token in this file, that this agent may join; afterwards it has a token of its own
    #[arg(long, env = "QUIESCE_AGENT_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Trust a scheduler at https:// whose certificate these CAs have signed (PEM) [default: the system's]
    #[arg(long, env = "QUIESCE_AGENT_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Show the scheduler this certificate (PEM); with --listen HOST:PORT the hook is served in TLS with it
    #[arg(long, env = "QUIESCE_AGENT_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,

    /// Private key of --cert (PEM), for its owner alone to read
    #[arg(long, env = "QUIESCE_AGENT_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,

    /// Serve the hook here (HOST:PORT or unix:/PATH) instead of dialling in to the scheduler
    #[arg(long, env = "QUIESCE_LISTEN", value_name = "ADDR")]
    pub listen: Option<String>,

    /// Where the scheduler reaches --listen, when that is a wildcard address or behind a translation
    #[arg(long, env = "QUIESCE_ADVERTISE", value_name = "HOST:PORT", requires = "listen")]
    pub advertise: Option<String>,

    /// With --listen, let only those connect who have a certificate that these CAs have signed (PEM)
    #[arg(long, env = "QUIESCE_AGENT_HOOK_CLIENT_CA", value_name = "FILE", requires_all = ["listen", "cert"])]
    pub hook_client_ca: Option<PathBuf>,

    /// With --listen, do without TLS on another address than loopback, although others can read the hook's token
    #[arg(long, env = "QUIESCE_AGENT_INSECURE")]
    pub insecure: bool,
}

impl ReachArgs {
    /// Checks all of it, but for the contents of files other than tokens.
    pub(super) fn resolve(self, problems: &mut Vec<String>) -> Reach {
        self.check_tls(problems);
        self.check_listen(problems);
        // One that is not there any more may have been used up.
        if let Some(Err(error)) = self.join_token_file.as_deref().map(secret_file::read)
            && !error.is_missing()
        {
            problems.push(format!("--join-token-file: {}", chain(&error)));
        }
        let own = self.cert.zip(self.key);
        let listen = self.listen.map(|address| {
            let own = own.clone().filter(|_| !is_unix(&address));
            let tls = own.map(|(certificate, key)| acceptor_files(certificate, key, self.hook_client_ca));
            Listen { address, advertise: self.advertise, tls }
        });
        let files = ConnectorFiles { authorities: self.ca, own, settings: ConnectorSettings::FLAGS };
        let tls = self.scheduler.starts_with("https://").then_some(files);
        Reach::Sockets { scheduler: self.scheduler, tls, listen }
    }

    /// What `--insecure` comes to, to be said at every start.
    pub(crate) fn insecurity(&self) -> Option<&'static str> {
        let needed = self.listens_on_a_network_in_clear();
        self.insecure.then_some(if needed {
            "--insecure: the hook is served without TLS, and whoever is on the network can read its token and stop the \
             application"
        } else {
            "--insecure does nothing here; leave it out"
        })
    }

    fn listens_on_a_network_in_clear(&self) -> bool {
        self.cert.is_none() && self.listen.as_ref().is_some_and(|address| !is_unix(address) && !is_loopback(address))
    }

    fn check_tls(&self, problems: &mut Vec<String>) {
        let url = &self.scheduler;
        let (to_https, in_tls) =
            (url.starts_with("https://"), self.listen.as_ref().is_some_and(|address| !is_unix(address)));
        if self.ca.is_some() && !to_https {
            problems.push(format!("--ca is for a scheduler at https://, and --scheduler is {url}"));
        }
        if self.cert.is_some() && !to_https && !in_tls {
            problems.push(format!(
                "--cert and --key are for a scheduler at https:// or a hook with --listen HOST:PORT, and --scheduler is \
                 {url}"
            ));
        }
        if self.hook_client_ca.is_some() && self.listen.is_some() && !in_tls {
            problems.push(
                "--hook-client-ca is for --listen HOST:PORT: a unix socket can be opened by its owner alone, and is \
                 served without TLS"
                    .to_owned(),
            );
        }
    }

    fn check_listen(&self, problems: &mut Vec<String>) {
        if let Some(listen) = &self.listen
            && self.advertise.is_none()
            && is_wildcard(listen)
        {
            problems
                .push(format!("--listen {listen} needs --advertise HOST:PORT: the scheduler cannot dial a wildcard"));
        }
        if let Some(address) = self.listen.as_ref().filter(|address| !is_address(address)) {
            problems.push(format!("--listen {address:?} is neither HOST:PORT nor unix:/PATH"));
        } else if self.listens_on_a_network_in_clear() && !self.insecure {
            problems.push(format!(
                "--listen {} is not a loopback address, and without TLS whoever is on the network can read the hook's \
                 token and stop the application. Give a certificate with --cert and --key (none? see `quiesce pki`), \
                 leave out --listen so that the agent dials in, or say --insecure if the network is trusted",
                self.listen.as_deref().unwrap_or_default(),
            ));
        }
        if let Some(address) = self.advertise.as_ref().filter(|address| is_unix(address) || !is_address(address)) {
            problems.push(format!("--advertise {address:?} is not HOST:PORT"));
        }
    }
}

fn acceptor_files(certificate: PathBuf, key: PathBuf, clients: Option<PathBuf>) -> AcceptorFiles {
    let named = |setting, path| NamedFile { setting, path };
    let own = KeyPair { certificate: named("--cert", certificate), key: named("--key", key) };
    let clients = clients.map(|path| named("--hook-client-ca", path));
    AcceptorFiles { own, clients: clients.map_or(ClientCertificates::Ignored, ClientCertificates::Required) }
}

fn is_unix(address: &str) -> bool {
    address.starts_with("unix:")
}

fn is_address(address: &str) -> bool {
    match address.strip_prefix("unix:") {
        Some(path) => path.starts_with('/'),
        None => address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()),
    }
}

fn is_wildcard(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _)| matches!(host, "0.0.0.0" | "[::]"))
}

/// Names other than `localhost` lead wherever somebody else says.
fn is_loopback(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else { return false };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        reach: ReachArgs,
    }

    fn args(flags: &str) -> ReachArgs {
        Cli::parse_from(["agent"].into_iter().chain(flags.split_whitespace())).reach
    }

    fn resolved(flags: &str) -> (Option<ConnectorFiles>, Option<Listen>) {
        let mut problems = Vec::new();
        let reach = args(flags).resolve(&mut problems);
        assert_eq!(problems, [""; 0], "{flags}");
        let Reach::Sockets { tls, listen, .. } = reach else { panic!("sockets") };
        (tls, listen)
    }

    #[test]
    fn a_certificate_is_for_the_scheduler_and_for_a_hook_on_a_port() {
        let own = "--cert c.pem --key k.pem";
        let (tls, listen) = resolved(&format!("--scheduler https://s:1 {own} --listen 10.0.0.7:1"));
        assert!(tls.unwrap().own.is_some() && listen.unwrap().tls.is_some());
        let (tls, listen) = resolved(&format!("{own} --listen 10.0.0.7:1 --hook-client-ca ca.pem"));
        assert!(tls.is_none());
        assert!(matches!(listen.unwrap().tls.unwrap().clients, ClientCertificates::Required(_)));
        let (tls, listen) = resolved(&format!("--scheduler https://s:1 {own} --listen unix:/s"));
        assert!(tls.unwrap().own.is_some() && listen.unwrap().tls.is_none());
    }

    #[test]
    fn beyond_loopback_a_hook_is_served_in_tls_or_it_is_said_that_it_is_not() {
        for address in ["10.0.0.7:1", "[2001:db8::1]:1", "db-0:1", "0.0.0.0:1 --advertise a:1"] {
            let mut problems = Vec::new();
            args(&format!("--listen {address}")).resolve(&mut problems);
            assert!(problems.len() == 1 && problems[0].contains("--insecure"), "{address}: {problems:?}");
            let knowing = args(&format!("--insecure --listen {address}"));
            assert!(knowing.insecurity().unwrap().contains("without TLS"));
            resolved(&format!("--insecure --listen {address}"));
        }
        for private in ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/s"] {
            resolved(&format!("--listen {private}"));
            assert!(args(&format!("--insecure --listen {private}")).insecurity().unwrap().contains("nothing"));
        }
        assert_eq!(args("--listen 127.0.0.1:1").insecurity(), None);
    }
}
