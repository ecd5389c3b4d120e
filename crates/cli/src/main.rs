//! The command line of Quiesce.
//!
//! Owns the process: arguments, environment, exit code. It talks to a scheduler through the public contract only; the
//! scheduler and the agent are libraries it merely starts.

mod args;
mod client;
mod commands;
mod doctor;
mod error;
mod follow;
mod live;
mod manual;
mod name;
mod output;
mod pki;
mod terminal;
mod top;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::Surroundings;

/// A fifth of the scheduler's time went into the allocator of glibc, and that of musl, which a static binary would have, is
/// slower by several times. See docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(code) = quiesce_agent::take_part() {
        return code;
    }
    let cli = args::Cli::parse();
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let file = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let surroundings = Surroundings {
        scheduler: env::var("QUIESCE_SCHEDULER").ok().filter(|url| !url.is_empty()),
        token_file: file("QUIESCE_TOKEN_FILE"),
        token: env::var("QUIESCE_TOKEN").ok().filter(|token| !token.is_empty()),
        ca: file("QUIESCE_CA"),
        cert: file("QUIESCE_CERT"),
        key: file("QUIESCE_KEY"),
        no_color: is_set("NO_COLOR"),
        dumb: env::var_os("TERM").is_some_and(|term| term == "dumb"),
    };
    commands::run(cli, surroundings)
}
