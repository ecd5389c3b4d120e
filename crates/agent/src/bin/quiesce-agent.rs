//! The agent as a program of its own: small, since one stands beside every instance.

use std::process::ExitCode;

use clap::Parser;
use quiesce_agent::args::AgentArgs;

#[derive(Debug, Parser)]
#[command(name = "quiesce-agent", version, about, long_about = None)]
struct Cli {
    #[command(flatten)]
    agent: AgentArgs,
}

fn main() -> ExitCode {
    quiesce_agent::run(Cli::parse().agent)
}
