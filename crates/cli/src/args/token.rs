//! `quiesce token ...` as clap sees it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use quiesce_runtime::duration;

use super::{Common, examples};

#[derive(Debug, Args)]
#[command(after_help = examples::TOKEN)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and show it, once
    Create(TokenCreateArgs),
    /// List tokens; what they are is not shown
    List(TokenListArgs),
    /// Make a token worthless, at once and for good
    Revoke(TokenRevokeArgs),
}

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// Look at everything
    Viewer,
    /// And run operations
    Operator,
    /// And everything else, overrides included
    Admin,
    /// Let an agent join (its --join-token-file); nothing else
    Agent,
}

#[derive(Debug, Args)]
#[command(after_help = examples::TOKEN_CREATE)]
pub(crate) struct TokenCreateArgs {
    /// What it lets its bearer do
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: TokenRole,
    /// Whose it is, for people and the audit log [default: the role]
    #[arg(long, value_name = "WHO")]
    pub(crate) name: Option<String>,
    /// Only for this application: db or applications/db; may be repeated. Needed for agents
    #[arg(long = "application", value_name = "APP", required_if_eq("role", "agent"))]
    pub(crate) applications: Vec<String>,
    /// How long it is good, at most 366d [default: 90d; for agents 24h]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_lifetime)]
    pub(crate) lifetime: Option<Duration>,
    /// For agents: how many instances may join with it [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) uses: Option<i32>,
    /// Put it into this new file, for its owner only, instead of showing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::TOKEN_LIST)]
pub(crate) struct TokenListArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
#[command(after_help = examples::TOKEN_REVOKE)]
pub(crate) struct TokenRevokeArgs {
    /// The token by its name, never the token itself: t0c1... or tokens/t0c1...
    pub(crate) token: String,
    /// Why, for people and the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) common: Common,
}
