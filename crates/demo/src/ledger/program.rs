//! The ledger as a process: environment, log, exit code. The program `ledger` is this and nothing else; another binary may
//! offer it, too.

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tokio::runtime::Builder;
use tracing::error;

use super::{LedgerOptions, chain, run};

/// EX_USAGE of sysexits.
const WRONG_ENVIRONMENT: u8 = 64;

/// Runs a ledger until it is told to stop, and returns the exit code of the process. For `main`: sets up a log on
/// standard error and a runtime.
pub fn program() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO)
        .init();
    let options = match LedgerOptions::from_vars(|name| env::var_os(name)) {
        Ok(options) => options,
        Err(problem) => {
            error!("{problem}");
            return ExitCode::from(WRONG_ENVIRONMENT);
        }
    };
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!("cannot start the runtime: {problem}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{}", chain(&problem));
            ExitCode::from(problem.exit_code())
        }
    }
}
