//! The scheduler of this project, as a program that the tests of this crate can start.

use std::process::ExitCode;

use clap::Parser;
use quiesce_scheduler::args::SchedulerArgs;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    scheduler: SchedulerArgs,
}

fn main() -> ExitCode {
    quiesce_scheduler::args::run(Cli::parse().scheduler)
}
