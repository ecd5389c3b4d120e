//! `hook-conformance`: does a hook keep the rules?
//!
//! Owns the process: arguments, output, exit code. 0: nothing counts against the hook; 1: something does, or nothing could
//! be checked; 2: the command line or the configuration is wrong.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use quiesce_conformance::args::{Args, Place, Plan};
use quiesce_conformance::fixture::Commands;
use quiesce_conformance::gateway::Gateway;
use quiesce_conformance::subject::Subject;
use quiesce_conformance::{hook, output};
use quiesce_runtime::machine::Machine;
use quiesce_runtime::tasks::Tasks;

/// As clap says it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.choice.list {
        print!("{}", args.choice.listing(hook::GROUPS));
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
    match runtime.block_on(run(&args, plan)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, plan: Plan) -> Result<bool, String> {
    let Plan { config, place, selection } = plan;
    let tasks = Tasks::new();
    let settings = config.subject_settings();
    let fixture = Arc::new(Commands::new(&config));
    let subject = match place {
        Place::Listening(endpoint) => Subject::listening(fixture, endpoint, settings),
        Place::Registering(address) => {
            let gateway = Gateway::bind(Machine::local(), &address, &tasks).await;
            let gateway = gateway.map_err(|error| format!("--accept {address}: cannot listen there: {error}"))?;
            if !args.choice.is_quiet() {
                println!("waiting for the hook to register at {}", gateway.address());
            }
            Subject::registering(fixture, gateway, settings)
        }
    };
    let told = |result: &quiesce_conformance::run::CheckResult| args.choice.tell(result);
    let report = hook::run(&subject, &selection, told).await.map_err(|error| error.to_string())?;
    let remark = output::shortened(config.waits).unwrap_or_default();
    args.choice.conclude("hook-conformance", &remark, &report)?;
    Ok(report.is_passed(args.choice.strict))
}
