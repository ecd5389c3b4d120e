//! `scheduler-conformance`: does a scheduler keep its promises?
//!
//! Owns the process: arguments, output, exit code. 0: nothing counts against the scheduler; 1: something does, or nothing
//! could be checked; 2: the command line or the configuration is wrong.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::ExitCode;

use clap::Parser as _;
use quiesce_conformance::scheduler::{self, args::Args};

/// As clap says it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.choice.list {
        print!("{}", args.choice.listing(scheduler::GROUPS));
        return ExitCode::SUCCESS;
    }
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {problem}");
            }
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let told = |result: &quiesce_conformance::run::CheckResult| args.choice.tell(result);
        let run = scheduler::run(&plan.subject, &plan.selection, told).await;
        let report = run.map_err(|error| error.to_string())?;
        args.choice.conclude("scheduler-conformance", "", &report)?;
        Ok::<_, String>(report.is_passed(args.choice.strict))
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
