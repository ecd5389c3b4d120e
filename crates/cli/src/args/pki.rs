//! `quiesce pki ...` as clap sees it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use quiesce_runtime::duration;

use super::{Common, examples};

#[derive(Debug, Args)]
#[command(after_help = examples::PKI)]
pub(crate) struct PkiArgs {
    #[command(subcommand)]
    pub(crate) command: PkiCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a CA: ca.pem, which everybody may have, and ca.key, which signs certificates
    Init(PkiInitArgs),
    /// Make a key and a certificate for it that the CA has signed; again for the same names: renew them
    Issue(PkiIssueArgs),
    /// Say what is in a file with certificates
    Show(PkiShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = examples::PKI_INIT)]
pub(crate) struct PkiInitArgs {
    /// Where to keep it; a CA that is there is never overwritten
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// What it is called
    #[arg(long, value_name = "TEXT", default_value = "quiesce")]
    pub(crate) name: String,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "3650d", value_parser = duration::parse_lifetime)]
    pub(crate) lifetime: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::PKI_ISSUE)]
pub(crate) struct PkiIssueArgs {
    /// Where the CA is, and where NAME.pem and NAME.key are put
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Whom it is for: DNS names, IP addresses, one URI; files are called by the first one's last part
    #[arg(value_name = "NAME", required_unless_present = "agent")]
    pub(crate) names: Vec<String>,
    /// For the agent of this instance: spiffe://quiesce/applications/APP/instances/INSTANCE
    #[arg(long, value_name = "APP/INSTANCE")]
    pub(crate) agent: Option<String>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = duration::parse_lifetime)]
    pub(crate) lifetime: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::PKI_SHOW)]
pub(crate) struct PkiShowArgs {
    /// A PEM file with one certificate or several
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) common: Common,
}
