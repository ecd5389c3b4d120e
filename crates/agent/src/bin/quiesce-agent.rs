//! The agent as a program of its own: small, since one stands beside every instance.

use std::process::ExitCode;

use clap::Parser as _;
use quiesce_agent::args::Program;

fn main() -> ExitCode {
    if let Some(code) = quiesce_agent::take_part() {
        return code;
    }
    quiesce_agent::run(Program::parse().agent)
}
