//! `hook-conformance`: does a hook keep the rules?
//!
//! Owns the process: arguments, output, exit code. 0: nothing counts against the hook; 1: something does, or nothing could
//! be checked; 2: the command line or the configuration is wrong.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::io::Write as _;
use std::path::Path;
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
    if args.list {
        let as_json = args.json.is_some();
        print!("{}", if as_json { format!("{:#}\n", output::list_json()) } else { output::list() });
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
    let quiet = args.json.as_deref() == Some(Path::new("-"));
    let tasks = Tasks::new();
    let settings = config.subject_settings();
    let fixture = Arc::new(Commands::new(&config));
    let subject = match place {
        Place::Listening(endpoint) => Subject::listening(fixture, endpoint, settings),
        Place::Registering(address) => {
            let gateway = Gateway::bind(Machine::local(), &address, &tasks).await;
            let gateway = gateway.map_err(|error| format!("--accept {address}: cannot listen there: {error}"))?;
            if !quiet {
                println!("waiting for the hook to register at {}", gateway.address());
            }
            Subject::registering(fixture, gateway, settings)
        }
    };
    let told = |result: &quiesce_conformance::run::CheckResult| {
        if !quiet {
            print!("{}", output::line(result, args.strict));
            // A line is of use when it comes; a closed pipe is noticed by the next one.
            let _closed = std::io::stdout().flush();
        }
    };
    let report = hook::run(&subject, &selection, told).await.map_err(|error| error.to_string())?;
    if let Some(path) = &args.junit {
        write(path, &output::junit(&report, args.strict))?;
    }
    if let Some(path) = args.json.as_deref().filter(|_| !quiet) {
        write(path, &format!("{:#}\n", output::json(&report, args.strict)))?;
    }
    if quiet {
        println!("{:#}", output::json(&report, args.strict));
    } else {
        print!("\n{}{}", output::shortened(config.waits).unwrap_or_default(), output::summary(&report, args.strict));
    }
    Ok(report.is_passed(args.strict))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
