//! The ledger as a program of its own. It is told everything by environment variables; see the README of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    quiesce_demo::ledger::program()
}
