//! How fast and how small Quiesce is, beside the limits that apply.
//!
//! ```text
//! just bench [--only GROUP[,GROUP]] [--smoke] [--operations N] [--json FILE]
//! ```
//!
//! One run measures everything in it, ours and the limit in turns, on loopback and on one disk; what the rows mean is in
//! `docs/performance.md`. Programs under test are those beside this one, or in `QUIESCE_BENCH_PROGRAMS`.
//!
//! The program also plays those whom it needs: a scheduler without content ([`skeleton`]), an application ([`victim`]).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]

mod agent;
mod arguments;
mod callers;
mod disk;
mod durable;
mod fan_out;
mod flight;
mod hooks;
mod idle;
mod many;
mod notice;
mod plain;
mod process;
mod size;
mod skeleton;
mod straw;
mod tls;
mod victim;
mod whole;

use std::process::ExitCode;

use quiesce_benches::report::{Report, Row};

use crate::arguments::{Arguments, Group, Role};
use crate::size::Size;

fn main() -> anyhow::Result<ExitCode> {
    if let Some(code) = quiesce_agent::take_part() {
        return Ok(code);
    }
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("error: {problem}\n\n{}", arguments::USAGE);
            return Ok(ExitCode::from(2));
        }
    };
    match &arguments.role {
        Role::Victim => Ok(victim::run()?),
        Role::Notice { directory, count } => notice::run(directory, *count),
        Role::Skeleton(options) => {
            // The shape that serves small calls fastest on few cores: the limit is to be a limit.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(skeleton::serve(options))?;
            Ok(ExitCode::SUCCESS)
        }
        Role::Measure => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let report = runtime.block_on(Box::pin(measure(&arguments)))?;
            println!("{report}");
            if let Some(path) = &arguments.json {
                std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Every group that was asked for, one after the other.
async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let size = Size::of(arguments);
    let mut report = Report::default();
    for group in Group::ALL.into_iter().filter(|group| arguments.wants(*group)) {
        eprintln!("measuring: {}", group.name());
        let rows: Vec<Row> = match group {
            Group::Whole => whole::measure(&size).await?,
            Group::Idle => idle::measure(&size).await?,
            Group::Durable => durable::measure(&size).await?,
            Group::Flight => flight::measure(&size).await?,
            Group::FanOut => fan_out::measure(&size).await?,
            Group::Agent => agent::measure(&size).await?,
            Group::Many => many::measure(&size).await?,
        };
        for row in &rows {
            eprintln!("  {}: {:.2}, limit {:.2}", row.what, row.ours, row.limit.unwrap_or(f64::NAN));
        }
        report.extend(rows);
    }
    Ok(report)
}
