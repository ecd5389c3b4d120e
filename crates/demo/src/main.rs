//! The ledger as a program of its own. It is told everything by environment variables; see the README of this crate.

use std::env;
use std::io;
use std::process::ExitCode;

use quiesce_demo::ledger::{self, LedgerOptions};
use tracing::error;

/// EX_USAGE of sysexits.
const WRONG_ENVIRONMENT: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::INFO).init();
    let options = match LedgerOptions::from_vars(|name| env::var_os(name)) {
        Ok(options) => options,
        Err(problem) => {
            error!("{problem}");
            return ExitCode::from(WRONG_ENVIRONMENT);
        }
    };
    match ledger::run(options).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{}", ledger::chain(&problem));
            ExitCode::from(problem.exit_code())
        }
    }
}
