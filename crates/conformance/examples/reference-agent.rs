//! The agent of this project, as a program that the tests of this crate can start.

use std::process::ExitCode;

use clap::Parser;
use quiesce_agent::args::AgentArgs;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    agent: AgentArgs,
}

fn main() -> ExitCode {
    if let Some(code) = quiesce_agent::take_part() {
        return code;
    }
    quiesce_agent::run(Cli::parse().agent)
}
